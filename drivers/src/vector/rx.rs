//! Receiving: slots of the ring become packet buffers, in a softirq, with a budget.

use super::ethtool::{Counters, add};
use super::header::{DropReason, Drops, Header, Stripped};
use super::pcap::Pcap;
use super::stream::Reassembly;
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

/// What a poll works with.
pub struct Poll<'a> {
    /// Where packet buffers come from.
    pub pool: &'a Arc<SkbPool>,
    /// Counters of the NIC.
    pub counters: &'a Counters,
    /// Frames thrown away, by reason.
    pub drops: &'a Drops,
    /// Takes copies.
    pub pcap: Option<&'a Pcap>,
    /// Frames for the stack, in order.
    pub out: &'a mut Vec<Skb>,
}

impl Poll<'_> {
    /// A message that is a frame behind its header, or several such behind each other.
    pub fn message(&mut self, slot: RxSlot, header: &dyn Header) {
        if let Some(size) = slot.segment() {
            for msg in slot.data().chunks(size.max(1)) {
                match header.rx(msg) {
                    Ok(f) => match msg.get(f.at..).and_then(|b| b.get(..f.len)) {
                        Some(bytes) => self.known(self.pool.copy_from(bytes), f),
                        None => self.dropped(DropReason::Short),
                    },
                    Err(why) => self.dropped(why),
                }
            }
            return;
        }
        let frame = match header.rx(slot.data()) {
            Ok(f) => f,
            Err(why) => return self.dropped(why),
        };
        let range = slot.range();
        // Headers are trusted to keep inside the message, and checked.
        let Some(bytes) = slot.data().get(frame.at..).and_then(|b| b.get(..frame.len)) else {
            return self.dropped(DropReason::Short);
        };
        let skb = if frame.len <= COPY_BREAK {
            self.pool.copy_from(bytes)
        } else {
            Skb::from_foreign(Box::new(Slot(slot)), range.start + frame.at, frame.len)
        };
        self.known(skb, frame);
    }

    fn known(&mut self, mut skb: Skb, frame: Stripped) {
        skb.csum = frame.csum;
        skb.gso = frame.gso;
        if skb.gso.is_some() {
            self.counters.rx_gso.count(skb.len());
        }
        if frame.csum != CsumStatus::None {
            add(&self.counters.rx_csum_offload_good, 1);
        }
        self.frame(skb);
    }

    /// The next bytes of a stream.
    pub fn chunk(&mut self, slot: &RxSlot, reassembly: &mut Reassembly) {
        reassembly.feed(slot.data(), |f| match f {
            Ok(bytes) => self.frame(self.pool.copy_from(bytes)),
            Err(why) => self.dropped(why),
        });
    }

    fn frame(&mut self, skb: Skb) {
        if skb.data().first().is_some_and(|b| b & 1 != 0) {
            add(&self.counters.multicast, 1);
        }
        add(&self.counters.rx_packets, 1);
        add(&self.counters.rx_bytes, skb.len() as u64);
        if let Some(p) = self.pcap {
            p.frame(skb.data());
        }
        self.out.push(skb);
    }

    fn dropped(&self, why: DropReason) {
        self.drops.count(why);
        add(&self.counters.rx_errors, 1);
        if why != DropReason::Vnet {
            add(&self.counters.rx_encaps_errors, 1);
        }
    }
}
