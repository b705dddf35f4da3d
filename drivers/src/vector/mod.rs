//! The vector NIC (`vec0:transport=tap,...`): frames between the stack and a transport of the host, in batches over the
//! ring, super-frames whole.
//!
//! * [`VectorConfig`]: what the command line says. [`Vector`]: the NIC, a `net::NetDevice`.
//! * `options`: keys and their types. `transport`: ways to the host, each one file. `header`: what stands in front of frames.
//! * `lanes`: the queues. `rx`, `tx`: the two directions. `stream`: frames in a byte stream. `napi`: the softirq that polls.
//! * `vnet_hdr`: checksums and segments as virtio says them. `ethtool`: counters.
//!
//! Neighbours: `net` above (by `NetDevice` and `NetRef`), `executor::irq` below.
//! Lock order: `Vector::queues` > the executor's queues; nothing is called back with it held.

mod config;
pub mod encap;
mod ethtool;
mod header;
mod lanes;
mod napi;
mod options;
mod rx;
mod stream;
mod transport;
mod tx;
mod vnet_hdr;

pub use config::{COMMON, Mac, VectorConfig};
pub use header::{Bare, DropReason, ETH_HLEN, Header, Outgoing, Stripped};
pub use options::{DF, IFNAME, IFUP, Key, Options, QUEUES, TOS, TTL, Type};
pub use stream::LengthPrefix;
pub use transport::{Framing, KINDS, Kind, Lane, Plan, RxEnd, Setup, Train, Transport, TxEnd};

use ethtool::{Counters, add, get};
use executor::irq::RxSlot;
use header::Drops;
use klib::sync::Mutex;
use lanes::{End, Queues};
use net::{DevStats, Features, Napi, NetDevice, NetRef, Skb};
use rx::Poll;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use tx::Done;
use uapi::{Errno, Result};

/// Bytes of an Ethernet header with one VLAN tag.
const LINK_HEADER: usize = 18;

/// A vector NIC.
pub struct Vector {
    me: Weak<Vector>,
    unit: u32,
    depth: usize,
    transport: Box<dyn Transport>,
    mac: Mutex<Mac>,
    mtu: AtomicU32,
    net: OnceLock<(NetRef, u32)>,
    /// Set while the link is up; a transport on a stream keeps them, since it cannot skip what arrives meanwhile.
    queues: Mutex<Option<Arc<Queues>>>,
    up: AtomicBool,
    /// What is switched on, of what the driver can do.
    features: AtomicU32,
    sched: Arc<napi::Sched>,
    counters: Arc<Counters>,
    carrier: AtomicBool,
    /// Times all slots were in use, of streams that are closed.
    starved: AtomicU64,
    drops: Drops,
    /// Slots and frames of a poll, kept so that it allocates nothing.
    batch: Mutex<(Vec<RxSlot>, Vec<Skb>)>,
}

/// A random locally administered address.
fn random_mac() -> std::result::Result<Mac, String> {
    let mut mac = [0u8; 6];
    arch::host::random::fill(&mut mac).map_err(|e| format!("no random bytes from the host: {}", e.text()))?;
    mac[0] = (mac[0] & 0xfc) | 2;
    Ok(mac)
}

/// Attaches the program of `bpffile=`.
fn load_filter(transport: &dyn Transport, path: &str) -> std::result::Result<(), String> {
    let bytes = std::fs::read(path).map_err(|e| {
        let why = Errno::from_raw(e.raw_os_error().unwrap_or(Errno::EIO.raw()));
        format!("bpffile={path}: cannot read it: {}; expected a file of the host", why.text())
    })?;
    let program = arch::host::packet::decode(&bytes).map_err(|_| {
        format!("bpffile={path}: not a classic BPF program; expected 1 to 4096 instructions of 8 bytes")
    })?;
    transport.set_filter(Some(&program)).map_err(|e| match e {
        Errno::EOPNOTSUPP => {
            format!("bpffile={path}: transport={} has no socket to filter", transport.name())
        }
        e => format!("bpffile={path}: the host does not take the program: {}", e.text()),
    })
}

impl Vector {
    /// Opens the transport. `Err` is one line for the user. Needs no executor yet: frames flow from
    /// [`open`](NetDevice::open) on, which has to run on a CPU of the executor.
    pub fn new(cfg: &VectorConfig) -> std::result::Result<Arc<Self>, String> {
        let named = |e: String| format!("vec{}: {e}", cfg.unit);
        let mac = match cfg.mac {
            Some(m) => m,
            None => random_mac().map_err(named)?,
        };
        let setup = Setup { unit: cfg.unit, mac, depth: cfg.depth, mtu: cfg.mtu, gro: cfg.gro };
        let transport = cfg.plan.open(&setup).map_err(named)?;
        if cfg.mtu > transport.max_mtu() {
            let max = transport.max_mtu();
            return Err(named(format!(
                "mtu={}: transport={} carries at most {max}",
                cfg.mtu,
                transport.name()
            )));
        }
        if let Some(path) = &cfg.bpffile {
            load_filter(&*transport, path).map_err(named)?;
        }
        log::info!(target: "vector", "vec{}: {}", cfg.unit, transport.describe());
        let mut features = Features::all();
        // Where the host merges, the stack may as well.
        features.set(Features::GRO, cfg.gro || transport.offload().contains(Features::LRO));
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
            up: AtomicBool::new(false),
            features: AtomicU32::new(features.bits()),
            drops: Drops::default(),
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
        let done = Arc::new(Done::new(Arc::clone(&self.counters), Arc::clone(&self.sched)));
        let sched = Arc::clone(&self.sched);
        Queues::start(&*self.transport, self.depth, done, move || sched.schedule())
    }

    fn queues(&self) -> Option<Arc<Queues>> {
        self.queues.lock().clone()
    }

    /// Times receiving waited because every slot was in use.
    pub fn rx_starved(&self) -> u64 {
        let now = self.queues().map_or(0, |q| q.starved());
        self.starved.load(Ordering::Relaxed) + now
    }

    fn set_carrier(&self, on: bool) -> bool {
        let changed = self.carrier.swap(on, Ordering::AcqRel) != on;
        if changed && let Some((net, ifindex)) = self.net.get() {
            net.link_changed(*ifindex);
        }
        changed
    }

    /// Receiving has stopped: the interface on the host is gone, or down for a while.
    fn lost(&self, end: End) {
        if !self.set_carrier(false) {
            return;
        }
        match end {
            End::Down => log::warn!(target: "vector", "vec{}: the interface on the host is down", self.unit),
            End::Gone(why) => {
                let why = why.err().map_or("end of file", Errno::text);
                log::error!(target: "vector", "vec{}: receiving has ended: {why}", self.unit);
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
        let (mut slots, mut frames) = std::mem::take(&mut *self.batch.lock());
        let mut poll = Poll { pool: &pool, counters: &self.counters, drops: &self.drops, out: &mut frames };
        let n = q.poll(&mut slots, budget, &mut poll);
        if n > 0 {
            self.counters.polled(n as u64);
            if !self.carrier.load(Ordering::Acquire) && !frames.is_empty() {
                self.set_carrier(true);
            }
            if self.up.load(Ordering::Acquire) {
                net.rx(*ifindex, frames.drain(..));
            }
        }
        slots.clear();
        frames.clear();
        *self.batch.lock() = (slots, frames);
        if n < budget
            && let Some(end) = q.end()
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
        if self.up.load(Ordering::Acquire) {
            return Err(Errno::EBUSY);
        }
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(Errno::EADDRNOTAVAIL);
        }
        self.transport.set_mac(mac)?;
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

    fn max_mtu(&self) -> u32 {
        self.transport.max_mtu()
    }

    fn features(&self) -> Features {
        self.hw_features() & Features::from_bits_truncate(self.features.load(Ordering::Relaxed))
    }

    fn hw_features(&self) -> Features {
        let soft = Features::SG
            | Features::GRO
            | Features::HW_CSUM
            | Features::TSO4
            | Features::TSO6
            | Features::USO;
        // The driver cuts and sums for hosts that do not.
        self.transport.offload() | soft
    }

    fn set_features(&self, wanted: Features) -> Features {
        self.features.store(wanted.bits(), Ordering::Relaxed);
        self.transport.set_offload(self.features());
        self.features()
    }

    fn open(&self) -> Result<()> {
        let mut queues = self.queues.lock();
        if self.up.load(Ordering::Acquire) {
            return Ok(());
        }
        napi::register();
        self.counters.link_up();
        if queues.is_none() {
            *queues = Some(Arc::new(self.start()?));
            self.carrier.store(true, Ordering::Release);
        }
        self.up.store(true, Ordering::Release);
        Ok(())
    }

    fn close(&self) {
        self.up.store(false, Ordering::Release);
        if self.transport.framing() == Framing::Stream {
            return;
        }
        let old = self.queues.lock().take();
        if let Some(q) = &old {
            self.starved.fetch_add(q.starved(), Ordering::Relaxed);
        }
        drop(old);
    }

    fn carrier(&self) -> bool {
        self.carrier.load(Ordering::Acquire)
    }

    fn xmit(&self, skb: Skb) -> std::result::Result<(), Skb> {
        let guard = self.queues.lock();
        let dropped = || {
            add(&self.counters.tx_dropped, 1);
            Ok(())
        };
        let Some(q) = guard.as_ref().filter(|_| self.up.load(Ordering::Acquire)) else { return dropped() };
        if skb.gso.is_none() && skb.len() > self.mtu() as usize + LINK_HEADER {
            return dropped();
        }
        let Some(lane) = q.choose(skb.data()) else { return dropped() };
        if lane.is_full() {
            // Either a batch that ends from now on sees the mark, or we see its room.
            q.done.stopped.store(true, Ordering::SeqCst);
            if lane.is_full() {
                add(&self.counters.tx_flow_control_xoff, 1);
                return Err(skb);
            }
        }
        let pool = || self.net.get().and_then(|(net, _)| net.pool());
        if !lane.send(skb, pool) {
            return dropped();
        }
        Ok(())
    }

    fn flush(&self) {
        let Some(q) = self.queues() else { return };
        add(&self.counters.tx_kicks, 1);
        if q.flush() == Err(Errno::ENXIO) {
            executor::smp::call_on(0, move || {
                let _ = q.flush();
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

    fn ethtool(&self) -> &dyn net::dev::EthtoolOps {
        self
    }

    fn ethtool_stats(&self) -> Vec<(&'static str, u64)> {
        let mut all = self.counters.stats();
        all.extend(self.drops.stats());
        all
    }

    fn driver_name(&self) -> &'static str {
        Self::DRIVER
    }
}
