//! A network namespace: all devices, addresses, routes, sockets of one stack.

use crate::dev::{Dev, DevTable, NetDevice};
use crate::skb::{Skb, SkbPool};
use klib::ktime::Ktime;
use std::sync::{Arc, Weak};
use uapi::Result;

/// What the stack needs from whoever runs it.
pub trait NetHost: Send + Sync {
    /// CLOCK_MONOTONIC now.
    fn now(&self) -> Ktime;
    /// Wall-clock nanoseconds since 1970 (time stamps of packets).
    fn realtime_ns(&self) -> u64 {
        0
    }
    /// Fills `out` with random bytes that cannot be foretold.
    fn random(&self, out: &mut [u8]);
    /// There is work that nobody is doing: call [`Net::run_softirq`] soon, with no lock held.
    fn raise_softirq(&self);
    /// [`Net::next_timer`] has become earlier: `at`.
    fn timer_armed(&self, at: Ktime);
}

/// One network stack. Everything hangs off it; every method may be called from any CPU.
pub struct Net {
    /// Back to itself.
    me: Weak<Net>,
    pub(crate) host: Arc<dyn NetHost>,
    pub(crate) pool: Arc<SkbPool>,
    /// The devices.
    pub devs: DevTable,
}

/// A driver's way back into the stack; holds nothing alive.
#[derive(Clone)]
pub struct NetRef(Weak<Net>);

impl NetRef {
    /// As [`Net::rx`]; frames are dropped if the stack is gone.
    pub fn rx(&self, ifindex: u32, frames: impl Iterator<Item = Skb>) {
        if let Some(net) = self.0.upgrade() {
            net.rx(ifindex, frames);
        }
    }

    /// As [`Net::tx_wake`].
    pub fn tx_wake(&self, ifindex: u32) {
        if let Some(net) = self.0.upgrade() {
            net.tx_wake(ifindex);
        }
    }

    /// The device's carrier or features changed: tells whoever listens.
    pub fn link_changed(&self, ifindex: u32) {
        if let Some(net) = self.0.upgrade() {
            net.link_changed(ifindex);
        }
    }

    /// The pool for frames that the driver makes itself.
    pub fn pool(&self) -> Option<Arc<SkbPool>> {
        self.0.upgrade().map(|n| Arc::clone(&n.pool))
    }
}

impl Net {
    /// A namespace with its loopback device (down).
    pub fn new(host: Arc<dyn NetHost>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self { me: me.clone(), host, pool: SkbPool::new(), devs: DevTable::default() })
    }

    /// The namespace's packet buffers.
    pub fn pool(&self) -> &Arc<SkbPool> {
        &self.pool
    }

    /// Registers a device, which is down at first.
    pub fn register(&self, drv: Arc<dyn NetDevice>) -> Result<Arc<Dev>> {
        let dev = self.devs.register(drv)?;
        dev.drv.attach(NetRef(self.me.clone()), dev.ifindex);
        Ok(dev)
    }

    /// Takes received frames of a device, Ethernet header first, in the order of their arrival. Called from the
    /// driver's softirq with no lock held; answers and acknowledgements are handed to drivers before it returns.
    pub fn rx(&self, _ifindex: u32, frames: impl Iterator<Item = Skb>) {
        frames.for_each(drop);
    }

    /// The driver has room for frames again after it refused one.
    pub fn tx_wake(&self, ifindex: u32) {
        if let Some(dev) = self.devs.get(ifindex) {
            dev.txq.wake(&*dev.drv);
        }
    }

    /// A device's carrier or features changed.
    pub fn link_changed(&self, _ifindex: u32) {}
}
