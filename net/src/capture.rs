//! Copies of frames for a listener on the side (pcap).

use crate::skb::Skb;

/// Sees every frame that enters or leaves a device, Ethernet header first, super-frames whole.
pub trait Capture: Send + Sync {
    /// A frame of the device with this number. Must not block nor call back.
    fn frame(&self, ifindex: u32, stamp_ns: u64, frame: &Skb);
}

/// The header of a pcap file with nanosecond stamps and Ethernet frames.
pub fn pcap_header() -> [u8; 24] {
    let mut h = [0; 24];
    h[..4].copy_from_slice(&0xa1b2_3c4du32.to_le_bytes());
    h[4..6].copy_from_slice(&2u16.to_le_bytes());
    h[6..8].copy_from_slice(&4u16.to_le_bytes());
    h[16..20].copy_from_slice(&262_144u32.to_le_bytes());
    h[20..24].copy_from_slice(&1u32.to_le_bytes());
    h
}

/// The header of one frame in a pcap file.
pub fn pcap_record(stamp_ns: u64, len: usize) -> [u8; 16] {
    let mut h = [0; 16];
    let secs = u32::try_from(stamp_ns / 1_000_000_000).unwrap_or(u32::MAX);
    h[..4].copy_from_slice(&secs.to_le_bytes());
    h[4..8].copy_from_slice(&((stamp_ns % 1_000_000_000) as u32).to_le_bytes());
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    h[8..12].copy_from_slice(&len.to_le_bytes());
    h[12..16].copy_from_slice(&len.to_le_bytes());
    h
}
