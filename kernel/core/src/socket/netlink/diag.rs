//! NETLINK_SOCK_DIAG (sock_diag(7)): lists of internet sockets for ss(8), and a look at one of them.
//!
//! The rows come from `net::diag`, which /proc/net shows too. Sockets of other families are not listed: who asks for them is
//! told ENOENT and reads /proc/net/unix and its like instead.

use super::attr;
use super::attr::Nack;
use super::filter::Filter;
use super::proto::{Ctx, Request};
use crate::Errno;
use net::diag::{self, Row, octets};
use net::rtnl::Msg;
use uapi::raw::net as c;
use uapi::raw::netlink as nl;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Bytes of `struct nlmsghdr`.
const NLMSGHDR: usize = 16;
/// Bytes of `struct inet_diag_req_v2`.
const REQ: usize = 56;
/// Datagrams of a dump are not longer.
const DUMP_SIZE: usize = 8000;

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_RAW: u8 = 255;

/// Extensions of inet_diag; those up to the eighth are asked for with a bit of their number less one.
const MEMINFO: u16 = 1;
const INFO: u16 = 2;
const CONG: u16 = 4;
const TOS: u16 = 5;
const TCLASS: u16 = 6;
const SKMEMINFO: u16 = 7;
const SHUTDOWN: u16 = 8;
const PROTOCOL: u16 = 10;
const SKV6ONLY: u16 = 11;
const MARK: u16 = 15;
const SOCKOPT: u16 = 22;
/// Attributes of a request.
const REQ_BYTECODE: u16 = 1;
const REQ_PROTOCOL: u16 = 3;

/// `struct inet_diag_req_v2`, as far as it is looked at.
struct Asked {
    v6: bool,
    protocol: u8,
    ext: u8,
    states: u32,
    sport: u16,
    dport: u16,
    src: [u8; 16],
    dst: [u8; 16],
    cookie: u64,
}

/// INET_DIAG_NOCOOKIE, twice.
const NO_COOKIE: u64 = u64::MAX;

fn asked(r: &Request<'_>) -> Option<Asked> {
    let b = r.whole.get(NLMSGHDR..NLMSGHDR + REQ)?;
    let part = |at: usize| b.get(at..at + 16)?.first_chunk::<16>().copied();
    let word = |at: usize| b.get(at..at + 4)?.first_chunk::<4>().map(|w| u32::from_ne_bytes(*w));
    let low = u64::from(word(48)?);
    Some(Asked {
        v6: u32::from(b[0]) == c::AF_INET6,
        protocol: b[1],
        ext: b[2],
        states: word(4)?,
        sport: u16::from_be_bytes([b[8], b[9]]),
        dport: u16::from_be_bytes([b[10], b[11]]),
        src: part(12)?,
        dst: part(28)?,
        cookie: low | u64::from(word(52)?) << 32,
    })
}

/// Answers one request. A dump's end is the caller's.
pub fn request(r: &Request<'_>, ctx: &Ctx, dump: bool, out: &mut Vec<Vec<u8>>) -> Result<(), Nack> {
    if r.ty != SOCK_DIAG_BY_FAMILY {
        // TCPDIAG_GETSOCK, DCCPDIAG_GETSOCK, SOCK_DESTROY.
        let known = matches!(r.ty, 18 | 19 | 21);
        return Err(if known { Errno::EOPNOTSUPP } else { Errno::EINVAL }.into());
    }
    let family = u32::from(*r.whole.get(NLMSGHDR).ok_or(Errno::EINVAL)?);
    if r.whole.len() < NLMSGHDR + 2 || family >= super::super::AF_MAX {
        return Err(Errno::EINVAL.into());
    }
    if family != c::AF_INET && family != c::AF_INET6 {
        return Err(Errno::ENOENT.into());
    }
    let a = asked(r).ok_or(Errno::EINVAL)?;
    let attrs = attr::parse(r.whole, NLMSGHDR + REQ, r.whole.len())?;
    let net = super::super::net_stack();
    let rows = match a.protocol {
        IPPROTO_TCP => diag::tcp(net),
        IPPROTO_UDP => diag::udp(net),
        IPPROTO_RAW => diag::raw(net),
        _ => return Err(Errno::ENOENT.into()),
    };
    if !dump {
        let row = pick(&rows, &a).ok_or(Errno::ENOENT)?;
        if a.cookie != NO_COOKIE && a.cookie != row.owner.cookie {
            // As Linux has it, protocol by protocol.
            let tcp = a.protocol == IPPROTO_TCP;
            return Err(if tcp { Errno::ENOENT } else { Errno::ESTALE }.into());
        }
        out.push(describe(row, &a, r, ctx, 0));
        return Ok(());
    }
    // IPPROTO_RAW asks for raw sockets of all protocols, or of the one named here.
    let number = match attr::find(&attrs, REQ_PROTOCOL) {
        Some(p) if a.protocol == IPPROTO_RAW => u16::try_from(p.number()?).unwrap_or(0),
        _ => a.sport,
    };
    let filter = match attr::find(&attrs, REQ_BYTECODE) {
        Some(code) => Filter::parse(code.value()).ok_or(Nack::invalid("invalid filter", &code))?,
        None => Filter::default(),
    };
    let multi = nl::NLM_F_MULTI as u16;
    let mut datagram = Vec::new();
    for row in rows.iter().filter(|x| {
        x.v6 == a.v6
            && (number == 0 || x.local.port() == number)
            && (a.dport == 0 || x.remote.port() == a.dport)
            && a.states & (1 << x.state) != 0
            && filter.takes(x)
    }) {
        let m = describe(row, &a, r, ctx, multi);
        if datagram.len() + m.len() > DUMP_SIZE && !datagram.is_empty() {
            out.push(std::mem::take(&mut datagram));
        }
        datagram.extend_from_slice(&m);
    }
    if !datagram.is_empty() {
        out.push(datagram);
    }
    Ok(())
}

/// The socket that a packet between these ends would reach.
fn pick<'a>(rows: &'a [Row], a: &Asked) -> Option<&'a Row> {
    let ip = |x: std::net::IpAddr| octets(x, a.v6);
    let here = |x: &Row| x.v6 == a.v6 && x.local.port() == a.sport;
    let exact = rows.iter().find(|x| {
        here(x) && x.remote.port() == a.dport && ip(x.local.ip()) == a.src && ip(x.remote.ip()) == a.dst
    });
    let open = |x: &&Row| here(x) && x.remote.port() == 0;
    exact
        .or_else(|| rows.iter().find(|x| open(x) && ip(x.local.ip()) == a.src))
        .or_else(|| rows.iter().find(|x| open(x) && x.local.ip().is_unspecified()))
}

fn small(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_ne_bytes()
}

/// `struct inet_diag_msg` with its extensions.
fn describe(row: &Row, a: &Asked, r: &Request<'_>, ctx: &Ctx, flags: u16) -> Vec<u8> {
    let mut m = Msg::new(SOCK_DIAG_BY_FAMILY, flags, r.seq, ctx.port);
    let family = if row.v6 { c::AF_INET6 } else { c::AF_INET } as u8;
    m.put(&[family, row.state, row.timer.kind, row.timer.retrans]);
    m.put(&row.local.port().to_be_bytes());
    m.put(&row.remote.port().to_be_bytes());
    m.put(&octets(row.local.ip(), row.v6));
    m.put(&octets(row.remote.ip(), row.v6));
    m.put(&row.oif.to_ne_bytes());
    m.put(&row.owner.cookie.to_ne_bytes());
    m.put(&small(row.timer.left.as_millis() as usize));
    m.put(&small(row.rx));
    m.put(&small(row.tx));
    m.put(&row.owner.uid.to_ne_bytes());
    m.put(&small(row.owner.ino as usize));
    let wants = |x: u16| a.ext & (1 << (x - 1)) != 0;
    let Some(d) = row.detail(super::super::net_stack()) else { return m.finish() };
    m.attr_u8(SHUTDOWN, d.shutdown);
    if wants(TOS) {
        m.attr_u8(TOS, d.tos.0);
    }
    if row.v6 {
        if wants(TCLASS) {
            m.attr_u8(TCLASS, d.tos.1);
        }
        if matches!(row.state, 7 | 10) {
            m.attr_u8(SKV6ONLY, u8::from(row.v6only));
        }
    }
    if ctx.privileged {
        m.attr_u32(MARK, row.mark);
    }
    // Of the bits of `struct inet_diag_sockopt` none is kept.
    m.attr(SOCKOPT, &[0, 0]);
    let k = &d.mem;
    if wants(MEMINFO) {
        m.attr(MEMINFO, &[k.rmem, k.wmem, 0, k.wmem].map(small).concat());
    }
    if wants(SKMEMINFO) {
        let drops = usize::try_from(k.drops).unwrap_or(usize::MAX);
        m.attr(
            SKMEMINFO,
            &[k.rmem, k.rcvbuf, k.wmem, k.sndbuf, 0, k.wmem, 0, k.backlog, drops].map(small).concat(),
        );
    }
    if a.protocol == IPPROTO_RAW {
        m.attr_u8(PROTOCOL, row.local.port() as u8);
    }
    if a.protocol == IPPROTO_TCP {
        if wants(INFO) {
            m.attr(INFO, &d.info);
        }
        if wants(CONG) {
            m.attr_str(CONG, d.congestion);
        }
    }
    m.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_requests_are_refused() {
        let ctx = Ctx::default();
        for n in 0..96 {
            for fill in [0, 2, 10, 0xff] {
                let mut req = vec![fill; n];
                if n >= NLMSGHDR {
                    req[..4].copy_from_slice(&(n as u32).to_ne_bytes());
                    req[4..8].copy_from_slice(&[20, 0, 1, 3]);
                }
                super::super::proto::request(nl::NETLINK_SOCK_DIAG, &req, &ctx);
            }
        }
    }
}
