//! Stop and continue of whole processes, and what the parent hears of it.

use super::{GroupSignals, SigInfo, send_group};
use crate::task::rusage::ns_to_ticks;
use crate::task::{Task, ThreadGroup, pid};
use std::sync::Arc;
use uapi::raw::general as c;

/// Takes part in a stop of the whole process that `sig` begins (or goes on with), and parks until SIGCONT or a fatal
/// signal. Returns at once if a SIGCONT came between the taking of the signal and this call.
pub(crate) async fn signal_stop(cur: &Arc<Task>, sig: i32) {
    {
        let inner = cur.group.inner.lock();
        let mut g = cur.group.signals.lock();
        if !g.stop_dequeued || g.group_exit.is_some() {
            return;
        }
        if g.stop_count == 0 && !g.stopped {
            g.stop_code = sig;
        }
        for t in &inner.threads {
            let mut s = t.signals.lock();
            if !s.stopped && !s.stop_pending && !t.exiting.load(std::sync::atomic::Ordering::SeqCst) {
                s.stop_pending = true;
                g.stop_count += 1;
                drop(s);
                if !Arc::ptr_eq(t, cur) {
                    t.signal_wake_up();
                }
            }
        }
    }
    stop_here(cur).await;
}

/// Parks the calling thread because a stop of its process is under way.
pub(crate) async fn stop_here(cur: &Arc<Task>) {
    let notify = {
        let mut g = cur.group.signals.lock();
        let mut t = cur.signals.lock();
        if !t.stop_pending {
            return;
        }
        t.stop_pending = false;
        t.stopped = true;
        one_less_to_stop(&mut g)
    };
    if notify {
        notify_parent(&cur.group, c::CLD_STOPPED as i32);
    }
    let group = &cur.group;
    let wait = cur.wait_killable_as(b'T', |table| {
        table.register(&group.stop_wait, u32::MAX);
        (!cur.signals.lock().stopped).then_some(())
    });
    // A fatal signal ends the stop; the caller finds it.
    let _ = wait.await;
    let g = cur.group.signals.lock();
    let mut t = cur.signals.lock();
    t.stopped = false;
    super::recalc_locked(cur, &g, &t);
}

/// One thread fewer has to stop; true if that was the last one and the parent is to be told.
pub(crate) fn one_less_to_stop(g: &mut GroupSignals) -> bool {
    g.stop_count = g.stop_count.saturating_sub(1);
    if g.stop_count == 0 && !g.stopped {
        g.stopped = true;
        g.continued = false;
        return true;
    }
    false
}

/// Tells the parent that the process has stopped or continued: SIGCHLD unless SA_NOCLDSTOP, and wakes its wait(2).
pub(crate) fn notify_parent(group: &Arc<ThreadGroup>, why: i32) {
    let Some(parent) = group.parent() else { return };
    let status = if why == c::CLD_CONTINUED as i32 {
        c::SIGCONT as i32
    } else {
        match group.signals.lock().stop_code {
            0 => c::SIGSTOP as i32,
            s => s,
        }
    };
    let wants = parent.leader().is_some_and(|t| {
        let a = t.sighand().get(c::SIGCHLD as i32);
        a.handler != super::action::SIG_IGN && !a.has(c::SA_NOCLDSTOP)
    });
    if wants {
        let _ = send_group(&parent, child_info(group, c::SIGCHLD as i32, why, status));
    }
    parent.child_wait.wake_all();
}

/// The siginfo of a child's change of state.
pub(crate) fn child_info(group: &Arc<ThreadGroup>, signo: i32, code: i32, status: i32) -> SigInfo {
    let r = group.rusage();
    let uid = group.leader().map_or(0, |t| t.cred().uid);
    let ticks = |ns| i64::try_from(ns_to_ticks(ns)).unwrap_or(i64::MAX);
    SigInfo::child(signo, code, group.tgid, uid, status, ticks(r.utime_ns), ticks(r.stime_ns))
}

/// True if no member of the process group has its parent in another group of the same session: nobody is there to
/// continue it, so terminal stop signals do nothing (POSIX: orphaned process group). `leaving` does not count.
pub fn is_orphaned_pgrp(table: &pid::PidTable, pgrp: u32, leaving: Option<&Arc<ThreadGroup>>) -> bool {
    table.pgrp(pgrp).iter().all(|g| {
        if leaving.is_some_and(|l| Arc::ptr_eq(l, g)) {
            return true;
        }
        let (parent, sid, gone) = {
            let i = g.inner.lock();
            (i.parent.upgrade(), i.session.sid, i.zombie.is_some() && i.threads.is_empty())
        };
        let Some(p) = parent else { return true };
        gone || p.tgid == 1 || p.pgrp() == pgrp || p.session().sid != sid
    })
}

/// True if any member of the process group is stopped.
pub fn has_stopped_jobs(table: &pid::PidTable, pgrp: u32) -> bool {
    table.pgrp(pgrp).iter().any(|g| g.signals.lock().stopped)
}
