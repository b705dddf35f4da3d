//! RTM_*ROUTE: routes (linux/rtnetlink.h).

use super::Request;
use super::codec::{Attrs, Dump, Msg, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, byte, word};
use crate::netns::Net;
use crate::route::{FibEntry, Prefix, RouteKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use uapi::{Errno, Result};

pub(crate) const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_DELROUTE: u16 = 25;
pub(crate) const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
pub(crate) const RTM_GETRULE: u16 = 34;

const RTMSG: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTA_PREF: u16 = 20;
const RTAX_MTU: u16 = 2;
const TABLE_MAIN: u32 = 254;
const TABLE_LOCAL: u32 = 255;
const RTNH_F_ONLINK: u32 = 4;
const RTNH_F_LINKDOWN: u32 = 16;
const RT_SCOPE_NOWHERE: u8 = 255;
/// Metric of IPv6 routes that name none (Linux: IP6_RT_PRIO_USER).
const IP6_PRIO_USER: u32 = 1024;

fn fill(m: &mut Msg, e: &FibEntry, linkdown: bool) {
    let v4 = e.dst.addr.is_ipv4();
    let family = if v4 { 2 } else { 10 };
    let flags = e.flags | if linkdown { RTNH_F_LINKDOWN } else { 0 };
    let table = u8::try_from(e.table).unwrap_or(252);
    let mut head = [family, e.dst.len, 0, 0, table, e.protocol, e.scope, e.kind as u8, 0, 0, 0, 0];
    head[8..].copy_from_slice(&flags.to_ne_bytes());
    m.put(&head);
    m.attr_u32(RTA_TABLE, e.table);
    if e.dst.len != 0 {
        m.attr_ip(RTA_DST, e.dst.addr);
    }
    if e.metric != 0 {
        m.attr_u32(RTA_PRIORITY, e.metric);
    }
    if let Some(p) = e.prefsrc {
        m.attr_ip(RTA_PREFSRC, p);
    }
    if e.mtu != 0 {
        m.nest(RTA_METRICS, |m| m.attr_u32(RTAX_MTU, e.mtu));
    }
    if let Some(g) = e.gateway {
        m.attr_ip(RTA_GATEWAY, g);
    }
    if e.oif != 0 {
        m.attr_u32(RTA_OIF, e.oif);
    }
    if !v4 {
        m.attr(RTA_CACHEINFO, &[0; 32]);
        m.attr_u8(RTA_PREF, 0);
    }
}

/// The routes of table local: our addresses and broadcasts.
fn local_routes(net: &Net) -> Vec<FibEntry> {
    let mut v = Vec::new();
    for d in net.devs.all() {
        if !d.is_up() {
            continue;
        }
        let base = |dst: Prefix, kind, scope| FibEntry {
            table: TABLE_LOCAL,
            protocol: 2,
            kind,
            scope,
            ..FibEntry::new(dst, None, d.ifindex)
        };
        for a in d.addrs.read().iter() {
            let v4 = a.addr.is_ipv4();
            let mut add = |addr: IpAddr, len: u8, kind, scope| {
                if let Some(p) = Prefix::new(addr, len) {
                    let mut e = base(p, kind, scope);
                    e.prefsrc = v4.then_some(a.addr);
                    v.push(e);
                }
            };
            let host = if v4 { 254 } else { 0 };
            if v4 && a.addr.is_loopback() {
                add(a.addr, a.prefix, RouteKind::Local, host);
            }
            add(a.addr, if v4 { 32 } else { 128 }, RouteKind::Local, host);
            if let Some(b) = a.directed_broadcast() {
                add(IpAddr::V4(b), 32, RouteKind::Broadcast, 253);
            }
        }
        if !d.is_loopback()
            && let Some(p) = Prefix::new(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8)
        {
            v.push(FibEntry { metric: 256, ..base(p, RouteKind::Multicast, 0) });
        }
    }
    v
}

pub(super) fn dump(net: &Net, req: &Request<'_>, d: &mut Dump) -> Result<()> {
    let family = byte(req.body, 0);
    let a = Attrs::parse(req.body, RTMSG)?;
    let table = a.u32(RTA_TABLE)?.unwrap_or(u32::from(byte(req.body, 4)));
    let oif = a.u32(RTA_OIF)?.unwrap_or(0);
    let mut routes: Vec<FibEntry> = net.fib.read().iter().cloned().collect();
    // In the order of their addresses, as Linux walks its trie.
    routes.sort_by_key(|r| (r.dst.addr.is_ipv6(), r.dst.addr, r.dst.len, r.metric));
    routes.extend(local_routes(net));
    for e in routes {
        let v4 = e.dst.addr.is_ipv4();
        if (family == 2 && !v4)
            || (family == 10 && v4)
            || (table != 0 && e.table != table)
            || (oif != 0 && e.oif != oif)
        {
            continue;
        }
        let down = net.devs.get(e.oif).is_some_and(|d| !d.drv.carrier());
        let mut m = d.msg(RTM_NEWROUTE);
        fill(&mut m, &e, down);
        d.push(m);
    }
    Ok(())
}

/// The three rules that are always there.
pub(super) fn dump_rules(req: &Request<'_>, d: &mut Dump) -> Result<()> {
    let family = byte(req.body, 0);
    for f in [2u8, 10] {
        if family != 0 && family != f {
            continue;
        }
        for (prio, table) in [(0u32, 255u32), (32_766, 254), (32_767, 253)] {
            if f == 10 && table == 253 {
                continue;
            }
            let mut m = d.msg(RTM_NEWRULE);
            // FR_ACT_TO_TBL
            m.put(&[f, 0, 0, 0, table as u8, 0, 0, 1, 0, 0, 0, 0]);
            m.attr_u32(15, table);
            if prio != 0 {
                m.attr_u32(6, prio);
            }
            d.push(m);
        }
    }
    Ok(())
}

fn parse(req: &Request<'_>) -> Result<(FibEntry, bool)> {
    if req.body.len() < RTMSG {
        return Err(Errno::EINVAL);
    }
    let b = req.body;
    let a = Attrs::parse(b, RTMSG)?;
    if a.get(RTA_MULTIPATH).is_some() || a.get(18).is_some() || a.get(30).is_some() {
        return Err(Errno::EOPNOTSUPP);
    }
    let v4 = match byte(b, 0) {
        2 => true,
        10 => false,
        _ => return Err(Errno::EAFNOSUPPORT),
    };
    let any: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let dst = a.ip(RTA_DST)?.unwrap_or(any);
    let prefix = Prefix::new(dst, byte(b, 1)).ok_or(Errno::EINVAL)?;
    if dst.is_ipv4() != v4 || prefix.addr != dst {
        return Err(Errno::EINVAL);
    }
    let same_family = |ip: &IpAddr| ip.is_ipv4() == v4;
    let gateway = a.ip(RTA_GATEWAY)?.filter(|g| !g.is_unspecified());
    let prefsrc = a.ip(RTA_PREFSRC)?.filter(|g| !g.is_unspecified());
    if gateway.as_ref().is_some_and(|g| !same_family(g)) || prefsrc.as_ref().is_some_and(|g| !same_family(g))
    {
        return Err(Errno::EINVAL);
    }
    let kind = match byte(b, 7) {
        0 | 1 => RouteKind::Unicast,
        2 => RouteKind::Local,
        3 => RouteKind::Broadcast,
        5 => RouteKind::Multicast,
        6 => RouteKind::Blackhole,
        7 => RouteKind::Unreachable,
        8 => RouteKind::Prohibit,
        _ => return Err(Errno::EINVAL),
    };
    let metric = a.u32(RTA_PRIORITY)?;
    let mtu = match a.get(RTA_METRICS) {
        Some(n) => Attrs::parse(n, 0)?.u32(RTAX_MTU)?.unwrap_or(0),
        None => 0,
    };
    let table = match a.u32(RTA_TABLE)?.unwrap_or(u32::from(byte(b, 4))) {
        0 => TABLE_MAIN,
        t => t,
    };
    let e = FibEntry {
        dst: prefix,
        gateway,
        oif: a.u32(RTA_OIF)?.unwrap_or(0),
        prefsrc,
        metric: metric.unwrap_or(0),
        table,
        protocol: byte(b, 5),
        scope: byte(b, 6),
        kind,
        mtu,
        flags: word(b, 8) & RTNH_F_ONLINK,
    };
    Ok((e, metric.is_some()))
}

pub(super) fn add(net: &Net, req: &Request<'_>) -> Result<()> {
    let (mut e, has_metric) = parse(req)?;
    if e.table != TABLE_MAIN {
        // One table is kept; policy routing is not there.
        return Err(Errno::EOPNOTSUPP);
    }
    if !e.dst.addr.is_ipv4() && (!has_metric || e.metric == 0) {
        e.metric = IP6_PRIO_USER;
    }
    let flags = req.h.flags;
    if flags & NLM_F_CREATE == 0 && flags & NLM_F_REPLACE == 0 {
        return Err(Errno::ENOENT);
    }
    if matches!(e.kind, RouteKind::Unicast) {
        if let Some(g) = e.gateway {
            if net.is_local(g) {
                return Err(Errno::EINVAL);
            }
            let onlink = e.flags & RTNH_F_ONLINK != 0;
            let link_local = matches!(g, IpAddr::V6(a) if crate::dev::is_link_local(&a));
            let trusted = onlink || (link_local && e.oif != 0);
            if !trusted {
                let fib = net.fib.read();
                let unreachable = if g.is_ipv4() { Errno::ENETUNREACH } else { Errno::EHOSTUNREACH };
                let via = fib.lookup(g, e.oif).filter(|r| r.gateway.is_none()).ok_or(unreachable)?;
                e.oif = via.oif;
            }
        }
        let dev = net.devs.get(e.oif).ok_or(Errno::ENODEV)?;
        if !dev.is_up() {
            return Err(Errno::ENETDOWN);
        }
        if e.prefsrc.is_some_and(|p| !net.is_local(p)) {
            return Err(Errno::EINVAL);
        }
    }
    let r = net.fib.write().insert(
        e,
        flags & NLM_F_REPLACE != 0,
        flags & NLM_F_EXCL != 0,
        flags & NLM_F_APPEND != 0,
    );
    net.bump_routes();
    r
}

pub(super) fn del(net: &Net, req: &Request<'_>) -> Result<()> {
    let (e, has_metric) = parse(req)?;
    let kind_given = byte(req.body, 7) != 0;
    let r = net.fib.write().remove(|r| {
        r.dst == e.dst
            && r.table == e.table
            && (e.gateway.is_none() || r.gateway == e.gateway)
            && (e.oif == 0 || r.oif == e.oif)
            && (!has_metric || r.metric == e.metric)
            && (e.prefsrc.is_none() || r.prefsrc == e.prefsrc)
            && (e.protocol == 0 || r.protocol == e.protocol)
            && (e.scope == RT_SCOPE_NOWHERE || e.dst.addr.is_ipv6() || r.scope == e.scope)
            && (!kind_given || r.kind == e.kind)
    });
    net.bump_routes();
    r.map(drop)
}

/// `ip route get`.
pub(super) fn get(net: &Net, req: &Request<'_>, out: &mut Vec<Vec<u8>>) -> Result<()> {
    let a = Attrs::parse(req.body, RTMSG)?;
    let dst = a.ip(RTA_DST)?.ok_or(Errno::EINVAL)?;
    let src = a.ip(2)?;
    if src.is_some_and(|s| !net.is_local(s)) {
        return Err(Errno::EINVAL);
    }
    let r = net.route_lookup(dst, src, a.u32(RTA_OIF)?.unwrap_or(0))?;
    let full = if dst.is_ipv4() { 32 } else { 128 };
    let e = FibEntry {
        dst: Prefix::new(dst, full).ok_or(Errno::EINVAL)?,
        gateway: r.gateway,
        oif: r.dev.ifindex,
        prefsrc: Some(r.src),
        metric: 0,
        table: if r.kind == RouteKind::Local { TABLE_LOCAL } else { TABLE_MAIN },
        protocol: 0,
        scope: 0,
        kind: r.kind,
        mtu: 0,
        // RTM_F_CLONED
        flags: 0x200,
    };
    let mut m = Msg::new(RTM_NEWROUTE, 0, req.h.seq, req.portid);
    fill(&mut m, &e, false);
    if dst.is_ipv4() {
        // RTA_UID, RTA_CACHEINFO
        m.attr_u32(25, 0);
        m.attr(RTA_CACHEINFO, &[0; 32]);
    }
    out.push(m.finish());
    Ok(())
}
