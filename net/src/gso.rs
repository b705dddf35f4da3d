//! Software segmentation: cuts a super-frame into MTU frames at the last moment, for devices that cannot.

use crate::csum;
use crate::eth::ETH_HLEN;
use crate::ip::{self, IPPROTO_TCP, IPPROTO_UDP, Packet};
use crate::skb::{CsumStatus, GsoInfo, GsoType, Skb, SkbPool};
use std::sync::Arc;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Writes the checksum that `CsumStatus::Partial` asks for (Linux: `skb_checksum_help`). The frame starts anywhere;
/// false if the place is outside the frame.
pub fn finish_checksum(skb: &mut Skb) -> bool {
    let CsumStatus::Partial { start, offset } = skb.csum else { return true };
    let (start, offset) = (usize::from(start), usize::from(offset));
    let at = start + offset;
    let data = skb.data_mut();
    let Some(tail) = data.get(start..) else { return false };
    if at + 2 > data.len() {
        return false;
    }
    let mut c = !csum::fold(csum::sum(tail, 0));
    // UDP says "no checksum" with 0, so a true 0 is sent as its other form (RFC 768); TCP does not mind.
    if c == 0 && offset == 6 {
        c = 0xffff;
    }
    data[at..at + 2].copy_from_slice(&c.to_be_bytes());
    skb.csum = CsumStatus::None;
    true
}

/// Bytes of headers (IP and transport) of the packet at `data`, and its parsed IP header.
fn headers(data: &[u8]) -> Option<(Packet, usize)> {
    let pkt = ip::parse(data)?;
    let l4 = data.get(pkt.l4..pkt.end)?;
    let len = match pkt.proto {
        IPPROTO_TCP => {
            let n = usize::from(l4.get(12)? >> 4) * 4;
            if n < 20 {
                return None;
            }
            n
        }
        IPPROTO_UDP => 8,
        _ => return None,
    };
    (pkt.l4 + len <= pkt.end).then_some((pkt, pkt.l4 + len))
}

/// A super-frame about to be cut: how many segments it has, and each of them on demand.
pub struct Cut<'a> {
    /// Ethernet, IP and transport headers.
    head: &'a [u8],
    payload: &'a [u8],
    pkt: Packet,
    size: usize,
    udp: bool,
}

impl<'a> Cut<'a> {
    /// Looks at a frame (Ethernet header first). `None` if it is not what its metadata says.
    pub fn new(skb: &'a Skb) -> Option<Self> {
        let GsoInfo { kind, size, .. } = skb.gso?;
        let data = skb.data();
        let l3 = data.get(ETH_HLEN..)?;
        let (pkt, hlen) = headers(l3)?;
        let udp = kind == GsoType::Udp;
        if size == 0 || pkt.proto != if udp { IPPROTO_UDP } else { IPPROTO_TCP } {
            return None;
        }
        let head = data.get(..ETH_HLEN + hlen)?;
        let payload = l3.get(hlen..pkt.end)?;
        Some(Self { head, payload, pkt, size: usize::from(size), udp })
    }

    /// Cuts TCP into smaller segments if they would be longer than `max` bytes with their headers. Datagrams keep their
    /// size: it is their sender's business.
    #[must_use]
    pub fn limit(mut self, max: usize) -> Self {
        if !self.udp {
            self.size = self.size.min(max.saturating_sub(self.head.len()).max(1));
        }
        self
    }

    /// Number of segments, at least one.
    pub fn count(&self) -> usize {
        self.payload.len().div_ceil(self.size).max(1)
    }

    /// Bytes of segment `i` with its headers; all but the last have the same.
    pub fn len(&self, i: usize) -> usize {
        let rest = self.payload.len().saturating_sub(i.saturating_mul(self.size));
        self.head.len() + rest.min(self.size)
    }

    /// True if the segments carry nothing.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Writes segment `i`, checksums complete, into `out`, which has [`len`](Self::len) bytes. False if it has not, or
    /// there is no such segment.
    pub fn write(&self, i: usize, out: &mut [u8]) -> bool {
        let (pkt, head) = (&self.pkt, self.head);
        let hlen = head.len() - ETH_HLEN;
        let from = i.saturating_mul(self.size);
        let to = self.payload.len().min(from.saturating_add(self.size));
        let Some(part) = self.payload.get(from..to) else { return false };
        if out.len() != head.len() + part.len() {
            return false;
        }
        out[..head.len()].copy_from_slice(head);
        out[head.len()..].copy_from_slice(part);
        let p = &mut out[ETH_HLEN..];
        let l4_len = hlen - pkt.l4 + part.len();
        if pkt.src.is_ipv4() {
            let total = u16::try_from(pkt.l4 + l4_len).unwrap_or(0);
            let id = u16::from_be_bytes([p[4], p[5]]).wrapping_add(i as u16);
            p[2..4].copy_from_slice(&total.to_be_bytes());
            p[4..6].copy_from_slice(&id.to_be_bytes());
            p[10..12].fill(0);
            let c = csum::checksum(&p[..pkt.l4], 0);
            p[10..12].copy_from_slice(&c.to_be_bytes());
        } else {
            let len = u16::try_from(pkt.l4 - ip::IPV6_HLEN + l4_len).unwrap_or(0);
            p[4..6].copy_from_slice(&len.to_be_bytes());
        }
        let t = &mut p[pkt.l4..];
        let sum_at = if self.udp {
            let len = u16::try_from(l4_len).unwrap_or(0);
            t[4..6].copy_from_slice(&len.to_be_bytes());
            6
        } else {
            let seq = u32::from_be_bytes([t[4], t[5], t[6], t[7]]).wrapping_add(from as u32);
            t[4..8].copy_from_slice(&seq.to_be_bytes());
            if i + 1 < self.count() {
                t[13] &= !(FIN | PSH);
            }
            if i > 0 {
                t[13] &= !CWR;
            }
            16
        };
        t[sum_at..sum_at + 2].fill(0);
        let mut c = csum::checksum(t, csum::pseudo(pkt.src, pkt.dst, pkt.proto, l4_len));
        if c == 0 && sum_at == 6 {
            c = 0xffff;
        }
        t[sum_at..sum_at + 2].copy_from_slice(&c.to_be_bytes());
        true
    }
}

/// Cuts the frame (Ethernet header first) and hands each segment, checksums complete, to `emit`. False if the frame is
/// not what its metadata says; nothing has been emitted then.
pub fn segment(skb: &Skb, pool: &Arc<SkbPool>, mut emit: impl FnMut(Skb)) -> bool {
    let Some(cut) = Cut::new(skb) else { return false };
    for i in 0..cut.count() {
        let len = cut.len(i);
        let mut seg = pool.alloc(len);
        if !cut.write(i, seg.put(len)) {
            return false;
        }
        seg.dev = skb.dev;
        seg.mark = skb.mark;
        emit(seg);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn super_frame(v6: bool, payload: usize) -> Skb {
        let (src, dst): (IpAddr, IpAddr) = if v6 {
            ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
        } else {
            ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap())
        };
        let pool = SkbPool::new();
        let mut s = pool.alloc(70_000);
        let t = s.put(20 + payload);
        t.fill(0);
        for (i, b) in t[20..].iter_mut().enumerate() {
            *b = i as u8;
        }
        t[4..8].copy_from_slice(&0xffff_fff0u32.to_be_bytes());
        t[12] = 0x50;
        t[13] = 0x19;
        let h = ip::Header { src, dst, proto: IPPROTO_TCP, ttl: 64, tos: 0, id: 0xffff, df: true };
        ip::write_header(s.push(ip::header_len(dst)), &h, 20 + payload);
        s.push(ETH_HLEN).fill(0);
        let kind = if v6 { GsoType::TcpV6 } else { GsoType::TcpV4 };
        s.gso = Some(GsoInfo { kind, size: 1000, hdr_len: 0 });
        s
    }

    #[test]
    fn segments_are_valid_and_whole() {
        for v6 in [false, true] {
            let s = super_frame(v6, 2500);
            let (mut parts, mut seqs, mut flags) = (Vec::new(), Vec::new(), Vec::new());
            let pool = SkbPool::new();
            assert!(segment(&s, &pool, |seg| {
                let p = ip::parse(&seg.data()[ETH_HLEN..]).expect("valid IP header");
                let t = &seg.data()[ETH_HLEN..][p.l4..p.end];
                assert_eq!(csum::checksum(t, csum::pseudo(p.src, p.dst, 6, t.len())), 0);
                seqs.push(u32::from_be_bytes(t[4..8].try_into().unwrap()));
                flags.push(t[13]);
                parts.extend_from_slice(&t[20..]);
            }));
            assert_eq!(seqs, vec![0xffff_fff0, 0x3d8, 0x7c0]);
            assert_eq!(flags, vec![0x10, 0x10, 0x19]);
            assert_eq!(parts.len(), 2500);
            assert!(parts.iter().enumerate().all(|(i, b)| *b == i as u8));
        }
    }

    #[test]
    fn metadata_that_lies_is_refused() {
        let pool = SkbPool::new();
        let mut s = super_frame(false, 100);
        s.gso = Some(GsoInfo { kind: GsoType::Udp, size: 10, hdr_len: 0 });
        assert!(!segment(&s, &pool, |_| panic!("emitted")));
        s.trim(20);
        assert!(!segment(&s, &pool, |_| panic!("emitted")));
    }
}
