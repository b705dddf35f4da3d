//! What all CPUs of a running kernel share, and what each keeps for itself.

use crate::irq::RingSlot;
use crate::smp::Call;
use crate::softirq::Handlers;
use crate::stats::Counters;
use crate::task::Home;
use crate::time::TimerEntry;
use arch::irqchip::{Completion, Doorbell};
use async_task::Runnable;
use klib::ktime::Ktime;
use klib::timerqueue::TimerQueue;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicIsize, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks; a poisoned lock is as good as any, since a panic ends the process.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of a CPU that others may touch.
pub(crate) struct Cpu {
    /// Tasks woken from elsewhere, and how many (so that an empty queue costs no lock).
    inbox: Mutex<VecDeque<Runnable<Home>>>,
    inbox_len: AtomicUsize,
    calls: Mutex<Vec<Call>>,
    calls_len: AtomicUsize,
    pub(crate) doorbell: Arc<Doorbell>,
    pub(crate) timers: Mutex<TimerQueue<TimerEntry>>,
    pub(crate) softirqs: AtomicU32,
    /// Length of the run queue as others see it.
    pub(crate) queued: AtomicUsize,
    /// What callers have added: guests that run user code, for example.
    load: AtomicIsize,
    pub(crate) host_cpu: Option<usize>,
    pub(crate) counters: Counters,
}

impl Cpu {
    pub(crate) fn new(host_cpu: Option<usize>) -> klib::Result<Self> {
        Ok(Self {
            inbox: Mutex::default(),
            inbox_len: AtomicUsize::new(0),
            calls: Mutex::default(),
            calls_len: AtomicUsize::new(0),
            doorbell: Arc::new(Doorbell::new()?),
            timers: Mutex::default(),
            softirqs: AtomicU32::new(0),
            queued: AtomicUsize::new(0),
            load: AtomicIsize::new(0),
            host_cpu,
            counters: Counters::default(),
        })
    }

    /// Rings the doorbell if the CPU sleeps; call after publishing work.
    pub(crate) fn kick(&self) {
        if self.doorbell.kick() {
            Counters::add(&self.counters.kicks, 1);
        }
    }

    pub(crate) fn push_remote(&self, task: Runnable<Home>) {
        let mut inbox = lock(&self.inbox);
        inbox.push_back(task);
        self.inbox_len.store(inbox.len(), Ordering::Release);
        drop(inbox);
        Counters::add(&self.counters.remote_wakes, 1);
        self.kick();
    }

    /// Moves what others have woken into `runq`.
    pub(crate) fn take_inbox(&self, runq: &mut VecDeque<Runnable<Home>>) {
        if self.inbox_len.load(Ordering::Acquire) > 0 {
            let mut inbox = lock(&self.inbox);
            runq.append(&mut inbox);
            self.inbox_len.store(0, Ordering::Release);
        }
    }

    pub(crate) fn push_call(&self, call: Call) {
        let mut calls = lock(&self.calls);
        calls.push(call);
        self.calls_len.store(calls.len(), Ordering::Release);
        drop(calls);
        self.kick();
    }

    pub(crate) fn take_calls(&self) -> Vec<Call> {
        if self.calls_len.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let mut calls = lock(&self.calls);
        self.calls_len.store(0, Ordering::Release);
        std::mem::take(&mut *calls)
    }

    /// True if others have left something to do.
    pub(crate) fn has_work(&self) -> bool {
        self.inbox_len.load(Ordering::Acquire) > 0
            || self.calls_len.load(Ordering::Acquire) > 0
            || self.softirqs.load(Ordering::Acquire) > 0
    }

    /// What [`load_add`] has added.
    pub(crate) fn added_load(&self) -> isize {
        self.load.load(Ordering::Relaxed)
    }

    fn load(&self) -> isize {
        let queued = self.queued.load(Ordering::Relaxed) + self.inbox_len.load(Ordering::Relaxed);
        self.load.load(Ordering::Relaxed) + queued as isize
    }
}

/// A running kernel: its CPUs.
pub(crate) struct Machine {
    pub(crate) cpus: Box<[Cpu]>,
    pub(crate) softirqs: Handlers,
    pub(crate) stop: AtomicBool,
    pub(crate) code: AtomicI32,
}

impl Machine {
    /// The CPU with this number; numbers that do not exist mean CPU 0.
    pub(crate) fn cpu(&self, cpu: usize) -> &Cpu {
        self.cpus.get(cpu).unwrap_or(&self.cpus[0])
    }
}

/// The part of a CPU that only its own thread touches.
pub(crate) struct Local {
    pub(crate) id: usize,
    pub(crate) machine: Arc<Machine>,
    pub(crate) runq: RefCell<VecDeque<Runnable<Home>>>,
    pub(crate) ring: RingSlot,
    /// Set by a task that is about to move: its new home, taken when it is next queued.
    pub(crate) migrate: Cell<Option<usize>>,
    pub(crate) haltpoll: crate::haltpoll::HaltPoll,
    /// The clock when it was last read here.
    pub(crate) clock: Cell<Ktime>,
    /// Completions being told; kept so that reaping allocates nothing.
    pub(crate) reaped: Cell<Vec<Completion>>,
}

impl Local {
    pub(crate) fn me(&self) -> &Cpu {
        self.machine.cpu(self.id)
    }
}

thread_local! {
    static LOCAL: OnceCell<Local> = const { OnceCell::new() };
}

static MACHINE: Mutex<Option<Arc<Machine>>> = Mutex::new(None);

pub(crate) fn publish(machine: Option<Arc<Machine>>) {
    *lock(&MACHINE) = machine;
}

/// Makes the calling thread a CPU.
pub(crate) fn become_cpu(local: Local) {
    LOCAL.with(|l| assert!(l.set(local).is_ok(), "this thread is a CPU already"));
}

/// Calls `f` with the CPU of the calling thread; `None` elsewhere (and while the thread ends).
pub(crate) fn with_local<T>(f: impl FnOnce(Option<&Local>) -> T) -> T {
    let mut f = Some(f);
    let done = LOCAL.try_with(|l| f.take().map(|f| f(l.get())));
    match done {
        Ok(Some(v)) => v,
        _ => f.take().expect("not called yet")(None),
    }
}

/// The running kernel: that of this CPU, or the process's.
pub(crate) fn machine() -> Option<Arc<Machine>> {
    with_local(|l| l.map(|l| Arc::clone(&l.machine))).or_else(|| lock(&MACHINE).clone())
}

/// The running kernel; panics if there is none.
pub(crate) fn expect_machine() -> Arc<Machine> {
    machine().expect("the executor has been started")
}

/// Calls `f` with the running kernel, without counting a reference on a CPU; panics if there is none.
fn with_machine<T>(f: impl FnOnce(&Machine) -> T) -> T {
    with_local(|l| match l {
        Some(l) => f(&l.machine),
        None => f(&lock(&MACHINE).clone().expect("the executor has been started")),
    })
}

/// Number of CPUs; 0 if the executor does not run.
pub fn nr_cpus() -> usize {
    with_local(|l| l.map(|l| l.machine.cpus.len())).or_else(|| machine().map(|m| m.cpus.len())).unwrap_or(0)
}

/// The CPU that the caller runs on. Panics on a foreign thread.
pub fn this_cpu() -> usize {
    try_this_cpu().expect("called on a CPU")
}

/// The CPU that the caller runs on; `None` on a foreign thread.
pub fn try_this_cpu() -> Option<usize> {
    with_local(|l| l.map(|l| l.id))
}

/// The host CPU that `cpu` is bound to, if it is.
pub fn host_cpu(cpu: usize) -> Option<usize> {
    machine()?.cpus.get(cpu)?.host_cpu
}

/// The CPU with the fewest runnable tasks and the least added load; this one among equals.
pub fn least_loaded() -> usize {
    let machine = expect_machine();
    let here = try_this_cpu().unwrap_or(0);
    let key = |&(id, cpu): &(usize, &Cpu)| (cpu.load(), id != here);
    machine.cpus.iter().enumerate().min_by_key(key).map_or(0, |(id, _)| id)
}

/// The load that [`load_add`] has added to a CPU.
pub fn load_of(cpu: usize) -> isize {
    with_machine(|m| m.cpu(cpu).added_load())
}

/// Adds to (or with a negative number takes from) the load of a CPU, as [`least_loaded`] sees it; gives the new one.
pub fn load_add(cpu: usize, delta: isize) -> isize {
    with_machine(|m| m.cpu(cpu).load.fetch_add(delta, Ordering::Relaxed)) + delta
}
