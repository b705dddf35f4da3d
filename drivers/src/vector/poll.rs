//! One queue's part of the softirq: received messages become packet buffers and go to the stack in one batch.

use super::Vector;
use super::ethtool::add;
use super::lanes::{End, Queues};
use super::napi::{self, Sched};
use super::rx::Poll;
use executor::irq::RxSlot;
use klib::sync::Mutex;
use net::gro::Gro;
use net::{Features, Napi, NetDevice, Skb};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// Polls one queue of a NIC.
pub struct QueuePoll {
    vector: Weak<Vector>,
    queue: usize,
    /// Asks for it.
    pub sched: Arc<Sched>,
    /// Slots and frames of a poll, kept so that it allocates nothing.
    batch: Mutex<Batch>,
}

#[derive(Default)]
struct Batch {
    slots: Vec<RxSlot>,
    frames: Vec<Skb>,
    gro: Gro,
}

impl QueuePoll {
    /// For each of `n` queues; known to the softirq from now on.
    pub fn all(vector: &Weak<Vector>, n: usize) -> Vec<Arc<Self>> {
        let one = |queue| {
            let sched = Arc::new(if n > 1 { Sched::of_queue(queue) } else { Sched::default() });
            let vector = Weak::clone(vector);
            let this = Arc::new(Self { vector, queue, sched: Arc::clone(&sched), batch: Mutex::default() });
            let weak: Weak<Self> = Arc::downgrade(&this);
            napi::add(sched, weak);
            this
        };
        (0..n.max(1)).map(one).collect()
    }
}

impl Napi for QueuePoll {
    fn poll(&self, budget: usize) -> usize {
        let Some(v) = self.vector.upgrade() else { return 0 };
        if self.queue == 0 {
            v.follow_link();
        }
        let (Some(q), Some((net, ifindex))) = (v.queues(), v.net.get()) else { return 0 };
        if self.queue == 0 && q.done.wake.swap(false, Ordering::SeqCst) {
            add(&v.counters.tx_restart_queue, 1);
            net.tx_wake(*ifindex);
        }
        let Some(pool) = net.pool() else { return 0 };
        // Only one poll of a queue runs at a time (see napi), so the lock is never waited for.
        let Batch { mut slots, mut frames, mut gro } = std::mem::take(&mut *self.batch.lock());
        let merge = v.merges() && v.features().contains(Features::GRO);
        let mut poll = Poll {
            pool: &pool,
            counters: &v.counters,
            drops: &v.drops,
            pcap: v.pcap.as_ref(),
            believe: v.features().contains(Features::RXCSUM),
            gro: merge.then_some(&mut gro),
            taken: (0, 0),
            out: &mut frames,
        };
        let n = q.poll(self.queue, &mut slots, budget, &mut poll);
        if n > 0 {
            v.counters.polled(n as u64);
            if v.up.load(Ordering::Acquire) {
                net.rx(*ifindex, frames.drain(..));
            }
        }
        slots.clear();
        frames.clear();
        *self.batch.lock() = Batch { slots, frames, gro };
        if n < budget {
            v.look_at_end(&q);
        }
        n
    }
}

impl Vector {
    /// Whether some queue has stopped receiving, and what follows from it.
    fn look_at_end(&self, q: &Arc<Queues>) {
        match q.end() {
            // It may be up again by now; so says a look.
            Some(End::Down) if self.link.ask() => self.schedule(),
            Some(End::Gone(why)) => self.lost(Some(q), why),
            Some(End::Down) | None => {}
        }
    }
}
