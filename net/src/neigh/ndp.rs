//! Neighbour discovery for IPv6 (RFC 4861): solicitations and advertisements.

use super::Hint;
use crate::dev::Dev;
use crate::eth::{self, Mac};
use crate::ip::{self, IPPROTO_ICMPV6, Packet};
use crate::netns::Net;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

const NS: u8 = 135;
const NA: u8 = 136;
const OPT_SOURCE: u8 = 1;
const OPT_TARGET: u8 = 2;

/// ff02::1:ffXX:XXXX of an address.
pub(crate) fn solicited_node(a: &Ipv6Addr) -> Ipv6Addr {
    let o = a.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(o[13]), u16::from_be_bytes([o[14], o[15]]))
}

/// A message to be sent.
struct Message {
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    /// Which link-layer address option ours goes into.
    opt: u8,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    to: Mac,
}

fn send(net: &Net, dev: &Arc<Dev>, m: Message) {
    let Message { kind, flags, target, opt, src, dst, to } = m;
    let mac = dev.drv.mac();
    let mut skb = net.pool.alloc(128);
    let len = 32;
    let b = skb.put(len);
    b.fill(0);
    b[0] = kind;
    b[4] = flags;
    b[8..24].copy_from_slice(&target.octets());
    b[24] = opt;
    b[25] = 1;
    b[26..32].copy_from_slice(&mac);
    let c = crate::csum::checksum(b, crate::csum::pseudo_v6(&src, &dst, IPPROTO_ICMPV6, len));
    b[2..4].copy_from_slice(&c.to_be_bytes());
    let h = ip::Header {
        src: IpAddr::V6(src),
        dst: IpAddr::V6(dst),
        proto: IPPROTO_ICMPV6,
        ttl: 255,
        tos: 0,
        id: 0,
        df: false,
    };
    ip::write_header(skb.push(ip::IPV6_HLEN), &h, len);
    eth::write(skb.push(eth::ETH_HLEN), to, mac, eth::ETH_P_IPV6);
    net.dev_queue_xmit(dev, skb);
}

/// Asks who has `ip`.
pub(super) fn solicit(net: &Net, dev: &Arc<Dev>, ip: Ipv6Addr, to: Option<Mac>) {
    let Some(src) = net.source_v6(dev, &ip) else { return };
    let group = solicited_node(&ip);
    let (dst, mac) = match to {
        Some(m) => (ip, m),
        None => (group, eth::multicast_mac(IpAddr::V6(group))),
    };
    send(net, dev, Message { kind: NS, flags: 0, target: ip, opt: OPT_SOURCE, src, dst, to: mac });
}

/// Tells everyone our address (unsolicited advertisement).
pub(crate) fn announce(net: &Net, dev: &Arc<Dev>, ip: Ipv6Addr) {
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let to = eth::multicast_mac(IpAddr::V6(all));
    send(net, dev, Message { kind: NA, flags: 0x20, target: ip, opt: OPT_TARGET, src: ip, dst: all, to });
}

fn option(mut opts: &[u8], want: u8) -> Option<Mac> {
    while let [kind, len, ..] = *opts {
        let n = usize::from(len) * 8;
        if n == 0 || n > opts.len() {
            return None;
        }
        if kind == want {
            return opts.get(2..8)?.try_into().ok();
        }
        opts = &opts[n..];
    }
    None
}

/// A received ICMPv6 message of types 135 and 136; its checksum is verified already.
pub(crate) fn rcv(net: &Net, dev: &Arc<Dev>, pkt: &Packet, body: &[u8], from: Mac) {
    if pkt.ttl != 255 || body.len() < 24 || body[1] != 0 {
        return;
    }
    let mut t = [0; 16];
    t.copy_from_slice(&body[8..24]);
    let target = Ipv6Addr::from(t);
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (pkt.src, pkt.dst) else { return };
    if target.is_multicast() {
        return;
    }
    let ours = net.is_local_on(dev, IpAddr::V6(target));
    match body[0] {
        NS => {
            if !ours {
                return;
            }
            let lladdr = option(&body[24..], OPT_SOURCE);
            if src.is_unspecified() {
                // Duplicate address detection of somebody else: the answer goes to all nodes.
                announce(net, dev, target);
                return;
            }
            let mac = lladdr.unwrap_or(from);
            let hint = Hint { solicited: false, create: true, overrides: true };
            net.neigh.learn(net, dev, IpAddr::V6(src), mac, hint);
            send(
                net,
                dev,
                Message { kind: NA, flags: 0x60, target, opt: OPT_TARGET, src: target, dst: src, to: mac },
            );
        }
        NA if !ours => {
            let (solicited, overrides) = (body[4] & 0x40 != 0 && !dst.is_multicast(), body[4] & 0x20 != 0);
            if let Some(mac) = option(&body[24..], OPT_TARGET).or((!dst.is_multicast()).then_some(from)) {
                let hint = Hint { solicited, create: false, overrides };
                net.neigh.learn(net, dev, IpAddr::V6(target), mac, hint);
            }
        }
        _ => {}
    }
}
