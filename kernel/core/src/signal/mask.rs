//! Signal masks, waiting for signals, the alternate stack.

use super::send::{retarget_shared, set_blocked_locked};
use super::{AltStack, SigSet, recalc_locked};
use crate::syscall::UserPtr;
use crate::task::Task;
use crate::time::clock;
use crate::{Errno, Result};
use klib::ktime::Ktime;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uapi::raw::general as c;

/// Replaces the mask of `task`; SIGKILL and SIGSTOP stay out of it.
pub fn set_blocked(task: &Task, mask: SigSet) {
    let inner = task.group.inner.lock();
    let g = task.group.signals.lock();
    let newly = {
        let mut t = task.signals.lock();
        set_blocked_locked(task, &inner, &g, &mut t, mask)
    };
    if !newly.is_empty() {
        retarget_shared(&inner, &g, task, newly);
    }
}

/// ppoll(2), pselect(2), epoll_pwait(2): puts a temporary mask in place and remembers the old one.
/// The call ends with [`restore_saved`], unless a signal interrupted it: then delivery does it.
pub fn set_user_sigmask(task: &Task, mask: SigSet) {
    {
        let mut t = task.signals.lock();
        t.saved = Some(t.blocked);
    }
    set_blocked(task, mask);
}

/// Puts the mask back that [`set_user_sigmask`] replaced. With `interrupted` (the call returns a restart kind or
/// EINTR) it is left to delivery, so that a handler still runs under the temporary mask's view of what is pending.
pub fn restore_saved_unless(task: &Task, interrupted: bool) {
    if !interrupted {
        restore_saved(task);
    }
}

/// Puts the remembered mask back, if there is one.
pub fn restore_saved(task: &Task) {
    let saved = { task.signals.lock().saved.take() };
    if let Some(mask) = saved {
        set_blocked(task, mask);
    }
}

/// Reads a mask argument whose size must be 8 (`EINVAL`); a null pointer is `None`.
pub async fn read_mask(cur: &Arc<Task>, ptr: UserPtr<u64>, size: usize) -> Result<Option<SigSet>> {
    if ptr.is_null() {
        return Ok(None);
    }
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    Ok(Some(SigSet(ptr.read(cur).await?)))
}

/// rt_sigprocmask(2).
pub async fn sys_rt_sigprocmask(
    cur: &Arc<Task>,
    how: i32,
    set: UserPtr<u64>,
    old: UserPtr<u64>,
    size: usize,
) -> Result<u64> {
    const SIG_BLOCK: i32 = 0;
    const SIG_UNBLOCK: i32 = 1;
    const SIG_SETMASK: i32 = 2;
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    let was = cur.signals.blocked();
    if let Some(set) = set.read_opt(cur).await? {
        let set = SigSet(set).blockable();
        let mask = match how {
            SIG_BLOCK => was.or(set),
            SIG_UNBLOCK => was.minus(set),
            SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        set_blocked(cur, mask);
    }
    old.write_opt(cur, &was.0).await?;
    Ok(0)
}

/// rt_sigpending(2); a size below 8 gives the low bytes.
pub async fn sys_rt_sigpending(cur: &Arc<Task>, out: UserPtr<u8>, size: usize) -> Result<u64> {
    if size > 8 {
        return Err(Errno::EINVAL);
    }
    let bytes = cur.all_pending().and(cur.signals.blocked()).0.to_ne_bytes();
    cur.mm().copy_to_user(out.addr(), &bytes[..size]).await?;
    Ok(0)
}

/// rt_sigsuspend(2).
pub async fn sys_rt_sigsuspend(cur: &Arc<Task>, set: UserPtr<u64>, size: usize) -> Result<u64> {
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = SigSet(set.read(cur).await?);
    set_user_sigmask(cur, mask);
    wait_signal(cur, None).await?;
    Err(Errno::ERESTARTNOHAND)
}

/// pause(2).
pub async fn sys_pause(cur: &Arc<Task>) -> Result<u64> {
    wait_signal(cur, None).await?;
    Err(Errno::ERESTARTNOHAND)
}

/// Sleeps until a signal is pending (`Ok`) or the time is over (`EAGAIN`).
async fn wait_signal(cur: &Arc<Task>, deadline: Option<Ktime>) -> Result<()> {
    match cur.wait_event::<()>(deadline, |_| None).await {
        Err(Errno::ETIMEDOUT) => Err(Errno::EAGAIN),
        _ => Ok(()),
    }
}

/// rt_sigtimedwait(2).
pub async fn sys_rt_sigtimedwait(
    cur: &Arc<Task>,
    set: UserPtr<u64>,
    info: UserPtr<[u8; 128]>,
    timeout: UserPtr<[i64; 2]>,
    size: usize,
) -> Result<u64> {
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    let set = SigSet(set.read(cur).await?).blockable();
    let deadline = match timeout.read_opt(cur).await? {
        None => None,
        Some(ts) => Some(clock::after(clock::timespec_ns(ts)?)),
    };
    let got = sigtimedwait(cur, set, deadline).await?;
    info.write_opt(cur, &got.to_bytes()).await?;
    Ok(u64::try_from(got.signo).unwrap_or(0))
}

/// Takes a signal of `set`, waiting until `deadline`: `EAGAIN` past it, `EINTR` if another signal comes.
async fn sigtimedwait(cur: &Arc<Task>, set: SigSet, deadline: Option<Ktime>) -> Result<super::SigInfo> {
    if let Some(i) = cur.dequeue_signal(set) {
        return Ok(i);
    }
    if deadline.is_some_and(|d| d <= executor::time::now()) {
        return Err(Errno::EAGAIN);
    }
    // While waiting the signals count as unblocked, so that senders wake us; `real_blocked` keeps them from being
    // dropped or from killing at once.
    {
        let g = cur.group.signals.lock();
        let mut t = cur.signals.lock();
        t.real_blocked = t.blocked;
        t.blocked = t.blocked.minus(set);
        recalc_locked(cur, &g, &t);
    }
    let waited = wait_signal(cur, deadline).await;
    {
        let inner = cur.group.inner.lock();
        let g = cur.group.signals.lock();
        let mask = {
            let mut t = cur.signals.lock();
            let mask = std::mem::take(&mut t.real_blocked);
            set_blocked_locked(cur, &inner, &g, &mut t, mask);
            mask
        };
        retarget_shared(&inner, &g, cur, mask.minus(set));
    }
    match cur.dequeue_signal(set) {
        Some(i) => Ok(i),
        None if waited.is_err() => Err(Errno::EAGAIN),
        None => Err(Errno::EINTR),
    }
}

/// Smallest alternate stack (sigaltstack(2) MINSIGSTKSZ as the kernel has it on x86-64).
pub const MINSIGSTKSZ: u64 = 2048;

/// sigaltstack(2) needs the stack pointer of the caller; `sp` 0 means it is not known, then being on the alternate
/// stack cannot be told and is denied.
pub async fn sigaltstack(
    cur: &Arc<Task>,
    new: UserPtr<[u64; 3]>,
    old: UserPtr<[u64; 3]>,
    sp: u64,
) -> Result<u64> {
    let new = new.read_opt(cur).await?;
    let was = cur.signals.altstack();
    if let Some([nsp, flags, size]) = new {
        #[allow(clippy::cast_possible_truncation)]
        set_altstack(cur, nsp, flags as u32, size, sp)?;
    }
    let flags = u64::from(was.state(sp) | was.flags & c::SS_AUTODISARM);
    old.write_opt(cur, &[was.sp, flags, was.size]).await?;
    Ok(0)
}

/// The checks of sigaltstack(2): `EPERM` while on the stack, `EINVAL` for unknown modes, `ENOMEM` for small stacks.
pub(crate) fn set_altstack(cur: &Task, nsp: u64, flags: u32, size: u64, sp: u64) -> Result<()> {
    let mut t = cur.signals.lock();
    if t.alt.size != 0 && t.alt.contains(sp) {
        return Err(Errno::EPERM);
    }
    let mode = flags & !c::SS_FLAG_BITS;
    if mode != c::SS_DISABLE && mode != c::SS_ONSTACK && mode != 0 {
        return Err(Errno::EINVAL);
    }
    t.alt = if mode == c::SS_DISABLE {
        AltStack { sp: 0, size: 0, flags }
    } else {
        if size < MINSIGSTKSZ {
            return Err(Errno::ENOMEM);
        }
        AltStack { sp: nsp, size, flags }
    };
    Ok(())
}

/// sigaltstack(2) from a plain trap. DIFFERS: without the registers SS_ONSTACK is not reported and a change while on
/// the stack is not refused.
pub async fn sys_sigaltstack(cur: &Arc<Task>, new: UserPtr<[u64; 3]>, old: UserPtr<[u64; 3]>) -> Result<u64> {
    let sp = cur.user_sp.load(Ordering::Relaxed);
    sigaltstack(cur, new, old, sp).await
}
