//! What several transports need: interfaces of the host, `ifup=`, sentences for users.

use arch::host::packet::{ARPHRD_ETHER, LinkInfo, link};
use std::process::Command;
use uapi::Errno;

/// `ARPHRD_LOOPBACK`: Ethernet headers as well.
const ARPHRD_LOOPBACK: u16 = 772;

/// What a capability is needed for and how it is granted.
pub fn needs(what: &str, cap: &str) -> String {
    format!(
        "{what}: not permitted: needs {cap}; grant it with 'setcap {}+ep vmlinux', or run as root of a network \
         namespace of your own ('unshare -rn')",
        cap.to_ascii_lowercase()
    )
}

/// An Ethernet interface of the host.
pub fn ethernet(ifname: &str) -> Result<LinkInfo, String> {
    match link(ifname) {
        Ok(l) if l.kind == ARPHRD_ETHER || l.kind == ARPHRD_LOOPBACK => {
            if !l.up {
                log::warn!(target: "vector", "{ifname} is down on the host: 'ip link set {ifname} up'");
            }
            Ok(l)
        }
        Ok(l) => {
            Err(format!("ifname={ifname}: not an Ethernet interface (link type {}); expected one", l.kind))
        }
        Err(Errno::ENODEV) => {
            Err(format!("ifname={ifname}: no such interface on this host; expected one that 'ip link' shows"))
        }
        Err(e) => Err(format!("ifname={ifname}: cannot look it up: {}", e.text())),
    }
}

/// Runs the program of `ifup=` with the interface's name.
pub fn ifup(program: Option<&str>, ifname: &str) -> Result<(), String> {
    let Some(program) = program else { return Ok(()) };
    match Command::new(program).arg(ifname).status() {
        Ok(s) if s.success() => Ok(()),
        Ok(s) => Err(format!("ifup={program}: it failed: {s}")),
        Err(e) => {
            let why = Errno::from_raw(e.raw_os_error().unwrap_or(5));
            Err(format!("ifup={program}: cannot run it: {}; expected a program of the host", why.text()))
        }
    }
}
