//! Time-outs: retransmission (RFC 6298), tail loss probe and reordering (RFC 8985), idle restart (RFC 5681).

use super::seq::lt;
use super::{CaState, Sender};
use klib::ktime::Ktime;
use std::time::Duration;

/// A single segment may wait for its acknowledgement this long (delayed acknowledgements of the peer).
const PEER_DELAY: Duration = Duration::from_millis(200);
/// Least distance of a probe (Linux: two jiffies).
const PROBE_MIN: Duration = Duration::from_millis(2);

impl Sender {
    pub(super) fn arm_rto(&mut self, now: Ktime) {
        if self.flight() == 0 {
            self.rto_at = None;
        } else if self.rto_at.is_none() {
            self.rto_at = Some(now + self.rto());
        }
    }

    pub(super) fn arm_tlp(&mut self, now: Ktime) {
        self.tlp_at = None;
        let quiet = self.state == CaState::Open && self.board.is_clean() && self.sack_ok;
        if self.flight() == 0 || !quiet || self.tlp.end.is_some() || self.tlp.wants_old || self.tlp.extra {
            return;
        }
        let Some(srtt) = self.rtt.srtt() else { return };
        let slack = if self.flight() <= self.mss { PEER_DELAY } else { PROBE_MIN };
        let at = now + 2 * srtt + slack;
        if self.rto_at.is_none_or(|r| at < r) {
            self.tlp_at = Some(at);
        }
    }

    /// When [`on_time`](Self::on_time) wants to be called.
    pub fn next_timer(&self) -> Option<Ktime> {
        [self.rto_at, self.tlp_at, self.reo_at].into_iter().flatten().min()
    }

    /// Does what is due. `unsent`: bytes that wait and were never sent.
    pub fn on_time(&mut self, now: Ktime, unsent: usize) {
        let due = |t: Option<Ktime>| t.is_some_and(|t| t <= now);
        if due(self.reo_at) {
            self.find_losses(now);
            self.changed = true;
        }
        if due(self.tlp_at) {
            self.tlp_at = None;
            if unsent > 0 && self.window() <= self.flight() && self.rwnd > self.flight() {
                self.tlp.extra = true;
                self.changed = true;
            } else if unsent == 0 || self.rwnd <= self.flight() {
                self.tlp.wants_old = true;
            }
            self.rto_at = Some(now + self.rto());
        }
        if due(self.rto_at) {
            self.time_out(now);
        }
    }

    fn time_out(&mut self, now: Ktime) {
        self.rto_at = None;
        if self.flight() == 0 {
            return;
        }
        self.counters.rtos = self.counters.rtos.saturating_add(1);
        self.board.lose_all();
        let first = self.state != CaState::Loss || !lt(self.una, self.recover);
        self.cc.on_rto(first);
        self.state = CaState::Loss;
        self.recover = self.nxt;
        self.dup = 0;
        self.undo = None;
        self.forced = true;
        self.tlp = super::Tlp::default();
        (self.tlp_at, self.reo_at) = (None, None);
        self.backoff = (self.backoff + 1).min(16);
        self.changed = true;
        self.rto_at = Some(now + self.rto());
    }

    /// Data is about to be sent: after a pause the window is not what it was.
    pub fn wake(&mut self, now: Ktime) {
        if self.flight() != 0 || self.cc.cwnd <= 10 * self.mss {
            return;
        }
        let idle = now.since(self.last_send).as_micros();
        let rtos = u32::try_from(idle / u128::from(self.rtt.rto_us().max(1))).unwrap_or(u32::MAX);
        if rtos > 0 {
            self.cc.idle(rtos);
            self.last_send = now;
            self.changed = true;
        }
    }
}
