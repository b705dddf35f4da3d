//! Private namespaces: taps, veth pairs and peers live there and vanish with the last process, also after ^C or SIGKILL.
//!
//! A command that needs them builds everything first, then calls [`enter`], which runs the same command again inside
//! fresh mount, network and process namespaces: as root directly, as anybody else in a user namespace where the host
//! allows one. Nothing is named on the host, so nothing has to be cleaned up there.

use crate::prereq;
use crate::sh::Cmd;
use anyhow::{Context, Result, bail};
use std::process::{Child, Command, Stdio};

const MARK: &str = "KIBBLE_IN_NAMESPACE";

/// Whether this process already runs inside namespaces made by [`enter`].
pub fn inside() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Whether the processes of this namespace are all ours.
pub fn own_pids() -> bool {
    std::env::var(MARK).is_ok_and(|v| v == "pid")
}

/// Runs this very command again inside private namespaces and ends with its exit status.
pub fn enter() -> Result<std::convert::Infallible> {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let status = command(&args)?.into_inner().status().context("cannot start unshare")?;
    std::process::exit(status.code().unwrap_or(1));
}

/// This program with other arguments, inside private namespaces.
pub fn command(args: &[impl AsRef<std::ffi::OsStr>]) -> Result<Cmd> {
    prereq::ensure(&[prereq::NET])?;
    let user: &[&str] = if prereq::is_root() { &[] } else { &["--user", "--map-root-user"] };
    let pid: &[&str] = &["--pid", "--fork", "--mount-proc", "--kill-child"];
    let base: &[&str] = &["unshare", "--mount", "--net"];
    let full = [base, user, pid].concat();
    let small = [base, user].concat();
    let (words, mark) = if Cmd::new(&full).arg("true").ok() {
        (full, "pid")
    } else if Cmd::new(&small).arg("true").ok() {
        (small, "net")
    } else {
        bail!(
            "this host lets us make no network namespace ({}): run as root, or allow unprivileged user namespaces\n\
             (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)",
            if user.is_empty() { "as root" } else { "as a plain user" }
        );
    };
    let exe = std::env::current_exe().context("own program")?;
    // The death signal ends unshare with us, and unshare ends everything inside: ^C leaves nothing behind.
    Ok(Cmd::new(["setpriv", "--pdeathsig", "KILL"]).args(words).arg("--").arg(exe).args(args).env(MARK, mark))
}

/// A name that no other run uses at the same time; process ids are no help in process namespaces of their own.
pub fn unique() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}", now.as_nanos())
}

/// First steps inside: loopback, and a /dev/shm that vanishes with us and what guests leave there.
pub fn prepare() -> Result<()> {
    if !Cmd::line("mount -t tmpfs -o mode=1777 tmpfs /dev/shm").ok() {
        eprintln!("xtask: no private /dev/shm here; a run that is killed leaves its files there");
    }
    Cmd::line("ip link set lo up").read().map(drop)
}

/// A tap device with an address on the host side; gone when dropped.
pub struct Tap {
    /// Its name.
    pub name: String,
}

impl Tap {
    /// A fresh tap, so that no offload setting of an earlier user is left on it.
    pub fn new(name: &str, host_addr: &str) -> Result<Self> {
        Cmd::line(&format!("ip tuntap add dev {name} mode tap")).read()?;
        let tap = Self { name: name.to_owned() };
        Cmd::line(&format!("ip addr add {host_addr}/24 dev {name}")).read()?;
        Cmd::line(&format!("ip link set {name} up")).read()?;
        Ok(tap)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // The ring of a kernel that has just ended may hold it for a moment.
        for _ in 0..20 {
            if Cmd::line(&format!("ip link del {}", self.name)).ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

/// A second network namespace at the other end of a veth pair; gone when dropped.
pub struct Peer {
    holder: Child,
    link: String,
}

impl Peer {
    /// Interface `link` here with `host_addr`, `eth0` there with `peer_addr`.
    pub fn new(link: &str, host_addr: &str, peer_addr: &str) -> Result<Self> {
        let holder = Command::new("unshare")
            .args(["--net", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start unshare")?;
        let peer = Self { holder, link: link.to_owned() };
        peer.ready()?;
        let pid = peer.holder.id();
        Cmd::line(&format!("ip link add {link} type veth peer name eth0 netns {pid}")).read()?;
        Cmd::line(&format!("ip addr add {host_addr}/24 dev {link}")).read()?;
        Cmd::line(&format!("ip link set {link} up")).read()?;
        for c in [
            "ip link set lo up".to_owned(),
            format!("ip addr add {peer_addr}/24 dev eth0"),
            "ip link set eth0 up".to_owned(),
            format!("ip route add default via {host_addr}"),
        ] {
            Cmd::new(peer.enter()).args(c.split_whitespace()).read()?;
        }
        Ok(peer)
    }

    /// Words that run a command in the namespace.
    pub fn enter(&self) -> Vec<String> {
        ["nsenter", "-t", &self.holder.id().to_string(), "-n"].map(str::to_owned).to_vec()
    }

    /// The namespace as a path.
    pub fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// Waits until the holder has left our own network namespace.
    fn ready(&self) -> Result<()> {
        let own = std::fs::read_link("/proc/self/ns/net")?;
        for _ in 0..500 {
            if std::fs::read_link(self.path()).is_ok_and(|p| p != own) {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        bail!("unshare --net did not make a network namespace within a second")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = Cmd::line(&format!("ip link del {}", self.link)).ok();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
