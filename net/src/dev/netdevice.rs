//! The driver's side of a network device.

use super::ethtool::{EthtoolOps, NoEthtool};
use crate::netns::NetRef;
use crate::skb::Skb;
use bitflags::bitflags;
use uapi::{Errno, Result};

bitflags! {
    /// What a device can do so that the stack need not (Linux: `NETIF_F_*`).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Features: u32 {
        /// Takes frames in pieces.
        const SG = 1 << 0;
        /// Completes `CsumStatus::Partial` of frames to send (any protocol, any offset).
        const HW_CSUM = 1 << 1;
        /// Says whether checksums of received frames are good.
        const RXCSUM = 1 << 2;
        /// Cuts TCP over IPv4 super-frames.
        const TSO4 = 1 << 3;
        /// Cuts TCP over IPv6 super-frames.
        const TSO6 = 1 << 4;
        /// The stack should merge received frames in software, since the device delivers MTU frames.
        const GRO = 1 << 5;
        /// Cuts UDP super-frames into datagrams.
        const USO = 1 << 6;
        /// Received frames may be super-frames (Linux: `rx-gro-hw`).
        const LRO = 1 << 7;
        /// The stack cuts super-frames in software where the device does not. TCP builds them either way, since a connection
        /// keeps the size it began with.
        const GSO = 1 << 8;
    }
}

/// Counters of a device (`struct rtnl_link_stats64`, the part that is kept).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DevStats {
    /// Frames received; a super-frame counts as the segments it stands for if the driver knows.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Bad frames received.
    pub rx_errors: u64,
    /// Frames that could not be sent for a fault.
    pub tx_errors: u64,
    /// Frames dropped on the way in for want of room.
    pub rx_dropped: u64,
    /// Frames dropped on the way out for want of room.
    pub tx_dropped: u64,
    /// Multicast frames received.
    pub multicast: u64,
}

/// A network device, as its driver offers it. Every method may be called from any CPU and must not block.
///
/// Frames carry an Ethernet header. The driver hands received ones to [`Net::rx`](crate::Net::rx) from its softirq.
pub trait NetDevice: Send + Sync {
    /// Prefix of the device's name: `vec` makes `vec0`, `vec1`, ...
    fn kind(&self) -> &str;
    /// The unit number it wants (`vec3` = 3); `None` takes the next free one.
    fn unit(&self) -> Option<u32> {
        None
    }
    /// Called once when the device is registered: `net` is the way back into the stack, `ifindex` its number there.
    fn attach(&self, net: NetRef, ifindex: u32);
    /// The device's link-layer address.
    fn mac(&self) -> [u8; 6];
    /// Changes the link-layer address.
    fn set_mac(&self, _mac: [u8; 6]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Largest IP packet in bytes.
    fn mtu(&self) -> u32;
    /// Changes the MTU (the stack has checked 68..=[`max_mtu`](Self::max_mtu)).
    fn set_mtu(&self, _mtu: u32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Largest MTU that [`set_mtu`](Self::set_mtu) takes.
    fn max_mtu(&self) -> u32 {
        65535
    }
    /// What is switched on now.
    fn features(&self) -> Features;
    /// What can be switched; the others are fixed.
    fn hw_features(&self) -> Features {
        Features::empty()
    }
    /// Switches features to `wanted`, in which the fixed ones are as they are; returns what is on now.
    fn set_features(&self, _wanted: Features) -> Features {
        self.features()
    }
    /// Largest super-frame it takes, Ethernet header not counted.
    fn gso_max_size(&self) -> u32 {
        65535
    }
    /// Length of the transmit queue for `ip link` (packets).
    fn tx_queue_len(&self) -> u32 {
        1000
    }
    /// The device was set up (`ip link set up`): start receiving.
    fn open(&self) -> Result<()>;
    /// The device was set down: stop receiving; frames still queued are dropped.
    fn close(&self);
    /// True if the link is there (`IFF_LOWER_UP`).
    fn carrier(&self) -> bool {
        true
    }
    /// True if the driver does what GRO asks for, so that the stack need not look again.
    fn merges(&self) -> bool {
        false
    }
    /// Queues a frame for sending. It need not go out before [`flush`](Self::flush) or the driver's softirq, so that
    /// many leave with one call of the host. `Err` gives the frame back because the queue is full: the stack stops
    /// sending until the driver calls [`Net::tx_wake`](crate::Net::tx_wake), which it then owes.
    fn xmit(&self, skb: Skb) -> Result<(), Skb>;
    /// The burst is over. Called without any lock of the stack held; a driver that flushes once per round ignores it.
    fn flush(&self) {}
    /// Counters.
    fn stats(&self) -> DevStats;
    /// What it offers to ethtool(8).
    fn ethtool(&self) -> &dyn EthtoolOps {
        &NoEthtool
    }
    /// `link/ether` or `link/loopback`: `ARPHRD_*` of if_arp.h.
    fn arp_type(&self) -> u16 {
        1
    }
}
