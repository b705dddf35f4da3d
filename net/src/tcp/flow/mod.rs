//! The TCP engine of one connection: a smoltcp interface with a set of one socket. This folder alone names smoltcp.
//!
//! What smoltcp lacks is done around it: the pseudo-header sum of the checksum it leaves out, segments that follow each
//! other in one round glued into super-frames for IPv6 (where 0.14 cannot offload), quick acknowledgements of
//! one-way traffic and of super-frames, SACK blocks and timestamps (`device`), loss recovery and congestion control (`shim`,
//! with the arithmetic in `tcp::loss`), TIME-WAIT frozen so that unread data is not thrown away.

mod device;
mod isn;
mod renew;
mod shim;
mod state;
mod wire;

pub use isn::{isn, stamp_offset};
pub use state::TcpState;

use super::ehash::FlowKey;
use super::loss::Algorithm;
use super::segment::{SYN, Segment};
use crate::ip::header_len;
use crate::skb::{Skb, SkbPool};
use device::{Port, Sent};
use klib::ktime::Ktime;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{Checksum, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration as SDuration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpListenEndpoint};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// What a connection is made with.
#[derive(Clone, Copy, Debug)]
pub struct FlowConfig {
    /// Both ends.
    pub key: FlowKey,
    /// Largest IP packet of the path.
    pub mtu: usize,
    /// Largest super-frame, IP header included; 0 = none.
    pub gso_max: usize,
    /// Bytes of the receive ring.
    pub rcvbuf: usize,
    /// Bytes of the send ring.
    pub sndbuf: usize,
    /// Initial sequence number.
    pub isn: u32,
    /// What is added to the clock in stamps.
    pub stamp_offset: u32,
    /// Cap for the MSS (TCP_MAXSEG), 0 = none.
    pub maxseg: usize,
    /// Congestion control.
    pub algo: Algorithm,
    /// Offer SACK.
    pub sack: bool,
    /// Offer timestamps.
    pub timestamps: bool,
}

/// Counters and marks of a connection.
#[derive(Clone, Copy, Default, Debug)]
pub struct FlowStats {
    /// Segments sent (of super-frames each segment) and received.
    pub segs_out: u64,
    /// Frames received.
    pub segs_in: u64,
    /// Payload bytes acknowledged by the peer.
    pub bytes_acked: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Segments sent again.
    pub retrans: u64,
}

/// Delay of acknowledgements in request/response traffic.
const ACK_DELAY: SDuration = SDuration::from_millis(40);

/// Engine time: real time, ahead by what was skipped.
struct EngineClock {
    base: Ktime,
    base_us: i64,
    frozen: Option<Instant>,
}

impl EngineClock {
    fn now(&self, now: Ktime) -> Instant {
        if let Some(t) = self.frozen {
            return t;
        }
        let us = now.as_ns().saturating_sub(self.base.as_ns()) / 1000;
        Instant::from_micros(self.base_us.saturating_add(i64::try_from(us).unwrap_or(i64::MAX / 2)))
    }

    fn real(&self, t: Instant) -> Ktime {
        let us = u64::try_from(t.total_micros().saturating_sub(self.base_us)).unwrap_or(0);
        Ktime(self.base.as_ns().saturating_add((us + 1).saturating_mul(1000)))
    }

    fn skip(&mut self, d: Duration) {
        self.base_us = self.base_us.saturating_add(i64::try_from(d.as_micros()).unwrap_or(0));
    }
}

/// The engine of one connection.
pub struct Flow {
    iface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    port: Port,
    clock: EngineClock,
    cfg: FlowConfig,
    mss: usize,
    rx_unacked: usize,
    /// The acknowledgement of what came since the last one waits.
    delaying: bool,
    pingpong: bool,
    rx_since_tx: bool,
    last_rx: Ktime,
    stats: FlowStats,
    peer_mss: usize,
    snd_wscale: u8,
    rcv_wscale: u8,
    snd_wnd: u32,
    /// Next byte that is expected.
    rcv_nxt: u32,
    /// The peer takes part in SACK, and so do we.
    peer_sack: bool,
    /// The scale of the windows that the engine is shown, and the last of them.
    scale: u8,
    shown: u32,
    nodelay: bool,
    /// TTL or hop limit, if set.
    ttl: Option<u8>,
    /// The peer's SYN had a window scale.
    peer_wscale: bool,
    used: renew::Used,
    /// Next probe of a closed window, and how many there were.
    persist: Option<(Ktime, u32)>,
}

fn ip(a: IpAddr) -> IpAddress {
    match a {
        IpAddr::V4(a) => IpAddress::Ipv4(a),
        IpAddr::V6(a) => IpAddress::Ipv6(a),
    }
}

fn prefix_len(a: IpAddr) -> u8 {
    if a.is_ipv4() { 32 } else { 128 }
}

/// `mss` is what fits a packet of the path, `seg` what a data segment really carries behind `opts` bytes of options.
fn caps(cfg: &FlowConfig, mss: usize, seg: usize, opts: usize) -> DeviceCapabilities {
    let mut c = DeviceCapabilities::default();
    let hlen = header_len(cfg.key.laddr) + 20;
    c.medium = Medium::Ip;
    c.max_transmission_unit = mss + hlen;
    c.checksum.ipv4 = Checksum::Tx;
    c.checksum.tcp = Checksum::None;
    c.checksum.udp = Checksum::None;
    c.checksum.icmpv4 = Checksum::None;
    c.checksum.icmpv6 = Checksum::None;
    if cfg.key.laddr.is_ipv4() && cfg.gso_max > cfg.mtu {
        // Super-frames of whole segments.
        let seg = seg.max(1);
        let room = cfg.gso_max.saturating_sub(hlen + opts).max(seg);
        c.segmentation.tcpv4 = NonZeroUsize::new(room / seg * seg + hlen + opts);
    }
    c
}

impl Flow {
    fn new(cfg: FlowConfig, now: Ktime, pool: Arc<SkbPool>) -> Self {
        let hlen = header_len(cfg.key.laddr) + 20;
        let mut mss = cfg.mtu.min(65_535).saturating_sub(hlen).max(64);
        if cfg.maxseg != 0 {
            mss = mss.min(cfg.maxseg.max(88));
        }
        let mut port = Port {
            pool,
            caps: caps(&cfg, mss, mss, 0),
            rx: None,
            out: Vec::with_capacity(4),
            open: None,
            glue_max: if cfg.key.laddr.is_ipv6() { cfg.gso_max } else { 0 },
            scaled: cfg.rcvbuf > usize::from(u16::MAX),
            key: cfg.key,
            sent: Sent::default(),
            snd: None,
            rcv: None,
            ts: None,
            no_sack: !cfg.sack,
            mute: false,
            muted_seq: 0,
            pattern: [0; 60],
        };
        let clock = EngineClock { base: now, base_us: 1_000_000, frozen: None };
        let mut iface = Self::interface(&cfg, &mut port, clock.now(now));
        iface.context();
        let (sockets, handle) = Self::socket(&cfg);
        let mut f = Self {
            iface,
            sockets,
            handle,
            port,
            clock,
            cfg,
            mss,
            rx_unacked: 0,
            delaying: false,
            pingpong: false,
            rx_since_tx: false,
            last_rx: now,
            stats: FlowStats::default(),
            peer_mss: 536,
            snd_wscale: 0,
            rcv_wscale: 0,
            snd_wnd: 0,
            rcv_nxt: 0,
            peer_sack: false,
            scale: shim::engine_scale(cfg.sndbuf),
            shown: 0,
            nodelay: false,
            ttl: None,
            peer_wscale: false,
            used: renew::Used::new(now),
            persist: None,
        };
        f.start_stamps();
        f
    }

    /// A set with the engine's one socket. Its rings are mappings of the host's zero pages: what is never used is not there.
    fn socket(cfg: &FlowConfig) -> (SocketSet<'static>, SocketHandle) {
        let mut sock = tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; cfg.rcvbuf]),
            tcp::SocketBuffer::new(vec![0; cfg.sndbuf]),
        );
        sock.set_congestion_control(tcp::CongestionControl::None);
        sock.set_ack_delay(None);
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        let handle = sockets.add(sock);
        (sockets, handle)
    }

    fn interface(cfg: &FlowConfig, port: &mut Port, now: Instant) -> Interface {
        let mut c = Config::new(HardwareAddress::Ip);
        c.random_seed = isn::seed(cfg.isn, cfg.stamp_offset);
        let mut iface = Interface::new(c, port, now);
        iface.update_ip_addrs(|a| {
            let _ = a.push(IpCidr::new(ip(cfg.key.laddr), prefix_len(cfg.key.laddr)));
        });
        iface
    }

    /// A connection that begins: its SYN is in the next output.
    pub fn connect(cfg: FlowConfig, now: Ktime, pool: Arc<SkbPool>) -> Option<Self> {
        let mut f = Self::new(cfg, now, pool);
        let k = cfg.key;
        let sock = f.sockets.get_mut::<tcp::Socket>(f.handle);
        let local = IpListenEndpoint { addr: Some(ip(k.laddr)), port: k.lport };
        sock.connect(f.iface.context(), IpEndpoint::new(ip(k.raddr), k.rport), local).ok()?;
        Some(f)
    }

    /// A connection that waits for the SYN which is given to [`input`](Self::input) next.
    pub fn listen(cfg: FlowConfig, now: Ktime, pool: Arc<SkbPool>) -> Option<Self> {
        let mut f = Self::new(cfg, now, pool);
        let k = cfg.key;
        let sock = f.sockets.get_mut::<tcp::Socket>(f.handle);
        sock.listen(IpListenEndpoint { addr: Some(ip(k.laddr)), port: k.lport }).ok()?;
        Some(f)
    }

    fn sock(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn sock_ref(&self) -> &tcp::Socket<'static> {
        self.sockets.get(self.handle)
    }

    /// Gives the engine a packet (IP header first); output is a separate step so that one acknowledgement answers many.
    pub fn input(&mut self, now: Ktime, mut skb: Skb, seg: &Segment) {
        let before = self.state();
        let queued = self.sock_ref().recv_queue();
        let unacked = self.sock_ref().send_queue();
        if seg.payload > 0 {
            self.last_rx = now;
            self.rx_since_tx = true;
            // A large frame is answered at once, as is everything in the beginning and in one-way traffic. What has to
            // be answered at once stays so when more comes before the answer leaves; a delay that has begun the engine
            // itself cuts short when a second segment comes.
            if self.rx_unacked == 0 {
                self.delaying = self.pingpong && seg.payload <= self.mss;
            }
            let delay = self.delaying.then_some(ACK_DELAY);
            self.sock().set_ack_delay(delay);
            self.rx_unacked += seg.payload;
        }
        if seg.flags & SYN != 0 {
            self.peer_mss = usize::from(seg.mss.unwrap_or(536)).max(88);
            self.snd_wscale = seg.wscale.unwrap_or(0).min(14);
            self.peer_wscale = seg.wscale.is_some();
            if seg.wscale.is_none() {
                (self.scale, self.rcv_wscale) = (0, 0);
            } else {
                self.rcv_wscale = self.offered_scale();
            }
        }
        self.stats.segs_in += 1;
        self.port.sent.now = now;
        let shift = if seg.flags & SYN != 0 { 0 } else { self.snd_wscale };
        self.snd_wnd = u32::from(seg.window) << shift;
        if Self::opening(before) {
            self.show_opening(&mut skb, seg);
        } else if self.show(now, &mut skb, seg) == shim::Show::Done {
            return;
        }
        self.port.sent.emitted_ack = false;
        self.port.rx = Some(skb);
        let t = self.clock.now(now);
        let _ = self.iface.poll_ingress_single(t, &mut self.port, &mut self.sockets);
        self.port.rx = None;
        if self.port.sent.emitted_ack {
            self.rx_unacked = 0;
        }
        let acked = unacked.saturating_sub(self.sock_ref().send_queue());
        self.stats.bytes_acked += acked as u64;
        let got = self.sock_ref().recv_queue().saturating_sub(queued);
        self.stats.bytes_received += got as u64;
        if got > 0 {
            self.rcv_nxt = self.rcv_nxt.wrapping_add(got as u32);
            if let Some(r) = &mut self.port.rcv {
                r.advance(self.rcv_nxt);
            }
        }
        self.state_changed(now, before);
    }

    fn state_changed(&mut self, now: Ktime, before: TcpState) {
        let state = self.state();
        if state == before {
            return;
        }
        let fin_seen = |s| {
            use TcpState::{CloseWait, Closing, LastAck, TimeWait};
            matches!(s, CloseWait | Closing | TimeWait | LastAck)
        };
        if fin_seen(state) && !fin_seen(before) {
            self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
        }
        if Self::opening(before) && !Self::opening(state) && state != TcpState::Close {
            self.resize(now);
            self.establish(now);
        }
        if state == TcpState::TimeWait {
            self.clock.frozen = Some(self.clock.now(now));
        }
    }

    /// Makes the engine's packets fit the segment size: it reads the capabilities once, at creation.
    fn resize(&mut self, now: Ktime) {
        let c = caps(&self.cfg, self.mss, self.mss(), self.option_len());
        let old = &self.port.caps;
        if c.max_transmission_unit != old.max_transmission_unit
            || c.segmentation.tcpv4 != old.segmentation.tcpv4
        {
            self.port.caps = c;
            self.iface = Self::interface(&self.cfg, &mut self.port, self.clock.now(now));
        }
    }

    /// Lets the engine send one packet; false if it has none. What came out is in [`take`](Self::take).
    pub fn output_one(&mut self, now: Ktime) -> bool {
        let before = self.state();
        self.port.sent.now = now;
        self.port.sent.data_segments = false;
        self.port.sent.emitted_ack = false;
        if self.repair(now) {
            return true;
        }
        let t = self.clock.now(now);
        let sent =
            self.iface.poll_egress(t, &mut self.port, &mut self.sockets) == PollResult::SocketStateChanged;
        if self.port.sent.data_segments && std::mem::take(&mut self.rx_since_tx) {
            // Data goes back soon after data came: from now on acknowledgements may ride on it.
            self.pingpong = now.since(self.last_rx).as_millis() < 40;
        }
        if self.port.sent.emitted_ack {
            if self.rx_unacked > 0
                && !self.port.sent.data_segments
                && now.since(self.last_rx).as_millis() >= 40
            {
                self.pingpong = false;
            }
            self.rx_unacked = 0;
        }
        self.state_changed(now, before);
        sent
    }

    /// Moves the finished packets (IP header first, checksum `Partial`) to `f`. `last`: nothing will be glued any more.
    pub fn take(&mut self, last: bool, mut f: impl FnMut(Skb)) {
        let keep = usize::from(!last && self.port.open.is_some()).min(self.port.out.len());
        let n = self.port.out.len() - keep;
        if keep == 0 {
            self.port.open = None;
        }
        self.port.out.drain(..n).for_each(&mut f);
    }

    /// Copies bytes into the send ring with `f`, which gets contiguous room and says how much it filled.
    pub fn send(&mut self, max: usize, f: &mut dyn FnMut(&mut [u8]) -> usize) -> usize {
        let mut total = 0;
        // The ring wraps at most once.
        for _ in 0..2 {
            let left = max - total;
            if left == 0 {
                break;
            }
            let r = self.sock().send(|room| {
                let n = room.len().min(left);
                let done = if n == 0 { 0 } else { f(&mut room[..n]).min(n) };
                (done, (done, n))
            });
            let Ok((done, n)) = r else { break };
            total += done;
            if done < n || n == 0 {
                break;
            }
        }
        total
    }

    /// Takes bytes out of the receive ring with `f`, which says how much it took.
    pub fn recv(&mut self, max: usize, f: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        let mut total = 0;
        for _ in 0..2 {
            let left = max - total;
            if left == 0 {
                break;
            }
            let r = self.sock().recv(|data| {
                let n = data.len().min(left);
                let done = if n == 0 { 0 } else { f(&data[..n]).min(n) };
                (done, (done, n))
            });
            let Ok((done, n)) = r else { break };
            total += done;
            if done < n || n == 0 {
                break;
            }
        }
        total
    }

    /// Shows bytes of the receive ring without taking them (the first contiguous piece).
    pub fn peek(&mut self, max: usize, f: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        match self.sock().peek(max) {
            Ok(d) if !d.is_empty() => f(d).min(d.len()),
            _ => 0,
        }
    }
}
