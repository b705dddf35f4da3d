//! RTM_*LINK: devices (linux/if_link.h).

use super::Request;
use super::codec::{Attrs, Dump, Msg, NLM_F_CREATE, byte, word};
use crate::dev::{Dev, IfFlags};
use crate::eth;
use crate::netns::Net;
use std::sync::Arc;
use uapi::{Errno, Result};

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_SETLINK: u16 = 19;

/// RTNLGRP_LINK.
pub(crate) const GROUP: u32 = 1;
const IFINFOMSG: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_ALT_IFNAME: u16 = 53;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

/// What listeners are told of a device; `change`: flags that somebody has changed.
pub(crate) fn news(dev: &Dev, change: IfFlags) -> Vec<u8> {
    let mut m = Msg::new(RTM_NEWLINK, 0, 0, 0);
    fill(&mut m, dev, change, 0);
    m.finish()
}

fn fill(m: &mut Msg, d: &Dev, change: IfFlags, ext_mask: u32) {
    let drv = &d.drv;
    let flags = d.flags();
    let mut head = [0u8; IFINFOMSG];
    head[2..4].copy_from_slice(&drv.arp_type().to_ne_bytes());
    head[4..8].copy_from_slice(&d.ifindex.to_ne_bytes());
    head[8..12].copy_from_slice(&flags.bits().to_ne_bytes());
    head[12..16].copy_from_slice(&change.bits().to_ne_bytes());
    m.put(&head);
    m.attr_str(IFLA_IFNAME, &d.name());
    m.attr_u32(IFLA_TXQLEN, drv.tx_queue_len());
    // RFC 2863: lo has no operational state.
    let oper = if d.is_loopback() && d.is_up() {
        0
    } else if flags.contains(IfFlags::RUNNING) {
        6
    } else {
        2
    };
    m.attr_u8(16, oper);
    m.attr_u8(17, 0);
    m.attr_u32(IFLA_MTU, drv.mtu());
    m.attr_u32(50, if d.is_loopback() { 0 } else { 68 });
    m.attr_u32(51, if d.is_loopback() { 0 } else { drv.max_mtu() });
    m.attr_u32(27, 0);
    m.attr_u32(30, u32::from(flags.contains(IfFlags::PROMISC)));
    m.attr_u32(61, u32::from(flags.contains(IfFlags::ALLMULTI)));
    m.attr_u32(31, 1);
    m.attr_u32(32, 1);
    m.attr_u32(40, 65_535);
    m.attr_u32(41, drv.gso_max_size());
    m.attr_u8(33, u8::from(drv.carrier()));
    m.attr_str(6, if d.is_loopback() { "noqueue" } else { "pfifo_fast" });
    m.attr_u32(35, d.carrier_changes());
    m.attr_u8(39, 0);
    m.attr(IFLA_ADDRESS, &drv.mac());
    m.attr(2, &if d.is_loopback() { [0; 6] } else { eth::BROADCAST });
    if ext_mask & RTEXT_FILTER_SKIP_STATS == 0 {
        let s = d.stats();
        let mut v = [0u64; 25];
        v[..9].copy_from_slice(&[
            s.rx_packets,
            s.tx_packets,
            s.rx_bytes,
            s.tx_bytes,
            s.rx_errors,
            s.tx_errors,
            s.rx_dropped,
            s.tx_dropped,
            s.multicast,
        ]);
        let wide: Vec<u8> = v.iter().flat_map(|x| x.to_ne_bytes()).collect();
        let narrow: Vec<u8> = v[..24].iter().flat_map(|x| (*x as u32).to_ne_bytes()).collect();
        m.attr(23, &wide);
        m.attr(7, &narrow);
    }
}

fn find(net: &Net, body: &[u8], a: &Attrs<'_>) -> Result<Arc<Dev>> {
    let index = word(body, 4);
    if index != 0 {
        return net.devs.get(index).ok_or(Errno::ENODEV);
    }
    let name = match a.str(IFLA_IFNAME)? {
        Some(n) => n,
        None => a.str(IFLA_ALT_IFNAME)?.ok_or(Errno::EINVAL)?,
    };
    net.devs.by_name(name).ok_or(Errno::ENODEV)
}

pub(super) fn dump(net: &Net, req: &Request<'_>, d: &mut Dump) -> Result<()> {
    let a = Attrs::parse(req.body, IFINFOMSG)?;
    let mask = a.u32(IFLA_EXT_MASK)?.unwrap_or(0);
    // A filter by kind (`ip link show type X`): none of our devices has one.
    let kind = a.get(IFLA_LINKINFO).is_some();
    for dev in net.devs.all() {
        if !kind {
            let mut m = d.msg(RTM_NEWLINK);
            fill(&mut m, &dev, IfFlags::empty(), mask);
            d.push(m);
        }
    }
    Ok(())
}

pub(super) fn get(net: &Net, req: &Request<'_>, out: &mut Vec<Vec<u8>>) -> Result<()> {
    let a = Attrs::parse(req.body, IFINFOMSG)?;
    let dev = find(net, req.body, &a)?;
    let mut m = Msg::new(RTM_NEWLINK, 0, req.h.seq, req.portid);
    fill(&mut m, &dev, IfFlags::empty(), a.u32(IFLA_EXT_MASK)?.unwrap_or(0));
    out.push(m.finish());
    Ok(())
}

pub(super) fn set(net: &Net, req: &Request<'_>) -> Result<()> {
    if req.body.len() < IFINFOMSG {
        return Err(Errno::EINVAL);
    }
    let a = Attrs::parse(req.body, IFINFOMSG)?;
    let dev = match find(net, req.body, &a) {
        // `ip link add`: no kinds of devices can be made.
        Err(Errno::ENODEV | Errno::EINVAL) if req.h.flags & NLM_F_CREATE != 0 => {
            return Err(Errno::EOPNOTSUPP);
        }
        r => r?,
    };
    if let Some(mac) = a.get(IFLA_ADDRESS) {
        let mac: [u8; 6] = mac.try_into().map_err(|_| Errno::EINVAL)?;
        net.set_mac(&dev, mac)?;
    }
    if let Some(mtu) = a.u32(IFLA_MTU)? {
        net.set_mtu(&dev, mtu)?;
    }
    if word(req.body, 4) != 0
        && let Some(name) = a.str(IFLA_IFNAME)?
        && *dev.name() != *name
    {
        if dev.is_up() {
            return Err(Errno::EBUSY);
        }
        net.devs.rename(&dev, name)?;
        net.link_changed(dev.ifindex);
    }
    // A master, a namespace, an alias: not supported.
    if a.get(10).is_some_and(|v| v != [0; 4]) || a.get(19).is_some() || a.get(28).is_some() {
        return Err(Errno::EOPNOTSUPP);
    }
    let (flags, change) = (word(req.body, 8), word(req.body, 12));
    // No mask means all flags (rtnetlink's old habit), but only if any is named.
    let change = if change == 0 && flags != 0 { u32::MAX } else { change };
    let _ = byte(req.body, 0);
    let mut changed = IfFlags::empty();
    for f in [IfFlags::PROMISC, IfFlags::ALLMULTI, IfFlags::NOARP] {
        if change & f.bits() != 0 && dev.set_flag(f, flags & f.bits() != 0) {
            changed |= f;
        }
    }
    if !changed.is_empty() {
        net.announce_link(&dev, changed);
    }
    if change & IfFlags::UP.bits() != 0 {
        net.set_link_up(dev.ifindex, flags & IfFlags::UP.bits() != 0)?;
    }
    Ok(())
}
