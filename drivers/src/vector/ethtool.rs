//! Counters, and what ethtool(8) asks of the NIC. `ethtool -S` shows UML's fourteen names first and in its order, then
//! what we count besides.
//!
//! Reset: frames, bytes, errors and drops count since boot; everything else since the last link-up.

use super::lanes::{MAX_SLOTS, Maker, Queues, round_slots};
use super::transport::Framing;
use super::{Vector, coalesce, link, selftest};
use net::dev::EthtoolOps;
use net::dev::ethtool::{ChannelParams, Coalesce, DriverInfo, LinkSettings, RingParams, SelfTest};
use net::{Features, NetDevice};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use uapi::{Errno, Result};

/// Counters of one NIC. Those of frames and bytes live as long as the device, the others since the last link-up.
#[derive(Default)]
pub struct Counters {
    /// Frames received and delivered.
    pub rx_packets: AtomicU64,
    /// Their bytes.
    pub rx_bytes: AtomicU64,
    /// Frames whose header did not fit them.
    pub rx_errors: AtomicU64,
    /// Frames handed to the host.
    pub tx_packets: AtomicU64,
    /// Their bytes.
    pub tx_bytes: AtomicU64,
    /// Frames the host refused.
    pub tx_errors: AtomicU64,
    /// Frames dropped before they reached the host.
    pub tx_dropped: AtomicU64,
    /// Multicast frames received.
    pub multicast: AtomicU64,
    /// Most frames of one poll.
    pub rx_queue_max: AtomicU64,
    /// Running average of them.
    pub rx_queue_avg: AtomicU64,
    /// Most frames of one batch to the host.
    pub tx_queue_max: AtomicU64,
    /// Running average of them.
    pub tx_queue_avg: AtomicU64,
    /// Headers of a transport that were wrong.
    pub rx_encaps_errors: AtomicU64,
    /// Times a full queue got room again.
    pub tx_restart_queue: AtomicU64,
    /// Times frames were given to the ring.
    pub tx_kicks: AtomicU64,
    /// Times the queue was full.
    pub tx_flow_control_xoff: AtomicU64,
    /// Frames whose checksum the host vouches for.
    pub rx_csum_offload_good: AtomicU64,
    /// Super-frames received, by size.
    pub rx_gso: SizeClasses,
    /// Super-frames sent, by size.
    pub tx_gso: SizeClasses,
    /// Frames dropped before they reached the host, by reason.
    pub tx_drops: [AtomicU64; TX_DROPS.len()],
}

/// Why a frame was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TxDrop {
    /// The link is down.
    Down,
    /// Longer than the MTU allows.
    Long,
    /// Not what it says it is: it cannot be cut or summed up.
    Malformed,
}

/// Names of the reasons' counters, in order.
const TX_DROPS: [&str; 3] = ["tx_drop_down", "tx_drop_long", "tx_drop_malformed"];

/// Upper bounds of the size classes of super-frames, in bytes, and their names.
const CLASSES: [(usize, &str); 4] = [(4096, "4k"), (16384, "16k"), (32768, "32k"), (usize::MAX, "64k")];

/// How many super-frames there were of each size.
#[derive(Default)]
pub struct SizeClasses([AtomicU64; CLASSES.len()]);

impl SizeClasses {
    /// Counts one of `len` bytes.
    pub fn count(&self, len: usize) {
        if let Some(c) = CLASSES.iter().position(|c| len <= c.0).and_then(|i| self.0.get(i)) {
            add(c, 1);
        }
    }

    fn reset(&self) {
        self.0.iter().for_each(|c| c.store(0, Ordering::Relaxed));
    }

    fn stats<'a>(&'a self, dir: &'a str) -> impl Iterator<Item = (String, u64)> + 'a {
        CLASSES.iter().zip(&self.0).map(move |(c, n)| (format!("{dir}_gso_upto_{}", c.1), get(n)))
    }
}

/// Adds to a counter.
pub fn add(c: &AtomicU64, n: u64) {
    c.fetch_add(n, Ordering::Relaxed);
}

/// Reads a counter.
pub fn get(c: &AtomicU64) -> u64 {
    c.load(Ordering::Relaxed)
}

fn sample(max: &AtomicU64, avg: &AtomicU64, n: u64) {
    max.fetch_max(n, Ordering::Relaxed);
    avg.store(u64::midpoint(get(avg), n), Ordering::Relaxed);
}

impl Counters {
    /// A frame was not sent.
    pub fn tx_drop(&self, why: TxDrop) {
        add(&self.tx_dropped, 1);
        if let Some(c) = self.tx_drops.get(why as usize) {
            add(c, 1);
        }
    }

    /// A poll found `n` frames.
    pub fn polled(&self, n: u64) {
        sample(&self.rx_queue_max, &self.rx_queue_avg, n);
    }

    /// A batch of `n` frames went to the host.
    pub fn batch(&self, n: u64) {
        sample(&self.tx_queue_max, &self.tx_queue_avg, n);
    }

    /// Link-up: begins anew with what is counted since then.
    pub fn link_up(&self) {
        for c in [
            &self.rx_queue_max,
            &self.rx_queue_avg,
            &self.tx_queue_max,
            &self.tx_queue_avg,
            &self.rx_encaps_errors,
            &self.tx_restart_queue,
            &self.tx_kicks,
            &self.tx_flow_control_xoff,
        ] {
            c.store(0, Ordering::Relaxed);
        }
        self.rx_gso.reset();
        self.tx_gso.reset();
    }

    /// The names of UML.
    fn stats(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("rx_queue_max", get(&self.rx_queue_max)),
            ("rx_queue_running_average", get(&self.rx_queue_avg)),
            ("tx_queue_max", get(&self.tx_queue_max)),
            ("tx_queue_running_average", get(&self.tx_queue_avg)),
            ("rx_encaps_errors", get(&self.rx_encaps_errors)),
            ("tx_timeout_count", 0),
            ("tx_restart_queue", get(&self.tx_restart_queue)),
            ("tx_kicks", get(&self.tx_kicks)),
            ("tx_flow_control_xon", get(&self.tx_restart_queue)),
            ("tx_flow_control_xoff", get(&self.tx_flow_control_xoff)),
            ("rx_csum_offload_good", get(&self.rx_csum_offload_good)),
            ("rx_csum_offload_errors", 0),
            ("sg_ok", 0),
            ("sg_linearized", 0),
        ]
    }
}

/// Most frames that may wait for the host (`depth=` has the same bound).
const MAX_DEPTH: u32 = 1024;

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Vector {
    /// Other queues in the place of those that are there, while frames flow. If there cannot be any the way is lost for
    /// a moment.
    fn remake(&self, f: impl FnOnce(&Maker<'_>, Arc<Queues>) -> Result<Queues>) -> Result<()> {
        let mut queues = self.queues.lock();
        let Some(old) = queues.take() else { return Ok(()) };
        match self.make(self.slots.load(Ordering::Relaxed), |m| f(m, old)) {
            Ok(new) => *queues = Some(Arc::new(new)),
            Err(e) => {
                drop(queues);
                self.lost(None, Err(e));
                return Err(e);
            }
        }
        Ok(())
    }
}

impl EthtoolOps for Vector {
    fn driver_info(&self) -> DriverInfo {
        DriverInfo {
            driver: Self::DRIVER,
            version: env!("CARGO_PKG_VERSION").into(),
            bus: self.transport.name().into(),
            ..DriverInfo::default()
        }
    }

    fn perm_addr(&self) -> [u8; 6] {
        self.perm_mac
    }

    fn stats(&self) -> Vec<(Cow<'static, str>, u64)> {
        let c = &self.counters;
        let mut all: Vec<(Cow<'static, str>, u64)> =
            c.stats().into_iter().map(|(n, v)| (n.into(), v)).collect();
        let mut own = |name: String, v: u64| all.push((name.into(), v));
        match self.queues() {
            Some(q) => q.stats(&mut own),
            // The names stay, whether the link is up or not.
            None => Queues::names(&*self.transport).for_each(|n| own(n, 0)),
        }
        c.rx_gso.stats("rx").chain(c.tx_gso.stats("tx")).for_each(|(n, v)| own(n, v));
        own("rx_ring_starved".into(), self.rx_starved());
        own("tx_ring_retried".into(), self.queues().map_or(0, |q| q.retried()));
        own("pcap_lost".into(), self.pcap.as_ref().map_or(0, super::pcap::Pcap::lost));
        let cpus = || (0..executor::nr_cpus()).filter_map(executor::stats::cpu);
        own("host_calls".into(), cpus().map(|c| c.enters).sum());
        own("host_waits".into(), cpus().map(|c| c.waits).sum());
        self.drops.stats().for_each(|(n, v)| own(n.into(), v));
        TX_DROPS.iter().zip(&c.tx_drops).for_each(|(n, v)| own((*n).into(), get(v)));
        own("tx_errors".into(), get(&c.tx_errors));
        all
    }

    fn rings(&self) -> Result<RingParams> {
        Ok(RingParams {
            rx_max: number(MAX_SLOTS),
            tx_max: MAX_DEPTH,
            rx: number(self.slots.load(Ordering::Relaxed)),
            tx: number(self.depth.load(Ordering::Relaxed)),
        })
    }

    fn set_rings(&self, p: &RingParams) -> Result<()> {
        let slots = round_slots(p.rx as usize);
        if slots != self.slots.load(Ordering::Relaxed) {
            if self.transport.framing() == Framing::Stream {
                return Err(Errno::EOPNOTSUPP);
            }
            self.slots.store(slots, Ordering::Relaxed);
            self.remake(|m, old| {
                self.starved.fetch_add(old.starved(), Ordering::Relaxed);
                m.slots(old)
            })?;
        }
        self.depth.store((p.tx.min(MAX_DEPTH)) as usize, Ordering::Relaxed);
        Ok(())
    }

    fn coalesce(&self) -> Result<Coalesce> {
        Ok(coalesce::get(&self.rx_wait, &self.tx_wait))
    }

    fn set_coalesce(&self, c: &Coalesce) -> Result<()> {
        coalesce::set(&self.rx_wait, &self.tx_wait, c)
    }

    fn channels(&self) -> Result<ChannelParams> {
        let (n, max) = (number(self.transport.lanes().len()), number(self.transport.max_lanes()));
        Ok(ChannelParams { combined_max: max.max(n), combined: n, ..ChannelParams::default() })
    }

    fn set_channels(&self, p: &ChannelParams) -> Result<()> {
        let n = p.combined as usize;
        if n == self.transport.lanes().len() {
            return Ok(());
        }
        let set = self.transport.set_lanes(n);
        // As many as there are now, even if that is not what was asked for.
        self.remake(|m, old| {
            let starved = old.starved();
            let new = m.lanes(old)?;
            self.starved.fetch_add(starved.saturating_sub(new.starved()), Ordering::Relaxed);
            Ok(new)
        })?;
        set
    }

    fn link_settings(&self) -> Result<LinkSettings> {
        Ok(link::settings(self.transport.host_ifname()))
    }

    fn msglevel(&self) -> Result<u32> {
        Ok(self.msglevel.load(Ordering::Relaxed))
    }

    fn set_msglevel(&self, level: u32) -> Result<()> {
        self.msglevel.store(level, Ordering::Relaxed);
        Ok(())
    }

    fn self_test_names(&self) -> Vec<&'static str> {
        selftest::NAMES.to_vec()
    }

    fn self_test(&self, _offline: bool) -> Result<Vec<SelfTest>> {
        let [encap, csum, cut] =
            selftest::run(&*self.transport, self.transport.offload().contains(Features::HW_CSUM));
        let results = [encap, csum, cut, u64::from(!self.carrier())];
        Ok(selftest::NAMES
            .iter()
            .zip(results)
            .map(|(n, result)| SelfTest { name: (*n).into(), result })
            .collect())
    }

    fn flash_allowed(&self) -> Result<()> {
        if self.bpfflash { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// The bytes are a classic BPF program for the receiving socket; a wrong one leaves the old one in force.
    fn flash(&self, image: &[u8]) -> Result<()> {
        let program = arch::host::packet::decode(image)?;
        self.transport.set_filter(Some(&program))
    }
}
