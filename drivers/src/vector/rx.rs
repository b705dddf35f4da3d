//! Receiving: slots of the ring become packet buffers, in a softirq, with a budget.

use super::ethtool::{Counters, add};
use super::header::{DropReason, Drops, Header, Stripped};
use super::pcap::Pcap;
use super::stream::Reassembly;
use executor::irq::RxSlot;
use net::gro::Gro;
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
    /// Whether what the host says of a checksum counts; else the stack looks itself.
    pub believe: bool,
    /// Merges segments, each of which is then copied once: out of its message to where it belongs.
    pub gro: Option<&'a mut Gro>,
    /// Frames taken so far, and their bytes.
    pub taken: (u64, u64),
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
                        Some(bytes) => self.bytes(bytes, f),
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
        if frame.len <= COPY_BREAK {
            return self.bytes(bytes, frame);
        }
        let mut skb = Skb::from_foreign(Box::new(Slot(slot)), range.start + frame.at, frame.len);
        skb.csum = self.believed(frame.csum);
        skb.gso = frame.gso;
        self.known(skb.data(), &frame);
        match &mut self.gro {
            Some(gro) => gro.receive(skb, self.pool, self.out),
            None => self.out.push(skb),
        }
    }

    /// A frame that lies in a message.
    fn bytes(&mut self, bytes: &[u8], frame: Stripped) {
        self.known(bytes, &frame);
        let csum = self.believed(frame.csum);
        match &mut self.gro {
            Some(gro) if frame.gso.is_none() => gro.receive_bytes(bytes, csum, self.pool, self.out),
            gro => {
                // It must not overtake what is held of its flow.
                if let Some(gro) = gro {
                    gro.flush(self.out);
                }
                let mut skb = self.pool.copy_from(bytes);
                skb.csum = csum;
                skb.gso = frame.gso;
                self.out.push(skb);
            }
        }
    }

    fn believed(&self, csum: CsumStatus) -> CsumStatus {
        if csum == CsumStatus::Unnecessary && !self.believe { CsumStatus::None } else { csum }
    }

    fn known(&mut self, bytes: &[u8], frame: &Stripped) {
        if frame.gso.is_some() {
            self.counters.rx_gso.count(bytes.len());
        }
        if frame.csum != CsumStatus::None {
            add(&self.counters.rx_csum_offload_good, 1);
        }
        self.count(bytes);
    }

    /// The next bytes of a stream.
    pub fn chunk(&mut self, slot: &RxSlot, reassembly: &mut Reassembly) {
        reassembly.feed(slot.data(), |f| match f {
            Ok(bytes) => self.bytes(bytes, Stripped::whole(bytes)),
            Err(why) => self.dropped(why),
        });
    }

    fn count(&mut self, frame: &[u8]) {
        if frame.first().is_some_and(|b| b & 1 != 0) {
            add(&self.counters.multicast, 1);
        }
        add(&self.counters.rx_packets, 1);
        add(&self.counters.rx_bytes, frame.len() as u64);
        self.taken.0 += 1;
        self.taken.1 += frame.len() as u64;
        if let Some(p) = self.pcap {
            p.frame(frame);
        }
    }

    /// Lets go what was held for merging (end of a poll).
    pub fn finish(&mut self) {
        if let Some(gro) = &mut self.gro {
            gro.flush(self.out);
        }
    }

    fn dropped(&self, why: DropReason) {
        self.drops.count(why);
        add(&self.counters.rx_errors, 1);
        if why != DropReason::Vnet {
            add(&self.counters.rx_encaps_errors, 1);
        }
    }
}
