//! What the kernel answers on each netlink protocol.

use crate::Errno;
use uapi::raw::netlink as nl;

/// Size of `struct nlmsghdr`.
const NLMSGHDR: usize = 16;
/// GENL_ID_CTRL: where names of families are asked for.
const GENL_ID_CTRL: u16 = 0x10;

/// One request of a datagram.
struct Request<'a> {
    ty: u16,
    flags: u32,
    seq: u32,
    whole: &'a [u8],
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
fn error(req: &Request<'_>, port: u32, e: Option<Errno>) -> Vec<u8> {
    let echo = if e.is_some() { req.whole } else { req.whole.get(..NLMSGHDR).unwrap_or(&[]) };
    let mut m = header(NLMSGHDR + 4 + echo.len(), nl::NLMSG_ERROR, 0, req.seq, port);
    m.extend_from_slice(&e.map_or(0, |e| -e.raw()).to_ne_bytes());
    m.extend_from_slice(echo);
    m
}

fn done(req: &Request<'_>, port: u32) -> Vec<u8> {
    let mut m = header(NLMSGHDR + 4, nl::NLMSG_DONE, nl::NLM_F_MULTI, req.seq, port);
    m.extend_from_slice(&0i32.to_ne_bytes());
    m
}

/// Answers the requests in `bytes`, sent from port `port`; each element is one datagram.
pub fn request(protocol: u32, bytes: &[u8], port: u32, privileged: bool) -> Vec<Vec<u8>> {
    if protocol == nl::NETLINK_ROUTE {
        return crate::socket::route_request(bytes, port, privileged);
    }
    let mut out = Vec::new();
    for r in split(bytes) {
        // Control messages and answers are not for us to answer.
        if r.flags & nl::NLM_F_REQUEST == 0 || u32::from(r.ty) < nl::NLMSG_MIN_TYPE {
            if r.flags & nl::NLM_F_ACK != 0 {
                out.push(error(&r, port, None));
            }
            continue;
        }
        let dump = r.flags & nl::NLM_F_DUMP == nl::NLM_F_DUMP;
        out.push(match protocol {
            // There are no families yet but the one that would name them.
            nl::NETLINK_GENERIC if r.ty == GENL_ID_CTRL && dump => done(&r, port),
            nl::NETLINK_GENERIC => error(&r, port, Some(Errno::ENOENT)),
            // ss(8) falls back to /proc/net when there is nobody to ask.
            nl::NETLINK_SOCK_DIAG => error(&r, port, Some(Errno::ENOENT)),
            _ => error(&r, port, Some(Errno::EOPNOTSUPP)),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_family_is_said_to_be_unknown() {
        let mut req = header(20, u32::from(GENL_ID_CTRL), nl::NLM_F_REQUEST | nl::NLM_F_ACK, 77, 0);
        req.extend_from_slice(&[3, 1, 0, 0]);
        let out = request(nl::NETLINK_GENERIC, &req, 5, true);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].len(), 16 + 4 + 20);
        assert_eq!(&out[0][16..20], &(-2i32).to_ne_bytes());
        assert_eq!(&out[0][8..12], &77u32.to_ne_bytes());
    }

    #[test]
    fn broken_datagrams_end_quietly() {
        for n in 0..40 {
            request(nl::NETLINK_GENERIC, &vec![0xff; n], 1, false);
            request(nl::NETLINK_GENERIC, &vec![0; n], 1, false);
        }
        let mut short = header(15, 16, 1, 1, 1);
        short.push(0);
        assert!(request(nl::NETLINK_GENERIC, &short, 1, false).is_empty());
    }
}
