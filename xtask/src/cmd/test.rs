//! `xtask test`: everything that must be green. The second command of the README, and all of CI.

use super::lint::{STEPS, cargo};
use crate::sh::Cmd;
use crate::{ns, paths, prereq, suites};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tests::guest::Guest;

/// Options of `test`.
#[derive(clap::Args)]
pub struct Args {
    /// Only the smoke boots
    #[arg(long)]
    smoke: bool,
    /// Only the ABI tests on this host
    #[arg(long)]
    usertest: bool,
    /// Only these smoke boots, whether ready or not
    #[arg(long, value_delimiter = ',')]
    suite: Vec<String>,
    /// Also smoke boots that our kernel is not known to pass
    #[arg(long)]
    all_suites: bool,
    /// Another kernel with the same boot line for the smoke boots
    #[arg(long)]
    kernel: Option<PathBuf>,
    /// Image recipe for the smoke boots
    #[arg(long, default_value = "smoke")]
    image: String,
    /// Take vmlinux and image as they are
    #[arg(long)]
    no_build: bool,
}

#[derive(Default)]
struct Count {
    passed: u32,
    failed: u32,
    skipped: u32,
    bad: Vec<String>,
}

impl Count {
    fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }

    fn one(&mut self, name: &str, ok: bool) {
        if ok {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.bad.push(name.to_owned());
        }
    }

    fn add(&mut self, name: &str, (passed, failed, skipped): (u32, u32, u32)) {
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
        if failed > 0 {
            self.bad.push(name.to_owned());
        }
    }
}

/// Runs the steps one after the other, all of them whatever fails; exit status 1 if one did.
pub fn run(args: &Args) -> Result<()> {
    if ns::inside() {
        let o = suites::run(args.kernel.as_deref(), &args.suite, args.all_suites, &args.image)?;
        println!("{} passed, {} failed, {} skipped", o.passed, o.failed, o.skipped);
        return Ok(());
    }
    let start = Instant::now();
    let mut count = Count::default();
    if args.usertest {
        super::build::guest_programs()?;
        usertest(&mut count)?;
        println!("{}", count.line());
        std::process::exit(i32::from(count.failed > 0));
    }
    let mut step = |name: &str, f: &mut dyn FnMut(&mut Count) -> Result<()>| {
        let begin = Instant::now();
        eprintln!("=== {name}");
        if let Err(e) = f(&mut count) {
            eprintln!("{name}: {e:#}");
            count.one(name, false);
        }
        eprintln!("=== {name}: {:.0} s", begin.elapsed().as_secs_f64());
    };
    if !args.smoke {
        for (name, words, env) in STEPS {
            step(name, &mut |c| {
                c.one(name, cargo(words, env).status()?);
                Ok(())
            });
        }
    }
    let mut built = true;
    if !args.no_build {
        step("build", &mut |c| {
            prereq::ensure(&[prereq::EXT4, prereq::SMOKE, prereq::NET])?;
            if !prereq::have(&[prereq::PEERS]) {
                eprintln!("some peers are missing; the tests that need them say so and are skipped");
            }
            super::build::guest_programs()?;
            if args.kernel.is_none() {
                built = super::build::run(&super::build::Args::default())
                    .map(drop)
                    .map_err(|e| eprintln!("{e:#}"))
                    .is_ok();
                c.one("build", built);
            }
            // The tests of the next step boot it too.
            suites::prepare(&args.image)
        });
    }
    if !args.smoke {
        step("unit tests", &mut |c| unit_tests(c));
        step("licences and bans", &mut deny);
        step("usertest on this host", &mut usertest);
    }
    step("smoke boots", &mut |c| {
        if !built {
            eprintln!("smoke boots: skipped, there is no kernel");
            c.skipped += suites::count();
            return Ok(());
        }
        smoke(args, c)
    });
    eprintln!("tests took {:.0} s", start.elapsed().as_secs_f64());
    for b in &count.bad {
        eprintln!("FAILED: {b}");
    }
    println!("{}", count.line());
    std::process::exit(i32::from(count.failed > 0));
}

/// `cargo test` over the workspace; its result lines are added up.
fn unit_tests(c: &mut Count) -> Result<()> {
    let mut child = cargo("test --workspace --no-fail-fast", &[])
        .into_inner()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let mut sum = (0, 0, 0);
    for line in BufReader::new(child.stdout.take().context("cargo has no stdout")?).lines() {
        let line = line?;
        // One line a binary is enough, but failures in full.
        let dull = line.ends_with("... ok") || line.ends_with("... ignored") || line.starts_with("running ");
        if !dull && !line.trim().is_empty() {
            eprintln!("{line}");
        }
        if let Some(rest) = line.strip_prefix("test result: ") {
            let n = |what: &str| -> u32 {
                rest.split([';', '.'])
                    .find_map(|p| p.trim().strip_suffix(what)?.trim().parse().ok())
                    .unwrap_or(0)
            };
            sum = (sum.0 + n("passed"), sum.1 + n("failed"), sum.2 + n("ignored"));
        }
    }
    let ok = child.wait()?.success();
    c.add("unit tests", sum);
    if !ok && sum.1 == 0 {
        c.one("unit tests do not build", false);
    }
    Ok(())
}

fn deny(c: &mut Count) -> Result<()> {
    if cargo("deny --version", &[]).ok() {
        c.one("cargo deny", cargo("deny --offline check bans licenses sources", &[]).status()?);
    } else {
        eprintln!(
            "cargo deny: skipped, not installed; licences and sources were checked by tests/tests/layers.rs"
        );
        c.skipped += 1;
    }
    Ok(())
}

/// Device nodes of its own: a test that sweeps calls with odd arguments as root must not reach the host's /dev/null.
const OWN_DEV: &str = "d=/dev/shm/kibble-dev.$$ && mkdir $d && mount -t tmpfs tmpfs $d && cd $d && \
    mknod -m 666 null c 1 3 && mknod -m 666 zero c 1 5 && mknod -m 666 full c 1 7 && mknod -m 666 random c 1 8 && \
    mknod -m 666 urandom c 1 9 && for n in *; do mount --bind $n /dev/$n; done; cd /; umount -l $d; rmdir $d; exec \"$0\" \"$@\"";

/// The guest's ABI tests on the host's own Linux: they are believed only where they pass here.
fn usertest(c: &mut Count) -> Result<()> {
    let own_dev: &[&str] =
        if prereq::is_root() { &["unshare", "--mount", "sh", "-c", OWN_DEV] } else { &["env"] };
    let cmd = Cmd::new(own_dev).arg(paths::guest_bin("usertest")).args(["run", "--limit=60"]);
    let mut g = Guest::spawn(cmd.into_inner())?;
    let end = Instant::now() + Duration::from_secs(600);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    while let Some(line) = g.line(end.saturating_duration_since(Instant::now()))? {
        if line.starts_with("not ok") {
            eprintln!("{line}");
            failed += 1;
        } else if line.starts_with("ok ") {
            if line.contains("# SKIP") { skipped += 1 } else { passed += 1 }
        }
    }
    let status = g.wait(Duration::from_secs(10))?;
    eprintln!("usertest: {passed} passed, {failed} failed, {skipped} skipped");
    c.add("usertest on this host", (passed, failed, skipped));
    if !status.success() && failed == 0 {
        c.one("usertest ended badly", false);
    }
    Ok(())
}

fn smoke(args: &Args, c: &mut Count) -> Result<()> {
    let wanted = args.kernel.is_some()
        || args.all_suites
        || !args.suite.is_empty()
        || suites::SUITES.iter().any(|s| s.ready)
        || crate::special::SPECIAL.iter().any(|s| s.1);
    if !wanted {
        eprintln!("smoke boots: skipped, no suite is marked ready yet");
        c.skipped += suites::count();
        return Ok(());
    }
    let mut words: Vec<String> = vec!["test".into(), "--smoke".into(), "--image".into(), args.image.clone()];
    if let Some(k) = &args.kernel {
        words.extend(["--kernel".into(), k.display().to_string()]);
    }
    if !args.suite.is_empty() {
        words.extend(["--suite".into(), args.suite.join(",")]);
    }
    if args.all_suites {
        words.push("--all-suites".into());
    }
    let out = ns::command(&words)?.into_inner().stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let n: Vec<u32> = text
        .split(|ch: char| !ch.is_ascii_digit())
        .filter(|w| !w.is_empty())
        .filter_map(|w| w.parse().ok())
        .collect();
    match n.as_slice() {
        [passed, failed, skipped] if out.status.success() => {
            c.add("smoke boots", (*passed, *failed, *skipped))
        }
        _ => c.one("smoke boots", false),
    }
    Ok(())
}
