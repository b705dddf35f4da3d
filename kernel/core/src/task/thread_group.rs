//! A process: what its threads share.

use super::rusage::Rusage;
use super::session::Session;
use super::task::{Pid, Task};
use crate::signal::GroupSignals;
use crate::time::GroupTimers;
use klib::ktime::Ktime;
use klib::waitqueue::WaitQueue;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};
use std::sync::{Arc, Weak};
use uapi::raw::general as c;

/// A process (thread group).
pub struct ThreadGroup {
    /// Process id: the thread id of the first thread.
    pub tgid: Pid,
    /// Threads, kinship, exit state. Kinship changes only with the pid table locked for writing.
    pub inner: Mutex<GroupInner>,
    /// Signals for the process as a whole, stop and exit state.
    pub signals: Mutex<GroupSignals>,
    /// Soft and hard limits by RLIMIT_* number.
    pub(super) limits: Mutex<[(u64, u64); 16]>,
    /// setitimer(2), timer_create(2).
    pub timers: GroupTimers,
    /// Woken when a child exits, stops or continues (wait4(2)).
    pub child_wait: WaitQueue,
    /// Woken when this process has become a zombie (pidfd_open(2)).
    pub exit_wait: WaitQueue,
    /// Woken when a thread has left (execve(2) waits for the others).
    pub thread_wait: WaitQueue,
    /// Where stopped threads wait for SIGCONT or SIGKILL.
    pub stop_wait: WaitQueue,
    /// Woken with POLLIN when a signal comes for the process or one of its threads (signalfd(2)).
    pub signalfd_wait: WaitQueue,
    /// When it was started (/proc/PID/stat).
    pub start_time: Ktime,
    /// Largest resident set, KiB; kept up by `mm`.
    pub maxrss_kib: AtomicU64,
    /// PR_SET_DUMPABLE.
    pub dumpable: AtomicI32,
    /// personality(2).
    pub personality: AtomicU32,
    /// /proc/PID/oom_score_adj.
    pub oom_score_adj: AtomicI32,
}

/// A process that has ended and waits to be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zombie {
    /// Status as wait(2) gives it.
    pub status: i32,
    /// Real user id at the end.
    pub uid: u32,
}

/// The changing part of a [`ThreadGroup`].
pub struct GroupInner {
    /// Live threads; the first one is the leader unless that has exited before the others.
    pub threads: Vec<Arc<Task>>,
    /// The first thread; kept while the process can be looked at (/proc), let go when it is reaped.
    pub leader: Option<Arc<Task>>,
    /// Parent process.
    pub parent: Weak<ThreadGroup>,
    /// Child processes, zombies included.
    pub children: Vec<Arc<ThreadGroup>>,
    /// Process group.
    pub pgrp: Pid,
    /// Session.
    pub session: Arc<Session>,
    /// What the parent is sent at the end (clone(2)): SIGCHLD, another signal, or 0.
    pub exit_signal: i32,
    /// Status of the leader, if it has exited; the group's own exit code goes before it.
    pub leader_status: i32,
    /// Set when the last thread has gone.
    pub zombie: Option<Zombie>,
    /// execve(2) has been called since fork (setpgid(2) `EACCES`).
    pub did_exec: bool,
    /// PR_SET_CHILD_SUBREAPER.
    pub child_subreaper: bool,
    /// Used by threads that have gone.
    pub dead_threads: Rusage,
    /// Used by children that were waited for.
    pub children_usage: Rusage,
}

/// Limits of the first process, as Linux sets them; `threads` is a bound for RLIMIT_NPROC and RLIMIT_SIGPENDING.
pub fn default_rlimits(threads: u64) -> [(u64, u64); 16] {
    const INF: u64 = u64::MAX;
    let mut l = [(INF, INF); 16];
    l[c::RLIMIT_STACK as usize] = (8 << 20, INF);
    l[c::RLIMIT_CORE as usize] = (0, INF);
    l[c::RLIMIT_NPROC as usize] = (threads, threads);
    l[c::RLIMIT_NOFILE as usize] = (1024, 1 << 20);
    l[c::RLIMIT_MEMLOCK as usize] = (8 << 20, 8 << 20);
    l[c::RLIMIT_SIGPENDING as usize] = (threads, threads);
    l[c::RLIMIT_MSGQUEUE as usize] = (819_200, 819_200);
    l[c::RLIMIT_NICE as usize] = (0, 0);
    l[c::RLIMIT_RTPRIO as usize] = (0, 0);
    l
}

impl ThreadGroup {
    /// A process without threads and without a place in the tables.
    pub fn new(tgid: Pid, pgrp: Pid, session: Arc<Session>, limits: [(u64, u64); 16]) -> Arc<Self> {
        Arc::new(Self {
            tgid,
            inner: Mutex::new(GroupInner {
                threads: Vec::new(),
                leader: None,
                parent: Weak::new(),
                children: Vec::new(),
                pgrp,
                session,
                exit_signal: c::SIGCHLD as i32,
                leader_status: 0,
                zombie: None,
                did_exec: false,
                child_subreaper: false,
                dead_threads: Rusage::default(),
                children_usage: Rusage::default(),
            }),
            signals: Mutex::new(GroupSignals { unkillable: tgid == 1, ..GroupSignals::default() }),
            limits: Mutex::new(limits),
            timers: GroupTimers::default(),
            child_wait: WaitQueue::new(),
            exit_wait: WaitQueue::new(),
            thread_wait: WaitQueue::new(),
            stop_wait: WaitQueue::new(),
            signalfd_wait: WaitQueue::new(),
            start_time: executor::time::now(),
            maxrss_kib: AtomicU64::new(0),
            dumpable: AtomicI32::new(1),
            personality: AtomicU32::new(0),
            oom_score_adj: AtomicI32::new(0),
        })
    }

    /// Soft and hard limit of `resource` (RLIMIT_*); unknown ones are unlimited.
    pub fn rlimit(&self, resource: u32) -> (u64, u64) {
        self.limits.lock().get(resource as usize).copied().unwrap_or((u64::MAX, u64::MAX))
    }

    /// All limits, for a child.
    pub fn rlimits(&self) -> [(u64, u64); 16] {
        *self.limits.lock()
    }

    /// The live threads.
    pub fn threads(&self) -> Vec<Arc<Task>> {
        self.inner.lock().threads.clone()
    }

    /// Number of live threads.
    pub fn nr_threads(&self) -> usize {
        self.inner.lock().threads.len()
    }

    /// A thread that stands for the process: the leader if it is still known, else any live one.
    pub fn leader(&self) -> Option<Arc<Task>> {
        let g = self.inner.lock();
        g.leader.clone().or_else(|| g.threads.first().cloned())
    }

    /// Parent process.
    pub fn parent(&self) -> Option<Arc<ThreadGroup>> {
        self.inner.lock().parent.upgrade()
    }

    /// Parent process id; 0 for the first process.
    pub fn ppid(&self) -> Pid {
        self.parent().map_or(0, |p| p.tgid)
    }

    /// Process group id.
    pub fn pgrp(&self) -> Pid {
        self.inner.lock().pgrp
    }

    /// The session.
    pub fn session(&self) -> Arc<Session> {
        Arc::clone(&self.inner.lock().session)
    }

    /// True if the process has ended.
    pub fn is_zombie(&self) -> bool {
        self.inner.lock().zombie.is_some()
    }
}
