//! The NET_RX softirq: polls the NICs that have something, each with a budget.

use executor::softirq::{self, SoftirqVec};
use klib::sync::Mutex;
use net::Napi;
use net::dev::napi::NAPI_WEIGHT;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Whether a NIC is to be polled.
#[derive(Default)]
pub struct Sched {
    pending: AtomicBool,
}

impl Sched {
    /// Asks for a poll on this CPU. From interrupts.
    pub fn schedule(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            softirq::raise(SoftirqVec::NetRx);
        }
    }
}

struct Entry {
    sched: Arc<Sched>,
    napi: Weak<dyn Napi>,
    /// One CPU polls a NIC at a time, so that its frames keep their order.
    polling: Mutex<()>,
}

static NICS: Mutex<Vec<Arc<Entry>>> = Mutex::new(Vec::new());

/// Adds a NIC. The softirq's handler is set with the first one that comes up.
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
    let mut more = false;
    for e in nics {
        if !e.sched.pending.load(Ordering::Acquire) {
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
