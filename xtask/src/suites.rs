//! Smoke boots: each is a shell script run in a guest with its console on pipes, judged by what it prints.
//!
//! A script passes if it comes to `@@PASS` and the kernel's process ends with status 0; [`crate::special`] has boots of
//! another kind. Suites marked `ready` run in every `cargo xtask test`; the others with
//! `--all-suites`, or under another kernel with `--kernel`. To add one: append to [`SUITES`], see it pass with
//! `cargo xtask test --smoke --kernel /usr/bin/linux.uml --suite NAME`, then under ours, then set `ready`.

use crate::cpu::Meter;
use crate::special::SPECIAL;
use crate::system::{Run, System, uml::Uml};
use crate::{image, ns, paths};
use anyhow::Result;
use std::path::Path;
use std::time::{Duration, Instant};

/// One smoke boot.
pub struct Suite {
    /// Short name.
    pub name: &'static str,
    /// Script for /bin/sh in the guest, after a head that sets `$PEER`, `$ME` and brings vec0 up.
    pub script: &'static str,
    /// Whole time limit in seconds.
    pub limit_s: u64,
    /// More words for the boot line.
    pub extra: &'static [&'static str],
    /// Whether our kernel is known to pass it.
    pub ready: bool,
    /// Whether only our kernel can pass it.
    pub ours_only: bool,
}

const fn suite(name: &'static str, script: &'static str) -> Suite {
    Suite { name, script, limit_s: 60, extra: &[], ready: true, ours_only: false }
}

/// All suites, the easiest first.
pub const SUITES: &[Suite] = &[
    suite(
        "shell",
        "set -e; test $((6*7)) = 42; echo hello | grep -q hello; test \"$(id -u)\" = 0; echo @@PASS",
    ),
    suite(
        "programs",
        "set -e; ls -la / >/dev/null; cat /etc/os-release | sort | uniq | wc -l; seq 1000 | sed -n '/9$/p' | wc -l | grep -q 100; \
         busybox ps >/dev/null; mount | grep -q ext4; find /etc -name passwd | grep -q passwd; dd if=/dev/zero bs=64k count=64 2>/dev/null | wc -c | grep -q 4194304; \
         sha256sum /usr/bin/bash | grep -q bash; echo @@PASS",
    ),
    // procps finds no boot time under the packaged UML.
    Suite {
        ours_only: true,
        ..suite("ps", "set -e; ps aux; ps -ef | grep -q init; uptime; free -m; echo @@PASS")
    },
    suite(
        "python",
        "set -e; test \"$(python3 -c 'print(6*7)')\" = 42; python3 -c 'import json,socket,threading,os; os.stat(\"/\"); print(json.dumps([1]))'; echo @@PASS",
    ),
    suite("threads", THREADS),
    suite(
        "net",
        "set -e; ip -br addr; ip route; ip neigh; ping -c 3 -i 0.2 -W 2 $PEER; ping -c 2 -i 0.2 127.0.0.1; ping -c 2 -i 0.2 $ME; echo @@PASS",
    ),
    suite(
        "tcp",
        "set -e; iperf3 -s -1 -B 127.0.0.1 -p 5299 >/dev/null 2>&1 & sleep 1; iperf3 -c 127.0.0.1 -p 5299 -t 1 -f m -i 0; \
         iperf3 -c $PEER -t 1 -i 0 -f m; iperf3 -c $PEER -R -t 1 -i 0 -f m; echo @@PASS",
    ),
    Suite {
        limit_s: 300,
        ..suite(
            "usertest",
            "usertest run --limit=30 | tr -d '\\r' >/tmp/out; grep '^not ok' /tmp/out; tail -1 /tmp/out; grep -q ' 0 failed' /tmp/out && echo @@PASS",
        )
    },
    Suite { limit_s: 300, ours_only: true, ..suite("hostile", "hostile && echo @@PASS") },
];

/// 64 threads that take turns at one lock, from python.
const THREADS: &str = "python3 - <<'PY'
import threading
n = 0
lock = threading.Lock()
def work():
    global n
    for _ in range(200):
        with lock:
            n += 1
ts = [threading.Thread(target=work) for _ in range(64)]
[t.start() for t in ts]
[t.join() for t in ts]
print('@@PASS' if n == 64 * 200 else n)
PY
";

/// What came of the suites.
#[derive(Default)]
pub struct Outcome {
    /// Passed.
    pub passed: u32,
    /// Failed.
    pub failed: u32,
    /// Not run.
    pub skipped: u32,
}

/// Runs suites inside the namespaces; prints one line each, and the console of those that fail.
pub fn run(kernel: Option<&Path>, only: &[String], all: bool, image_name: &str) -> Result<Outcome> {
    ns::prepare()?;
    let meter = Meter::new();
    let _server = Server::start()?;
    let ours = kernel.is_none();
    let mut out = Outcome::default();
    for s in SUITES {
        let named = only.iter().any(|o| o == s.name);
        let wanted = if only.is_empty() { s.ready || all || !ours } else { named };
        if !wanted || (s.ours_only && !ours) {
            eprintln!("smoke {:10} skipped", s.name);
            out.skipped += 1;
            continue;
        }
        let ext4 = paths::images().join(format!("{image_name}.ext4"));
        let mut vm = Uml::kibble(kernel.map_or_else(paths::vmlinux, Path::to_owned), ext4);
        vm.extra = s.extra.iter().map(|w| (*w).to_owned()).collect();
        let start = Instant::now();
        eprintln!("smoke {:10} booting, at most {} s", s.name, s.limit_s);
        let script = format!("{}\n", s.script);
        let limit = Duration::from_secs(s.limit_s);
        let result = vm.boot(Run {
            script: &script,
            init: None,
            limit,
            meter: &meter,
            on_line: &mut |_, _| {},
            verbose: false,
        });
        let took = start.elapsed().as_secs_f64();
        match result {
            Ok(t) if t.lines().any(|l| l.trim() == "@@PASS") && t.contains("\n@@STATUS 0\n") => {
                eprintln!("smoke {:10} passed in {took:.1} s", s.name);
                out.passed += 1;
            }
            Ok(t) => {
                eprintln!(
                    "smoke {:10} FAILED after {took:.1} s; its console:\n{t}\n--- end of console",
                    s.name
                );
                out.failed += 1;
            }
            Err(e) => {
                eprintln!("smoke {:10} FAILED after {took:.1} s: {e:#}", s.name);
                out.failed += 1;
            }
        }
    }
    for (name, ready, f) in SPECIAL {
        let wanted = if only.is_empty() { *ready || all } else { only.iter().any(|o| o == name) };
        if !wanted || !ours {
            eprintln!("smoke {name:10} skipped");
            out.skipped += 1;
            continue;
        }
        eprintln!("smoke {name:10} booting");
        match f(&paths::vmlinux(), &paths::images().join(format!("{image_name}.ext4"))) {
            Ok(()) => {
                eprintln!("smoke {name:10} passed");
                out.passed += 1;
            }
            Err(e) => {
                eprintln!("smoke {name:10} FAILED: {e:#}");
                out.failed += 1;
            }
        }
    }
    Ok(out)
}

/// How many there are.
pub fn count() -> u32 {
    (SUITES.len() + SPECIAL.len()) as u32
}

/// iperf3 at the host's end.
pub struct Server(std::process::Child);

impl Server {
    /// Listens on every address of our private namespace.
    pub fn start() -> Result<Self> {
        let mut cmd = crate::sh::Cmd::new(["iperf3", "-s"]).into_inner();
        cmd.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let null = std::process::Stdio::null;
        Ok(Self(cmd.stdin(null()).stdout(null()).stderr(null()).spawn()?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes what the suites need, outside the namespaces.
pub fn prepare(image_name: &str) -> Result<()> {
    image::make(image_name).map(drop)
}
