//! Processes of our own process namespace.

use std::collections::BTreeSet;
use std::path::Path;

/// Ids of all processes that can be seen.
pub fn all() -> BTreeSet<u32> {
    let Ok(dir) = std::fs::read_dir("/proc") else { return BTreeSet::new() };
    dir.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// A process with all its descendants.
pub fn family(root: u32) -> BTreeSet<u32> {
    let parents: Vec<(u32, u32)> = all().into_iter().filter_map(|p| Some((p, parent(p)?))).collect();
    let mut out = BTreeSet::from([root]);
    loop {
        let more: Vec<u32> =
            parents.iter().filter(|(p, pp)| out.contains(pp) && !out.contains(p)).map(|(p, _)| *p).collect();
        if more.is_empty() {
            return out;
        }
        out.extend(more);
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Ends what has appeared since `before` was taken; only where every process of the namespace was started by us.
pub fn end_since(before: &BTreeSet<u32>) {
    if !crate::ns::own_pids() {
        return;
    }
    for _ in 0..20 {
        let new: Vec<String> = all().difference(before).filter(|p| alive(**p)).map(u32::to_string).collect();
        if new.is_empty() {
            return;
        }
        let _ = crate::sh::Cmd::new(["kill", "-9"]).args(&new).ok();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// There and not a zombie.
pub fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok()
}
