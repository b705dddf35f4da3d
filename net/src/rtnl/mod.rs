//! rtnetlink: requests in, replies out (rtnetlink(7), netlink(7)).
//!
//! [`request`] takes one datagram of a NETLINK_ROUTE socket and gives the datagrams to queue for reading. `codec` reads and
//! writes messages; `link`, `addr`, `route` and `neigh` each answer one family of them.
//! Below: the whole namespace. Above: netlink sockets. No locks of its own.

mod addr;
mod codec;
pub(crate) mod link;
mod neigh;
mod route;

pub use codec::Msg;

use crate::netns::Net;
use codec::{Dump, Header, NLM_F_ACK, NLM_F_DUMP, NLMSG_HDRLEN, error};
use uapi::{Errno, Result};

/// One message as its handler sees it.
pub(crate) struct Request<'a> {
    /// Its header.
    pub h: Header,
    /// What follows the header.
    pub body: &'a [u8],
    /// Port id of the socket, for the replies.
    pub portid: u32,
    /// CAP_NET_ADMIN.
    pub admin: bool,
}

impl Request<'_> {
    pub(crate) fn is_dump(&self) -> bool {
        self.h.flags & NLM_F_DUMP == NLM_F_DUMP
    }
}

/// Answers one datagram, which may hold several messages. `admin`: the sender may change things (CAP_NET_ADMIN); else
/// changes answer EPERM. Each element of the result is one datagram, at most about 4 KiB, for the socket `portid`.
pub fn request(net: &Net, data: &[u8], portid: u32, admin: bool) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = data;
    while let Some(h) = Header::parse(rest) {
        let len = h.len as usize;
        if len < NLMSG_HDRLEN || len > rest.len() {
            break;
        }
        let (msg, body) = (&rest[..len], &rest[NLMSG_HDRLEN..len]);
        rest = rest.get((len + 3) & !3..).unwrap_or(&[]);
        // Not a request, or a control message.
        if h.flags & 1 == 0 || h.kind < 16 {
            continue;
        }
        let req = Request { h, body, portid, admin };
        let r = if req.is_dump() && h.kind & 3 == 2 {
            let mut d = Dump::new(&h, portid);
            dump(net, &req, &mut d).map(|()| out.append(&mut d.finish()))
        } else {
            handle(net, &req, &mut out).map(|()| {
                if h.flags & NLM_F_ACK != 0 {
                    out.push(error(&h, msg, None, portid));
                }
            })
        };
        if let Err(e) = r {
            out.push(error(&h, msg, Some(e), portid));
        }
    }
    out
}

fn dump(net: &Net, req: &Request<'_>, d: &mut Dump) -> Result<()> {
    match req.h.kind {
        link::RTM_GETLINK => link::dump(net, req, d),
        addr::RTM_GETADDR => addr::dump(net, req, d),
        route::RTM_GETROUTE => route::dump(net, req, d),
        neigh::RTM_GETNEIGH => neigh::dump(net, req, d),
        route::RTM_GETRULE => route::dump_rules(req, d),
        // Queueing disciplines, multicast and others: nothing there.
        38 | 58 => Ok(()),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

fn handle(net: &Net, req: &Request<'_>, out: &mut Vec<Vec<u8>>) -> Result<()> {
    // Everything but GET changes something.
    if req.h.kind & 3 != 2 && !req.admin {
        return Err(Errno::EPERM);
    }
    match req.h.kind {
        link::RTM_GETLINK => link::get(net, req, out),
        link::RTM_NEWLINK | link::RTM_SETLINK => link::set(net, req),
        link::RTM_DELLINK => Err(Errno::EOPNOTSUPP),
        addr::RTM_NEWADDR => addr::add(net, req),
        addr::RTM_DELADDR => addr::del(net, req),
        route::RTM_NEWROUTE => route::add(net, req),
        route::RTM_DELROUTE => route::del(net, req),
        route::RTM_GETROUTE => route::get(net, req, out),
        neigh::RTM_NEWNEIGH => neigh::add(net, req),
        neigh::RTM_DELNEIGH => neigh::del(net, req),
        neigh::RTM_GETNEIGH => neigh::get(net, req, out),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

#[cfg(test)]
mod tests;
