//! RTM_*ADDR: addresses (linux/if_addr.h).

use super::Request;
use super::codec::{Attrs, Dump, Msg, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, byte, word};
use crate::dev::{Dev, IfAddr};
use crate::netns::Net;
use std::net::IpAddr;
use uapi::{Errno, Result};

pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_DELADDR: u16 = 21;
pub(crate) const RTM_GETADDR: u16 = 22;

const IFADDRMSG: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

fn fill(m: &mut Msg, d: &Dev, a: &IfAddr) {
    let family = if a.addr.is_ipv4() { 2 } else { 10 };
    let mut head = [family, a.prefix, a.flags as u8, a.scope, 0, 0, 0, 0];
    head[4..].copy_from_slice(&d.ifindex.to_ne_bytes());
    m.put(&head);
    if a.addr.is_ipv4() || a.peer.is_some() {
        m.attr_ip(IFA_ADDRESS, a.peer.unwrap_or(a.addr));
        m.attr_ip(IFA_LOCAL, a.addr);
    } else {
        m.attr_ip(IFA_ADDRESS, a.addr);
    }
    if let Some(b) = a.broadcast {
        m.attr_ip(IFA_BROADCAST, IpAddr::V4(b));
    }
    if a.addr.is_ipv4() {
        m.attr_str(IFA_LABEL, &a.label);
    }
    let flags = a.flags | if a.no_prefix_route { IFA_F_NOPREFIXROUTE } else { 0 };
    m.attr_u32(IFA_FLAGS, flags);
    let mut c = [0u8; 16];
    c[..4].copy_from_slice(&a.lifetime.0.to_ne_bytes());
    c[4..8].copy_from_slice(&a.lifetime.1.to_ne_bytes());
    m.attr(IFA_CACHEINFO, &c);
}

pub(super) fn dump(net: &Net, req: &Request<'_>, d: &mut Dump) -> Result<()> {
    let (family, index) =
        (byte(req.body, 0), if req.body.len() >= IFADDRMSG { word(req.body, 4) } else { 0 });
    for want in [2u8, 10] {
        if family != 0 && family != want {
            continue;
        }
        for dev in net.devs.all() {
            if index != 0 && index != dev.ifindex {
                continue;
            }
            for a in dev.addrs.read().iter().filter(|a| a.addr.is_ipv4() == (want == 2)) {
                let mut m = d.msg(RTM_NEWADDR);
                fill(&mut m, &dev, a);
                d.push(m);
            }
        }
    }
    Ok(())
}

struct Given {
    index: u32,
    addr: IfAddr,
}

fn parse(net: &Net, req: &Request<'_>) -> Result<Given> {
    if req.body.len() < IFADDRMSG {
        return Err(Errno::EINVAL);
    }
    let a = Attrs::parse(req.body, IFADDRMSG)?;
    let index = word(req.body, 4);
    net.devs.get(index).ok_or(Errno::ENODEV)?;
    let address = a.ip(IFA_ADDRESS)?;
    let local = a.ip(IFA_LOCAL)?.or(address).ok_or(Errno::EINVAL)?;
    if local.is_ipv4() != (byte(req.body, 0) == 2) {
        return Err(Errno::EINVAL);
    }
    let mut addr = IfAddr::new(local, byte(req.body, 1));
    addr.peer = address.filter(|p| *p != local);
    addr.broadcast = match a.ip(IFA_BROADCAST)? {
        Some(IpAddr::V4(b)) => Some(b),
        _ => None,
    };
    if local.is_ipv4() {
        addr.scope = byte(req.body, 3);
    }
    if let Some(l) = a.str(IFA_LABEL)? {
        addr.label = l.chars().take(15).collect();
    }
    let flags = a.u32(IFA_FLAGS)?.unwrap_or(u32::from(byte(req.body, 2)));
    addr.no_prefix_route = flags & IFA_F_NOPREFIXROUTE != 0;
    if let Some(c) = a.get(IFA_CACHEINFO) {
        let (pref, valid) = (word(c, 0), word(c, 4));
        if c.len() < 16 || valid == 0 || pref > valid {
            return Err(Errno::EINVAL);
        }
        addr.lifetime = (pref, valid);
        if valid != u32::MAX {
            addr.flags &= !0x80;
        }
    }
    Ok(Given { index, addr })
}

pub(super) fn add(net: &Net, req: &Request<'_>) -> Result<()> {
    let g = parse(net, req)?;
    let flags = req.h.flags;
    match net.addr_add(g.index, g.addr.clone()) {
        Err(Errno::EEXIST) if flags & NLM_F_REPLACE != 0 && flags & NLM_F_EXCL == 0 => {
            let dev = net.devs.get(g.index).ok_or(Errno::ENODEV)?;
            let mut addrs = dev.addrs.write();
            let same = |a: &&mut IfAddr| a.addr == g.addr.addr && a.prefix == g.addr.prefix;
            if let Some(old) = addrs.iter_mut().find(same) {
                old.lifetime = g.addr.lifetime;
                old.flags = g.addr.flags;
            }
            Ok(())
        }
        r => {
            let _ = NLM_F_CREATE;
            r
        }
    }
}

pub(super) fn del(net: &Net, req: &Request<'_>) -> Result<()> {
    let g = parse(net, req)?;
    // `ip addr del ADDR` without a length sends the full length, which Linux takes to mean any.
    let full = if g.addr.addr.is_ipv4() { 32 } else { 128 };
    let exact = net.addr_del(g.index, g.addr.addr, Some(g.addr.prefix));
    if exact.is_err() && g.addr.prefix == full {
        return net.addr_del(g.index, g.addr.addr, None);
    }
    exact
}
