//! What the kernel answers on each netlink protocol.

use super::attr::Nack;
use super::{diag, genl};
use crate::Errno;
use uapi::raw::netlink as nl;

/// Size of `struct nlmsghdr`.
const NLMSGHDR: usize = 16;
/// Flags of an acknowledgement: the request is cut to its header; attributes follow.
const NLM_F_CAPPED: u32 = 0x100;
const NLM_F_ACK_TLVS: u32 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ctx {
    /// Port of the socket.
    pub port: u32,
    /// CAP_NET_ADMIN.
    pub privileged: bool,
    /// NETLINK_EXT_ACK is set.
    pub ext_ack: bool,
    /// NETLINK_CAP_ACK is set.
    pub cap_ack: bool,
}

/// One request of a datagram.
pub struct Request<'a> {
    /// Type of the message.
    pub ty: u16,
    flags: u32,
    /// Its number.
    pub seq: u32,
    /// All of it.
    pub whole: &'a [u8],
}

fn split(mut req: &[u8]) -> impl Iterator<Item = Request<'_>> {
    std::iter::from_fn(move || {
        let head = req.get(..NLMSGHDR)?;
        let u32_at = |at: usize| head.get(at..)?.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b));
        let len = usize::try_from(u32_at(0)?).ok()?;
        let whole = req.get(..len).filter(|_| len >= NLMSGHDR)?;
        req = req.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        let kind = u32_at(4)?;
        Some(Request { ty: (kind & 0xffff) as u16, flags: kind >> 16, seq: u32_at(8)?, whole })
    })
}

fn header(len: usize, ty: u32, flags: u32, seq: u32, port: u32) -> Vec<u8> {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    [len, (flags << 16) | ty, seq, port].iter().flat_map(|w| w.to_ne_bytes()).collect()
}

/// NLMSG_ERROR; `None` is an acknowledgement. An error carries the request, an acknowledgement its header.
fn error(req: &Request<'_>, ctx: &Ctx, e: Option<&Nack>) -> Vec<u8> {
    let full = e.is_some() && !ctx.cap_ack;
    let echo = if full { req.whole } else { req.whole.get(..NLMSGHDR).unwrap_or(&[]) };
    let mut tail = Vec::new();
    if let Some(e) = e.filter(|_| ctx.ext_ack) {
        let mut attr = |kind: u16, v: &[u8]| {
            let len = u16::try_from(v.len() + 4).unwrap_or(4);
            tail.extend_from_slice(&len.to_ne_bytes());
            tail.extend_from_slice(&kind.to_ne_bytes());
            tail.extend_from_slice(v);
            tail.resize(tail.len().next_multiple_of(4), 0);
        };
        if !e.text.is_empty() {
            attr(NLMSGERR_ATTR_MSG, &[e.text.as_bytes(), &[0]].concat());
        }
        if e.at != 0 {
            attr(NLMSGERR_ATTR_OFFS, &u32::try_from(e.at).unwrap_or(0).to_ne_bytes());
        }
    }
    let flags = if full { 0 } else { NLM_F_CAPPED } | if tail.is_empty() { 0 } else { NLM_F_ACK_TLVS };
    let body = if tail.is_empty() { echo.len() } else { echo.len().next_multiple_of(4) };
    let mut m = header(NLMSGHDR + 4 + body + tail.len(), nl::NLMSG_ERROR, flags, req.seq, ctx.port);
    m.extend_from_slice(&e.map_or(0, |e| -e.errno.raw()).to_ne_bytes());
    m.extend_from_slice(echo);
    m.resize(NLMSGHDR + 4 + body, 0);
    m.extend_from_slice(&tail);
    m
}

fn done(req: &Request<'_>, port: u32) -> Vec<u8> {
    let mut m = header(NLMSGHDR + 4, nl::NLMSG_DONE, nl::NLM_F_MULTI, req.seq, port);
    m.extend_from_slice(&0i32.to_ne_bytes());
    m
}

/// Answers the requests in `bytes`; each element is one datagram.
pub fn request(protocol: u32, bytes: &[u8], ctx: &Ctx) -> Vec<Vec<u8>> {
    if protocol == nl::NETLINK_ROUTE {
        return crate::socket::route_request(bytes, ctx.port, ctx.privileged);
    }
    let mut out = Vec::new();
    for r in split(bytes) {
        // Control messages and answers are not for us to answer.
        if r.flags & nl::NLM_F_REQUEST == 0 || u32::from(r.ty) < nl::NLMSG_MIN_TYPE {
            if r.flags & nl::NLM_F_ACK != 0 {
                out.push(error(&r, ctx, None));
            }
            continue;
        }
        let dump = r.flags & nl::NLM_F_DUMP == nl::NLM_F_DUMP;
        let res = match protocol {
            nl::NETLINK_GENERIC => genl::request(&r, ctx, dump, &mut out),
            nl::NETLINK_SOCK_DIAG => diag::request(&r, ctx, dump, &mut out),
            _ => Err(Errno::EOPNOTSUPP.into()),
        };
        match res {
            Err(e) => out.push(error(&r, ctx, Some(&e))),
            Ok(()) if dump => out.push(done(&r, ctx.port)),
            Ok(()) if r.flags & nl::NLM_F_ACK != 0 => out.push(error(&r, ctx, None)),
            Ok(()) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_family_is_said_to_be_unknown() {
        let flags = nl::NLM_F_REQUEST | nl::NLM_F_ACK;
        let mut req = header(32, u32::from(genl::GENL_ID_CTRL), flags, 77, 0);
        req.extend_from_slice(&[3, 1, 0, 0, 12, 0, 2, 0]);
        req.extend_from_slice(b"nosuch\0\0");
        let out = request(nl::NETLINK_GENERIC, &req, &Ctx { port: 5, ..Ctx::default() });
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].len(), 16 + 4 + 32);
        assert_eq!(&out[0][16..20], &(-2i32).to_ne_bytes());
        assert_eq!(&out[0][8..12], &77u32.to_ne_bytes());
    }

    #[test]
    fn families_are_listed_and_found_by_name() {
        let mut req = header(20, u32::from(genl::GENL_ID_CTRL), nl::NLM_F_REQUEST | nl::NLM_F_DUMP, 1, 0);
        req.extend_from_slice(&[3, 1, 0, 0]);
        let out = request(nl::NETLINK_GENERIC, &req, &Ctx::default());
        assert_eq!(out.len(), 3, "nlctrl, ethtool, the end");
        assert_eq!(&out[2][4..6], &3u16.to_ne_bytes());
        let mut req = header(32, u32::from(genl::GENL_ID_CTRL), nl::NLM_F_REQUEST, 1, 0);
        req.extend_from_slice(&[3, 1, 0, 0, 12, 0, 2, 0]);
        req.extend_from_slice(b"ethtool\0");
        let out = request(nl::NETLINK_GENERIC, &req, &Ctx::default());
        assert_eq!(out.len(), 1);
        assert_eq!(&out[0][16..18], &[1, 2], "CTRL_CMD_NEWFAMILY, version 2");
        assert!(out[0].windows(8).any(|w| w == b"monitor\0"));
    }

    #[test]
    fn refusals_say_what_and_where() {
        let mut req = header(24, 16, nl::NLM_F_REQUEST, 1, 0);
        req.extend_from_slice(&[3, 1, 0, 0, 8, 0, 0, 0]);
        let r = Request { ty: 16, flags: 1, seq: 1, whole: &req };
        let e = Nack { errno: Errno::EINVAL, text: "no", at: 20 };
        let m = error(&r, &Ctx { ext_ack: true, cap_ack: true, ..Ctx::default() }, Some(&e));
        assert_eq!(m.len(), 16 + 4 + 16 + 8 + 8);
        assert_eq!(&m[6..8], &0x300u16.to_ne_bytes());
        assert_eq!(&m[36..43], &[7, 0, 1, 0, b'n', b'o', 0]);
        assert_eq!(&m[44..52], &[8, 0, 2, 0, 20, 0, 0, 0]);
        assert_eq!(error(&r, &Ctx::default(), Some(&e)).len(), 16 + 4 + 24);
    }

    #[test]
    fn broken_datagrams_end_quietly() {
        let ctx = Ctx { port: 1, ..Ctx::default() };
        for n in 0..40 {
            request(nl::NETLINK_GENERIC, &vec![0xff; n], &ctx);
            request(nl::NETLINK_GENERIC, &vec![0; n], &ctx);
        }
        let mut short = header(15, 16, 1, 1, 1);
        short.push(0);
        assert!(request(nl::NETLINK_GENERIC, &short, &ctx).is_empty());
    }
}
