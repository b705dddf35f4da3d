//! The internet layer, both versions.
//!
//! Key types: [`Packet`] (what the header of a received packet says). `input` checks and delivers, `output` routes,
//! fragments and hands to the neighbour layer, `icmp` answers and reports, `frag` puts fragments together.
//! Below: `neigh`, `dev`, `route`. Above: `tcp`, `udp`, `raw`. Lock order: the fragment store is a leaf.

pub mod frag;
pub mod icmp;
pub mod input;
pub mod output;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// ICMP.
pub const IPPROTO_ICMP: u8 = 1;
/// TCP.
pub const IPPROTO_TCP: u8 = 6;
/// UDP.
pub const IPPROTO_UDP: u8 = 17;
/// ICMPv6.
pub const IPPROTO_ICMPV6: u8 = 58;
/// Bytes of an IPv4 header without options.
pub const IPV4_HLEN: usize = 20;
/// Bytes of the fixed IPv6 header.
pub const IPV6_HLEN: usize = 40;

/// What the IP header of a packet says. Offsets count from the start of the header.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Transport protocol (behind IPv6 extension headers).
    pub proto: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// Where the transport header starts.
    pub l4: usize,
    /// Where the packet ends.
    pub end: usize,
    /// Set if this is a fragment.
    pub frag: Option<Fragment>,
}

/// The fragment part of a header.
#[derive(Clone, Copy, Debug)]
pub struct Fragment {
    /// Identification.
    pub id: u32,
    /// Offset of this piece in bytes.
    pub offset: usize,
    /// More pieces follow.
    pub more: bool,
    /// Where the byte is that names the fragment header (IPv6; 0 for IPv4).
    pub nexthdr_at: usize,
}

/// Reads a header; `None` if it is malformed. The IPv4 header checksum is verified.
pub fn parse(data: &[u8]) -> Option<Packet> {
    match data.first()? >> 4 {
        4 => parse_v4(data),
        6 => parse_v6(data),
        _ => None,
    }
}

fn be16(d: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(d.get(at..at + 2)?.try_into().ok()?))
}

fn parse_v4(d: &[u8]) -> Option<Packet> {
    let h = d.get(..IPV4_HLEN)?;
    let hlen = usize::from(h[0] & 15) * 4;
    let total = usize::from(be16(h, 2)?);
    if hlen < IPV4_HLEN || total < hlen || total > d.len() {
        return None;
    }
    if crate::csum::checksum(d.get(..hlen)?, 0) != 0 {
        return None;
    }
    let fo = be16(h, 6)?;
    let offset = usize::from(fo & 0x1fff) * 8;
    let more = fo & 0x2000 != 0;
    let frag =
        (more || offset != 0).then_some(Fragment { id: u32::from(be16(h, 4)?), offset, more, nexthdr_at: 0 });
    Some(Packet {
        src: IpAddr::V4(Ipv4Addr::new(h[12], h[13], h[14], h[15])),
        dst: IpAddr::V4(Ipv4Addr::new(h[16], h[17], h[18], h[19])),
        proto: h[9],
        ttl: h[8],
        tos: h[1],
        l4: hlen,
        end: total,
        frag,
    })
}

fn addr6(d: &[u8], at: usize) -> Option<IpAddr> {
    let o: [u8; 16] = d.get(at..at + 16)?.try_into().ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(o)))
}

fn parse_v6(d: &[u8]) -> Option<Packet> {
    let h = d.get(..IPV6_HLEN)?;
    let end = IPV6_HLEN + usize::from(be16(h, 4)?);
    if end > d.len() {
        return None;
    }
    let mut pkt = Packet {
        src: addr6(h, 8)?,
        dst: addr6(h, 24)?,
        proto: h[6],
        ttl: h[7],
        tos: (h[0] << 4) | (h[1] >> 4),
        l4: IPV6_HLEN,
        end,
        frag: None,
    };
    let mut named_at = 6;
    // Hop-by-hop, routing, destination options and one fragment header may stand in front (RFC 8200 section 4).
    for _ in 0..8 {
        match pkt.proto {
            0 | 43 | 60 => {
                let e = d.get(pkt.l4..end)?;
                let len = 8 + usize::from(*e.get(1)?) * 8;
                e.get(..len)?;
                pkt.proto = e[0];
                named_at = pkt.l4;
                pkt.l4 += len;
            }
            44 if pkt.frag.is_none() => {
                let e = d.get(pkt.l4..end)?.get(..8)?;
                let fo = be16(e, 2)?;
                let id = u32::from_be_bytes(e.get(4..8)?.try_into().ok()?);
                let (offset, more) = (usize::from(fo & 0xfff8), fo & 1 != 0);
                pkt.proto = e[0];
                // An atomic fragment (RFC 6946) is a whole packet.
                if more || offset != 0 {
                    pkt.frag = Some(Fragment { id, offset, more, nexthdr_at: named_at });
                    pkt.l4 += 8;
                    return Some(pkt);
                }
                named_at = pkt.l4;
                pkt.l4 += 8;
            }
            _ => return Some(pkt),
        }
    }
    None
}

/// Fields of a header to be written.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Transport protocol.
    pub proto: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// IPv4 identification.
    pub id: u16,
    /// Don't fragment (IPv4).
    pub df: bool,
}

/// Bytes that [`write_header`] needs for this destination.
pub fn header_len(dst: IpAddr) -> usize {
    if dst.is_ipv4() { IPV4_HLEN } else { IPV6_HLEN }
}

/// Writes a header in front of `payload_len` bytes into `out`.
pub fn write_header(out: &mut [u8], h: &Header, payload_len: usize) {
    match (h.src, h.dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let Some(o) = out.get_mut(..IPV4_HLEN) else { return };
            let total = u16::try_from(IPV4_HLEN + payload_len).unwrap_or(0);
            o[0] = 0x45;
            o[1] = h.tos;
            o[2..4].copy_from_slice(&total.to_be_bytes());
            o[4..6].copy_from_slice(&h.id.to_be_bytes());
            o[6..8].copy_from_slice(&if h.df { 0x4000u16 } else { 0 }.to_be_bytes());
            o[8] = h.ttl;
            o[9] = h.proto;
            o[10..12].fill(0);
            o[12..16].copy_from_slice(&s.octets());
            o[16..20].copy_from_slice(&d.octets());
            let c = crate::csum::checksum(o, 0);
            o[10..12].copy_from_slice(&c.to_be_bytes());
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let Some(o) = out.get_mut(..IPV6_HLEN) else { return };
            let len = u16::try_from(payload_len).unwrap_or(0);
            o[0] = 0x60 | (h.tos >> 4);
            o[1] = h.tos << 4;
            o[2..4].fill(0);
            o[4..6].copy_from_slice(&len.to_be_bytes());
            o[6] = h.proto;
            o[7] = h.ttl;
            o[8..24].copy_from_slice(&s.octets());
            o[24..40].copy_from_slice(&d.octets());
        }
        _ => {}
    }
}
