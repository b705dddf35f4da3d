//! Counts that may only fall: `unsafe` a crate, lines of long files, `.unwrap()` outside tests.
//!
//! Key types: [`Counts`] (what the tree has), [`allowed`] (what tests/ratchet.ron lets pass). `cargo xtask lint --lower`
//! writes lower values down; `--raise` also writes higher ones, which a change has to give a reason for.

use crate::workspace::{root, rust_files};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// No file may be longer than this, but for those that the ratchet names.
pub const MAX_LINES: usize = 600;

/// Folders of the crates that are counted, with the crate's name.
pub const CRATES: [(&str, &str); 13] = [
    ("arch", "arch"),
    ("drivers", "drivers"),
    ("net", "net"),
    ("kernel/core", "kernel"),
    ("kernel/device", "device"),
    ("kernel/executor", "executor"),
    ("kernel/ext4", "ext4"),
    ("kernel/klib", "klib"),
    ("kernel/uapi", "uapi"),
    ("kernel/vmlinux", "vmlinux"),
    ("xtask", "xtask"),
    ("tests", "tests"),
    ("userland", "userland"),
];

/// Crates whose input comes from guests, disks and wires: `.unwrap()` is counted in them.
const HOSTILE_INPUT: [&str; 5] = ["net", "ext4", "drivers", "kernel", "device"];

/// What is counted, or allowed.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Uses of the keyword by crate; crates without any are left out.
    pub unsafe_uses: BTreeMap<String, usize>,
    /// Files longer than [`MAX_LINES`].
    pub long_files: BTreeMap<String, usize>,
    /// `.unwrap()` outside tests by crate.
    pub unwraps: BTreeMap<String, usize>,
}

/// Counts the tree as it is.
pub fn count() -> Counts {
    let mut c = Counts::default();
    for (folder, name) in CRATES {
        for file in rust_files(folder) {
            let Ok(text) = std::fs::read_to_string(root().join(&file)) else { continue };
            let lines = text.lines().count();
            if lines > MAX_LINES {
                c.long_files.insert(file.display().to_string(), lines);
            }
            // Guest programs speak to the kernel through raw calls: there it is the subject.
            if name != "userland" {
                add(&mut c.unsafe_uses, name, count_unsafe(&text));
            }
            if HOSTILE_INPUT.contains(&name) && !is_test_file(&file) {
                add(&mut c.unwraps, name, count_unwrap(&text));
            }
        }
    }
    c
}

fn add(map: &mut BTreeMap<String, usize>, key: &str, n: usize) {
    if n > 0 {
        *map.entry(key.to_owned()).or_default() += n;
    }
}

fn is_test_file(path: &Path) -> bool {
    path.components().any(|c| c.as_os_str() == "tests") || path.file_name().is_some_and(|n| n == "tests.rs")
}

/// The code of a line: without its comment, with strings emptied. Good enough for counting words.
fn code(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => drop(chars.next()),
            '"' => quoted = !quoted,
            '/' if !quoted && chars.peek() == Some(&'/') => break,
            c if !quoted => out.push(c),
            _ => {}
        }
    }
    out
}

fn count_unsafe(text: &str) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.lines().map(|l| code(l).split(|c| !is_word(c)).filter(|w| *w == "unsafe").count()).sum()
}

/// By convention tests stand at the end of a file, behind the first `#[cfg(test)]`.
fn count_unwrap(text: &str) -> usize {
    text.lines()
        .take_while(|l| l.trim() != "#[cfg(test)]")
        .map(|l| code(l).matches(".unwrap()").count())
        .sum()
}

/// Where the allowed counts stand.
pub fn path() -> PathBuf {
    root().join("tests/ratchet.ron")
}

/// The allowed counts.
pub fn allowed() -> Result<Counts, String> {
    let text = std::fs::read_to_string(path()).map_err(|e| format!("{}: {e}", path().display()))?;
    ron::from_str(&text).map_err(|e| format!("{}: {e}", path().display()))
}

/// What is above its allowed count, one line each.
pub fn above(now: &Counts, allowed: &Counts) -> Vec<String> {
    let mut out = Vec::new();
    let mut check = |what: &str, now: &BTreeMap<String, usize>, max: &BTreeMap<String, usize>| {
        for (k, n) in now {
            let m = max.get(k).copied().unwrap_or(0);
            if *n > m {
                out.push(format!("{what}: {k} has {n}, allowed are {m}"));
            }
        }
    };
    check("unsafe", &now.unsafe_uses, &allowed.unsafe_uses);
    check("lines (limit 600)", &now.long_files, &allowed.long_files);
    check(".unwrap()", &now.unwraps, &allowed.unwraps);
    out
}

/// Writes the allowed counts: the lesser of old and new, or the new ones if `raise`.
pub fn update(raise: bool) -> Result<(), String> {
    let mut now = count();
    if !raise {
        let old = allowed()?;
        let lower = |now: &mut BTreeMap<String, usize>, old: &BTreeMap<String, usize>| {
            now.retain(|k, n| {
                *n = (*n).min(old.get(k).copied().unwrap_or(0));
                *n > 0
            });
        };
        lower(&mut now.unsafe_uses, &old.unsafe_uses);
        lower(&mut now.long_files, &old.long_files);
        lower(&mut now.unwraps, &old.unwraps);
    }
    let text =
        ron::ser::to_string_pretty(&now, ron::ser::PrettyConfig::default()).map_err(|e| e.to_string())?;
    let head =
        "// Counts that may only fall; see tests/src/ratchet.rs. Written by `cargo xtask lint --lower`.\n";
    std::fs::write(path(), format!("{head}{text}\n")).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::{count_unsafe, count_unwrap};

    #[test]
    fn counts_code_and_nothing_else() {
        assert_eq!(count_unsafe("unsafe { x } // unsafe\n\"unsafe\" unsafe_code\nunsafe fn f() {}"), 2);
        assert_eq!(count_unwrap("a.unwrap();\n// b.unwrap()\n#[cfg(test)]\nc.unwrap()"), 1);
    }
}
