//! The table of process, thread, process group and session numbers.
//!
//! The table's lock is also what orders all changes of kinship (parent, children, process group, session, zombie):
//! they are made with the table locked for writing. It is the outermost lock of the kernel.

use super::task::{Pid, Task};
use super::thread_group::ThreadGroup;
use crate::{Errno, Result};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::collections::BTreeMap;
use std::sync::Arc;

/// No number reaches this (/proc/sys/kernel/pid_max).
pub const PID_MAX: Pid = 32768;
/// After a wrap, numbers below this are left to early daemons, as Linux does.
const RESERVED_PIDS: Pid = 300;

/// What a number stands for; it is free again when nothing is left.
#[derive(Default)]
struct Entry {
    task: Option<Arc<Task>>,
    group: Option<Arc<ThreadGroup>>,
    /// Members of the process group of this number.
    pgrp: Vec<Arc<ThreadGroup>>,
    /// Processes in the session of this number.
    session: usize,
    /// Given out by `alloc`, not yet attached.
    reserved: bool,
}

impl Entry {
    fn is_free(&self) -> bool {
        self.task.is_none()
            && self.group.is_none()
            && self.pgrp.is_empty()
            && self.session == 0
            && !self.reserved
    }
}

/// The table; see [`read()`] and [`write()`].
#[derive(Default)]
pub struct PidTable {
    entries: BTreeMap<Pid, Entry>,
    last: Pid,
    nr_threads: usize,
}

static PIDS: RwLock<PidTable> = RwLock::new(PidTable { entries: BTreeMap::new(), last: 0, nr_threads: 0 });

/// Locks the table for looking.
pub fn read() -> RwLockReadGuard<'static, PidTable> {
    PIDS.read()
}

/// Locks the table for changes of numbers or kinship.
pub fn write() -> RwLockWriteGuard<'static, PidTable> {
    PIDS.write()
}

/// The thread with this id.
pub fn find_task(tid: Pid) -> Option<Arc<Task>> {
    read().task(tid)
}

/// The process with this id (zombies too).
pub fn find_group(tgid: Pid) -> Option<Arc<ThreadGroup>> {
    read().group(tgid)
}

/// All processes, by number (zombies too): /proc, kill(-1).
pub fn all_groups() -> Vec<Arc<ThreadGroup>> {
    read().entries.values().filter_map(|e| e.group.clone()).collect()
}

/// A number reserved by [`reserve`] that is given back unless it was used.
pub struct ReservedPid(Option<Pid>);

impl ReservedPid {
    /// The number.
    pub fn pid(&self) -> Pid {
        self.0.unwrap_or(0)
    }

    /// The number is in use now: its entry keeps it.
    pub(super) fn into_used(mut self, table: &mut PidTable) {
        if let Some(pid) = self.0.take() {
            table.update(pid, |e| e.reserved = false);
        }
    }
}

impl Drop for ReservedPid {
    fn drop(&mut self) {
        if let Some(pid) = self.0.take() {
            write().update(pid, |e| e.reserved = false);
        }
    }
}

/// Takes the next free number; `EAGAIN` if there is none (fork(2)).
pub fn reserve() -> Result<ReservedPid> {
    write().alloc().map(|p| ReservedPid(Some(p)))
}

impl PidTable {
    fn alloc(&mut self) -> Result<Pid> {
        let mut pid = self.last;
        for _ in 0..PID_MAX {
            pid += 1;
            if pid >= PID_MAX {
                pid = RESERVED_PIDS;
            }
            if !self.entries.contains_key(&pid) {
                self.last = pid;
                self.entries.insert(pid, Entry { reserved: true, ..Entry::default() });
                return Ok(pid);
            }
        }
        Err(Errno::EAGAIN)
    }

    fn update<R>(&mut self, pid: Pid, f: impl FnOnce(&mut Entry) -> R) -> R {
        let e = self.entries.entry(pid).or_default();
        let r = f(e);
        if e.is_free() {
            self.entries.remove(&pid);
        }
        r
    }

    /// The thread with this id.
    pub fn task(&self, tid: Pid) -> Option<Arc<Task>> {
        self.entries.get(&tid).and_then(|e| e.task.clone())
    }

    /// The process with this id.
    pub fn group(&self, tgid: Pid) -> Option<Arc<ThreadGroup>> {
        self.entries.get(&tgid).and_then(|e| e.group.clone())
    }

    /// The members of a process group.
    pub fn pgrp(&self, pgid: Pid) -> &[Arc<ThreadGroup>] {
        self.entries.get(&pgid).map_or(&[], |e| &e.pgrp)
    }

    /// True if a session of this number exists.
    pub fn has_session(&self, sid: Pid) -> bool {
        self.entries.get(&sid).is_some_and(|e| e.session > 0)
    }

    /// All processes, by number.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<ThreadGroup>> {
        self.entries.values().filter_map(|e| e.group.as_ref())
    }

    /// All threads, by number.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.entries.values().filter_map(|e| e.task.as_ref())
    }

    /// Threads in existence (sysinfo(2), /proc/loadavg).
    pub fn nr_threads(&self) -> usize {
        self.nr_threads
    }

    /// The number given out last (/proc/loadavg).
    pub fn last_pid(&self) -> Pid {
        self.last
    }

    pub(super) fn attach_task(&mut self, tid: Pid, task: &Arc<Task>) {
        self.nr_threads += 1;
        self.update(tid, |e| e.task = Some(Arc::clone(task)));
    }

    pub(super) fn detach_task(&mut self, tid: Pid) -> Option<Arc<Task>> {
        let t = self.update(tid, |e| e.task.take());
        if t.is_some() {
            self.nr_threads -= 1;
        }
        t
    }

    /// Enters a process with its process group and session, which stand in its `inner`.
    pub(super) fn attach_group(&mut self, group: &Arc<ThreadGroup>) {
        let (pgrp, sid) = {
            let g = group.inner.lock();
            (g.pgrp, g.session.sid)
        };
        self.update(group.tgid, |e| e.group = Some(Arc::clone(group)));
        self.update(pgrp, |e| e.pgrp.push(Arc::clone(group)));
        self.update(sid, |e| e.session += 1);
    }

    /// Takes a dead process out of everything.
    pub(super) fn detach_group(&mut self, group: &Arc<ThreadGroup>) {
        let (pgrp, sid) = {
            let g = group.inner.lock();
            (g.pgrp, g.session.sid)
        };
        self.update(pgrp, |e| e.pgrp.retain(|g| !Arc::ptr_eq(g, group)));
        self.update(sid, |e| e.session = e.session.saturating_sub(1));
        self.update(group.tgid, |e| e.group = None);
    }

    /// setpgid(2), setsid(2): moves a process to another process group.
    pub(super) fn move_pgrp(&mut self, group: &Arc<ThreadGroup>, to: Pid) {
        let from = std::mem::replace(&mut group.inner.lock().pgrp, to);
        self.update(to, |e| e.pgrp.push(Arc::clone(group)));
        if from != to {
            self.update(from, |e| e.pgrp.retain(|g| !Arc::ptr_eq(g, group)));
        } else if let Some(e) = self.entries.get_mut(&to) {
            e.pgrp.pop();
        }
    }

    /// setsid(2): moves a process to a new session.
    pub(super) fn move_session(&mut self, group: &Arc<ThreadGroup>, to: Arc<super::session::Session>) {
        self.update(to.sid, |e| e.session += 1);
        let old = std::mem::replace(&mut group.inner.lock().session, to);
        self.update(old.sid, |e| e.session = e.session.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_wrap_and_run_out() {
        let mut t = PidTable::default();
        assert_eq!(t.alloc(), Ok(1));
        assert_eq!(t.alloc(), Ok(2));
        t.update(1, |e| e.reserved = false);
        assert_eq!(t.alloc(), Ok(3), "a freed number is not reused at once");
        t.last = PID_MAX - 1;
        assert_eq!(t.alloc(), Ok(RESERVED_PIDS), "wraps past the reserved ones");
        while t.alloc().is_ok() {}
        assert_eq!(t.alloc(), Err(Errno::EAGAIN));
        t.update(4000, |e| e.reserved = false);
        assert_eq!(t.alloc(), Ok(4000));
    }
}
