//! A task: one guest thread.

use super::cred::Cred;
use super::thread_group::ThreadGroup;
use crate::fs::fdtable::FdTable;
use crate::fs::path::FsStruct;
use crate::mm::Mm;
use crate::signal::{SigHand, TaskSignals};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::task::Waker;

/// A thread id or process id as guests see it.
pub type Pid = u32;

/// One guest thread. Shared parts hang on `Arc`s that clone(2) shares or copies.
pub struct Task {
    /// Thread id.
    pub tid: Pid,
    /// The process.
    pub group: Arc<ThreadGroup>,
    /// Command name (TASK_COMM_LEN with the NUL).
    pub comm: Mutex<[u8; 16]>,
    mm: Mutex<Option<Arc<Mm>>>,
    files: Mutex<Arc<FdTable>>,
    fs: Mutex<Arc<FsStruct>>,
    cred: Mutex<Arc<Cred>>,
    /// Signal handlers, shared by CLONE_SIGHAND.
    pub sighand: Mutex<Arc<SigHand>>,
    /// Mask, pending signals of this thread, alternate stack.
    pub signals: TaskSignals,
    /// set_tid_address(2): cleared and woken when the thread ends.
    pub clear_child_tid: AtomicU64,
    /// set_robust_list(2): head of the list.
    pub robust_list: AtomicU64,
    /// A signal may be deliverable: looked at before going to user mode and by interruptible waits.
    pub sig_pending: AtomicBool,
    /// The guest thread is in user mode (or about to be): a signal must kick it out. See `task::run`.
    pub in_user: AtomicBool,
    /// Host thread that runs the guest code, for kicks; 0 if none.
    pub host_tid: AtomicU32,
    /// Executor that is home to this task.
    pub cpu: AtomicU32,
    /// CPU time in ns: user, system (as far as known).
    pub utime_ns: AtomicU64,
    /// See [`utime_ns`](Self::utime_ns).
    pub stime_ns: AtomicU64,
    pub(super) waker: Mutex<Option<Waker>>,
}

/// What a new task is made of.
pub struct TaskParts {
    /// Thread id, already in the pid table.
    pub tid: Pid,
    /// Its process.
    pub group: Arc<ThreadGroup>,
    /// Command name.
    pub comm: [u8; 16],
    /// Address space.
    pub mm: Arc<Mm>,
    /// Descriptors.
    pub files: Arc<FdTable>,
    /// Root, cwd, umask.
    pub fs: Arc<FsStruct>,
    /// Credentials.
    pub cred: Arc<Cred>,
    /// Signal handlers.
    pub sighand: Arc<SigHand>,
    /// Signal mask and alternate stack.
    pub signals: TaskSignals,
}

impl Task {
    /// A new task; the caller adds it to its group and starts `task::run`.
    pub fn new(p: TaskParts) -> Arc<Self> {
        Arc::new(Self {
            tid: p.tid,
            group: p.group,
            comm: Mutex::new(p.comm),
            mm: Mutex::new(Some(p.mm)),
            files: Mutex::new(p.files),
            fs: Mutex::new(p.fs),
            cred: Mutex::new(p.cred),
            sighand: Mutex::new(p.sighand),
            signals: p.signals,
            clear_child_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            sig_pending: AtomicBool::new(false),
            in_user: AtomicBool::new(false),
            host_tid: AtomicU32::new(0),
            cpu: AtomicU32::new(0),
            utime_ns: AtomicU64::new(0),
            stime_ns: AtomicU64::new(0),
            waker: Mutex::new(None),
        })
    }

    /// The address space.
    ///
    /// # Panics
    /// Never while the task runs: only its own exit takes the address space away; others use [`try_mm`](Self::try_mm).
    pub fn mm(&self) -> Arc<Mm> {
        self.try_mm().expect("a running task has an address space")
    }

    /// The address space, unless the task has exited.
    pub fn try_mm(&self) -> Option<Arc<Mm>> {
        self.mm.lock().clone()
    }

    /// execve(2) and exit: puts another address space in place and gives back the old one.
    pub fn replace_mm(&self, mm: Option<Arc<Mm>>) -> Option<Arc<Mm>> {
        std::mem::replace(&mut *self.mm.lock(), mm)
    }

    /// The descriptor table.
    pub fn files(&self) -> Arc<FdTable> {
        Arc::clone(&self.files.lock())
    }

    /// unshare(CLONE_FILES), execve(2), exit.
    pub fn replace_files(&self, files: Arc<FdTable>) -> Arc<FdTable> {
        std::mem::replace(&mut *self.files.lock(), files)
    }

    /// Root directory, working directory, umask.
    pub fn fs(&self) -> Arc<FsStruct> {
        Arc::clone(&self.fs.lock())
    }

    /// unshare(CLONE_FS).
    pub fn replace_fs(&self, fs: Arc<FsStruct>) -> Arc<FsStruct> {
        std::mem::replace(&mut *self.fs.lock(), fs)
    }

    /// The credentials.
    pub fn cred(&self) -> Arc<Cred> {
        Arc::clone(&self.cred.lock())
    }

    /// Puts new credentials in place.
    pub fn set_cred(&self, cred: Cred) {
        *self.cred.lock() = Arc::new(cred);
    }

    /// The process id.
    pub fn tgid(&self) -> Pid {
        self.group.tgid
    }

    /// RLIMIT_NOFILE's soft limit as a count, for `FdTable::install`.
    pub fn nofile_limit(&self) -> usize {
        self.group.rlimit(uapi::raw::general::RLIMIT_NOFILE).0.min(1 << 20) as usize
    }
}
