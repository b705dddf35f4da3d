//! Namespaces of a test's own: interfaces, sockets and processes that it makes vanish with it.
//!
//! [`inside`] runs a test again in there; [`Peer`] is a second network namespace at the other end of a veth pair.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const MARK: &str = "KIBBLE_TEST_NAMESPACE";

/// Ways into namespaces, the best first: as root the real root is kept, for /dev/net/tun asks for it on some hosts.
const WAYS: [&[&str]; 4] = [
    &["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"],
    &["--net", "--mount"],
    &["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--user", "--map-root-user"],
    &["--net", "--mount", "--user", "--map-root-user"],
];

/// Runs a command of the shell; whether it succeeded. What it writes is thrown away.
pub fn quiet(cmd: &str) -> bool {
    let mut c = Command::new("sh");
    c.args(["-c", cmd]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    c.status().is_ok_and(|s| s.success())
}

/// Runs a command of the shell that must succeed; gives what it writes.
pub fn sh(cmd: &str) -> String {
    let out = Command::new("sh").args(["-c", cmd]).stdin(Stdio::null()).output().expect("a shell");
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{cmd}: {err}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Runs the calling test, whose name is given, again inside fresh namespaces. True in there; false: done, or skipped with
/// the reason printed. Loopback is up in there, and new interfaces say nothing of their own.
pub fn inside(test: &str) -> bool {
    if std::env::var_os(MARK).is_some() {
        sh("ip link set lo up");
        // What tests leave there vanishes with them.
        let _ = quiet("mount -t tmpfs -o mode=1777 tmpfs /dev/shm");
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1");
        return true;
    }
    let works = |w: &&&[&str]| {
        let mut c = Command::new("unshare");
        c.args(**w).args(["ip", "link", "set", "lo", "up"]).output().is_ok_and(|o| o.status.success())
    };
    let Some(way) = WAYS.iter().find(works) else {
        println!("skipped: no network namespaces for us here, or no iproute2");
        return false;
    };
    let status = Command::new("unshare")
        .args(*way)
        .arg(std::env::current_exe().expect("own path"))
        .args([test, "--exact", "--include-ignored", "--nocapture"])
        .env(MARK, "1")
        .status()
        .expect("unshare");
    assert!(status.success(), "{test}: failed in its namespace");
    false
}

/// A new directory that everybody may use, on a tmpfs; gone with the namespaces, where those of mounts are permitted.
pub fn scratch(name: &str) -> PathBuf {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let dir = PathBuf::from(format!("/dev/shm/kibble-{name}-{:x}", now.as_nanos()));
    std::fs::create_dir_all(&dir).expect("directory");
    sh(&format!("chmod 777 {}", dir.display()));
    dir
}

/// A second network namespace, joined to ours by a veth pair; gone when dropped.
pub struct Peer(Child);

impl Peer {
    /// Interface `here` in ours, `there` in the new one, both up.
    pub fn new(here: &str, there: &str) -> Self {
        let holder = Command::new("unshare")
            .args(["--net", "sleep", "600"])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare starts");
        let pid = holder.id();
        let this = Self(holder);
        let own = std::fs::read_link("/proc/self/ns/net").expect("own namespace");
        let end = Instant::now() + Duration::from_secs(10);
        while std::fs::read_link(format!("/proc/{pid}/ns/net")).map_or(true, |p| p == own) {
            assert!(Instant::now() < end, "waited 10 s for unshare to make a namespace");
            std::thread::sleep(Duration::from_millis(5));
        }
        this.sh("echo 1 >/proc/sys/net/ipv6/conf/default/addr_gen_mode; ip link set lo up");
        sh(&format!("ip link add {here} type veth peer name {there} netns {pid}; ip link set {here} up"));
        this.sh(&format!("ip link set {there} up"));
        this
    }

    /// Process that holds it.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Words that run a command in there.
    pub fn words(&self) -> [String; 4] {
        ["nsenter".into(), "-t".into(), self.0.id().to_string(), "-n".into()]
    }

    /// Runs a command of the shell in there; it must succeed.
    pub fn sh(&self, cmd: &str) -> String {
        sh(&format!("{} sh -e <<'END'\n{cmd}\nEND\n", self.words().join(" ")))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
