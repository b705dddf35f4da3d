//! The TCP engine of one connection: a smoltcp interface with a set of one socket. This folder alone names smoltcp.
//!
//! What smoltcp lacks is done around it: the pseudo-header sum of the checksum it leaves out, segments that follow each
//! other in one round glued into super-frames for IPv6 (where 0.14 cannot offload), quick acknowledgements of
//! one-way traffic and of super-frames, a clock that runs five times faster once the connection stands (its retransmission
//! time-out of one second becomes 200 ms), TIME-WAIT frozen so that unread data is not thrown away.

mod device;

use super::ehash::FlowKey;
use super::segment::{ACK, SYN, Segment};
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

/// States with the numbers that TCP_INFO and /proc/net/tcp show (linux/tcp_states.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum TcpState {
    /// Data flows both ways.
    Established = 1,
    /// Our SYN is out.
    SynSent = 2,
    /// Their SYN came, ours is out.
    SynRecv = 3,
    /// Our FIN is out.
    FinWait1 = 4,
    /// Our FIN was acknowledged.
    FinWait2 = 5,
    /// Over, lingering.
    TimeWait = 6,
    /// Nothing.
    Close = 7,
    /// Their FIN came.
    CloseWait = 8,
    /// Their FIN came first, ours is out.
    LastAck = 9,
    /// Waits for connections.
    Listen = 10,
    /// Both FINs crossed.
    Closing = 11,
}

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
    /// For the initial sequence number.
    pub seed: u64,
    /// Cap for the MSS (TCP_MAXSEG), 0 = none.
    pub maxseg: usize,
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
    /// Smoothed round-trip time and its variation, microseconds.
    pub srtt_us: u64,
    /// See `srtt_us`.
    pub rttvar_us: u64,
    /// Smallest round-trip time, microseconds.
    pub min_rtt_us: u64,
    /// Most bytes ever in flight.
    pub max_flight: u32,
}

const RATE: u64 = 5;
/// Delay of acknowledgements in request/response traffic: 40 ms, in engine time.
const ACK_DELAY: SDuration = SDuration::from_millis(40 * RATE);

/// Engine time: real time until the connection stands, then [`RATE`] times faster.
struct EngineClock {
    base: Ktime,
    base_us: i64,
    rate: u64,
    frozen: Option<Instant>,
}

impl EngineClock {
    fn now(&self, now: Ktime) -> Instant {
        if let Some(t) = self.frozen {
            return t;
        }
        let us = now.as_ns().saturating_sub(self.base.as_ns()) / 1000 * self.rate;
        Instant::from_micros(self.base_us.saturating_add(i64::try_from(us).unwrap_or(i64::MAX / 2)))
    }

    fn real(&self, t: Instant) -> Ktime {
        let us = u64::try_from(t.total_micros().saturating_sub(self.base_us)).unwrap_or(0);
        Ktime(self.base.as_ns().saturating_add((us.div_ceil(self.rate) + 1).saturating_mul(1000)))
    }

    fn set_rate(&mut self, now: Ktime, rate: u64) {
        self.base_us = self.now(now).total_micros();
        self.base = now;
        self.rate = rate;
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
    snd_wnd: u32,
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

fn caps(cfg: &FlowConfig, mss: usize) -> DeviceCapabilities {
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
        c.segmentation.tcpv4 = NonZeroUsize::new(whole_segments(cfg.gso_max, hlen, mss) + hlen);
    }
    c
}

/// Payload of the largest super-frame of whole segments.
fn whole_segments(gso_max: usize, hlen: usize, mss: usize) -> usize {
    let room = gso_max.saturating_sub(hlen).max(mss);
    room / mss * mss
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
            caps: caps(&cfg, mss),
            rx: None,
            out: Vec::with_capacity(4),
            open: None,
            glue_max: if cfg.key.laddr.is_ipv6() { cfg.gso_max } else { 0 },
            scaled: cfg.rcvbuf > usize::from(u16::MAX),
            key: cfg.key,
            sent: Sent::default(),
        };
        let clock = EngineClock { base: now, base_us: 1_000_000, rate: 1, frozen: None };
        let mut iface = Self::interface(&cfg, &mut port, clock.now(now));
        iface.context();
        let mut sock = tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; cfg.rcvbuf]),
            tcp::SocketBuffer::new(vec![0; cfg.sndbuf]),
        );
        sock.set_congestion_control(tcp::CongestionControl::Cubic);
        sock.set_ack_delay(None);
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        let handle = sockets.add(sock);
        Self {
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
            snd_wnd: 0,
        }
    }

    fn interface(cfg: &FlowConfig, port: &mut Port, now: Instant) -> Interface {
        let mut c = Config::new(HardwareAddress::Ip);
        c.random_seed = cfg.seed;
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
    pub fn input(&mut self, now: Ktime, skb: Skb, seg: &Segment) {
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
        }
        self.stats.segs_in += 1;
        self.port.sent.now = now;
        self.port.sent.emitted_ack = false;
        self.port.rx = Some(skb);
        let t = self.clock.now(now);
        let _ = self.iface.poll_ingress_single(t, &mut self.port, &mut self.sockets);
        self.port.rx = None;
        if self.port.sent.emitted_ack {
            self.rx_unacked = 0;
        }
        let shift = if seg.flags & SYN != 0 { 0 } else { self.snd_wscale };
        self.snd_wnd = u32::from(seg.window) << shift;
        let acked = unacked.saturating_sub(self.sock_ref().send_queue());
        if seg.flags & ACK != 0 {
            self.acked(now, seg.ack, acked);
        }
        let after = self.sock_ref().recv_queue();
        self.stats.bytes_received += after.saturating_sub(queued) as u64;
        self.state_changed(now, before);
    }

    fn acked(&mut self, now: Ktime, ack: u32, bytes: usize) {
        let s = &mut self.port.sent;
        if s.any && ack.wrapping_sub(s.una) <= s.nxt.wrapping_sub(s.una) {
            s.una = ack;
        }
        self.stats.bytes_acked += bytes as u64;
        if let Some((seq, at)) = s.rtt_probe
            && (ack.wrapping_sub(seq) as i32) >= 0
        {
            s.rtt_probe = None;
            let rtt = (now.since(at).as_micros() as u64).max(1);
            let st = &mut self.stats;
            if st.srtt_us == 0 {
                (st.srtt_us, st.rttvar_us, st.min_rtt_us) = (rtt, rtt / 2, rtt);
            } else {
                st.rttvar_us = (st.rttvar_us * 3 + st.srtt_us.abs_diff(rtt)) / 4;
                st.srtt_us = (st.srtt_us * 7 + rtt) / 8;
                st.min_rtt_us = st.min_rtt_us.min(rtt);
            }
        }
    }

    fn state_changed(&mut self, now: Ktime, before: TcpState) {
        let state = self.state();
        if state == before {
            return;
        }
        let opening = |s| matches!(s, TcpState::SynSent | TcpState::SynRecv | TcpState::Listen);
        if opening(before) && !opening(state) && self.clock.rate == 1 {
            self.clock.set_rate(now, RATE);
            if self.peer_mss < self.mss && self.cfg.key.laddr.is_ipv4() && self.cfg.gso_max > self.cfg.mtu {
                // Super-frames of whole segments of the peer's size: the capabilities are read once, at creation.
                let hlen = header_len(self.cfg.key.laddr) + 20;
                let room = whole_segments(self.cfg.gso_max, hlen, self.peer_mss) + hlen;
                self.port.caps.segmentation.tcpv4 = NonZeroUsize::new(room);
                self.iface = Self::interface(&self.cfg, &mut self.port, self.clock.now(now));
            }
        }
        if state == TcpState::TimeWait {
            self.clock.frozen = Some(self.clock.now(now));
        }
    }

    /// Lets the engine send one packet; false if it has none. What came out is in [`take`](Self::take).
    pub fn output_one(&mut self, now: Ktime) -> bool {
        let before = self.state();
        self.port.sent.now = now;
        self.port.sent.data_segments = false;
        self.port.sent.emitted_ack = false;
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
        let s = &self.port.sent;
        self.stats.max_flight = self.stats.max_flight.max(s.nxt.wrapping_sub(s.una).min(1 << 30));
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

    /// The state.
    pub fn state(&self) -> TcpState {
        match self.sock_ref().state() {
            tcp::State::Closed => TcpState::Close,
            tcp::State::Listen => TcpState::Listen,
            tcp::State::SynSent => TcpState::SynSent,
            tcp::State::SynReceived => TcpState::SynRecv,
            tcp::State::Established => TcpState::Established,
            tcp::State::FinWait1 => TcpState::FinWait1,
            tcp::State::FinWait2 => TcpState::FinWait2,
            tcp::State::CloseWait => TcpState::CloseWait,
            tcp::State::Closing => TcpState::Closing,
            tcp::State::LastAck => TcpState::LastAck,
            tcp::State::TimeWait => TcpState::TimeWait,
        }
    }

    /// Bytes that can be read.
    pub fn recv_queue(&self) -> usize {
        self.sock_ref().recv_queue()
    }

    /// Bytes sent or to be sent that are not acknowledged.
    pub fn send_queue(&self) -> usize {
        self.sock_ref().send_queue()
    }

    /// Size of the send ring.
    pub fn send_capacity(&self) -> usize {
        self.sock_ref().send_capacity()
    }

    /// Size of the receive ring.
    pub fn recv_capacity(&self) -> usize {
        self.sock_ref().recv_capacity()
    }

    /// True if `send` can ever take bytes again.
    pub fn may_send(&self) -> bool {
        self.sock_ref().may_send()
    }

    /// Sends a FIN behind what is queued.
    pub fn close(&mut self) {
        self.sock().close();
    }

    /// Ends the connection; the next output is a RST if the peer knows of it.
    pub fn abort(&mut self) {
        self.clock.frozen = None;
        self.sock().abort();
    }

    /// TCP_NODELAY.
    pub fn set_nodelay(&mut self, on: bool) {
        self.sock().set_nagle_enabled(!on);
    }

    /// TTL or hop limit of what is sent.
    pub fn set_ttl(&mut self, ttl: u8) {
        self.sock().set_hop_limit(Some(ttl.max(1)));
    }

    /// The next output holds a keep-alive probe if the connection is idle.
    pub fn probe(&mut self) {
        let s = self.sock();
        s.set_keep_alive(Some(SDuration::from_secs(1)));
        s.set_keep_alive(None);
    }

    /// When the engine wants to be asked for output again.
    pub fn poll_at(&mut self, now: Ktime) -> Option<Ktime> {
        if self.clock.frozen.is_some() {
            return None;
        }
        let t = self.clock.now(now);
        let at = self.iface.poll_at(t, &self.sockets)?;
        Some(if at <= t { now } else { self.clock.real(at) })
    }

    /// Segment size in use: payload bytes.
    pub fn mss(&self) -> usize {
        self.mss.min(self.peer_mss)
    }

    /// Next sequence numbers, ours and theirs, for TIME-WAIT.
    pub fn seqs(&self) -> (u32, u32) {
        (self.port.sent.nxt, self.port.sent.rcv_nxt)
    }

    /// Bytes in flight.
    pub fn in_flight(&self) -> usize {
        self.port.sent.nxt.wrapping_sub(self.port.sent.una) as usize
    }

    /// True if `seq` was sent and is not acknowledged (to judge ICMP errors, RFC 5927).
    pub fn is_in_flight(&self, seq: u32) -> bool {
        let s = &self.port.sent;
        s.any && seq.wrapping_sub(s.una) <= s.nxt.wrapping_sub(s.una)
    }

    /// Counters.
    pub fn stats(&self) -> FlowStats {
        FlowStats { segs_out: self.port.sent.segs, retrans: self.port.sent.retrans, ..self.stats }
    }

    /// The peer's window and both window scales (ours is what our SYN offers for this ring).
    pub fn windows(&self) -> (u32, u8, u8) {
        let bits = usize::BITS - self.cfg.rcvbuf.leading_zeros();
        (self.snd_wnd, self.snd_wscale, bits.saturating_sub(16) as u8)
    }
}
