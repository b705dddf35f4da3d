//! wait4(2) and waitid(2).

use super::exit::{cld_code, reap};
use super::pid;
use super::rusage::Rusage;
use super::task::{Pid, Task};
use super::thread_group::ThreadGroup;
use crate::signal::SigInfo;
use crate::syscall::UserPtr;
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

/// Which children are meant.
#[derive(Clone, Debug)]
enum Which {
    Any,
    Pid(Pid),
    Pgrp(Pid),
}

/// What happened to a child.
struct Event {
    pid: Pid,
    uid: u32,
    /// Status as wait4(2) gives it.
    status: i32,
    /// CLD_* and `si_status` for waitid(2).
    code: i32,
    si_status: i32,
    usage: Rusage,
}

const KNOWN: u32 = c::WNOHANG
    | c::WUNTRACED
    | c::WEXITED
    | c::WCONTINUED
    | c::WNOWAIT
    | c::__WNOTHREAD
    | c::__WCLONE
    | c::__WALL;

fn eligible(child: &Arc<ThreadGroup>, which: &Which, options: u32) -> bool {
    let i = child.inner.lock();
    let right = match which {
        Which::Any => true,
        Which::Pid(p) => child.tgid == *p,
        Which::Pgrp(g) => i.pgrp == *g,
    };
    // Clone children are those whose end is not told by SIGCHLD (wait(2), Linux notes).
    let clone = i.exit_signal != c::SIGCHLD as i32;
    right && (options & c::__WALL != 0 || clone == (options & c::__WCLONE != 0))
}

/// Looks at one child; consumes the event unless WNOWAIT. The flag says that a zombie is to be reaped.
fn look(child: &Arc<ThreadGroup>, options: u32) -> Option<(Event, bool)> {
    let keep = options & c::WNOWAIT != 0;
    let usage = child.rusage();
    let uid = child.leader().map_or(0, |t| t.cred().uid);
    let zombie = child.inner.lock().zombie;
    let event = |status, code, si_status, uid| Event { pid: child.tgid, uid, status, code, si_status, usage };
    if let Some(z) = zombie {
        if options & c::WEXITED == 0 {
            return None;
        }
        let (code, st) = cld_code(z.status);
        return Some((event(z.status, code, st, z.uid), !keep));
    }
    let mut g = child.signals.lock();
    if options & c::WUNTRACED != 0 && g.stopped && g.stop_code != 0 {
        let sig = g.stop_code;
        if !keep {
            g.stop_code = 0;
        }
        return Some((event(sig << 8 | 0x7f, c::CLD_STOPPED as i32, sig, uid), false));
    }
    if options & c::WCONTINUED != 0 && g.continued {
        if !keep {
            g.continued = false;
        }
        return Some((event(0xffff, c::CLD_CONTINUED as i32, c::SIGCONT as i32, uid), false));
    }
    None
}

/// One look at all children: `ECHILD` if none is eligible, `None` if none has news.
fn scan(cur: &Arc<Task>, which: &Which, options: u32) -> Result<Option<Event>> {
    let mut table = pid::write();
    let children = cur.group.inner.lock().children.clone();
    let mut any = false;
    for child in children.iter().filter(|ch| eligible(ch, which, options)) {
        any = true;
        if let Some((event, take)) = look(child, options) {
            if take {
                reap(&mut table, child);
            }
            return Ok(Some(event));
        }
    }
    if any { Ok(None) } else { Err(Errno::ECHILD) }
}

async fn do_wait(cur: &Arc<Task>, which: Which, options: u32) -> Result<Option<Event>> {
    let first = scan(cur, &which, options)?;
    if first.is_some() || options & c::WNOHANG != 0 {
        return Ok(first);
    }
    let group = Arc::clone(&cur.group);
    cur.wait_event(None, |table| {
        table.register(&group.child_wait, u32::MAX);
        scan(cur, &which, options).transpose()
    })
    .await?
    .map(Some)
}

/// wait4(2).
pub async fn sys_wait4(
    cur: &Arc<Task>,
    target: i32,
    status: UserPtr<i32>,
    options: u32,
    usage: UserPtr<[i64; 18]>,
) -> Result<u64> {
    if options & !(c::WNOHANG | c::WUNTRACED | c::WCONTINUED | c::__WNOTHREAD | c::__WCLONE | c::__WALL) != 0
    {
        return Err(Errno::EINVAL);
    }
    let which = match target {
        -1 => Which::Any,
        i32::MIN => return Err(Errno::ESRCH),
        0 => Which::Pgrp(cur.group.pgrp()),
        1.. => Which::Pid(target.cast_unsigned()),
        _ => Which::Pgrp(target.unsigned_abs()),
    };
    let Some(e) = do_wait(cur, which, options | c::WEXITED).await? else { return Ok(0) };
    status.write_opt(cur, &e.status).await?;
    usage.write_opt(cur, &e.usage.to_abi()).await?;
    Ok(u64::from(e.pid))
}

/// waitid(2).
pub async fn sys_waitid(
    cur: &Arc<Task>,
    kind: u32,
    id: i32,
    info: UserPtr<[u8; 128]>,
    options: u32,
    usage: UserPtr<[i64; 18]>,
) -> Result<u64> {
    if options & !KNOWN != 0 || options & (c::WEXITED | c::WUNTRACED | c::WCONTINUED) == 0 {
        return Err(Errno::EINVAL);
    }
    let mut options = options;
    let positive = |id: i32| u32::try_from(id).ok().filter(|&p| p > 0).ok_or(Errno::EINVAL);
    let mut nonblock_pidfd = false;
    let which = match kind {
        c::P_ALL => Which::Any,
        c::P_PID => Which::Pid(positive(id)?),
        c::P_PGID if id == 0 => Which::Pgrp(cur.group.pgrp()),
        c::P_PGID => Which::Pgrp(positive(id)?),
        c::P_PIDFD => {
            let file = cur.files().get(id)?;
            let p = file.ops_as::<super::pidfd::PidFd>().ok_or(Errno::EBADF)?;
            if file.nonblocking() && options & c::WNOHANG == 0 {
                nonblock_pidfd = true;
                options |= c::WNOHANG;
            }
            Which::Pid(p.group().tgid)
        }
        _ => return Err(Errno::EINVAL),
    };
    let Some(e) = do_wait(cur, which, options).await? else {
        if nonblock_pidfd {
            return Err(Errno::EAGAIN);
        }
        // Nothing yet: the info is all zeros.
        info.write_opt(cur, &[0u8; 128]).await?;
        return Ok(0);
    };
    let si = SigInfo::child(c::SIGCHLD as i32, e.code, e.pid, e.uid, e.si_status, 0, 0);
    info.write_opt(cur, &si.to_bytes()).await?;
    usage.write_opt(cur, &e.usage.to_abi()).await?;
    Ok(0)
}

/// One look at all children, for tests: process id and status.
#[cfg(test)]
pub(super) fn test_scan(cur: &Arc<Task>, options: u32) -> Result<Option<(Pid, i32)>> {
    scan(cur, &Which::Any, options).map(|e| e.map(|e| (e.pid, e.status)))
}

/// A whole wait, for tests.
#[cfg(test)]
pub(super) async fn test_wait(cur: &Arc<Task>, options: u32) -> Result<Option<(Pid, i32)>> {
    do_wait(cur, Which::Any, options).await.map(|e| e.map(|e| (e.pid, e.status)))
}
