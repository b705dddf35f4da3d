//! The end of threads and processes (exit(2), exit_group(2)).

use super::pid::{self, PidTable};
use super::task::Task;
use super::thread_group::{ThreadGroup, Zombie};
use crate::fs::fdtable::FdTable;
use crate::signal::action::SIG_IGN;
use crate::signal::jobctl::{self, child_info, has_stopped_jobs, is_orphaned_pgrp};
use crate::signal::send::{retarget_shared, zap_group};
use crate::signal::{SigInfo, SigSet, recalc_locked, send_group, send_pgrp_locked};
use crate::{Result, futex, power};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uapi::raw::general as c;

/// exit(2): this thread alone ends. The run loop sees `AfterCall::Exit`.
pub fn sys_exit(cur: &Arc<Task>, code: i32) -> Result<u64> {
    thread_exit(cur, (code & 0xff) << 8);
    Ok(0)
}

/// exit_group(2): all threads end.
pub fn sys_exit_group(cur: &Arc<Task>, code: i32) -> Result<u64> {
    group_exit(cur, (code & 0xff) << 8);
    Ok(0)
}

/// Marks the calling thread as ending with a wait(2) status.
pub fn thread_exit(cur: &Arc<Task>, status: i32) {
    cur.exit_status.store(status, Ordering::SeqCst);
    cur.exiting.store(true, Ordering::SeqCst);
    cur.sig_pending.store(true, Ordering::SeqCst);
}

/// Begins the end of the whole process with a wait(2) status; the first one to do so decides the status.
pub fn group_exit(cur: &Arc<Task>, status: i32) {
    let inner = cur.group.inner.lock();
    let mut g = cur.group.signals.lock();
    zap_group(&cur.group, &inner.threads, &mut g, status);
    let status = g.group_exit.unwrap_or(status);
    drop(g);
    drop(inner);
    thread_exit(cur, status);
}

/// Lets go of the address space as execve(2) and exit do: robust futexes, the CLONE_CHILD_CLEARTID word, a parent held
/// by vfork(2). Call it while the old address space is still in place.
pub async fn mm_release(cur: &Arc<Task>) {
    if cur.try_mm().is_some() {
        futex::exit_robust_list(cur).await;
        let word = cur.clear_child_tid.swap(0, Ordering::SeqCst);
        if word != 0
            && let Some(mm) = cur.try_mm()
            && mm.copy_to_user(word, &[0u8; 4]).await.is_ok()
        {
            let _ = futex::wake(cur, word, true, 1, u32::MAX);
        }
    }
    let vfork = { cur.vfork_done.lock().take() };
    if let Some(v) = vfork {
        v.complete();
    }
}

/// Ends the calling thread for good: the run loop's last call. With the last thread the process becomes a zombie.
pub async fn exit_task(cur: &Arc<Task>) {
    cur.exiting.store(true, Ordering::SeqCst);
    if cur.tgid() == 1 && cur.group.nr_threads() == 1 {
        let status =
            { cur.group.signals.lock().group_exit }.unwrap_or(cur.exit_status.load(Ordering::SeqCst));
        power::panic(&format!("Attempted to kill init! exitcode={status:#010x}"));
    }
    mm_release(cur).await;
    let mm = cur.replace_mm(None);
    // Files close outside of all locks; the last user of the table closes them.
    let files = cur.replace_files(Arc::new(FdTable::default()));
    drop(files);
    cur.replace_fs(Arc::default());
    drop(mm);
    *cur.restart_block.lock() = None;
    leave_group(cur);
    cur.set_state(b'Z');
}

/// Takes the thread out of its process; the last one ends the process.
fn leave_group(cur: &Arc<Task>) {
    let group = &cur.group;
    let mut table = pid::write();
    let (last, notify_stop) = {
        let mut inner = group.inner.lock();
        let mut g = group.signals.lock();
        inner.threads.retain(|t| !Arc::ptr_eq(t, cur));
        let used = cur.rusage();
        inner.dead_threads.add(&used);
        let stop = {
            let mut t = cur.signals.lock();
            t.pending.discard(SigSet::ALL);
            std::mem::take(&mut t.stop_pending)
        };
        let last = inner.threads.is_empty();
        let notify = stop && !last && g.group_exit.is_none() && jobctl::one_less_to_stop(&mut g);
        if !last {
            retarget_shared(&inner, &g, cur, SigSet::ALL.minus(cur.signals.blocked()));
        }
        if cur.tid() == group.tgid {
            inner.leader_status = cur.exit_status.load(Ordering::SeqCst);
        }
        (last, notify)
    };
    // The leader's number is the process's own and stays until that is reaped.
    if cur.tid() != group.tgid {
        table.detach_task(cur.tid());
    }
    if last {
        end_group(&mut table, group, cur);
    }
    drop(table);
    if notify_stop {
        jobctl::notify_parent(group, c::CLD_STOPPED as i32);
    }
    group.thread_wait.wake_all();
}

/// The last thread has gone: children, session, parent.
fn end_group(table: &mut PidTable, group: &Arc<ThreadGroup>, last: &Arc<Task>) {
    group.timers.clear();
    disassociate_ctty(table, group);
    reparent_children(table, group);
    let status = {
        let mut inner = group.inner.lock();
        let g = group.signals.lock();
        let status = g.group_exit.unwrap_or(inner.leader_status);
        inner.zombie = Some(Zombie { status, uid: last.cred().uid });
        status
    };
    kill_orphaned_pgrp(table, group, None);
    let parent = group.parent();
    let autoreap = match &parent {
        None => true,
        Some(p) => notify_exit(p, group, status),
    };
    group.exit_wait.wake(crate::fs::poll::IN);
    if autoreap {
        reap(table, group);
    }
    if let Some(p) = parent {
        p.child_wait.wake_all();
    }
}

/// CLD_* code and `si_status` for a wait(2) status.
pub fn cld_code(status: i32) -> (i32, i32) {
    match status & 0x7f {
        0 => (c::CLD_EXITED as i32, status >> 8 & 0xff),
        sig if status & 0x80 != 0 => (c::CLD_DUMPED as i32, sig),
        sig => (c::CLD_KILLED as i32, sig),
    }
}

/// Sends the exit signal; true if the parent does not want to wait for the child.
fn notify_exit(parent: &Arc<ThreadGroup>, group: &Arc<ThreadGroup>, status: i32) -> bool {
    let sig = group.inner.lock().exit_signal;
    let mut autoreap = false;
    let mut send = sig != 0;
    if sig == c::SIGCHLD as i32
        && let Some(t) = parent.leader()
    {
        let a = t.sighand().get(sig);
        if a.handler == SIG_IGN {
            autoreap = true;
            send = false;
        } else if a.has(c::SA_NOCLDWAIT) {
            autoreap = true;
        }
    }
    if send {
        let (code, st) = cld_code(status);
        let _ = send_group(parent, child_info(group, sig, code, st));
    }
    autoreap
}

/// Takes a zombie out of the world: its number is free again.
pub(super) fn reap(table: &mut PidTable, group: &Arc<ThreadGroup>) {
    let parent = group.parent();
    if let Some(p) = parent {
        let usage = {
            let i = group.inner.lock();
            let mut u = i.dead_threads;
            u.add(&i.children_usage);
            u
        };
        let mut pi = p.inner.lock();
        pi.children.retain(|g| !Arc::ptr_eq(g, group));
        pi.children_usage.add(&usage);
    }
    table.detach_task(group.tgid);
    table.detach_group(group);
    // The leader holds the group and the group the leader: let go.
    let leader = { group.inner.lock().leader.take() };
    drop(leader);
}

/// Gives the children to the nearest subreaper, or to the first process.
fn reparent_children(table: &mut PidTable, group: &Arc<ThreadGroup>) {
    let children = std::mem::take(&mut group.inner.lock().children);
    if children.is_empty() {
        return;
    }
    let heir = find_reaper(table, group);
    for child in children {
        child.inner.lock().parent = heir.as_ref().map(Arc::downgrade).unwrap_or_default();
        for t in child.threads() {
            let sig = t.pdeath_signal.load(Ordering::Relaxed);
            if sig != 0 {
                let _ = send_group(&child, SigInfo::user(sig, c::SI_USER as i32, group.tgid, 0));
                break;
            }
        }
        let zombie = child.inner.lock().zombie;
        let reap_now = match (&heir, zombie) {
            (Some(h), Some(z)) => {
                child.inner.lock().exit_signal = c::SIGCHLD as i32;
                h.inner.lock().children.push(Arc::clone(&child));
                notify_exit(h, &child, z.status)
            }
            (Some(h), None) => {
                child.inner.lock().exit_signal = c::SIGCHLD as i32;
                h.inner.lock().children.push(Arc::clone(&child));
                false
            }
            (None, z) => z.is_some(),
        };
        if reap_now {
            reap(table, &child);
        } else {
            kill_orphaned_pgrp(table, &child, Some(group));
        }
    }
    if let Some(h) = heir {
        h.child_wait.wake_all();
    }
}

fn find_reaper(table: &PidTable, group: &Arc<ThreadGroup>) -> Option<Arc<ThreadGroup>> {
    let mut at = group.parent();
    while let Some(p) = at {
        let (sub, alive, next) = {
            let i = p.inner.lock();
            (i.child_subreaper, !i.threads.is_empty(), i.parent.upgrade())
        };
        if sub && alive {
            return Some(p);
        }
        at = next;
    }
    table.group(1).filter(|g| !Arc::ptr_eq(g, group))
}

/// If `group`'s end (or, with `old_parent`, that of its parent) leaves a process group orphaned that has stopped
/// members, they get SIGHUP and SIGCONT (POSIX).
fn kill_orphaned_pgrp(table: &PidTable, group: &Arc<ThreadGroup>, old_parent: Option<&Arc<ThreadGroup>>) {
    let (pgrp, sid) = {
        let i = group.inner.lock();
        (i.pgrp, i.session.sid)
    };
    let (parent, ignored) = match old_parent {
        Some(p) => (Some(Arc::clone(p)), None),
        None => (group.parent(), Some(group)),
    };
    let Some(parent) = parent else { return };
    if parent.pgrp() != pgrp
        && parent.session().sid == sid
        && is_orphaned_pgrp(table, pgrp, ignored)
        && has_stopped_jobs(table, pgrp)
    {
        let _ = send_pgrp_locked(table, pgrp, SigInfo::kernel(c::SIGHUP as i32));
        let _ = send_pgrp_locked(table, pgrp, SigInfo::kernel(c::SIGCONT as i32));
    }
}

/// The end of a session leader: the terminal's foreground group gets SIGHUP and SIGCONT, the session its freedom.
fn disassociate_ctty(table: &PidTable, group: &Arc<ThreadGroup>) {
    let session = group.session();
    if session.sid != group.tgid {
        return;
    }
    if let Some(tty) = session.set_ctty(None) {
        let fg = tty.foreground_pgrp();
        tty.disassociate();
        if fg != 0 {
            let _ = send_pgrp_locked(table, fg, SigInfo::kernel(c::SIGHUP as i32));
            let _ = send_pgrp_locked(table, fg, SigInfo::kernel(c::SIGCONT as i32));
        }
    }
}

/// execve(2): ends all other threads, waits until they have gone and takes the leader's id over. `EAGAIN` if another
/// thread is ending the process; then the caller must not go on.
pub async fn de_thread(cur: &Arc<Task>) -> Result<()> {
    {
        let inner = cur.group.inner.lock();
        let g = cur.group.signals.lock();
        if g.group_exit.is_some() || cur.signals.lock().killed {
            return Err(crate::Errno::EAGAIN);
        }
        for t in &inner.threads {
            if !Arc::ptr_eq(t, cur) {
                t.signals.lock().killed = true;
                t.signal_wake_up();
            }
        }
        cur.group.stop_wait.wake_all();
    }
    let group = &cur.group;
    cur.wait_killable(|table| {
        table.register(&group.thread_wait, u32::MAX);
        (group.nr_threads() == 1).then_some(())
    })
    .await
    .map_err(|_| crate::Errno::EAGAIN)?;
    let mut table = pid::write();
    let tgid = group.tgid;
    if cur.tid() != tgid {
        table.detach_task(tgid);
        table.detach_task(cur.tid());
        cur.set_tid(tgid);
        table.attach_task(tgid, cur);
    }
    let mut inner = group.inner.lock();
    inner.leader = Some(Arc::clone(cur));
    inner.did_exec = true;
    let g = group.signals.lock();
    let t = cur.signals.lock();
    recalc_locked(cur, &g, &t);
    Ok(())
}

/// What execve(2) resets besides memory, after [`de_thread`]: handlers, alternate stack, timers, robust list, name,
/// descriptors. The new credentials are in place already.
pub fn exec_reset(cur: &Arc<Task>, comm: &[u8]) {
    let hand = cur.sighand().for_exec();
    cur.replace_sighand(hand);
    cur.signals.reset_altstack();
    cur.group.timers.exec();
    cur.robust_list.store(0, Ordering::SeqCst);
    cur.clear_child_tid.store(0, Ordering::SeqCst);
    cur.group.inner.lock().exit_signal = c::SIGCHLD as i32;
    let cred = cur.cred();
    let plain = cred.uid == cred.euid && cred.gid == cred.egid;
    cur.group.dumpable.store(i32::from(plain), Ordering::Relaxed);
    if !plain {
        cur.pdeath_signal.store(0, Ordering::Relaxed);
    }
    if cred.keep_caps {
        let mut new = (*cred).clone();
        new.keep_caps = false;
        cur.set_cred(new);
    }
    cur.set_comm(comm);
    let files = cur.files();
    // One reference is the task's, one ours: more means CLONE_FILES, and the others keep their descriptors.
    let files = if Arc::strong_count(&files) > 2 {
        let own = Arc::new(files.duplicate());
        cur.replace_files(Arc::clone(&own));
        own
    } else {
        files
    };
    files.close_on_exec();
}
