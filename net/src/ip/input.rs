//! Receiving: check, ours or not, put together, deliver.

use super::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, Packet, icmp, parse};
use crate::csum;
use crate::dev::Dev;
use crate::eth::{self, ETH_HLEN, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Mac};
use crate::neigh::arp;
use crate::netns::Net;
use crate::skb::{CsumStatus, PktType, Skb};
use crate::tcp::RxBatch;
use std::net::IpAddr;
use std::sync::Arc;

/// True if the transport checksum is good, or somebody trustworthy said so.
pub(crate) fn transport_ok(skb: &Skb, pkt: &Packet) -> bool {
    match skb.csum {
        CsumStatus::Unnecessary | CsumStatus::Partial { .. } => true,
        CsumStatus::None => {
            let Some(l4) = skb.data().get(pkt.l4..pkt.end) else { return false };
            csum::checksum(l4, csum::pseudo(pkt.src, pkt.dst, pkt.proto, l4.len())) == 0
        }
    }
}

impl Net {
    /// A frame from a device, Ethernet header first.
    pub(crate) fn eth_rcv(&self, dev: &Arc<Dev>, mut skb: Skb, batch: &mut RxBatch) {
        self.capture(dev, &skb);
        let Some((dst, src, proto)) = eth::parse(skb.data()) else { return };
        skb.dev = dev.ifindex;
        if !dev.is_loopback() {
            skb.pkt_type = if dst == eth::BROADCAST {
                PktType::Broadcast
            } else if eth::is_multicast(dst) {
                PktType::Multicast
            } else if dst == dev.drv.mac() {
                PktType::Host
            } else {
                // Not ours; only promiscuous listeners would want it.
                return;
            };
        }
        skb.pull(ETH_HLEN);
        match proto {
            ETH_P_IP | ETH_P_IPV6 => self.ip_rcv(dev, skb, src, batch),
            ETH_P_ARP if !dev.is_loopback() => arp::rcv(self, dev, skb.data()),
            _ => {}
        }
    }

    /// A packet, IP header first.
    pub(crate) fn ip_rcv(&self, dev: &Arc<Dev>, mut skb: Skb, from: Mac, batch: &mut RxBatch) {
        let Some(mut pkt) = parse(skb.data()) else { return };
        skb.trim(pkt.end);
        if pkt.src.is_multicast() || pkt.src == IpAddr::V4(std::net::Ipv4Addr::BROADCAST) {
            return;
        }
        // Loopback addresses never come from a wire (RFC 1122 section 3.2.1.3).
        if !dev.is_loopback() && (pkt.src.is_loopback() || pkt.dst.is_loopback()) {
            return;
        }
        if !self.accepts(dev, &pkt, skb.pkt_type) {
            if skb.pkt_type == PktType::Host {
                self.forward(dev, skb, &pkt);
            }
            return;
        }
        if let Some(f) = pkt.frag {
            let whole = self.frags.lock().add(self.now(), &skb, &pkt, &f, &self.pool);
            let Some(w) = whole else { return };
            skb = w;
            let Some(p) = parse(skb.data()) else { return };
            if p.frag.is_some() {
                return;
            }
            pkt = p;
        }
        self.raw_deliver(&skb, &pkt);
        match pkt.proto {
            IPPROTO_TCP => self.tcp_rcv(skb, &pkt, batch),
            IPPROTO_UDP => self.udp_rcv(dev, skb, &pkt),
            IPPROTO_ICMP if pkt.src.is_ipv4() => icmp::rcv_v4(self, dev, &skb, &pkt),
            IPPROTO_ICMPV6 if pkt.src.is_ipv6() => icmp::rcv_v6(self, dev, &skb, &pkt, from),
            // IGMP, and IPv6's "no next header".
            2 | 59 => {}
            _ => {
                if skb.pkt_type == PktType::Host && !self.raw.has(pkt.proto) {
                    icmp::send_unreachable(self, &skb, &pkt, icmp::Unreach::Protocol);
                }
            }
        }
    }

    fn accepts(&self, dev: &Arc<Dev>, pkt: &Packet, kind: PktType) -> bool {
        if pkt.dst.is_multicast() {
            return self.in_group(dev, pkt.dst);
        }
        if self.is_local(pkt.dst) {
            return true;
        }
        match pkt.dst {
            IpAddr::V4(d) => {
                d.is_broadcast()
                    || (kind == PktType::Broadcast || dev.is_loopback())
                        && dev.addrs.read().iter().any(|a| a.directed_broadcast() == Some(d))
            }
            IpAddr::V6(_) => false,
        }
    }

    /// A packet for somebody else.
    fn forward(&self, dev: &Arc<Dev>, mut skb: Skb, pkt: &Packet) {
        let v4 = pkt.src.is_ipv4();
        if !self.sysctl.forwarding(v4) || dev.is_loopback() || pkt.src.is_unspecified() {
            return;
        }
        if pkt.ttl <= 1 {
            icmp::send_time_exceeded(self, &skb, pkt);
            return;
        }
        let Ok(route) = self.route_lookup(pkt.dst, None, 0) else {
            icmp::send_unreachable(self, &skb, pkt, icmp::Unreach::Net);
            return;
        };
        let seg = skb.gso.map(|g| usize::from(g.size) + pkt.l4 + 60);
        let too_big = seg.is_none() && skb.len() > route.mtu as usize;
        let d = skb.data_mut();
        if v4 {
            let old = u16::from_be_bytes([d[8], d[9]]);
            d[8] -= 1;
            let field = u16::from_be_bytes([d[10], d[11]]);
            let new = csum::update(field, old, u16::from_be_bytes([d[8], d[9]]));
            d[10..12].copy_from_slice(&new.to_be_bytes());
        } else {
            d[7] -= 1;
            if too_big {
                icmp::send_too_big(self, &skb, route.mtu);
                return;
            }
        }
        self.ip_output(&route, pkt.dst, skb);
    }
}
