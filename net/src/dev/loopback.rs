//! `lo`: frames go out and come in again, super-frames whole and checksums unfinished.

use super::netdevice::{DevStats, Features, NetDevice};
use crate::netns::NetRef;
use crate::skb::Skb;
use klib::sync::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use uapi::{Errno, Result};

/// Frames that may wait in the loopback; more are dropped (Linux: `netdev_max_backlog`).
const MAX_BACKLOG: usize = 4096;

/// A frame keeps its memory, so nothing has to be cut or summed up.
const FIXED: Features = Features::SG.union(Features::HW_CSUM).union(Features::RXCSUM);
const SWITCHED: Features = Features::GRO.union(Features::TSO4).union(Features::TSO6).union(Features::USO);

/// The loopback device. Frames are taken out again by [`Net::run_loopback`](crate::Net) with no lock held.
#[derive(Default)]
pub struct Loopback {
    queue: Mutex<VecDeque<Skb>>,
    mtu: AtomicU32,
    packets: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    switched: AtomicU32,
}

impl Loopback {
    /// The device as it is at boot.
    pub fn new() -> Self {
        Self { mtu: AtomicU32::new(65536), switched: AtomicU32::new(SWITCHED.bits()), ..Self::default() }
    }

    pub(crate) fn take(&self, into: &mut Vec<Skb>, max: usize) {
        let mut q = self.queue.lock();
        let n = q.len().min(max);
        into.extend(q.drain(..n));
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.queue.lock().is_empty()
    }
}

impl NetDevice for Loopback {
    fn kind(&self) -> &str {
        "lo"
    }
    fn attach(&self, _net: NetRef, _ifindex: u32) {}
    fn mac(&self) -> [u8; 6] {
        [0; 6]
    }
    fn mtu(&self) -> u32 {
        self.mtu.load(Ordering::Relaxed)
    }
    fn set_mtu(&self, mtu: u32) -> Result<()> {
        if mtu > 65536 {
            return Err(Errno::EINVAL);
        }
        self.mtu.store(mtu, Ordering::Relaxed);
        Ok(())
    }
    fn max_mtu(&self) -> u32 {
        65536
    }
    fn features(&self) -> Features {
        FIXED | Features::from_bits_truncate(self.switched.load(Ordering::Relaxed))
    }
    fn hw_features(&self) -> Features {
        SWITCHED
    }
    fn set_features(&self, wanted: Features) -> Features {
        self.switched.store((wanted & SWITCHED).bits(), Ordering::Relaxed);
        self.features()
    }
    fn open(&self) -> Result<()> {
        Ok(())
    }
    fn close(&self) {
        self.queue.lock().clear();
    }
    fn xmit(&self, skb: Skb) -> Result<(), Skb> {
        let len = skb.len() as u64;
        let mut q = self.queue.lock();
        if q.len() >= MAX_BACKLOG {
            drop(q);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        q.push_back(skb);
        drop(q);
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }
    fn stats(&self) -> DevStats {
        let (p, b) = (self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        DevStats {
            rx_packets: p,
            tx_packets: p,
            rx_bytes: b,
            tx_bytes: b,
            rx_dropped: self.dropped.load(Ordering::Relaxed),
            ..DevStats::default()
        }
    }
    fn arp_type(&self) -> u16 {
        772
    }
}
