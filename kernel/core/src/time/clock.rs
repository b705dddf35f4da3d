//! Clocks and their ids (clock_gettime(2)).

use crate::task::{Pid, Task, ThreadGroup, pid};
use crate::{Errno, Result};
use arch::host::clock as host;
use klib::ktime::Ktime;
use std::sync::Arc;
use std::time::Duration;
use uapi::raw::general as c;

/// Nanoseconds in a second.
pub const NSEC: u64 = 1_000_000_000;

/// A clock that a guest has named.
#[derive(Clone)]
pub enum Clock {
    /// CLOCK_REALTIME, its coarse form, CLOCK_TAI (no leap seconds are known).
    Real,
    /// CLOCK_MONOTONIC, its raw and coarse forms, CLOCK_BOOTTIME: the guest is never suspended.
    Mono,
    /// CPU time of a process; true: user time alone.
    Process(Arc<ThreadGroup>, bool),
    /// CPU time of a thread; true: user time alone.
    Thread(Arc<Task>, bool),
}

impl Clock {
    /// The clock of an id as `cur` sees it; `EINVAL` if there is none.
    pub fn from_id(cur: &Arc<Task>, id: i32) -> Result<Self> {
        if id < 0 {
            return Self::from_cpu_id(cur, id);
        }
        Ok(match id.cast_unsigned() {
            c::CLOCK_REALTIME | c::CLOCK_REALTIME_COARSE | c::CLOCK_REALTIME_ALARM | c::CLOCK_TAI => {
                Self::Real
            }
            c::CLOCK_MONOTONIC
            | c::CLOCK_MONOTONIC_RAW
            | c::CLOCK_MONOTONIC_COARSE
            | c::CLOCK_BOOTTIME
            | c::CLOCK_BOOTTIME_ALARM => Self::Mono,
            c::CLOCK_PROCESS_CPUTIME_ID => Self::Process(Arc::clone(&cur.group), false),
            c::CLOCK_THREAD_CPUTIME_ID => Self::Thread(Arc::clone(cur), false),
            _ => return Err(Errno::EINVAL),
        })
    }

    /// clock_getcpuclockid(3): the complement of the id in the upper bits, bit 2 for a thread, kind in bits 0-1.
    fn from_cpu_id(cur: &Arc<Task>, id: i32) -> Result<Self> {
        let pid: Pid = (!(id >> 3)).cast_unsigned();
        let kind = id & 3;
        if kind == 3 {
            return Err(Errno::EINVAL);
        }
        let user_only = kind == 1;
        if id & 4 != 0 {
            let t = if pid == 0 { Some(Arc::clone(cur)) } else { pid::find_task(pid) };
            let t = t.filter(|t| Arc::ptr_eq(&t.group, &cur.group)).ok_or(Errno::EINVAL)?;
            return Ok(Self::Thread(t, user_only));
        }
        let g = if pid == 0 { Some(Arc::clone(&cur.group)) } else { pid::find_group(pid) };
        Ok(Self::Process(g.ok_or(Errno::EINVAL)?, user_only))
    }

    /// The time in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        match self {
            Self::Real => host::realtime_ns(),
            Self::Mono => executor::time::now().as_ns(),
            Self::Process(g, user_only) => cpu_ns(&g.rusage(), *user_only),
            Self::Thread(t, user_only) => cpu_ns(&t.rusage(), *user_only),
        }
    }

    /// True for clocks that count CPU time.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Self::Process(..) | Self::Thread(..))
    }

    /// When (at the earliest) this clock shows `at_ns`; to be asked again then, if it is a CPU clock.
    pub fn when(&self, at_ns: u64) -> Ktime {
        let now = executor::time::now();
        let left = at_ns.saturating_sub(self.now_ns());
        match self {
            Self::Mono => Ktime(at_ns),
            Self::Real => now + Duration::from_nanos(left),
            // CPU clocks move at most as fast as there are threads; they are looked at no oftener than a tick.
            Self::Thread(..) => now + Duration::from_nanos(left.max(TICK_NS)),
            Self::Process(g, _) => {
                now + Duration::from_nanos((left / g.nr_threads().max(1) as u64).max(TICK_NS))
            }
        }
    }
}

/// Resolution of CPU timers and coarse clocks (CONFIG_HZ=250).
pub const TICK_NS: u64 = 4_000_000;

fn cpu_ns(r: &crate::task::rusage::Rusage, user_only: bool) -> u64 {
    if user_only { r.utime_ns } else { r.utime_ns.saturating_add(r.stime_ns) }
}

/// A timespec as nanoseconds; `EINVAL` for negative seconds or nanoseconds out of range. Saturates.
pub fn timespec_ns(ts: [i64; 2]) -> Result<u64> {
    let sec = u64::try_from(ts[0]).map_err(|_| Errno::EINVAL)?;
    let ns = u64::try_from(ts[1]).ok().filter(|&n| n < NSEC).ok_or(Errno::EINVAL)?;
    Ok(sec.saturating_mul(NSEC).saturating_add(ns))
}

/// A timeval as nanoseconds; errors as [`timespec_ns`].
pub fn timeval_ns(tv: [i64; 2]) -> Result<u64> {
    let us = tv[1].checked_mul(1000).ok_or(Errno::EINVAL)?;
    timespec_ns([tv[0], us])
}

/// Nanoseconds as a timespec.
pub fn ns_timespec(ns: u64) -> [i64; 2] {
    [(ns / NSEC).cast_signed(), (ns % NSEC).cast_signed()]
}

/// Nanoseconds as a timeval, rounded down.
pub fn ns_timeval(ns: u64) -> [i64; 2] {
    [(ns / NSEC).cast_signed(), (ns % NSEC / 1000).cast_signed()]
}

/// The instant `ns` from now.
pub fn after(ns: u64) -> Ktime {
    executor::time::now() + Duration::from_nanos(ns)
}

/// The instant at which CLOCK_REALTIME will show `ns`, as it runs now. DIFFERS: a later step of the host's clock does
/// not move it.
pub fn realtime_to_mono(ns: u64) -> Ktime {
    Clock::Real.when(ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_check_their_ranges() {
        assert_eq!(timespec_ns([1, 5]), Ok(NSEC + 5));
        assert_eq!(timespec_ns([-1, 0]), Err(Errno::EINVAL));
        assert_eq!(timespec_ns([0, 1_000_000_000]), Err(Errno::EINVAL));
        assert_eq!(timespec_ns([i64::MAX, 0]), Ok(u64::MAX));
        assert_eq!(timeval_ns([1, 2]), Ok(NSEC + 2000));
        assert_eq!(timeval_ns([0, i64::MAX]), Err(Errno::EINVAL));
        assert_eq!(ns_timespec(2 * NSEC + 3), [2, 3]);
    }
}
