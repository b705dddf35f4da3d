//! How a datagram is to be sent: route, source, header fields.

use super::queue::SendCtl;
use crate::ip::Header;
use crate::netns::Net;
use crate::route::{Route, RouteKind};
use crate::sockopt::{BaseOpts, SockBase, scope};
use std::net::{IpAddr, SocketAddr};
use uapi::{Errno, Result};

/// A decided way for a datagram.
pub(crate) struct Plan {
    pub route: Route,
    pub header: Header,
    /// IP_PMTUDISC_DO or PROBE: never cut.
    pub never_cut: bool,
    /// Give a copy to our own members of the group.
    pub loop_back: bool,
}

impl Plan {
    /// Decides. `local` is the bound address if there is one.
    pub(crate) fn new(
        net: &Net,
        base: &SockBase,
        o: &BaseOpts,
        local: Option<IpAddr>,
        dst: SocketAddr,
        ctl: &SendCtl,
        proto: u8,
    ) -> Result<Self> {
        let ip = dst.ip();
        let mut oif = if ctl.ifindex != 0 { ctl.ifindex } else { o.oif };
        if oif == 0 {
            oif = scope(&dst);
        }
        if oif == 0 && ip.is_multicast() {
            oif = o.mc_if;
        }
        let src = ctl.src.filter(|a| !a.is_unspecified()).or(local.filter(|a| !a.is_unspecified()));
        if let Some(s) = src
            && s.is_ipv4() != ip.is_ipv4()
        {
            return Err(Errno::EINVAL);
        }
        // A socket bound to a group or a broadcast address does not send from it.
        let src = src.filter(|a| !a.is_multicast() && !net.is_broadcast(*a));
        let route = net.route_lookup(ip, src, oif)?;
        if route.kind == RouteKind::Broadcast && !o.broadcast {
            return Err(Errno::EACCES);
        }
        let group = ip.is_multicast();
        let v4 = ip.is_ipv4();
        let default = net.sysctl.default_ttl();
        let set = if v4 { o.ttl } else { o.hops };
        let ttl = match ctl.ttl {
            Some(t) => t,
            None if group => o.mc_ttl,
            None if set != 0 => set,
            None => default,
        };
        let _ = base;
        Ok(Self {
            header: Header {
                src: src.unwrap_or(route.src),
                dst: ip,
                proto,
                ttl,
                tos: ctl.tos.unwrap_or(if v4 { o.tos } else { o.tclass }),
                id: 0,
                df: false,
            },
            never_cut: matches!(o.mtu_discover, 2 | 3),
            loop_back: group && o.mc_loop && net.in_any_group(ip),
            route,
        })
    }

    /// Sends a finished transport packet.
    pub(crate) fn send(&self, net: &Net, skb: crate::skb::Skb, discover: u8) -> Result<()> {
        let mut h = self.header;
        let fits = skb.len() + crate::ip::header_len(h.dst) <= self.route.mtu as usize || skb.gso.is_some();
        h.df = h.dst.is_ipv4() && (self.never_cut || (fits && discover != 0));
        h.id = if h.df { 0 } else { net.next_ip_id() };
        if self.loop_back {
            net.loop_group(&h, &skb);
        }
        net.ip_send(&self.route, skb, &h)
    }
}
