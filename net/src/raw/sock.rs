//! The raw or ping socket as the socket layer holds it.

use crate::csum;
use crate::ip::{self, IPPROTO_ICMP, IPPROTO_ICMPV6};
use crate::netns::Net;
use crate::poll;
use crate::sockopt::{Family, SockBase, dgram};
use crate::udp::{DgramQueue, Plan, RecvMeta, SendCtl};
use klib::sync::{Mutex, RwLock};
use klib::waitqueue::WaitQueue;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use uapi::{Errno, Result};

/// Raw of a protocol, or ping with its echo identifier (0 = not bound yet).
pub(crate) enum Kind {
    Raw(u8),
    Ping(Mutex<u16>),
}

#[derive(Default)]
pub(crate) struct State {
    pub local: Option<IpAddr>,
    pub peer: Option<SocketAddr>,
    pub err: Option<Errno>,
}

pub(crate) struct RawInner {
    pub base: SockBase,
    pub wq: WaitQueue,
    pub queue: DgramQueue,
    pub state: Mutex<State>,
    pub kind: Kind,
}

/// A raw or ping socket.
pub struct RawSock {
    net: Arc<Net>,
    inner: Arc<RawInner>,
}

/// All raw and ping sockets.
#[derive(Default)]
pub struct RawTable {
    raw: RwLock<HashMap<u8, Vec<Arc<RawInner>>>>,
    ping: RwLock<HashMap<(u16, bool), Arc<RawInner>>>,
    /// One bit a protocol, so that packets nobody wants cost one load.
    present: [AtomicU32; 8],
}

impl RawTable {
    /// True if a raw socket wants this protocol.
    pub fn has(&self, proto: u8) -> bool {
        let w = self.present[usize::from(proto >> 5)].load(Ordering::Relaxed);
        w & (1 << (proto & 31)) != 0
    }

    pub(super) fn of(&self, proto: u8, v4: bool) -> Vec<Arc<RawInner>> {
        let t = self.raw.read();
        let fits = |s: &&Arc<RawInner>| (s.base.family == Family::V4) == v4;
        t.get(&proto).map(|v| v.iter().filter(fits).cloned().collect()).unwrap_or_default()
    }

    pub(super) fn ping(&self, id: u16, v4: bool) -> Option<Arc<RawInner>> {
        self.ping.read().get(&(id, v4)).cloned()
    }

    /// Shows all raw sockets to `f`: with protocol, local and remote end, queued bytes, drops.
    pub(crate) fn each(
        &self,
        mut f: impl FnMut(&SockBase, u8, Option<IpAddr>, Option<SocketAddr>, usize, u64),
    ) {
        for (proto, list) in self.raw.read().iter() {
            for s in list {
                let (local, peer) = {
                    let st = s.state.lock();
                    (st.local, st.peer)
                };
                f(&s.base, *proto, local, peer, s.queue.bytes(), s.queue.dropped());
            }
        }
    }

    fn add(&self, proto: u8, s: &Arc<RawInner>) {
        self.raw.write().entry(proto).or_default().push(Arc::clone(s));
        self.present[usize::from(proto >> 5)].fetch_or(1 << (proto & 31), Ordering::Relaxed);
    }

    fn remove(&self, s: &Arc<RawInner>) {
        match &s.kind {
            Kind::Raw(p) => {
                let mut t = self.raw.write();
                if let Some(v) = t.get_mut(p) {
                    v.retain(|x| !Arc::ptr_eq(x, s));
                    if v.is_empty() {
                        t.remove(p);
                        self.present[usize::from(*p >> 5)].fetch_and(!(1 << (*p & 31)), Ordering::Relaxed);
                    }
                }
            }
            Kind::Ping(id) => {
                let key = (*id.lock(), s.base.family == Family::V4);
                let mut t = self.ping.write();
                if t.get(&key).is_some_and(|x| Arc::ptr_eq(x, s)) {
                    t.remove(&key);
                }
            }
        }
    }
}

impl RawSock {
    fn build(net: &Arc<Net>, family: Family, kind: Kind) -> Arc<Self> {
        let inner = Arc::new(RawInner {
            base: SockBase::new(net, family),
            wq: WaitQueue::new(),
            queue: DgramQueue::default(),
            state: Mutex::default(),
            kind,
        });
        Arc::new(Self { net: Arc::clone(net), inner })
    }

    /// SOCK_RAW of a protocol (the caller has checked CAP_NET_RAW). IPPROTO_RAW (255) only sends, header included.
    pub fn new(net: &Arc<Net>, family: Family, proto: u8) -> Arc<Self> {
        let s = Self::build(net, family, Kind::Raw(proto));
        s.inner.base.change(|o| {
            o.hdrincl = proto == 255;
            if proto == IPPROTO_ICMPV6 {
                o.checksum_at = 2;
            }
        });
        net.raw.add(proto, &s.inner);
        s
    }

    /// SOCK_DGRAM with IPPROTO_ICMP or IPPROTO_ICMPV6 (the caller has checked ping_group_range).
    pub fn new_ping(net: &Arc<Net>, family: Family) -> Arc<Self> {
        Self::build(net, family, Kind::Ping(Mutex::new(0)))
    }

    /// What all kinds of sockets have.
    pub fn base(&self) -> &SockBase {
        &self.inner.base
    }

    /// Where to wait for readiness.
    pub fn wait_queue(&self) -> &WaitQueue {
        &self.inner.wq
    }

    fn proto(&self) -> u8 {
        match (&self.inner.kind, self.inner.base.family) {
            (Kind::Raw(p), _) => *p,
            (Kind::Ping(_), Family::V4) => IPPROTO_ICMP,
            (Kind::Ping(_), Family::V6) => IPPROTO_ICMPV6,
        }
    }

    fn check_family(&self, a: &SocketAddr) -> Result<()> {
        if a.is_ipv4() == (self.inner.base.family == Family::V4) { Ok(()) } else { Err(Errno::EAFNOSUPPORT) }
    }

    /// Takes an echo identifier for a ping socket.
    fn bind_ping(&self, want: u16) -> Result<u16> {
        let Kind::Ping(id) = &self.inner.kind else { return Ok(0) };
        let mut id = id.lock();
        if *id != 0 {
            return Ok(*id);
        }
        let v4 = self.inner.base.family == Family::V4;
        let mut t = self.net.raw.ping.write();
        let seed = self.net.random_u32();
        let free = if want != 0 {
            (!t.contains_key(&(want, v4))).then_some(want)
        } else {
            (0..65_535u32)
                .map(|i| (seed.wrapping_add(i) % 65_535 + 1) as u16)
                .find(|p| !t.contains_key(&(*p, v4)))
        };
        let got = free.ok_or(Errno::EADDRINUSE)?;
        t.insert((got, v4), Arc::clone(&self.inner));
        *id = got;
        Ok(got)
    }

    /// bind(2): local address, and for ping sockets the identifier as port.
    pub fn bind(&self, addr: SocketAddr) -> Result<()> {
        self.check_family(&addr)?;
        let ip = addr.ip();
        if !ip.is_unspecified() && !ip.is_multicast() && !self.net.can_bind(ip) && !self.net.is_broadcast(ip)
        {
            return Err(Errno::EADDRNOTAVAIL);
        }
        self.bind_ping(addr.port())?;
        self.inner.state.lock().local = Some(ip);
        Ok(())
    }

    /// connect(2).
    pub fn connect(&self, addr: SocketAddr) -> Result<()> {
        self.check_family(&addr)?;
        self.net.route_lookup(addr.ip(), None, crate::sockopt::scope(&addr))?;
        self.bind_ping(0)?;
        self.inner.state.lock().peer = Some(addr);
        Ok(())
    }

    /// connect(2) with AF_UNSPEC.
    pub fn disconnect(&self) {
        self.inner.state.lock().peer = None;
    }

    /// Sends a packet of `len` bytes that `f` writes (fewer = EFAULT). Ping sockets send echo requests only.
    pub fn send_with(
        &self,
        len: usize,
        to: Option<SocketAddr>,
        ctl: &SendCtl,
        f: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<usize> {
        let (local, peer) = {
            let mut st = self.inner.state.lock();
            if let Some(e) = st.err.take() {
                return Err(e);
            }
            (st.local, to.or(st.peer).ok_or(Errno::EDESTADDRREQ)?)
        };
        self.check_family(&peer)?;
        if len > 65_535 {
            return Err(Errno::EMSGSIZE);
        }
        let o = self.inner.base.opts();
        let proto = self.proto();
        let v4 = peer.is_ipv4();
        let plan = Plan::new(&self.net, &self.inner.base, &o, local, peer, ctl, proto)?;
        let mut skb = self.net.pool.alloc(len);
        skb.mark = o.mark;
        let d = skb.put(len);
        if f(d) < len {
            return Err(Errno::EFAULT);
        }
        if let Kind::Ping(_) = self.inner.kind {
            let id = self.bind_ping(0)?;
            let request = if v4 { 8 } else { 128 };
            if len < 8 || d[0] != request || d[1] != 0 {
                return Err(Errno::EINVAL);
            }
            d[4..6].copy_from_slice(&id.to_be_bytes());
            let acc = if v4 { 0 } else { csum::pseudo(plan.header.src, plan.header.dst, proto, len) };
            d[2..4].fill(0);
            let c = csum::checksum(d, acc);
            d[2..4].copy_from_slice(&c.to_be_bytes());
        } else if o.hdrincl && v4 {
            return self.send_own_header(&plan, skb);
        } else if !v4 && o.checksum_at >= 0 {
            let at = usize::try_from(o.checksum_at).unwrap_or(0);
            if let Some(field) = d.get_mut(at..at + 2) {
                field.fill(0);
                let c = csum::checksum(d, csum::pseudo(plan.header.src, plan.header.dst, proto, len));
                d[at..at + 2].copy_from_slice(&c.to_be_bytes());
            } else {
                return Err(Errno::EINVAL);
            }
        }
        plan.send(&self.net, skb, o.mtu_discover)?;
        self.net.kick();
        Ok(len)
    }

    /// IP_HDRINCL: total length, checksum, and source and identification if zero are ours (raw(7)).
    fn send_own_header(&self, plan: &Plan, mut skb: crate::skb::Skb) -> Result<usize> {
        let len = skb.len();
        let d = skb.data_mut();
        let hlen = usize::from(d.first().copied().unwrap_or(0) & 15) * 4;
        if len < 20 || hlen < 20 || hlen > len {
            return Err(Errno::EINVAL);
        }
        if len > plan.route.mtu as usize {
            return Err(Errno::EMSGSIZE);
        }
        d[2..4].copy_from_slice(&u16::try_from(len).unwrap_or(0).to_be_bytes());
        if d[4..6] == [0, 0] {
            d[4..6].copy_from_slice(&self.net.next_ip_id().to_be_bytes());
        }
        if let (IpAddr::V4(src), true) = (plan.header.src, d[12..16] == [0; 4]) {
            d[12..16].copy_from_slice(&src.octets());
        }
        d[10..12].fill(0);
        let c = csum::checksum(&d[..hlen], 0);
        d[10..12].copy_from_slice(&c.to_be_bytes());
        let dst = ip::parse(d).ok_or(Errno::EINVAL)?.dst;
        self.net.ip_output(&plan.route, dst, skb);
        self.net.kick();
        Ok(len)
    }

    /// Sends a slice.
    pub fn send_to(&self, data: &[u8], to: Option<SocketAddr>) -> Result<usize> {
        self.send_with(data.len(), to, &SendCtl::default(), |b| {
            b.copy_from_slice(data);
            data.len()
        })
    }

    /// Hands the next packet to `f`. EAGAIN if there is none.
    pub fn recv_with<R>(&self, peek: bool, f: impl FnOnce(&RecvMeta, &[u8]) -> R) -> Result<R> {
        let err = self.inner.state.lock().err.take();
        self.inner.queue.receive(err, peek, f)
    }

    /// The last file that held the socket is gone.
    pub fn close(&self) {
        self.net.raw.remove(&self.inner);
    }

    /// getsockname(2).
    pub fn local_addr(&self) -> SocketAddr {
        let port = match &self.inner.kind {
            Kind::Raw(p) => u16::from(*p),
            Kind::Ping(id) => *id.lock(),
        };
        let ip = self.inner.state.lock().local;
        SocketAddr::new(ip.unwrap_or_else(|| self.inner.base.any()), port)
    }

    /// getpeername(2).
    pub fn peer_addr(&self) -> Result<SocketAddr> {
        self.inner.state.lock().peer.ok_or(Errno::ENOTCONN)
    }

    /// poll(2) bits now.
    pub fn poll_mask(&self) -> u32 {
        let mut m = poll::OUT | poll::WRNORM;
        if self.inner.state.lock().err.is_some() {
            m |= poll::ERR;
        }
        if !self.inner.queue.is_empty() {
            m |= poll::IN | poll::RDNORM;
        }
        m
    }

    /// SO_ERROR.
    pub fn take_error(&self) -> Option<Errno> {
        self.inner.state.lock().err.take()
    }

    /// SIOCINQ.
    pub fn inq(&self) -> usize {
        self.inner.queue.first_len()
    }

    /// setsockopt(2).
    pub fn setsockopt(&self, level: i32, name: i32, v: &[u8]) -> Result<()> {
        dgram::set(&self.net, &self.inner.base, self.proto(), level, name, v)
    }

    /// getsockopt(2).
    pub fn getsockopt(&self, level: i32, name: i32) -> Result<Vec<u8>> {
        let kind = if matches!(self.inner.kind, Kind::Ping(_)) { 2 } else { 3 };
        dgram::get(&self.net, &self.inner.base, kind, self.proto(), level, name, || self.take_error())
    }
}

impl Drop for RawSock {
    fn drop(&mut self) {
        self.close();
    }
}
