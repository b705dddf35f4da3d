//! Signals: actions, pending sets, masks, sending, delivery, restart, sigreturn (signal(7)).
//!
//! Key types: [`SigHand`] (actions), [`GroupSignals`] (signals of a process, stop and exit state), [`TaskSignals`]
//! (mask, pending signals, alternate stack of a thread), [`SigInfo`].
//!
//! # For the run loop
//! After each system call the run loop calls [`after_syscall`] with the result, *without* registers:
//!
//! ```text
//! match signal::after_syscall(cur, result).await {
//!     AfterCall::Return(rax)  => answer the trap with rax,
//!     AfterCall::Redo         => dispatch the same call again (interrupted, no handler: nobody sees it),
//!     AfterCall::RedoBlock    => result = signal::restart_block(cur).await, then after_syscall again,
//!     AfterCall::NeedRegs(r)  => a handler must run: get the registers (rip *behind* the syscall instruction),
//!                                then deliver(cur, &mut regs, &mut fpu, Some((nr, r))).await,
//!     AfterCall::Exit         => task::exit::exit_task(cur).await,
//! }
//! ```
//!
//! After a fault, an exception or a kick the registers are there: [`deliver()`] with `None`. A cheap test that spares both
//! is `cur.sig_pending` (false: nothing to do, unless the result is a restart kind). `rt_sigreturn` traps with registers
//! and is [`sigreturn::rt_sigreturn`], followed by `deliver(.., None)`.
//!
//! Lock order: `ThreadGroup::inner` > `ThreadGroup::signals` > [`TaskSignals`] > [`SigHand`]. Never two groups at once.

pub mod action;
pub mod deliver;
pub mod fpstate;
pub mod frame;
pub mod jobctl;
pub mod kill;
pub mod mask;
pub mod pending;
pub mod send;
pub mod siginfo;
pub mod sigreturn;
pub mod sigset;

pub use action::{SigAction, SigHand};
pub use deliver::{AfterCall, Delivered, after_syscall, deliver, needs_registers, restart_block};
pub use pending::SigPending;
pub use send::{force_sig, force_sig_fault, send_group, send_pgrp, send_pgrp_locked, send_sig, send_task};
pub use siginfo::SigInfo;
pub use sigset::SigSet;

use crate::task::{Task, ThreadGroup};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uapi::raw::general as c;

/// Signals of a process as a whole, and its stop and exit state.
#[derive(Default)]
pub struct GroupSignals {
    /// Signals sent to the process.
    pub shared: SigPending,
    /// The process is ending: status as wait(2) gives it. Every thread must exit.
    pub group_exit: Option<i32>,
    /// Threads that have yet to stop.
    pub(crate) stop_count: usize,
    /// All threads have stopped.
    pub stopped: bool,
    /// Signal that stopped it, until wait(2) has reported it; 0 then.
    pub stop_code: i32,
    /// SIGCONT has woken it and wait(2) has not reported that yet.
    pub continued: bool,
    /// A stop signal was taken from the queue and no SIGCONT has come since.
    pub(crate) stop_dequeued: bool,
    /// CLD_STOPPED or CLD_CONTINUED that a thread of the process still has to tell the parent.
    pub(crate) cld_pending: Option<i32>,
    /// Signals with the default action do not touch it: the first process.
    pub unkillable: bool,
}

/// Mask, pending signals and alternate stack of one thread.
#[derive(Default)]
pub struct TaskSignals {
    inner: Mutex<ThreadSig>,
}

/// sigaltstack(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AltStack {
    /// Lowest address.
    pub sp: u64,
    /// Bytes; 0: none.
    pub size: u64,
    /// SS_DISABLE, SS_AUTODISARM.
    pub flags: u32,
}

impl Default for AltStack {
    fn default() -> Self {
        Self { sp: 0, size: 0, flags: c::SS_DISABLE }
    }
}

impl AltStack {
    /// True if `sp` lies on the stack; never with SS_AUTODISARM.
    pub fn contains(&self, sp: u64) -> bool {
        self.flags & c::SS_AUTODISARM == 0 && sp > self.sp && sp - self.sp <= self.size
    }

    /// `ss_flags` as sigaltstack(2) reports them while the stack pointer is `sp`.
    pub fn state(&self, sp: u64) -> u32 {
        if self.size == 0 {
            c::SS_DISABLE
        } else if self.contains(sp) {
            c::SS_ONSTACK
        } else {
            0
        }
    }
}

/// The changing part of [`TaskSignals`].
#[derive(Default)]
pub(crate) struct ThreadSig {
    pub blocked: SigSet,
    /// What is really blocked while sigtimedwait(2) lifts a part of it.
    pub real_blocked: SigSet,
    /// Mask to return to after sigsuspend(2), ppoll(2) and the like.
    pub saved: Option<SigSet>,
    pub pending: SigPending,
    pub alt: AltStack,
    /// Must stop when it next looks.
    pub stop_pending: bool,
    /// Has stopped.
    pub stopped: bool,
    /// Must end (execve(2) in another thread, group exit).
    pub killed: bool,
}

impl TaskSignals {
    /// For a new thread: mask kept, nothing pending, alternate stack as asked for.
    pub fn for_child(&self, keep_altstack: bool) -> Self {
        let t = self.inner.lock();
        let alt = if keep_altstack { t.alt } else { AltStack::default() };
        let blocked = t.saved.unwrap_or(t.blocked);
        Self { inner: Mutex::new(ThreadSig { blocked, alt, ..ThreadSig::default() }) }
    }

    /// The blocked signals.
    pub fn blocked(&self) -> SigSet {
        self.inner.lock().blocked
    }

    /// Signals pending for this thread alone (/proc/PID/status SigPnd).
    pub fn pending(&self) -> SigSet {
        self.inner.lock().pending.set()
    }

    /// The alternate stack.
    pub fn altstack(&self) -> AltStack {
        self.inner.lock().alt
    }

    /// execve(2): no alternate stack.
    pub fn reset_altstack(&self) {
        self.inner.lock().alt = AltStack::default();
    }

    pub(crate) fn lock(&self) -> parking_lot::MutexGuard<'_, ThreadSig> {
        self.inner.lock()
    }
}

/// Recomputes `sig_pending` with both locks held.
pub(crate) fn recalc_locked(task: &Task, g: &GroupSignals, t: &ThreadSig) -> bool {
    let deliverable = !g.shared.set().or(t.pending.set()).minus(t.blocked).is_empty();
    let pending = deliverable
        || t.stop_pending
        || t.killed
        || g.group_exit.is_some()
        || g.cld_pending.is_some()
        || task.exiting.load(Ordering::SeqCst);
    task.sig_pending.store(pending, Ordering::SeqCst);
    pending
}

/// Recomputes whether `task` has anything to look at before it runs user code; true if it has.
pub fn recalc_sigpending(task: &Task) -> bool {
    let g = task.group.signals.lock();
    let t = task.signals.lock();
    recalc_locked(task, &g, &t)
}

impl Task {
    /// True if the task is about to die: killable waits end.
    pub fn fatal_signal_pending(&self) -> bool {
        if !self.sig_pending.load(Ordering::SeqCst) {
            return false;
        }
        let g = self.group.signals.lock();
        let killed = self.signals.lock().killed;
        killed || g.group_exit.is_some() || self.exiting.load(Ordering::SeqCst)
    }

    /// True if a signal may be deliverable.
    pub fn signal_pending(&self) -> bool {
        self.sig_pending.load(Ordering::SeqCst)
    }

    /// Takes a signal of `mask` off the queues of the thread and its process: signalfd(2), sigtimedwait(2).
    pub fn dequeue_signal(&self, mask: SigSet) -> Option<SigInfo> {
        let info = {
            let mut g = self.group.signals.lock();
            let mut t = self.signals.lock();
            let info = t.pending.take(mask).or_else(|| g.shared.take(mask));
            recalc_locked(self, &g, &t);
            info
        };
        info.map(|mut i| {
            if i.code == c::SI_TIMER {
                self.group.timers.on_dequeue(&mut i);
            }
            i
        })
    }

    /// Signals pending for the thread or its process, blocked or not.
    pub fn all_pending(&self) -> SigSet {
        let g = self.group.signals.lock();
        let t = self.signals.lock();
        g.shared.set().or(t.pending.set())
    }
}

/// Forgets pending signals of a process that it has just begun to ignore.
pub fn discard_pending(group: &Arc<ThreadGroup>, set: SigSet) {
    let inner = group.inner.lock();
    let mut g = group.signals.lock();
    g.shared.discard(set);
    for t in &inner.threads {
        let mut s = t.signals.lock();
        s.pending.discard(set);
        recalc_locked(t, &g, &s);
    }
}
