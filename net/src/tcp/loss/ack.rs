//! What an acknowledgement changes: scoreboard, round-trip time, losses, window.

use super::seq::{le, lt, max};
use super::{CaState, Delivered, Prr, Sender, Tlp};
use klib::ktime::Ktime;
use std::time::Duration;

/// An acknowledgement as it came.
#[derive(Clone, Copy, Debug)]
pub struct AckIn<'a> {
    /// Now.
    pub now: Ktime,
    /// The acknowledgement number.
    pub ack: u32,
    /// The window, in bytes.
    pub wnd: u32,
    /// SACK blocks in the order of the option.
    pub sacks: &'a [(u32, u32)],
    /// No payload, no FIN.
    pub pure: bool,
    /// Age of the echoed timestamp.
    pub echo: Option<Duration>,
}

/// How the engine must look at the segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It acknowledges what was never sent.
    Future,
    /// An old acknowledgement.
    Old,
    /// It acknowledges nothing new.
    Same,
    /// It does.
    New,
}

impl Sender {
    fn min_rtt(&self) -> Duration {
        Duration::from_micros(self.rtt.min_us)
    }

    /// Takes an acknowledgement.
    pub fn on_ack(&mut self, a: &AckIn) -> Verdict {
        if lt(self.nxt, a.ack) {
            return Verdict::Future;
        }
        let now = a.now;
        let old = lt(a.ack, self.una);
        let ack = max(a.ack, self.una);
        let moved = ack != self.una;
        let same_window = a.wnd == self.rwnd;
        if !old {
            self.rwnd = a.wnd;
        }
        // The way of nearly all acknowledgements: nothing is missing, nothing to report.
        let mut d = Delivered::default();
        let min = self.min_rtt();
        let una = self.una;
        if moved {
            self.board.begin();
            self.board.ack(ack, now, min, &mut d);
            self.una = ack;
            self.store.acked(ack);
        }
        let mut dsack = false;
        if !a.sacks.is_empty() {
            if !moved {
                self.board.begin();
            }
            dsack = self.sacks(a.sacks, ack, &mut d, now, min);
        } else if a.pure && !moved && !old && same_window && self.flight() > 0 && !self.sack_ok {
            self.dup += 1;
            d.dup = self.mss;
        }
        if d.bytes > 0 || moved {
            self.counters.delivered += u64::from(d.bytes);
            self.measure(&d, a);
        }
        if d.reordered {
            self.counters.reord_seen = self.counters.reord_seen.saturating_add(1);
        }
        if dsack {
            self.counters.dsack_dups = self.counters.dsack_dups.saturating_add(1);
            if !lt(self.una, self.reo_round) {
                self.reo_round = self.nxt;
                self.reo_mult = (self.reo_mult + 1).min(64);
            }
        }
        if moved {
            self.backoff = 0;
            if !self.sack_ok {
                self.partial(&d);
            }
        }
        self.tlp_acked(moved, dsack);
        self.find_losses(now);
        self.advance(now, una, moved, &d);
        if moved {
            self.rto_at = None;
            self.arm_rto(now);
        }
        self.arm_tlp(now);
        if self.store.is_on() && !self.repairing() {
            self.store.end();
        }
        match (old, moved) {
            (true, _) => Verdict::Old,
            (_, true) => Verdict::New,
            _ => Verdict::Same,
        }
    }

    /// Reads the blocks; true if the first reports a duplicate (RFC 2883).
    fn sacks(
        &mut self,
        blocks: &[(u32, u32)],
        ack: u32,
        d: &mut Delivered,
        now: Ktime,
        min: Duration,
    ) -> bool {
        let mut dup = false;
        for (i, &(l, r)) in blocks.iter().enumerate() {
            if !lt(l, r) || lt(self.nxt, r) {
                continue;
            }
            let inside = blocks.get(1).is_some_and(|&(l2, r2)| le(l2, l) && le(r, r2));
            if i == 0 && (le(r, ack) || inside) {
                dup = true;
                self.undone(r.wrapping_sub(l));
                continue;
            }
            if lt(ack, r) && self.sack_ok {
                self.board.sack(max(l, ack), r, now, min, d);
            }
        }
        dup
    }

    fn measure(&mut self, d: &Delivered, a: &AckIn) {
        match (d.oldest, d.newest) {
            (Some(o), _) if !d.resent => self.rtt.sample(a.now.since(o)),
            // Part of it was sent twice: the echoed timestamp tells the copies apart (RFC 7323).
            _ => {
                if let Some(e) = a.echo
                    && d.bytes > 0
                {
                    self.rtt.sample(e.max(Duration::from_millis(1)));
                }
            }
        }
        if let Some(n) = d.newest {
            let us = u64::try_from(a.now.since(n).as_micros()).unwrap_or(u64::MAX).max(1);
            self.rtt.min_us = if self.rtt.min_us == 0 { us } else { self.rtt.min_us.min(us) };
        }
    }

    /// A new acknowledgement from a peer without SACK: NewReno's partial acknowledgement (RFC 6582).
    fn partial(&mut self, d: &Delivered) {
        self.dup = self.dup.saturating_sub((d.bytes / self.mss).max(1));
        if self.state == CaState::Recovery {
            if lt(self.una, self.recover) {
                self.board.lose_front(self.mss);
            } else {
                self.dup = 0;
            }
        } else {
            self.dup = 0;
        }
    }

    /// How long something may be overdue before it counts as lost.
    fn reo_window(&self) -> Duration {
        let sure = self.state != CaState::Open || self.board.sacked() >= 3 * self.mss;
        if self.counters.reord_seen == 0 && sure {
            return Duration::ZERO;
        }
        let us = (self.rtt.min_us / 4).saturating_mul(u64::from(self.reo_mult));
        Duration::from_micros(us.min(self.rtt.srtt_us))
    }

    /// Looks for losses and enters recovery if there are some.
    pub(super) fn find_losses(&mut self, now: Ktime) {
        self.reo_at = None;
        if self.board.is_clean() && self.dup == 0 {
            return;
        }
        if self.sack_ok {
            let (_, next) = self.board.detect(now, self.reo_window());
            self.reo_at = next;
        } else if self.dup >= 3 && self.state == CaState::Open {
            self.board.lose_front(self.mss);
        }
        if self.board.lost() > 0 && self.state == CaState::Open {
            self.enter_recovery();
        }
    }

    fn enter_recovery(&mut self) {
        self.state = CaState::Recovery;
        self.recover = self.nxt;
        self.undo = Some((self.cc.cwnd, self.cc.ssthresh));
        self.undo_left = 0;
        self.prr = Prr { delivered: 0, out: 0, flight: self.flight().max(1) };
        self.cc.on_loss();
        self.forced = true;
        self.tlp = Tlp::default();
        self.tlp_at = None;
        self.cc.cwnd = self.cc.cwnd.min(self.pipe().max(self.mss));
    }

    fn tlp_acked(&mut self, moved: bool, dsack: bool) {
        let Some(end) = self.tlp.end else { return };
        if lt(self.una, end) {
            return;
        }
        if !self.tlp.resent || dsack || !moved {
            // New data, or both copies arrived: nothing was lost.
            self.tlp.end = None;
        } else if lt(end, self.una) {
            // The probe repaired a loss that nobody else saw.
            if self.state == CaState::Open {
                self.cc.on_loss();
                self.cc.cwnd = self.cc.cwnd.min(self.cc.ssthresh);
            }
            self.tlp.end = None;
        }
    }

    /// All that was sent again was a duplicate: nothing had been lost.
    fn undone(&mut self, dup: u32) {
        self.undo_left = self.undo_left.saturating_sub(dup);
        if self.undo_left == 0
            && let Some((cwnd, ssthresh)) = self.undo.take()
        {
            self.cc.ssthresh = ssthresh;
            self.cc.cwnd = self.cc.cwnd.max(cwnd);
            if self.state == CaState::Recovery && self.board.lost() == 0 {
                self.finish();
            }
        }
    }

    /// The state machine and the window.
    fn advance(&mut self, now: Ktime, una_before: u32, moved: bool, d: &Delivered) {
        let rtt = Duration::from_micros(self.rtt.srtt_us);
        match self.state {
            CaState::Open | CaState::Disorder => {
                if moved && self.board.lost() == 0 && self.limited(una_before) {
                    self.cc.grow(now, d.bytes, rtt);
                }
            }
            CaState::Recovery => {
                if moved && !lt(self.una, self.recover) {
                    self.cc.cwnd = self.cc.ssthresh;
                    self.finish();
                } else {
                    self.reduce(d.bytes + d.dup, moved);
                }
            }
            CaState::Loss => {
                if moved && !lt(self.una, self.recover) {
                    self.finish();
                }
                if d.bytes > 0 {
                    self.cc.grow(now, d.bytes, rtt);
                }
            }
        }
    }

    fn finish(&mut self) {
        self.state = CaState::Open;
        self.dup = 0;
        self.forced = false;
        if self.counters.reord_seen > 0 && self.reo_mult > 1 {
            self.reo_mult -= 1;
        }
    }

    /// Was the window what held the acknowledged data back?
    fn limited(&self, una_before: u32) -> bool {
        if self.cc.in_slow_start() {
            return self.cc.cwnd < self.round_flight.saturating_mul(2);
        }
        self.limited_until.is_some_and(|l| lt(una_before, l))
    }

    /// Proportional rate reduction (RFC 6937 section 3, with the bound of RFC 9937).
    fn reduce(&mut self, delivered: u32, progress: bool) {
        let p = &mut self.prr;
        p.delivered = p.delivered.saturating_add(delivered);
        if delivered == 0 {
            return;
        }
        let (done, out) = (p.delivered, p.out);
        let (flight, goal) = (u64::from(p.flight), u64::from(self.cc.ssthresh));
        let pipe = self.pipe();
        let send = if pipe > self.cc.ssthresh {
            let share = (u64::from(done) * goal).div_ceil(flight);
            u32::try_from(share).unwrap_or(u32::MAX).saturating_sub(out)
        } else {
            let mut limit = done.saturating_sub(out).max(delivered);
            if progress {
                limit = limit.saturating_add(self.mss);
            }
            limit.min(self.cc.ssthresh - pipe)
        };
        self.cc.cwnd = pipe.saturating_add(send).max(self.mss);
    }
}
