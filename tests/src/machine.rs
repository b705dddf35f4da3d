//! A guest with a shell: commands go in, what they write and their status come out.
//!
//! Key type: [`Machine`]. It boots any kernel with the boot line of User-Mode Linux from the image `smoke`, bash as init.

use crate::guest::Guest;
use crate::ns::quiet;
use crate::workspace::root;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Limit of every wait.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The image with this host's programs.
pub fn image() -> PathBuf {
    root().join("target/images/smoke.ext4")
}

/// Our kernel.
pub fn vmlinux() -> PathBuf {
    root().join("vmlinux")
}

/// Why no guest of ours can be booted here.
pub fn missing() -> Option<&'static str> {
    if !vmlinux().exists() {
        Some("./vmlinux is not built")
    } else if !image().exists() {
        Some("the image is not built: cargo xtask image smoke")
    } else {
        None
    }
}

/// True if the host has this program.
pub fn have(program: &str) -> bool {
    quiet(&format!("PATH=$PATH:/usr/sbin:/sbin command -v {program}"))
}

/// What to boot.
#[derive(Default)]
pub struct Boot<'a> {
    /// Our kernel if none.
    pub kernel: Option<&'a Path>,
    /// More words of the boot line; the NICs.
    pub words: &'a [&'a str],
    /// Words in front: to run it elsewhere.
    pub before: &'a [String],
    /// The guest's descriptor 7.
    pub fd7: Option<OwnedFd>,
}

/// A guest whose console is a shell.
pub struct Machine {
    guest: Guest,
    /// For messages.
    name: String,
}

impl Machine {
    /// Boots it as far as the shell. `name` stands in messages.
    pub fn boot(name: &str, boot: Boot<'_>) -> Self {
        let kernel = boot.kernel.map_or_else(vmlinux, Path::to_owned);
        // The inherited descriptor comes as standard error, the one place where it needs no unsafe code.
        let script = if boot.fd7.is_some() { "exec 7<&2 2>&1; exec \"$@\"" } else { "exec \"$@\"" };
        let mut words: Vec<String> = ["sh", "-c", script, "sh"].map(str::to_owned).to_vec();
        words.extend(boot.before.iter().cloned());
        words.push(kernel.display().to_string());
        words.push(format!("ubd0r={}", image().display()));
        let rest =
            ["mem=256M", "quiet", "root=/dev/ubda", "ro", "init=/bin/bash", "con=null", "con0=fd:0,fd:1"];
        words.extend(rest.iter().chain(boot.words).map(|w| (*w).to_owned()));
        let mut cmd = Command::new(&words[0]);
        // User-Mode Linux wants its memory on a tmpfs and makes a directory in HOME.
        cmd.args(&words[1..]).env("TMPDIR", "/dev/shm").env("HOME", "/dev/shm");
        let stderr = boot.fd7.map_or_else(Stdio::piped, Stdio::from);
        let mut this = Self { guest: Guest::spawn_with(cmd, stderr).expect("starts"), name: name.to_owned() };
        println!("{name}: waiting for the shell in the guest");
        if let Err(e) = this.guest.expect("bash-", LIMIT) {
            panic!("{name}: {e}; its console:\n{}", this.guest.transcript());
        }
        // Echo off, no prompt: what comes is what commands write.
        this.guest
            .send("PS1=; stty -echo; bind 'set enable-bracketed-paste off' 2>/dev/null; echo up\"\"now\n")
            .expect("typed");
        this.guest.expect("upnow", LIMIT).expect("a shell");
        this.run("mount -t tmpfs t /tmp; mount -t proc p /proc; mount -t sysfs s /sys; ip link set lo up");
        this
    }

    /// Process id of the kernel (or of what it was started by).
    pub fn pid(&self) -> u32 {
        self.guest.pid()
    }

    /// What a command writes, and its status.
    pub fn run(&mut self, cmd: &str) -> (String, String) {
        println!("{}: waiting for: {cmd}", self.name);
        let line = format!("echo \"<\"\"<<\"; {{ {cmd}\n}} 2>&1; echo \"@\"\"@@$?@\"\n");
        self.guest.send(&line).expect("typed");
        let got = self.guest.expect("<<<", LIMIT).and_then(|_| self.guest.expect("@@@", LIMIT));
        let out = got.unwrap_or_else(|e| panic!("{}: {cmd}: {e}\n{}", self.name, self.guest.transcript()));
        let rc = self.guest.expect("@", LIMIT).expect("a status");
        (out.replace('\r', "").trim_start_matches('\n').to_owned(), rc)
    }

    /// What a command writes that must succeed.
    pub fn ok(&mut self, cmd: &str) -> String {
        let (out, rc) = self.run(cmd);
        assert_eq!(rc, "0", "{}: {cmd}: {out}", self.name);
        out
    }

    /// The number that a command writes.
    pub fn number(&mut self, cmd: &str) -> u64 {
        let (out, _) = self.run(cmd);
        out.trim().parse().unwrap_or_else(|_| panic!("{cmd}: {out:?}"))
    }

    /// Waits until a command says what it should.
    pub fn until(&mut self, cmd: &str, want: &str) {
        let end = Instant::now() + LIMIT;
        loop {
            let (out, _) = self.run(cmd);
            if out.contains(want) {
                return;
            }
            assert!(Instant::now() < end, "{}: {cmd}: {LIMIT:?} without {want:?}: {out}", self.name);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends it as a user would; its exit status must be 0.
    pub fn poweroff(mut self) {
        self.guest.send("poweroff -f 2>/dev/null || busybox poweroff -f\n").expect("typed");
        println!("{}: waiting for it to end", self.name);
        let status = self
            .guest
            .wait(LIMIT)
            .unwrap_or_else(|e| panic!("{}: {e}\n{}", self.name, self.guest.transcript()));
        assert_eq!(status.code(), Some(0), "{}: {}", self.name, self.guest.transcript());
    }
}
