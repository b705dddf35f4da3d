//! Resource usage: getrusage(2), times(2), wait4(2).

use super::task::Task;
use super::thread_group::ThreadGroup;
use crate::syscall::UserPtr;
use crate::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use uapi::raw::general as c;

/// What a thread or a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rusage {
    /// User CPU time, ns.
    pub utime_ns: u64,
    /// System CPU time, ns.
    pub stime_ns: u64,
    /// Faults without I/O.
    pub minflt: u64,
    /// Faults with I/O.
    pub majflt: u64,
    /// Voluntary switches.
    pub nvcsw: u64,
    /// Involuntary switches.
    pub nivcsw: u64,
    /// Largest resident set, KiB.
    pub maxrss_kib: u64,
}

impl Rusage {
    /// Adds another's use; the resident set is the larger one.
    pub fn add(&mut self, o: &Self) {
        self.utime_ns = self.utime_ns.saturating_add(o.utime_ns);
        self.stime_ns = self.stime_ns.saturating_add(o.stime_ns);
        self.minflt += o.minflt;
        self.majflt += o.majflt;
        self.nvcsw += o.nvcsw;
        self.nivcsw += o.nivcsw;
        self.maxrss_kib = self.maxrss_kib.max(o.maxrss_kib);
    }

    /// `struct rusage`: two timevals and 14 longs.
    pub fn to_abi(&self) -> [i64; 18] {
        let l = |v: u64| i64::try_from(v).unwrap_or(i64::MAX);
        let mut out = [0i64; 18];
        out[0] = l(self.utime_ns / 1_000_000_000);
        out[1] = l(self.utime_ns % 1_000_000_000 / 1000);
        out[2] = l(self.stime_ns / 1_000_000_000);
        out[3] = l(self.stime_ns % 1_000_000_000 / 1000);
        out[4] = l(self.maxrss_kib);
        out[8] = l(self.minflt);
        out[9] = l(self.majflt);
        out[16] = l(self.nvcsw);
        out[17] = l(self.nivcsw);
        out
    }
}

impl Task {
    /// What this thread has used.
    pub fn rusage(&self) -> Rusage {
        let (utime_ns, stime_ns) = self.acct.read();
        Rusage {
            utime_ns,
            stime_ns,
            minflt: self.min_flt.load(Relaxed),
            majflt: self.maj_flt.load(Relaxed),
            nvcsw: self.nvcsw.load(Relaxed),
            nivcsw: self.nivcsw.load(Relaxed),
            maxrss_kib: self.group.maxrss_kib.load(Relaxed),
        }
    }
}

impl ThreadGroup {
    /// What the process has used: its live threads and those that have gone.
    pub fn rusage(&self) -> Rusage {
        let g = self.inner.lock();
        let mut r = g.dead_threads;
        for t in &g.threads {
            r.add(&t.rusage());
        }
        r
    }
}

/// getrusage(2).
pub async fn sys_getrusage(cur: &Arc<Task>, who: i32, out: UserPtr<[i64; 18]>) -> Result<u64> {
    let r = match who {
        0 => cur.group.rusage(),
        c::RUSAGE_CHILDREN => cur.group.inner.lock().children_usage,
        1 => cur.rusage(),
        _ => return Err(Errno::EINVAL),
    };
    out.write(cur, &r.to_abi()).await?;
    Ok(0)
}

/// Ticks a second as guests see them (sysconf(_SC_CLK_TCK)).
pub const USER_HZ: u64 = 100;

/// Nanoseconds as clock ticks.
pub const fn ns_to_ticks(ns: u64) -> u64 {
    ns / (1_000_000_000 / USER_HZ)
}

/// times(2): the value is ticks since boot.
pub async fn sys_times(cur: &Arc<Task>, out: UserPtr<[u64; 4]>) -> Result<u64> {
    let me = cur.group.rusage();
    let ch = cur.group.inner.lock().children_usage;
    let buf = [me.utime_ns, me.stime_ns, ch.utime_ns, ch.stime_ns].map(ns_to_ticks);
    out.write_opt(cur, &buf).await?;
    Ok(ns_to_ticks(executor::time::now().as_ns()))
}
