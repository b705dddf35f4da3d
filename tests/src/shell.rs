//! A guest with bash on its console and one tap to the host: commands with their output and status, every wait bounded.
//!
//! The tap lies in a network namespace of its own, made with the guest; [`Shell::host`] runs programs on its other side.

use crate::guest::Guest;
use crate::workspace::root;
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The host's end of the tap.
pub const HOST: &str = "10.0.2.1";
/// The guest's end.
pub const GUEST: &str = "10.0.2.2";

/// A guest at its shell.
pub struct Shell {
    /// Its console.
    pub guest: Guest,
    /// How long a command may take.
    pub limit: Duration,
}

fn quiet(cmd: &str) -> bool {
    let mut c = Command::new("sh");
    c.args(["-c", cmd]).stdout(Stdio::null()).stderr(Stdio::null());
    c.status().is_ok_and(|s| s.success())
}

/// Why this host cannot run such a guest, or `None`.
pub fn missing() -> Option<&'static str> {
    if !root().join("vmlinux").exists() {
        Some("./vmlinux is not built")
    } else if !root().join("target/images/smoke.ext4").exists() {
        Some("the image is not built: cargo xtask image smoke")
    } else if !quiet("unshare -n true") {
        Some("no network namespaces for us")
    } else if !quiet("unshare -n ip tuntap add tap4 mode tap vnet_hdr") {
        Some("no taps for us")
    } else {
        None
    }
}

impl Shell {
    /// Boots the smoke image. `setup` are shell commands for the host's side, `line` more of the boot line.
    pub fn boot(setup: &str, line: &str) -> Self {
        let mut script = format!(
            "set -e; ip tuntap add tap4 mode tap vnet_hdr; ip addr add {HOST}/24 dev tap4; ip link set tap4 up; \
             ip link set lo up; {setup}\n"
        );
        let root = root();
        let _ = write!(
            script,
            "exec {0}/vmlinux quiet root=/dev/ubda init=/bin/bash ubd0={0}/target/images/smoke.ext4 \
             ip={GUEST}::{HOST}:255.255.255.0:kib:vec0:off vec0:transport=tap,ifname=tap4,depth=128,gro=1 {line}",
            root.display()
        );
        let mut cmd = Command::new("unshare");
        cmd.args(["-n", "sh", "-c", &script]);
        let mut this = Self { guest: Guest::spawn(cmd).expect("starts"), limit: Duration::from_secs(30) };
        println!("waiting for the shell in the guest");
        this.guest.expect("bash-", this.limit).expect("a prompt");
        // Echo off, no prompt: what comes is what commands write.
        this.guest
            .send("PS1=; stty -echo; bind 'set enable-bracketed-paste off' 2>/dev/null; echo up\"\"now\n")
            .expect("typed");
        this.guest.expect("upnow", this.limit).expect("a shell");
        this.run("mount -t tmpfs t /tmp; mount -t proc p /proc; mount -t sysfs s /sys; ip link set lo up");
        this
    }

    /// What a command writes, and its status.
    pub fn run(&mut self, cmd: &str) -> (String, String) {
        println!("waiting for: {cmd}");
        let line = format!("echo \"<\"\"<<\"; {{ {cmd}\n}} 2>&1; echo \"@\"\"@@$?@\"\n");
        self.guest.send(&line).expect("typed");
        let got = self.guest.expect("<<<", self.limit).and_then(|_| self.guest.expect("@@@", self.limit));
        let out = got.unwrap_or_else(|e| panic!("{cmd}: {e}\n{}", self.guest.transcript()));
        let rc = self.guest.expect("@", self.limit).expect("a status");
        (out.replace('\r', "").trim_start_matches('\n').to_owned(), rc)
    }

    /// Runs a command until `good` likes what it writes; panics with `what` when the limit is over.
    pub fn until(&mut self, what: &str, cmd: &str, good: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + self.limit;
        loop {
            let out = self.run(cmd).0;
            if good(&out) {
                return out;
            }
            assert!(Instant::now() < end, "{what}: {cmd} still says {out}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// A program on the host's side of the guest's network.
    pub fn host(&self, args: &[&str]) -> Command {
        let mut c = Command::new("nsenter");
        c.args(["-t", &self.guest.pid().to_string(), "-n"]).args(args);
        c
    }

    /// A number of the machine's process: a field of /proc/PID/status, KiB.
    pub fn status(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.guest.pid())).expect("it runs");
        let line = text.lines().find(|l| l.starts_with(field)).expect("a field");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    }
}
