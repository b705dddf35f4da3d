//! Sending: route, fragment, next hop, device.

use super::{Header, IPV4_HLEN, IPV6_HLEN, header_len, parse, write_header};
use crate::dev::{Dev, Features};
use crate::eth::{self, ETH_HLEN, ETH_P_IP, ETH_P_IPV6, Mac};
use crate::gso;
use crate::netns::Net;
use crate::route::{Route, RouteKind};
use crate::skb::{CsumStatus, GsoType, Skb};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uapi::{Errno, Result};

impl Net {
    /// Puts an IP header in front of `skb` and sends it by `route`. EMSGSIZE if it may not be cut and is too big.
    pub(crate) fn ip_send(&self, route: &Route, mut skb: Skb, h: &Header) -> Result<()> {
        let len = skb.len();
        if len + header_len(h.dst) > 65_535 {
            return Err(Errno::EMSGSIZE);
        }
        if h.df && skb.gso.is_none() && len + header_len(h.dst) > route.mtu as usize {
            return Err(Errno::EMSGSIZE);
        }
        write_header(skb.push(header_len(h.dst)), h, len);
        self.ip_output(route, h.dst, skb);
        Ok(())
    }

    /// Sends a packet (IP header first).
    pub(crate) fn ip_output(&self, route: &Route, dst: IpAddr, skb: Skb) {
        let dev = &route.dev;
        if dev.is_loopback() {
            return self.eth_xmit(dev, [0; 6], skb);
        }
        if skb.gso.is_none() && skb.len() > route.mtu as usize {
            return self.fragment(route, dst, skb);
        }
        if dst.is_multicast() || route.kind == RouteKind::Broadcast {
            let mac = if dst.is_multicast() { eth::multicast_mac(dst) } else { eth::BROADCAST };
            return self.eth_xmit(dev, mac, skb);
        }
        let hop = route.gateway.unwrap_or(dst);
        if let Some((mac, skb)) = self.neigh.resolve(self, dev, hop, skb) {
            self.eth_xmit(dev, mac, skb);
        }
    }

    /// Puts an Ethernet header in front of an IP packet and sends it.
    pub(crate) fn eth_xmit(&self, dev: &Arc<Dev>, to: Mac, mut skb: Skb) {
        let proto = match skb.data().first().map(|b| b >> 4) {
            Some(6) => ETH_P_IPV6,
            _ => ETH_P_IP,
        };
        eth::write(skb.push(ETH_HLEN), to, dev.drv.mac(), proto);
        self.dev_queue_xmit(dev, skb);
    }

    /// Hands a complete frame to a device, doing in software what the device cannot.
    pub(crate) fn dev_queue_xmit(&self, dev: &Arc<Dev>, mut skb: Skb) {
        if !dev.is_up() {
            return;
        }
        skb.dev = dev.ifindex;
        let f = dev.drv.features();
        self.mark_dirty(dev.ifindex);
        if let Some(g) = skb.gso {
            let needed = match g.kind {
                GsoType::TcpV4 => Features::TSO4 | Features::HW_CSUM,
                GsoType::TcpV6 => Features::TSO6 | Features::HW_CSUM,
                GsoType::Udp => Features::USO | Features::HW_CSUM,
            };
            let fits = skb.len() <= dev.drv.gso_max_size() as usize + ETH_HLEN;
            if !f.contains(needed) || !fits {
                gso::segment(&skb, &self.pool, |seg| {
                    self.capture(dev, &seg);
                    dev.txq.send(&*dev.drv, seg);
                });
                return;
            }
        } else if !f.contains(Features::HW_CSUM)
            && matches!(skb.csum, CsumStatus::Partial { .. })
            && !gso::finish_checksum(&mut skb)
        {
            return;
        }
        self.capture(dev, &skb);
        dev.txq.send(&*dev.drv, skb);
    }

    /// Cuts a packet that is larger than the path allows.
    fn fragment(&self, route: &Route, dst: IpAddr, mut skb: Skb) {
        // A checksum that spans the pieces must be complete before the cut.
        if !gso::finish_checksum(&mut skb) {
            return;
        }
        let Some(p) = parse(skb.data()) else { return };
        let mtu = route.mtu as usize;
        let v4 = p.src.is_ipv4();
        let df = v4 && skb.data().get(6).is_some_and(|b| b & 0x40 != 0);
        if df {
            super::icmp::send_too_big(self, &skb, route.mtu);
            return;
        }
        let hlen = if v4 { p.l4 } else { IPV6_HLEN };
        let extra = if v4 { 0 } else { 8 };
        let Some(room) = mtu.checked_sub(hlen + extra).map(|r| r & !7).filter(|r| *r >= 8) else { return };
        let data = skb.data();
        let Some(body) = data.get(hlen..p.end) else { return };
        let id = self.ip_id.fetch_add(1, Ordering::Relaxed);
        let base = p.frag.map_or(0, |f| if v4 { f.offset } else { 0 });
        let last_more = v4 && p.frag.is_some_and(|f| f.more);
        let mut at = 0;
        while at < body.len() {
            let part = &body[at..body.len().min(at + room)];
            let more = at + part.len() < body.len() || last_more;
            let mut f = self.pool.alloc(hlen + extra + part.len());
            let o = f.put(hlen + extra + part.len());
            o[..hlen].copy_from_slice(&data[..hlen]);
            o[hlen + extra..].copy_from_slice(part);
            let place = base + at;
            if v4 {
                let total = u16::try_from(hlen + part.len()).unwrap_or(0);
                o[2..4].copy_from_slice(&total.to_be_bytes());
                if p.frag.is_none() {
                    o[4..6].copy_from_slice(&(id as u16).to_be_bytes());
                }
                let fo = u16::try_from(place / 8).unwrap_or(0) | if more { 0x2000 } else { 0 };
                o[6..8].copy_from_slice(&fo.to_be_bytes());
                o[10..12].fill(0);
                let c = crate::csum::checksum(&o[..hlen.max(IPV4_HLEN)], 0);
                o[10..12].copy_from_slice(&c.to_be_bytes());
            } else {
                let len = u16::try_from(8 + part.len()).unwrap_or(0);
                o[4..6].copy_from_slice(&len.to_be_bytes());
                let next = std::mem::replace(&mut o[6], 44);
                o[hlen] = next;
                o[hlen + 1] = 0;
                let fo = u16::try_from(place).unwrap_or(0) | u16::from(more);
                o[hlen + 2..hlen + 4].copy_from_slice(&fo.to_be_bytes());
                o[hlen + 4..hlen + 8].copy_from_slice(&id.to_be_bytes());
            }
            self.ip_output(route, dst, f);
            at += room;
        }
    }
}
