//! Options of UDP, raw and ping sockets (udp(7), raw(7), icmp(7)).

use super::{SOL_ICMPV6, SOL_RAW, SOL_SOCKET, SOL_UDP, common, int, reply};
use crate::netns::Net;
use crate::sockopt::SockBase;
use uapi::{Errno, Result};

/// Sets an option of a datagram socket with protocol `proto`.
pub(crate) fn set(net: &Net, b: &SockBase, proto: u8, level: i32, name: i32, v: &[u8]) -> Result<()> {
    match (level, name) {
        // UDP_SEGMENT, UDP_GRO, UDP_CORK (no effect), UDP_NO_CHECK6_*
        (SOL_UDP, 103) => {
            let n = int(v)?;
            let n = u16::try_from(n).map_err(|_| Errno::EINVAL)?;
            b.change(|o| o.gso_size = n);
        }
        (SOL_UDP, 104) => {
            let on = int(v)? != 0;
            b.change(|o| o.gro = on);
        }
        (SOL_UDP, 101 | 102) => {}
        (SOL_UDP, 1) => return if int(v)? == 0 { Ok(()) } else { Err(Errno::ENOPROTOOPT) },
        // ICMP_FILTER, ICMPV6_FILTER: a set bit blocks the type.
        (SOL_RAW, 1) if proto == 1 => {
            let n = int(v)? as u32;
            b.change(|o| o.icmp_filter = n);
        }
        (SOL_ICMPV6, 1) if proto == 58 => {
            let mut f = [0u32; 8];
            for (w, c) in f.iter_mut().zip(v.chunks_exact(4)) {
                *w = u32::from_ne_bytes([c[0], c[1], c[2], c[3]]);
            }
            b.change(|o| o.icmp6_filter = f);
        }
        // IPV6_CHECKSUM through SOL_RAW, as ping6 of iputils does.
        (SOL_RAW, 7) => {
            let n = int(v)?;
            b.change(|o| o.checksum_at = n);
        }
        _ => {
            if !common::set(net, b, level, name, v)? {
                return Err(Errno::ENOPROTOOPT);
            }
        }
    }
    Ok(())
}

/// Reads an option. `kind` is SOCK_DGRAM or SOCK_RAW; `err` takes the pending error.
pub(crate) fn get(
    net: &Net,
    b: &SockBase,
    kind: i32,
    proto: u8,
    level: i32,
    name: i32,
    err: impl FnOnce() -> Option<Errno>,
) -> Result<Vec<u8>> {
    let o = b.opts();
    Ok(reply(match (level, name) {
        (SOL_SOCKET, 3) => kind,
        (SOL_SOCKET, 4) => err().map_or(0, |e| e as i32),
        (SOL_SOCKET, 30) => 0,
        (SOL_SOCKET, 38) => i32::from(proto),
        (SOL_UDP, 103) => i32::from(o.gso_size),
        (SOL_UDP, 104) => i32::from(o.gro),
        (SOL_UDP, 1 | 101 | 102) => 0,
        (SOL_RAW, 1) if proto == 1 => o.icmp_filter as i32,
        (SOL_ICMPV6, 1) if proto == 58 => {
            return Ok(o.icmp6_filter.iter().flat_map(|w| w.to_ne_bytes()).collect());
        }
        _ => return common::get(net, b, level, name)?.ok_or(Errno::ENOPROTOOPT),
    }))
}
