//! `xtask boot`: the first command of the README. Builds, makes the image, boots to a shell on this terminal.

use crate::bench::net;
use crate::sh::Cmd;
use crate::suites::Server;
use crate::system::{Scratch, System, native::Native, uml, uml::Uml};
use crate::{image, ns, paths, prereq};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Options of `boot`.
#[derive(clap::Args)]
pub struct Args {
    /// Image recipe: smoke or bookworm
    #[arg(long, default_value = "smoke")]
    image: String,
    /// Measure iperf3 both ways beside the host's own network instead of opening a shell
    #[arg(long)]
    demo: bool,
    /// Another kernel with the same boot line, for example /usr/bin/linux.uml
    #[arg(long)]
    kernel: Option<PathBuf>,
    /// Take vmlinux and image as they are
    #[arg(long)]
    no_build: bool,
    /// Without a disk: the small system that is built into vmlinux
    #[arg(long)]
    builtin: bool,
    /// Memory of the guest
    #[arg(long, default_value = "512M")]
    mem: String,
    /// More words for the boot line
    #[arg(last = true)]
    extra: Vec<String>,
}

/// Boots; does not come back but with the guest's exit status.
pub fn run(args: &Args) -> Result<()> {
    if !ns::inside() {
        let disk: &[&[prereq::Need]] =
            if args.builtin { &[prereq::NET] } else { &[prereq::NET, prereq::EXT4, prereq::SMOKE] };
        prereq::ensure(disk)?;
        if !args.no_build {
            if args.kernel.is_none() {
                super::build::run(&super::build::Args::default())?;
            }
            if !args.builtin {
                image::make(&args.image)?;
            }
        }
        let saved = terminal_state();
        let words: Vec<_> = std::env::args_os().skip(1).collect();
        let status = ns::command(&words)?.into_inner().status().context("cannot start unshare")?;
        if let Some(state) = saved {
            // A guest that was killed leaves the terminal raw.
            let _ = Cmd::new(["stty", &state]).status();
        }
        std::process::exit(status.code().unwrap_or(1));
    }
    ns::prepare()?;
    let kernel = args.kernel.clone().unwrap_or_else(paths::vmlinux);
    let ext4 = paths::images().join(format!("{}.ext4", args.image));
    if args.demo { demo(args, kernel, ext4) } else { shell(args, &kernel, &ext4) }
}

fn terminal_state() -> Option<String> {
    let mut c = Cmd::line("stty -g").into_inner();
    let out = c.stdin(std::process::Stdio::inherit()).stderr(std::process::Stdio::null()).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn shell(args: &Args, kernel: &Path, ext4: &Path) -> Result<()> {
    let tap = ns::Tap::new("tap0", uml::HOST)?;
    let _server = if crate::sh::system_program("iperf3").is_some() { Some(Server::start()?) } else { None };
    let scratch = Scratch::new("boot")?;
    let (me, host) = (uml::GUEST, uml::HOST);
    let mut line = vec![format!("mem={}", args.mem), "umid=kibble".to_owned()];
    if !args.builtin {
        line.push(format!("ubd0={}", ext4.display()));
        line.extend(["root=/dev/ubda", "ro"].map(str::to_owned));
    }
    line.extend(["con=null", "con0=fd:0,fd:1"].map(str::to_owned));
    line.push(format!("vec0:transport=tap,ifname={},depth=128,gro=1", tap.name));
    line.push(format!("ip={me}::{host}:255.255.255.0:kibble:vec0:off"));
    line.extend(args.extra.iter().cloned());
    eprintln!("xtask: {} {}", kernel.display(), line.join(" "));
    eprintln!(
        "xtask: the guest is {me}, this host is {host} (iperf3 -c {host} finds a server); poweroff ends it"
    );
    // A directory of its own for the instance file: many boots at once do not meet.
    let status = Cmd::new([kernel])
        .args(&line)
        .env("TMPDIR", &scratch.dir)
        .env("HOME", &scratch.dir)
        .into_inner()
        .status()
        .with_context(|| format!("cannot start {}", kernel.display()))?;
    drop(scratch);
    drop(tap);
    eprintln!("\r\nxtask: the guest ended: {status}");
    std::process::exit(status.code().unwrap_or(134));
}

fn demo(args: &Args, kernel: PathBuf, ext4: PathBuf) -> Result<()> {
    let tree = paths::images().join(format!("{}.tree", args.image));
    let mut guest = Uml::kibble(kernel, ext4);
    if let Some(other) = args.kernel.as_ref().and_then(|k| k.file_name()) {
        guest.name = other.to_string_lossy().into_owned();
    }
    let mut systems: Vec<Box<dyn System>> = vec![Box::new(Native::new(tree)?), Box::new(guest)];
    let plan = net::Plan { pairs: 1, seconds: 5, verbose: false };
    let series = net::measure(&mut systems, &plan)?;
    println!("{}", net::demo(&series));
    let failed = series.iter().any(|s| s.failure.is_some());
    std::process::exit(i32::from(failed));
}
