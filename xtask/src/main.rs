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
    /// Measure against native, UML and gVisor in the same run
    Bench(cmd::bench::Args),
}

fn main() -> Result<()> {
    match Cli::parse().cmd {
        Cmd::Build(a) => cmd::build::run(&a).map(drop),
        Cmd::Image(a) => cmd::image::run(&a),
        Cmd::Bench(a) => cmd::bench::run(&a),
    }
}
