//! Between the wire and the engine: what the engine is shown of an acknowledgement, what is sent again without it.
//!
//! The engine keeps every unacknowledged byte, but shows none. When something has to be sent again and no copy of it is
//! at hand, the engine's clock is set ahead by more than its time-out: it rewinds and writes its ring out once more
//! from the first unacknowledged byte on. What it writes that way goes into [`Store`](super::super::loss::Store) instead of
//! the wire, and from there any part of it can be sent. Without loss nothing is copied.

use super::super::loss::seq::{le, lt};
use super::super::loss::{AckIn, Sender, Verdict};
use super::super::segment::{ACK, FIN, PSH, RST, SYN, SegOpts, Segment};
use super::wire::{self, Stamps};
use super::{Flow, TcpState};
use crate::csum;
use crate::ip::{IPPROTO_TCP, header_len};
use crate::skb::{CsumStatus, GsoInfo, GsoType, Skb};
use klib::ktime::Ktime;
use smoltcp::iface::PollResult;
use std::time::Duration;

/// Longer than any time-out of the engine.
const SKIP: Duration = Duration::from_secs(70);
/// Packets the engine may write while its ring is read out.
const MAX_READ: usize = 1 << 17;

/// What becomes of a received segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// The engine sees it.
    Engine,
    /// Everything it says is dealt with.
    Done,
}

/// Smallest window scale with which the engine can use all of its send ring.
pub(super) fn engine_scale(sndbuf: usize) -> u8 {
    let bits = usize::BITS - sndbuf.saturating_sub(1).leading_zeros();
    bits.saturating_sub(16).min(14) as u8
}

impl Flow {
    fn l4(&self) -> usize {
        header_len(self.cfg.key.laddr)
    }

    /// A segment before the connection stands: the peer's scale becomes ours, its window at most ten segments.
    pub(super) fn show_opening(&mut self, skb: &mut Skb, seg: &Segment) {
        let l4 = self.l4();
        if seg.flags & RST != 0 {
            return;
        }
        if seg.flags & SYN != 0 {
            self.rcv_nxt = seg.seq.wrapping_add(1);
            self.peer_sack = seg.sack_ok && self.cfg.sack;
            let stamp = SegOpts::parse(skb.data().get(l4 + 20..l4 + seg.hlen).unwrap_or(&[])).ts;
            match (stamp, &mut self.port.ts) {
                (Some((val, _)), Some(ts)) => ts.set(val, self.port.sent.now),
                _ => self.port.ts = None,
            }
            if seg.wscale.is_some()
                && let Some(b) = skb.data_mut().get_mut(l4 + seg.wscale_at)
            {
                *b = self.scale;
            }
        }
        let real = u32::from(seg.window) << if seg.flags & SYN != 0 { 0 } else { self.snd_wscale };
        let first = u32::try_from(10 * self.mss()).unwrap_or(u32::MAX);
        let shift = if seg.flags & SYN != 0 { 0 } else { self.scale };
        self.show_window(skb, real.min(first), shift);
    }

    pub(super) fn show_window(&mut self, skb: &mut Skb, bytes: u32, shift: u8) {
        let l4 = self.l4();
        let field = u16::try_from(bytes >> shift).unwrap_or(u16::MAX);
        self.shown = u32::from(field) << shift;
        if let Some(w) = skb.data_mut().get_mut(l4 + 14..l4 + 16) {
            w.copy_from_slice(&field.to_be_bytes());
        }
    }

    /// The connection stands: from now on we say what may be sent and what is sent again.
    pub(super) fn establish(&mut self, now: Ktime) {
        let s = &self.port.sent;
        let (una, syn_at) = (s.nxt, s.syn_at);
        let mut snd = Sender::new(self.cfg.algo, una, self.mss(), self.snd_wnd, self.peer_sack, now);
        if let Some(at) = syn_at {
            snd.rtt.sample(now.since(at));
        }
        self.port.snd = Some(Box::new(snd));
        self.port.rcv = self.peer_sack.then(Default::default);
        let l4 = self.l4();
        // The window of our SYN was not scaled.
        let scaled = (u32::from(u16::MAX) >> self.windows().2) as u16;
        if let Some(w) = self.port.pattern.get_mut(l4 + 14..l4 + 16) {
            w.copy_from_slice(&scaled.to_be_bytes());
        }
        if let Some(a) = self.port.pattern.get_mut(l4 + 8..l4 + 12) {
            a.copy_from_slice(&self.rcv_nxt.to_be_bytes());
        }
    }

    /// A segment of a connection that stands.
    pub(super) fn show(&mut self, now: Ktime, skb: &mut Skb, seg: &Segment) -> Show {
        let l4 = self.l4();
        let Some(snd) = &mut self.port.snd else { return Show::Engine };
        if seg.flags & (RST | SYN) != 0 || seg.flags & ACK == 0 {
            return Show::Engine;
        }
        let opts = match skb.data().get(l4 + 20..l4 + seg.hlen) {
            Some(o) if !o.is_empty() => SegOpts::parse(o),
            _ => SegOpts::default(),
        };
        let mut echo = None;
        if let (Some(ts), Some((val, ecr))) = (&mut self.port.ts, opts.ts) {
            if ts.is_old(val, now) {
                // Only what takes sequence space is answered: two ends that both think so would answer each other for ever.
                if seg.seq_len() > 0 {
                    self.answer(now);
                }
                return Show::Done;
            }
            let last = self.port.sent.rcv_nxt;
            if le(seg.seq, last) && !lt(seg.seq.wrapping_add(seg.seq_len()), last) {
                ts.set(val, now);
            }
            echo = ts.age(ecr, now);
        }
        let pure = seg.payload == 0 && seg.flags & FIN == 0;
        let wnd = u32::from(seg.window) << self.snd_wscale;
        let a = AckIn { now, ack: seg.ack, wnd, sacks: opts.sacks(), pure, echo };
        let verdict = snd.on_ack(&a);
        snd.changed = false;
        let expected = seg.seq == self.rcv_nxt;
        if seg.payload > 0
            && !expected
            && let Some(r) = &mut self.port.rcv
        {
            let s = &self.port.sent;
            let unit = u32::from(self.port.scaled);
            let edge = s.rcv_nxt.wrapping_add((s.wnd.saturating_sub(unit)) << self.rcv_wscale);
            r.add(seg.seq, seg.seq.wrapping_add(seg.payload as u32), self.rcv_nxt, edge);
        }
        let (una, window) = (snd.una, snd.window());
        match verdict {
            Verdict::Future => return Show::Engine,
            Verdict::Old if pure && expected => return Show::Done,
            Verdict::Old => {
                // The engine would throw the data away for the old number.
                if let Some(f) = skb.data_mut().get_mut(l4 + 8..l4 + 12) {
                    f.copy_from_slice(&una.to_be_bytes());
                }
            }
            Verdict::Same if pure && expected && window >> self.scale == self.shown >> self.scale => {
                return Show::Done;
            }
            Verdict::Same | Verdict::New => {}
        }
        self.show_window(skb, window, self.scale);
        Show::Engine
    }

    /// Bytes in the send ring that were never sent.
    fn unsent(&self) -> usize {
        let Some(snd) = &self.port.snd else { return 0 };
        let sent = snd.data_nxt().wrapping_sub(snd.una) as usize;
        self.sock_ref().send_queue().saturating_sub(sent)
    }

    /// A segment as if from the peer, for the engine's eyes only. Its window is left to the caller.
    pub(super) fn peer_segment(&self, seq: u32, ack: u32, flags: u8, options: &[u8]) -> Skb {
        let l4 = self.l4();
        let len = l4 + 20 + options.len();
        let mut skb = self.port.pool.alloc(len);
        wire::build(skb.put(len), &self.port.pattern[..l4 + 20], options, seq, flags);
        let d = skb.data_mut();
        // Ours turned round.
        let a = l4 - if l4 == 20 { 8 } else { 32 };
        let half = (l4 - a) / 2;
        let (x, y) = d[a..l4].split_at_mut(half);
        x.swap_with_slice(y);
        let (x, y) = d[l4..l4 + 4].split_at_mut(2);
        x.swap_with_slice(y);
        d[l4 + 8..l4 + 12].copy_from_slice(&ack.to_be_bytes());
        skb
    }

    /// Shows the engine a segment of ours; its answers go nowhere.
    pub(super) fn feed(&mut self, now: Ktime, skb: Skb) {
        self.port.mute = true;
        self.port.rx = Some(skb);
        let t = self.clock.now(now);
        let _ = self.iface.poll_ingress_single(t, &mut self.port, &mut self.sockets);
        self.port.rx = None;
        self.port.mute = false;
    }

    /// Tells the engine of a window that no segment brought.
    fn tell_window(&mut self, now: Ktime, bytes: u32) {
        let Some(snd) = &self.port.snd else { return };
        let una = snd.una;
        let mut skb = self.peer_segment(self.rcv_nxt, una, ACK, &[]);
        self.show_window(&mut skb, bytes, self.scale);
        self.feed(now, skb);
    }

    /// Makes the engine write out again what is in flight, into the store.
    fn read_out(&mut self, now: Ktime) {
        let Some(snd) = &mut self.port.snd else { return };
        let (una, flight) = (snd.una, snd.flight());
        snd.store.begin(una);
        // Rounded up, so that all of it is inside.
        self.tell_window(now, flight.saturating_add((1 << self.scale) - 1).max(1));
        self.clock.skip(SKIP);
        self.sock().set_nagle_enabled(false);
        for _ in 0..MAX_READ {
            let Some(snd) = &self.port.snd else { break };
            if !lt(snd.store.next(), snd.data_nxt()) {
                break;
            }
            let t = self.clock.now(now);
            let r = self.iface.poll_egress(t, &mut self.port, &mut self.sockets);
            if r != PollResult::SocketStateChanged {
                break;
            }
        }
        let nodelay = self.nodelay;
        self.sock().set_nagle_enabled(!nodelay);
        if let Some(snd) = &self.port.snd {
            let w = snd.window();
            self.tell_window(now, w);
        }
    }

    /// Timers, and one packet of what has to be sent again; false if there is none.
    pub(super) fn repair(&mut self, now: Ktime) -> bool {
        let Some(snd) = &mut self.port.snd else { return false };
        if snd.next_timer().is_some_and(|t| t <= now) {
            let sent = snd.data_nxt().wrapping_sub(snd.una) as usize;
            let unsent = self.sockets.get::<smoltcp::socket::tcp::Socket>(self.handle).send_queue();
            snd.on_time(now, unsent.saturating_sub(sent));
        }
        let closed = snd.rwnd == 0 && snd.flight() == 0;
        if std::mem::take(&mut snd.changed) {
            let w = snd.window();
            self.tell_window(now, w);
        }
        if self.persist(now, closed) {
            return true;
        }
        let l4 = self.l4();
        let optlen = if self.port.ts.is_some() { 12 } else { 0 };
        let Some(snd) = &self.port.snd else { return false };
        let max = self.cfg.gso_max.saturating_sub(l4 + 20 + optlen);
        let Some((start, end, fin)) = snd.next_retransmit(u32::try_from(max).unwrap_or(0)) else {
            return false;
        };
        let data_end = if fin { end.wrapping_sub(1) } else { end };
        if start != data_end && !snd.store.covers(start, data_end) {
            self.read_out(now);
        }
        self.send_again(now, start, end, fin)
    }

    fn send_again(&mut self, now: Ktime, start: u32, end: u32, fin: bool) -> bool {
        let Some(snd) = &mut self.port.snd else { return false };
        let len = end.wrapping_sub(start) - u32::from(fin);
        let last = end == snd.nxt;
        let flags = ACK | if fin { FIN } else { 0 } | if last && len > 0 { PSH } else { 0 };
        let mss = snd.mss();
        let Some(mut skb) = self.own(now, start, flags, len as usize) else {
            log::debug!(target: "tcp", "nothing to send again at {start}+{len}");
            return false;
        };
        let segs = if len > mss {
            let kind = if self.cfg.key.laddr.is_ipv4() { GsoType::TcpV4 } else { GsoType::TcpV6 };
            let hdr_len = (skb.len() - len as usize) as u16;
            skb.gso = Some(GsoInfo { kind, size: mss as u16, hdr_len });
            u64::from(len.div_ceil(mss))
        } else {
            1
        };
        self.port.sent.segs += segs;
        if let Some(snd) = &mut self.port.snd {
            snd.on_retransmit(start, end, segs, now);
        }
        self.port.open = None;
        self.port.out.push(skb);
        true
    }

    /// A packet that the engine does not know of; its data come from the store. `None` if they are not there.
    fn own(&mut self, now: Ktime, seq: u32, flags: u8, len: usize) -> Option<Skb> {
        let l4 = self.l4();
        let options = self.port.ts.as_ref().map(|t| wire::ts_option(t.value(now), t.echo()));
        let options = options.as_ref().map_or(&[][..], |o| &o[..]);
        let hlen = l4 + 20 + options.len();
        let mut skb = self.port.pool.alloc(hlen + len);
        let d = skb.put(hlen + len);
        if len > 0 && !self.port.snd.as_ref()?.store.copy(seq, &mut d[hlen..]) {
            return None;
        }
        wire::build(d, &self.port.pattern[..l4 + 20], options, seq, flags);
        let k = &self.cfg.key;
        let c = csum::fold(csum::pseudo(k.laddr, k.raddr, IPPROTO_TCP, hlen + len - l4));
        d[l4 + 16..l4 + 18].copy_from_slice(&c.to_be_bytes());
        skb.csum = CsumStatus::Partial { start: l4 as u16, offset: 16 };
        Some(skb)
    }

    /// A bare acknowledgement with this sequence number.
    fn bare(&mut self, now: Ktime, seq: u32) {
        if let Some(skb) = self.own(now, seq, ACK, 0) {
            self.port.open = None;
            self.port.sent.segs += 1;
            self.port.out.push(skb);
        }
    }

    /// Answers a stray segment.
    fn answer(&mut self, now: Ktime) {
        let nxt = self.port.snd.as_ref().map_or(self.port.sent.nxt, |s| s.nxt);
        self.bare(now, nxt);
    }

    /// The next output holds a keep-alive probe: an acknowledgement of the byte before the next one, which the peer answers.
    pub fn probe(&mut self, now: Ktime) {
        let una = self.port.snd.as_ref().map_or(self.port.sent.una, |s| s.una);
        self.bare(now, una.wrapping_sub(1));
    }

    /// Probes a closed window (RFC 9293 section 3.8.6.1); true if a probe was made.
    fn persist(&mut self, now: Ktime, closed: bool) -> bool {
        if !closed || self.sock_ref().send_queue() == 0 {
            self.persist = None;
            return false;
        }
        let rtt = self.port.snd.as_ref().map(|s| s.rtt).unwrap_or_default();
        match self.persist {
            None => self.persist = Some((now + rtt.rto(0), 0)),
            Some((at, n)) if at <= now => {
                self.persist = Some((now + rtt.rto(n + 1), (n + 1).min(16)));
                self.probe(now);
                return true;
            }
            Some(_) => {}
        }
        false
    }

    /// When loss recovery wants to be asked for output.
    pub(super) fn shim_timer(&self) -> Option<Ktime> {
        let snd = self.port.snd.as_ref()?;
        let persist = self.persist.map(|p| p.0);
        match (snd.next_timer(), persist) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The path carries packets of at most `mtu` bytes.
    pub fn set_mtu(&mut self, now: Ktime, mtu: usize) {
        let l4 = self.l4();
        let mss = mtu.saturating_sub(l4 + 20).max(64);
        if mss >= self.mss {
            return;
        }
        self.mss = mss;
        self.cfg.mtu = mtu;
        self.resize(now);
        let eff = self.mss();
        if let Some(snd) = &mut self.port.snd {
            snd.shrink_mss(eff as u32);
        }
    }

    /// Bytes of options in each data segment.
    pub(super) fn option_len(&self) -> usize {
        if self.port.ts.is_some() { 12 } else { 0 }
    }

    /// Starts timestamps if the configuration wants them.
    pub(super) fn start_stamps(&mut self) {
        if self.cfg.timestamps {
            self.port.ts = Some(Stamps::new(self.cfg.stamp_offset));
            // The engine only keeps the place for the option; the numbers are ours.
            self.sock().set_tsval_generator(Some(|| 1));
        }
    }

    /// True while the engine's own time-outs rule: the handshake.
    pub(super) fn opening(s: TcpState) -> bool {
        matches!(s, TcpState::SynSent | TcpState::SynRecv | TcpState::Listen)
    }

    /// Data is about to be queued.
    pub fn wake(&mut self, now: Ktime) {
        if let Some(snd) = &mut self.port.snd {
            snd.wake(now);
        }
    }

    /// Loss recovery, once the connection stands.
    pub fn sender(&self) -> Option<&Sender> {
        self.port.snd.as_deref()
    }

    /// Changes the congestion control.
    pub fn set_algorithm(&mut self, a: super::super::loss::Algorithm) {
        self.cfg.algo = a;
        if let Some(snd) = &mut self.port.snd {
            snd.cc.set_algorithm(a);
        }
    }

    /// The congestion control.
    pub fn algorithm(&self) -> super::super::loss::Algorithm {
        self.cfg.algo
    }

    /// What is waited for with a timer, and until when: 1 = an acknowledgement, 4 = the peer's window.
    pub fn timer(&mut self, now: Ktime) -> Option<(u8, Ktime)> {
        if Self::opening(self.state()) {
            return self.poll_at(now).map(|at| (1, at));
        }
        if let Some((at, _)) = self.persist {
            return Some((4, at));
        }
        Some((1, self.port.snd.as_ref()?.next_timer()?))
    }

    /// Bytes waiting to be sent for the first time.
    pub fn not_sent(&self) -> usize {
        self.unsent()
    }
}
