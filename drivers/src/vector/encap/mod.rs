//! Encapsulations of tunnels: the bytes between the outer header of the host and the inner Ethernet frame. No I/O; whatever
//! a message says is hostile, and what does not fit is a [`DropReason`], never a panic.
//!
//! One file each, all of them [`Header`](super::header::Header)s: [`Gre`], [`L2tpv3`], [`Vxlan`], [`VxlanGpe`] (with
//! [`Nsh`] inside), [`Geneve`]; [`OverIpv4`] takes off the outer header that raw IPv4 sockets hand
//! over; [`Unfinished`] sees what a tunnel device of the same host has left to do.
//! Above: the transports. Below: nothing. No locks.

mod geneve;
mod gre;
mod ipv4;
mod l2tpv3;
mod nsh;
mod unfinished;
mod vxlan;
mod vxlan_gpe;

pub use geneve::Geneve;
pub use gre::{Gre, GreConfig};
pub use ipv4::OverIpv4;
pub use l2tpv3::{L2tpv3, L2tpv3Config};
pub use nsh::Nsh;
pub use unfinished::Unfinished;
pub use vxlan::Vxlan;
pub use vxlan_gpe::VxlanGpe;

use super::header::DropReason;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ethernet frames inside GRE, Geneve and NSH ("transparent Ethernet bridging").
const ETH_P_TEB: u16 = 0x6558;

/// Largest network identifier (24 bits).
pub const MAX_VNI: u32 = 0xff_ffff;

fn be16(msg: &[u8], at: usize) -> Result<u16, DropReason> {
    msg.get(at..).and_then(|b| b.first_chunk()).map(|b| u16::from_be_bytes(*b)).ok_or(DropReason::Short)
}

fn be32(msg: &[u8], at: usize) -> Result<u32, DropReason> {
    msg.get(at..).and_then(|b| b.first_chunk()).map(|b| u32::from_be_bytes(*b)).ok_or(DropReason::Short)
}

fn be64(msg: &[u8], at: usize) -> Result<u64, DropReason> {
    msg.get(at..).and_then(|b| b.first_chunk()).map(|b| u64::from_be_bytes(*b)).ok_or(DropReason::Short)
}

/// Writes fields one after the other into a header whose length is known.
struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    /// Bytes that do not fit are left out: the length of a header is a property of its configuration.
    fn put(&mut self, bytes: &[u8]) {
        let room = std::mem::take(&mut self.0);
        let n = bytes.len().min(room.len());
        debug_assert_eq!(n, bytes.len(), "a header has the length it announced");
        let (now, later) = room.split_at_mut(n);
        now.copy_from_slice(&bytes[..n]);
        self.0 = later;
    }
}

/// A number that grows with each frame sent: the first one carries 1. Pinned, all carry 0.
#[derive(Debug, Default)]
struct Sequence {
    last: AtomicU32,
    pinned: bool,
}

impl Sequence {
    fn new(pinned: bool) -> Self {
        Self { last: AtomicU32::new(0), pinned }
    }

    fn next(&self) -> u32 {
        if self.pinned { 0 } else { self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1) }
    }
}

/// The second word of VXLAN and Geneve: the identifier in the upper 24 bits.
fn vni_word(vni: u32) -> [u8; 4] {
    (vni << 8).to_be_bytes()
}

#[cfg(test)]
mod testing {
    use super::super::header::{DropReason, Header, Outgoing};
    use net::CsumStatus;

    /// A frame of `n` bytes.
    pub fn frame(n: u8) -> Vec<u8> {
        (0..n).collect()
    }

    /// The message for a frame.
    pub fn wire(h: &dyn Header, frame: &[u8]) -> Vec<u8> {
        let mut head = vec![0xee; h.tx_len()];
        h.tx(&mut head, Outgoing { frame, csum: CsumStatus::None, gso: None });
        head.extend_from_slice(frame);
        head
    }

    /// What a header makes of a message: the frame in it.
    pub fn inner<'a>(h: &dyn Header, msg: &'a [u8]) -> Result<&'a [u8], DropReason> {
        h.rx(msg).map(|s| &msg[s.at..s.at + s.len])
    }

    /// Bytes from text: hexadecimal digits, spaces between them.
    pub fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|b| *b != b' ').collect();
        let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    /// The header's bytes in front of a frame of 20 bytes.
    pub fn head(h: &dyn Header) -> Vec<u8> {
        let w = wire(h, &frame(20));
        w[..w.len() - 20].to_vec()
    }
}
