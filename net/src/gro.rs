//! Software GRO: merges received TCP segments of a flow into super-frames, for devices that deliver MTU frames.

use crate::csum;
use crate::eth::{ETH_HLEN, ETH_P_IP, ETH_P_IPV6};
use crate::ip::{self, IPPROTO_TCP};
use crate::skb::{CsumStatus, GsoInfo, GsoType, Skb, SkbPool};
use std::sync::Arc;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
/// Flows that are merged side by side.
const MAX_FLOWS: usize = 8;
/// Largest merged IP packet.
const MAX_LEN: usize = 65_535;

struct Held {
    skb: Skb,
    next_seq: u32,
    seg: usize,
    count: usize,
    l4: usize,
    hlen: usize,
}

/// Frames of a device that wait for their successors within one poll.
#[derive(Default)]
pub struct Gro {
    held: Vec<Held>,
}

struct Look {
    l4: usize,
    hlen: usize,
    seq: u32,
    payload: usize,
    flags: u8,
    ipend: usize,
}

fn look(d: &[u8], sum: CsumStatus) -> Option<Look> {
    let proto = u16::from_be_bytes([*d.get(12)?, *d.get(13)?]);
    if proto != ETH_P_IP && proto != ETH_P_IPV6 {
        return None;
    }
    let p = ip::parse(&d[ETH_HLEN..])?;
    let plain = p.l4 == ip::header_len(p.dst);
    if p.proto != IPPROTO_TCP || p.frag.is_some() || !plain {
        return None;
    }
    let t = d.get(ETH_HLEN + p.l4..ETH_HLEN + p.end)?;
    let thl = usize::from(t.get(12)? >> 4) * 4;
    if thl < 20 || thl > t.len() {
        return None;
    }
    if sum == CsumStatus::None && csum::checksum(t, csum::pseudo(p.src, p.dst, IPPROTO_TCP, t.len())) != 0 {
        return None;
    }
    Some(Look {
        l4: ETH_HLEN + p.l4,
        hlen: ETH_HLEN + p.l4 + thl,
        seq: u32::from_be_bytes([t[4], t[5], t[6], t[7]]),
        payload: t.len() - thl,
        flags: t[13],
        ipend: ETH_HLEN + p.end,
    })
}

/// Same flow: Ethernet header, IP addresses and ports.
fn same_flow(a: &[u8], b: &[u8], l4: usize) -> bool {
    let ips = if l4 == ETH_HLEN + 20 { 26..34 } else { 22..54 };
    a[..14] == b[..14] && a[ips.clone()] == b[ips] && a[l4..l4 + 4] == b[l4..l4 + 4]
}

/// Headers that must agree for a merge: TTL, TOS, acknowledgement, options.
fn same_headers(a: &[u8], b: &[u8], l4: usize, hlen: usize) -> bool {
    let ip = if l4 == ETH_HLEN + 20 {
        a[15] == b[15] && a[22..24] == b[22..24] && a[20] & 0x40 == b[20] & 0x40
    } else {
        a[14..18] == b[14..18] && a[20..22] == b[20..22]
    };
    ip && a[l4 + 8..l4 + 12] == b[l4 + 8..l4 + 12] && a[l4 + 20..hlen] == b[l4 + 20..hlen]
}

/// What a frame is to what is held.
enum Place {
    /// Not ours to merge.
    Foreign,
    /// It has been appended.
    Appended,
    /// It goes on its own.
    Alone,
    /// It may grow.
    First(Look),
}

impl Gro {
    /// Takes a frame; those that will not grow any more come out in order of each flow.
    pub fn receive(&mut self, mut skb: Skb, pool: &Arc<SkbPool>, out: &mut Vec<Skb>) {
        let l = look(skb.data(), skb.csum).filter(|_| skb.gso.is_none());
        if let Some(l) = &l {
            skb.trim(l.ipend);
        }
        match self.place(skb.data(), l, pool, out) {
            Place::Appended => {}
            Place::Foreign => out.push(skb),
            Place::Alone => {
                looked_at(&mut skb);
                out.push(skb);
            }
            Place::First(l) => self.hold(skb, &l, out),
        }
    }

    /// As [`receive`](Self::receive), of a plain frame that lies elsewhere: what is appended is copied once.
    pub fn receive_bytes(&mut self, bytes: &[u8], sum: CsumStatus, pool: &Arc<SkbPool>, out: &mut Vec<Skb>) {
        let l = look(bytes, sum);
        let bytes = l.as_ref().and_then(|l| bytes.get(..l.ipend)).unwrap_or(bytes);
        let place = self.place(bytes, l, pool, out);
        if matches!(place, Place::Appended) {
            return;
        }
        let mut skb = pool.copy_from(bytes);
        skb.csum = sum;
        match place {
            Place::First(l) => self.hold(skb, &l, out),
            Place::Alone => {
                looked_at(&mut skb);
                out.push(skb);
            }
            Place::Appended | Place::Foreign => out.push(skb),
        }
    }

    /// Appends the frame `d` (without padding) to the one of its flow that is held, if it is the next; else lets that go.
    fn place(&mut self, d: &[u8], l: Option<Look>, pool: &Arc<SkbPool>, out: &mut Vec<Skb>) -> Place {
        let Some(l) = l else {
            // Not ours to merge; it must not overtake what is held of its flow, and we do not know which that is.
            if d.get(12..14) != Some(&[8, 6]) {
                self.flush(out);
            }
            return Place::Foreign;
        };
        let slot = self.held.iter().position(|h| h.l4 == l.l4 && same_flow(h.skb.data(), d, l.l4));
        if let Some(i) = slot {
            let h = &mut self.held[i];
            let fits = l.seq == h.next_seq
                && l.hlen == h.hlen
                && l.payload > 0
                && l.payload <= h.seg
                && l.flags & !PSH == ACK
                && h.skb.len() - ETH_HLEN + l.payload <= MAX_LEN
                && same_headers(h.skb.data(), d, l.l4, l.hlen);
            if fits {
                if h.skb.tailroom() < l.payload || h.skb.is_foreign() {
                    let mut big = pool.alloc(MAX_LEN + ETH_HLEN);
                    big.put(h.skb.len()).copy_from_slice(h.skb.data());
                    big.pkt_type = h.skb.pkt_type;
                    big.dev = h.skb.dev;
                    h.skb = big;
                }
                h.skb.put(l.payload).copy_from_slice(&d[l.hlen..]);
                let (push, win) = (l.flags & PSH, [d[l.l4 + 14], d[l.l4 + 15]]);
                let hd = h.skb.data_mut();
                hd[l.l4 + 13] |= push;
                hd[l.l4 + 14..l.l4 + 16].copy_from_slice(&win);
                h.next_seq = l.seq.wrapping_add(l.payload as u32);
                h.count += 1;
                // A short or pushed segment ends the burst.
                if push != 0 || l.payload < h.seg {
                    let h = self.held.remove(i);
                    out.push(finish(h));
                }
                return Place::Appended;
            }
            let h = self.held.remove(i);
            out.push(finish(h));
        }
        if l.payload == 0 || l.flags & !PSH != ACK || l.flags & PSH != 0 {
            return Place::Alone;
        }
        Place::First(l)
    }

    fn hold(&mut self, skb: Skb, l: &Look, out: &mut Vec<Skb>) {
        if self.held.len() >= MAX_FLOWS {
            let h = self.held.remove(0);
            out.push(finish(h));
        }
        self.held.push(Held {
            next_seq: l.seq.wrapping_add(l.payload as u32),
            seg: l.payload,
            count: 1,
            l4: l.l4,
            hlen: l.hlen,
            skb,
        });
    }

    /// Lets everything go (end of a poll).
    pub fn flush(&mut self, out: &mut Vec<Skb>) {
        out.extend(self.held.drain(..).map(finish));
    }
}

/// Its checksum is good; an unfinished one stays that, for whoever forwards it.
fn looked_at(skb: &mut Skb) {
    if skb.csum == CsumStatus::None {
        skb.csum = CsumStatus::Unnecessary;
    }
}

fn finish(h: Held) -> Skb {
    let mut skb = h.skb;
    looked_at(&mut skb);
    if h.count == 1 {
        return skb;
    }
    let v4 = h.l4 == ETH_HLEN + 20;
    let total = skb.len() - ETH_HLEN;
    let seg = u16::try_from(h.seg).unwrap_or(u16::MAX);
    let d = &mut skb.data_mut()[ETH_HLEN..];
    if v4 {
        d[2..4].copy_from_slice(&u16::try_from(total).unwrap_or(0).to_be_bytes());
        d[10..12].fill(0);
        let c = csum::checksum(&d[..20], 0);
        d[10..12].copy_from_slice(&c.to_be_bytes());
    } else {
        d[4..6].copy_from_slice(&u16::try_from(total - 40).unwrap_or(0).to_be_bytes());
    }
    // Whoever forwards it has a frame with an unfinished checksum, as from a device that merges itself.
    let l4 = h.l4 - ETH_HLEN;
    if let Some(p) = ip::parse(d) {
        let c = csum::fold(csum::pseudo(p.src, p.dst, IPPROTO_TCP, p.end - p.l4));
        d[l4 + 16..l4 + 18].copy_from_slice(&c.to_be_bytes());
    }
    skb.csum = CsumStatus::Partial { start: h.l4 as u16, offset: 16 };
    let kind = if v4 { GsoType::TcpV4 } else { GsoType::TcpV6 };
    skb.gso = Some(GsoInfo { kind, size: seg, hdr_len: (h.hlen - ETH_HLEN) as u16 });
    skb
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gso;
    use crate::ip::{Header, write_header};

    #[test]
    fn what_gso_cuts_gro_puts_together() {
        for v6 in [false, true] {
            let pool = SkbPool::new();
            let (src, dst) = if v6 { ("fd00::1", "fd00::2") } else { ("10.0.0.1", "10.0.0.2") };
            let mut s = pool.alloc(60_000);
            let t = s.put(20 + 20_000);
            t.fill(0);
            t[20..].iter_mut().enumerate().for_each(|(i, b)| *b = (i * 7) as u8);
            t[12] = 0x50;
            t[13] = ACK | PSH;
            let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
            let h = Header { src, dst, proto: 6, ttl: 64, tos: 0, id: 1, df: true };
            write_header(s.push(ip::header_len(dst)), &h, 20_020);
            let e = s.push(ETH_HLEN);
            e.fill(2);
            e[12..].copy_from_slice(&if v6 { ETH_P_IPV6 } else { ETH_P_IP }.to_be_bytes());
            let kind = if v6 { GsoType::TcpV6 } else { GsoType::TcpV4 };
            s.gso = Some(GsoInfo { kind, size: 1440, hdr_len: 0 });
            for bytes in [false, true] {
                let mut gro = Gro::default();
                let mut out = Vec::new();
                assert!(gso::segment(&s, &pool, |seg| match bytes {
                    false => gro.receive(seg, &pool, &mut out),
                    true => gro.receive_bytes(seg.data(), seg.csum, &pool, &mut out),
                }));
                gro.flush(&mut out);
                assert_eq!(out.len(), 1);
                let m = &out[0];
                assert_eq!(m.len(), s.len());
                assert_eq!(m.gso.map(|g| g.size), Some(1440));
                let at = ETH_HLEN + ip::header_len(dst) + 20;
                assert_eq!(&m.data()[at..], &s.data()[at..]);
                assert!(ip::parse(&m.data()[ETH_HLEN..]).is_some());
            }
        }
    }

    #[test]
    fn what_is_not_merged_stays_as_it_is_and_in_order() {
        let pool = SkbPool::new();
        let mut seg = vec![2; 12];
        seg.extend([8, 0, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, IPPROTO_TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        seg.extend([4, 0, 5, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0x50, ACK, 1, 0, 0, 0, 0, 0]);
        seg.extend([7; 100]);
        seg[16..18].copy_from_slice(&140u16.to_be_bytes());
        let c = csum::checksum(&seg[14..34], 0);
        seg[24..26].copy_from_slice(&c.to_be_bytes());
        let c = csum::checksum(&seg[34..], csum::pseudo([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 6, 120));
        seg[50..52].copy_from_slice(&c.to_be_bytes());
        let mut wrong = seg.clone();
        wrong[60] ^= 1;
        let mut padded = seg.clone();
        padded.extend([0; 20]);
        let arp = [&[2; 12][..], &[8, 6, 0, 1]].concat();
        let (mut gro, mut out) = (Gro::default(), Vec::new());
        for f in [&padded, &arp, &wrong, &arp[..10].to_vec()] {
            gro.receive_bytes(f, CsumStatus::None, &pool, &mut out);
        }
        gro.flush(&mut out);
        let got: Vec<_> = out.iter().map(|s| (s.data(), s.csum)).collect();
        let none = CsumStatus::None;
        let want =
            [(&arp[..], none), (&seg[..], CsumStatus::Unnecessary), (&wrong[..], none), (&arp[..10], none)];
        assert_eq!(got, want, "ARP may overtake, nothing else; a wrong sum stays wrong; padding goes");
    }
}
