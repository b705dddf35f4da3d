//! What `cargo xtask build` leaves behind: static files that can be copied to another machine.
//!
//! Tests of a file that has not been built yet say so and pass: `cargo xtask test` builds first.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tests::guest::Guest;
use tests::{elf, workspace::root};

fn vmlinux() -> Option<PathBuf> {
    let path = root().join("vmlinux");
    if !path.exists() {
        println!("skipped: ./vmlinux is not built");
        return None;
    }
    Some(path)
}

#[test]
fn kernel_is_static() {
    let Some(path) = vmlinux() else { return };
    assert_eq!(elf::interpreter(&path).expect("an ELF file"), None);
}

#[test]
fn guest_programs_are_static() {
    let dir = root().join("target/guest/x86_64-unknown-linux-gnu/release");
    for name in ["init", "usertest", "hostile", "nettool", "microbench"] {
        let path = dir.join(name);
        if !path.exists() {
            println!("skipped: {name} is not built");
            continue;
        }
        assert_eq!(elf::interpreter(&path).expect("an ELF file"), None, "{name}");
    }
}

/// `--version` and `--help` answer at once, before anything starts.
#[test]
fn version_and_help_answer() {
    let Some(path) = vmlinux() else { return };
    for word in ["--version", "--help"] {
        let mut cmd = Command::new(&path);
        cmd.arg(word);
        let mut g = Guest::spawn(cmd).expect("starts");
        println!("waiting for vmlinux {word} to end");
        let status = g.wait(Duration::from_secs(10)).expect("ends by itself");
        assert_eq!(status.code(), Some(0), "{word}: {}", g.transcript());
    }
}
