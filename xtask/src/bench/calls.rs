//! Calls of a system's processes to the host, counted by the host's tracepoint `raw_syscalls:sys_enter` for a while.
//!
//! Calls of guest programs that are stopped before the host sees them as calls (ptrace's SYSEMU, seccomp notification) are not in it; what
//! the guest's kernel does to serve them is. One `io_uring_enter` counts once, however many operations it brings along.

use crate::procs;
use crate::sh::Cmd;
use std::thread::JoinHandle;
use std::time::Duration;

/// From the start of a transfer to the count.
const DELAY: Duration = Duration::from_millis(300);
/// Seconds counted.
pub const SPAN: &str = "0.5";

/// A count that goes on beside a transfer.
pub struct Count(JoinHandle<Option<f64>>);

impl Count {
    /// Begins a moment from now with all processes of the family of `pid`, and those they will make.
    pub fn start(pid: u32) -> Self {
        Self(std::thread::spawn(move || {
            std::thread::sleep(DELAY);
            let pids: Vec<String> = procs::family(pid).iter().map(u32::to_string).collect();
            let out = Cmd::line("perf stat -x, -e raw_syscalls:sys_enter -p")
                .arg(pids.join(","))
                .args(["--", "sleep", SPAN])
                .output()
                .ok()?;
            Some(counted(&String::from_utf8_lossy(&out.stderr))? / SPAN.parse::<f64>().ok()?)
        }))
    }

    /// Calls a second; `None` where the host cannot count.
    pub fn finish(self) -> Option<f64> {
        self.0.join().ok()?
    }
}

/// Why this host cannot count, if so: no `perf` (Debian package linux-perf), or no right to the tracepoint.
pub fn unable() -> Option<String> {
    if crate::sh::system_program("perf").is_none() {
        return Some("perf is not installed (Debian package linux-perf)".into());
    }
    let out = Cmd::line("perf stat -x, -e raw_syscalls:sys_enter -- true").output();
    let text = out.map_or_else(|e| e.to_string(), |o| String::from_utf8_lossy(&o.stderr).into_owned());
    if counted(&text).is_some() {
        return None;
    }
    let line = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("no output");
    Some(format!("perf stat cannot use raw_syscalls:sys_enter: {line}"))
}

fn counted(text: &str) -> Option<f64> {
    text.lines().find(|l| l.contains("raw_syscalls"))?.split(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_what_perf_prints() {
        let line = "200125,,raw_syscalls:sys_enter,95655592,100.00,,\n";
        assert_eq!(super::counted(line), Some(200_125.0));
        assert_eq!(super::counted("<not counted>,,raw_syscalls:sys_enter,0,100.00,,"), None);
    }
}
