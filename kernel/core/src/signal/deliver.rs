//! Taking pending signals on the way back to user mode: default actions, handlers, restarts.

use super::action::SigAction;
use super::send::{force_sigsegv, zap_group};
use super::{SigInfo, SigSet, frame, jobctl, mask, recalc_locked, recalc_sigpending};
use crate::task::{Task, UserRegs, pid};
use crate::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uapi::nr;
use uapi::raw::general as c;

/// What [`deliver`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The registers are ready: go to user mode.
    Resume,
    /// The thread must end: `task::exit::exit_task`.
    Exit,
}

/// What to do with the result of a system call; see the head of `signal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterCall {
    /// Answer the trap with this rax.
    Return(u64),
    /// Dispatch the same call again.
    Redo,
    /// Go on with [`restart_block`].
    RedoBlock,
    /// A handler must run: call [`deliver`] with the registers and this result.
    NeedRegs(Result<u64>),
    /// The thread must end.
    Exit,
}

/// What the queues hold for a thread that is about to run user code.
enum Next {
    Nothing,
    Handler(SigInfo, SigAction),
    /// A handler is due, but registers are not there; the signal stays queued.
    NeedRegs,
    Exit,
}

/// True if the thread cannot go on without its registers being seen: a handler is due.
pub fn needs_registers(cur: &Arc<Task>) -> bool {
    if !cur.sig_pending.load(Ordering::SeqCst) {
        return false;
    }
    let g = cur.group.signals.lock();
    let t = cur.signals.lock();
    if g.group_exit.is_some() || t.killed {
        return false;
    }
    let set = g.shared.set().or(t.pending.set()).minus(t.blocked);
    let hand = cur.sighand();
    (1..=super::sigset::NSIG).any(|s| set.has(s) && hand.get(s).handled())
}

/// Handles signals after a system call whose registers have not been fetched.
pub async fn after_syscall(cur: &Arc<Task>, result: Result<u64>) -> AfterCall {
    if cur.sig_pending.load(Ordering::SeqCst) || cur.exiting.load(Ordering::SeqCst) {
        match next_signal(cur, false).await {
            Next::Exit => return AfterCall::Exit,
            Next::NeedRegs | Next::Handler(..) => return AfterCall::NeedRegs(result),
            Next::Nothing => {}
        }
    }
    match result {
        Ok(v) => AfterCall::Return(v),
        Err(e) if !e.is_restart() => AfterCall::Return(e.as_ret()),
        Err(e) => {
            mask::restore_saved(cur);
            if e == Errno::ERESTART_RESTARTBLOCK { AfterCall::RedoBlock } else { AfterCall::Redo }
        }
    }
}

/// restart_syscall(2): goes on with a call whose time limit is fixed. `EINTR` if there is none.
pub async fn restart_block(cur: &Arc<Task>) -> Result<u64> {
    let f = { cur.restart_block.lock().take() };
    match f {
        Some(f) => f(Arc::clone(cur)).await,
        None => Err(Errno::EINTR),
    }
}

/// As [`restart_block`], for the system call table.
pub async fn sys_restart_syscall(cur: &Arc<Task>) -> Result<u64> {
    restart_block(cur).await
}

/// Delivers what is pending into the registers. `syscall` is the number and result of the call from which the thread
/// returns (registers with rip behind the `syscall` instruction), `None` after any other trap.
pub async fn deliver(
    cur: &Arc<Task>,
    regs: &mut UserRegs,
    fpu: &mut [u8],
    mut syscall: Option<(u64, Result<u64>)>,
) -> Delivered {
    cur.user_sp.store(regs.rsp, Ordering::Relaxed);
    loop {
        match next_signal(cur, true).await {
            Next::Exit => return Delivered::Exit,
            Next::Handler(info, action) => {
                if let Some((number, result)) = syscall.take() {
                    resolve_for_handler(regs, number, result, &action);
                }
                if frame::setup(cur, regs, fpu, &info, &action).await.is_ok() {
                    after_handler_setup(cur, &info, &action);
                } else {
                    log::debug!(target: "signal", "{}: no room for a signal frame at {:#x}", cur.tid(), regs.rsp);
                    force_sigsegv(cur, info.signo);
                }
            }
            Next::Nothing | Next::NeedRegs => {
                if let Some((number, result)) = syscall.take() {
                    resolve(regs, number, result);
                }
                mask::restore_saved(cur);
                if !cur.sig_pending.load(Ordering::SeqCst) || !recalc_sigpending(cur) {
                    cur.user_sp.store(regs.rsp, Ordering::Relaxed);
                    return Delivered::Resume;
                }
            }
        }
    }
}

/// Bytes of the `syscall` instruction.
const SYSCALL_LEN: u64 = 2;

/// No handler runs: restart kinds execute the call again.
fn resolve(regs: &mut UserRegs, number: u64, result: Result<u64>) {
    match result {
        Ok(v) => regs.rax = v,
        Err(Errno::ERESTART_RESTARTBLOCK) => {
            regs.rax = u64::from(nr::__NR_restart_syscall);
            regs.rip = regs.rip.wrapping_sub(SYSCALL_LEN);
        }
        Err(e) if e.is_restart() => {
            regs.rax = number;
            regs.rip = regs.rip.wrapping_sub(SYSCALL_LEN);
        }
        Err(e) => regs.rax = e.as_ret(),
    }
}

/// A handler runs first: which calls are restarted after it (signal(7)).
fn resolve_for_handler(regs: &mut UserRegs, number: u64, result: Result<u64>, action: &SigAction) {
    let result = match result {
        Err(Errno::ERESTARTNOHAND | Errno::ERESTART_RESTARTBLOCK) => Err(Errno::EINTR),
        Err(Errno::ERESTARTSYS) if !action.has(c::SA_RESTART) => Err(Errno::EINTR),
        r => r,
    };
    resolve(regs, number, result);
}

/// The frame stands: the mask for the handler, and what SA_NODEFER and SS_AUTODISARM ask for.
fn after_handler_setup(cur: &Arc<Task>, info: &SigInfo, action: &SigAction) {
    let blocked = {
        let mut t = cur.signals.lock();
        t.saved = None;
        if t.alt.flags & c::SS_AUTODISARM != 0 {
            t.alt = super::AltStack::default();
        }
        let mut m = t.blocked.or(action.mask);
        if !action.has(c::SA_NODEFER) {
            m.add(info.signo);
        }
        m
    };
    mask::set_blocked(cur, blocked);
}

/// Takes signals until one needs a handler, the thread has to end, or nothing is left. Stops happen in here.
async fn next_signal(cur: &Arc<Task>, have_regs: bool) -> Next {
    enum Step {
        Done(Next),
        Tell(i32),
        StopHere,
        Default(SigInfo),
        Again,
    }
    loop {
        let step = {
            let mut g = cur.group.signals.lock();
            let mut t = cur.signals.lock();
            if let Some(code) = g.group_exit {
                if !cur.exiting.swap(true, Ordering::SeqCst) {
                    cur.exit_status.store(code, Ordering::SeqCst);
                }
                Step::Done(Next::Exit)
            } else if cur.exiting.load(Ordering::SeqCst) {
                Step::Done(Next::Exit)
            } else if t.killed {
                cur.exiting.store(true, Ordering::SeqCst);
                Step::Done(Next::Exit)
            } else if let Some(why) = g.cld_pending.take() {
                Step::Tell(why)
            } else if t.stop_pending {
                Step::StopHere
            } else {
                let mask = SigSet::ALL.minus(t.blocked);
                // Synchronous signals of the thread go before everything else.
                let own = t.pending.peek(mask);
                let sig = own.or_else(|| g.shared.peek(mask));
                match sig {
                    None => {
                        recalc_locked(cur, &g, &t);
                        Step::Done(Next::Nothing)
                    }
                    Some(sig) => {
                        let hand = cur.sighand();
                        let action = hand.get(sig);
                        if action.handled() && !have_regs {
                            Step::Done(Next::NeedRegs)
                        } else {
                            let info = if own.is_some() { t.pending.take(mask) } else { g.shared.take(mask) };
                            recalc_locked(cur, &g, &t);
                            match info {
                                None => Step::Again,
                                Some(_) if action.ignores(sig) => Step::Again,
                                Some(info) if action.handled() => {
                                    if action.has(c::SA_RESETHAND) {
                                        hand.set(sig, SigAction { handler: 0, ..action });
                                    }
                                    Step::Done(Next::Handler(info, action))
                                }
                                Some(_) if g.unkillable => Step::Again,
                                Some(info) => {
                                    if SigSet::STOP.has(sig) {
                                        g.stop_dequeued = true;
                                    }
                                    Step::Default(info)
                                }
                            }
                        }
                    }
                }
            }
        };
        match step {
            Step::Again => {}
            Step::Done(Next::Handler(mut info, action)) => {
                if info.code == c::SI_TIMER {
                    cur.group.timers.on_dequeue(&mut info);
                }
                return Next::Handler(info, action);
            }
            Step::Done(next) => return next,
            Step::Tell(why) => jobctl::notify_parent(&cur.group, why),
            Step::StopHere => jobctl::stop_here(cur).await,
            Step::Default(info) => {
                let sig = info.signo;
                if SigSet::STOP.has(sig) {
                    // SIGSTOP always stops; terminal stops do nothing in an orphaned process group.
                    let orphaned = sig != c::SIGSTOP as i32
                        && jobctl::is_orphaned_pgrp(&pid::read(), cur.group.pgrp(), None);
                    if !orphaned {
                        jobctl::signal_stop(cur, sig).await;
                    }
                } else {
                    if SigSet::CORE.has(sig) {
                        log::debug!(target: "signal", "{} [{}]: fatal signal {sig}, code {}, address {:#x}",
                            String::from_utf8_lossy(&cur.comm_bytes()), cur.tgid(), info.code, info.addr());
                    }
                    die(cur, sig);
                    return Next::Exit;
                }
            }
        }
    }
}

/// The process ends by signal `sig`; no core file is written, so the core flag is not set in the status.
pub(crate) fn die(cur: &Arc<Task>, status: i32) {
    let inner = cur.group.inner.lock();
    let mut g = cur.group.signals.lock();
    zap_group(&cur.group, &inner.threads, &mut g, status);
    let code = g.group_exit.unwrap_or(status);
    cur.exit_status.store(code, Ordering::SeqCst);
    cur.exiting.store(true, Ordering::SeqCst);
}
