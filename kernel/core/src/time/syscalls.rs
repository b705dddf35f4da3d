//! Reading clocks: clock_gettime(2) and its family.

use super::clock::{Clock, TICK_NS, ns_timespec, ns_timeval, timespec_ns};
use crate::syscall::UserPtr;
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

/// clock_gettime(2).
pub async fn sys_clock_gettime(cur: &Arc<Task>, id: i32, out: UserPtr<[i64; 2]>) -> Result<u64> {
    let ns = Clock::from_id(cur, id)?.now_ns();
    out.write(cur, &ns_timespec(ns)).await?;
    Ok(0)
}

/// clock_getres(2).
pub async fn sys_clock_getres(cur: &Arc<Task>, id: i32, out: UserPtr<[i64; 2]>) -> Result<u64> {
    Clock::from_id(cur, id)?;
    let coarse = [c::CLOCK_REALTIME_COARSE, c::CLOCK_MONOTONIC_COARSE];
    let ns = if coarse.iter().any(|&k| k.cast_signed() == id) { TICK_NS } else { 1 };
    out.write_opt(cur, &ns_timespec(ns)).await?;
    Ok(0)
}

/// clock_settime(2): the clocks are the host's and not the guest's to set.
pub async fn sys_clock_settime(cur: &Arc<Task>, id: i32, new: UserPtr<[i64; 2]>) -> Result<u64> {
    if !matches!(Clock::from_id(cur, id)?, Clock::Real) {
        return Err(Errno::EINVAL);
    }
    timespec_ns(new.read(cur).await?)?;
    Err(Errno::EPERM)
}

/// gettimeofday(2).
pub async fn sys_gettimeofday(cur: &Arc<Task>, tv: UserPtr<[i64; 2]>, tz: UserPtr<[i32; 2]>) -> Result<u64> {
    tv.write_opt(cur, &ns_timeval(Clock::Real.now_ns())).await?;
    tz.write_opt(cur, &[0, 0]).await?;
    Ok(0)
}

/// settimeofday(2).
pub fn sys_settimeofday(_cur: &Arc<Task>, _tv: u64, _tz: u64) -> Result<u64> {
    Err(Errno::EPERM)
}

/// time(2).
pub async fn sys_time(cur: &Arc<Task>, out: UserPtr<i64>) -> Result<u64> {
    let [sec, _] = ns_timespec(Clock::Real.now_ns());
    out.write_opt(cur, &sec).await?;
    Ok(sec.cast_unsigned())
}

/// adjtimex(2): reading only; the state is "not synchronised", since the guest cannot know what keeps the host's clock.
pub async fn sys_adjtimex(cur: &Arc<Task>, buf: UserPtr<[u8; 208]>) -> Result<u64> {
    const STA_UNSYNC: u64 = 0x40;
    const TIME_ERROR: u64 = 5;
    let b = buf.read(cur).await?;
    if b[..4] != [0; 4] {
        return Err(Errno::EPERM);
    }
    let mut out = [0u8; 208];
    let now = ns_timeval(Clock::Real.now_ns());
    // struct timex: maxerror 24, esterror 32, status 40, constant 48, precision 56, tolerance 64, time 72, tick 88.
    let fields: [(usize, u64); 9] = [
        (24, 16_000_000),
        (32, 16_000_000),
        (40, STA_UNSYNC),
        (48, 2),
        (56, 1),
        (64, 32_768_000),
        (72, now[0].cast_unsigned()),
        (80, now[1].cast_unsigned()),
        (88, 10_000),
    ];
    for (at, v) in fields {
        out[at..at + 8].copy_from_slice(&v.to_ne_bytes());
    }
    buf.write(cur, &out).await?;
    Ok(TIME_ERROR)
}

/// clock_adjtime(2).
pub async fn sys_clock_adjtime(cur: &Arc<Task>, id: i32, buf: UserPtr<[u8; 208]>) -> Result<u64> {
    match Clock::from_id(cur, id)? {
        Clock::Real => sys_adjtimex(cur, buf).await,
        _ => Err(Errno::EOPNOTSUPP),
    }
}
