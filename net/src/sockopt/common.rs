//! SOL_SOCKET, SOL_IP, SOL_IPV6 (socket(7), ip(7), ipv6(7); numbers of asm-generic/socket.h, linux/in.h, linux/in6.h).

use super::{Family, SOL_IP, SOL_IPV6, SOL_SOCKET, SockBase, int, int_or_byte, reply};
use crate::netns::Net;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use uapi::{Errno, Result};

const MIN_SNDBUF: usize = 4608;
const MIN_RCVBUF: usize = 2304;

fn timeval(v: &[u8]) -> Result<Option<Duration>> {
    let s = i64::from_ne_bytes(v.get(..8).ok_or(Errno::EINVAL)?.try_into().map_err(|_| Errno::EINVAL)?);
    let us = i64::from_ne_bytes(v.get(8..16).ok_or(Errno::EINVAL)?.try_into().map_err(|_| Errno::EINVAL)?);
    if !(0..1_000_000).contains(&us) {
        return Err(Errno::EDOM);
    }
    if s < 0 {
        return Ok(Some(Duration::ZERO));
    }
    Ok((s != 0 || us != 0).then(|| Duration::new(s.unsigned_abs(), us as u32 * 1000)))
}

fn from_timeval(d: Option<Duration>) -> Vec<u8> {
    let d = d.unwrap_or_default();
    let mut v = (d.as_secs() as i64).to_ne_bytes().to_vec();
    v.extend_from_slice(&i64::from(d.subsec_micros()).to_ne_bytes());
    v
}

/// Group, device by number or address: `ip_mreqn`, `ip_mreq`, or a bare address for IP_MULTICAST_IF.
fn v4_membership(net: &Net, v: &[u8]) -> Result<(Ipv4Addr, u32)> {
    let at = |i: usize| -> Option<Ipv4Addr> {
        let b: [u8; 4] = v.get(i..i + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(b))
    };
    let group = at(0).ok_or(Errno::EINVAL)?;
    let index = v.get(8..12).map(int).transpose()?.unwrap_or(0);
    if index != 0 {
        return Ok((group, u32::try_from(index).map_err(|_| Errno::EINVAL)?));
    }
    let addr = at(4).unwrap_or(Ipv4Addr::UNSPECIFIED);
    if addr.is_unspecified() {
        return Ok((group, 0));
    }
    Ok((group, net.local_device(IpAddr::V4(addr)).ok_or(Errno::ENODEV)?))
}

/// Sets a common option; `Ok(false)` if the name belongs to the protocol.
pub(super) fn set(net: &Net, b: &SockBase, level: i32, name: i32, v: &[u8]) -> Result<bool> {
    match level {
        SOL_SOCKET => set_socket(net, b, name, v),
        SOL_IP => set_ip(net, b, name, v),
        SOL_IPV6 if b.family == Family::V6 => set_ip6(net, b, name, v),
        SOL_IPV6 => Err(Errno::ENOPROTOOPT),
        _ => Ok(false),
    }
}

fn set_socket(net: &Net, b: &SockBase, name: i32, v: &[u8]) -> Result<bool> {
    match name {
        // SO_RCVTIMEO and SO_SNDTIMEO, old and new numbers.
        20 | 66 => {
            let t = timeval(v)?;
            b.change(|o| o.rcvtimeo = t);
            return Ok(true);
        }
        21 | 67 => {
            let t = timeval(v)?;
            b.change(|o| o.sndtimeo = t);
            return Ok(true);
        }
        // SO_LINGER
        13 => {
            let (on, secs) = (int(v)?, int(v.get(4..).ok_or(Errno::EINVAL)?)?);
            b.change(|o| o.linger = (on != 0).then(|| u16::try_from(secs.max(0)).unwrap_or(u16::MAX)));
            return Ok(true);
        }
        // SO_BINDTODEVICE
        25 => {
            let n = v.split(|c| *c == 0).next().unwrap_or(&[]);
            let oif = if n.is_empty() {
                0
            } else {
                let name = std::str::from_utf8(n).map_err(|_| Errno::ENODEV)?;
                net.devs.by_name(name).ok_or(Errno::ENODEV)?.ifindex
            };
            b.change(|o| o.oif = oif);
            return Ok(true);
        }
        // SO_ATTACH_FILTER, SO_ATTACH_BPF: no packet filters.
        26 | 50 => return Err(Errno::ENOPROTOOPT),
        // SO_DETACH_FILTER
        27 => return Err(Errno::ENOENT),
        _ => {}
    }
    let n = int(v)?;
    let on = n != 0;
    let size = |min: usize, max: usize| usize::try_from(n.max(0)).unwrap_or(0).clamp(min / 2, max);
    let (rmax, wmax) = net.sysctl.mem_max();
    b.change(|o| {
        match name {
            2 => o.reuseaddr = on,
            15 => o.reuseport = on,
            6 => o.broadcast = on,
            9 => o.keepalive = on,
            10 => o.oobinline = on,
            5 => o.dontroute = on,
            7 => o.sndbuf = size(MIN_SNDBUF, wmax),
            8 => o.rcvbuf = size(MIN_RCVBUF, rmax),
            32 => o.sndbuf = size(MIN_SNDBUF, 1 << 30),
            33 => o.rcvbuf = size(MIN_RCVBUF, 1 << 30),
            11 => o.no_check = on,
            12 => o.priority = n as u32,
            18 => o.rcvlowat = if n <= 0 { 1 } else { n as u32 },
            36 => o.mark = n as u32,
            29 | 63 => o.timestamp = on,
            35 | 64 => o.timestampns = on,
            62 => o.oif = n as u32,
            // SO_DEBUG, SO_PASSCRED, SO_BUSY_POLL, SO_INCOMING_CPU, SO_RXQ_OVFL, SO_SELECT_ERR_QUEUE, SO_LOCK_FILTER,
            // SO_PREFER_BUSY_POLL, SO_MAX_PACING_RATE, SO_BUF_LOCK: no effect here.
            1 | 16 | 40 | 45 | 46 | 47 | 49 | 69 | 70 | 72 | 82 => {}
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(true)
    })
}

fn set_ip(net: &Net, b: &SockBase, name: i32, v: &[u8]) -> Result<bool> {
    match name {
        // IP_MULTICAST_IF
        32 => {
            let index = if v.len() >= 8 {
                v4_membership(net, v)?.1
            } else {
                let mut m = [0; 8];
                m[4..8].copy_from_slice(v.get(..4).ok_or(Errno::EINVAL)?);
                v4_membership(net, &m)?.1
            };
            b.change(|o| o.mc_if = index);
            return Ok(true);
        }
        // IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP
        35 | 36 => {
            if v.len() < 8 {
                return Err(Errno::EINVAL);
            }
            let (group, index) = v4_membership(net, v)?;
            if !group.is_multicast() {
                return Err(Errno::EINVAL);
            }
            net.group_change(IpAddr::V4(group), index, name == 35)?;
            return Ok(true);
        }
        _ => {}
    }
    let n = int_or_byte(v)?;
    let on = n != 0;
    b.change(|o| {
        match name {
            1 => o.tos = n as u8,
            2 if n == -1 => o.ttl = 0,
            2 if (1..=255).contains(&n) => o.ttl = n as u8,
            3 => o.hdrincl = on,
            8 => o.pktinfo = on,
            10 if (0..=5).contains(&n) => o.mtu_discover = n as u8,
            11 => o.recverr = on,
            12 => o.recvttl = on,
            13 => o.recvtos = on,
            15 => o.freebind = on,
            19 => o.transparent = on,
            33 if (-1..=255).contains(&n) => o.mc_ttl = if n == -1 { 1 } else { n as u8 },
            34 => o.mc_loop = on,
            2 | 10 | 33 => return Err(Errno::EINVAL),
            // IP_BIND_ADDRESS_NO_PORT, IP_MULTICAST_ALL, IP_MINTTL, IP_LOCAL_PORT_RANGE: no effect here.
            24 | 49 | 21 | 51 => {}
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(true)
    })
}

fn set_ip6(net: &Net, b: &SockBase, name: i32, v: &[u8]) -> Result<bool> {
    // IPV6_JOIN_GROUP, IPV6_LEAVE_GROUP
    if matches!(name, 20 | 21) {
        let a: [u8; 16] = v.get(..16).ok_or(Errno::EINVAL)?.try_into().map_err(|_| Errno::EINVAL)?;
        let index = int(v.get(16..).ok_or(Errno::EINVAL)?)?;
        let group = Ipv6Addr::from(a);
        if !group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        net.group_change(IpAddr::V6(group), index as u32, name == 20)?;
        return Ok(true);
    }
    let n = int(v)?;
    let on = n != 0;
    b.change(|o| {
        match name {
            16 if (-1..=255).contains(&n) => o.hops = if n == -1 { 0 } else { n as u8 },
            17 => o.mc_if = n as u32,
            18 if (-1..=255).contains(&n) => o.mc_ttl = if n == -1 { 1 } else { n as u8 },
            19 => o.mc_loop = on,
            25 => o.recverr6 = on,
            26 => o.v6only = on,
            49 => o.recvpktinfo6 = on,
            51 => o.recvhops = on,
            66 => o.recvtclass = on,
            67 if (-1..=255).contains(&n) => o.tclass = if n == -1 { 0 } else { n as u8 },
            7 => o.checksum_at = n,
            16 | 18 | 67 => return Err(Errno::EINVAL),
            // IPV6_MTU_DISCOVER, IPV6_AUTOFLOWLABEL, IPV6_DONTFRAG, IPV6_MULTICAST_ALL, IPV6_UNICAST_HOPS' relatives
            // without effect here: IPV6_RECVERR_RFC4884, IPV6_FREEBIND.
            23 | 70 | 62 | 29 | 31 | 78 => {}
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(true)
    })
}

/// Reads a common option; `Ok(None)` if the name belongs to the protocol.
pub(super) fn get(net: &Net, b: &SockBase, level: i32, name: i32) -> Result<Option<Vec<u8>>> {
    let o = b.opts();
    let (rdef, wdef) = net.sysctl.mem_default();
    let on = i32::from;
    let n = match (level, name) {
        (SOL_SOCKET, _) => match name {
            20 | 66 => return Ok(Some(from_timeval(o.rcvtimeo))),
            21 | 67 => return Ok(Some(from_timeval(o.sndtimeo))),
            13 => {
                let mut v = reply(on(o.linger.is_some()));
                v.extend_from_slice(&i32::from(o.linger.unwrap_or(0)).to_ne_bytes());
                return Ok(Some(v));
            }
            25 => {
                let Some(d) = net.devs.get(o.oif) else { return Ok(Some(Vec::new())) };
                let mut v = d.name().as_bytes().to_vec();
                v.push(0);
                return Ok(Some(v));
            }
            2 => on(o.reuseaddr),
            15 => on(o.reuseport),
            6 => on(o.broadcast),
            9 => on(o.keepalive),
            10 => on(o.oobinline),
            5 => on(o.dontroute),
            7 => size(o.sndbuf, wdef, MIN_SNDBUF),
            8 => size(o.rcvbuf, rdef, MIN_RCVBUF),
            11 => on(o.no_check),
            12 => o.priority as i32,
            18 => o.rcvlowat as i32,
            19 => 1,
            29 | 63 => on(o.timestamp),
            35 | 64 => on(o.timestampns),
            36 => o.mark as i32,
            39 => {
                if b.family == Family::V4 {
                    2
                } else {
                    10
                }
            }
            62 => o.oif as i32,
            1 | 16 | 40 | 44 | 45 | 46 | 49 | 69 | 72 => 0,
            56 => 0,
            57 => return Ok(Some((b.id).to_ne_bytes().to_vec())),
            _ => return Ok(None),
        },
        (SOL_IP, _) => match name {
            1 => i32::from(o.tos),
            2 => ttl(net, o.ttl),
            3 => on(o.hdrincl),
            8 => on(o.pktinfo),
            10 => i32::from(o.mtu_discover),
            11 => on(o.recverr),
            12 => on(o.recvttl),
            13 => on(o.recvtos),
            15 => on(o.freebind),
            19 => on(o.transparent),
            24 => 0,
            32 => 0,
            33 => i32::from(o.mc_ttl),
            34 => on(o.mc_loop),
            49 => 1,
            // IP_OPTIONS: none.
            4 => return Ok(Some(Vec::new())),
            _ => return Ok(None),
        },
        (SOL_IPV6, _) if b.family == Family::V6 => match name {
            16 => ttl(net, o.hops),
            17 => o.mc_if as i32,
            18 => i32::from(o.mc_ttl),
            19 => on(o.mc_loop),
            23 => 1,
            25 => on(o.recverr6),
            26 => on(o.v6only),
            49 => on(o.recvpktinfo6),
            51 => on(o.recvhops),
            66 => on(o.recvtclass),
            67 => i32::from(o.tclass),
            7 => o.checksum_at,
            62 | 70 => 0,
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(Some(reply(n)))
}

/// Buffer sizes are shown doubled, as Linux does (socket(7)).
fn size(set: usize, default: usize, min: usize) -> i32 {
    let n = if set == 0 { default } else { (set * 2).max(min) };
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn ttl(net: &Net, set: u8) -> i32 {
    if set == 0 { i32::from(net.sysctl.default_ttl()) } else { i32::from(set) }
}
