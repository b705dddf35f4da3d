//! The transmit queue of a device: a FIFO in front of the driver, stopped while the driver is full.

use super::netdevice::NetDevice;
use crate::skb::Skb;
use klib::sync::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes that may wait in front of a driver before TCP holds back.
pub const TXQ_BYTES: usize = 512 * 1024;
/// Frames that may wait in front of a driver; more are dropped (they come from senders without back-pressure).
pub const TXQ_FRAMES: usize = 1000;

/// Called when the queue has room again.
pub trait TxWaiter: Send + Sync {
    /// Try again to send.
    fn tx_ready(self: Arc<Self>);
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Skb>,
    bytes: usize,
}

/// FIFO and back-pressure of one device.
#[derive(Default)]
pub struct TxQueue {
    queue: Mutex<Queue>,
    waiters: Mutex<Vec<Arc<dyn TxWaiter>>>,
    stopped: AtomicBool,
    wakes: AtomicU64,
    dropped: AtomicU64,
}

impl TxQueue {
    /// True if TCP should hold back: the driver is full and enough waits in front of it.
    pub fn is_congested(&self) -> bool {
        self.stopped.load(Ordering::Acquire) && self.queue.lock().bytes >= TXQ_BYTES / 4
    }

    /// True if the driver has refused a frame and not yet woken the queue.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Frames dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Sends a frame or queues it behind those that wait already.
    pub fn send(&self, dev: &dyn NetDevice, skb: Skb) {
        let wakes = self.wakes.load(Ordering::Acquire);
        if self.stopped.load(Ordering::Acquire) {
            self.enqueue(skb);
        } else {
            match dev.xmit(skb) {
                Ok(()) => return,
                Err(skb) => {
                    self.enqueue(skb);
                    self.stopped.store(true, Ordering::Release);
                }
            }
        }
        // A wake between our look and the queueing found nothing to send; then it is ours to do.
        if self.wakes.load(Ordering::Acquire) != wakes {
            self.drain(dev);
        }
    }

    fn enqueue(&self, skb: Skb) {
        let mut q = self.queue.lock();
        if q.frames.len() >= TXQ_FRAMES {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        q.bytes += skb.len();
        q.frames.push_back(skb);
    }

    /// Sends what waits; true if nothing is left and the queue runs again.
    fn drain(&self, dev: &dyn NetDevice) -> bool {
        // The lock is held over xmit so that two drains cannot swap frames; the driver's locks come after ours. The
        // queue runs again only when it is empty, else a fresh frame could overtake.
        let mut q = self.queue.lock();
        while let Some(skb) = q.frames.pop_front() {
            let len = skb.len();
            match dev.xmit(skb) {
                Ok(()) => q.bytes -= len,
                Err(skb) => {
                    q.frames.push_front(skb);
                    self.stopped.store(true, Ordering::Release);
                    return false;
                }
            }
        }
        self.stopped.store(false, Ordering::Release);
        true
    }

    fn tell_waiters(&self) {
        let waiters = std::mem::take(&mut *self.waiters.lock());
        for w in waiters {
            w.tx_ready();
        }
    }

    /// The driver has room: sends what waits, then tells the senders that held back.
    pub fn wake(&self, dev: &dyn NetDevice) {
        self.wakes.fetch_add(1, Ordering::AcqRel);
        if self.stopped.load(Ordering::Acquire) && !self.drain(dev) {
            return;
        }
        self.tell_waiters();
    }

    /// Asks to be told when there is room; at once if there is some now.
    pub fn wait(&self, waiter: Arc<dyn TxWaiter>) {
        self.waiters.lock().push(waiter);
        if !self.is_congested() {
            self.tell_waiters();
        }
    }

    /// Drops what waits (device set down).
    pub fn purge(&self) {
        let old = std::mem::take(&mut *self.queue.lock());
        drop(old);
        self.stopped.store(false, Ordering::Release);
        self.tell_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::{DevStats, Features};
    use crate::netns::NetRef;
    use std::sync::atomic::AtomicUsize;

    struct Full {
        room: AtomicUsize,
        sent: Mutex<Vec<u8>>,
    }
    impl NetDevice for Full {
        fn kind(&self) -> &str {
            "t"
        }
        fn attach(&self, _net: NetRef, _ifindex: u32) {}
        fn mac(&self) -> [u8; 6] {
            [0; 6]
        }
        fn mtu(&self) -> u32 {
            1500
        }
        fn features(&self) -> Features {
            Features::empty()
        }
        fn open(&self) -> uapi::Result<()> {
            Ok(())
        }
        fn close(&self) {}
        fn xmit(&self, skb: Skb) -> Result<(), Skb> {
            if self.room.load(Ordering::SeqCst) == 0 {
                return Err(skb);
            }
            self.room.fetch_sub(1, Ordering::SeqCst);
            self.sent.lock().push(skb.data()[0]);
            Ok(())
        }
        fn stats(&self) -> DevStats {
            DevStats::default()
        }
    }

    #[test]
    fn a_full_driver_stops_the_queue_and_order_is_kept() {
        let dev = Full { room: AtomicUsize::new(2), sent: Mutex::new(Vec::new()) };
        let q = TxQueue::default();
        for i in 0..5u8 {
            q.send(&dev, Skb::from_vec(vec![i], 0, 1));
        }
        assert!(q.is_stopped());
        dev.room.store(1, Ordering::SeqCst);
        q.wake(&dev);
        assert!(q.is_stopped());
        dev.room.store(9, Ordering::SeqCst);
        q.wake(&dev);
        assert!(!q.is_stopped());
        q.send(&dev, Skb::from_vec(vec![5], 0, 1));
        assert_eq!(*dev.sent.lock(), vec![0, 1, 2, 3, 4, 5]);
    }
}
