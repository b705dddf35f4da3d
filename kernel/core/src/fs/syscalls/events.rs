//! epoll, eventfd, timerfd, signalfd, memfd_create, inotify.

use super::file;
use super::open::install;
use super::poll::{Patience, with_mask};
use super::timespec_to_duration;
use crate::fs::anon::anon_file;
use crate::fs::eventfd::EventFd;
use crate::fs::eventpoll::EventPoll;
use crate::fs::poll::{POLLERR, POLLHUP};
use crate::fs::signalfd::SignalFd;
use crate::fs::timerfd::TimerFd;
use crate::signal::SigSet;
use crate::signal::mask::read_mask;
use crate::syscall::{Fd, UserPtr};
use crate::task::Task;
use crate::time::clock::{Clock, ns_timespec, timespec_ns};
use crate::{Errno, Result};
use std::sync::Arc;
use std::time::Duration;
use uapi::raw::general as c;

/// epoll_create(2).
pub fn sys_epoll_create(cur: &Arc<Task>, size: i32) -> Result<u64> {
    if size <= 0 { Err(Errno::EINVAL) } else { sys_epoll_create1(cur, 0) }
}

/// epoll_create1(2).
pub fn sys_epoll_create1(cur: &Arc<Task>, flags: u32) -> Result<u64> {
    if flags & !c::O_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    install(cur, anon_file("[eventpoll]", EventPoll::new(), c::O_RDWR), flags)
}

fn instance(cur: &Task, fd: Fd) -> Result<Arc<EventPoll>> {
    file(cur, fd)?.ops_as::<EventPoll>().ok_or(Errno::EINVAL)
}

/// epoll_ctl(2).
pub async fn sys_epoll_ctl(
    cur: &Arc<Task>,
    ep: Fd,
    op: u32,
    fd: Fd,
    event: UserPtr<[u8; 12]>,
) -> Result<u64> {
    let (mut events, mut data) = (0, 0);
    if op != c::EPOLL_CTL_DEL {
        let b = event.read(cur).await?;
        events = u32::from_ne_bytes([b[0], b[1], b[2], b[3]]) | POLLERR | POLLHUP;
        data = u64::from_ne_bytes([b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11]]);
    }
    let epoll_file = file(cur, ep)?;
    let target = file(cur, fd)?;
    // Regular files and directories are always ready: there is nothing to wait for.
    if target.inode.is_regular() && target.ops.seekable() || target.inode.is_dir() {
        return Err(Errno::EPERM);
    }
    let ep = epoll_file.ops_as::<EventPoll>().ok_or(Errno::EINVAL)?;
    if Arc::ptr_eq(&epoll_file, &target) {
        return Err(Errno::EINVAL);
    }
    match op {
        c::EPOLL_CTL_ADD => ep.add(fd.0, &target, events, data)?,
        c::EPOLL_CTL_MOD => ep.modify(fd.0, &target, events, data)?,
        c::EPOLL_CTL_DEL => ep.remove(fd.0, &target)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

async fn wait(cur: &Arc<Task>, ep: Fd, out: UserPtr<u8>, max: i32, p: Patience) -> Result<u64> {
    let max = usize::try_from(max).ok().filter(|&n| n > 0 && n < 1 << 27).ok_or(Errno::EINVAL)?;
    let ep = instance(cur, ep)?;
    let got = ep.wait(cur, max, p).await?;
    let n = got.len() as u64;
    if n > 0
        && let Err(e) = cur.mm().copy_to_user(out.addr(), &got.to_bytes()).await
    {
        ep.give_back(got);
        return Err(e);
    }
    Ok(n)
}

fn millis(timeout: i32) -> Patience {
    Patience::relative(u64::try_from(timeout).ok().map(Duration::from_millis))
}

/// epoll_wait(2).
pub async fn sys_epoll_wait(
    cur: &Arc<Task>,
    ep: Fd,
    out: UserPtr<u8>,
    max: i32,
    timeout: i32,
) -> Result<u64> {
    wait(cur, ep, out, max, millis(timeout)).await
}

/// epoll_pwait(2).
pub async fn sys_epoll_pwait(
    cur: &Arc<Task>,
    ep: Fd,
    out: UserPtr<u8>,
    max: i32,
    timeout: i32,
    mask: UserPtr<u64>,
    size: usize,
) -> Result<u64> {
    let mask = read_mask(cur, mask, size).await?;
    with_mask(cur, mask, wait(cur, ep, out, max, millis(timeout))).await
}

/// epoll_pwait2(2).
pub async fn sys_epoll_pwait2(
    cur: &Arc<Task>,
    ep: Fd,
    out: UserPtr<u8>,
    max: i32,
    timeout: UserPtr<[i64; 2]>,
    mask: UserPtr<u64>,
    size: usize,
) -> Result<u64> {
    let d = timeout.read_opt(cur).await?.map(timespec_to_duration).transpose()?;
    let mask = read_mask(cur, mask, size).await?;
    with_mask(cur, mask, wait(cur, ep, out, max, Patience::relative(d))).await
}

/// eventfd(2).
pub fn sys_eventfd(cur: &Arc<Task>, count: u32) -> Result<u64> {
    sys_eventfd2(cur, count, 0)
}

/// eventfd2(2).
pub fn sys_eventfd2(cur: &Arc<Task>, count: u32, flags: u32) -> Result<u64> {
    const SEMAPHORE: u32 = 1;
    if flags & !(SEMAPHORE | c::O_CLOEXEC | c::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let e = EventFd::new(u64::from(count), flags & SEMAPHORE != 0);
    install(cur, anon_file("[eventfd]", e, c::O_RDWR | (flags & c::O_NONBLOCK)), flags)
}

/// timerfd_create(2).
pub fn sys_timerfd_create(cur: &Arc<Task>, clock: i32, flags: u32) -> Result<u64> {
    let known = [
        c::CLOCK_REALTIME,
        c::CLOCK_MONOTONIC,
        c::CLOCK_BOOTTIME,
        c::CLOCK_REALTIME_ALARM,
        c::CLOCK_BOOTTIME_ALARM,
    ];
    if flags & !(c::O_CLOEXEC | c::O_NONBLOCK) != 0 || !known.contains(&clock.cast_unsigned()) {
        return Err(Errno::EINVAL);
    }
    let t = TimerFd::new(Clock::from_id(cur, clock)?, clock);
    install(cur, anon_file("[timerfd]", t, c::O_RDWR | (flags & c::O_NONBLOCK)), flags)
}

fn timer(cur: &Task, fd: Fd) -> Result<Arc<TimerFd>> {
    file(cur, fd)?.ops_as::<TimerFd>().ok_or(Errno::EINVAL)
}

/// struct itimerspec: interval, value.
type Itimerspec = [[i64; 2]; 2];

fn spec((interval, left): (u64, u64)) -> Itimerspec {
    [ns_timespec(interval), ns_timespec(left)]
}

/// timerfd_settime(2).
pub async fn sys_timerfd_settime(
    cur: &Arc<Task>,
    fd: Fd,
    flags: u32,
    new: UserPtr<[[i64; 2]; 2]>,
    old: UserPtr<[[i64; 2]; 2]>,
) -> Result<u64> {
    const ABSTIME: u32 = 1;
    const CANCEL_ON_SET: u32 = 2;
    if flags & !(ABSTIME | CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let [interval, value] = new.read(cur).await?;
    let (interval, value) = (timespec_ns(interval)?, timespec_ns(value)?);
    let was = timer(cur, fd)?.set(interval, value, flags & ABSTIME != 0);
    old.write_opt(cur, &spec(was)).await.map(|()| 0)
}

/// timerfd_gettime(2).
pub async fn sys_timerfd_gettime(cur: &Arc<Task>, fd: Fd, out: UserPtr<[[i64; 2]; 2]>) -> Result<u64> {
    let now = timer(cur, fd)?.get();
    out.write(cur, &spec(now)).await.map(|()| 0)
}

/// signalfd(2).
pub async fn sys_signalfd(cur: &Arc<Task>, fd: Fd, mask: UserPtr<u64>, size: usize) -> Result<u64> {
    sys_signalfd4(cur, fd, mask, size, 0).await
}

/// signalfd4(2).
pub async fn sys_signalfd4(
    cur: &Arc<Task>,
    fd: Fd,
    mask: UserPtr<u64>,
    size: usize,
    flags: u32,
) -> Result<u64> {
    if size != 8 || flags & !(c::O_CLOEXEC | c::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    // SIGKILL and SIGSTOP cannot be read.
    let unreadable = 1u64 << (c::SIGKILL - 1) | 1u64 << (c::SIGSTOP - 1);
    let mask = SigSet(mask.read(cur).await? & !unreadable);
    if fd.0 != -1 {
        file(cur, fd)?.ops_as::<SignalFd>().ok_or(Errno::EINVAL)?.set_mask(cur, mask);
        return u64::try_from(fd.0).map_err(|_| Errno::EBADF);
    }
    let s = SignalFd::new(cur, mask);
    install(cur, anon_file("[signalfd]", s, c::O_RDWR | (flags & c::O_NONBLOCK)), flags)
}

/// memfd_create(2).
pub async fn sys_memfd_create(cur: &Arc<Task>, name: UserPtr<u8>, flags: u32) -> Result<u64> {
    let name = name.read_cstr(cur, 4096).await?;
    let f = crate::fs::memfd::memfd_create(cur, &name, flags)?;
    install(cur, f, if flags & c::MFD_CLOEXEC != 0 { c::O_CLOEXEC } else { 0 })
}
