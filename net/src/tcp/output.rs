//! What engines wrote goes to the internet layer; resets for segments that belong to nobody.

use super::ehash::FlowKey;
use super::opts::TcpOpts;
use super::segment::{ACK, RST, SYN, Segment};
use crate::csum;
use crate::ip::{Header, IPPROTO_TCP, Packet};
use crate::netns::Net;
use crate::route::Route;
use crate::skb::{CsumStatus, Skb};

/// Sends a packet of a connection (IP header first, checksum `Partial`).
pub(super) fn send(net: &Net, route: Option<&Route>, key: &FlowKey, opts: &TcpOpts, mut skb: Skb) {
    let Some(route) = route else { return };
    skb.mark = opts.mark;
    if opts.tos != 0 {
        let d = skb.data_mut();
        if key.laddr.is_ipv4() {
            let old = u16::from_be_bytes([d[0], d[1]]);
            d[1] = opts.tos;
            let field = u16::from_be_bytes([d[10], d[11]]);
            let new = csum::update(field, old, u16::from_be_bytes([d[0], d[1]]));
            d[10..12].copy_from_slice(&new.to_be_bytes());
        } else {
            d[0] = 0x60 | (opts.tos >> 4);
            d[1] = (d[1] & 0x0f) | (opts.tos << 4);
        }
    }
    net.ip_output(route, key.raddr, skb);
}

/// A bare segment without a connection behind it.
pub(super) fn bare(net: &Net, key: &FlowKey, seq: u32, ack: Option<u32>, rst: bool) {
    let Ok(route) = net.route_lookup(key.raddr, Some(key.laddr), 0) else { return };
    let mut skb = net.pool.alloc(60);
    let t = skb.put(20);
    t.fill(0);
    t[..2].copy_from_slice(&key.lport.to_be_bytes());
    t[2..4].copy_from_slice(&key.rport.to_be_bytes());
    t[4..8].copy_from_slice(&seq.to_be_bytes());
    t[8..12].copy_from_slice(&ack.unwrap_or(0).to_be_bytes());
    t[12] = 0x50;
    t[13] = if ack.is_some() { ACK } else { 0 } | if rst { RST } else { 0 };
    let c = csum::fold(csum::pseudo(key.laddr, key.raddr, IPPROTO_TCP, 20));
    t[16..18].copy_from_slice(&c.to_be_bytes());
    skb.csum = CsumStatus::Partial { start: 0, offset: 16 };
    let h = Header { src: key.laddr, dst: key.raddr, proto: IPPROTO_TCP, ttl: 64, tos: 0, id: 0, df: true };
    let _ = net.ip_send(&route, skb, &h);
}

/// Answers a segment that belongs to no connection (RFC 9293 section 3.10.7.1).
pub(super) fn reset_reply(net: &Net, pkt: &Packet, seg: &Segment) {
    if seg.flags & RST != 0 || pkt.dst.is_multicast() || pkt.src.is_unspecified() || !net.is_local(pkt.dst) {
        return;
    }
    let key = FlowKey { laddr: pkt.dst, lport: seg.dport, raddr: pkt.src, rport: seg.sport };
    if seg.flags & ACK != 0 {
        bare(net, &key, seg.ack, None, true);
    } else {
        let len = seg.seq_len().max(u32::from(seg.flags & SYN != 0));
        bare(net, &key, 0, Some(seg.seq.wrapping_add(len)), true);
    }
}
