//! Control messages of internet sockets (ip(7), ipv6(7), udp(7)).

use crate::socket::msg::{Cmsg, RecvMsg, first_int};
use crate::socket::{SockCommon, options};
use crate::{Errno, Result};
use net::sockopt::BaseOpts;
use net::{RecvMeta, SendCtl};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use uapi::raw::net as c;

const UDP_SEGMENT: u32 = 103;
const UDP_GRO: u32 = 104;

fn byte_value(v: i32) -> Result<Option<u8>> {
    match v {
        -1 => Ok(None),
        0..=255 => Ok(Some(u8::try_from(v).unwrap_or(0))),
        _ => Err(Errno::EINVAL),
    }
}

/// Numbers of RFC 2292, which older programs use (linux/in6.h).
pub const IPV6_2292PKTINFO: u32 = 2;
/// As above.
pub const IPV6_2292HOPLIMIT: u32 = 8;

/// What the control messages of a sendmsg(2) say; `EINVAL` for one that is not understood.
pub fn parse(list: &[Cmsg]) -> Result<SendCtl> {
    let mut out = SendCtl::default();
    for m in list {
        match (m.level, m.ty) {
            (c::SOL_IP, c::IP_PKTINFO) => {
                let at = |i: usize| m.data.get(i..).and_then(|b| b.first_chunk::<4>()).ok_or(Errno::EINVAL);
                out.ifindex = u32::from_ne_bytes(*at(0)?);
                let src = Ipv4Addr::from(*at(4)?);
                out.src = (!src.is_unspecified()).then_some(IpAddr::V4(src));
            }
            (c::SOL_IP, c::IP_TTL) => {
                out.ttl = Some(byte_value(first_int(&m.data)?)?.filter(|&t| t > 0).ok_or(Errno::EINVAL)?);
            }
            (c::SOL_IP, c::IP_TOS) => {
                let v = match m.data.as_slice() {
                    [b] => i32::from(*b),
                    d => first_int(d)?,
                };
                out.tos = byte_value(v)?;
            }
            (c::SOL_IPV6, c::IPV6_PKTINFO) => {
                let addr = m.data.first_chunk::<16>().ok_or(Errno::EINVAL)?;
                let index = m.data.get(16..).and_then(|b| b.first_chunk::<4>()).ok_or(Errno::EINVAL)?;
                out.ifindex = u32::from_ne_bytes(*index);
                let src = Ipv6Addr::from(*addr);
                out.src = (!src.is_unspecified()).then_some(IpAddr::V6(src));
            }
            (c::SOL_IPV6, c::IPV6_HOPLIMIT) => out.ttl = byte_value(first_int(&m.data)?)?,
            (c::SOL_IPV6, c::IPV6_TCLASS) => out.tos = byte_value(first_int(&m.data)?)?,
            (c::SOL_UDP, UDP_SEGMENT) => {
                let v = m.data.first_chunk::<2>().ok_or(Errno::EINVAL)?;
                out.gso_size = u16::from_ne_bytes(*v);
            }
            (c::SOL_SOCKET, _) => return Err(Errno::EINVAL),
            (level, ty) => {
                log::debug!(target: "socket", "control message {level}/{ty} is not supported");
                return Err(Errno::EINVAL);
            }
        }
    }
    Ok(out)
}

/// Adds the control messages that the options ask for to what is known of a received packet.
pub fn fill(msg: &mut RecvMsg, com: &SockCommon, o: &BaseOpts, rfc2292: u32, meta: &RecvMeta) {
    if !msg.wants_control {
        return;
    }
    let kind = com.opts().timestamp;
    if let Some((ty, data)) = options::timestamp_cmsg(kind, meta.stamp_ns) {
        msg.put(c::SOL_SOCKET, ty, &data);
    }
    let int = |v: u8| i32::from(v).to_ne_bytes();
    let v4 = match (meta.dst, meta.src) {
        (IpAddr::V4(d), _) => Some(d),
        (IpAddr::V6(d), _) => d.to_ipv4_mapped(),
    };
    if let Some(dst) = v4 {
        if o.pktinfo {
            let d = dst.octets();
            msg.put(c::SOL_IP, c::IP_PKTINFO, &[meta.ifindex.to_ne_bytes(), d, d].concat());
        }
        if o.recvttl {
            msg.put(c::SOL_IP, c::IP_TTL, &int(meta.ttl));
        }
        if o.recvtos {
            msg.put(c::SOL_IP, c::IP_TOS, &[meta.tos]);
        }
    }
    if com.family == c::AF_INET6 {
        let old = |name: u32| rfc2292 & (1 << name) != 0;
        if o.recvpktinfo6 || old(IPV6_2292PKTINFO) {
            let addr = match meta.dst {
                IpAddr::V6(d) => d,
                IpAddr::V4(d) => d.to_ipv6_mapped(),
            };
            msg.put(
                c::SOL_IPV6,
                c::IPV6_PKTINFO,
                &[&addr.octets()[..], &meta.ifindex.to_ne_bytes()].concat(),
            );
        }
        if o.recvhops {
            msg.put(c::SOL_IPV6, c::IPV6_HOPLIMIT, &int(meta.ttl));
        }
        if old(IPV6_2292HOPLIMIT) {
            msg.put(c::SOL_IPV6, IPV6_2292HOPLIMIT, &int(meta.ttl));
        }
        if o.recvtclass {
            msg.put(c::SOL_IPV6, c::IPV6_TCLASS, &int(meta.tos));
        }
    }
    if meta.gro_size != 0 {
        msg.put(c::SOL_UDP, UDP_GRO, &i32::from(meta.gro_size).to_ne_bytes());
    }
}
