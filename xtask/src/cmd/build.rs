//! `xtask build`: guest programs, the built-in initramfs, then vmlinux: one static file at the top of the tree.

use crate::cpio::Cpio;
use crate::paths;
use crate::sh::Cmd;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Options of `build`.
#[derive(clap::Args, Clone, Default)]
pub struct Args {
    /// A debug kernel (checks on, slower); guest programs are always release
    #[arg(long)]
    pub debug: bool,
    /// Build only the guest programs and the initramfs
    #[arg(long)]
    pub guest_only: bool,
}

/// Builds everything and returns the path of the kernel.
pub fn run(args: &Args) -> Result<PathBuf> {
    guest_programs()?;
    let initramfs = initramfs()?;
    if args.guest_only {
        return Ok(initramfs);
    }
    kernel(&initramfs, args.debug)
}

fn cargo_build() -> Cmd {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Cmd::new([cargo])
        .dir(&paths::root())
        .arg("build")
        .arg("--quiet")
        .arg("--target")
        .arg(paths::GUEST_TARGET)
        // An explicit target keeps these flags away from build scripts and macros.
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static")
}

/// Builds the programs of userland/: static, stripped, always optimised.
pub fn guest_programs() -> Result<()> {
    eprintln!("xtask: building guest programs: {}", paths::GUEST_PROGRAMS.join(" "));
    let mut cmd = cargo_build().arg("--release").arg("--target-dir").arg(paths::target().join("guest"));
    for p in paths::GUEST_PROGRAMS {
        cmd = cmd.arg("-p").arg(p);
    }
    cmd.env("CARGO_PROFILE_RELEASE_STRIP", "symbols").env("CARGO_PROFILE_RELEASE_DEBUG", "0").run()?;
    for p in paths::GUEST_PROGRAMS {
        check_static(&paths::guest_bin(p))?;
    }
    Ok(())
}

/// Packs the guest programs into target/initramfs.cpio.
pub fn initramfs() -> Result<PathBuf> {
    let mut cpio = Cpio::default();
    for d in ["bin", "dev", "etc", "mnt", "proc", "root", "run", "sys"] {
        cpio.dir(d, 0o755)?;
    }
    cpio.dir("tmp", 0o1777)?;
    let read = |p: &str| {
        let path = paths::guest_bin(p);
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    cpio.file("init", 0o755, &read("init")?)?;
    for p in paths::GUEST_PROGRAMS.iter().filter(|p| **p != "init") {
        cpio.file(&format!("bin/{p}"), 0o755, &read(p)?)?;
    }
    cpio.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    cpio.file("etc/group", 0o644, b"root:x:0:\n")?;
    cpio.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n")?;
    let out = paths::target().join("initramfs.cpio");
    write_if_changed(&out, &cpio.finish()?)?;
    Ok(out)
}

fn kernel(initramfs: &Path, debug: bool) -> Result<PathBuf> {
    eprintln!("xtask: building vmlinux ({})", if debug { "debug" } else { "release" });
    let mut cmd = cargo_build().arg("-p").arg("vmlinux").arg("--target-dir").arg(paths::target());
    if !debug {
        cmd = cmd.arg("--release");
    }
    cmd.env("KIBBLE_INITRAMFS", initramfs).run()?;
    let built = paths::target()
        .join(paths::GUEST_TARGET)
        .join(if debug { "debug" } else { "release" })
        .join("vmlinux");
    check_static(&built)?;
    // By rename, so that a running kernel keeps its file and nobody sees half of one.
    let out = paths::vmlinux();
    let tmp = out.with_extension("new");
    std::fs::copy(&built, &tmp).with_context(|| format!("cannot write {}", tmp.display()))?;
    std::fs::rename(&tmp, &out)?;
    let size = std::fs::metadata(&out)?.len();
    eprintln!("xtask: {} ({:.1} MiB, static)", out.display(), size as f64 / 1048576.0);
    Ok(out)
}

fn write_if_changed(path: &Path, data: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == data) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(path, data).with_context(|| format!("cannot write {}", path.display()))
}

/// Fails if an ELF file asks for an interpreter.
pub fn check_static(path: &Path) -> Result<()> {
    if tests::elf::interpreter(path).with_context(|| format!("cannot read {}", path.display()))?.is_some() {
        bail!("{} asks for an interpreter: it is not a static binary", path.display());
    }
    Ok(())
}
