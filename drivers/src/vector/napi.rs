//! The NET_RX softirq: polls the queues that have something, each with a budget.

use executor::softirq::{self, SoftirqVec};
use klib::sync::Mutex;
use net::Napi;
use net::dev::napi::NAPI_WEIGHT;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Whether a queue is to be polled.
#[derive(Default)]
pub struct Sched {
    pending: AtomicBool,
    /// Number of the queue, if there are several.
    queue: Option<usize>,
}

impl Sched {
    /// Of one queue of several: each is polled on a CPU of its own as far as there are CPUs.
    pub fn of_queue(queue: usize) -> Self {
        Self { pending: AtomicBool::new(false), queue: Some(queue) }
    }

    /// The CPU that polls; `None`: whichever asks.
    pub fn home(&self) -> Option<usize> {
        self.queue.map(|q| q % executor::nr_cpus().max(1))
    }

    /// Asks for a poll. From interrupts.
    pub fn schedule(&self) {
        if self.pending.swap(true, Ordering::AcqRel) {
            return;
        }
        match self.home() {
            Some(cpu) if executor::try_this_cpu() != Some(cpu) => softirq::raise_on(cpu, SoftirqVec::NetRx),
            _ => softirq::raise(SoftirqVec::NetRx),
        }
    }
}

struct Entry {
    sched: Arc<Sched>,
    napi: Weak<dyn Napi>,
    /// One CPU polls a queue at a time, so that its frames keep their order.
    polling: Mutex<()>,
}

static NICS: Mutex<Vec<Arc<Entry>>> = Mutex::new(Vec::new());

/// Adds a queue of a NIC. The softirq's handler is set with the first one that comes up.
pub fn add(sched: Arc<Sched>, napi: Weak<dyn Napi>) {
    let mut nics = NICS.lock();
    nics.retain(|e| e.napi.strong_count() > 0);
    nics.push(Arc::new(Entry { sched, napi, polling: Mutex::new(()) }));
}

/// Sets the handler; harmless to repeat.
pub fn register() {
    softirq::register(SoftirqVec::NetRx, Arc::new(net_rx_action));
}

fn net_rx_action() -> bool {
    // Few NICs, and a list that hardly ever changes.
    let nics = NICS.lock().clone();
    let here = executor::try_this_cpu();
    let mut more = false;
    for e in nics {
        let elsewhere = e.sched.home().is_some_and(|h| Some(h) != here);
        if elsewhere || !e.sched.pending.load(Ordering::Acquire) {
            continue;
        }
        let Some(_one) = e.polling.try_lock() else {
            more = true;
            continue;
        };
        let Some(napi) = e.napi.upgrade() else { continue };
        // Interrupts are on again before the look, so that none is lost.
        e.sched.pending.store(false, Ordering::SeqCst);
        if napi.poll(NAPI_WEIGHT) >= NAPI_WEIGHT {
            e.sched.pending.store(true, Ordering::SeqCst);
            more = true;
        }
    }
    more
}
