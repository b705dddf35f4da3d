//! Developer commands of Kibble: `cargo xtask boot` and `cargo xtask test` are the two that a newcomer needs.
//!
//! One file a command in `cmd/`; `image/` makes root file systems, `system/` drives Linux systems of every kind with one
//! script, `bench/` measures them side by side. Nothing here links a crate of the kernel: xtask drives finished binaries.
#![deny(unsafe_code)]

mod bench;
mod cmd;
mod cpio;
mod cpu;
mod image;
mod ns;
mod paths;
mod prereq;
mod procs;
mod sh;
mod special;
mod suites;
mod system;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Developer commands of Kibble
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    cmd: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Build guest programs, the built-in initramfs and ./vmlinux
    Build(cmd::build::Args),
    /// Make a root file system image from a recipe in images/
    Image(cmd::image::Args),
    /// Boot to a shell on this terminal, with the host reachable
    Boot(cmd::boot::Args),
    /// Everything that must be green: format, lints, tests, smoke boots
    Test(cmd::test::Args),
    /// Format, clippy, documentation, layers, ratchets
    Lint(cmd::lint::Args),
    /// List where we differ from Linux
    Status,
    /// Measure against native, UML and gVisor in the same run
    Bench(cmd::bench::Args),
}

fn main() {
    // In one line, without a backtrace: what went wrong outside is no fault of this program.
    if let Err(e) = run() {
        eprintln!("xtask: {e:#}");
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    match Cli::parse().cmd {
        Cmd::Build(a) => cmd::build::run(&a).map(drop),
        Cmd::Image(a) => cmd::image::run(&a),
        Cmd::Boot(a) => cmd::boot::run(&a),
        Cmd::Test(a) => cmd::test::run(&a),
        Cmd::Lint(a) => cmd::lint::run(&a),
        Cmd::Status => cmd::status::run(),
        Cmd::Bench(a) => cmd::bench::run(&a),
    }
}
