//! ARP for IPv4 over Ethernet (RFC 826).

use super::Hint;
use crate::dev::Dev;
use crate::eth::{self, ETH_P_ARP, Mac};
use crate::netns::Net;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const ARP_LEN: usize = 28;

fn build(net: &Net, dev: &Arc<Dev>, op: u16, spa: Ipv4Addr, tha: Mac, tpa: Ipv4Addr, to: Mac) {
    let mut skb = net.pool.alloc(64);
    let sha = dev.drv.mac();
    let p = skb.put(ARP_LEN);
    p[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 0]);
    p[6..8].copy_from_slice(&op.to_be_bytes());
    p[8..14].copy_from_slice(&sha);
    p[14..18].copy_from_slice(&spa.octets());
    p[18..24].copy_from_slice(&tha);
    p[24..28].copy_from_slice(&tpa.octets());
    eth::write(skb.push(eth::ETH_HLEN), to, sha, ETH_P_ARP);
    net.dev_queue_xmit(dev, skb);
}

/// Asks who has `ip`.
pub(super) fn request(net: &Net, dev: &Arc<Dev>, ip: Ipv4Addr, to: Option<Mac>) {
    let spa = net.source_v4(dev, ip).unwrap_or(Ipv4Addr::UNSPECIFIED);
    build(net, dev, 1, spa, [0; 6], ip, to.unwrap_or(eth::BROADCAST));
}

/// Tells everyone our address (gratuitous, RFC 5227 section 3).
pub(crate) fn announce(net: &Net, dev: &Arc<Dev>, ip: Ipv4Addr) {
    build(net, dev, 1, ip, [0; 6], ip, eth::BROADCAST);
}

/// A received ARP packet (Ethernet header taken off).
pub(crate) fn rcv(net: &Net, dev: &Arc<Dev>, p: &[u8]) {
    let Some(p) = p.get(..ARP_LEN) else { return };
    // Ethernet, IPv4, lengths 6 and 4.
    if p[..6] != [0, 1, 8, 0, 6, 4] {
        return;
    }
    let op = u16::from_be_bytes([p[6], p[7]]);
    let mut sha = [0; 6];
    sha.copy_from_slice(&p[8..14]);
    let spa = Ipv4Addr::new(p[14], p[15], p[16], p[17]);
    let tpa = Ipv4Addr::new(p[24], p[25], p[26], p[27]);
    if !eth::is_valid(sha)
        || tpa.is_multicast()
        || tpa.is_loopback()
        || spa.is_multicast()
        || spa.is_broadcast()
    {
        return;
    }
    let ours = net.is_local(IpAddr::V4(tpa));
    match op {
        // A duplicate-address probe: defend what is ours, note nothing.
        1 if spa.is_unspecified() && ours => build(net, dev, 2, tpa, sha, spa, sha),
        1 if spa.is_unspecified() => {}
        1 => {
            if net.is_local(IpAddr::V4(spa)) {
                return;
            }
            let hint = Hint { solicited: false, create: ours && spa != tpa, overrides: true };
            net.neigh.learn(net, dev, IpAddr::V4(spa), sha, hint);
            if ours {
                build(net, dev, 2, tpa, sha, spa, sha);
            }
        }
        2 if !net.is_local(IpAddr::V4(spa)) => {
            // Only a unicast answer confirms that the neighbour hears us.
            let hint = Hint { solicited: ours, create: false, overrides: true };
            net.neigh.learn(net, dev, IpAddr::V4(spa), sha, hint);
        }
        _ => {}
    }
}
