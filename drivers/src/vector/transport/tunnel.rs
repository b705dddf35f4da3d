//! What the tunnels have in common: addresses, ports and outer header on the command line, sockets, errors a user can act on.

use super::{Lane, Limit, RxEnd, Setup, Train, Transport, TxEnd};
use crate::vector::encap::Unfinished;
use crate::vector::header::{ETH_HLEN, Header};
use crate::vector::options::{Key, Options, Type};
use arch::host::fd::HostFd;
use arch::host::rawip;
use arch::host::udp::{self, IpOptions, SocketError, SocketStep};
use executor::irq::{RxKind, TxKind};
use net::Features;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use uapi::Errno;

/// `src=`.
pub const SRC: Key = Key::new("src", Type::Host, "address of this host, or its name").alias(&["local"]);
/// `dst=`.
pub const DST: Key = Key::new("dst", Type::Host, "address of the peer, or its name").alias(&["remote"]);
/// `v6=`.
pub const V6: Key = Key::new("v6", Type::Flag, "outer packets are IPv6").alias(&["ipv6"]);
/// `srcport=`.
pub const SRCPORT: Key = Key::new("srcport", Type::Number { min: 1, max: 65535 }, "UDP port of this host");
/// `dstport=`.
pub const DSTPORT: Key = Key::new("dstport", Type::Number { min: 1, max: 65535 }, "UDP port of the peer");
/// `vni=`, for both directions.
pub const VNI: Key =
    Key::new("vni", Type::Integer { bits: 24 }, "network identifier, 24 bits").alias(&["id"]);
/// `rx_vni=`.
pub const RX_VNI: Key = Key::new("rx_vni", Type::Integer { bits: 24 }, "network identifier expected");
/// `tx_vni=`.
pub const TX_VNI: Key = Key::new("tx_vni", Type::Integer { bits: 24 }, "network identifier sent");

/// UDP header.
const UDP_HLEN: usize = 8;
/// Inner Ethernet header with one VLAN tag.
const LINK_HEADER: usize = 18;
/// Inner IP and TCP headers, at their longest without IP options: IPv6, and timestamps.
const INNER_HEADERS: usize = 72;
/// Shortest message that is worth cutting segments for; paths that take less get fragments.
const LEAST: usize = 512;
/// Most datagrams in a train (UDP_MAX_SEGMENTS of hosts before 6.8).
const TRAIN: usize = 64;
/// Source ports over which the flows of a tunnel are spread.
const PORTS: usize = 8;
/// Where those ports lie (RFC 7348, section 5).
const FIRST_PORT: u16 = 49152;
/// Ports tried for each that is wanted.
const ATTEMPTS: usize = 64;

/// Both ends of a tunnel, as the command line says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ends {
    /// As `transport=` names it.
    transport: &'static str,
    src: Option<String>,
    dst: String,
    v6: bool,
    ip: IpOptions,
}

/// Both ends, found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addrs {
    src: SocketAddr,
    dst: SocketAddr,
}

fn literal(text: &str) -> Option<IpAddr> {
    text.split('%').next().and_then(|t| t.parse().ok())
}

impl Ends {
    /// Reads `src`, `dst`, `v6`, `ttl`, `tos` and `df`. Without `v6` addresses in figures say which IP it is.
    pub fn parse(o: &Options, transport: &'static str, need_src: bool) -> Result<Self, String> {
        let src = if need_src { Some(o.require("src", transport)?) } else { o.text("src") };
        let dst = o.require("dst", transport)?;
        let figures = || [&src, &Some(dst.clone())].into_iter().flatten().find_map(|t| literal(t));
        let v6 = if o.given("v6") { o.flag("v6") } else { figures().is_some_and(|a| a.is_ipv6()) };
        for (key, text) in [("src", src.as_deref()), ("dst", Some(&*dst))] {
            let Some(addr) = text.and_then(literal) else { continue };
            if addr.is_ipv6() != v6 {
                let (is, other) = if v6 { (4, "v6=0") } else { (6, "v6=1") };
                let hint = if o.given("v6") { other } else { "two addresses of one kind" };
                return Err(format!("{}: an IPv{is} address; expected {hint}", o.written(key)));
            }
            if addr.is_multicast() {
                return Err(format!("{}: a multicast address; expected that of one host", o.written(key)));
            }
        }
        let byte = |name| o.number(name).and_then(|n| u8::try_from(n).ok());
        let ip = IpOptions { ttl: byte("ttl"), tos: byte("tos"), df: o.given("df").then(|| o.flag("df")) };
        Ok(Self { transport, src, dst, v6, ip })
    }

    /// True if outer packets are IPv6.
    pub fn is_v6(&self) -> bool {
        self.v6
    }

    fn family(&self) -> u8 {
        if self.v6 { 6 } else { 4 }
    }

    /// Looks the addresses up.
    fn resolve(&self, srcport: u16, dstport: u16) -> Result<Addrs, String> {
        let any = if self.v6 { "::" } else { "0.0.0.0" };
        let find = |key: &str, text: &str, port| {
            udp::resolve(text, port, self.v6).map_err(|e| match e {
                Errno::EAFNOSUPPORT => format!("{key}={text}: the host has no IPv{} address", self.family()),
                _ => format!("{key}={text}: no such host; expected an address or a name that resolves"),
            })
        };
        let src = find("src", self.src.as_deref().unwrap_or(any), srcport)?;
        Ok(Addrs { src, dst: find("dst", &self.dst, dstport)? })
    }

    /// Bytes of the outer IP header.
    fn ip_len(&self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    /// What the path takes. Fails early where no packet could leave.
    fn path(&self, a: Addrs, l4_len: usize) -> Result<PathMtu, String> {
        udp::path_mtu(a.src, a.dst).map_err(|e| self.explain(e, SocketStep::Connect, a, None))?;
        let path = PathMtu {
            addrs: a,
            headers: self.ip_len() + l4_len,
            message: AtomicUsize::new(usize::MAX),
            asked: AtomicU32::new(0),
        };
        path.refresh();
        Ok(path)
    }

    /// The line a user can act on. `port` names the key of the port that was asked for.
    fn explain(&self, e: Errno, step: SocketStep, a: Addrs, port: Option<&str>) -> String {
        let t = self.transport;
        let src = self.src.as_deref().unwrap_or("any");
        match (step, e) {
            (SocketStep::Open, Errno::EPERM | Errno::EACCES) => {
                let or = if t == "l2tpv3" { "take udp=1, or " } else { "" };
                format!(
                    "transport={t}: not permitted: raw IP sockets need CAP_NET_RAW; {or}grant it with \
                     'setcap cap_net_raw+ep vmlinux', or start as root"
                )
            }
            (SocketStep::Open, Errno::EAFNOSUPPORT) => {
                format!("transport={t}: this host has no IPv{}", self.family())
            }
            (SocketStep::Open, e) => format!("transport={t}: cannot make a socket: {}", e.text()),
            (SocketStep::Option, e) => {
                format!("transport={t}: the host refuses ttl=, tos= or df=: {}", e.text())
            }
            (SocketStep::Bind, Errno::EADDRNOTAVAIL) => {
                format!("src={src}: not an address of this host; 'ip addr' lists them")
            }
            (SocketStep::Bind, Errno::EADDRINUSE) => format!(
                "{}={}: the port is in use on this host, by another device or program",
                port.unwrap_or("srcport"),
                a.src.port()
            ),
            (SocketStep::Bind, Errno::EACCES) => format!(
                "{}={}: not permitted: ports below 1024 need CAP_NET_BIND_SERVICE; take a higher one, or grant it with \
                 'setcap cap_net_bind_service+ep vmlinux'",
                port.unwrap_or("srcport"),
                a.src.port()
            ),
            (SocketStep::Bind, e) => format!("src={src}: cannot be bound: {}", e.text()),
            (SocketStep::Connect, Errno::ENETUNREACH | Errno::EHOSTUNREACH) => {
                format!("dst={}: this host has no route to it from {src}; check 'ip route get'", self.dst)
            }
            (SocketStep::Connect, Errno::EACCES) => {
                format!("dst={}: a broadcast address; expected that of one host", self.dst)
            }
            (SocketStep::Connect, e) => format!("dst={}: cannot be reached: {}", self.dst, e.text()),
        }
    }
}

/// Ports of a UDP tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ports {
    /// One socket for both directions: (ours, 0 for any; the peer's).
    Pair(u16, u16),
    /// Frames come to the first and are sent to the second, from ports by flow.
    ByFlow(u16, u16),
    /// Frames come to the first and are sent to the second, from the third.
    From(u16, u16, u16),
}

/// The MTU of the path, as the host knows it from its interfaces and from ICMP.
struct PathMtu {
    addrs: Addrs,
    /// Bytes of the outer headers that the host writes.
    headers: usize,
    message: AtomicUsize,
    asked: AtomicU32,
}

/// Paths are looked up again after so many frames: one may have grown.
const LOOK_AGAIN: u32 = 1 << 16;

impl Limit for PathMtu {
    fn message(&self) -> usize {
        if self.asked.fetch_add(1, Ordering::Relaxed) % LOOK_AGAIN == LOOK_AGAIN - 1 {
            self.refresh();
        }
        self.message.load(Ordering::Relaxed)
    }

    fn refresh(&self) {
        // No route at this moment: what was known is as good as anything.
        if let Ok(mtu) = udp::path_mtu(self.addrs.src, self.addrs.dst) {
            let room = (mtu as usize).saturating_sub(self.headers);
            self.message.store(room.max(LEAST), Ordering::Relaxed);
        }
    }
}

/// An open tunnel.
pub struct Tunnel {
    ends: Ends,
    rx: HostFd,
    /// Where frames leave, one a source port.
    tx: Vec<HostFd>,
    udp: bool,
    train: bool,
    header: Arc<dyn Header>,
    dst: SocketAddr,
    path: Arc<PathMtu>,
    /// Largest inner IP packet at first.
    mtu: usize,
    about: String,
}

impl Tunnel {
    /// A tunnel over UDP. `port` is the key that names the port frames come to. `about` goes to the boot log.
    pub fn udp(
        ends: &Ends,
        setup: &Setup,
        ports: Ports,
        port: &str,
        header: Arc<dyn Header>,
        about: &str,
    ) -> Result<Self, String> {
        let (own, peer) = match ports {
            Ports::Pair(own, peer) | Ports::ByFlow(own, peer) | Ports::From(own, peer, _) => (own, peer),
        };
        let (a, mtu) = (ends.resolve(own, peer)?, setup.mtu as usize);
        let explain = |a: Addrs, port: &str, (step, e): SocketError| ends.explain(e, step, a, Some(port));
        let rx = udp::open(a.src, ends.ip, true).map_err(|e| explain(a, port, e))?;
        let path = Arc::new(ends.path(a, UDP_HLEN)?);
        let tx = match ports {
            Ports::From(own, _, from) if own != from => {
                let mut from_addr = a;
                from_addr.src.set_port(from);
                vec![udp::open_sender(from_addr.src, ends.ip).map_err(|e| explain(from_addr, "srcport", e))?]
            }
            Ports::Pair(..) | Ports::From(..) => vec![rx.clone()],
            Ports::ByFlow(..) => senders(a.src, ends.ip).map_err(|e| explain(a, "srcport", e))?,
        };
        let train = udp::can_segment(&rx);
        let here = udp::local_addr(&rx).unwrap_or(a.src);
        let about = format!("{about}, {here} to {}", a.dst);
        Ok(Self { ends: ends.clone(), rx, tx, udp: true, train, header, dst: a.dst, path, mtu, about })
    }

    /// A tunnel over IP itself.
    pub fn ip(
        ends: &Ends,
        setup: &Setup,
        proto: u8,
        header: Arc<dyn Header>,
        about: &str,
    ) -> Result<Self, String> {
        let (a, mtu) = (ends.resolve(0, 0)?, setup.mtu as usize);
        let rx =
            rawip::open(a.src, a.dst, proto, ends.ip).map_err(|(step, e)| ends.explain(e, step, a, None))?;
        let path = Arc::new(ends.path(a, 0)?);
        let about = format!("{about}, {} to {}", a.src.ip(), a.dst.ip());
        let tx = vec![rx.clone()];
        Ok(Self {
            ends: ends.clone(),
            rx,
            tx,
            udp: false,
            train: false,
            header,
            dst: a.dst,
            path,
            mtu,
            about,
        })
    }

    /// How many frames one call of the host takes.
    fn train(&self) -> Option<Train> {
        let bytes = self.max_payload().min(65535 - self.ends.ip_len() - UDP_HLEN);
        (self.udp && self.train).then_some(Train { frames: TRAIN, bytes })
    }

    /// Largest payload of an outer packet behind its IP (and UDP) header.
    fn max_payload(&self) -> usize {
        let ip = if self.ends.v6 { 0 } else { 20 };
        65535 - ip - if self.udp { UDP_HLEN } else { 0 }
    }
}

/// Sockets that send from ports of their own, for flows to be spread over.
fn senders(src: SocketAddr, how: IpOptions) -> Result<Vec<HostFd>, SocketError> {
    let mut at = [0u8; 2];
    let _ = arch::host::random::fill(&mut at);
    let mut next = u16::from_ne_bytes(at);
    let mut all = Vec::with_capacity(PORTS);
    let mut last = (SocketStep::Bind, Errno::EADDRINUSE);
    for _ in 0..PORTS * ATTEMPTS {
        next = next.wrapping_add(1);
        let mut addr = src;
        addr.set_port(FIRST_PORT | next);
        match udp::open_sender(addr, how) {
            Ok(fd) => all.push(fd),
            Err((SocketStep::Bind, Errno::EADDRINUSE)) => {}
            Err(e) => last = e,
        }
        if all.len() == PORTS {
            break;
        }
    }
    if all.is_empty() { Err(last) } else { Ok(all) }
}

impl Transport for Tunnel {
    fn name(&self) -> &'static str {
        self.ends.transport
    }

    fn describe(&self) -> String {
        let how = match (self.udp, self.train) {
            (true, true) => ", trains of datagrams in both directions",
            (true, false) => ", this host has no UDP_SEGMENT: datagrams leave one by one",
            _ => "",
        };
        format!("{}: {}{how}", self.ends.transport, self.about)
    }

    fn lanes(&self) -> Vec<Lane> {
        let kind = if self.udp { RxKind::RecvMsg } else { RxKind::Recv };
        let header = Arc::new(Unfinished { header: Arc::clone(&self.header), mtu: self.mtu });
        let rx = RxEnd { fd: self.rx.clone(), kind, header };
        let Some((first, more)) = self.tx.split_first() else { return Vec::new() };
        self.path.refresh();
        let tx = TxEnd {
            ports: more.to_vec(),
            to: self.udp.then(|| udp::sockaddr(self.dst).into()),
            train: self.train(),
            limit: Some(self.path.clone()),
            ..TxEnd::plain(first, TxKind::Send, Arc::clone(&self.header))
        };
        vec![Lane { rx: Some(rx), tx: Some(tx) }]
    }

    fn offload(&self) -> Features {
        Features::empty()
    }

    fn merges(&self) -> bool {
        // Frames may come many at once.
        true
    }

    fn gso_max(&self, mtu: u32) -> u32 {
        let Some(train) = self.train() else { return 65535 };
        let header = self.header.tx_len();
        let message = self.path.message().min(mtu as usize + ETH_HLEN + header);
        let frames = (train.bytes / message.max(1)).clamp(1, train.frames);
        // Every frame of the train repeats the inner headers; most of them are shorter than this, which leaves room.
        let payload = message.saturating_sub(header + ETH_HLEN + INNER_HEADERS);
        u32::try_from(frames * payload + INNER_HEADERS).unwrap_or(65535).clamp(mtu, 65535)
    }

    fn max_mtu(&self) -> u32 {
        u32::try_from(self.max_payload() - self.header.tx_len() - LINK_HEADER).unwrap_or(1500)
    }
}
