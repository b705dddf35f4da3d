//! What a fault in anonymous memory brings along, guessed from the faults before it.
//!
//! A walk upwards, page after page, gets runs, twice as many at each fault. A first touch far from all others gets its
//! page only: who strides over much memory would else pay for clearing and mapping fifteen pages that nobody uses. When
//! the strides are equal, the next ones come along. Everything else gets the run around it.

use klib::addr::{PAGE_SIZE, RUN_SIZE};

const PAGE: u64 = PAGE_SIZE as u64;
const RUN: u64 = RUN_SIZE as u64;

/// Most runs that a walk upwards gets at one fault (1 MiB).
const MAX_RUNS: u32 = 16;
/// Most pages that a walk in strides gets at one fault.
const MAX_STRIDES: u32 = 8;
/// Areas smaller than this are not strode over: a run at a time fills them soon.
const SPARSE: u64 = 16 * RUN;

/// Where the faults of an area seem to go.
#[derive(Clone, Copy, Default)]
pub struct Walk {
    /// Where the next fault is if the guess is right.
    next: u64,
    /// The last page of a walk in strides, and the stride.
    last: u64,
    stride: u64,
    /// Runs or pages of the last fault.
    window: u32,
}

/// What to bring in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bring {
    /// All of `start..end` that is not there yet; `now` if it is sure to be touched soon.
    Range {
        /// First page.
        start: u64,
        /// End of the last page.
        end: u64,
        /// Worth the host's work at once.
        now: bool,
    },
    /// `count` single pages, `stride` bytes apart.
    Strides {
        /// The page of the fault.
        first: u64,
        /// Bytes from one to the next.
        stride: u64,
        /// How many.
        count: u32,
    },
}

impl Walk {
    /// A fault at `page` of the area `area_start..area_end`; `empty` tells whether the run around an address has no pages yet.
    pub fn fault(&mut self, page: u64, area_start: u64, area_end: u64, empty: impl Fn(u64) -> bool) -> Bring {
        let base = page / RUN * RUN;
        let (start, end) = (base.max(area_start), (base + RUN).min(area_end));
        let guessed = self.next == page;
        if guessed && start == page && self.stride == 0 {
            self.window = (self.window * 2).clamp(1, MAX_RUNS);
            // Only as far as nothing is there yet.
            let limit = (base + u64::from(self.window) * RUN).min(area_end);
            let mut at = end;
            while at < limit && empty(at) {
                at = (at + RUN).min(limit);
            }
            self.next = at;
            return Bring::Range { start, end: at, now: true };
        }
        // Stacks are touched at their end, and go on from there.
        if area_end - area_start >= SPARSE && area_end - page > RUN && empty(page) {
            if guessed && self.stride != 0 {
                self.window = (self.window * 2).clamp(1, MAX_STRIDES);
            } else {
                self.stride = page.checked_sub(self.last).filter(|_| self.last != 0).unwrap_or(0);
                self.window = 1;
            }
            let at = |k: u32| page.saturating_add(self.stride.saturating_mul(u64::from(k)));
            let fits = |k: &u32| at(*k) < area_end - PAGE && empty(at(*k));
            let count = 1 + (1..self.window).take_while(fits).count() as u32;
            self.last = at(count - 1);
            self.next = if self.stride == 0 { page + PAGE } else { self.last.saturating_add(self.stride) };
            return Bring::Strides { first: page, stride: self.stride, count };
        }
        *self = Self { next: end, last: page, stride: 0, window: 1 };
        Bring::Range { start, end, now: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const BIG: u64 = 256 << 20;
    const AT: u64 = 0x7000_0000_0000;

    /// Touches pages in order; gives the number of faults and of pages brought in.
    fn touch(pages: impl Iterator<Item = u64>, len: u64) -> (usize, usize) {
        let (mut walk, mut there, mut faults) = (Walk::default(), BTreeSet::new(), 0);
        for page in pages {
            if there.contains(&page) {
                continue;
            }
            faults += 1;
            let empty = |a: u64| there.range(a / RUN * RUN..a / RUN * RUN + RUN).next().is_none();
            match walk.fault(page, AT, AT + len, empty) {
                Bring::Range { start, end, .. } => {
                    assert!(start >= AT && end <= AT + len && start <= page && page < end);
                    there.extend((start..end).step_by(PAGE_SIZE));
                }
                Bring::Strides { first, stride, count } => {
                    assert_eq!(first, page);
                    there.extend((0..u64::from(count)).map(|k| first + k * stride));
                    assert!(there.last().is_some_and(|&l| l < AT + len));
                }
            }
            assert!(there.contains(&page));
        }
        (faults, there.len())
    }

    #[test]
    fn a_walk_page_after_page_gets_more_and_more() {
        let (faults, pages) = touch((AT..AT + (16 << 20)).step_by(PAGE_SIZE), 16 << 20);
        assert_eq!(pages, 4096);
        assert!(faults < 25, "{faults} faults");
    }

    #[test]
    fn strides_bring_the_next_ones_and_little_else() {
        for stride in [64 << 10, 1 << 20, (1 << 20) + PAGE, 3 << 20] {
            let n = BIG.div_ceil(stride) as usize;
            let (faults, pages) = touch((AT..AT + BIG).step_by(stride as usize), BIG);
            assert!(faults * 4 < n + 40, "stride {stride}: {faults} faults for {n} pages");
            assert!(pages <= n + 16, "stride {stride}: {pages} pages for {n}");
        }
    }

    #[test]
    fn small_areas_and_second_touches_get_the_run() {
        assert_eq!(touch((AT..AT + (256 << 10)).step_by(PAGE_SIZE), 256 << 10).1, 64);
        let mut walk = Walk::default();
        let one = walk.fault(AT + RUN, AT, AT + BIG, |_| true);
        assert!(matches!(one, Bring::Strides { count: 1, .. }));
        let rest = walk.fault(AT + RUN + 5 * PAGE, AT, AT + BIG, |_| false);
        assert_eq!(rest, Bring::Range { start: AT + RUN, end: AT + 2 * RUN, now: false });
    }

    #[test]
    fn random_touches_never_bring_far_more_than_they_ask() {
        let mut x = 1u64;
        let random = (0..2000).map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            AT + (x >> 33) % (BIG / PAGE) * PAGE
        });
        let (faults, pages) = touch(random, BIG);
        assert!(faults <= 2000 && pages < 2000 * 8, "{faults} faults, {pages} pages");
    }

    #[test]
    fn ends_of_the_address_space_do_not_overflow() {
        let mut walk = Walk::default();
        let end = u64::MAX / PAGE * PAGE;
        walk.fault(end - BIG, end - BIG, end, |_| true);
        for k in 0..64 {
            walk.fault(end - BIG + (4 << 20) * k, end - BIG, end, |_| true);
        }
    }
}
