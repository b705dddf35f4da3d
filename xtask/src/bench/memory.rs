//! What a system costs the host in memory: private pages of all its processes, and its memory file counted once.
//!
//! PSS (proc(5), smaps) shares pages fairly among those that map them; the file behind a guest's RAM is left out there
//! and counted by its blocks instead, since most of its pages are mapped by nobody at a given moment.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;

/// Below this many bytes an address space is never taken for another one.
const SURELY_DISTINCT: u64 = 4 << 20;

/// MiB that a set of processes holds.
pub fn mib(pids: &BTreeSet<u32>) -> f64 {
    let mut bytes = 0;
    let mut spaces = BTreeSet::new();
    let mut files: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for pid in pids {
        for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let Ok(link) = std::fs::read_link(fd.path()) else { continue };
            if is_ram_file(&link.to_string_lossy())
                && let Ok(m) = std::fs::metadata(fd.path())
                && m.is_file()
            {
                files.insert((m.dev(), m.ino()), m.blocks() * 512);
            }
        }
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/smaps")) else { continue };
        let own = pss(&text);
        // Processes that share one address space (UML's helpers) show the same text to the last digit. Small ones are
        // counted each, so that look-alikes which are not the same cannot hide.
        if own < SURELY_DISTINCT || spaces.insert(text) {
            bytes += own;
        }
    }
    (bytes + files.values().sum::<u64>()) as f64 / 1_048_576.0
}

fn is_ram_file(path: &str) -> bool {
    path.starts_with("/memfd:") || path.ends_with(" (deleted)")
}

/// Sum of the Pss lines of all mappings that are not of a RAM file, in bytes.
fn pss(smaps: &str) -> u64 {
    let mut counted = true;
    let mut kib = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if !first.ends_with(':') {
            // `start-end perms offset dev inode path`
            let path = line.splitn(6, char::is_whitespace).nth(5).unwrap_or_default().trim_start();
            counted = !is_ram_file(path);
        } else if counted && first == "Pss:" {
            kib += words.next().and_then(|w| w.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    kib * 1024
}

#[cfg(test)]
mod tests {
    use super::pss;

    #[test]
    fn ram_files_are_left_out() {
        let text = "55d0-55e0 r-xp 00000000 08:01 42   /usr/bin/x\nSize: 64 kB\nPss: 8 kB\n\
                    7f00-7f10 rw-s 00000000 00:01 7   /memfd:ram (deleted)\nPss: 4096 kB\n\
                    7f20-7f30 rw-p 00000000 00:00 0 \nPss: 4 kB\n";
        assert_eq!(pss(text), 12 * 1024);
    }
}
