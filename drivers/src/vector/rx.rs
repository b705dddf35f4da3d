//! Receiving: slots of the ring become packet buffers, in a softirq, with a budget.

use super::ethtool::{Counters, add};
use super::vnet_hdr::{self, VNET_HDR_LEN};
use executor::irq::RxSlot;
use net::skb::ForeignBuf;
use net::{CsumStatus, Skb, SkbPool};
use std::sync::Arc;

/// Bytes kept free before each message, so that a frame can be forwarded where it lies. With the headers behind it the
/// IP header falls on a multiple of eight.
pub const HEADROOM: usize = 192;
/// Bytes of a slot: headroom, virtio-net header, a 64 KiB packet with its link header.
pub const SLOT_SIZE: usize = 68 * 1024;
/// Frames up to this size are copied out of their slot, which goes back at once: a socket that nobody reads must not
/// hold the ring's memory, 64 KiB for each small datagram.
const COPY_BREAK: usize = 1800;

/// A slot of the ring as memory of a packet buffer.
struct Slot(RxSlot);

impl ForeignBuf for Slot {
    fn bytes(&self) -> &[u8] {
        self.0.whole()
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.whole_mut()
    }
}

/// Makes a packet buffer of a received message. `None`: its header does not fit; counted.
pub fn to_skb(slot: RxSlot, pool: &Arc<SkbPool>, counters: &Counters) -> Option<Skb> {
    let Some(meta) = vnet_hdr::parse(slot.data()) else {
        add(&counters.rx_errors, 1);
        return None;
    };
    let range = slot.range();
    let len = range.len() - VNET_HDR_LEN;
    let mut skb = if len <= COPY_BREAK {
        pool.copy_from(slot.data().get(VNET_HDR_LEN..).unwrap_or(&[]))
    } else {
        Skb::from_foreign(Box::new(Slot(slot)), range.start + VNET_HDR_LEN, len)
    };
    skb.csum = meta.csum;
    skb.gso = meta.gso;
    if meta.csum != CsumStatus::None {
        add(&counters.rx_csum_offload_good, 1);
    }
    if skb.data().first().is_some_and(|b| b & 1 != 0) {
        add(&counters.multicast, 1);
    }
    add(&counters.rx_packets, 1);
    add(&counters.rx_bytes, len as u64);
    Some(skb)
}
