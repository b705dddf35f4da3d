//! All sockets as rows: what /proc/net and NETLINK_SOCK_DIAG show, so that both say the same.
//!
//! Key types: [`Row`], made by [`tcp`], [`udp`] and [`raw`]; [`Row::detail`] looks at what only some ask for. A row is a
//! copy: the socket may have gone meanwhile.

use crate::netns::Net;
use crate::sockopt::SockBase;
use crate::tcp::{Conn, ConnDetail, Listener, TcpState};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Who holds a socket; all zero if nobody does (not accepted yet, or closed).
#[derive(Clone, Copy, Default, Debug)]
pub struct Owner {
    /// Inode of the open file.
    pub ino: u64,
    /// User that made the socket.
    pub uid: u32,
    /// SO_COOKIE.
    pub cookie: u64,
}

/// The timer that runs for a socket (numbers of inet_diag and /proc/net/tcp).
#[derive(Clone, Copy, Default, Debug)]
pub struct Timer {
    /// 0 none, 1 retransmission, 2 keep-alive, 3 TIME-WAIT, 4 probe of a closed window.
    pub kind: u8,
    /// How long until it fires.
    pub left: Duration,
    /// How often it has fired without an answer.
    pub retrans: u8,
}

enum Sock {
    Conn(Arc<Conn>),
    Listener(Arc<Listener>),
    /// Sizes of the queues' limits: receive, send; drops.
    Dgram {
        limits: (usize, usize),
        drops: u64,
        tos: u8,
        tclass: u8,
    },
    None,
}

/// One socket.
pub struct Row {
    /// The socket's family is IPv6 (its addresses may be IPv4 all the same).
    pub v6: bool,
    /// [`TcpState`] as a number; datagram sockets are ESTABLISHED or CLOSE.
    pub state: u8,
    /// Our end.
    pub local: SocketAddr,
    /// The other end; unspecified if there is none.
    pub remote: SocketAddr,
    /// Device it is bound to, 0 = any.
    pub oif: u32,
    /// Bytes to be read; of a listener connections to be accepted.
    pub rx: usize,
    /// Bytes not acknowledged; of a listener the most connections that may wait.
    pub tx: usize,
    /// The timer.
    pub timer: Timer,
    /// Who holds it.
    pub owner: Owner,
    /// IPV6_V6ONLY.
    pub v6only: bool,
    /// SO_MARK.
    pub mark: u32,
    sock: Sock,
}

/// Memory and limits of a socket, bytes (`SK_MEMINFO_*`).
#[derive(Clone, Copy, Default, Debug)]
pub struct Mem {
    /// Received data that is held.
    pub rmem: usize,
    /// SO_RCVBUF.
    pub rcvbuf: usize,
    /// Sent data that is held.
    pub wmem: usize,
    /// SO_SNDBUF.
    pub sndbuf: usize,
    /// Received data that waits for the lock of the connection.
    pub backlog: usize,
    /// Packets dropped.
    pub drops: u64,
}

/// What costs a look at the socket.
#[derive(Default)]
pub struct Detail {
    /// `struct tcp_info`; empty for other protocols.
    pub info: Vec<u8>,
    /// Name of the congestion control; empty for other protocols.
    pub congestion: &'static str,
    /// IP_TOS and IPV6_TCLASS.
    pub tos: (u8, u8),
    /// RCV_SHUTDOWN (1) and SEND_SHUTDOWN (2).
    pub shutdown: u8,
    /// Memory.
    pub mem: Mem,
}

fn any(v6: bool) -> SocketAddr {
    if v6 { ([0u16; 8], 0).into() } else { ([0u8; 4], 0).into() }
}

/// An address as a socket of the family has it.
pub fn octets(a: IpAddr, v6: bool) -> [u8; 16] {
    match a {
        IpAddr::V4(a) if v6 => a.to_ipv6_mapped().octets(),
        IpAddr::V4(a) => {
            let mut o = [0; 16];
            o[..4].copy_from_slice(&a.octets());
            o
        }
        IpAddr::V6(a) => a.octets(),
    }
}

impl Row {
    fn new(v6: bool, state: TcpState, local: SocketAddr, remote: SocketAddr, sock: Sock) -> Self {
        Self {
            v6,
            state: state as u8,
            local,
            remote,
            oif: 0,
            rx: 0,
            tx: 0,
            timer: Timer::default(),
            owner: Owner::default(),
            v6only: false,
            mark: 0,
            sock,
        }
    }

    /// Packets dropped, of a datagram socket.
    pub fn drops(&self) -> u64 {
        if let Sock::Dgram { drops, .. } = self.sock { drops } else { 0 }
    }

    /// A closer look; `None` if there is no socket any more (TIME-WAIT).
    pub fn detail(&self, net: &Net) -> Option<Detail> {
        match &self.sock {
            Sock::Conn(c) => {
                let ConnDetail { info, congestion, tos, shutdown, mem } = c.detail(net);
                Some(Detail { info, congestion: congestion.name(), tos, shutdown, mem })
            }
            Sock::Listener(l) => Some(Detail {
                info: crate::tcp::listen_info(l),
                congestion: l.opts.congestion.unwrap_or_else(|| net.sysctl.congestion()).name(),
                tos: (l.opts.tos, l.opts.tos),
                shutdown: 0,
                mem: {
                    let (rcvbuf, sndbuf) = crate::tcp::ring_sizes(net, &l.opts);
                    Mem { rcvbuf, sndbuf, ..Mem::default() }
                },
            }),
            Sock::Dgram { limits, drops, tos, tclass } => Some(Detail {
                tos: (*tos, *tclass),
                mem: Mem {
                    rmem: self.rx,
                    rcvbuf: limits.0,
                    sndbuf: limits.1,
                    drops: *drops,
                    ..Mem::default()
                },
                ..Detail::default()
            }),
            Sock::None => None,
        }
    }
}

/// All TCP sockets: listeners, connections, those in TIME-WAIT.
pub fn tcp(net: &Net) -> Vec<Row> {
    let mut rows = Vec::new();
    for l in net.tcp.listeners.all() {
        let v6 = l.local.is_ipv6();
        let mut r = Row::new(v6, TcpState::Listen, l.local, any(v6), Sock::Listener(Arc::clone(&l)));
        (r.rx, r.tx, r.oif) = (l.ready(), l.backlog(), l.oif);
        (r.owner, r.v6only, r.mark) = (*l.owner.lock(), l.v6only, l.opts.mark);
        rows.push(r);
    }
    let now = net.now();
    for c in net.tcp.ehash.all() {
        let s = c.summary(now);
        let mut r = Row::new(s.v6, s.state, c.key.local(), c.key.remote(), Sock::Conn(Arc::clone(&c)));
        (r.rx, r.tx, r.oif, r.timer, r.mark) = (s.recv_queue, s.send_queue, s.oif, s.timer, s.mark);
        r.owner = c.owner();
        rows.push(r);
    }
    for (k, e) in net.tcp.timewait.all() {
        let mut r = Row::new(k.laddr.is_ipv6(), TcpState::TimeWait, k.local(), k.remote(), Sock::None);
        r.timer = Timer { kind: 3, left: e.expires.since(now), retrans: 0 };
        rows.push(r);
    }
    rows
}

fn dgram(base: &SockBase, net: &Net, ends: (SocketAddr, Option<SocketAddr>), rx: usize, drops: u64) -> Row {
    let v6 = base.family == crate::Family::V6;
    let o = base.opts();
    let (dr, dw) = net.sysctl.mem_default();
    let size = |set: usize, default: usize| if set == 0 { default } else { set * 2 };
    let sock =
        Sock::Dgram { limits: (size(o.rcvbuf, dr), size(o.sndbuf, dw)), drops, tos: o.tos, tclass: o.tclass };
    let state = if ends.1.is_some() { TcpState::Established } else { TcpState::Close };
    let mut r = Row::new(v6, state, ends.0, ends.1.unwrap_or(any(v6)), sock);
    (r.rx, r.oif, r.owner, r.v6only, r.mark) = (rx, o.oif, base.owner(), o.v6only, o.mark);
    r
}

/// All UDP sockets that have a port.
pub fn udp(net: &Net) -> Vec<Row> {
    let mut rows = Vec::new();
    net.udp.each(|base, local, peer, rx, drops| rows.push(dgram(base, net, (local, peer), rx, drops)));
    rows
}

/// All raw sockets; the port of their own end is the protocol, as Linux shows it.
pub fn raw(net: &Net) -> Vec<Row> {
    let mut rows = Vec::new();
    net.raw.each(|base, proto, local, peer, rx, drops| {
        let v6 = base.family == crate::Family::V6;
        let local = local.unwrap_or(if v6 { Ipv6Addr::UNSPECIFIED.into() } else { any(false).ip() });
        let local = SocketAddr::new(local, proto.into());
        let peer = peer.map(|p| SocketAddr::new(p.ip(), 0));
        rows.push(dgram(base, net, (local, peer), rx, drops));
    });
    rows
}

/// Numbers for /proc/net/sockstat.
pub struct SockStat {
    /// Connections and listeners that a socket holds, connections without one, those in TIME-WAIT.
    pub tcp: (usize, usize, usize),
    /// Bytes in TCP's queues.
    pub tcp_bytes: usize,
    /// UDP sockets, and bytes in their queues.
    pub udp: (usize, usize),
    /// Raw sockets.
    pub raw: usize,
    /// Datagrams that wait to be put together again.
    pub frags: usize,
}

/// Counts sockets; `v6` those of that family alone.
pub fn sockstat(net: &Net, v6: bool) -> SockStat {
    let (mut held, mut orphan, mut tw, mut bytes) = (0, 0, 0, 0);
    for r in tcp(net) {
        match r.sock {
            Sock::None => tw += 1,
            Sock::Conn(c) => {
                if c.is_orphan() {
                    orphan += 1;
                } else {
                    held += usize::from(r.v6 == v6);
                }
                bytes += r.rx + r.tx;
            }
            _ => held += usize::from(r.v6 == v6),
        }
    }
    let count = |rows: Vec<Row>| {
        let mine: Vec<Row> = rows.into_iter().filter(|r| r.v6 == v6).collect();
        (mine.len(), mine.iter().map(|r| r.rx).sum())
    };
    SockStat {
        tcp: (held, orphan, tw),
        tcp_bytes: bytes,
        udp: count(udp(net)),
        raw: count(raw(net)).0,
        frags: 0,
    }
}
