//! nanosleep(2) and clock_nanosleep(2).

use super::clock::{Clock, ns_timespec, timespec_ns};
use crate::syscall::UserPtr;
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

/// Sleeps until the clock shows `at_ns`; `ERESTARTSYS` on a signal.
async fn sleep_until(cur: &Arc<Task>, clock: &Clock, at_ns: u64) -> Result<()> {
    while clock.now_ns() < at_ns {
        cur.sleep_interruptible(clock.when(at_ns)).await?;
        if matches!(clock, Clock::Mono) {
            break;
        }
    }
    Ok(())
}

/// A relative sleep: after a signal the rest of the time is written to `rem`, and a restart goes on to the same end.
async fn relative(cur: &Arc<Task>, clock: Clock, at_ns: u64, rem: UserPtr<[i64; 2]>) -> Result<u64> {
    match sleep_until(cur, &clock, at_ns).await {
        Ok(()) => Ok(0),
        Err(Errno::ERESTARTSYS) => {
            let left = at_ns.saturating_sub(clock.now_ns());
            if left == 0 {
                return Ok(0);
            }
            rem.write_opt(cur, &ns_timespec(left)).await?;
            Err(cur.set_restart(Box::new(move |cur| relative_again(cur, clock, at_ns, rem))))
        }
        Err(e) => Err(e),
    }
}

fn relative_again(
    cur: Arc<Task>,
    clock: Clock,
    at_ns: u64,
    rem: UserPtr<[i64; 2]>,
) -> BoxFuture<'static, Result<u64>> {
    Box::pin(async move { relative(&cur, clock, at_ns, rem).await })
}

/// nanosleep(2).
pub async fn sys_nanosleep(cur: &Arc<Task>, req: UserPtr<[i64; 2]>, rem: UserPtr<[i64; 2]>) -> Result<u64> {
    let ns = timespec_ns(req.read(cur).await?)?;
    let at = Clock::Mono.now_ns().saturating_add(ns);
    relative(cur, Clock::Mono, at, rem).await
}

/// clock_nanosleep(2).
pub async fn sys_clock_nanosleep(
    cur: &Arc<Task>,
    id: i32,
    flags: u32,
    req: UserPtr<[i64; 2]>,
    rem: UserPtr<[i64; 2]>,
) -> Result<u64> {
    const NOT_FOR_SLEEP: [i32; 3] =
        [c::CLOCK_MONOTONIC_RAW as i32, c::CLOCK_REALTIME_COARSE as i32, c::CLOCK_MONOTONIC_COARSE as i32];
    let clock = Clock::from_id(cur, id)?;
    if NOT_FOR_SLEEP.contains(&id) {
        return Err(Errno::EOPNOTSUPP);
    }
    if matches!(&clock, Clock::Thread(t, _) if Arc::ptr_eq(t, cur)) {
        return Err(Errno::EINVAL);
    }
    let ns = timespec_ns(req.read(cur).await?)?;
    if flags & c::TIMER_ABSTIME != 0 {
        return match sleep_until(cur, &clock, ns).await {
            Err(Errno::ERESTARTSYS) => Err(Errno::ERESTARTNOHAND),
            r => r.map(|()| 0),
        };
    }
    // Relative times do not follow steps of the real-time clock.
    let clock = if matches!(clock, Clock::Real) { Clock::Mono } else { clock };
    let at = clock.now_ns().saturating_add(ns);
    relative(cur, clock, at, rem).await
}
