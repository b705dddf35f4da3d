//! What each CPU has done, for /proc and for tests. Counters only grow.

use crate::machine::machine;
use crate::softirq::NR_SOFTIRQS;
use arch::irqchip::{NR_OP_KINDS, RingCounters};
use std::sync::atomic::{AtomicU64, Ordering};

pub use arch::irqchip::OpKind;

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) rounds: AtomicU64,
    pub(crate) tasks_run: AtomicU64,
    pub(crate) remote_wakes: AtomicU64,
    pub(crate) kicks: AtomicU64,
    pub(crate) timers: AtomicU64,
    pub(crate) idle_ns: AtomicU64,
    pub(crate) completions: [AtomicU64; NR_OP_KINDS],
    pub(crate) softirqs: [AtomicU64; NR_SOFTIRQS],
    enters: AtomicU64,
    waits: AtomicU64,
    submitted: AtomicU64,
    sq_full: AtomicU64,
    cq_overflow: AtomicU64,
    doorbells: AtomicU64,
    rearmed: AtomicU64,
}

impl Counters {
    pub(crate) fn add(n: &AtomicU64, by: u64) {
        n.fetch_add(by, Ordering::Relaxed);
    }

    /// As [`add`](Self::add) for a counter that only its own CPU changes: no locked instruction.
    pub(crate) fn add_own(n: &AtomicU64, by: u64) {
        n.store(n.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    /// Publishes the ring's own counters (only its thread can read them).
    pub(crate) fn store_ring(&self, r: &RingCounters) {
        self.enters.store(r.enters, Ordering::Relaxed);
        self.waits.store(r.waits, Ordering::Relaxed);
        self.submitted.store(r.submitted, Ordering::Relaxed);
        self.sq_full.store(r.sq_full, Ordering::Relaxed);
        self.cq_overflow.store(r.cq_overflow, Ordering::Relaxed);
        self.doorbells.store(r.doorbells, Ordering::Relaxed);
        self.rearmed.store(r.rearmed, Ordering::Relaxed);
    }
}

/// A CPU's counters at one moment. Those of the ring are as of its last idle wait.
#[derive(Clone, Copy, Default, Debug)]
pub struct CpuStats {
    /// Rounds of the loop.
    pub rounds: u64,
    /// Polls of tasks.
    pub tasks_run: u64,
    /// Tasks woken by other threads.
    pub remote_wakes: u64,
    /// Doorbells that others had to ring for this CPU.
    pub kicks: u64,
    /// Timers that have fired.
    pub timers: u64,
    /// Nanoseconds asleep in the ring.
    pub idle_ns: u64,
    /// Completions by [`OpKind`].
    pub completions: [u64; NR_OP_KINDS],
    /// Softirq runs by vector.
    pub softirqs: [u64; NR_SOFTIRQS],
    /// Calls of io_uring_enter(2).
    pub enters: u64,
    /// Those that could sleep.
    pub waits: u64,
    /// Operations submitted.
    pub submitted: u64,
    /// Times the submission queue was full.
    pub sq_full: u64,
    /// Times the completion queue overflowed.
    pub cq_overflow: u64,
    /// Doorbell completions.
    pub doorbells: u64,
    /// Standing operations armed again.
    pub rearmed: u64,
}

/// The counters of a CPU; `None` if there is no such CPU.
pub fn cpu(cpu: usize) -> Option<CpuStats> {
    let machine = machine()?;
    let c = &machine.cpus.get(cpu)?.counters;
    let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
    Some(CpuStats {
        rounds: get(&c.rounds),
        tasks_run: get(&c.tasks_run),
        remote_wakes: get(&c.remote_wakes),
        kicks: get(&c.kicks),
        timers: get(&c.timers),
        idle_ns: get(&c.idle_ns),
        completions: std::array::from_fn(|i| get(&c.completions[i])),
        softirqs: std::array::from_fn(|i| get(&c.softirqs[i])),
        enters: get(&c.enters),
        waits: get(&c.waits),
        submitted: get(&c.submitted),
        sq_full: get(&c.sq_full),
        cq_overflow: get(&c.cq_overflow),
        doorbells: get(&c.doorbells),
        rearmed: get(&c.rearmed),
    })
}
