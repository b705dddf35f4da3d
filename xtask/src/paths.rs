//! Where things stand in the work tree.

use std::path::PathBuf;

/// The top of the work tree.
pub fn root() -> PathBuf {
    // Compiled in: `cargo xtask` always runs what it has just built here. The variable serves copies of the binary.
    std::env::var_os("KIBBLE_ROOT").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).canonicalize().expect("own tree")
    })
}

/// Everything that is built, ignored by git.
pub fn target() -> PathBuf {
    root().join("target")
}

/// The kernel that `build` leaves behind.
pub fn vmlinux() -> PathBuf {
    root().join("vmlinux")
}

/// Guest programs as they were built.
pub fn guest_bin(name: &str) -> PathBuf {
    target().join("guest").join(GUEST_TARGET).join("release").join(name)
}

/// The one target of guest programs and kernel. Given explicitly so that flags never reach build scripts.
pub const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Guest programs, in the order in which they are built and packed.
pub const GUEST_PROGRAMS: [&str; 5] = ["init", "usertest", "hostile", "nettool", "microbench"];

/// Built images.
pub fn images() -> PathBuf {
    target().join("images")
}
