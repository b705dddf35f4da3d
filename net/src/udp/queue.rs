//! The receive queue of a datagram socket.

use crate::skb::Skb;
use klib::sync::Mutex;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use uapi::{Errno, Result};

/// What is known about a received datagram.
#[derive(Clone, Copy, Debug)]
pub struct RecvMeta {
    /// Sender, as the socket's family shows it.
    pub src: SocketAddr,
    /// Address it was sent to.
    pub dst: IpAddr,
    /// Device it came in on.
    pub ifindex: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// Wall-clock time of arrival, nanoseconds since 1970.
    pub stamp_ns: u64,
    /// With UDP_GRO: size of the datagrams that were merged, else 0.
    pub gro_size: u16,
}

/// What a sender says beside the data (cmsgs of sendmsg(2)).
#[derive(Clone, Copy, Default, Debug)]
pub struct SendCtl {
    /// Source address (IP_PKTINFO, IPV6_PKTINFO).
    pub src: Option<IpAddr>,
    /// Device (the same), 0 = any.
    pub ifindex: u32,
    /// IP_TTL, IPV6_HOPLIMIT.
    pub ttl: Option<u8>,
    /// IP_TOS, IPV6_TCLASS.
    pub tos: Option<u8>,
    /// UDP_SEGMENT, 0 = the socket's.
    pub gso_size: u16,
}

pub(crate) struct Dgram {
    pub skb: Skb,
    pub meta: RecvMeta,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Dgram>,
    bytes: usize,
}

/// A bounded queue.
#[derive(Default)]
pub(crate) struct DgramQueue {
    queue: Mutex<Queue>,
    dropped: AtomicU64,
}

/// What a datagram counts beside its bytes.
const OVERHEAD: usize = 256;

impl DgramQueue {
    /// Adds a datagram unless `limit` bytes wait already.
    pub(crate) fn push(&self, d: Dgram, limit: usize) -> bool {
        let mut q = self.queue.lock();
        let cost = d.skb.len() + OVERHEAD;
        if q.bytes + cost > limit && !q.items.is_empty() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        q.bytes += cost;
        q.items.push_back(d);
        true
    }

    /// Takes the first datagram.
    pub(crate) fn pop(&self) -> Option<Dgram> {
        let mut q = self.queue.lock();
        let d = q.items.pop_front()?;
        q.bytes -= d.skb.len() + OVERHEAD;
        Some(d)
    }

    /// Shows the first datagram.
    pub(crate) fn peek<R>(&self, f: impl FnOnce(&RecvMeta, &[u8]) -> R) -> Option<R> {
        let q = self.queue.lock();
        let d = q.items.front()?;
        Some(f(&d.meta, d.skb.data()))
    }

    /// One receive of a socket: its pending error `err` first, else the next datagram, which `peek` leaves where it is.
    /// `EAGAIN`: there is none.
    pub(crate) fn receive<R>(
        &self,
        err: Option<Errno>,
        peek: bool,
        f: impl FnOnce(&RecvMeta, &[u8]) -> R,
    ) -> Result<R> {
        if let Some(e) = err {
            return Err(e);
        }
        if peek {
            return self.peek(f).ok_or(Errno::EAGAIN);
        }
        let d = self.pop().ok_or(Errno::EAGAIN)?;
        Ok(f(&d.meta, d.skb.data()))
    }

    /// Length of the first datagram, 0 if there is none (SIOCINQ).
    pub(crate) fn first_len(&self) -> usize {
        self.queue.lock().items.front().map_or(0, |d| d.skb.len())
    }

    /// Bytes waiting, with overhead.
    pub(crate) fn bytes(&self) -> usize {
        self.queue.lock().bytes
    }

    /// True if nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.lock().items.is_empty()
    }

    /// Datagrams dropped for want of room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
