//! The UDP socket as the socket layer holds it.

use super::input::{pick, score};
use super::queue::{DgramQueue, RecvMeta, SendCtl};
use super::send::Plan;
use crate::csum;
use crate::netns::Net;
use crate::poll;
use crate::skb::{CsumStatus, GsoInfo, GsoType};
use crate::sockopt::{Family, Shutdown, SockBase, dgram};
use crate::tcp::Keyed;
use crate::tcp::port::{Binding, PortTable};
use klib::sync::{Mutex, RwLock};
use klib::waitqueue::WaitQueue;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use uapi::{Errno, Result};

#[derive(Default)]
pub(crate) struct State {
    pub local: Option<SocketAddr>,
    pub peer: Option<SocketAddr>,
    /// The source address that connect(2) chose; goes away with the connection.
    pub auto_addr: bool,
    pub err: Option<Errno>,
    pub rd_shut: bool,
    pub wr_shut: bool,
}

pub(crate) struct UdpInner {
    pub base: SockBase,
    pub wq: WaitQueue,
    pub queue: DgramQueue,
    pub state: Mutex<State>,
}

/// A UDP socket.
pub struct UdpSock {
    net: Arc<Net>,
    inner: Arc<UdpInner>,
}

/// All bound UDP sockets.
pub struct UdpTable {
    pub(crate) ports: PortTable,
    by_port: RwLock<HashMap<u16, Vec<Arc<UdpInner>>>>,
}

impl Default for UdpTable {
    fn default() -> Self {
        Self { ports: PortTable::new(true), by_port: RwLock::default() }
    }
}

impl UdpTable {
    /// Who gets a datagram: one, or `many` for groups and broadcasts.
    pub(super) fn lookup(&self, m: &RecvMeta, dport: u16, many: bool, key: Keyed) -> Vec<Arc<UdpInner>> {
        let t = self.by_port.read();
        let Some(v) = t.get(&dport) else { return Vec::new() };
        if many {
            return v.iter().filter(|s| score(s, m, dport).is_some()).cloned().collect();
        }
        let Some(best) = v.iter().filter_map(|s| score(s, m, dport)).max() else { return Vec::new() };
        let mut group = v.iter().filter(|s| score(s, m, dport) == Some(best));
        let n = group.clone().count();
        group.nth(pick(key, m, n)).cloned().into_iter().collect()
    }

    pub(super) fn bound_to(&self, port: u16) -> Vec<Arc<UdpInner>> {
        self.by_port.read().get(&port).cloned().unwrap_or_default()
    }

    fn insert(&self, port: u16, s: &Arc<UdpInner>) {
        self.by_port.write().entry(port).or_default().push(Arc::clone(s));
    }

    fn remove(&self, port: u16, s: &Arc<UdpInner>) {
        let mut t = self.by_port.write();
        if let Some(v) = t.get_mut(&port) {
            v.retain(|x| !Arc::ptr_eq(x, s));
            if v.is_empty() {
                t.remove(&port);
            }
        }
    }

    /// Shows all sockets to `f`: with their local and remote end, queued bytes, drops.
    pub(crate) fn each(&self, mut f: impl FnMut(&SockBase, SocketAddr, Option<SocketAddr>, usize, u64)) {
        for s in self.by_port.read().values().flatten() {
            let (local, peer) = {
                let st = s.state.lock();
                (st.local, st.peer)
            };
            if let Some(local) = local {
                f(&s.base, local, peer, s.queue.bytes(), s.queue.dropped());
            }
        }
    }
}

impl UdpSock {
    /// An unbound socket.
    pub fn new(net: &Arc<Net>, family: Family) -> Arc<Self> {
        let inner = Arc::new(UdpInner {
            base: SockBase::new(net, family),
            wq: WaitQueue::new(),
            queue: DgramQueue::default(),
            state: Mutex::default(),
        });
        Arc::new(Self { net: Arc::clone(net), inner })
    }

    /// What all kinds of sockets have.
    pub fn base(&self) -> &SockBase {
        &self.inner.base
    }

    /// Where to wait for readiness.
    pub fn wait_queue(&self) -> &WaitQueue {
        &self.inner.wq
    }

    fn v6(&self) -> bool {
        self.inner.base.family == Family::V6
    }

    /// bind(2).
    pub fn bind(&self, addr: SocketAddr) -> Result<()> {
        let addr = self.inner.base.normalize(addr, true)?;
        let ip = addr.ip();
        let o = self.inner.base.opts();
        let fine = ip.is_unspecified()
            || ip.is_multicast()
            || o.freebind
            || o.transparent
            || self.net.can_bind(ip)
            || self.net.is_broadcast(ip);
        if !fine {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let mut st = self.inner.state.lock();
        if st.local.is_some() {
            return Err(Errno::EINVAL);
        }
        self.bind_locked(&mut st, addr)
    }

    fn bind_locked(&self, st: &mut State, addr: SocketAddr) -> Result<()> {
        let o = self.inner.base.opts();
        let b = Binding {
            v6only: o.v6only,
            reuseaddr: o.reuseaddr,
            reuseport: o.reuseport,
            oif: o.oif,
            ..Binding::new(addr.ip())
        };
        let ports = &self.net.udp.ports;
        let id = self.inner.base.id;
        let port = if addr.port() != 0 {
            ports.bind(addr.port(), id, b)?;
            addr.port()
        } else {
            ports.bind_any(id, b, self.net.sysctl.port_range(), self.net.random_u32(), |_| true)?
        };
        st.local = Some(SocketAddr::new(addr.ip(), port));
        self.net.udp.insert(port, &self.inner);
        Ok(())
    }

    fn ensure_bound(&self, st: &mut State) -> Result<()> {
        if st.local.is_some() {
            return Ok(());
        }
        self.bind_locked(st, SocketAddr::new(self.inner.base.any(), 0))
    }

    /// connect(2): fixes the peer and chooses a source address.
    pub fn connect(&self, addr: SocketAddr) -> Result<()> {
        let mut addr = self.inner.base.normalize(addr, false)?;
        if addr.ip().is_unspecified() {
            let lo: IpAddr =
                if addr.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            addr.set_ip(lo);
        }
        let o = self.inner.base.opts();
        let mut st = self.inner.state.lock();
        let bound = if st.auto_addr { None } else { st.local.map(|l| l.ip()) };
        let plan = Plan::new(&self.net, &self.inner.base, &o, bound, addr, &SendCtl::default(), 17)?;
        self.ensure_bound(&mut st)?;
        if let Some(l) = &mut st.local
            && (l.ip().is_unspecified() || bound.is_none())
        {
            l.set_ip(plan.header.src);
            st.auto_addr = true;
        }
        st.peer = Some(addr);
        Ok(())
    }

    /// connect(2) with AF_UNSPEC: forgets the peer.
    pub fn disconnect(&self) {
        let mut st = self.inner.state.lock();
        st.peer = None;
        if std::mem::take(&mut st.auto_addr) {
            let any = self.inner.base.any();
            if let Some(l) = &mut st.local {
                l.set_ip(any);
            }
        }
    }

    /// Sends a datagram of `len` bytes that `f` writes (in one piece; fewer than `len` = EFAULT, nothing is sent).
    /// EDESTADDRREQ without a destination, EMSGSIZE above 65507 bytes, EAGAIN while the device is full.
    pub fn send_with(
        &self,
        len: usize,
        to: Option<SocketAddr>,
        ctl: &SendCtl,
        f: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<usize> {
        let o = self.inner.base.opts();
        let to = to.map(|a| self.inner.base.normalize(a, false)).transpose()?;
        let (local, peer) = {
            let mut st = self.inner.state.lock();
            if let Some(e) = st.err.take() {
                return Err(e);
            }
            if st.wr_shut {
                return Err(Errno::EPIPE);
            }
            let peer = to.or(st.peer).ok_or(Errno::EDESTADDRREQ)?;
            if peer.port() == 0 {
                return Err(Errno::EINVAL);
            }
            self.ensure_bound(&mut st)?;
            (st.local.ok_or(Errno::EINVAL)?, peer)
        };
        let mut peer = peer;
        if peer.ip().is_unspecified() {
            let lo: IpAddr =
                if peer.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            peer.set_ip(lo);
        }
        let hdr = crate::ip::header_len(peer.ip());
        if len + 8 + hdr > 65_535 + if hdr == 40 { 40 } else { 0 } {
            return Err(Errno::EMSGSIZE);
        }
        let mut plan = Plan::new(&self.net, &self.inner.base, &o, Some(local.ip()), peer, ctl, 17)?;
        if plan.route.dev.txq.is_congested() {
            // Ask to be woken as a writer would.
            plan.route.dev.txq.wait(Arc::clone(&self.inner) as Arc<dyn crate::dev::txq::TxWaiter>);
            return Err(Errno::EAGAIN);
        }
        let mut skb = self.net.pool.alloc(len + 8);
        let d = skb.put(len + 8);
        if f(&mut d[8..]) < len {
            return Err(Errno::EFAULT);
        }
        let gso = if ctl.gso_size != 0 { ctl.gso_size } else { o.gso_size };
        let total = u16::try_from(len + 8).unwrap_or(0);
        d[..2].copy_from_slice(&local.port().to_be_bytes());
        d[2..4].copy_from_slice(&peer.port().to_be_bytes());
        d[4..6].copy_from_slice(&total.to_be_bytes());
        let c = csum::fold(csum::pseudo(plan.header.src, plan.header.dst, 17, len + 8));
        d[6..8].copy_from_slice(&c.to_be_bytes());
        skb.csum = CsumStatus::Partial { start: 0, offset: 6 };
        skb.mark = o.mark;
        if gso != 0 && len > usize::from(gso) {
            if usize::from(gso) + 8 + hdr > plan.route.mtu as usize {
                return Err(Errno::EINVAL);
            }
            skb.gso = Some(GsoInfo { kind: GsoType::Udp, size: gso, hdr_len: (hdr + 8) as u16 });
        }
        plan.header.proto = 17;
        plan.send(&self.net, skb, o.mtu_discover)?;
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

    /// Hands the next datagram to `f`, whole; the caller cuts it to its buffer. EAGAIN if there is none.
    pub fn recv_with<R>(&self, peek: bool, f: impl FnOnce(&RecvMeta, &[u8]) -> R) -> Result<R> {
        let err = self.inner.state.lock().err.take();
        let v6 = self.v6();
        let show = |m: &RecvMeta| RecvMeta { src: present(m, v6), ..*m };
        self.inner.queue.receive(err, peek, |m, d| f(&show(m), d))
    }

    /// Receives into a slice: copied bytes and what is known.
    pub fn recv_from(&self, out: &mut [u8]) -> Result<(usize, RecvMeta)> {
        self.recv_with(false, |m, d| {
            let n = d.len().min(out.len());
            out[..n].copy_from_slice(&d[..n]);
            (n, *m)
        })
    }

    /// shutdown(2): ENOTCONN if not connected.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        let mut st = self.inner.state.lock();
        if st.peer.is_none() {
            return Err(Errno::ENOTCONN);
        }
        st.rd_shut |= how != Shutdown::Write;
        st.wr_shut |= how != Shutdown::Read;
        drop(st);
        self.inner.wq.wake(poll::ALL);
        Ok(())
    }

    /// True once the reading side is shut down: an empty queue is then the end.
    pub fn is_read_shut(&self) -> bool {
        self.inner.state.lock().rd_shut
    }

    /// The last file that held the socket is gone.
    pub fn close(&self) {
        let local = self.inner.state.lock().local.take();
        if let Some(l) = local {
            self.net.udp.remove(l.port(), &self.inner);
            self.net.udp.ports.release(l.port(), self.inner.base.id);
        }
    }

    /// getsockname(2).
    pub fn local_addr(&self) -> SocketAddr {
        let st = self.inner.state.lock();
        let any: SocketAddr = SocketAddr::new(self.inner.base.any(), 0);
        crate::tcp::present(st.local.unwrap_or(any), self.v6())
    }

    /// getpeername(2).
    pub fn peer_addr(&self) -> Result<SocketAddr> {
        let p = self.inner.state.lock().peer.ok_or(Errno::ENOTCONN)?;
        Ok(crate::tcp::present(p, self.v6()))
    }

    /// poll(2) bits now.
    pub fn poll_mask(&self) -> u32 {
        let st = self.inner.state.lock();
        let mut m = poll::OUT | poll::WRNORM;
        if st.err.is_some() {
            m |= poll::ERR;
        }
        if st.rd_shut {
            m |= poll::IN | poll::RDNORM | poll::RDHUP;
        }
        if st.rd_shut && st.wr_shut {
            m |= poll::HUP;
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

    /// SIOCINQ: length of the next datagram.
    pub fn inq(&self) -> usize {
        self.inner.queue.first_len()
    }

    /// setsockopt(2).
    pub fn setsockopt(&self, level: i32, name: i32, v: &[u8]) -> Result<()> {
        dgram::set(&self.net, &self.inner.base, 17, level, name, v)
    }

    /// getsockopt(2).
    pub fn getsockopt(&self, level: i32, name: i32) -> Result<Vec<u8>> {
        dgram::get(&self.net, &self.inner.base, 2, 17, level, name, || self.take_error())
    }
}

fn present(m: &RecvMeta, v6: bool) -> SocketAddr {
    // A link-local sender is only meaningful with its device.
    match m.src {
        SocketAddr::V6(mut a) if crate::dev::is_link_local(a.ip()) => {
            a.set_scope_id(m.ifindex);
            SocketAddr::V6(a)
        }
        a => crate::tcp::present(a, v6),
    }
}

impl crate::dev::txq::TxWaiter for UdpInner {
    fn tx_ready(self: Arc<Self>) {
        self.wq.wake(poll::OUT | poll::WRNORM);
    }
}

impl Drop for UdpSock {
    fn drop(&mut self) {
        self.close();
    }
}
