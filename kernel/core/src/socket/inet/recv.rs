//! Receiving from internet sockets.

use super::{InetSock, Proto, ctl};
use crate::fs::iov::IovIter;
use crate::socket::SockAddr;
use crate::socket::msg::RecvMsg;
use crate::{Errno, Result};
use net::{RecvMeta, TcpSock};
use std::sync::atomic::Ordering;
use uapi::raw::net as c;

/// A packet that has left the stack's queue and has not reached the guest.
pub(super) struct Held {
    meta: RecvMeta,
    pub(super) data: Vec<u8>,
}

/// What became of a packet that was shown.
enum Shown {
    Taken(usize),
    /// A page was missing: the packet is kept.
    Missing(Held),
    /// The socket's filter does not want it.
    Filtered,
}

/// recv on a TCP socket.
pub(super) fn tcp(s: &TcpSock, msg: &RecvMsg, to: &mut IovIter<'_>) -> Result<usize> {
    if msg.flags & c::MSG_OOB != 0 {
        return Err(Errno::EINVAL);
    }
    let peek = msg.flags & c::MSG_PEEK != 0;
    // tcp(7): with MSG_TRUNC the bytes are thrown away.
    let discard = msg.flags & c::MSG_TRUNC != 0;
    let mut missing = false;
    let mut copied = 0;
    let n = s.recv_with(to.remaining(), peek, |data| {
        if discard {
            to.advance(data.len());
            return data.len();
        }
        match to.copy_to(data) {
            Ok(n) => {
                copied += n;
                n
            }
            Err(_) => {
                missing = true;
                0
            }
        }
    })?;
    if n == 0 && copied == 0 && missing { Err(Errno::EFAULT) } else { Ok(n) }
}

impl InetSock {
    pub(super) fn recv_packet(&self, msg: &mut RecvMsg, to: &mut IovIter<'_>) -> Result<usize> {
        if msg.flags & c::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let peek = msg.flags & c::MSG_PEEK != 0;
        // The filter bounds how many packets one call may throw away.
        for _ in 0..1024 {
            let held = self.held.lock().take();
            let shown = match held {
                Some(h) => {
                    let shown = self.show(msg, to, &h.meta, &h.data);
                    if peek || matches!(shown, Shown::Missing(_)) {
                        *self.held.lock() = Some(h);
                    }
                    match shown {
                        Shown::Missing(_) => return Err(Errno::EFAULT),
                        s => s,
                    }
                }
                None => {
                    let r = match &self.proto {
                        Proto::Udp(s) => s.recv_with(peek, |m, d| self.show(msg, to, m, d)),
                        Proto::Raw(s) => s.recv_with(peek, |m, d| self.show(msg, to, m, d)),
                        Proto::Tcp(_) => Err(Errno::EINVAL),
                    };
                    match r {
                        Err(Errno::EAGAIN) => {
                            let shut = matches!(&self.proto, Proto::Udp(s) if s.is_read_shut());
                            return if shut { Ok(0) } else { Err(Errno::EAGAIN) };
                        }
                        r => r?,
                    }
                }
            };
            match shown {
                Shown::Taken(n) => return Ok(n),
                Shown::Missing(h) => {
                    if !peek {
                        *self.held.lock() = Some(h);
                    }
                    return Err(Errno::EFAULT);
                }
                Shown::Filtered if peek => {
                    // What the filter does not want is in the way of the look: take it out.
                    match &self.proto {
                        Proto::Udp(s) => s.recv_with(false, |_, _| ())?,
                        Proto::Raw(s) => s.recv_with(false, |_, _| ())?,
                        Proto::Tcp(_) => {}
                    }
                }
                Shown::Filtered => {}
            }
        }
        Err(Errno::EAGAIN)
    }

    fn show(&self, msg: &mut RecvMsg, to: &mut IovIter<'_>, meta: &RecvMeta, data: &[u8]) -> Shown {
        let mut full = data.len();
        if matches!(self.proto, Proto::Raw(_)) {
            let filter = self.common.opts().filter.clone();
            if let Some(f) = filter {
                full = full.min(f.run(data));
                if full == 0 {
                    return Shown::Filtered;
                }
            }
        }
        let want = full.min(to.remaining());
        let mark = to.done();
        let n = if want == 0 { 0 } else { to.copy_to(&data[..want]).unwrap_or(0) };
        if n < want {
            to.rewind(mark);
            return Shown::Missing(Held { meta: *meta, data: data[..full].to_vec() });
        }
        msg.name = SockAddr::from_inet(&meta.src);
        let opts = match &self.proto {
            Proto::Udp(s) => s.base().opts(),
            Proto::Raw(s) => s.base().opts(),
            Proto::Tcp(_) => return Shown::Taken(n),
        };
        ctl::fill(msg, &self.common, &opts, self.rfc2292.load(Ordering::Relaxed), meta);
        if full > n {
            msg.out_flags |= c::MSG_TRUNC;
        }
        Shown::Taken(if msg.flags & c::MSG_TRUNC != 0 { full } else { n })
    }
}
