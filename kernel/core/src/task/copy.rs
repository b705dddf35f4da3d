//! Making tasks: the bookkeeping of clone(2), and the first process.

use super::completion::Completion;
use super::cred::{Cred, cap};
use super::pid::{self, ReservedPid};
use super::session::Session;
use super::task::{Pid, Task, TaskParts};
use super::thread_group::{ThreadGroup, default_rlimits};
use crate::fs::fdtable::FdTable;
use crate::fs::path::FsStruct;
use crate::mm::Mm;
use crate::signal::{SigHand, TaskSignals, recalc_locked};
use crate::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use uapi::raw::general as c;

/// Arguments of clone(2) and clone3(2) as far as tasks are concerned.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneArgs {
    /// CLONE_* flags without the exit signal.
    pub flags: u64,
    /// What the parent is sent when the child ends; 0 for none.
    pub exit_signal: u32,
    /// CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID: the word.
    pub child_tid: u64,
}

/// A new task, not yet in any table: nobody sees it until [`start`](Self::start).
pub struct NewTask {
    task: Arc<Task>,
    reserved: ReservedPid,
    args: CloneArgs,
    parent: Arc<Task>,
    vfork: Option<Arc<Completion>>,
}

const CLONE_NEW: u64 = (c::CLONE_NEWNS
    | c::CLONE_NEWCGROUP
    | c::CLONE_NEWUTS
    | c::CLONE_NEWIPC
    | c::CLONE_NEWUSER
    | c::CLONE_NEWPID
    | c::CLONE_NEWNET
    | c::CLONE_NEWTIME) as u64;

const fn f(flag: u32) -> u64 {
    flag as u64
}

/// Answers a request for a namespace of its own as a kernel without them does.
pub fn refuse_namespaces(cur: &Task, flags: u64) -> Result<()> {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if flags & CLONE_NEW == 0 {
        return Ok(());
    }
    if !WARNED.swap(true, Ordering::Relaxed) {
        log::warn!(target: "task", "namespaces are not there yet: clone/unshare flags {flags:#x} refused");
    }
    if flags & f(c::CLONE_NEWUSER) == 0 && !cur.cred().capable(cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    Err(Errno::EINVAL)
}

/// Checks the flags as clone(2) says (`EINVAL`).
pub fn check_flags(cur: &Task, args: &CloneArgs) -> Result<()> {
    let fl = args.flags;
    refuse_namespaces(cur, fl)?;
    let has = |b: u32| fl & f(b) != 0;
    if has(c::CLONE_THREAD) && !has(c::CLONE_SIGHAND) || has(c::CLONE_SIGHAND) && !has(c::CLONE_VM) {
        return Err(Errno::EINVAL);
    }
    // Siblings of the first process would have nobody to wait for them.
    if has(c::CLONE_PARENT) && cur.tgid() == 1 {
        return Err(Errno::EINVAL);
    }
    if has(c::CLONE_PIDFD) && has(c::CLONE_DETACHED) {
        return Err(Errno::EINVAL);
    }
    if fl & c::CLONE_CLEAR_SIGHAND != 0 && has(c::CLONE_SIGHAND) {
        return Err(Errno::EINVAL);
    }
    if args.exit_signal > 64 {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Makes a task as clone(2) asks: everything shared or copied by flag, `mm` from the caller (the parent's own with
/// CLONE_VM, a copy without). `EAGAIN` over RLIMIT_NPROC or without a free number. The caller gives the task its
/// registers, writes the CLONE_PARENT_SETTID word, then calls [`NewTask::start`].
pub fn copy_task(parent: &Arc<Task>, args: CloneArgs, mm: Arc<Mm>) -> Result<NewTask> {
    check_flags(parent, &args)?;
    let has = |b: u32| args.flags & f(b) != 0;
    let cred = parent.cred();
    let nproc = parent.group.rlimit(c::RLIMIT_NPROC).0;
    if cred.uid != 0 && !cred.capable(cap::SYS_ADMIN) && !cred.capable(cap::SYS_RESOURCE) {
        let n = pid::read().tasks().filter(|t| t.cred().uid == cred.uid).count();
        if n as u64 >= nproc {
            return Err(Errno::EAGAIN);
        }
    }
    let reserved = pid::reserve()?;
    let tid = reserved.pid();
    let files = if has(c::CLONE_FILES) { parent.files() } else { Arc::new(parent.files().duplicate()) };
    let fs = if has(c::CLONE_FS) { parent.fs() } else { Arc::new(parent.fs().duplicate()) };
    let sighand = if has(c::CLONE_SIGHAND) {
        parent.sighand()
    } else if args.flags & c::CLONE_CLEAR_SIGHAND != 0 {
        parent.sighand().for_exec()
    } else {
        parent.sighand().duplicate()
    };
    let group = if has(c::CLONE_THREAD) {
        Arc::clone(&parent.group)
    } else {
        let g = &parent.group;
        let new = ThreadGroup::new(tid, g.pgrp(), g.session(), g.rlimits());
        new.dumpable.store(g.dumpable.load(Ordering::Relaxed), Ordering::Relaxed);
        new.personality.store(g.personality.load(Ordering::Relaxed), Ordering::Relaxed);
        new.oom_score_adj.store(g.oom_score_adj.load(Ordering::Relaxed), Ordering::Relaxed);
        new
    };
    // A new stack in the same memory must not inherit the alternate one, except under vfork.
    let keep_alt = !has(c::CLONE_VM) || has(c::CLONE_VFORK);
    let comm = *parent.comm.lock();
    let signals = parent.signals.for_child(keep_alt);
    let task = Task::new(TaskParts { tid, group, comm, mm: Some(mm), files, fs, cred, sighand, signals });
    task.nice.store(parent.nice.load(Ordering::Relaxed), Ordering::Relaxed);
    let policy = parent.policy.load(Ordering::Relaxed);
    task.policy.store(if policy & c::SCHED_RESET_ON_FORK != 0 { 0 } else { policy }, Ordering::Relaxed);
    task.affinity.store(parent.affinity.load(Ordering::Relaxed), Ordering::Relaxed);
    task.timer_slack_ns.store(parent.timer_slack_ns.load(Ordering::Relaxed), Ordering::Relaxed);
    task.cpu.store(parent.cpu.load(Ordering::Relaxed), Ordering::Relaxed);
    if has(c::CLONE_CHILD_SETTID) {
        task.set_child_tid.store(args.child_tid, Ordering::Relaxed);
    }
    if has(c::CLONE_CHILD_CLEARTID) {
        task.clear_child_tid.store(args.child_tid, Ordering::Relaxed);
    }
    let vfork = has(c::CLONE_VFORK).then(Arc::<Completion>::default);
    task.vfork_done.lock().clone_from(&vfork);
    Ok(NewTask { task, reserved, args, parent: Arc::clone(parent), vfork })
}

impl NewTask {
    /// The task, for its registers and its pidfd.
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// The new thread id (the value of clone(2)).
    pub fn tid(&self) -> Pid {
        self.reserved.pid()
    }

    /// The parent waits for this after [`start`](Self::start): CLONE_VFORK.
    pub fn vfork(&self) -> Option<Arc<Completion>> {
        self.vfork.clone()
    }

    /// Enters the task into all tables; from now on it gets signals and must be run. `ERESTARTNOINTR` if a signal
    /// is pending for the parent: it goes first, so that a signal to a whole group misses no new member.
    pub fn start(self) -> Result<Arc<Task>> {
        let Self { task, reserved, args, parent, .. } = self;
        let thread = args.flags & f(c::CLONE_THREAD) != 0;
        let mut table = pid::write();
        let refuse = {
            let g = parent.group.signals.lock();
            let t = parent.signals.lock();
            recalc_locked(&parent, &g, &t)
        };
        if refuse {
            drop(table);
            return Err(Errno::ERESTARTNOINTR);
        }
        let tid = reserved.pid();
        if thread {
            let mut inner = parent.group.inner.lock();
            inner.threads.push(Arc::clone(&task));
        } else {
            let real_parent = if args.flags & f(c::CLONE_PARENT) != 0 {
                parent.group.parent().unwrap_or_else(|| Arc::clone(&parent.group))
            } else {
                Arc::clone(&parent.group)
            };
            // Process group and session may have changed since `copy_task`.
            let (pgrp, session, exit_signal) = {
                let p = parent.group.inner.lock();
                (p.pgrp, Arc::clone(&p.session), p.exit_signal)
            };
            {
                let mut inner = task.group.inner.lock();
                inner.pgrp = pgrp;
                inner.session = session;
                inner.parent = Arc::downgrade(&real_parent);
                inner.exit_signal = if args.flags & f(c::CLONE_PARENT) != 0 {
                    exit_signal
                } else {
                    args.exit_signal.cast_signed()
                };
                inner.threads.push(Arc::clone(&task));
                inner.leader = Some(Arc::clone(&task));
            }
            real_parent.inner.lock().children.push(Arc::clone(&task.group));
            table.attach_group(&task.group);
        }
        table.attach_task(tid, &task);
        reserved.into_used(&mut table);
        Ok(task)
    }
}

/// The first process (pid 1): superuser, own session, in all tables. `threads` bounds RLIMIT_NPROC.
pub fn new_init(mm: Arc<Mm>, files: Arc<FdTable>, fs: Arc<FsStruct>, threads: u64) -> Result<Arc<Task>> {
    let reserved = pid::reserve()?;
    let tid = reserved.pid();
    let group = ThreadGroup::new(tid, tid, Session::new(tid), default_rlimits(threads));
    let mut comm = [0u8; 16];
    comm[..4].copy_from_slice(b"init");
    let task = Task::new(TaskParts {
        tid,
        group: Arc::clone(&group),
        comm,
        mm: Some(mm),
        files,
        fs,
        cred: Arc::new(Cred::root()),
        sighand: Arc::new(SigHand::default()),
        signals: TaskSignals::default(),
    });
    let mut table = pid::write();
    {
        let mut inner = group.inner.lock();
        inner.threads.push(Arc::clone(&task));
        inner.leader = Some(Arc::clone(&task));
    }
    table.attach_group(&group);
    table.attach_task(tid, &task);
    reserved.into_used(&mut table);
    Ok(task)
}

/// unshare(2): what is shared becomes private. Namespaces are refused; CLONE_THREAD, CLONE_SIGHAND and CLONE_VM hold
/// only for a process with one thread (`EINVAL`).
pub fn sys_unshare(cur: &Arc<Task>, flags: u64) -> Result<u64> {
    const KNOWN: u64 = CLONE_NEW
        | (c::CLONE_THREAD | c::CLONE_FS | c::CLONE_SIGHAND | c::CLONE_VM | c::CLONE_FILES | c::CLONE_SYSVSEM)
            as u64;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let single = f(c::CLONE_THREAD | c::CLONE_SIGHAND | c::CLONE_VM);
    if flags & single != 0 && cur.group.nr_threads() > 1 {
        return Err(Errno::EINVAL);
    }
    refuse_namespaces(cur, flags)?;
    if flags & f(c::CLONE_FS) != 0 {
        cur.replace_fs(Arc::new(cur.fs().duplicate()));
    }
    if flags & f(c::CLONE_FILES) != 0 {
        cur.replace_files(Arc::new(cur.files().duplicate()));
    }
    Ok(0)
}

/// setns(2): there are no namespaces to enter.
pub fn sys_setns(cur: &Arc<Task>, fd: i32, _kind: i32) -> Result<u64> {
    cur.files().get(fd)?;
    Err(Errno::EINVAL)
}
