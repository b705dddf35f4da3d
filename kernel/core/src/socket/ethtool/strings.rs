//! Names that ethtool shows (net/ethtool/common.c of Linux has the same sets), and the sets of a device.

use net::dev::Dev;
use std::borrow::Cow;

/// `ETH_SS_*`: sets of strings.
pub mod set {
    /// Tests of the device.
    pub const TEST: u32 = 0;
    /// Statistics of the device.
    pub const STATS: u32 = 1;
    /// Offloads.
    pub const FEATURES: u32 = 4;
    /// Classes of messages.
    pub const MSG_CLASSES: u32 = 10;
    /// SOF_TIMESTAMPING_*.
    pub const SOF_TIMESTAMPING: u32 = 12;
    /// HWTSTAMP_TX_*.
    pub const TS_TX_TYPES: u32 = 13;
    /// HWTSTAMP_FILTER_*.
    pub const TS_RX_FILTERS: u32 = 14;
}

/// Offloads by their bit (NETIF_F_*_BIT of Linux 6.12).
pub const FEATURES: [&str; 64] = [
    "tx-scatter-gather",
    "tx-checksum-ipv4",
    "",
    "tx-checksum-ip-generic",
    "tx-checksum-ipv6",
    "highdma",
    "tx-scatter-gather-fraglist",
    "tx-vlan-hw-insert",
    "rx-vlan-hw-parse",
    "rx-vlan-filter",
    "vlan-challenged",
    "tx-generic-segmentation",
    "tx-lockless",
    "netns-local",
    "rx-gro",
    "rx-lro",
    "tx-tcp-segmentation",
    "tx-gso-robust",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation",
    "tx-fcoe-segmentation",
    "tx-gre-segmentation",
    "tx-gre-csum-segmentation",
    "tx-ipxip4-segmentation",
    "tx-ipxip6-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-gso-partial",
    "tx-tunnel-remcsum-segmentation",
    "tx-sctp-segmentation",
    "tx-esp-segmentation",
    "",
    "tx-udp-segmentation",
    "tx-gso-list",
    "tx-checksum-fcoe-crc",
    "tx-checksum-sctp",
    "fcoe-mtu",
    "rx-ntuple-filter",
    "rx-hashing",
    "rx-checksum",
    "tx-nocache-copy",
    "loopback",
    "rx-fcs",
    "rx-all",
    "tx-vlan-stag-hw-insert",
    "rx-vlan-stag-hw-parse",
    "rx-vlan-stag-filter",
    "l2-fwd-offload",
    "hw-tc-offload",
    "esp-hw-offload",
    "esp-tx-csum-hw-offload",
    "rx-udp_tunnel-port-offload",
    "tls-hw-tx-offload",
    "tls-hw-rx-offload",
    "rx-gro-hw",
    "tls-hw-record",
    "rx-gro-list",
    "macsec-hw-offload",
    "rx-udp-gro-forwarding",
    "hsr-tag-ins-offload",
    "hsr-tag-rm-offload",
    "hsr-fwd-offload",
    "hsr-dup-offload",
];

/// Classes of messages by their bit (NETIF_MSG_*).
pub const MSG_CLASSES: [&str; 15] = [
    "drv",
    "probe",
    "link",
    "timer",
    "ifdown",
    "ifup",
    "rx_err",
    "tx_err",
    "tx_queued",
    "intr",
    "tx_done",
    "rx_status",
    "pktdata",
    "hw",
    "wol",
];

/// Time stamping by its bit (SOF_TIMESTAMPING_*).
pub const SOF_TIMESTAMPING: [&str; 17] = [
    "hardware-transmit",
    "software-transmit",
    "hardware-receive",
    "software-receive",
    "software-system-clock",
    "hardware-legacy-clock",
    "hardware-raw-clock",
    "option-id",
    "sched-transmit",
    "ack-transmit",
    "option-cmsg",
    "option-tsonly",
    "option-stats",
    "option-pktinfo",
    "option-tx-swhw",
    "bind-phc",
    "option-id-tcp",
];

const TS_TX_TYPES: [&str; 4] = ["off", "on", "onestep-sync", "onestep-p2p"];

const TS_RX_FILTERS: [&str; 16] = [
    "none",
    "all",
    "some",
    "ptpv1-l4-event",
    "ptpv1-l4-sync",
    "ptpv1-l4-delay-req",
    "ptpv2-l4-event",
    "ptpv2-l4-sync",
    "ptpv2-l4-delay-req",
    "ptpv2-l2-event",
    "ptpv2-l2-sync",
    "ptpv2-l2-delay-req",
    "ptpv2-event",
    "ptpv2-sync",
    "ptpv2-delay-req",
    "ntp-all",
];

/// What a device without hardware clocks can stamp: software-transmit, software-receive, software-system-clock.
pub const SOFTWARE_STAMPS: u32 = 0b1_1010;

/// Sets that are the same for all devices.
pub const GLOBAL: [u32; 5] =
    [set::FEATURES, set::MSG_CLASSES, set::SOF_TIMESTAMPING, set::TS_TX_TYPES, set::TS_RX_FILTERS];
/// Sets of a device's own.
pub const OF_DEVICE: [u32; 2] = [set::TEST, set::STATS];

/// The strings of a set; `None`: there is no such set here.
pub fn of(dev: Option<&Dev>, id: u32) -> Option<Vec<Cow<'static, str>>> {
    let fixed = |s: &[&'static str]| Some(s.iter().map(|s| Cow::Borrowed(*s)).collect());
    match id {
        set::FEATURES => fixed(&FEATURES),
        set::MSG_CLASSES => fixed(&MSG_CLASSES),
        set::SOF_TIMESTAMPING => fixed(&SOF_TIMESTAMPING),
        set::TS_TX_TYPES => fixed(&TS_TX_TYPES),
        set::TS_RX_FILTERS => fixed(&TS_RX_FILTERS),
        set::STATS => Some(dev?.drv.ethtool().stats().into_iter().map(|s| s.0).collect()),
        set::TEST => fixed(&dev?.drv.ethtool().self_test_names()),
        _ => None,
    }
}
