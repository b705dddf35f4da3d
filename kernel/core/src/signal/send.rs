//! Sending signals inside the kernel. Who may send what is checked in `kill`.

use super::sigset::SIGRTMIN;
use super::{GroupSignals, SigInfo, SigSet, ThreadSig, action, recalc_locked};
use crate::task::thread_group::GroupInner;
use crate::task::{Pid, Task, ThreadGroup, pid};
use crate::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uapi::raw::general as c;

const SIGKILL: i32 = c::SIGKILL as i32;
const SIGCONT: i32 = c::SIGCONT as i32;

/// Sends to a process. A zombie takes it without effect. `EAGAIN`: a queued signal found RLIMIT_SIGPENDING reached.
pub fn send_group(group: &Arc<ThreadGroup>, info: SigInfo) -> Result<()> {
    send(group, None, info, false)
}

/// Sends to one thread.
pub fn send_task(task: &Arc<Task>, info: SigInfo) -> Result<()> {
    send(&task.group, Some(task), info, false)
}

/// Sends signal `sig` from the kernel (SI_KERNEL) to the thread `task`: SIGPIPE, SIGXFSZ.
pub fn send_sig(task: &Task, sig: u32) {
    if let Some(t) = task.me.upgrade() {
        // Only queued real-time signals can fail.
        let _ = send_task(&t, SigInfo::kernel(sig.cast_signed()));
    }
}

/// Sends to all members of a process group; `ESRCH` if there is none.
pub fn send_pgrp(pgrp: Pid, info: SigInfo) -> Result<()> {
    send_pgrp_locked(&pid::read(), pgrp, info)
}

/// As [`send_pgrp`], with the pid table locked by the caller.
pub fn send_pgrp_locked(table: &pid::PidTable, pgrp: Pid, info: SigInfo) -> Result<()> {
    let members = table.pgrp(pgrp);
    for g in members {
        send_group(g, info)?;
    }
    if members.is_empty() { Err(Errno::ESRCH) } else { Ok(()) }
}

/// A fault of the thread itself, which it cannot escape: a blocked or ignored signal kills.
pub fn force_sig_fault(task: &Arc<Task>, sig: u32, code: u32, addr: u64) {
    force(task, SigInfo::fault(sig.cast_signed(), code.cast_signed(), addr), false);
}

/// As [`force_sig_fault`] with the kernel as origin and no address.
pub fn force_sig(task: &Arc<Task>, sig: u32) {
    force(task, SigInfo::kernel(sig.cast_signed()), false);
}

/// SIGSEGV because a signal frame could not be written or read; fatal if SIGSEGV's own frame failed.
pub(crate) fn force_sigsegv(task: &Arc<Task>, failed_sig: i32) {
    force(task, SigInfo::kernel(c::SIGSEGV.cast_signed()), failed_sig == c::SIGSEGV.cast_signed());
}

/// Exception number, error code and address as the frame of a signal shows them, where the signal tells.
fn trap_of(info: &SigInfo) -> Option<(u64, u64, u64)> {
    /// Error code of a page fault: present, and from user mode.
    const PRESENT: u64 = 1;
    const USER: u64 = 4;
    let vector = match info.signo.cast_unsigned() {
        c::SIGSEGV | c::SIGBUS if info.code == c::SI_KERNEL as i32 => 13,
        c::SIGSEGV | c::SIGBUS => 14,
        c::SIGFPE => 0,
        c::SIGTRAP => 3,
        c::SIGILL => 6,
        _ => return None,
    };
    let present = info.code == c::SEGV_ACCERR as i32;
    let err = if vector == 14 { USER | if present { PRESENT } else { 0 } } else { 0 };
    Some((vector, err, info.addr()))
}

fn force(task: &Arc<Task>, info: SigInfo, to_default: bool) {
    if let Some(trap) = trap_of(&info) {
        let mut last = task.last_trap.lock();
        // The address of the last page fault stays, as cr2 does.
        let addr = if trap.0 == 14 { trap.2 } else { last.2 };
        *last = (trap.0, trap.1, addr);
    }
    {
        let mut g = task.group.signals.lock();
        let mut t = task.signals.lock();
        let hand = task.sighand();
        let act = hand.get(info.signo);
        let blocked = t.blocked.has(info.signo);
        if blocked || act.handler == action::SIG_IGN || to_default {
            hand.set(info.signo, action::SigAction { handler: action::SIG_DFL, ..act });
            t.blocked.remove(info.signo);
        }
        if hand.get(info.signo).handler == action::SIG_DFL {
            g.unkillable = false;
        }
        recalc_locked(task, &g, &t);
    }
    let _ = send(&task.group, Some(task), info, true);
}

fn send(group: &Arc<ThreadGroup>, to: Option<&Arc<Task>>, info: SigInfo, forced: bool) -> Result<()> {
    let sig = info.signo;
    let inner = group.inner.lock();
    let Some(first) = to.or(inner.threads.first()) else { return Ok(()) };
    let mut g = group.signals.lock();
    if !prepare(group, &inner, &mut g, first, sig, forced) {
        return Ok(());
    }
    if sig != SIGKILL {
        let limit = usize::try_from(group.rlimit(c::RLIMIT_SIGPENDING).0).unwrap_or(usize::MAX).min(1 << 16);
        let queue = |p: &mut super::SigPending| {
            if sig >= SIGRTMIN && p.len() >= limit {
                if info.code != 0 && info.code != c::SI_KERNEL as i32 {
                    return Err(Errno::EAGAIN);
                }
                p.push_bare(sig);
            } else {
                p.push(info);
            }
            Ok(())
        };
        match to {
            Some(t) => queue(&mut t.signals.lock().pending)?,
            None => queue(&mut g.shared)?,
        }
    }
    complete(group, &inner, &mut g, to, sig, info.code);
    drop(g);
    drop(inner);
    group.signalfd_wait.wake(crate::fs::poll::IN);
    Ok(())
}

/// What a signal does on arrival whatever its action: stop signals and SIGCONT cancel each other, SIGCONT wakes.
/// False if the signal is to be dropped.
fn prepare(
    group: &Arc<ThreadGroup>,
    inner: &GroupInner,
    g: &mut GroupSignals,
    first: &Arc<Task>,
    sig: i32,
    forced: bool,
) -> bool {
    if g.group_exit.is_some() {
        return false;
    }
    if SigSet::STOP.has(sig) {
        let cont = SigSet::of(SIGCONT);
        g.shared.discard(cont);
        for t in &inner.threads {
            t.signals.lock().pending.discard(cont);
        }
    } else if sig == SIGCONT {
        g.shared.discard(SigSet::STOP);
        g.stop_dequeued = false;
        for t in &inner.threads {
            let mut s = t.signals.lock();
            s.pending.discard(SigSet::STOP);
            s.stop_pending = false;
            s.stopped = false;
        }
        let was = if g.stopped {
            g.continued = true;
            Some(c::CLD_CONTINUED as i32)
        } else if g.stop_count > 0 {
            Some(c::CLD_STOPPED as i32)
        } else {
            None
        };
        g.stopped = false;
        g.stop_count = 0;
        if was.is_some() {
            g.cld_pending = was;
            g.stop_code = 0;
            if let Some(t) = inner.threads.first() {
                t.signal_wake_up();
            }
        }
        group.stop_wait.wake_all();
    }
    !dropped(g, first, sig, forced)
}

/// True if the signal would have no effect and need not be remembered. A blocked one may be wanted later.
fn dropped(g: &GroupSignals, t: &Arc<Task>, sig: i32, forced: bool) -> bool {
    let s = t.signals.lock();
    if s.blocked.or(s.real_blocked).has(sig) {
        return false;
    }
    drop(s);
    let act = t.sighand().get(sig);
    if g.unkillable && act.handler == action::SIG_DFL && !forced {
        return true;
    }
    act.ignores(sig)
}

/// Finds the thread that takes the signal and wakes it; begins the end of the process at once if it is fatal.
fn complete(
    group: &Arc<ThreadGroup>,
    inner: &GroupInner,
    g: &mut GroupSignals,
    to: Option<&Arc<Task>>,
    sig: i32,
    _code: i32,
) {
    let wants = |t: &Arc<Task>| {
        let s = t.signals.lock();
        !t.exiting.load(Ordering::SeqCst) && (sig == SIGKILL || !s.blocked.has(sig) && !s.stopped)
    };
    let chosen = match to {
        Some(t) => wants(t).then_some(t),
        // Prefer a thread that has no other signal to look at.
        None => inner
            .threads
            .iter()
            .find(|t| wants(t) && !t.sig_pending.load(Ordering::SeqCst))
            .or_else(|| inner.threads.iter().find(|t| wants(t))),
    };
    let Some(t) = chosen else { return };
    let act = t.sighand().get(sig);
    let default_kill = act.handler == action::SIG_DFL
        && !SigSet::IGNORED.or(SigSet::STOP).or(SigSet::CORE).has(sig)
        && !t.signals.lock().real_blocked.has(sig);
    if sig == SIGKILL || default_kill && !g.unkillable {
        zap_group(group, &inner.threads, g, sig);
        return;
    }
    t.signal_wake_up();
}

/// Begins the end of a process with wait status `status`: every thread is to exit.
pub(crate) fn zap_group(group: &Arc<ThreadGroup>, threads: &[Arc<Task>], g: &mut GroupSignals, status: i32) {
    if g.group_exit.is_none() {
        g.group_exit = Some(status);
    }
    g.stop_count = 0;
    for t in threads {
        let mut s = t.signals.lock();
        s.killed = true;
        s.stop_pending = false;
        drop(s);
        t.signal_wake_up();
    }
    group.stop_wait.wake_all();
}

/// Wakes threads that could take process-wide signals of `set` which `except` has just declined (it blocks them
/// now, or it is exiting).
pub(crate) fn retarget_shared(inner: &GroupInner, g: &GroupSignals, except: &Task, set: SigSet) {
    let mut left = g.shared.set().and(set);
    for t in &inner.threads {
        if left.is_empty() {
            return;
        }
        if std::ptr::eq(&raw const **t, except) || t.exiting.load(Ordering::SeqCst) {
            continue;
        }
        let blocked = { t.signals.lock().blocked };
        let takes = left.minus(blocked);
        if !takes.is_empty() {
            left = left.minus(takes);
            t.signal_wake_up();
        }
    }
}

/// Sets the mask of a thread with its locks held; recomputes what is deliverable.
pub(crate) fn set_blocked_locked(
    task: &Task,
    inner: &GroupInner,
    g: &GroupSignals,
    t: &mut ThreadSig,
    mask: SigSet,
) -> SigSet {
    let newly = mask.minus(t.blocked);
    t.blocked = mask.blockable();
    recalc_locked(task, g, t);
    let _ = inner;
    newly
}
