//! Softirqs: work that interrupts leave behind, run between tasks with a budget.

use crate::machine::{Local, expect_machine, with_local};
use crate::stats::Counters;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};

/// The vectors, with Linux's names and order (include/linux/interrupt.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum SoftirqVec {
    /// First of all.
    Hi = 0,
    /// Timers of the kernel.
    Timer = 1,
    /// Frames sent, queues with room again.
    NetTx = 2,
    /// Frames received.
    NetRx = 3,
    /// Block requests done.
    Block = 4,
    /// Everything else.
    Tasklet = 6,
}

/// Number of vectors.
pub const NR_SOFTIRQS: usize = 7;

/// Names as in /proc/softirqs.
pub const NAMES: [&str; NR_SOFTIRQS] = ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET"];

/// A handler; runs on the CPU on which the vector was raised, possibly on several at once. It works off a budget of its
/// own and returns true if more is left: then it is called again after a round of tasks.
pub type Handler = Arc<dyn Fn() -> bool + Send + Sync>;

#[derive(Default)]
pub(crate) struct Handlers([RwLock<Option<Handler>>; NR_SOFTIRQS]);

impl Handlers {
    fn get(&self, nr: usize) -> Option<Handler> {
        self.0.get(nr)?.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn clear(&self) {
        for h in &self.0 {
            let old = h.write().unwrap_or_else(PoisonError::into_inner).take();
            drop(old);
        }
    }
}

/// Sets the handler of a vector on all CPUs (open_softirq in Linux); one that was there is replaced.
pub fn register(nr: SoftirqVec, handler: Handler) {
    let machine = expect_machine();
    if let Some(h) = machine.softirqs.0.get(nr as usize) {
        let old = h.write().unwrap_or_else(PoisonError::into_inner).replace(handler);
        drop(old);
    }
}

/// Raises a vector on this CPU (on CPU 0 from a foreign thread). Cheap; may be called from interrupt handlers.
pub fn raise(nr: SoftirqVec) {
    let local = with_local(|l| l.map(|l| l.me().softirqs.fetch_or(1 << nr as u32, Ordering::AcqRel)));
    if local.is_none() {
        raise_on(0, nr);
    }
}

/// Raises a vector on a CPU and kicks it if it sleeps.
pub fn raise_on(cpu: usize, nr: SoftirqVec) {
    let machine = expect_machine();
    let cpu = machine.cpu(cpu);
    cpu.softirqs.fetch_or(1 << nr as u32, Ordering::AcqRel);
    cpu.kick();
}

/// Runs what is raised now, each vector once.
pub(crate) fn run(local: &Local) {
    let cpu = local.me();
    if cpu.softirqs.load(Ordering::Relaxed) == 0 {
        return;
    }
    let mut pending = cpu.softirqs.swap(0, Ordering::AcqRel);
    while pending != 0 {
        let nr = pending.trailing_zeros() as usize;
        pending &= pending - 1;
        let Some(handler) = local.machine.softirqs.get(nr) else { continue };
        if let Some(n) = cpu.counters.softirqs.get(nr) {
            Counters::add_own(n, 1);
        }
        if handler() {
            cpu.softirqs.fetch_or(1 << nr, Ordering::AcqRel);
        }
    }
}
