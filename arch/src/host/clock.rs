//! Clocks: clock_gettime(2) through the host's vDSO.

use klib::ktime::Ktime;
use rustix::time::{ClockId, clock_gettime};

fn ns(id: ClockId) -> u64 {
    let ts = clock_gettime(id);
    u64::try_from(ts.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(ts.tv_nsec).unwrap_or(0)
}

/// CLOCK_MONOTONIC.
pub fn monotonic() -> Ktime {
    Ktime(ns(ClockId::Monotonic))
}

/// CLOCK_REALTIME in nanoseconds since 1970.
pub fn realtime_ns() -> u64 {
    ns(ClockId::Realtime)
}

/// CPU time of the calling thread in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    ns(ClockId::ThreadCPUTime)
}

/// CPU time of a host process, all its threads together, in nanoseconds; 0 if it is gone.
pub fn process_cpu_ns(pid: i32) -> u64 {
    // clock_getcpuclockid(3): the complement of the pid above three bits, CPUCLOCK_SCHED.
    let clock = (!pid << 3) | 2;
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a live local of the right type.
    if unsafe { libc::clock_gettime(clock, &raw mut t) } != 0 {
        return 0;
    }
    (t.tv_sec as u64) * 1_000_000_000 + t.tv_nsec as u64
}
