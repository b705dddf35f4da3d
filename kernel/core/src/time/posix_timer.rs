//! POSIX timers: timer_create(2) and its family.

use super::clock::{Clock, ns_timespec, timespec_ns};
use super::timer::{Notify, Timer, TimerSpec};
use crate::signal::sigset::valid_signal;
use crate::syscall::UserPtr;
use crate::task::{Task, pid};
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

/// `struct itimerspec`: interval, then value.
type Itimerspec = [i64; 4];

fn to_abi(s: TimerSpec) -> Itimerspec {
    let (i, v) = (ns_timespec(s.interval_ns), ns_timespec(s.value_ns));
    [i[0], i[1], v[0], v[1]]
}

/// timer_create(2). `struct sigevent` is value, signo, notify, tid in its first 24 bytes.
pub async fn sys_timer_create(
    cur: &Arc<Task>,
    clock: i32,
    event: UserPtr<[u8; 64]>,
    id_out: UserPtr<i32>,
) -> Result<u64> {
    const RAW: i32 = c::CLOCK_MONOTONIC_RAW as i32;
    const COARSE: [i32; 2] = [c::CLOCK_REALTIME_COARSE as i32, c::CLOCK_MONOTONIC_COARSE as i32];
    if clock == RAW || COARSE.contains(&clock) {
        return Err(Errno::EOPNOTSUPP);
    }
    let clock = Clock::from_id(cur, clock)?;
    let event = event.read_opt(cur).await?;
    let (value, signo, how, tid) = match event {
        None => (None, c::SIGALRM.cast_signed(), c::SIGEV_SIGNAL, 0),
        Some(b) => {
            let w = |at: usize| u32::from_ne_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
            let value = u64::from(w(0)) | u64::from(w(4)) << 32;
            (Some(value), w(8).cast_signed(), w(12), w(16))
        }
    };
    let group = Arc::downgrade(&cur.group);
    let notify = match how {
        c::SIGEV_NONE => Notify::Nobody,
        // SIGEV_THREAD is the C library's business; the kernel takes it for a signal.
        c::SIGEV_SIGNAL | c::SIGEV_THREAD => Notify::Group(group),
        c::SIGEV_THREAD_ID => {
            let t = pid::find_task(tid).filter(|t| Arc::ptr_eq(&t.group, &cur.group));
            Notify::Thread(Arc::downgrade(&t.ok_or(Errno::EINVAL)?))
        }
        _ => return Err(Errno::EINVAL),
    };
    if !matches!(notify, Notify::Nobody) && !valid_signal(signo) {
        return Err(Errno::EINVAL);
    }
    let timers = &cur.group.timers;
    // Without a sigevent the value is the timer's id.
    let make =
        |id: i32| Timer::new(id, &clock, notify, signo, value.unwrap_or(u64::from(id.cast_unsigned())));
    let id = timers.create(make)?;
    if let Err(e) = id_out.write(cur, &id).await {
        timers.delete(id)?;
        return Err(e);
    }
    Ok(0)
}

/// timer_settime(2).
pub async fn sys_timer_settime(
    cur: &Arc<Task>,
    id: i32,
    flags: u32,
    new: UserPtr<Itimerspec>,
    old: UserPtr<Itimerspec>,
) -> Result<u64> {
    if new.is_null() {
        return Err(Errno::EINVAL);
    }
    let n = new.read(cur).await?;
    let spec = TimerSpec { interval_ns: timespec_ns([n[0], n[1]])?, value_ns: timespec_ns([n[2], n[3]])? };
    let was = cur.group.timers.get(id)?.set(spec, flags & c::TIMER_ABSTIME != 0);
    old.write_opt(cur, &to_abi(was)).await?;
    Ok(0)
}

/// timer_gettime(2).
pub async fn sys_timer_gettime(cur: &Arc<Task>, id: i32, out: UserPtr<Itimerspec>) -> Result<u64> {
    let now = cur.group.timers.get(id)?.get();
    out.write(cur, &to_abi(now)).await?;
    Ok(0)
}

/// timer_getoverrun(2).
pub fn sys_timer_getoverrun(cur: &Arc<Task>, id: i32) -> Result<u64> {
    Ok(u64::from(cur.group.timers.get(id)?.overrun().cast_unsigned()))
}

/// timer_delete(2).
pub fn sys_timer_delete(cur: &Arc<Task>, id: i32) -> Result<u64> {
    cur.group.timers.delete(id)?;
    Ok(0)
}
