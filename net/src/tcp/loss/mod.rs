//! Loss recovery and congestion control above the engine, which has neither worth the name: it never looks at SACK, waits
//! a second for its time-out and rewinds everything.
//!
//! Key types: [`Sender`] (one direction of one connection: what is in flight, the window, the timers), [`Board`] (the
//! scoreboard, RACK), [`Rtt`], [`Cc`] (Reno, CUBIC), [`Store`] (copies of unacknowledged bytes), [`Ranges`] (what our own
//! SACK options say). All of it is pure computation on numbers: no packets, no engine, no clock but the argument. `tcp::flow`
//! feeds it, asks what may be sent, and builds what has to be sent again.
//!
//! How the engine is held by it: the engine runs without congestion control, so it sends what the peer's window
//! allows; `flow` writes [`Sender::window`] into each acknowledgement before the engine sees it.

mod ack;
mod board;
mod cc;
mod ranges;
mod rtt;
pub mod seq;
mod store;
mod timer;

pub use ack::{AckIn, Verdict};
pub use board::{Board, Delivered};
pub use cc::{Algorithm, Cc};
pub use ranges::Ranges;
pub use rtt::Rtt;
pub use store::Store;

use klib::ktime::Ktime;
use seq::lt;
use std::time::Duration;

/// Linux: tcp_ca_state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum CaState {
    /// Nothing is missing.
    #[default]
    Open = 0,
    /// A hole that may be reordering.
    Disorder = 1,
    /// Losses are being repaired.
    Recovery = 3,
    /// A time-out is being repaired.
    Loss = 4,
}

/// Counters for TCP_INFO.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counters {
    /// Payload bytes sent, copies included.
    pub bytes_sent: u64,
    /// Payload bytes sent again.
    pub bytes_retrans: u64,
    /// Segments sent again.
    pub segs_retrans: u64,
    /// Bytes that reached the peer.
    pub delivered: u64,
    /// Time-outs.
    pub rtos: u32,
    /// Duplicates that the peer reported.
    pub dsack_dups: u32,
    /// Reordering was seen this often.
    pub reord_seen: u32,
}

/// The sending side of a connection.
#[derive(Debug)]
pub struct Sender {
    /// First byte that is not acknowledged.
    pub una: u32,
    /// First byte that was never sent.
    pub nxt: u32,
    /// The peer's window from `una` on, bytes.
    pub rwnd: u32,
    mss: u32,
    sack_ok: bool,
    /// Round-trip times.
    pub rtt: Rtt,
    /// The window.
    pub cc: Cc,
    /// What is in flight.
    pub board: Board,
    /// Copies of it, while something has to be sent again.
    pub store: Store,
    /// Counters.
    pub counters: Counters,
    state: CaState,
    /// Recovery ends when this is acknowledged.
    recover: u32,
    dup: u32,
    fin: Option<u32>,
    prr: Prr,
    /// Window and threshold before the last reduction, until it proves right.
    undo: Option<(u32, u32)>,
    /// Bytes sent again since then that were not reported as duplicates.
    undo_left: u32,
    /// One segment leaves whatever the window says: the first of a recovery.
    forced: bool,
    reo_mult: u32,
    reo_round: u32,
    tlp: Tlp,
    backoff: u32,
    rto_at: Option<Ktime>,
    tlp_at: Option<Ktime>,
    reo_at: Option<Ktime>,
    /// When data was last sent.
    pub last_send: Ktime,
    /// Data up to here was sent with the window full.
    limited_until: Option<u32>,
    round_end: u32,
    round_flight: u32,
    /// The window changed without an acknowledgement: the engine must be told.
    pub changed: bool,
}

/// Proportional rate reduction (RFC 6937).
#[derive(Clone, Copy, Default, Debug)]
struct Prr {
    delivered: u32,
    out: u32,
    flight: u32,
}

/// Tail loss probe (RFC 8985 section 7).
#[derive(Clone, Copy, Default, Debug)]
struct Tlp {
    /// A probe is out; the episode ends when this is acknowledged.
    end: Option<u32>,
    /// It repeated old data.
    resent: bool,
    /// It is to leave as old data, or as one segment of new data beyond the window.
    wants_old: bool,
    extra: bool,
}

impl Sender {
    /// A connection that has just been established: `una` is the first byte of data, `rwnd` the peer's window.
    pub fn new(algo: Algorithm, una: u32, mss: usize, rwnd: u32, sack_ok: bool, now: Ktime) -> Self {
        let mss = u32::try_from(mss).unwrap_or(u32::MAX).clamp(1, 65_535);
        Self {
            una,
            nxt: una,
            rwnd,
            mss,
            sack_ok,
            rtt: Rtt::default(),
            cc: Cc::new(algo, mss),
            board: Board::default(),
            store: Store::default(),
            counters: Counters::default(),
            state: CaState::Open,
            recover: una,
            dup: 0,
            fin: None,
            prr: Prr::default(),
            undo: None,
            undo_left: 0,
            forced: false,
            reo_mult: 1,
            reo_round: una,
            tlp: Tlp::default(),
            backoff: 0,
            rto_at: None,
            tlp_at: None,
            reo_at: None,
            last_send: now,
            limited_until: None,
            round_end: una,
            round_flight: 0,
            changed: false,
        }
    }

    /// Bytes not acknowledged (a FIN counts as one).
    pub fn flight(&self) -> u32 {
        self.nxt.wrapping_sub(self.una)
    }

    /// The first sequence number that holds no payload of ours yet: `nxt`, or the FIN's.
    pub fn data_nxt(&self) -> u32 {
        self.fin.unwrap_or(self.nxt)
    }

    /// Segment size, payload bytes.
    pub fn mss(&self) -> u32 {
        self.mss
    }

    /// The path carries less than was thought.
    pub fn shrink_mss(&mut self, mss: u32) {
        self.mss = mss.max(1);
        self.cc.set_mss(self.mss);
        self.board.lose_larger(self.mss);
        if self.board.lost() > 0 && self.state == CaState::Open {
            // No sign of congestion: the window stays (Linux: tcp_simple_retransmit).
            self.state = CaState::Loss;
            self.recover = self.nxt;
            self.cc.ssthresh = self.cc.ssthresh.min(self.cc.cwnd);
        }
        self.forced = self.board.lost() > 0;
        self.changed = true;
    }

    /// The state.
    pub fn state(&self) -> CaState {
        match self.state {
            CaState::Open if !self.board.is_clean() => CaState::Disorder,
            s => s,
        }
    }

    /// Doublings of the time-out.
    pub fn backoff(&self) -> u32 {
        self.backoff
    }

    /// The time-out with its doublings.
    pub fn rto(&self) -> Duration {
        self.rtt.rto(self.backoff)
    }

    /// The peer reports what it holds.
    pub fn sack_ok(&self) -> bool {
        self.sack_ok
    }

    fn dup_bytes(&self) -> u32 {
        if self.sack_ok { 0 } else { self.dup.saturating_mul(self.mss).min(self.flight()) }
    }

    /// Bytes held to be under way.
    pub fn pipe(&self) -> u32 {
        self.board.pipe(self.flight()).saturating_sub(self.dup_bytes())
    }

    /// New bytes, whole segments, that the congestion window allows beyond `nxt`. What waits to be sent again goes first.
    fn room(&self) -> u32 {
        let used = self.flight().saturating_sub(self.board.sacked() + self.dup_bytes());
        let room = self.cc.cwnd.saturating_sub(used);
        let room = if self.tlp.extra { room.max(self.mss) } else { room };
        room / self.mss * self.mss
    }

    /// The window from `una` on that the engine may use now. Never behind `nxt`, unless the peer took it back.
    pub fn window(&self) -> u32 {
        (self.flight() + self.room()).min(self.rwnd)
    }

    /// `[start, end)` left for the first time, of it `payload` bytes of data.
    pub fn on_new(&mut self, start: u32, end: u32, payload: u32, now: Ktime) {
        if start == end {
            return;
        }
        self.board.push(start, end, now);
        self.nxt = end;
        self.last_send = now;
        self.counters.bytes_sent += u64::from(payload);
        if end.wrapping_sub(start) > payload {
            self.fin = Some(end.wrapping_sub(1));
        }
        if self.state == CaState::Recovery {
            self.prr.out = self.prr.out.saturating_add(payload);
        }
        let flight = self.flight();
        if !lt(self.una, self.round_end) {
            (self.round_end, self.round_flight) = (end, flight);
        } else {
            self.round_flight = self.round_flight.max(flight);
        }
        if flight + self.mss > self.cc.cwnd {
            self.limited_until = Some(end);
        }
        if self.tlp.extra {
            self.tlp.extra = false;
            self.tlp.end = Some(end);
            self.tlp.resent = false;
            self.rto_at = None;
        }
        self.arm_rto(now);
        self.arm_tlp(now);
    }

    /// What has to be sent again now: `(start, end, fin)`, at most `max` bytes of data. Follow with
    /// [`on_retransmit`](Self::on_retransmit).
    pub fn next_retransmit(&self, max: u32) -> Option<(u32, u32, bool)> {
        let (start, end) = if self.tlp.wants_old {
            self.board.tail(self.mss)?
        } else {
            let (start, end) = self.board.next_lost()?;
            let (pipe, len) = (self.pipe(), end.wrapping_sub(start));
            let room = self.cc.cwnd.saturating_sub(pipe);
            if room < len.min(self.mss) && !self.forced {
                return None;
            }
            let whole = (room / self.mss * self.mss).clamp(self.mss, max.max(self.mss));
            (start, start.wrapping_add(len.min(whole)))
        };
        let fin = self.fin.is_some_and(|f| f.wrapping_add(1) == end);
        Some((start, end, fin))
    }

    /// `[start, end)` left again in `segs` segments.
    pub fn on_retransmit(&mut self, start: u32, end: u32, segs: u64, now: Ktime) {
        self.board.sent_again(start, end, now);
        let len = end.wrapping_sub(start);
        self.counters.bytes_sent += u64::from(len);
        self.counters.bytes_retrans += u64::from(len);
        self.counters.segs_retrans += segs;
        self.prr.out = self.prr.out.saturating_add(len);
        self.undo_left = self.undo_left.saturating_add(len);
        self.forced = false;
        self.last_send = now;
        if self.tlp.wants_old {
            self.tlp.wants_old = false;
            self.tlp.end = Some(self.nxt);
            self.tlp.resent = true;
            self.rto_at = None;
        } else if start == self.una {
            self.rto_at = None;
        }
        self.arm_rto(now);
    }

    /// True while the copies may be needed again soon.
    fn repairing(&self) -> bool {
        self.state != CaState::Open || !self.board.is_clean() || self.tlp.end.is_some_and(|e| lt(self.una, e))
    }
}
