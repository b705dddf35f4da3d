//! The TCP socket as the socket layer holds it.

use super::conn::Conn;
use super::ehash::FlowKey;
use super::flow::{Flow, TcpState};
use super::input::present;
use super::listen::{Listener, reset_all};
use super::opts::TcpOpts;
use super::port::{Binding, PORT_TRIES};
use crate::netns::Net;
use crate::poll;
use crate::sockopt::{Family, Shutdown, SockBase};
use klib::sync::Mutex;
use klib::waitqueue::WaitQueue;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use uapi::{Errno, Result};

enum Role {
    Idle,
    Listening(Arc<Listener>),
    Connected(Arc<Conn>),
    Closed,
}

struct State {
    role: Role,
    /// Bound address and port.
    local: Option<SocketAddr>,
    /// The port was chosen for a connect.
    auto: bool,
    /// A connect is under way that nobody was told the end of.
    connecting: bool,
}

/// A TCP socket.
pub struct TcpSock {
    net: Arc<Net>,
    /// What all kinds of sockets have.
    pub base: SockBase,
    wq: WaitQueue,
    state: Mutex<State>,
    /// Options; copied to the connection when they change.
    opts: Mutex<TcpOpts>,
}

impl TcpSock {
    /// An unbound socket.
    pub fn new(net: &Arc<Net>, family: Family) -> Arc<Self> {
        let opts = TcpOpts { v6: family == Family::V6, ..TcpOpts::default() };
        Self::build(net, family, Role::Idle, None, opts, WaitQueue::new())
    }

    fn build(
        net: &Arc<Net>,
        family: Family,
        role: Role,
        local: Option<SocketAddr>,
        opts: TcpOpts,
        wq: WaitQueue,
    ) -> Arc<Self> {
        // An accepted socket has not bound its port itself.
        let auto = matches!(role, Role::Connected(_));
        Arc::new(Self {
            net: Arc::clone(net),
            base: SockBase::new(net, family),
            wq,
            state: Mutex::new(State { role, local, auto, connecting: false }),
            opts: Mutex::new(opts),
        })
    }

    /// Where to wait for readiness.
    pub fn wait_queue(&self) -> &WaitQueue {
        &self.wq
    }

    pub(crate) fn net(&self) -> &Arc<Net> {
        &self.net
    }

    pub(crate) fn conn(&self) -> Option<Arc<Conn>> {
        match &self.state.lock().role {
            Role::Connected(c) => Some(Arc::clone(c)),
            _ => None,
        }
    }

    fn connected(&self) -> Result<Arc<Conn>> {
        self.conn().ok_or(Errno::ENOTCONN)
    }

    fn v6(&self) -> bool {
        self.base.family == Family::V6
    }

    fn binding(&self, addr: IpAddr, auto: bool) -> Binding {
        let b = &self.base;
        Binding {
            v6only: b.v6only(),
            reuseaddr: b.reuseaddr(),
            reuseport: b.reuseport(),
            oif: self.opts.lock().oif,
            auto,
            ..Binding::new(addr)
        }
    }

    fn any(&self) -> IpAddr {
        if self.v6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
    }

    /// bind(2). EINVAL if bound already, EADDRNOTAVAIL for a foreign address, EADDRINUSE.
    pub fn bind(&self, addr: SocketAddr) -> Result<()> {
        let addr = self.base.normalize(addr, true)?;
        let mut st = self.state.lock();
        if st.local.is_some() || !matches!(st.role, Role::Idle) {
            return Err(Errno::EINVAL);
        }
        if !addr.ip().is_unspecified() && !self.net.can_bind(addr.ip()) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let port = self.bind_port(addr, false)?;
        st.local = Some(SocketAddr::new(addr.ip(), port));
        Ok(())
    }

    fn bind_port(&self, addr: SocketAddr, auto: bool) -> Result<u16> {
        let b = self.binding(addr.ip(), auto);
        let ports = &self.net.tcp.ports;
        if addr.port() != 0 {
            ports.bind(addr.port(), self.base.id, b)?;
            return Ok(addr.port());
        }
        ports.bind_any(self.base.id, b, self.net.sysctl.port_range(), self.net.random_u32(), |_| true)
    }

    /// listen(2).
    pub fn listen(&self, backlog: i32) -> Result<()> {
        let backlog = usize::try_from(backlog).unwrap_or(usize::MAX).min(self.net.sysctl.somaxconn());
        let mut st = self.state.lock();
        match &st.role {
            Role::Listening(l) => {
                l.set_backlog(backlog);
                return Ok(());
            }
            Role::Idle => {}
            _ => return Err(Errno::EINVAL),
        }
        if st.local.is_none() {
            let port = self.bind_port(SocketAddr::new(self.any(), 0), false)?;
            st.local = Some(SocketAddr::new(self.any(), port));
        }
        let local = st.local.ok_or(Errno::EINVAL)?;
        self.net.tcp.ports.set_listening(local.port(), self.base.id)?;
        let opts = *self.opts.lock();
        let l = Listener::new(local, self.base.v6only(), opts.oif, backlog, opts, self.wq.clone());
        *l.owner.lock() = self.base.owner();
        self.net.tcp.listeners.insert(&l);
        st.role = Role::Listening(l);
        Ok(())
    }

    /// accept(2) without waiting: EAGAIN if no connection is ready, EINVAL if not listening.
    pub fn accept(&self) -> Result<Arc<Self>> {
        let l = match &self.state.lock().role {
            Role::Listening(l) => Arc::clone(l),
            _ => return Err(Errno::EINVAL),
        };
        let conn = l.accept().ok_or(Errno::EAGAIN)?;
        let local = conn.key.local();
        let wq = conn.wq.clone();
        let s = Self::build(&self.net, self.base.family, Role::Connected(conn), Some(local), l.opts, wq);
        s.base.inherit(&self.base);
        Ok(s)
    }

    /// connect(2): EINPROGRESS when the SYN is out; the end shows as POLLOUT and SO_ERROR. A second call tells the
    /// state: EALREADY while under way, success once when it worked, its error once when not, then EISCONN.
    pub fn connect(&self, addr: SocketAddr) -> Result<()> {
        let mut addr = self.base.normalize(addr, false)?;
        let mut st = self.state.lock();
        match &st.role {
            Role::Idle => {}
            Role::Connected(c) => {
                let c = Arc::clone(c);
                let (state, err) = c.peek(|i| (i.flow.state(), i.err));
                if state == TcpState::SynSent {
                    return Err(Errno::EALREADY);
                }
                if !st.connecting {
                    return Err(Errno::EISCONN);
                }
                st.connecting = false;
                if let Some(e) = err {
                    c.peek(|i| i.err = None);
                    self.reset_role(&mut st);
                    return Err(e);
                }
                return if state == TcpState::Close {
                    self.reset_role(&mut st);
                    Err(Errno::ECONNABORTED)
                } else {
                    Ok(())
                };
            }
            Role::Listening(_) => return Err(Errno::EISCONN),
            Role::Closed => return Err(Errno::EBADF),
        }
        if addr.ip().is_unspecified() {
            // As Linux: "any" means this host.
            let lo: IpAddr =
                if addr.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            addr.set_ip(lo);
        }
        if addr.ip().is_multicast() || self.net.is_broadcast(addr.ip()) {
            return Err(Errno::ENETUNREACH);
        }
        if addr.port() == 0 {
            return Err(Errno::ECONNREFUSED);
        }
        let opts = *self.opts.lock();
        let bound = st.local.map(|l| l.ip()).filter(|a| !a.is_unspecified());
        if bound.is_some_and(|b| b.is_ipv4() != addr.is_ipv4()) {
            return Err(Errno::ENETUNREACH);
        }
        let oif = if opts.oif != 0 { opts.oif } else { crate::sockopt::scope(&addr) };
        let route = self.net.route_lookup(addr.ip(), bound, oif)?;
        let laddr = bound.unwrap_or(route.src);
        let mut tries = 0;
        let (key, r) = loop {
            let lport = match st.local {
                Some(l) => l.port(),
                None => self.net.connect_port(self.base.id, self.binding(laddr, true), laddr, addr)?,
            };
            let key = FlowKey { laddr, lport, raddr: addr.ip(), rport: addr.port() };
            match self.start(key, opts) {
                // Another CPU has found the same port free in the same moment: on to the next one.
                Err(Errno::EADDRNOTAVAIL) if st.local.is_none() && tries < PORT_TRIES => {
                    self.net.tcp.ports.release(lport, self.base.id);
                    tries += 1;
                }
                r => break (key, r),
            }
        };
        match r {
            Ok(conn) => {
                if st.local.is_none() {
                    st.auto = true;
                }
                st.local = Some(key.local());
                st.role = Role::Connected(Arc::clone(&conn));
                st.connecting = true;
                drop(st);
                conn.with(&self.net, |_| ());
                self.net.kick();
                Err(Errno::EINPROGRESS)
            }
            Err(e) => {
                if st.local.is_none() {
                    self.net.tcp.ports.release(key.lport, self.base.id);
                }
                Err(e)
            }
        }
    }

    fn start(&self, key: FlowKey, opts: TcpOpts) -> Result<Arc<Conn>> {
        if self.net.tcp.timewait.get(&key).is_some() {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let cfg = self.net.flow_config(&key, &opts)?;
        let pool = Arc::clone(&self.net.pool);
        let mut flow = Flow::connect(cfg, self.net.now(), pool).ok_or(Errno::EADDRNOTAVAIL)?;
        flow.set_nodelay(opts.nodelay);
        if opts.ttl != 0 {
            flow.set_ttl(opts.ttl);
        }
        let conn = Conn::new(&self.net, key, flow, opts, self.wq.clone(), None);
        conn.set_owner(self.base.owner());
        if !self.net.tcp.ehash.insert(&conn) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        self.net.tcp.ports.use_port(key.lport, true);
        Ok(conn)
    }

    /// After a failed connect the socket can be used again.
    fn reset_role(&self, st: &mut State) {
        if let Role::Connected(c) = std::mem::replace(&mut st.role, Role::Idle) {
            c.release(&self.net, true);
        }
        if st.auto {
            if let Some(l) = st.local.take() {
                self.net.tcp.ports.release(l.port(), self.base.id);
            }
            st.auto = false;
        }
    }

    /// connect(2) with AF_UNSPEC: the connection ends with a RST, a listener stops, the socket can be used again.
    pub fn disconnect(&self) {
        let mut st = self.state.lock();
        let listener = match &st.role {
            Role::Listening(l) => Arc::clone(l),
            Role::Connected(_) => {
                st.connecting = false;
                self.reset_role(&mut st);
                drop(st);
                self.wq.wake(poll::ALL);
                return self.net.kick();
            }
            Role::Idle | Role::Closed => return,
        };
        st.role = Role::Idle;
        drop(st);
        self.net.tcp.listeners.remove(&listener);
        reset_all(&self.net, listener.close());
        self.wq.wake(poll::ALL);
        self.net.kick();
    }

    /// Copies up to `max` bytes into the send ring: `f` gets room (at most twice) and says how much of it it filled;
    /// less than all stops. `more` (MSG_MORE) holds a last partial segment back. EAGAIN without room, EPIPE after
    /// shutdown or the peer's reset.
    pub fn send_with(&self, max: usize, more: bool, mut f: impl FnMut(&mut [u8]) -> usize) -> Result<usize> {
        let c = self.connected().map_err(|_| Errno::EPIPE)?;
        let now = self.net.now();
        let r = c.with(&self.net, |i| {
            if let Some(e) = i.err.take() {
                return Err(e);
            }
            if i.snd_shutdown {
                return Err(Errno::EPIPE);
            }
            match i.flow.state() {
                TcpState::SynSent | TcpState::SynRecv => return Err(Errno::EAGAIN),
                TcpState::Established | TcpState::CloseWait => {}
                _ => return Err(Errno::EPIPE),
            }
            if max == 0 {
                return Ok(0);
            }
            if i.flow.send_queue() >= i.flow.send_capacity() {
                i.want_space = true;
                return Err(Errno::EAGAIN);
            }
            i.begins_to_send(now);
            i.flow.set_nodelay(i.opts.nodelay && !more && !i.opts.cork);
            Ok(i.flow.send(max, &mut f))
        });
        self.net.kick();
        r
    }

    /// Shows received bytes to `f` (contiguous pieces, at most two), which says how much it took; less than all
    /// stops. `peek` leaves them in the ring. `Ok(0)` is the end of the stream; EAGAIN if nothing is there.
    pub fn recv_with(&self, max: usize, peek: bool, mut f: impl FnMut(&[u8]) -> usize) -> Result<usize> {
        let c = self.connected()?;
        let look = |i: &mut super::conn::Inner| {
            if i.flow.recv_queue() > 0 {
                return None;
            }
            if let Some(e) = i.err.take() {
                return Some(Err(e));
            }
            Some(match i.flow.state() {
                _ if i.rcv_shutdown => Ok(0),
                TcpState::SynSent | TcpState::SynRecv => Err(Errno::EAGAIN),
                TcpState::Established | TcpState::FinWait1 | TcpState::FinWait2 => Err(Errno::EAGAIN),
                _ => Ok(0),
            })
        };
        // Nothing there, or nothing taken: nothing to send either.
        let early = c.peek(|i| {
            look(i).or_else(|| {
                if max == 0 {
                    Some(Ok(0))
                } else if peek {
                    Some(Ok(i.flow.peek(max, &mut f)))
                } else {
                    None
                }
            })
        });
        if let Some(r) = early {
            // Segments that came while the lock was held.
            c.poll(&self.net);
            self.net.kick();
            return r;
        }
        let r = c.with(&self.net, |i| look(i).unwrap_or_else(|| Ok(i.flow.recv(max, &mut f))));
        self.net.kick();
        r
    }

    /// Sends from a slice; how much fitted.
    pub fn send(&self, data: &[u8]) -> Result<usize> {
        let mut at = 0;
        self.send_with(data.len(), false, |room| {
            let n = room.len();
            room.copy_from_slice(&data[at..at + n]);
            at += n;
            n
        })
    }

    /// Receives into a slice.
    pub fn recv(&self, out: &mut [u8]) -> Result<usize> {
        let mut at = 0;
        let max = out.len();
        self.recv_with(max, false, |d| {
            out[at..at + d.len()].copy_from_slice(d);
            at += d.len();
            d.len()
        })
    }

    /// shutdown(2). ENOTCONN if not connected.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        let listener = match &self.state.lock().role {
            Role::Listening(l) if how != Shutdown::Write => Some(Arc::clone(l)),
            _ => None,
        };
        if let Some(l) = listener {
            // As Linux: a listener that is shut down for reading stops listening.
            self.net.tcp.listeners.remove(&l);
            reset_all(&self.net, l.close());
            self.state.lock().role = Role::Idle;
            self.wq.wake(poll::ALL);
            return Ok(());
        }
        let c = self.connected()?;
        let r = c.with(&self.net, |i| {
            if i.flow.state() == TcpState::Close {
                return Err(Errno::ENOTCONN);
            }
            if how != Shutdown::Write {
                i.rcv_shutdown = true;
            }
            if how != Shutdown::Read {
                i.snd_shutdown = true;
                i.flow.close();
            }
            Ok(())
        });
        self.wq.wake(poll::ALL);
        self.net.kick();
        r
    }

    /// The last file that held the socket is gone. Unread data or SO_LINGER with zero resets the connection.
    pub fn close(&self) {
        let mut st = self.state.lock();
        let role = std::mem::replace(&mut st.role, Role::Closed);
        let local = st.local.take();
        drop(st);
        match role {
            Role::Listening(l) => {
                self.net.tcp.listeners.remove(&l);
                reset_all(&self.net, l.close());
            }
            Role::Connected(c) => c.release(&self.net, self.opts.lock().linger == Some(0)),
            Role::Idle | Role::Closed => {}
        }
        if let Some(l) = local {
            self.net.tcp.ports.release(l.port(), self.base.id);
        }
        self.net.kick();
    }

    /// For close(2) with SO_LINGER, asked before it: how long to wait while the connection
    /// [lingers](Conn::is_lingering). `None`: not at all.
    pub fn linger(&self) -> Option<(Duration, Arc<Conn>)> {
        let secs = self.opts.lock().linger.filter(|&s| s > 0)?;
        Some((Duration::from_secs(secs.into()), self.conn()?))
    }

    /// getsockname(2).
    pub fn local_addr(&self) -> SocketAddr {
        let a = match &*self.state.lock() {
            State { role: Role::Connected(c), .. } => c.key.local(),
            State { local: Some(l), .. } => *l,
            _ => SocketAddr::new(self.any(), 0),
        };
        present(a, self.v6())
    }

    /// getpeername(2): ENOTCONN.
    pub fn peer_addr(&self) -> Result<SocketAddr> {
        let c = self.connected()?;
        match c.peek(|i| i.flow.state()) {
            TcpState::SynSent | TcpState::Close => Err(Errno::ENOTCONN),
            _ => Ok(present(c.key.remote(), self.v6())),
        }
    }

    /// poll(2) bits now.
    pub fn poll_mask(&self) -> u32 {
        match &self.state.lock().role {
            Role::Idle | Role::Closed => poll::OUT | poll::WRNORM | poll::HUP,
            Role::Listening(l) => {
                if l.ready() > 0 {
                    poll::IN | poll::RDNORM
                } else {
                    0
                }
            }
            Role::Connected(c) => c.peek(|i| i.poll_mask()),
        }
    }

    /// SO_ERROR: the pending error, once.
    pub fn take_error(&self) -> Option<Errno> {
        self.conn().and_then(|c| c.peek(|i| i.err.take()))
    }

    /// SIOCINQ: bytes that can be read.
    pub fn inq(&self) -> usize {
        self.conn().map_or(0, |c| c.peek(|i| i.flow.recv_queue()))
    }

    /// SIOCOUTQ: bytes not acknowledged.
    pub fn outq(&self) -> usize {
        self.conn().map_or(0, |c| c.peek(|i| i.flow.send_queue()))
    }

    /// The state for TCP_INFO and /proc/net/tcp.
    pub fn state(&self) -> TcpState {
        match &self.state.lock().role {
            Role::Idle | Role::Closed => TcpState::Close,
            Role::Listening(_) => TcpState::Listen,
            Role::Connected(c) => c.peek(|i| i.flow.state()),
        }
    }

    /// The options.
    pub fn opts(&self) -> TcpOpts {
        *self.opts.lock()
    }

    /// Changes options, of the socket and of its connection.
    pub fn set_opts(&self, change: impl Fn(&mut TcpOpts)) {
        change(&mut self.opts.lock());
        if let Some(c) = self.conn() {
            let now = self.net.now();
            c.with(&self.net, |i| {
                change(&mut i.opts);
                i.apply_options();
                i.begins_to_send(now);
            });
            self.net.kick();
        }
    }

    /// Sizes of the rings, or what they will be: receive, send.
    pub fn buffer_sizes(&self) -> (usize, usize) {
        let (rmem, wmem) = self.net.sysctl.tcp_buffers();
        let o = self.opts();
        let size = |set: usize, default: usize| if set == 0 { default } else { set * 2 };
        match self.conn() {
            Some(c) if o.rcvbuf == 0 && o.sndbuf == 0 => {
                c.peek(|i| (i.flow.recv_capacity(), i.flow.send_capacity()))
            }
            _ => (size(o.rcvbuf, rmem), size(o.sndbuf, wmem)),
        }
    }

    /// TCP_MAXSEG: the segment size in use, or the one that was set.
    pub fn mss(&self) -> usize {
        match self.conn() {
            Some(c) => c.peek(|i| i.flow.mss()),
            None => match self.opts().maxseg {
                0 => 536,
                n => n,
            },
        }
    }

    /// Backlog in use and its limit, of a listener.
    pub fn backlog(&self) -> Option<(usize, usize)> {
        match &self.state.lock().role {
            Role::Listening(l) => Some((l.ready(), l.backlog())),
            _ => None,
        }
    }
}

impl Drop for TcpSock {
    fn drop(&mut self) {
        if !matches!(self.state.lock().role, Role::Closed) {
            self.close();
        }
    }
}
