//! The states of a connection, and what the engine's socket tells of itself.

use super::{Flow, FlowStats};
use klib::ktime::Ktime;
use smoltcp::socket::tcp;

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

/// Options in use on a connection.
#[derive(Clone, Copy, Debug)]
pub struct Agreed {
    /// RFC 7323 timestamps.
    pub timestamps: bool,
    /// Selective acknowledgements.
    pub sack: bool,
    /// Window scaling.
    pub wscale: bool,
}

impl Flow {
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
        if self.nodelay != on {
            self.nodelay = on;
            self.sock().set_nagle_enabled(!on);
        }
    }

    /// TTL or hop limit of what is sent.
    pub fn set_ttl(&mut self, ttl: u8) {
        self.ttl = Some(ttl.max(1));
        let ttl = self.ttl;
        self.sock().set_hop_limit(ttl);
    }

    /// When somebody here wants to be asked for output again.
    pub fn poll_at(&mut self, now: Ktime) -> Option<Ktime> {
        if self.clock.frozen.is_some() {
            return None;
        }
        let t = self.clock.now(now);
        let engine = self.iface.poll_at(t, &self.sockets);
        let engine = engine.map(|at| if at <= t { now } else { self.clock.real(at) });
        match (engine, self.shim_timer()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Segment size in use: payload bytes.
    pub fn mss(&self) -> usize {
        self.mss.min(self.peer_mss) - self.option_len()
    }

    /// Next sequence numbers, ours and theirs, for TIME-WAIT.
    pub fn seqs(&self) -> (u32, u32) {
        (self.port.sent.nxt, self.rcv_nxt)
    }

    fn una(&self) -> u32 {
        self.port.snd.as_ref().map_or(self.port.sent.una, |s| s.una)
    }

    /// Bytes in flight.
    pub fn in_flight(&self) -> usize {
        self.port.sent.nxt.wrapping_sub(self.una()) as usize
    }

    /// True if `seq` was sent and is not acknowledged (to judge ICMP errors, RFC 5927).
    pub fn is_in_flight(&self, seq: u32) -> bool {
        let (s, una) = (&self.port.sent, self.una());
        s.any && seq.wrapping_sub(una) <= s.nxt.wrapping_sub(una)
    }

    /// Counters.
    pub fn stats(&self) -> FlowStats {
        let again = self.port.snd.as_ref().map_or(0, |s| s.counters.segs_retrans);
        FlowStats { segs_out: self.port.sent.segs, retrans: self.port.sent.retrans + again, ..self.stats }
    }

    /// What was agreed on with the peer.
    pub fn options(&self) -> Agreed {
        Agreed {
            timestamps: self.port.ts.is_some(),
            sack: self.peer_sack,
            wscale: self.rcv_wscale > 0 || self.scale > 0,
        }
    }

    /// Largest packet of the path as far as it is known.
    pub fn mtu(&self) -> usize {
        self.cfg.mtu
    }

    /// When payload last came.
    pub fn last_data_received(&self) -> Ktime {
        self.last_rx
    }

    /// Probes of a closed window since it closed.
    pub fn window_probes(&self) -> u32 {
        self.persist.map_or(0, |p| p.1)
    }

    /// The scale that our SYN offers for this ring.
    pub(super) fn offered_scale(&self) -> u8 {
        let bits = usize::BITS - self.cfg.rcvbuf.leading_zeros();
        bits.saturating_sub(16) as u8
    }

    /// The peer's window and both window scales.
    pub fn windows(&self) -> (u32, u8, u8) {
        let wnd = self.port.snd.as_ref().map_or(self.snd_wnd, |s| s.rwnd);
        (wnd, self.snd_wscale, self.rcv_wscale)
    }
}
