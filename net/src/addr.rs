//! Addresses and links: what is ours, which source to use, setting devices up and down.

use crate::dev::{Dev, IfAddr, IfFlags, is_link_local};
use crate::neigh::{arp, ndp};
use crate::netns::Net;
use crate::route::{FibEntry, Prefix, Route, RouteKind};
use crate::skb::Skb;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use uapi::{Errno, Result};

/// Most addresses of a namespace.
const MAX_ADDRS: usize = 4096;

impl Net {
    /// True if the address is one of ours.
    pub fn is_local(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(a) if a.is_loopback() => self.lo.is_up(),
            _ => self.local.read().contains_key(&ip),
        }
    }

    /// True if the address is one of ours; link-local ones only count on their own device.
    pub(crate) fn is_local_on(&self, dev: &Dev, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V6(a) if is_link_local(&a) => dev.addrs.read().iter().any(|x| x.addr == ip),
            _ => self.is_local(ip),
        }
    }

    /// True if a socket may bind to the address.
    pub(crate) fn can_bind(&self, ip: IpAddr) -> bool {
        self.is_local(ip) || ip.is_multicast() || self.sysctl.flag("ipv4/ip_nonlocal_bind")
    }

    /// The device that has the address.
    pub(crate) fn local_device(&self, ip: IpAddr) -> Option<u32> {
        self.local.read().get(&ip).copied()
    }

    /// True for the limited broadcast and for those of our subnets.
    pub(crate) fn is_broadcast(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(a) => a.is_broadcast() || self.broadcasts.read().contains(&a),
            IpAddr::V6(_) => false,
        }
    }

    /// The source for asking about `to` on a device.
    pub(crate) fn source_v4(&self, dev: &Dev, to: Ipv4Addr) -> Option<Ipv4Addr> {
        let addrs = dev.addrs.read();
        let mut first = None;
        for a in addrs.iter() {
            let IpAddr::V4(v4) = a.addr else { continue };
            if Prefix::new(a.addr, a.prefix).is_some_and(|p| p.contains(IpAddr::V4(to))) {
                return Some(v4);
            }
            first = first.or(Some(v4));
        }
        drop(addrs);
        first.or_else(|| self.devs.all().iter().find_map(global_v4))
    }

    /// The source for asking about `to` on a device: same scope first (RFC 6724, rule 2 in short).
    pub(crate) fn source_v6(&self, dev: &Dev, to: &Ipv6Addr) -> Option<Ipv6Addr> {
        let addrs = dev.addrs.read();
        let v6 = || {
            addrs.iter().filter_map(|a| if let IpAddr::V6(v) = a.addr { Some((v, a.prefix)) } else { None })
        };
        let link = is_link_local(to) || (to.is_multicast() && to.segments()[0] & 0xf <= 2);
        if link {
            return v6().map(|(a, _)| a).find(is_link_local).or_else(|| v6().map(|(a, _)| a).next());
        }
        let near = v6().find(|(a, p)| {
            !is_link_local(a) && Prefix::new(IpAddr::V6(*a), *p).is_some_and(|n| n.contains(IpAddr::V6(*to)))
        });
        near.or_else(|| v6().find(|(a, _)| !is_link_local(a)))
            .map(|(a, _)| a)
            .or_else(|| v6().map(|(a, _)| a).next())
    }

    pub(crate) fn source_v6_for(&self, dev: &Dev, to: IpAddr) -> Option<IpAddr> {
        match to {
            IpAddr::V6(t) => self.source_v6(dev, &t).map(IpAddr::V6),
            IpAddr::V4(_) => None,
        }
    }

    /// How a packet gets to `dst`. `src`: the source is fixed; `oif`: so is the device.
    /// ENETUNREACH, EHOSTUNREACH, EACCES as the routes say.
    pub fn route_lookup(&self, dst: IpAddr, src: Option<IpAddr>, oif: u32) -> Result<Route> {
        let lo = &self.lo;
        if self.is_local(dst)
            && !(oif != 0 && matches!(dst, IpAddr::V6(a) if is_link_local(&a)) && {
                self.devs.get(oif).is_none_or(|d| !self.is_local_on(&d, dst))
            })
        {
            if !lo.is_up() {
                return Err(Errno::ENETUNREACH);
            }
            let src = src.unwrap_or(dst);
            return Ok(self.make_route(lo, None, src, RouteKind::Local, 0));
        }
        if dst.is_loopback() {
            return Err(Errno::ENETUNREACH);
        }
        let broadcast = self.is_broadcast(dst);
        let special = dst.is_multicast() || dst == IpAddr::V4(Ipv4Addr::BROADCAST);
        let kind = match (dst.is_multicast(), broadcast) {
            (true, _) => RouteKind::Multicast,
            (_, true) => RouteKind::Broadcast,
            _ => RouteKind::Unicast,
        };
        let found = {
            let fib = self.fib.read();
            fib.lookup(dst, oif).map(|r| (r.oif, r.gateway, r.prefsrc, r.kind, r.mtu))
        };
        let (dev, gw, prefsrc, mtu) = match found {
            Some((_, _, _, RouteKind::Blackhole, _)) => return Err(Errno::EINVAL),
            Some((_, _, _, RouteKind::Unreachable, _)) => return Err(Errno::EHOSTUNREACH),
            Some((_, _, _, RouteKind::Prohibit, _)) => return Err(Errno::EACCES),
            Some((i, gw, prefsrc, _, mtu)) => {
                let dev = self.devs.get(i).ok_or(Errno::ENETUNREACH)?;
                (dev, if special || broadcast { None } else { gw }, prefsrc, mtu)
            }
            None if oif != 0 => {
                // A device was named: everything is taken to be on its link, as Linux does.
                let dev = self.devs.get(oif).ok_or(Errno::ENODEV)?;
                (dev, None, None, 0)
            }
            None if special => {
                // No route for the group: the device of the source, or the first that can.
                let by_src = src.and_then(|s| self.local_device(s)).and_then(|i| self.devs.get(i));
                let any = || self.devs.all().into_iter().find(|d| d.is_up() && !d.is_loopback());
                (by_src.or_else(any).ok_or(Errno::ENETUNREACH)?, None, None, 0)
            }
            None => return Err(Errno::ENETUNREACH),
        };
        if !dev.is_up() {
            return Err(Errno::ENETUNREACH);
        }
        let src = match (src, prefsrc, dst) {
            (Some(s), ..) => s,
            (None, Some(p), _) => p,
            (None, None, IpAddr::V4(d)) => {
                let hop = if let Some(IpAddr::V4(g)) = gw { g } else { d };
                self.source_v4(&dev, hop).map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4)
            }
            (None, None, IpAddr::V6(d)) => IpAddr::V6(self.source_v6(&dev, &d).ok_or(Errno::EADDRNOTAVAIL)?),
        };
        let mut route = self.make_route(&dev, gw, src, kind, mtu);
        if kind == RouteKind::Unicast {
            route.mtu = self.pmtu.limit(dst, route.mtu, self.now());
        }
        Ok(route)
    }

    fn make_route(
        &self,
        dev: &Arc<Dev>,
        gateway: Option<IpAddr>,
        src: IpAddr,
        kind: RouteKind,
        mtu: u32,
    ) -> Route {
        let dm = dev.drv.mtu();
        let mtu = if mtu != 0 { mtu.min(dm) } else { dm };
        Route { dev: Arc::clone(dev), gateway, src, kind, mtu }
    }

    /// Adds an address: EEXIST if the device has it. The connected route comes with it when the device is up.
    pub fn addr_add(&self, ifindex: u32, mut a: IfAddr) -> Result<()> {
        let dev = self.devs.get(ifindex).ok_or(Errno::ENODEV)?;
        Prefix::new(a.addr, a.prefix).ok_or(Errno::EINVAL)?;
        if a.addr.is_multicast() || a.addr.is_unspecified() {
            return Err(Errno::EINVAL);
        }
        if a.label.is_empty() {
            a.label = dev.name().to_string();
        }
        {
            let mut addrs = dev.addrs.write();
            if addrs.iter().any(|x| x.addr == a.addr && (x.prefix == a.prefix || a.addr.is_ipv6())) {
                return Err(Errno::EEXIST);
            }
            if addrs.len() >= MAX_ADDRS {
                return Err(Errno::ENOBUFS);
            }
            addrs.push(a.clone());
        }
        self.rebuild_local();
        if dev.is_up() {
            self.connect_route(&dev, &a, true);
            self.announce(&dev, &a);
        }
        Ok(())
    }

    /// Removes an address (any prefix if `prefix` is `None`): EADDRNOTAVAIL if the device has it not.
    pub fn addr_del(&self, ifindex: u32, addr: IpAddr, prefix: Option<u8>) -> Result<()> {
        let dev = self.devs.get(ifindex).ok_or(Errno::ENODEV)?;
        let old = {
            let mut addrs = dev.addrs.write();
            let fits = |x: &IfAddr| x.addr == addr && prefix.is_none_or(|p| p == x.prefix);
            let i = addrs.iter().position(fits).ok_or(Errno::EADDRNOTAVAIL)?;
            addrs.remove(i)
        };
        self.connect_route(&dev, &old, false);
        self.fib.write().purge(|r| r.prefsrc == Some(addr));
        self.rebuild_local();
        Ok(())
    }

    fn announce(&self, dev: &Arc<Dev>, a: &IfAddr) {
        if dev.is_loopback() {
            return;
        }
        match a.addr {
            IpAddr::V4(v4) => arp::announce(self, dev, v4),
            IpAddr::V6(v6) => ndp::announce(self, dev, v6),
        }
        self.kick();
    }

    /// Adds or removes the connected route of an address.
    fn connect_route(&self, dev: &Arc<Dev>, a: &IfAddr, add: bool) {
        let Some(net) = Prefix::new(a.peer.unwrap_or(a.addr), a.prefix) else { return };
        let full = if a.addr.is_ipv4() { 32 } else { 128 };
        let host_only = a.prefix == full && a.peer.is_none() && a.addr.is_ipv4();
        if a.no_prefix_route || host_only || dev.is_loopback() {
            self.bump_routes();
            return;
        }
        let mut e = FibEntry::new(net, None, dev.ifindex);
        e.protocol = 2;
        if a.addr.is_ipv4() {
            e.prefsrc = Some(a.addr);
        } else {
            e.metric = 256;
        }
        if add {
            // Several addresses of one subnet share the first one's route.
            let _ = self.fib.write().insert(e, false, true, false);
        } else {
            // Another address may still need it.
            let heir =
                dev.addrs.read().iter().find(|x| Prefix::new(x.addr, x.prefix) == Some(net)).map(|x| x.addr);
            let mut fib = self.fib.write();
            fib.purge(|r| r.dst == net && r.oif == dev.ifindex && r.protocol == 2);
            if let (Some(h), true) = (heir, dev.is_up()) {
                e.prefsrc = e.prefsrc.map(|_| h);
                let _ = fib.insert(e, false, true, false);
            }
        }
        self.bump_routes();
    }

    pub(crate) fn rebuild_local(&self) {
        let devs = self.devs.all();
        let mut local = self.local.write();
        let mut bcast = self.broadcasts.write();
        local.clear();
        bcast.clear();
        for d in &devs {
            for a in d.addrs.read().iter() {
                local.insert(a.addr, d.ifindex);
                bcast.extend(a.directed_broadcast());
            }
        }
        drop(local);
        drop(bcast);
        self.bump_routes();
    }

    /// Sets a device up or down (`ip link set DEV up`).
    pub fn set_link_up(&self, ifindex: u32, up: bool) -> Result<()> {
        let dev = self.devs.get(ifindex).ok_or(Errno::ENODEV)?;
        if dev.is_up() == up {
            return Ok(());
        }
        if up {
            dev.drv.open()?;
            dev.set_flag(IfFlags::UP, true);
            self.link_is_up(&dev);
        } else {
            dev.set_flag(IfFlags::UP, false);
            dev.drv.close();
            dev.txq.purge();
            self.neigh.flush(ifindex, true);
            self.fib.write().purge(|r| r.oif == ifindex);
            // Linux keeps IPv4 addresses of a device that goes down and drops its IPv6 ones.
            dev.addrs.write().retain(|a| a.addr.is_ipv4());
            self.rebuild_local();
        }
        self.bump_routes();
        self.announce_link(&dev, IfFlags::UP);
        Ok(())
    }

    /// Changes a device's MTU. EINVAL outside what the device takes.
    pub fn set_mtu(&self, dev: &Arc<Dev>, mtu: u32) -> Result<()> {
        if mtu < 68 || mtu > dev.drv.max_mtu() {
            return Err(Errno::EINVAL);
        }
        dev.drv.set_mtu(mtu)?;
        self.link_changed(dev.ifindex);
        Ok(())
    }

    /// Changes a device's link-layer address.
    pub fn set_mac(&self, dev: &Arc<Dev>, mac: [u8; 6]) -> Result<()> {
        if !crate::eth::is_valid(mac) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        dev.drv.set_mac(mac)?;
        self.neigh.flush(dev.ifindex, false);
        self.link_changed(dev.ifindex);
        Ok(())
    }

    fn link_is_up(&self, dev: &Arc<Dev>) {
        let ensure = |a: IfAddr| {
            let mut v = dev.addrs.write();
            if !v.iter().any(|x| x.addr == a.addr) {
                v.push(a);
            }
        };
        if dev.is_loopback() {
            let mut a = IfAddr::new(Ipv4Addr::LOCALHOST.into(), 8);
            a.label = dev.name().to_string();
            ensure(a);
            ensure(IfAddr::new(Ipv6Addr::LOCALHOST.into(), 128));
        } else if !self.sysctl.flag("ipv6/conf/all/disable_ipv6") {
            ensure(IfAddr::new(IpAddr::V6(eui64(dev.drv.mac())), 64));
        }
        self.rebuild_local();
        let addrs = dev.addrs.read().clone();
        for a in &addrs {
            self.connect_route(dev, a, true);
            self.announce(dev, a);
        }
    }

    /// Joins (`on`) or leaves a multicast group on a device; 0 = the one its route names.
    pub(crate) fn group_change(&self, group: IpAddr, ifindex: u32, on: bool) -> Result<()> {
        let index = if ifindex != 0 { ifindex } else { self.route_lookup(group, None, 0)?.dev.ifindex };
        let dev = self.devs.get(index).ok_or(Errno::ENODEV)?;
        let mut g = dev.groups.lock();
        let at = g.iter().position(|(a, _)| *a == group);
        match (at, on) {
            (Some(i), true) => g[i].1 += 1,
            (None, true) if g.len() < 1024 => g.push((group, 1)),
            (None, true) => return Err(Errno::ENOBUFS),
            (Some(i), false) => {
                g[i].1 -= 1;
                if g[i].1 == 0 {
                    g.remove(i);
                }
            }
            (None, false) => return Err(Errno::EADDRNOTAVAIL),
        }
        Ok(())
    }

    /// True if packets to the group are for us on this device.
    pub(crate) fn in_group(&self, dev: &Dev, group: IpAddr) -> bool {
        match group {
            IpAddr::V4(a) if a == Ipv4Addr::new(224, 0, 0, 1) => return true,
            IpAddr::V6(a) => {
                if a == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)
                    || a == Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1)
                {
                    return true;
                }
                let solicits = |x: &IfAddr| matches!(x.addr, IpAddr::V6(v) if ndp::solicited_node(&v) == a);
                if dev.addrs.read().iter().any(solicits) {
                    return true;
                }
            }
            IpAddr::V4(_) => {}
        }
        if dev.is_loopback() {
            return self.in_any_group(group);
        }
        dev.groups.lock().iter().any(|(g, _)| *g == group)
    }

    /// True if any device is a member of the group.
    pub(crate) fn in_any_group(&self, group: IpAddr) -> bool {
        self.devs.all().iter().any(|d| d.groups.lock().iter().any(|(g, _)| *g == group))
    }

    /// A copy of a multicast packet for members on this host.
    pub(crate) fn loop_group(&self, h: &crate::ip::Header, skb: &Skb) {
        let mut copy = skb.copy(&self.pool);
        let len = copy.len();
        crate::ip::write_header(copy.push(crate::ip::header_len(h.dst)), h, len);
        if self.lo.is_up() {
            self.eth_xmit(&self.lo, [0; 6], copy);
        }
    }
}

fn global_v4(d: &Arc<Dev>) -> Option<Ipv4Addr> {
    d.addrs.read().iter().find_map(|a| match a.addr {
        IpAddr::V4(v) if a.scope == 0 => Some(v),
        _ => None,
    })
}

/// fe80::/64 from a MAC (RFC 4291, appendix A).
pub(crate) fn eui64(m: [u8; 6]) -> Ipv6Addr {
    let w = u16::from_be_bytes;
    Ipv6Addr::new(0xfe80, 0, 0, 0, w([m[0] ^ 2, m[1]]), w([m[2], 0xff]), w([0xfe, m[3]]), w([m[4], m[5]]))
}
