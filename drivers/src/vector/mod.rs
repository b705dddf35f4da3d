//! The vector NIC (`vec0:transport=tap,...`): frames between the stack and a transport of the host, in batches over the
//! ring, super-frames whole.
//!
//! * [`VectorConfig`]: what the command line says. [`Vector`]: the NIC, a `net::NetDevice`.
//! * `transport`: ways to the host, each one file. `rx`, `tx`: the two directions. `napi`: the softirq that polls.
//! * `vnet_hdr`: checksums and segments as virtio says them. `ethtool`: counters.
//!
//! Neighbours: `net` above (by `NetDevice` and `NetRef`), `executor::irq` below.
//! Lock order: `Vector::queues` > the executor's queues; nothing is called back with it held.

mod config;
mod ethtool;
mod napi;
mod rx;
mod transport;
mod tx;
mod vnet_hdr;

pub use config::{Mac, TransportConfig, VectorConfig};
pub use transport::{Header, Transport};

use ethtool::{Counters, add, get};
use executor::irq::{RxConfig, RxSlot, RxStream, TxQueue};
use klib::sync::Mutex;
use net::{DevStats, Features, Napi, NetDevice, NetRef, Skb};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use tx::{Done, TxFrame};
use uapi::{Errno, Result};

/// Most receive slots: more of them do not fit the caches, and frames wait as well in the host.
const MAX_SLOTS: usize = 64;
/// Fewest receive slots.
const MIN_SLOTS: usize = 16;
/// Bytes of an Ethernet header with one VLAN tag.
const LINK_HEADER: usize = 18;

/// The queues of an open NIC.
struct Queues {
    rx: RxStream,
    tx: TxQueue,
    done: Arc<Done>,
}

/// A vector NIC.
pub struct Vector {
    me: Weak<Vector>,
    unit: u32,
    depth: usize,
    transport: Box<dyn Transport>,
    mac: Mutex<Mac>,
    mtu: AtomicU32,
    net: OnceLock<(NetRef, u32)>,
    queues: Mutex<Option<Arc<Queues>>>,
    sched: Arc<napi::Sched>,
    counters: Arc<Counters>,
    carrier: AtomicBool,
    /// Times all slots were in use, of streams that are closed.
    starved: AtomicU64,
    /// Slots taken from the stream, kept so that a poll allocates nothing.
    batch: Mutex<Vec<RxSlot>>,
}

/// A random locally administered address.
fn random_mac() -> std::result::Result<Mac, String> {
    let mut mac = [0u8; 6];
    arch::host::random::fill(&mut mac).map_err(|e| format!("no random bytes from the host: {}", e.text()))?;
    mac[0] = (mac[0] & 0xfc) | 2;
    Ok(mac)
}

impl Vector {
    /// Opens the transport. `Err` is one line for the user. Needs no executor yet: frames flow from
    /// [`open`](NetDevice::open) on, which has to run on a CPU of the executor.
    pub fn new(cfg: &VectorConfig) -> std::result::Result<Arc<Self>, String> {
        let named = |e: String| format!("vec{}: {e}", cfg.unit);
        let transport = transport::open(cfg).map_err(named)?;
        let mac = match cfg.mac {
            Some(m) => m,
            None => random_mac().map_err(named)?,
        };
        log::info!(target: "vector", "vec{}: {}", cfg.unit, transport.describe());
        let sched = Arc::new(napi::Sched::default());
        let this = Arc::new_cyclic(|me: &Weak<Self>| Self {
            me: Weak::clone(me),
            unit: cfg.unit,
            depth: cfg.depth,
            transport,
            mac: Mutex::new(mac),
            mtu: AtomicU32::new(cfg.mtu),
            net: OnceLock::new(),
            queues: Mutex::new(None),
            sched: Arc::clone(&sched),
            counters: Arc::default(),
            carrier: AtomicBool::new(true),
            starved: AtomicU64::new(0),
            batch: Mutex::default(),
        });
        let weak: Weak<dyn Napi> = this.me.clone();
        napi::add(sched, weak);
        Ok(this)
    }

    /// Name of the driver, for ethtool.
    pub const DRIVER: &'static str = "uml-vector";

    fn start(&self) -> Result<Queues> {
        let (fd, kind) = self.transport.rx();
        let slots = self.depth.next_power_of_two().clamp(MIN_SLOTS, MAX_SLOTS);
        let cfg = RxConfig {
            kind,
            slots: u16::try_from(slots).map_err(|_| Errno::EINVAL)?,
            slot_size: rx::SLOT_SIZE,
            headroom: rx::HEADROOM,
        };
        // What arrived while the link was down is not for now.
        let mut old = vec![0u8; rx::SLOT_SIZE];
        let mut left = 4096;
        while left > 0 && fd.poll_now(1).is_ok_and(|ev| ev & 1 != 0) && fd.read(&mut old).is_ok() {
            left -= 1;
        }
        let sched = Arc::clone(&self.sched);
        let rx = RxStream::start(fd, cfg, move || sched.schedule())?;
        let (fd, kind) = self.transport.tx();
        let done = Arc::new(Done::new(Arc::clone(&self.counters), Arc::clone(&self.sched)));
        let tx = TxQueue::new(fd, kind, self.depth, done.clone());
        Ok(Queues { rx, tx, done })
    }

    fn queues(&self) -> Option<Arc<Queues>> {
        self.queues.lock().clone()
    }

    /// Times receiving waited because every slot was in use.
    pub fn rx_starved(&self) -> u64 {
        let now = self.queues().map_or(0, |q| q.rx.starved());
        self.starved.load(Ordering::Relaxed) + now
    }

    /// The stream has ended: the interface on the host is gone.
    fn lost(&self, why: Result<()>) {
        if self.carrier.swap(false, Ordering::AcqRel) {
            let why = why.err().map_or("end of file", Errno::text);
            log::error!(target: "vector", "vec{}: receiving has ended: {why}", self.unit);
            if let Some((net, ifindex)) = self.net.get() {
                net.link_changed(*ifindex);
            }
        }
    }
}

impl Napi for Vector {
    fn poll(&self, budget: usize) -> usize {
        let (Some(q), Some((net, ifindex))) = (self.queues(), self.net.get()) else { return 0 };
        if q.done.wake.swap(false, Ordering::SeqCst) {
            add(&self.counters.tx_restart_queue, 1);
            net.tx_wake(*ifindex);
        }
        let Some(pool) = net.pool() else { return 0 };
        // Only one poll runs at a time (see napi), so the lock is never waited for.
        let mut batch = std::mem::take(&mut *self.batch.lock());
        let n = q.rx.pop_many(&mut batch, budget);
        if n > 0 {
            self.counters.polled(n as u64);
            let frames = batch.drain(..).filter_map(|slot| rx::to_skb(slot, &pool, &self.counters));
            net.rx(*ifindex, frames);
        }
        batch.clear();
        *self.batch.lock() = batch;
        if n < budget
            && let Some(end) = q.rx.ended()
        {
            self.lost(end);
        }
        n
    }
}

impl NetDevice for Vector {
    fn kind(&self) -> &str {
        "vec"
    }

    fn unit(&self) -> Option<u32> {
        Some(self.unit)
    }

    fn attach(&self, net: NetRef, ifindex: u32) {
        // A device is registered once; a second stack would not be served.
        let _ = self.net.set((net, ifindex));
    }

    fn mac(&self) -> Mac {
        *self.mac.lock()
    }

    fn set_mac(&self, mac: Mac) -> Result<()> {
        if self.queues.lock().is_some() {
            return Err(Errno::EBUSY);
        }
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(Errno::EADDRNOTAVAIL);
        }
        *self.mac.lock() = mac;
        Ok(())
    }

    fn mtu(&self) -> u32 {
        self.mtu.load(Ordering::Relaxed)
    }

    fn set_mtu(&self, mtu: u32) -> Result<()> {
        self.mtu.store(mtu, Ordering::Relaxed);
        Ok(())
    }

    fn features(&self) -> Features {
        self.transport.features()
    }

    fn open(&self) -> Result<()> {
        let mut queues = self.queues.lock();
        if queues.is_some() {
            return Ok(());
        }
        napi::register();
        self.counters.link_up();
        self.carrier.store(true, Ordering::Release);
        *queues = Some(Arc::new(self.start()?));
        Ok(())
    }

    fn close(&self) {
        let old = self.queues.lock().take();
        if let Some(q) = &old {
            self.starved.fetch_add(q.rx.starved(), Ordering::Relaxed);
        }
        drop(old);
    }

    fn carrier(&self) -> bool {
        self.carrier.load(Ordering::Acquire)
    }

    fn xmit(&self, skb: Skb) -> std::result::Result<(), Skb> {
        let guard = self.queues.lock();
        let Some(q) = guard.as_ref() else {
            drop(guard);
            add(&self.counters.tx_dropped, 1);
            return Ok(());
        };
        if skb.gso.is_none() && skb.len() > self.mtu() as usize + LINK_HEADER {
            drop(guard);
            add(&self.counters.tx_dropped, 1);
            return Ok(());
        }
        if q.tx.room() == 0 {
            // Either a batch that ends from now on sees the mark, or we see its room.
            q.done.stopped.store(true, Ordering::SeqCst);
            if q.tx.room() == 0 {
                add(&self.counters.tx_flow_control_xoff, 1);
                return Err(skb);
            }
        }
        if q.tx.push(Box::new(TxFrame::new(skb))).is_err() {
            add(&self.counters.tx_dropped, 1);
        }
        Ok(())
    }

    fn flush(&self) {
        let Some(q) = self.queues() else { return };
        add(&self.counters.tx_kicks, 1);
        if q.tx.flush() == Err(Errno::ENXIO) {
            executor::smp::call_on(0, move || {
                let _ = q.tx.flush();
            });
        }
    }

    fn stats(&self) -> DevStats {
        let c = &self.counters;
        DevStats {
            rx_packets: get(&c.rx_packets),
            tx_packets: get(&c.tx_packets),
            rx_bytes: get(&c.rx_bytes),
            tx_bytes: get(&c.tx_bytes),
            rx_errors: get(&c.rx_errors),
            tx_errors: get(&c.tx_errors),
            rx_dropped: 0,
            tx_dropped: get(&c.tx_dropped),
            multicast: get(&c.multicast),
        }
    }

    fn ethtool_stats(&self) -> Vec<(&'static str, u64)> {
        self.counters.stats()
    }

    fn driver_name(&self) -> &'static str {
        Self::DRIVER
    }
}
