//! A task: one guest thread.

use super::acct::Account;
use super::completion::Completion;
use super::cred::Cred;
use super::thread_group::ThreadGroup;
use crate::BoxFuture;
use crate::fs::fdtable::FdTable;
use crate::fs::path::FsStruct;
use crate::mm::Mm;
use crate::signal::{SigHand, TaskSignals};
use klib::ktime::Ktime;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;

/// A thread id or process id as guests see it.
pub type Pid = u32;

/// One guest thread. Shared parts hang on `Arc`s that clone(2) shares or copies.
pub struct Task {
    /// The task itself, for work that outlives a borrow.
    pub(crate) me: Weak<Task>,
    tid: AtomicU32,
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
    /// CLONE_CHILD_SETTID: written in the child before it first runs; 0 for none. See `task::copy`.
    pub set_child_tid: AtomicU64,
    /// A parent that vfork(2) holds until this task execs or exits.
    pub vfork_done: Mutex<Option<Arc<Completion>>>,
    /// What restart_syscall(2) goes on with.
    pub restart_block: Mutex<Option<RestartFn>>,
    /// The thread is to end: it must not go back to user mode. Set by `exit::thread_exit` and fatal signals.
    pub exiting: AtomicBool,
    /// Status of the thread's end as wait(2) gives it.
    pub exit_status: AtomicI32,
    /// PR_SET_PDEATHSIG.
    pub pdeath_signal: AtomicI32,
    /// What the task does now; see [`Task::state_char`].
    pub(super) state: AtomicU8,
    /// Nice value, -20..=19 (setpriority(2)).
    pub nice: AtomicI32,
    /// Scheduling policy (SCHED_*) and, in bits 8.., its priority.
    pub policy: AtomicU32,
    /// CPUs on which the task may run, bit n = CPU n.
    pub affinity: AtomicU64,
    /// PR_SET_TIMERSLACK in ns.
    pub timer_slack_ns: AtomicU64,
    /// Stack pointer at the last trap whose registers were seen (sigaltstack(2)); 0 if none.
    pub user_sp: AtomicU64,
    /// When it was started.
    pub start_time: Ktime,
    /// A signal may be deliverable: looked at before going to user mode and by interruptible waits.
    pub sig_pending: AtomicBool,
    /// The guest thread is in user mode (or about to be): a signal must kick it out. See `task::run`.
    pub in_user: AtomicBool,
    /// Host thread that runs the guest code, for kicks; 0 if none.
    pub host_tid: AtomicU32,
    /// Its host process.
    pub host_pid: AtomicU32,
    /// CPU to which the task moves at its next trap, plus one; 0: it stays (see `balance`).
    pub move_to: AtomicU32,
    /// Wakes from one other CPU in a row, and when the first came (ns); see `balance`.
    pub remote_wakes: AtomicU32,
    /// See [`remote_wakes`](Self::remote_wakes).
    pub remote_since: AtomicU64,
    /// Traps so far.
    pub traps: AtomicU64,
    /// A kick is being watched (see `sched`).
    pub watched: AtomicBool,
    /// Executor that is home to this task.
    pub cpu: AtomicU32,
    /// CPU time. `sched` calls [`Account::enter_user`] and [`Account::enter_kernel`] around user code.
    pub acct: Account,
    /// Number, error code and address of the last exception (signal frames show them).
    pub last_trap: Mutex<(u64, u64, u64)>,
    /// Page faults without I/O.
    pub min_flt: AtomicU64,
    /// Page faults with I/O.
    pub maj_flt: AtomicU64,
    /// Voluntary switches: waits that slept.
    pub nvcsw: AtomicU64,
    /// Involuntary switches.
    pub nivcsw: AtomicU64,
    pub(super) waker: Mutex<Option<Waker>>,
}

/// What restart_syscall(2) calls: the rest of a call whose time limit must not start anew.
pub type RestartFn = Box<dyn FnOnce(Arc<Task>) -> BoxFuture<'static, crate::Result<u64>> + Send>;

/// What a new task is made of.
pub struct TaskParts {
    /// Thread id, already in the pid table.
    pub tid: Pid,
    /// Its process.
    pub group: Arc<ThreadGroup>,
    /// Command name.
    pub comm: [u8; 16],
    /// Address space; none in tests alone.
    pub mm: Option<Arc<Mm>>,
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
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            tid: AtomicU32::new(p.tid),
            group: p.group,
            comm: Mutex::new(p.comm),
            mm: Mutex::new(p.mm),
            files: Mutex::new(p.files),
            fs: Mutex::new(p.fs),
            cred: Mutex::new(p.cred),
            sighand: Mutex::new(p.sighand),
            signals: p.signals,
            clear_child_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            set_child_tid: AtomicU64::new(0),
            vfork_done: Mutex::new(None),
            restart_block: Mutex::new(None),
            exiting: AtomicBool::new(false),
            exit_status: AtomicI32::new(0),
            pdeath_signal: AtomicI32::new(0),
            state: AtomicU8::new(b'R'),
            nice: AtomicI32::new(0),
            policy: AtomicU32::new(0),
            affinity: AtomicU64::new(u64::MAX),
            timer_slack_ns: AtomicU64::new(50_000),
            user_sp: AtomicU64::new(0),
            start_time: executor::time::now(),
            sig_pending: AtomicBool::new(false),
            in_user: AtomicBool::new(false),
            host_tid: AtomicU32::new(0),
            host_pid: AtomicU32::new(0),
            move_to: AtomicU32::new(0),
            remote_wakes: AtomicU32::new(0),
            remote_since: AtomicU64::new(0),
            traps: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            cpu: AtomicU32::new(0),
            acct: Account::started(executor::time::now().as_ns()),
            last_trap: Mutex::new((0, 0, 0)),
            min_flt: AtomicU64::new(0),
            maj_flt: AtomicU64::new(0),
            nvcsw: AtomicU64::new(0),
            nivcsw: AtomicU64::new(0),
            waker: Mutex::new(None),
        })
    }

    /// Thread id. It changes once at most: when a thread that is not the leader calls execve(2).
    pub fn tid(&self) -> Pid {
        self.tid.load(Ordering::SeqCst)
    }

    /// execve(2) of a thread that is not the leader: it takes the leader's id over (`exit::de_thread`).
    pub(super) fn set_tid(&self, tid: Pid) {
        self.tid.store(tid, Ordering::SeqCst);
    }

    /// State as /proc/PID/stat shows it: R running, S sleeping, T stopped, Z ended.
    pub fn state_char(&self) -> char {
        char::from(self.state.load(Ordering::Relaxed))
    }

    /// Sets the state that [`state_char`](Self::state_char) shows.
    pub fn set_state(&self, state: u8) {
        let was = self.state.swap(state, Ordering::Relaxed);
        if was == b'R' && state != b'R' {
            self.acct.sleep();
        } else if was != b'R' && state == b'R' {
            self.acct.wake();
        }
    }

    /// Command name without the padding.
    pub fn comm_bytes(&self) -> Vec<u8> {
        let c = *self.comm.lock();
        c.iter().copied().take_while(|&b| b != 0).collect()
    }

    /// Sets the command name, cut to 15 bytes.
    pub fn set_comm(&self, name: &[u8]) {
        let mut c = [0u8; 16];
        for (d, s) in c.iter_mut().zip(name.iter().take_while(|&&b| b != 0).take(15)) {
            *d = *s;
        }
        *self.comm.lock() = c;
    }

    /// Puts another table of signal handlers in place (execve(2)).
    pub fn replace_sighand(&self, sighand: Arc<SigHand>) {
        *self.sighand.lock() = sighand;
    }

    /// The signal handlers.
    pub fn sighand(&self) -> Arc<SigHand> {
        Arc::clone(&self.sighand.lock())
    }

    /// Leaves what restart_syscall(2) is to call and gives the error that makes it so.
    pub fn set_restart(&self, f: RestartFn) -> crate::Errno {
        *self.restart_block.lock() = Some(f);
        crate::Errno::ERESTART_RESTARTBLOCK
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
