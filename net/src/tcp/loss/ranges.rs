//! What has come out of order, for the SACK option of our acknowledgements (RFC 2018, RFC 2883).

use super::seq::{le, lt, max, min};

/// Ranges that are remembered. The engine keeps 32, so whatever is reported here it holds.
const MAX_RANGES: usize = 31;

/// Ranges beyond the next expected byte, the one that changed last first.
#[derive(Default, Debug)]
pub struct Ranges {
    v: Vec<(u32, u32)>,
    dup: Option<(u32, u32)>,
}

impl Ranges {
    /// Bytes `[start, end)` came while `nxt` was expected and nothing behind `edge` is taken.
    pub fn add(&mut self, start: u32, end: u32, nxt: u32, edge: u32) {
        if !lt(start, end) {
            return;
        }
        if le(end, nxt) {
            self.dup = Some((start, end));
            return;
        }
        if le(start, nxt) || lt(edge, end) {
            return;
        }
        if let Some(&(l, r)) = self.v.iter().find(|(l, r)| le(*l, start) && le(end, *r)) {
            self.dup = Some((start, end));
            self.v.retain(|x| *x != (l, r));
            self.v.insert(0, (l, r));
            return;
        }
        let (mut l, mut r) = (start, end);
        let before = self.v.len();
        self.v.retain(|&(a, b)| {
            let joins = le(a, r) && le(l, b);
            if joins {
                (l, r) = (min(l, a), max(r, b));
            }
            !joins
        });
        // One pass is enough: the ranges are apart, so those that join the new one touch it itself.
        if self.v.len() < MAX_RANGES || self.v.len() < before {
            self.v.insert(0, (l, r));
        }
    }

    /// Everything before `nxt` was taken.
    pub fn advance(&mut self, nxt: u32) {
        if !self.v.is_empty() {
            self.v.retain(|r| lt(nxt, r.1));
        }
    }

    /// True if an acknowledgement needs no option.
    pub fn is_empty(&self) -> bool {
        self.v.is_empty() && self.dup.is_none()
    }

    /// Up to `room` blocks for an acknowledgement of `ack`; a duplicate is reported once.
    pub fn blocks(&mut self, ack: u32, room: usize, mut f: impl FnMut(u32, u32)) {
        let dup = self.dup.take();
        let live = self.v.iter().copied().filter(|r| lt(ack, r.0));
        for (l, r) in dup.into_iter().chain(live).take(room) {
            f(l, r);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(r: &mut Ranges, ack: u32) -> Vec<(u32, u32)> {
        let mut v = Vec::new();
        r.blocks(ack, 4, |a, b| v.push((a, b)));
        v
    }

    #[test]
    fn recent_first_merged_and_duplicates_once() {
        let mut r = Ranges::default();
        let edge = 100_000;
        r.add(2000, 3000, 1000, edge);
        r.add(5000, 6000, 1000, edge);
        assert_eq!(blocks(&mut r, 1000), [(5000, 6000), (2000, 3000)]);
        r.add(3000, 4000, 1000, edge);
        assert_eq!(blocks(&mut r, 1000), [(2000, 4000), (5000, 6000)]);
        r.add(4000, 5000, 1000, edge);
        assert_eq!(blocks(&mut r, 1000), [(2000, 6000)]);
        r.add(2500, 2600, 1000, edge);
        assert_eq!(blocks(&mut r, 1000), [(2500, 2600), (2000, 6000)]);
        r.add(100, 900, 1000, edge);
        assert_eq!(blocks(&mut r, 1000), [(100, 900), (2000, 6000)]);
        assert_eq!(blocks(&mut r, 1000), [(2000, 6000)]);
        r.advance(6000);
        assert!(r.is_empty());
        r.add(99_000, 101_000, 1000, edge);
        assert!(r.is_empty(), "beyond the window");
        for i in 0..100 {
            r.add(2000 + i * 10, 2005 + i * 10, 1000, edge);
        }
        assert_eq!(r.v.len(), MAX_RANGES);
    }
}
