//! Received UDP: which sockets get it.

use super::queue::{Dgram, RecvMeta};
use super::sock::UdpInner;
use crate::csum;
use crate::dev::Dev;
use crate::ip::{Packet, icmp};
use crate::netns::Net;
use crate::poll;
use crate::skb::{CsumStatus, GsoType, PktType, Skb};
use crate::tcp::Keyed;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use uapi::Errno;

impl Net {
    /// A UDP packet for us, IP header first.
    pub(crate) fn udp_rcv(&self, dev: &Arc<Dev>, mut skb: Skb, pkt: &Packet) {
        let Some(l4) = skb.data().get(pkt.l4..pkt.end) else { return };
        let Some(h) = l4.get(..8) else { return };
        let (sport, dport) = (u16::from_be_bytes([h[0], h[1]]), u16::from_be_bytes([h[2], h[3]]));
        let mut len = usize::from(u16::from_be_bytes([h[4], h[5]]));
        let gso = skb.gso.filter(|g| g.kind == GsoType::Udp && g.size > 0);
        if gso.is_some() {
            len = l4.len();
        }
        if len < 8 || len > l4.len() {
            return;
        }
        let field = u16::from_be_bytes([h[6], h[7]]);
        if skb.csum == CsumStatus::None {
            // RFC 768: zero means that the sender computed none; IPv6 forbids that (RFC 8200 section 8.1).
            let absent = field == 0 && pkt.src.is_ipv4();
            if !absent
                && (field == 0 || csum::checksum(&l4[..len], csum::pseudo(pkt.src, pkt.dst, 17, len)) != 0)
            {
                return;
            }
        }
        let meta = RecvMeta {
            src: SocketAddr::new(pkt.src, sport),
            dst: pkt.dst,
            ifindex: dev.ifindex,
            ttl: pkt.ttl,
            tos: pkt.tos,
            stamp_ns: self.host.realtime_ns(),
            gro_size: gso.map_or(0, |g| g.size),
        };
        let many = pkt.dst.is_multicast() || skb.pkt_type != PktType::Host || self.is_broadcast(pkt.dst);
        let socks = self.udp.lookup(&meta, dport, many, self.tcp.hash);
        if socks.is_empty() {
            if !many {
                icmp::send_unreachable(self, &skb, pkt, icmp::Unreach::Port);
            }
            return;
        }
        skb.trim(pkt.l4 + len);
        skb.pull(pkt.l4 + 8);
        skb.csum = CsumStatus::None;
        let last = socks.len() - 1;
        for s in &socks[..last] {
            let copy = skb.copy(&self.pool);
            self.udp_give(s, copy, meta);
        }
        // A slot of a receive ring must not wait for a slow reader.
        let skb = if skb.is_foreign() { skb.copy(&self.pool) } else { skb };
        self.udp_give(&socks[last], skb, meta);
    }

    fn udp_give(&self, s: &UdpInner, skb: Skb, meta: RecvMeta) {
        let o = s.base.opts();
        let limit = if o.rcvbuf == 0 { self.sysctl.mem_default().0 } else { o.rcvbuf * 2 };
        let size = usize::from(meta.gro_size);
        if size == 0 || o.gro || skb.len() <= size {
            s.queue.push(Dgram { skb, meta }, limit);
        } else {
            for part in skb.data().chunks(size) {
                let meta = RecvMeta { gro_size: 0, ..meta };
                s.queue.push(Dgram { skb: self.pool.copy_from(part), meta }, limit);
            }
        }
        s.wq.wake(poll::IN | poll::RDNORM);
    }

    /// An ICMP error quoted a UDP packet of ours.
    pub(crate) fn udp_error(&self, local: (IpAddr, u16), remote: (IpAddr, u16), err: Errno, fatal: bool) {
        for s in self.udp.bound_to(local.1) {
            let st = s.state.lock();
            let connected = st.peer.is_some_and(|p| p.ip() == remote.0 && p.port() == remote.1);
            drop(st);
            let o = s.base.opts();
            let wants_all = if local.0.is_ipv4() { o.recverr } else { o.recverr6 };
            // Only connected sockets hear of errors, and of soft ones only if they asked (ip(7), IP_RECVERR).
            if connected && (fatal || wants_all) {
                s.state.lock().err = Some(err);
                s.wq.wake(poll::ALL);
            }
        }
    }
}

/// How well a socket fits; `None` = not at all.
pub(super) fn score(s: &UdpInner, m: &RecvMeta, dport: u16) -> Option<u8> {
    let st = s.state.lock();
    let local = st.local?;
    if local.port() != dport {
        return None;
    }
    let o = s.base.opts();
    if o.oif != 0 && o.oif != m.ifindex {
        return None;
    }
    let mut n = 1 + u8::from(o.oif != 0);
    match local.ip() {
        a if a == m.dst => n += 4,
        IpAddr::V4(a) if a.is_unspecified() && m.dst.is_ipv4() => n += 1,
        IpAddr::V6(a) if a.is_unspecified() && m.dst.is_ipv6() => n += 1,
        IpAddr::V6(a) if a.is_unspecified() && !o.v6only => {}
        _ => return None,
    }
    if let Some(p) = st.peer {
        if p.ip() != m.src.ip() || p.port() != m.src.port() {
            return None;
        }
        n += 8;
    }
    Some(n)
}

/// Which of equals gets a packet: by the sender, so that a flow stays with one socket.
pub(super) fn pick(key: Keyed, m: &RecvMeta, n: usize) -> usize {
    (key.hash(&m.src) % n.max(1) as u64) as usize
}
