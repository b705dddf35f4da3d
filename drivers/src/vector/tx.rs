//! Sending: frames queue up and leave in batches, in order; each is owned by its operation until that is done.

use super::ethtool::{Counters, add};
use super::napi;
use super::vnet_hdr::{self, VNET_HDR_LEN};
use executor::irq::{IoSource, Segments, TxDone};
use net::Skb;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use uapi::Result;

/// A frame with its virtio-net header, as the ring sends it.
pub struct TxFrame(Skb);

impl TxFrame {
    /// Puts the header in front.
    pub fn new(mut skb: Skb) -> Self {
        let header = vnet_hdr::build(&skb);
        skb.push(VNET_HDR_LEN).copy_from_slice(&header);
        Self(skb)
    }
}

impl IoSource for TxFrame {
    fn segments<'a>(&'a self, out: &mut Segments<'a>) {
        out.push(self.0.data());
    }
}

/// Counts completions and wakes the stack's queue. Runs as an interrupt.
pub struct Done {
    pub(super) counters: Arc<Counters>,
    /// The stack was refused a frame and is owed a wake.
    pub(super) stopped: AtomicBool,
    /// The wake is due.
    pub(super) wake: AtomicBool,
    batch: AtomicU64,
    pub(super) sched: Arc<napi::Sched>,
}

impl Done {
    pub(super) fn new(counters: Arc<Counters>, sched: Arc<napi::Sched>) -> Self {
        Self {
            counters,
            stopped: AtomicBool::new(false),
            wake: AtomicBool::new(false),
            batch: AtomicU64::new(0),
            sched,
        }
    }
}

impl TxDone for Done {
    fn done(&self, _frame: Box<dyn IoSource>, result: Result<u32>) {
        self.batch.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(n) => {
                add(&self.counters.tx_packets, 1);
                add(&self.counters.tx_bytes, u64::from(n).saturating_sub(VNET_HDR_LEN as u64));
            }
            Err(_) => add(&self.counters.tx_errors, 1),
        }
    }

    fn batch_end(&self) {
        self.counters.batch(self.batch.swap(0, Ordering::Relaxed));
        if self.stopped.swap(false, Ordering::SeqCst) {
            self.wake.store(true, Ordering::SeqCst);
            self.sched.schedule();
        }
    }
}
