//! Interval timers: setitimer(2), getitimer(2), alarm(2).

use super::clock::{NSEC, ns_timeval, timeval_ns};
use super::timer::TimerSpec;
use crate::Result;
use crate::syscall::UserPtr;
use crate::task::Task;
use std::sync::Arc;

/// `struct itimerval`: interval, then value.
type Itimerval = [i64; 4];

fn to_abi(s: TimerSpec) -> Itimerval {
    let (i, v) = (ns_timeval(s.interval_ns), ns_timeval(s.value_ns.next_multiple_of(1000)));
    [i[0], i[1], v[0], v[1]]
}

/// setitimer(2); a null pointer disarms, as Linux does.
pub async fn sys_setitimer(
    cur: &Arc<Task>,
    which: u32,
    new: UserPtr<Itimerval>,
    old: UserPtr<Itimerval>,
) -> Result<u64> {
    let new = new.read_opt(cur).await?.unwrap_or_default();
    let spec =
        TimerSpec { interval_ns: timeval_ns([new[0], new[1]])?, value_ns: timeval_ns([new[2], new[3]])? };
    let was = cur.group.timers.itimer(&cur.group, which)?.set(spec, false);
    old.write_opt(cur, &to_abi(was)).await?;
    Ok(0)
}

/// getitimer(2).
pub async fn sys_getitimer(cur: &Arc<Task>, which: u32, out: UserPtr<Itimerval>) -> Result<u64> {
    let now = cur.group.timers.itimer(&cur.group, which)?.get();
    out.write(cur, &to_abi(now)).await?;
    Ok(0)
}

/// alarm(2): gives the seconds that were left, rounded as Linux does (never zero for an armed timer).
pub fn sys_alarm(cur: &Arc<Task>, seconds: u32) -> Result<u64> {
    let spec = TimerSpec { value_ns: u64::from(seconds) * NSEC, interval_ns: 0 };
    let was = cur.group.timers.itimer(&cur.group, 0)?.set(spec, false).value_ns;
    if was == 0 {
        return Ok(0);
    }
    Ok(((was + NSEC / 2) / NSEC).max(1))
}
