//! CPU time of everything that takes part in a measurement.
//!
//! Where a control group can be made its counter is used: it also knows processes that have ended. Otherwise the sum of
//! /proc/PID/stat over all processes of our own process namespace. Beside it the whole machine's busy time, which also
//! holds what the kernel did in soft interrupts for nobody in particular.

use std::path::{Path, PathBuf};

/// Clock ticks a second in /proc (USER_HZ, the same on every x86-64 Linux).
const HZ: f64 = 100.0;

/// A point in time, in CPU seconds.
#[derive(Clone, Copy, Default, Debug)]
pub struct Snapshot {
    /// Of all processes involved.
    pub procs: f64,
    /// Of the whole machine, busy time only.
    pub machine: f64,
}

impl std::ops::Sub for Snapshot {
    type Output = Self;

    fn sub(self, o: Self) -> Self {
        Self { procs: self.procs - o.procs, machine: self.machine - o.machine }
    }
}

/// Where CPU time is counted.
pub struct Meter {
    group: Option<Group>,
}

struct Group {
    dir: PathBuf,
    v2: bool,
}

impl Meter {
    /// Makes a control group if the host lets us.
    pub fn new() -> Self {
        let name = format!("kibble-xtask-{}", crate::ns::unique());
        let mut places =
            vec![(PathBuf::from("/sys/fs/cgroup/unified"), true), ("/sys/fs/cgroup/cpuacct".into(), false)];
        if Path::new("/sys/fs/cgroup/cgroup.procs").exists() {
            places.insert(0, ("/sys/fs/cgroup".into(), true));
        }
        for (base, v2) in places {
            let dir = base.join(&name);
            if !base.exists() || std::fs::create_dir(&dir).is_err() {
                continue;
            }
            let group = Group { dir, v2 };
            if group.usage().is_some() {
                return Self { group: Some(group) };
            }
        }
        Self { group: None }
    }

    /// What is counted, for reports.
    pub fn how(&self) -> &'static str {
        if self.group.is_some() { "control group" } else { "sum over /proc" }
    }

    /// Words before a command that make it and all its children count.
    pub fn prefix(&self) -> Vec<String> {
        match &self.group {
            None => Vec::new(),
            Some(g) => {
                let procs = g.dir.join("cgroup.procs").display().to_string();
                ["sh", "-c", "echo $$ >\"$0\" 2>/dev/null; exec \"$@\"", &procs].map(str::to_owned).to_vec()
            }
        }
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let procs = self.group.as_ref().and_then(Group::usage).unwrap_or_else(proc_sum);
        Snapshot { procs, machine: machine().unwrap_or(0.0) }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(g) = &self.group {
            // Refused while processes are in it; those end with our process namespace.
            let _ = std::fs::remove_dir(&g.dir);
        }
    }
}

impl Group {
    fn usage(&self) -> Option<f64> {
        if self.v2 {
            let text = std::fs::read_to_string(self.dir.join("cpu.stat")).ok()?;
            let line = text.lines().find_map(|l| l.strip_prefix("usage_usec "))?;
            Some(line.trim().parse::<f64>().ok()? / 1e6)
        } else {
            let text = std::fs::read_to_string(self.dir.join("cpuacct.usage")).ok()?;
            Some(text.trim().parse::<f64>().ok()? / 1e9)
        }
    }
}

/// User and system time of all processes but this one, ended and waited-for children included.
fn proc_sum() -> f64 {
    let me = std::process::id();
    let Ok(dir) = std::fs::read_dir("/proc") else { return 0.0 };
    let pids = dir.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let times = pids.filter_map(|pid| {
        let (own, children) = times(pid)?;
        Some(if pid == me { children } else { own + children })
    });
    times.sum()
}

/// User and system time of one process so far.
pub fn of_process(pid: u32) -> f64 {
    times(pid).map_or(0.0, |t| t.0)
}

/// CPU seconds of a process, and of its ended and waited-for children.
fn times(pid: u32) -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let f: Vec<f64> = stat.rsplit_once(')')?.1.split_whitespace().map(|w| w.parse().unwrap_or(0.0)).collect();
    // Fields 14 to 17 of proc(5): utime stime cutime cstime; field 3 is the first one here.
    Some(((f.get(11)? + f.get(12)?) / HZ, (f.get(13)? + f.get(14)?) / HZ))
}

/// Busy time of the machine: user nice system irq softirq (proc(5)).
fn machine() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let f: Vec<f64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|w| w.parse().ok()).collect();
    Some((f.first()? + f.get(1)? + f.get(2)? + f.get(5)? + f.get(6)?) / HZ)
}
