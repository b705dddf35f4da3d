//! The vector NIC (`vec0:transport=tap,...`): frames between the stack and a transport of the host, in batches over the
//! ring, super-frames whole.
//!
//! * [`VectorConfig`]: what the command line says. [`Vector`]: the NIC, a `net::NetDevice`.
//! * `options`: keys and their types. `transport`: ways to the host, each one file. `header`: what stands in front of frames.
//! * `lanes`: the queues, `poll`: what the softirq does with one. `rx`, `tx`: the two directions. `stream`: frames in a byte stream. `napi`: the softirq that polls. `pcap`: copies on the side.
//! * `recover`: what follows when the interface or the peer on the host goes away.
//! * `vnet_hdr`: checksums and segments as virtio says them. `ethtool`: counters and knobs; `coalesce`, `selftest` and
//!   `link` (carrier and speed of the host's interface) belong to it.
//!
//! Neighbours: `net` above (by `NetDevice` and `NetRef`), `executor::irq` below.
//! Lock order: `Vector::queues` > the executor's queues; nothing is called back with it held.

mod coalesce;
mod config;
pub mod encap;
mod ethtool;
mod header;
mod lanes;
mod link;
mod napi;
mod options;
mod pcap;
mod poll;
mod recover;
mod rx;
mod selftest;
mod stream;
mod transport;
mod tx;
mod vnet_hdr;

pub use config::{COMMON, Mac, VectorConfig};
pub use header::{Bare, DropReason, ETH_HLEN, Header, Outgoing, Stripped};
pub use options::{DF, IFNAME, IFUP, Key, Options, QUEUES, TOS, TTL, Type};
pub use stream::LengthPrefix;
pub use transport::{Again, Framing, KINDS, Kind, Lane, Limit, Plan, RxEnd, Setup, Train, Transport, TxEnd};

use coalesce::Direction;
use ethtool::{Counters, TxDrop, add, get};
use header::Drops;
use klib::sync::Mutex;
use lanes::{Maker, Notify, Queues};
use net::{DevStats, Features, NetDevice, NetRef, Skb};
use poll::QueuePoll;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use tx::Done;
use uapi::{Errno, Result};

/// Bytes of an Ethernet header with one VLAN tag.
const LINK_HEADER: usize = 18;

/// A vector NIC.
pub struct Vector {
    me: Weak<Vector>,
    unit: u32,
    /// Frames that may wait for the host, and receive slots.
    depth: Arc<AtomicUsize>,
    slots: AtomicUsize,
    transport: Arc<dyn Transport>,
    mac: Mutex<Mac>,
    /// As configured; zeros if it was drawn.
    perm_mac: Mac,
    mtu: AtomicU32,
    net: OnceLock<(NetRef, u32)>,
    /// Set while the link is up; a transport on a stream keeps them, since it cannot skip what arrives meanwhile.
    queues: Mutex<Option<Arc<Queues>>>,
    up: AtomicBool,
    /// What is switched on, of what the driver can do.
    features: AtomicU32,
    /// One a queue that there can be, at least one.
    polls: Vec<Arc<QueuePoll>>,
    counters: Arc<Counters>,
    carrier: AtomicBool,
    /// Times all slots were in use, of streams that are closed.
    starved: AtomicU64,
    drops: Drops,
    rx_wait: Arc<Direction>,
    tx_wait: Direction,
    link: link::HostLink,
    recovery: recover::Recovery,
    /// `ethtool -f` may replace the program of the receiving socket.
    bpfflash: bool,
    /// NETIF_MSG_*: kept to be read back.
    msglevel: AtomicU32,
    pcap: Option<pcap::Pcap>,
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

/// At the end of a wait for received frames they are looked at, in all queues.
fn rx_timer(polls: &[Arc<QueuePoll>]) -> Arc<Direction> {
    let scheds: Vec<_> = polls.iter().map(|p| Arc::clone(&p.sched)).collect();
    Arc::new_cyclic(|me: &Weak<Direction>| {
        let me = Weak::clone(me);
        Direction::new(move || {
            if let Some(d) = me.upgrade() {
                d.fired();
            }
            scheds.iter().for_each(|s| s.schedule());
        })
    })
}

/// At the end of a wait frames leave.
fn tx_timer(vector: Weak<Vector>) -> Direction {
    Direction::new(move || {
        if let Some(v) = vector.upgrade() {
            v.tx_wait.fired();
            v.flush_now();
        }
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
        let setup =
            Setup { unit: cfg.unit, mac, depth: cfg.depth, mtu: cfg.mtu, gro: cfg.gro, cpus: cfg.cpus };
        let transport: Arc<dyn Transport> = cfg.plan.open(&setup).map_err(named)?.into();
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
        let pcap = cfg.pcap.as_deref().map(pcap::Pcap::open).transpose().map_err(named)?;
        log::info!(target: "vector", "vec{}: {}", cfg.unit, transport.describe());
        let mut features = Features::all();
        // Where the host merges, the stack may as well; and where it never does, somebody has to.
        let merge = transport.merges() || transport.offload().contains(Features::LRO);
        features.set(Features::GRO, cfg.gro || merge);
        Ok(Arc::new_cyclic(|me: &Weak<Self>| {
            let polls = QueuePoll::all(me, transport.max_lanes());
            Self {
                me: Weak::clone(me),
                unit: cfg.unit,
                depth: Arc::new(AtomicUsize::new(cfg.depth)),
                slots: AtomicUsize::new(lanes::default_slots(cfg.depth)),
                transport,
                mac: Mutex::new(mac),
                perm_mac: cfg.mac.unwrap_or_default(),
                mtu: AtomicU32::new(cfg.mtu),
                net: OnceLock::new(),
                queues: Mutex::new(None),
                up: AtomicBool::new(false),
                features: AtomicU32::new(features.bits()),
                drops: Drops::default(),
                rx_wait: rx_timer(&polls),
                tx_wait: tx_timer(Weak::clone(me)),
                link: link::HostLink::default(),
                recovery: recover::Recovery::default(),
                bpfflash: cfg.bpfflash,
                msglevel: AtomicU32::new(0),
                pcap,
                polls,
                counters: Arc::default(),
                carrier: AtomicBool::new(true),
                starved: AtomicU64::new(0),
            }
        }))
    }

    /// What was opened, as the boot log says it.
    pub fn about(&self) -> String {
        self.transport.describe()
    }

    /// Name of the driver, for ethtool.
    pub const DRIVER: &'static str = "uml-vector";

    fn start(&self) -> Result<Queues> {
        let sched = self.polls.first().map(|p| Arc::clone(&p.sched)).unwrap_or_default();
        let done = Arc::new(Done::new(Arc::clone(&self.counters), sched));
        self.make(self.slots.load(Ordering::Relaxed), |m| m.start(done))
    }

    /// Makes queues with so many receive slots.
    fn make(&self, slots: usize, f: impl FnOnce(&Maker<'_>) -> Result<Queues>) -> Result<Queues> {
        let notify = |queue| self.notify(queue, slots);
        f(&Maker { transport: &*self.transport, slots, depth: &self.depth, notify: &notify })
    }

    /// Asks for a look at the first queue, the link and the end of things.
    fn schedule(&self) {
        if let Some(p) = self.polls.first() {
            p.sched.schedule();
        }
    }

    /// What is done, as an interrupt, for each message that a queue receives, and on which CPU it does.
    fn notify(&self, queue: usize, slots: usize) -> (Notify, Option<usize>) {
        let sched = self.polls.get(queue).map(|p| Arc::clone(&p.sched)).unwrap_or_default();
        let (wait, cpu) = (Arc::clone(&self.rx_wait), sched.home());
        // A ring whose slots are all full receives nothing: half of them never wait.
        let bound = u32::try_from(slots / 2).unwrap_or(1);
        let notify = move || {
            wait.more();
            if wait.is_due(bound) {
                sched.schedule();
            }
        };
        (Arc::new(notify), cpu)
    }

    /// Frames leave now.
    fn flush_now(&self) {
        let Some(q) = self.queues() else { return };
        add(&self.counters.tx_kicks, 1);
        if q.flush() == Err(Errno::ENXIO) {
            executor::smp::call_on(0, move || {
                let _ = q.flush();
            });
        }
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

    fn gso_max_size(&self) -> u32 {
        self.transport.gso_max(self.mtu())
    }

    fn open(&self) -> Result<()> {
        let mut queues = self.queues.lock();
        if self.up.load(Ordering::Acquire) {
            return Ok(());
        }
        napi::register();
        self.counters.link_up();
        // A way that is lost gets its queues when it is back.
        if queues.is_none() && !self.recovery.is_busy() {
            *queues = Some(Arc::new(self.start()?));
            self.carrier.store(true, Ordering::Release);
        }
        self.up.store(true, Ordering::Release);
        drop(queues);
        if self.transport.host_ifname().is_some() {
            let me = Weak::clone(&self.me);
            self.link.start(move || {
                if let Some(v) = me.upgrade() {
                    v.schedule();
                }
            });
            if self.link.ask() {
                self.follow_link();
            }
        }
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

    fn merges(&self) -> bool {
        self.transport.merges()
    }

    fn xmit(&self, skb: Skb) -> std::result::Result<(), Skb> {
        // Not locked meanwhile: several CPUs send at once, each by its flow's queue.
        let queues = self.queues();
        let dropped = |why| {
            self.counters.tx_drop(why);
            Ok(())
        };
        let up = self.up.load(Ordering::Acquire);
        let Some(q) = queues.filter(|_| up) else { return dropped(TxDrop::Down) };
        if skb.gso.is_none() && skb.len() > self.mtu() as usize + LINK_HEADER {
            return dropped(TxDrop::Long);
        }
        let Some(lane) = q.choose(skb.data()) else { return dropped(TxDrop::Down) };
        if lane.is_full() {
            // Either a batch that ends from now on sees the mark, or we see its room.
            q.done.stopped.store(true, Ordering::SeqCst);
            if lane.is_full() {
                add(&self.counters.tx_flow_control_xoff, 1);
                return Err(skb);
            }
        }
        if skb.gso.is_some() {
            self.counters.tx_gso.count(skb.len());
        }
        self.tx_wait.more();
        if let Some(p) = &self.pcap {
            p.frame(skb.data());
        }
        let pool = || self.net.get().and_then(|(net, _)| net.pool());
        if !lane.send(skb, pool) {
            return dropped(TxDrop::Malformed);
        }
        Ok(())
    }

    fn flush(&self) {
        // Whoever was refused a frame waits for room, so nothing else waits.
        let full = self.queues().is_some_and(|q| q.done.stopped.load(Ordering::SeqCst));
        let bound = if full { 0 } else { u32::MAX };
        if self.tx_wait.is_due(bound) {
            self.flush_now();
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
}
