//! Interfaces of the host as their users see them: changes of their links (rtnetlink(7)), speed and duplex (SIOCETHTOOL of
//! netdevice(7)). Needs no privilege.

use super::fd::HostFd;
use super::{from_rustix, last_errno};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::os::fd::AsRawFd;
use uapi::{Errno, Result};

const RTMGRP_LINK: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u8 = 18;
const IFLA_IFNAME: u16 = 3;
const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 0x40;
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GSET: u32 = 1;

/// What has become of an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkEvent {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// It is up and its own link works.
    pub running: bool,
    /// It has left this network namespace.
    pub gone: bool,
}

/// A socket that hears of all links of the host's network namespace.
#[derive(Debug)]
pub struct LinkEvents {
    fd: HostFd,
}

fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    b.get(at..)?.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

/// The links that the messages of a datagram tell of; what is malformed ends it.
fn parse(mut d: &[u8], mut f: impl FnMut(LinkEvent)) {
    while let (Some(len), Some(kind)) = (u32_at(d, 0), u16_at(d, 4)) {
        let len = len as usize;
        let Some(msg) = d.get(..len).filter(|m| m.len() >= 16) else { return };
        if matches!(kind, RTM_NEWLINK | RTM_DELLINK)
            && let (Some(index), Some(flags)) = (u32_at(msg, 20), u32_at(msg, 24))
        {
            let mut rest = msg.get(32..).unwrap_or(&[]);
            while let (Some(n), Some(attr)) = (u16_at(rest, 0), u16_at(rest, 2)) {
                let n = usize::from(n);
                let Some(value) = rest.get(4..n) else { break };
                if attr == IFLA_IFNAME {
                    let name = value.split(|b| *b == 0).next().unwrap_or(&[]);
                    f(LinkEvent {
                        index,
                        name: String::from_utf8_lossy(name).into_owned(),
                        running: flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING,
                        gone: kind == RTM_DELLINK,
                    });
                    break;
                }
                rest = rest.get(n.next_multiple_of(4)..).unwrap_or(&[]);
            }
        }
        d = d.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
}

impl LinkEvents {
    /// Opens the socket, non-blocking.
    pub fn open() -> Result<Self> {
        // Protocol 0 is NETLINK_ROUTE.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)
            .map_err(from_rustix)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, RTMGRP_LINK)).map_err(from_rustix)?;
        Ok(Self { fd: HostFd::from(fd) })
    }

    /// The descriptor, for polling.
    pub fn fd(&self) -> &HostFd {
        &self.fd
    }

    /// Asks for the state of all links; the answers are events.
    pub fn refresh(&self) -> Result<()> {
        // RTM_GETLINK with NLM_F_REQUEST | NLM_F_DUMP and a struct ifinfomsg of zeros.
        let mut q = [0u8; 32];
        (q[0], q[4]) = (32, RTM_GETLINK);
        q[6..8].copy_from_slice(&0x301u16.to_ne_bytes());
        self.fd.send_now(&q).map(drop)
    }

    /// Reads what is there. True if events were lost, so that [`refresh`](Self::refresh) is in order.
    pub fn read(&self, mut f: impl FnMut(LinkEvent)) -> bool {
        let mut buf = vec![0; 32 << 10];
        // Bounded: whoever sets links up and down all the time does not hold us.
        for _ in 0..64 {
            match self.fd.recv_now(&mut buf) {
                Ok(n) => parse(buf.get(..n).unwrap_or(&[]), &mut f),
                Err(Errno::ENOBUFS) => return true,
                Err(_) => return false,
            }
        }
        false
    }
}

/// The name that an interface has now. `ENODEV` if this network namespace has no such interface.
pub fn name_of(index: u32) -> Result<String> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(from_rustix)?;
    rustix::net::netdevice::index_to_name(socket, index).map_err(from_rustix)
}

/// Speed and kind of a link, as its driver says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkSpeed {
    /// Mbit/s; `None`: not known.
    pub speed: Option<u32>,
    /// DUPLEX_*: 0 half, 1 full, 0xff not known.
    pub duplex: u8,
    /// PORT_*.
    pub port: u8,
    /// Autonegotiation is on.
    pub autoneg: bool,
}

/// `struct ifreq` with a pointer.
#[repr(C)]
struct IfReq {
    name: [u8; 16],
    data: *mut libc::c_void,
    pad: [u8; 16],
}

/// Asks the host for the speed of an interface. `EOPNOTSUPP` if it has none.
pub fn speed(name: &str) -> Result<LinkSpeed> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(from_rustix)?;
    let mut cmd = [0u8; 44];
    cmd[..4].copy_from_slice(&ETHTOOL_GSET.to_ne_bytes());
    let mut req = IfReq { name: [0; 16], data: cmd.as_mut_ptr().cast(), pad: [0; 16] };
    let bytes = name.as_bytes();
    req.name.get_mut(..bytes.len()).filter(|n| n.len() < 16).ok_or(Errno::ENODEV)?.copy_from_slice(bytes);
    // SAFETY: SIOCETHTOOL reads a struct ifreq of 40 bytes, which lives on this stack frame, and ETHTOOL_GSET writes no
    // more than a struct ethtool_cmd of 44 bytes to where its data points, which is `cmd`.
    let rc = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut req) };
    if rc < 0 {
        return Err(last_errno());
    }
    let half = |at: usize| u32::from(u16_at(&cmd, at).unwrap_or(0));
    let speed = half(12) | half(28) << 16;
    // SPEED_UNKNOWN in either width.
    let known = speed != 0 && speed != 0xffff && speed != u32::MAX;
    Ok(LinkSpeed { speed: known.then_some(speed), duplex: cmd[14], port: cmd[15], autoneg: cmd[18] != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_links_of_this_host_are_told() {
        let ev = LinkEvents::open().expect("a netlink socket");
        ev.refresh().expect("asked");
        assert!(ev.fd().poll_wait(1, 2000).is_ok_and(|e| e & 1 != 0), "waited for the answer");
        let mut names = Vec::new();
        while !ev.read(|e| names.push(e.name)) && !names.iter().any(|n| n == "lo") {
            assert!(ev.fd().poll_wait(1, 2000).is_ok_and(|e| e & 1 != 0), "waited for lo");
        }
        let lo = crate::host::packet::link("lo").expect("lo");
        assert_eq!(name_of(lo.index), Ok("lo".to_owned()));
        assert_eq!(name_of(i32::MAX as u32), Err(Errno::ENODEV));
        assert_eq!(speed("lo"), Err(Errno::EOPNOTSUPP), "lo has no speed");
        assert_eq!(speed("nosuchdevice"), Err(Errno::ENODEV));
        assert_eq!(speed("a name that is too long"), Err(Errno::ENODEV));
    }

    #[test]
    fn malformed_messages_end_quietly() {
        let mut m = vec![0u8; 44];
        m[0] = 44;
        m[4] = 16;
        (m[20], m[24]) = (7, 0x41);
        m[32..44].copy_from_slice(&[9, 0, 3, 0, b't', b'a', b'p', b'0', 0, 0, 0, 0]);
        let mut got = Vec::new();
        parse(&m, |e| got.push(e));
        assert_eq!(got, [LinkEvent { index: 7, name: "tap0".into(), running: true, gone: false }]);
        for n in 0..m.len() {
            parse(&m[..n], |_| {});
            let mut x = m.clone();
            x[n] = 0xff;
            parse(&x, |_| {});
            x[n] = 0;
            parse(&x, |_| {});
        }
    }
}
