//! Internet sockets (ip(7), ipv6(7)): TCP, UDP, raw and ping sockets of crate `net`, as the calls see them.
//!
//! Key types: [`InetSock`]; `host` runs the stack on the executor; `ctl` translates control messages; [`init`] brings
//! the devices up. Bytes go between guest memory and the stack's rings in one copy, under the lock of the connection;
//! a missing page ends the copy short.

mod ctl;
mod host;
pub mod init;
mod recv;
#[cfg(test)]
mod tests;

pub use host::stack;

use super::common::SockCommon;
use super::msg::{Dest, RecvMsg, SendMsg};
use super::{SockAddr, Socket};
use crate::fs::file::Linger;
use crate::fs::iov::IovIter;
use crate::fs::poll::{self, PollTable};
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use klib::sync::Mutex;
use klib::waitqueue::WaitQueue;
use net::{Family, RawSock, Shutdown, TcpSock, UdpSock};
use recv::Held;
use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use uapi::raw::net as c;

const CAP_NET_BIND_SERVICE: u32 = 10;
const CAP_NET_RAW: u32 = 13;
const CAP_NET_ADMIN: u32 = 12;

const IPPROTO_ICMP: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const IPPROTO_ICMPV6: u32 = 58;

enum Proto {
    Tcp(Arc<TcpSock>),
    Udp(Arc<UdpSock>),
    /// Raw and ping sockets.
    Raw(Arc<RawSock>),
}

/// A socket of AF_INET or AF_INET6.
pub struct InetSock {
    common: SockCommon,
    proto: Proto,
    /// Where a connect under way goes.
    connecting: Mutex<Option<SocketAddr>>,
    /// Options of RFC 2292 that are on, as bits of their numbers.
    rfc2292: AtomicU32,
    /// A packet whose copy to the guest found a page missing.
    held: Mutex<Option<Held>>,
}

/// net.ipv4.ping_group_range: may this task have ping sockets?
fn may_ping(cur: &Task) -> bool {
    let text = stack().sysctl_get("ipv4/ping_group_range").unwrap_or_default();
    let mut range = text.split_whitespace().filter_map(|n| n.parse::<u32>().ok());
    let (Some(low), Some(high)) = (range.next(), range.next()) else { return false };
    let cred = cur.cred();
    let inside = |g: u32| (low..=high).contains(&g);
    inside(cred.fsgid) || cred.groups.iter().any(|&g| inside(g))
}

impl InetSock {
    /// socket(2).
    pub fn create(cur: &Arc<Task>, family: u32, ty: u32, protocol: u32) -> Result<Arc<Self>> {
        let fam = if family == c::AF_INET { Family::V4 } else { Family::V6 };
        let icmp = if fam == Family::V4 { IPPROTO_ICMP } else { IPPROTO_ICMPV6 };
        let net = stack();
        let (proto, protocol) = match (ty, protocol) {
            (c::SOCK_STREAM, 0 | IPPROTO_TCP) => (Proto::Tcp(TcpSock::new(net, fam)), IPPROTO_TCP),
            (c::SOCK_DGRAM, 0 | IPPROTO_UDP) => (Proto::Udp(UdpSock::new(net, fam)), IPPROTO_UDP),
            (c::SOCK_DGRAM, p) if p == icmp => {
                if !may_ping(cur) {
                    return Err(Errno::EACCES);
                }
                (Proto::Raw(RawSock::new_ping(net, fam)), icmp)
            }
            (c::SOCK_RAW, p) => {
                let number = u8::try_from(p).map_err(|_| Errno::EINVAL)?;
                if p == 0 {
                    return Err(Errno::EPROTONOSUPPORT);
                }
                if !cur.cred().capable(CAP_NET_RAW) {
                    return Err(Errno::EPERM);
                }
                (Proto::Raw(RawSock::new(net, fam, number)), p)
            }
            (c::SOCK_STREAM | c::SOCK_DGRAM, _) => return Err(Errno::EPROTONOSUPPORT),
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        };
        Ok(Self::wrap(SockCommon::new(family, ty, protocol), proto))
    }

    fn wrap(common: SockCommon, proto: Proto) -> Arc<Self> {
        Arc::new(Self {
            common,
            proto,
            connecting: Mutex::default(),
            rfc2292: AtomicU32::new(0),
            held: Mutex::default(),
        })
    }

    fn wait_queue(&self) -> &WaitQueue {
        match &self.proto {
            Proto::Tcp(s) => s.wait_queue(),
            Proto::Udp(s) => s.wait_queue(),
            Proto::Raw(s) => s.wait_queue(),
        }
    }

    /// An address argument of the socket's own family.
    fn own_family(&self, addr: &SockAddr, binding: bool) -> Result<SocketAddr> {
        let unspec_any = binding && self.common.family == c::AF_INET && addr.family() == c::AF_UNSPEC;
        if unspec_any && addr.len() >= 16 && addr.bytes().get(4..8) == Some(&[0; 4]) {
            let port = u16::from_be_bytes([addr.bytes()[2], addr.bytes()[3]]);
            return Ok(SocketAddr::from(([0, 0, 0, 0], port)));
        }
        if self.common.family == c::AF_INET && addr.family() != c::AF_INET && addr.len() >= 16 {
            // However long an address of that family would have to be.
            return Err(Errno::EAFNOSUPPORT);
        }
        let a = addr.to_inet()?;
        // A v4 destination on a v6 socket is taken as if mapped (udp(7) of Linux does so for sending).
        match (self.common.family, a) {
            (c::AF_INET, SocketAddr::V4(_)) | (c::AF_INET6, SocketAddr::V6(_)) => Ok(a),
            (c::AF_INET6, SocketAddr::V4(v4)) if !binding => {
                Ok(SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()))
            }
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    fn send_dest(&self, dest: &Dest) -> Result<Option<SocketAddr>> {
        match dest {
            Dest::Addr(a) => self.own_family(a, false).map(Some),
            _ => Ok(None),
        }
    }

    fn do_bind(&self, cur: &Task, addr: &SockAddr) -> Result<()> {
        let a = self.own_family(addr, true)?;
        match &self.proto {
            Proto::Raw(s) => s.bind(a),
            p => {
                let first_free =
                    stack().sysctl_get("ipv4/ip_unprivileged_port_start").and_then(|t| t.trim().parse().ok());
                if a.port() != 0
                    && a.port() < first_free.unwrap_or(1024)
                    && !cur.cred().capable(CAP_NET_BIND_SERVICE)
                {
                    return Err(Errno::EACCES);
                }
                match p {
                    Proto::Tcp(s) => s.bind(a),
                    Proto::Udp(s) => s.bind(a),
                    Proto::Raw(_) => Ok(()),
                }
            }
        }
    }

    fn send_tcp(&self, s: &TcpSock, msg: &SendMsg, from: &mut IovIter<'_>) -> Result<usize> {
        if msg.flags & c::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let more = msg.flags & c::MSG_MORE != 0;
        let mut missing = false;
        let n = s.send_with(from.remaining(), more, |room| match from.copy_from(room) {
            Ok(n) => n,
            Err(_) => {
                missing = true;
                0
            }
        })?;
        if n == 0 && missing { Err(Errno::EFAULT) } else { Ok(n) }
    }

    fn send_packet(&self, msg: &SendMsg, from: &mut IovIter<'_>) -> Result<usize> {
        if msg.flags & c::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if msg.flags & c::MSG_MORE != 0 {
            log::warn!(target: "socket", "MSG_MORE on datagrams is not supported");
            return Err(Errno::EOPNOTSUPP);
        }
        let to = self.send_dest(&msg.dest)?;
        let ctl = ctl::parse(&msg.control.other)?;
        let (len, mark) = (from.remaining(), from.done());
        let copy = |buf: &mut [u8]| from.copy_from(buf).unwrap_or(0);
        let r = match &self.proto {
            Proto::Udp(s) => s.send_with(len, to, &ctl, copy),
            Proto::Raw(s) => s.send_with(len, to, &ctl, copy),
            Proto::Tcp(_) => Err(Errno::EINVAL),
        };
        if r.is_err() {
            from.rewind(mark);
        }
        r
    }
}

impl Socket for InetSock {
    fn common(&self) -> &SockCommon {
        &self.common
    }

    fn bind<'a>(&'a self, cur: &'a Arc<Task>, addr: &'a SockAddr) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.do_bind(cur, addr) })
    }

    fn connect(&self, _cur: &Arc<Task>, dest: &Dest) -> Result<()> {
        let Dest::Addr(addr) = dest else { return Err(Errno::EINVAL) };
        if addr.len() < 2 {
            return Err(Errno::EINVAL);
        }
        if addr.family() == c::AF_UNSPEC {
            match &self.proto {
                Proto::Tcp(s) => {
                    *self.connecting.lock() = None;
                    s.disconnect();
                }
                Proto::Udp(s) => s.disconnect(),
                Proto::Raw(s) => s.disconnect(),
            }
            return Ok(());
        }
        let a = self.own_family(addr, false)?;
        match &self.proto {
            Proto::Tcp(s) => {
                let r = s.connect(a);
                *self.connecting.lock() = (r == Err(Errno::EINPROGRESS)).then_some(a);
                if r == Err(Errno::EALREADY) {
                    *self.connecting.lock() = Some(a);
                }
                r
            }
            Proto::Udp(s) => s.connect(a),
            Proto::Raw(s) => s.connect(a),
        }
    }

    fn connect_result(&self) -> Option<Result<()>> {
        let (Proto::Tcp(s), Some(a)) = (&self.proto, *self.connecting.lock()) else { return Some(Ok(())) };
        match s.connect(a) {
            Err(Errno::EALREADY | Errno::EINPROGRESS) => None,
            // Somebody else has asked for the result in between.
            Err(Errno::EISCONN) => Some(Ok(())),
            r => Some(r),
        }
    }

    fn listen(&self, _cur: &Arc<Task>, backlog: i32) -> Result<()> {
        match &self.proto {
            Proto::Tcp(s) => s.listen(backlog),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn accept(&self) -> Result<Arc<dyn Socket>> {
        match &self.proto {
            Proto::Tcp(s) => Ok(Self::wrap(self.common.inherit(), Proto::Tcp(s.accept()?))),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn name(&self, peer: bool) -> Result<SockAddr> {
        let a = match (&self.proto, peer) {
            (Proto::Tcp(s), false) => s.local_addr(),
            (Proto::Udp(s), false) => s.local_addr(),
            (Proto::Raw(s), false) => s.local_addr(),
            (Proto::Tcp(s), true) => s.peer_addr()?,
            (Proto::Udp(s), true) => s.peer_addr()?,
            (Proto::Raw(s), true) => s.peer_addr()?,
        };
        Ok(SockAddr::from_inet(&a))
    }

    fn try_send(&self, msg: &mut SendMsg, from: &mut IovIter<'_>) -> Result<usize> {
        match &self.proto {
            Proto::Tcp(s) => self.send_tcp(s, msg, from),
            _ => self.send_packet(msg, from),
        }
    }

    fn try_recv(&self, msg: &mut RecvMsg, to: &mut IovIter<'_>) -> Result<usize> {
        if msg.flags & c::MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        match &self.proto {
            Proto::Tcp(s) => recv::tcp(s, msg, to),
            _ => self.recv_packet(msg, to),
        }
    }

    fn poll(&self, table: &mut PollTable) -> u32 {
        table.register(self.wait_queue(), poll::IN | poll::OUT | poll::POLLRDHUP);
        let ev = match &self.proto {
            Proto::Tcp(s) => return s.poll_mask(),
            Proto::Udp(s) => s.poll_mask(),
            Proto::Raw(s) => s.poll_mask(),
        };
        if self.held.lock().is_some() { ev | poll::IN } else { ev }
    }

    fn shutdown(&self, how: u32) -> Result<()> {
        let how = match how {
            c::SHUT_RD => Shutdown::Read,
            c::SHUT_WR => Shutdown::Write,
            _ => Shutdown::Both,
        };
        match &self.proto {
            Proto::Tcp(s) => s.shutdown(how),
            Proto::Udp(s) => s.shutdown(how),
            Proto::Raw(s) => s.peer_addr().map(|_| ()),
        }
    }

    fn setsockopt(&self, cur: &Arc<Task>, level: u32, name: u32, val: &[u8]) -> Result<()> {
        let cred = cur.cred();
        let transparent = (level, name) == (c::SOL_IP, c::IP_TRANSPARENT)
            || (level, name) == (c::SOL_IPV6, c::IPV6_TRANSPARENT);
        if transparent && !cred.capable(CAP_NET_ADMIN) && !cred.capable(CAP_NET_RAW) {
            return Err(Errno::EPERM);
        }
        match (level, name) {
            // There are no IP options to be reported.
            (c::SOL_IP, c::IP_RECVOPTS | c::IP_RETOPTS) => return Ok(()),
            (c::SOL_IPV6, ctl::IPV6_2292PKTINFO | ctl::IPV6_2292HOPLIMIT)
                if self.common.family == c::AF_INET6 =>
            {
                let bit = 1 << name;
                if super::msg::first_int(val)? != 0 {
                    self.rfc2292.fetch_or(bit, Ordering::Relaxed);
                } else {
                    self.rfc2292.fetch_and(!bit, Ordering::Relaxed);
                }
                return Ok(());
            }
            _ => {}
        }
        let (level, name) = (level.cast_signed(), name.cast_signed());
        match &self.proto {
            Proto::Tcp(s) => s.setsockopt(level, name, val),
            Proto::Udp(s) => s.setsockopt(level, name, val),
            Proto::Raw(s) => s.setsockopt(level, name, val),
        }
    }

    fn getsockopt(&self, level: u32, name: u32, _len: usize) -> Result<Vec<u8>> {
        let (level, name) = (level.cast_signed(), name.cast_signed());
        match &self.proto {
            Proto::Tcp(s) => s.getsockopt(level, name),
            Proto::Udp(s) => s.getsockopt(level, name),
            Proto::Raw(s) => s.getsockopt(level, name),
        }
    }

    fn sol_socket_changed(&self, cur: &Arc<Task>, name: u32, val: &[u8]) -> Result<()> {
        match name {
            // These are ours alone.
            c::SO_ATTACH_FILTER
            | c::SO_DETACH_FILTER
            | c::SO_LOCK_FILTER
            | c::SO_RCVTIMEO_OLD
            | c::SO_RCVTIMEO_NEW
            | c::SO_SNDTIMEO_OLD
            | c::SO_SNDTIMEO_NEW => Ok(()),
            _ => match self.setsockopt(cur, c::SOL_SOCKET, name, val) {
                // What the stack has no use for has been kept.
                Err(Errno::ENOPROTOOPT) => Ok(()),
                r => r,
            },
        }
    }

    fn buf_sizes(&self) -> Option<(usize, usize)> {
        let read = |name: u32| {
            let v = self.getsockopt(c::SOL_SOCKET, name, 4).ok()?;
            usize::try_from(super::msg::first_int(&v).ok()?).ok()
        };
        Some((read(c::SO_SNDBUF)?, read(c::SO_RCVBUF)?))
    }

    fn take_error(&self) -> Option<Errno> {
        match &self.proto {
            Proto::Tcp(s) => s.take_error(),
            Proto::Udp(s) => s.take_error(),
            Proto::Raw(s) => s.take_error(),
        }
    }

    fn is_listening(&self) -> bool {
        matches!(&self.proto, Proto::Tcp(s) if s.backlog().is_some())
    }

    fn inq(&self) -> Result<u64> {
        if let Some(h) = &*self.held.lock() {
            return Ok(h.data.len() as u64);
        }
        let n = match &self.proto {
            Proto::Tcp(_) if self.is_listening() => return Err(Errno::EINVAL),
            Proto::Tcp(s) => s.inq(),
            Proto::Udp(s) => s.inq(),
            Proto::Raw(s) => s.inq(),
        };
        Ok(n as u64)
    }

    fn outq(&self) -> Result<u64> {
        match &self.proto {
            Proto::Tcp(_) if self.is_listening() => Err(Errno::EINVAL),
            Proto::Tcp(s) => Ok(s.outq() as u64),
            _ => Ok(0),
        }
    }

    fn linger(&self) -> Option<Linger> {
        let Proto::Tcp(s) = &self.proto else { return None };
        let (limit, conn) = s.linger()?;
        let over = move |table: &mut PollTable| {
            table.register(&conn.wq, poll::OUT);
            !conn.is_lingering()
        };
        Some(Linger { limit, over: Box::new(over) })
    }

    fn opened(&self, ino: u64, uid: u32) {
        match &self.proto {
            Proto::Tcp(s) => s.set_owner(ino, uid),
            Proto::Udp(s) => s.base().set_owner(ino, uid),
            Proto::Raw(s) => s.base().set_owner(ino, uid),
        }
    }

    fn cookie(&self) -> u64 {
        match &self.proto {
            Proto::Tcp(s) => s.cookie(),
            Proto::Udp(s) => s.base().id,
            Proto::Raw(s) => s.base().id,
        }
    }

    fn release(&self) {
        match &self.proto {
            Proto::Tcp(s) => s.close(),
            Proto::Udp(s) => s.close(),
            Proto::Raw(s) => s.close(),
        }
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// Adds the default route of IPv4.
fn route_default(gateway: std::net::Ipv4Addr, oif: u32) -> Result<()> {
    use net::route::{FibEntry, Prefix};
    let net = stack();
    let dst = Prefix::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0).ok_or(Errno::EINVAL)?;
    net.fib.write().insert(FibEntry::new(dst, Some(gateway.into()), oif), true, false, false)?;
    net.bump_routes();
    Ok(())
}
