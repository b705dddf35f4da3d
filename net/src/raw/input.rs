//! Copies of received packets for raw sockets, echo replies for ping sockets.

use super::sock::{Kind, RawInner};
use crate::ip::{IPPROTO_ICMP, IPPROTO_ICMPV6, Packet};
use crate::netns::Net;
use crate::poll;
use crate::skb::Skb;
use crate::udp::{Dgram, RecvMeta};
use std::net::{IpAddr, SocketAddr};
use uapi::Errno;

fn wants(s: &RawInner, pkt: &Packet, ifindex: u32) -> bool {
    let o = s.base.opts();
    let st = s.state.lock();
    (o.oif == 0 || o.oif == ifindex)
        && st.local.is_none_or(|a| a.is_unspecified() || a == pkt.dst)
        && st.peer.is_none_or(|p| p.ip() == pkt.src)
}

impl Net {
    fn raw_give(&self, s: &RawInner, skb: &Skb, pkt: &Packet, from: usize) {
        let Some(d) = skb.data().get(from..pkt.end) else { return };
        let o = s.base.opts();
        let limit = if o.rcvbuf == 0 { self.sysctl.mem_default().0 } else { o.rcvbuf * 2 };
        let meta = RecvMeta {
            src: SocketAddr::new(pkt.src, 0),
            dst: pkt.dst,
            ifindex: skb.dev,
            ttl: pkt.ttl,
            tos: pkt.tos,
            stamp_ns: self.host.realtime_ns(),
            gro_size: 0,
        };
        if s.queue.push(Dgram { skb: self.pool.copy_from(d), meta }, limit) {
            s.wq.wake(poll::IN | poll::RDNORM);
        }
    }

    /// Gives copies of a packet to the raw sockets of its protocol.
    pub(crate) fn raw_deliver(&self, skb: &Skb, pkt: &Packet) {
        if !self.raw.has(pkt.proto) {
            return;
        }
        let v4 = pkt.src.is_ipv4();
        let icmp_type = skb.data().get(pkt.l4).copied().unwrap_or(0);
        for s in self.raw.of(pkt.proto, v4) {
            if !wants(&s, pkt, skb.dev) {
                continue;
            }
            let o = s.base.opts();
            let blocked = match pkt.proto {
                IPPROTO_ICMP => icmp_type < 32 && o.icmp_filter & (1 << icmp_type) != 0,
                IPPROTO_ICMPV6 => o
                    .icmp6_filter
                    .get(usize::from(icmp_type >> 5))
                    .is_some_and(|w| w & (1 << (icmp_type & 31)) != 0),
                _ => false,
            };
            if !blocked {
                // IPv4 raw sockets see the header, IPv6 ones do not (raw(7), RFC 3542 section 3).
                self.raw_give(&s, skb, pkt, if v4 { 0 } else { pkt.l4 });
            }
        }
    }

    /// Gives an echo reply to the ping socket with its identifier.
    pub(crate) fn ping_deliver(&self, skb: &Skb, pkt: &Packet, id: u16) {
        if let Some(s) = self.raw.ping(id, pkt.src.is_ipv4())
            && wants(&s, pkt, skb.dev)
        {
            self.raw_give(&s, skb, pkt, pkt.l4);
        }
    }

    /// An ICMP error quoted a packet of ours that was neither TCP nor UDP.
    pub(crate) fn raw_error(
        &self,
        _src: IpAddr,
        dst: IpAddr,
        proto: u8,
        icmp_id: u16,
        err: Errno,
        fatal: bool,
    ) {
        let v4 = dst.is_ipv4();
        let mut socks = self.raw.of(proto, v4);
        if matches!(proto, IPPROTO_ICMP | IPPROTO_ICMPV6) {
            socks.extend(self.raw.ping(icmp_id, v4));
        }
        for s in socks {
            let o = s.base.opts();
            let asked = if v4 { o.recverr } else { o.recverr6 };
            let mut st = s.state.lock();
            let peer = st.peer.is_some_and(|p| p.ip() == dst);
            if (peer && fatal) || (asked && (peer || matches!(s.kind, Kind::Ping(_)))) {
                st.err = Some(err);
                drop(st);
                s.wq.wake(poll::ALL);
            }
        }
    }
}
