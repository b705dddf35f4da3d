//! Names the built-in initramfs: `KIBBLE_INITRAMFS` when `cargo xtask build` runs, else an empty file.
//!
//! The kernel takes it with `include_bytes!(env!("KIBBLE_INITRAMFS_PATH"))`; empty means that none is built in.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=KIBBLE_INITRAMFS");
    let path = match std::env::var_os("KIBBLE_INITRAMFS").map(PathBuf::from).filter(|p| p.is_file()) {
        Some(path) => {
            println!("cargo:rerun-if-changed={}", path.display());
            path
        }
        None => {
            let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
            let empty = out.join("initramfs.cpio");
            std::fs::write(&empty, b"").expect("OUT_DIR is writable");
            println!("cargo:rerun-if-changed=build.rs");
            empty
        }
    };
    println!("cargo:rustc-env=KIBBLE_INITRAMFS_PATH={}", path.display());
}
