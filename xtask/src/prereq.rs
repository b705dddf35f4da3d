//! What a command needs from Debian: as root it is installed (and said so), otherwise named exactly.

use crate::sh::{Cmd, system_program};
use anyhow::{Result, bail};
use std::path::Path;

/// A program that a command needs and the Debian package that brings it.
#[derive(Clone, Copy)]
pub struct Need {
    /// The program, or an absolute path of a file.
    pub program: &'static str,
    /// The package in Debian 12.
    pub package: &'static str,
}

const fn need(program: &'static str, package: &'static str) -> Need {
    Need { program, package }
}

/// Making an image out of a tree.
pub const EXT4: &[Need] =
    &[need("mke2fs", "e2fsprogs"), need("e2fsck", "e2fsprogs"), need("debugfs", "e2fsprogs")];

/// What recipe `smoke` copies from the host.
pub const SMOKE: &[Need] = &[
    need("ip", "iproute2"),
    need("iperf3", "iperf3"),
    need("ping", "iputils-ping"),
    need("busybox", "busybox-static"),
    need("/usr/bin/python3", "python3"),
    need("ps", "procps"),
    need("ethtool", "ethtool"),
];

/// Private namespaces with a tap or a veth pair.
pub const NET: &[Need] = &[
    need("ip", "iproute2"),
    need("unshare", "util-linux"),
    need("setpriv", "util-linux"),
    need("nsenter", "util-linux"),
];

/// Peers and load generators of the benchmarks.
pub const BENCH: &[Need] = &[
    need("iperf3", "iperf3"),
    need("ethtool", "ethtool"),
    need("taskset", "util-linux"),
    need("linux.uml", "user-mode-linux"),
    need("runsc", "runsc"),
    need("python3", "python3"),
];

/// What tests of the network card talk to and compare it with; without one of them its test is skipped.
pub const PEERS: &[Need] =
    &[need("linux.uml", "user-mode-linux"), need("passt", "passt"), need("tcpdump", "tcpdump")];

/// The `bookworm` recipe.
pub const DEBOOTSTRAP: &[Need] = &[need("debootstrap", "debootstrap")];

/// Whether this process is root in its own user namespace.
pub fn is_root() -> bool {
    Cmd::line("id -u").read().is_ok_and(|s| s.trim() == "0")
}

fn missing(needs: &[&[Need]]) -> Vec<&'static str> {
    let mut out: Vec<&'static str> = Vec::new();
    for n in needs.iter().flat_map(|n| n.iter()) {
        let there = if n.program.starts_with('/') {
            Path::new(n.program).exists()
        } else {
            system_program(n.program).is_some()
        };
        if !there && !out.contains(&n.package) {
            out.push(n.package);
        }
    }
    out
}

/// Sees to it that all of `needs` are there, or stops with the exact command that would bring them.
pub fn ensure(needs: &[&[Need]]) -> Result<()> {
    let packages = missing(needs);
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !is_root() {
        bail!(
            "these Debian packages are missing: {list}\ninstall them with: sudo apt-get install -y --no-install-recommends {list}"
        );
    }
    eprintln!("xtask: installing Debian packages: {list}");
    let install = || {
        Cmd::line("apt-get install -y --no-install-recommends")
            .arg("-q")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(&packages)
            .read()
    };
    if install().is_err() {
        eprintln!("xtask: apt-get update");
        Cmd::line("apt-get update -q").read()?;
        install()?;
    }
    let left = missing(needs);
    if !left.is_empty() {
        bail!("installed {list}, but the programs of these packages are still not found: {}", left.join(" "));
    }
    Ok(())
}

/// The same for what a command can do without: true if it is there.
pub fn have(needs: &[&[Need]]) -> bool {
    // One by one: a package that this Debian lacks must not keep the others out.
    let bring = |n: &Need| missing(&[&[*n]]).is_empty() || (is_root() && ensure(&[&[*n]]).is_ok());
    needs.iter().flat_map(|n| n.iter()).filter(|n| !bring(n)).count() == 0
}
