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
