//! The scoreboard: what was sent and not acknowledged, when, and what is known about it (RFC 6675, RFC 8985).

use super::seq::{le, lt, max, min};
use klib::ktime::Ktime;
use std::collections::VecDeque;
use std::time::Duration;

/// The peer holds it (SACK).
const SACKED: u8 = 1;
/// Held to be lost.
const LOST: u8 = 2;
/// Sent again, and that copy is under way.
const RETRANS: u8 = 4;
/// Was ever sent again: its round-trip time means nothing (Karn).
const EVER: u8 = 8;

/// Entries beyond this are merged with their neighbours.
const MANY: usize = 2048;

#[derive(Clone, Copy, Debug)]
struct Sent {
    start: u32,
    end: u32,
    at: Ktime,
    flags: u8,
}

impl Sent {
    fn len(&self) -> u32 {
        self.end.wrapping_sub(self.start)
    }

    fn has(&self, f: u8) -> bool {
        self.flags & f != 0
    }
}

/// What one acknowledgement brought.
#[derive(Clone, Copy, Default, Debug)]
pub struct Delivered {
    /// Bytes that the peer has and was not known to have.
    pub bytes: u32,
    /// When the oldest and the youngest of them were sent, unless sent twice.
    pub oldest: Option<Ktime>,
    /// See `oldest`.
    pub newest: Option<Ktime>,
    /// Some of it had been sent again.
    pub resent: bool,
    /// Bytes that a duplicate acknowledgement without SACK stands for.
    pub dup: u32,
    /// Something came after what was sent behind it.
    pub reordered: bool,
}

/// The transmission that RACK measures against: the one sent last of all that arrived.
#[derive(Clone, Copy, Default, Debug)]
pub struct Rack {
    /// When it was sent.
    pub at: Ktime,
    /// Its last sequence number.
    pub end: u32,
    /// Its round-trip time.
    pub rtt: Duration,
}

/// Everything in flight, in sequence order.
#[derive(Default, Debug)]
pub struct Board {
    segs: VecDeque<Sent>,
    sacked: u32,
    lost: u32,
    retrans: u32,
    /// End of the highest SACKed range.
    fack: u32,
    /// `fack` before the acknowledgement that is being read.
    prior_fack: Option<u32>,
    /// The RACK state.
    pub rack: Rack,
}

impl Board {
    /// Bytes the peer reported by SACK.
    pub fn sacked(&self) -> u32 {
        self.sacked
    }

    /// Bytes held to be lost.
    pub fn lost(&self) -> u32 {
        self.lost
    }

    /// Bytes sent again whose copies are under way.
    pub fn retrans(&self) -> u32 {
        self.retrans
    }

    /// Nothing is marked: all in flight was sent once and nothing is missing.
    pub fn is_clean(&self) -> bool {
        self.sacked == 0 && self.lost == 0 && self.retrans == 0
    }

    /// True if something lost waits to be sent again.
    pub fn wants_retransmit(&self) -> bool {
        self.lost > 0 && self.segs.iter().any(|s| s.flags & (LOST | RETRANS) == LOST)
    }

    /// Bytes that are held to be on their way, of `flight` unacknowledged ones (RFC 6675: pipe).
    pub fn pipe(&self, flight: u32) -> u32 {
        (flight + self.retrans).saturating_sub(self.sacked + self.lost)
    }

    /// New bytes left.
    pub fn push(&mut self, start: u32, end: u32, now: Ktime) {
        let many = self.segs.len() >= MANY;
        // One burst is one entry; losses cut it where they are.
        if let Some(l) = self.segs.back_mut()
            && (many || l.at == now)
            && l.flags == 0
            && l.len() < 65_536
        {
            l.end = end;
            l.at = now;
            return;
        }
        self.segs.push_back(Sent { start, end, at: now, flags: 0 });
    }

    fn delivered(&mut self, s: &Sent, now: Ktime, min_rtt: Duration, d: &mut Delivered) {
        d.bytes += s.len();
        if s.has(EVER) {
            d.resent = true;
        } else {
            d.oldest = Some(d.oldest.map_or(s.at, |o| o.min(s.at)));
            d.newest = Some(d.newest.map_or(s.at, |o| o.max(s.at)));
            d.reordered |= self.prior_fack.is_some_and(|f| lt(s.end, f));
        }
        // A copy that seems to have come back too soon was the original (RFC 8985 section 6.2).
        if s.has(EVER) && now.since(s.at) < min_rtt {
            return;
        }
        if (s.at, 0) > (self.rack.at, 0) || (s.at == self.rack.at && lt(self.rack.end, s.end)) {
            self.rack = Rack { at: s.at, end: s.end, rtt: now.since(s.at) };
        }
    }

    fn unmark(&mut self, s: &Sent) {
        if s.has(SACKED) {
            self.sacked -= s.len();
        }
        if s.has(LOST) {
            self.lost -= s.len();
        }
        if s.has(RETRANS) {
            self.retrans -= s.len();
        }
    }

    /// An acknowledgement begins to be read.
    pub fn begin(&mut self) {
        self.prior_fack = (self.sacked > 0).then_some(self.fack);
    }

    /// Everything before `una` arrived.
    pub fn ack(&mut self, una: u32, now: Ktime, min_rtt: Duration, d: &mut Delivered) {
        while let Some(&s) = self.segs.front() {
            if !lt(s.start, una) {
                break;
            }
            let mut part = s;
            part.end = min(s.end, una);
            self.unmark(&part);
            if !part.has(SACKED) {
                self.delivered(&part, now, min_rtt, d);
            }
            if lt(una, s.end) {
                if let Some(f) = self.segs.front_mut() {
                    f.start = una;
                }
                break;
            }
            self.segs.pop_front();
        }
    }

    /// Cuts the entry at `i` in two at `seq`, which lies inside it.
    fn split(&mut self, i: usize, seq: u32) {
        if let Some(s) = self.segs.get_mut(i)
            && lt(s.start, seq)
            && lt(seq, s.end)
        {
            let mut tail = *s;
            s.end = seq;
            tail.start = seq;
            self.segs.insert(i + 1, tail);
        }
    }

    /// Index of the entry that holds `seq` or follows it.
    fn find(&self, seq: u32) -> usize {
        self.segs.partition_point(|s| le(s.end, seq))
    }

    /// The peer holds `[l, r)`, which lies in what is in flight.
    pub fn sack(&mut self, l: u32, r: u32, now: Ktime, min_rtt: Duration, d: &mut Delivered) {
        let had = self.sacked > 0;
        let mut i = self.find(l);
        // A peer that reports single bytes all over the window must not make the board grow without bound.
        if self.segs.len() < 8 * MANY {
            self.split(i, l);
        }
        i = self.segs.partition_point(|s| lt(s.start, l));
        while let Some(&s) = self.segs.get(i) {
            if !lt(s.start, r) {
                break;
            }
            if lt(r, s.end) {
                if self.segs.len() >= 8 * MANY {
                    break;
                }
                self.split(i, r);
            }
            let Some(&s) = self.segs.get(i) else { break };
            if !s.has(SACKED) {
                self.unmark(&s);
                self.delivered(&s, now, min_rtt, d);
                self.sacked += s.len();
                if let Some(e) = self.segs.get_mut(i) {
                    e.flags = SACKED | (s.flags & EVER);
                }
            }
            i += 1;
        }
        self.fack = if had { max(self.fack, r) } else { r };
    }

    /// Marks as lost what was sent before the newest delivery and is overdue by `reo` (RFC 8985 section 6.2); returns
    /// the bytes newly lost and when to look again.
    pub fn detect(&mut self, now: Ktime, reo: Duration) -> (u32, Option<Ktime>) {
        let (mut fresh, mut next) = (0, None::<Ktime>);
        let Rack { at, end, rtt } = self.rack;
        for s in &mut self.segs {
            if s.flags & SACKED != 0 || s.flags & (LOST | RETRANS) == LOST {
                continue;
            }
            if s.at > at || (s.at == at && !lt(s.end, end)) {
                continue;
            }
            let due = s.at + rtt + reo;
            if due > now {
                next = Some(next.map_or(due, |n| n.min(due)));
                continue;
            }
            let len = s.end.wrapping_sub(s.start);
            if s.flags & RETRANS != 0 {
                s.flags &= !RETRANS;
                self.retrans -= len;
            }
            if s.flags & LOST == 0 {
                s.flags |= LOST;
                self.lost += len;
            }
            fresh += len;
        }
        (fresh, next)
    }

    /// A time-out: nothing is under way any more. A peer that no longer holds what it reported (its first hole is at
    /// the front, so a marked front means that) is not believed any more.
    pub fn lose_all(&mut self) {
        let renege = self.segs.front().is_some_and(|s| s.has(SACKED));
        for s in &mut self.segs {
            if renege {
                s.flags &= !SACKED;
            }
            s.flags &= !RETRANS;
            if s.flags & SACKED == 0 {
                s.flags |= LOST;
            }
        }
        let sum = |f: u8| self.segs.iter().filter(|s| s.has(f)).map(Sent::len).sum();
        (self.sacked, self.lost, self.retrans) = (sum(SACKED), sum(LOST), 0);
    }

    /// What is larger than `mss` can never arrive (the path's MTU fell).
    pub fn lose_larger(&mut self, mss: u32) {
        for s in &mut self.segs {
            if s.flags & (SACKED | LOST) == 0 && s.end.wrapping_sub(s.start) > mss {
                s.flags |= LOST;
                self.lost += s.end.wrapping_sub(s.start);
            }
            if s.flags & RETRANS != 0 && s.flags & LOST != 0 {
                s.flags &= !RETRANS;
                self.retrans -= s.end.wrapping_sub(s.start);
            }
        }
    }

    /// The first `len` bytes are lost (for peers without SACK).
    pub fn lose_front(&mut self, len: u32) {
        let Some(s) = self.segs.front() else { return };
        let cut = s.start.wrapping_add(len);
        self.split(0, cut);
        if let Some(s) = self.segs.front_mut() {
            let n = s.end.wrapping_sub(s.start);
            if s.flags & RETRANS != 0 {
                s.flags &= !RETRANS;
                self.retrans -= n;
            }
            if s.flags & LOST == 0 {
                s.flags |= LOST;
                self.lost += n;
            }
        }
    }

    /// The first lost range that was not sent again yet.
    pub fn next_lost(&self) -> Option<(u32, u32)> {
        if self.lost == 0 {
            return None;
        }
        self.segs.iter().find(|s| s.flags & (LOST | RETRANS) == LOST).map(|s| (s.start, s.end))
    }

    /// The last `len` bytes that the peer has not reported, for a tail loss probe.
    pub fn tail(&self, len: u32) -> Option<(u32, u32)> {
        let s = self.segs.iter().rev().find(|s| !s.has(SACKED))?;
        let start = if s.len() > len { s.end.wrapping_sub(len) } else { s.start };
        Some((start, s.end))
    }

    /// `[start, end)` leaves again.
    pub fn sent_again(&mut self, start: u32, end: u32, now: Ktime) {
        let i = self.find(start);
        self.split(i, start);
        let mut i = self.segs.partition_point(|s| lt(s.start, start));
        while self.segs.get(i).is_some_and(|s| lt(s.start, end)) {
            self.split(i, end);
            if let Some(s) = self.segs.get_mut(i) {
                if s.flags & (RETRANS | SACKED) == 0 {
                    self.retrans += s.end.wrapping_sub(s.start);
                    s.flags |= RETRANS;
                }
                s.flags |= EVER;
                s.at = now;
            }
            i += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Ktime {
        Ktime(ms * MS)
    }

    fn board(n: u32) -> Board {
        let mut b = Board::default();
        for i in 0..n {
            b.push(i * 1000, (i + 1) * 1000, at(u64::from(i)));
        }
        b
    }

    fn check(b: &Board) {
        let sum = |f: u8| -> u32 { b.segs.iter().filter(|s| s.has(f)).map(Sent::len).sum() };
        assert_eq!((b.sacked, b.lost, b.retrans), (sum(SACKED), sum(LOST), sum(RETRANS)));
        let mut prev = None;
        for s in &b.segs {
            assert!(lt(s.start, s.end));
            assert!(prev.is_none_or(|p| p == s.start));
            prev = Some(s.end);
        }
    }

    #[test]
    fn a_hole_is_found_sent_again_and_filled() {
        let mut b = board(10);
        let mut d = Delivered::default();
        b.ack(2000, at(20), Duration::ZERO, &mut d);
        assert_eq!((d.bytes, d.oldest, d.newest), (2000, Some(at(0)), Some(at(1))));
        let mut d = Delivered::default();
        b.sack(3000, 6500, at(25), Duration::ZERO, &mut d);
        assert_eq!((d.bytes, b.sacked(), d.reordered), (3500, 3500, false));
        check(&b);
        let (lost, _) = b.detect(at(25), Duration::ZERO);
        assert_eq!((lost, b.next_lost()), (1000, Some((2000, 3000))));
        assert_eq!(b.pipe(8000), 3500);
        b.sent_again(2000, 3000, at(26));
        assert_eq!((b.next_lost(), b.pipe(8000)), (None, 4500));
        check(&b);
        let mut d = Delivered::default();
        b.ack(6500, at(46), Duration::ZERO, &mut d);
        assert_eq!((d.bytes, d.resent, d.oldest, b.is_clean()), (1000, true, None, true));
        check(&b);
    }

    #[test]
    fn late_arrivals_are_seen_as_reordering_and_wait() {
        let mut b = board(5);
        let mut d = Delivered::default();
        b.sack(1000, 2000, at(20), Duration::ZERO, &mut d);
        let (lost, next) = b.detect(at(20), Duration::from_millis(5));
        assert_eq!((lost, next), (0, Some(at(0) + Duration::from_millis(24))));
        let mut d = Delivered::default();
        b.begin();
        b.ack(2000, at(22), Duration::ZERO, &mut d);
        assert!(d.reordered);
        check(&b);
        b.lose_all();
        assert_eq!((b.lost(), b.tail(500)), (3000, Some((4500, 5000))));
        check(&b);
    }

    #[test]
    fn random_operations_keep_the_sums() {
        let mut x = 7u64;
        let mut rnd = |n: u32| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((x >> 33) % u64::from(n)) as u32
        };
        let mut b = Board::default();
        let (mut una, mut nxt, mut now) = (u32::MAX - 50_000, u32::MAX - 50_000, 0);
        for _ in 0..20_000 {
            now += u64::from(rnd(3));
            let mut d = Delivered::default();
            let flight = nxt.wrapping_sub(una);
            match rnd(8) {
                0..=2 => {
                    let n = 1 + rnd(3000);
                    b.push(nxt, nxt.wrapping_add(n), at(now));
                    nxt = nxt.wrapping_add(n);
                }
                3 if flight > 0 => {
                    una = una.wrapping_add(rnd(flight.min(5000) + 1));
                    b.ack(una, at(now), Duration::ZERO, &mut d);
                }
                4 | 5 if flight > 2 => {
                    let l = una.wrapping_add(rnd(flight - 1));
                    let r = min(l.wrapping_add(1 + rnd(4000)), nxt);
                    b.sack(l, r, at(now), Duration::ZERO, &mut d);
                }
                6 => drop(b.detect(at(now), Duration::from_millis(2))),
                7 => {
                    if let Some((l, r)) = b.next_lost() {
                        b.sent_again(l, min(r, l.wrapping_add(1448)), at(now));
                    } else if rnd(40) == 0 {
                        b.lose_all();
                    }
                }
                _ => {}
            }
            check(&b);
            assert!(b.pipe(nxt.wrapping_sub(una)) <= 2 * nxt.wrapping_sub(una));
        }
    }
}
