//! Counters, and the fourteen of them that `ethtool -S` shows in UML's names and order.

use super::Vector;
use net::dev::EthtoolOps;
use net::dev::ethtool::DriverInfo;
use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

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
    }

    /// `ethtool -S`.
    pub fn stats(&self) -> Vec<(&'static str, u64)> {
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

impl EthtoolOps for Vector {
    fn driver_info(&self) -> DriverInfo {
        DriverInfo {
            driver: Self::DRIVER,
            version: env!("CARGO_PKG_VERSION").into(),
            ..DriverInfo::default()
        }
    }

    fn stats(&self) -> Vec<(Cow<'static, str>, u64)> {
        self.counters.stats().into_iter().map(|(n, v)| (n.into(), v)).collect()
    }
}
