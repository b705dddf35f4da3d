//! Reassembly of fragments (RFC 791, RFC 8200 section 4.5), bounded in memory and time.

use super::{Fragment, IPV6_HLEN, Packet};
use crate::skb::{Skb, SkbPool};
use klib::ktime::Ktime;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of pieces held at most (Linux: ipfrag_high_thresh).
const MAX_BYTES: usize = 4 << 20;
const MAX_PIECES: usize = 128;
const MAX_QUEUES: usize = 1024;

type Key = (IpAddr, IpAddr, u32, u8);

struct Queue {
    pieces: Vec<(usize, Vec<u8>)>,
    head: Option<Vec<u8>>,
    total: Option<usize>,
    bytes: usize,
    expires: Ktime,
    dead: bool,
}

/// Packets in pieces.
#[derive(Default)]
pub struct FragStore {
    queues: HashMap<Key, Queue>,
    bytes: usize,
}

impl FragStore {
    /// Takes a piece; gives the whole packet back when it was the last one missing.
    pub fn add(
        &mut self,
        now: Ktime,
        skb: &Skb,
        pkt: &Packet,
        frag: &Fragment,
        pool: &Arc<SkbPool>,
    ) -> Option<Skb> {
        let data = skb.data();
        let body = data.get(pkt.l4..pkt.end)?;
        if frag.offset + body.len() > 65_535
            || (frag.more && !body.len().is_multiple_of(8))
            || body.is_empty()
        {
            return None;
        }
        if self.bytes + body.len() > MAX_BYTES || self.queues.len() >= MAX_QUEUES {
            self.expire(now);
            if self.bytes + body.len() > MAX_BYTES || self.queues.len() >= MAX_QUEUES {
                self.drop_oldest();
            }
        }
        // IPv4 tells packets apart by protocol too; IPv6 does not.
        let proto = if pkt.src.is_ipv4() { pkt.proto } else { 0 };
        let key = (pkt.src, pkt.dst, frag.id, proto);
        let q = self.queues.entry(key).or_insert_with(|| Queue {
            pieces: Vec::new(),
            head: None,
            total: None,
            bytes: 0,
            expires: now + TIMEOUT,
            dead: false,
        });
        let (from, to) = (frag.offset, frag.offset + body.len());
        let clash = q.pieces.iter().any(|(o, p)| from < o + p.len() && *o < to);
        let bad_end = match (frag.more, q.total) {
            (false, Some(t)) => t != to,
            (true, Some(t)) => to > t,
            (false, None) => q.pieces.iter().any(|(o, p)| o + p.len() > to),
            (true, None) => false,
        };
        if q.dead || clash || bad_end || q.pieces.len() >= MAX_PIECES {
            // An exact repeat is harmless; any other overlap kills the packet (RFC 5722).
            if !q.pieces.iter().any(|(o, p)| *o == from && p.as_slice() == body) {
                self.bytes -= q.bytes;
                q.bytes = 0;
                q.pieces.clear();
                q.dead = true;
            }
            return None;
        }
        if from == 0 {
            let head_len = if pkt.src.is_ipv4() { pkt.l4 } else { pkt.l4 - 8 };
            let mut head = data.get(..head_len)?.to_vec();
            if let (false, Some(b)) = (pkt.src.is_ipv4(), head.get_mut(frag.nexthdr_at)) {
                *b = pkt.proto;
            }
            q.head = Some(head);
        }
        if !frag.more {
            q.total = Some(to);
        }
        q.pieces.push((from, body.to_vec()));
        q.bytes += body.len();
        self.bytes += body.len();
        if q.total != Some(q.bytes) {
            return None;
        }
        let q = self.queues.remove(&key)?;
        self.bytes -= q.bytes;
        let head = q.head?;
        let mut out = pool.alloc(head.len() + q.bytes);
        let o = out.put(head.len() + q.bytes);
        o[..head.len()].copy_from_slice(&head);
        for (at, p) in &q.pieces {
            o.get_mut(head.len() + at..head.len() + at + p.len())?.copy_from_slice(p);
        }
        if pkt.src.is_ipv4() {
            let total = u16::try_from(o.len()).ok()?;
            o[2..4].copy_from_slice(&total.to_be_bytes());
            o[6..8].fill(0);
            o[10..12].fill(0);
            let c = crate::csum::checksum(&o[..head.len()], 0);
            o[10..12].copy_from_slice(&c.to_be_bytes());
        } else {
            let len = u16::try_from(o.len() - IPV6_HLEN).ok()?;
            o[4..6].copy_from_slice(&len.to_be_bytes());
        }
        out.dev = skb.dev;
        out.pkt_type = skb.pkt_type;
        Some(out)
    }

    /// Forgets what is too old.
    pub fn expire(&mut self, now: Ktime) {
        let bytes = &mut self.bytes;
        self.queues.retain(|_, q| {
            let keep = q.expires > now;
            if !keep {
                *bytes -= q.bytes;
            }
            keep
        });
    }

    fn drop_oldest(&mut self) {
        if let Some(k) = self.queues.iter().min_by_key(|(_, q)| q.expires).map(|(k, _)| *k)
            && let Some(q) = self.queues.remove(&k)
        {
            self.bytes -= q.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::{Header, IPPROTO_UDP, parse, write_header};

    fn piece(body: &[u8], offset: usize, more: bool) -> Skb {
        let pool = SkbPool::new();
        let mut s = pool.copy_from(body);
        let h = Header {
            src: "10.0.0.1".parse().unwrap(),
            dst: "10.0.0.2".parse().unwrap(),
            proto: IPPROTO_UDP,
            ttl: 64,
            tos: 0,
            id: 7,
            df: false,
        };
        write_header(s.push(20), &h, body.len());
        let d = s.data_mut();
        let fo = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
        d[6..8].copy_from_slice(&fo.to_be_bytes());
        d[10..12].fill(0);
        let c = crate::csum::checksum(&d[..20], 0);
        d[10..12].copy_from_slice(&c.to_be_bytes());
        s
    }

    fn feed(st: &mut FragStore, s: &Skb, now: u64) -> Option<Skb> {
        let p = parse(s.data()).unwrap();
        st.add(Ktime(now), s, &p, &p.frag.unwrap(), &SkbPool::new())
    }

    #[test]
    fn any_order_gives_the_whole_and_overlaps_none() {
        let body: Vec<u8> = (0..100u8).collect();
        let mut st = FragStore::default();
        assert!(feed(&mut st, &piece(&body[64..], 64, false), 0).is_none());
        assert!(feed(&mut st, &piece(&body[..32], 0, true), 0).is_none());
        let whole = feed(&mut st, &piece(&body[32..64], 32, true), 0).expect("complete");
        let p = parse(whole.data()).expect("valid");
        assert!(p.frag.is_none());
        assert_eq!(&whole.data()[p.l4..p.end], &body[..]);
        assert_eq!(st.bytes, 0);
        feed(&mut st, &piece(&body[..32], 0, true), 0);
        assert!(feed(&mut st, &piece(&body[16..48], 16, true), 0).is_none());
        assert!(feed(&mut st, &piece(&body[32..], 32, false), 0).is_none());
        assert_eq!(st.bytes, 0);
        st.expire(Ktime(31_000_000_000));
        assert!(st.queues.is_empty());
    }
}
