//! ICMP for both versions: echo, errors to others, errors from others to our sockets (RFC 792, RFC 4443, RFC 1122).

use super::{Header, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, IPV6_HLEN, Packet};
use crate::csum;
use crate::dev::Dev;
use crate::eth::Mac;
use crate::neigh::ndp;
use crate::netns::Net;
use crate::skb::{PktType, Skb};
use std::net::IpAddr;
use std::sync::Arc;
use uapi::Errno;

/// Why something could not be delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreach {
    /// No route.
    Net,
    /// The neighbour does not answer.
    Host,
    /// No such protocol here.
    Protocol,
    /// Nobody listens there.
    Port,
}

/// Builds and sends an ICMP message; the checksum is filled in.
fn send(net: &Net, src: IpAddr, dst: IpAddr, body: &[u8], tos: u8) {
    let Ok(route) = net.route_lookup(dst, Some(src), 0) else { return };
    let mut skb = net.pool.copy_from(body);
    let v4 = dst.is_ipv4();
    let b = skb.data_mut();
    if b.len() < 8 {
        return;
    }
    b[2..4].fill(0);
    let acc = if v4 { 0 } else { csum::pseudo(src, dst, IPPROTO_ICMPV6, b.len()) };
    let c = csum::checksum(b, acc);
    b[2..4].copy_from_slice(&c.to_be_bytes());
    let proto = if v4 { IPPROTO_ICMP } else { IPPROTO_ICMPV6 };
    let h = Header { src, dst, proto, ttl: 64, tos, id: net.next_ip_id(), df: false };
    // An answer that does not fit anywhere is not sent; nobody waits for the error.
    let _ = net.ip_send(&route, skb, &h);
}

fn error_allowed(net: &Net, skb: &Skb, pkt: &Packet) -> bool {
    // RFC 1122 section 3.2.2: never about errors, groups, broadcasts, later fragments or unusable sources.
    if skb.pkt_type != PktType::Host
        || pkt.dst.is_multicast()
        || pkt.src.is_unspecified()
        || pkt.src.is_multicast()
    {
        return false;
    }
    if pkt.frag.is_some_and(|f| f.offset != 0) {
        return false;
    }
    let kind = skb.data().get(pkt.l4).copied();
    let about_error = match pkt.proto {
        IPPROTO_ICMP => !matches!(kind, Some(0 | 8)),
        IPPROTO_ICMPV6 => !matches!(kind, Some(128..)),
        _ => false,
    };
    !about_error && net.icmp_limit.allow(net.now())
}

fn send_error(net: &Net, skb: &Skb, pkt: &Packet, v4: (u8, u8), v6: (u8, u8), word: u32) {
    if !error_allowed(net, skb, pkt) {
        return;
    }
    let Ok(route) = net.route_lookup(pkt.src, None, 0) else { return };
    let src = if net.is_local(pkt.dst) { pkt.dst } else { route.src };
    let (kind, code) = if pkt.src.is_ipv4() { v4 } else { v6 };
    // RFC 1812: up to 576 bytes; RFC 4443: up to the minimum MTU.
    let max = if pkt.src.is_ipv4() { 576 - 28 } else { 1280 - 48 };
    let quoted = &skb.data()[..skb.len().min(max)];
    let mut body = Vec::with_capacity(8 + quoted.len());
    body.extend_from_slice(&[kind, code, 0, 0]);
    body.extend_from_slice(&word.to_be_bytes());
    body.extend_from_slice(quoted);
    send(net, src, pkt.src, &body, if pkt.src.is_ipv4() { 0xc0 } else { 0 });
}

/// Tells the sender that its packet could not be delivered.
pub(crate) fn send_unreachable(net: &Net, skb: &Skb, pkt: &Packet, why: Unreach) {
    let (v4, v6, word) = match why {
        Unreach::Net => ((3, 0), (1, 0), 0),
        Unreach::Host => ((3, 1), (1, 3), 0),
        Unreach::Port => ((3, 3), (1, 4), 0),
        // IPv6: parameter problem, unrecognised next header; the pointer names the fixed header's field.
        Unreach::Protocol => ((3, 2), (4, 1), if pkt.src.is_ipv6() { 6 } else { 0 }),
    };
    send_error(net, skb, pkt, v4, v6, word);
}

/// The hop limit ran out here.
pub(crate) fn send_time_exceeded(net: &Net, skb: &Skb, pkt: &Packet) {
    send_error(net, skb, pkt, (11, 0), (3, 0), 0);
}

/// The packet does not fit the next link.
pub(crate) fn send_too_big(net: &Net, skb: &Skb, mtu: u32) {
    if let Some(pkt) = super::parse(skb.data()) {
        if net.is_local(pkt.src) {
            deliver_error(net, skb.data(), Errno::EMSGSIZE, false, mtu);
        } else {
            send_error(net, skb, &pkt, (3, 4), (2, 0), if pkt.src.is_ipv4() { mtu & 0xffff } else { mtu });
        }
    }
}

/// A neighbour did not answer: the packet that waited for it is undeliverable.
pub(crate) fn link_failure(net: &Net, skb: &Skb) {
    let Some(pkt) = super::parse(skb.data()) else { return };
    if net.is_local(pkt.src) {
        deliver_error(net, skb.data(), Errno::EHOSTUNREACH, true, 0);
    } else {
        send_unreachable(net, skb, &pkt, Unreach::Host);
    }
}

/// The error number of an ICMP error (tables of Linux: `icmp_err_convert`, `icmpv6_err_convert`) and whether it is fatal.
fn convert(v4: bool, kind: u8, code: u8) -> Option<(Errno, bool)> {
    Some(match (v4, kind, code) {
        (true, 3, 0 | 5 | 6 | 9 | 11 | 13) => (Errno::ENETUNREACH, false),
        (true, 3, 2) => (Errno::ENOPROTOOPT, true),
        (true, 3, 3) => (Errno::ECONNREFUSED, true),
        (true, 3, 4) => (Errno::EMSGSIZE, false),
        (true, 3, _) => (Errno::EHOSTUNREACH, false),
        (true, 11, _) => (Errno::EHOSTUNREACH, false),
        (true, 12, _) => (Errno::EPROTO, true),
        (false, 1, 4) => (Errno::ECONNREFUSED, true),
        (false, 1, 1) => (Errno::EACCES, true),
        (false, 1, 0) => (Errno::ENETUNREACH, false),
        (false, 1, _) => (Errno::EHOSTUNREACH, false),
        (false, 2, _) => (Errno::EMSGSIZE, false),
        (false, 3, _) => (Errno::EHOSTUNREACH, false),
        (false, 4, _) => (Errno::EPROTO, true),
        _ => return None,
    })
}

/// Gives an error to the socket whose packet `quoted` (IP header first, perhaps cut short) was.
/// `mtu`: what the path carries, where the error says it.
fn deliver_error(net: &Net, quoted: &[u8], err: Errno, fatal: bool, mtu: u32) {
    let Some((src, dst, proto, l4)) = quoted_header(quoted) else { return };
    let Some(p) = quoted.get(l4..l4 + 8) else { return };
    let (sport, dport) = (u16::from_be_bytes([p[0], p[1]]), u16::from_be_bytes([p[2], p[3]]));
    match proto {
        IPPROTO_TCP => {
            let seq = u32::from_be_bytes([p[4], p[5], p[6], p[7]]);
            net.tcp_error((src, sport), (dst, dport), seq, err, mtu);
        }
        IPPROTO_UDP => net.udp_error((src, sport), (dst, dport), err, fatal),
        _ => net.raw_error(src, dst, proto, u16::from_be_bytes([p[4], p[5]]), err, fatal),
    }
}

fn quoted_header(d: &[u8]) -> Option<(IpAddr, IpAddr, u8, usize)> {
    match d.first()? >> 4 {
        4 => {
            let h = d.get(..20)?;
            let s: [u8; 4] = h[12..16].try_into().ok()?;
            let t: [u8; 4] = h[16..20].try_into().ok()?;
            Some((s.into(), t.into(), h[9], usize::from(h[0] & 15) * 4))
        }
        6 => {
            let h = d.get(..IPV6_HLEN)?;
            let s: [u8; 16] = h[8..24].try_into().ok()?;
            let t: [u8; 16] = h[24..40].try_into().ok()?;
            Some((s.into(), t.into(), h[6], IPV6_HLEN))
        }
        _ => None,
    }
}

/// A received ICMPv4 message.
pub(crate) fn rcv_v4(net: &Net, _dev: &Arc<Dev>, skb: &Skb, pkt: &Packet) {
    let Some(b) = skb.data().get(pkt.l4..pkt.end) else { return };
    if b.len() < 8 || csum::checksum(b, 0) != 0 {
        return;
    }
    match b[0] {
        8 => {
            let ignore = net.sysctl.flag("ipv4/icmp_echo_ignore_all")
                || (skb.pkt_type != PktType::Host && net.sysctl.flag("ipv4/icmp_echo_ignore_broadcasts"));
            if !ignore && !pkt.dst.is_multicast() {
                let mut r = b.to_vec();
                r[0] = 0;
                let src = if net.is_local(pkt.dst) { Some(pkt.dst) } else { None };
                let Ok(route) = net.route_lookup(pkt.src, src, 0) else { return };
                send(net, src.unwrap_or(route.src), pkt.src, &r, pkt.tos);
            }
        }
        0 => net.ping_deliver(skb, pkt, u16::from_be_bytes([b[4], b[5]])),
        kind @ (3 | 11 | 12) => {
            if let Some((err, fatal)) = convert(true, kind, b[1]) {
                let mtu =
                    if err == Errno::EMSGSIZE { u32::from(u16::from_be_bytes([b[6], b[7]])) } else { 0 };
                deliver_error(net, &b[8..], err, fatal, mtu);
            }
        }
        _ => {}
    }
}

/// A received ICMPv6 message.
pub(crate) fn rcv_v6(net: &Net, dev: &Arc<Dev>, skb: &Skb, pkt: &Packet, from: Mac) {
    let Some(b) = skb.data().get(pkt.l4..pkt.end) else { return };
    if b.len() < 8 || csum::checksum(b, csum::pseudo(pkt.src, pkt.dst, IPPROTO_ICMPV6, b.len())) != 0 {
        return;
    }
    match b[0] {
        128 => {
            let mut r = b.to_vec();
            r[0] = 129;
            let src = if net.is_local(pkt.dst) { Some(pkt.dst) } else { net.source_v6_for(dev, pkt.src) };
            let Some(src) = src else { return };
            send(net, src, pkt.src, &r, pkt.tos);
        }
        129 => net.ping_deliver(skb, pkt, u16::from_be_bytes([b[4], b[5]])),
        135 | 136 => ndp::rcv(net, dev, pkt, b, from),
        kind @ 1..=4 => {
            if let Some((err, fatal)) = convert(false, kind, b[1]) {
                let word = u32::from_be_bytes([b[4], b[5], b[6], b[7]]);
                deliver_error(net, &b[8..], err, fatal, if err == Errno::EMSGSIZE { word } else { 0 });
            }
        }
        _ => {}
    }
}
