//! The kernel's page table of an address space: which frame stands at which guest page. The host's mappings in the
//! stub are a cache of it and may be dropped at any time.
//!
//! The entries lie in leaves, one for 512 KiB of addresses. fork(2) lets both address spaces have the same leaf, which
//! holds one reference on each of its frames for all of them, until one of them changes an entry and gets a leaf of its
//! own. What the stub has been told of is a fact of one address space and stands beside the leaf.

use super::frames::frames;
use klib::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, RUN_PAGES};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One entry: a frame and what may be done with it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Pte(u64);

impl Pte {
    const PRESENT: u64 = 1;
    const READ: u64 = 2;
    const WRITE: u64 = 4;
    const MAPPED: u64 = 8;

    /// An entry for a frame.
    pub fn new(pfn: Pfn, read: bool, write: bool) -> Self {
        let mut p = Self(u64::from(pfn.0) << 16 | Self::PRESENT);
        p.set(Self::READ, read);
        p.set(Self::WRITE, write);
        p
    }

    fn set(&mut self, bit: u64, on: bool) {
        self.0 = if on { self.0 | bit } else { self.0 & !bit };
    }

    /// There is a frame.
    pub const fn present(self) -> bool {
        self.0 & Self::PRESENT != 0
    }

    /// The guest may read it.
    pub const fn readable(self) -> bool {
        self.0 & Self::READ != 0
    }

    /// The guest may write it right now: the area allows it and no copy is due.
    pub const fn writable(self) -> bool {
        self.0 & Self::WRITE != 0
    }

    /// The stub has a host mapping of it.
    pub const fn mapped(self) -> bool {
        self.0 & Self::MAPPED != 0
    }

    /// The frame.
    pub const fn pfn(self) -> Pfn {
        Pfn((self.0 >> 16) as u32)
    }

    /// Sets [`readable`](Self::readable).
    pub fn set_readable(&mut self, on: bool) {
        self.set(Self::READ, on);
    }

    /// Sets [`writable`](Self::writable).
    pub fn set_writable(&mut self, on: bool) {
        self.set(Self::WRITE, on);
    }

    /// Sets [`mapped`](Self::mapped).
    pub fn set_mapped(&mut self, on: bool) {
        self.set(Self::MAPPED, on);
    }
}

/// Pages of a leaf: as many as a mask has bits.
const LEAF_PAGES: usize = 128;
const LEAF_SIZE: u64 = (LEAF_PAGES * PAGE_SIZE) as u64;

/// The entries of one naturally aligned 512 KiB of guest addresses. It holds one reference on each present frame; a
/// clone takes references of its own, dropping it gives them back.
pub struct Leaf {
    present: u128,
    readable: u128,
    writable: u128,
    pfns: [Pfn; LEAF_PAGES],
}

impl Leaf {
    const fn empty() -> Self {
        Self { present: 0, readable: 0, writable: 0, pfns: [Pfn(0); LEAF_PAGES] }
    }

    /// Entry `i` (see [`index`]), never [`Pte::mapped`].
    pub fn pte(&self, i: usize) -> Pte {
        let bit = 1 << i;
        if self.present & bit == 0 {
            return Pte::default();
        }
        Pte::new(self.pfns[i], self.readable & bit != 0, self.writable & bit != 0)
    }

    fn put(&mut self, i: usize, pte: Pte) {
        let bit = 1u128 << i;
        for (mask, on) in [
            (&mut self.present, pte.present()),
            (&mut self.readable, pte.readable()),
            (&mut self.writable, pte.writable()),
        ] {
            *mask = if on { *mask | bit } else { *mask & !bit };
        }
        self.pfns[i] = pte.pfn();
    }

    /// A leaf of the entries in `keep`, with references of its own.
    fn part(&self, keep: u128) -> Self {
        let present = self.present & keep;
        each_bit(present, |i| frames().get(self.pfns[i]));
        Self { present, readable: self.readable & keep, writable: self.writable & keep, pfns: self.pfns }
    }
}

impl Clone for Leaf {
    fn clone(&self) -> Self {
        self.part(u128::MAX)
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        if self.present != 0 {
            let present = self.present;
            frames().put_all(
                self.pfns.iter().enumerate().filter(|(i, _)| present >> i & 1 != 0).map(|(_, p)| *p),
            );
        }
    }
}

/// A leaf as one address space has it.
struct Slot {
    leaf: Arc<Leaf>,
    /// What the stub maps, a part of what is present.
    mapped: u128,
}

/// All entries of an address space.
#[derive(Default)]
pub struct PageTable {
    leaves: BTreeMap<u64, Slot>,
    present: u64,
}

fn each_bit(mut mask: u128, mut f: impl FnMut(usize)) {
    while mask != 0 {
        f(mask.trailing_zeros() as usize);
        mask &= mask - 1;
    }
}

/// The bits below `n`.
const fn below(n: u64) -> u128 {
    if n >= LEAF_PAGES as u64 { u128::MAX } else { (1 << n) - 1 }
}

/// The pages of leaf `n` that begin in `start..end`.
fn mask(n: u64, start: u64, end: u64) -> u128 {
    let base = n * LEAF_SIZE;
    let page = |a: u64| a.saturating_sub(base).div_ceil(PAGE_SIZE as u64);
    below(page(end)) & !below(page(start))
}

/// Numbers of the leaves that `start..end` touches.
fn leaves_of(start: u64, end: u64) -> std::ops::Range<u64> {
    let first = start / LEAF_SIZE;
    first..end.div_ceil(LEAF_SIZE).max(first)
}

const fn address(n: u64, i: usize) -> u64 {
    n * LEAF_SIZE + ((i as u64) << PAGE_SHIFT)
}

/// Address of the first page of a mask and that after its last.
fn bounds(n: u64, mask: u128) -> Option<(u64, u64)> {
    let last = LEAF_PAGES.checked_sub(mask.leading_zeros() as usize).filter(|&l| l > 0)?;
    Some((address(n, mask.trailing_zeros() as usize), address(n, last)))
}

impl PageTable {
    /// The entry of the page that holds `addr`.
    pub fn get(&self, addr: u64) -> Pte {
        let Some(s) = self.leaves.get(&(addr / LEAF_SIZE)) else { return Pte::default() };
        let i = index(addr);
        let mut p = s.leaf.pte(i);
        p.set_mapped(s.mapped >> i & 1 != 0);
        p
    }

    /// The leaf that holds `addr`; [`index`] is the position in it.
    pub fn leaf(&self, addr: u64) -> Option<&Leaf> {
        self.leaves.get(&(addr / LEAF_SIZE)).map(|s| &*s.leaf)
    }

    /// True if nothing is present in the run (64 KiB) that holds `addr`.
    pub fn run_is_empty(&self, addr: u64) -> bool {
        let first = index(addr) / RUN_PAGES * RUN_PAGES;
        self.leaf(addr).is_none_or(|l| l.present >> first & below(RUN_PAGES as u64) == 0)
    }

    /// Sets an entry and gives the old one, each with the reference on its frame.
    pub fn set(&mut self, addr: u64, pte: Pte) -> Pte {
        let i = index(addr);
        let s = self
            .leaves
            .entry(addr / LEAF_SIZE)
            .or_insert_with(|| Slot { leaf: Arc::new(Leaf::empty()), mapped: 0 });
        let mut old = s.leaf.pte(i);
        old.set_mapped(s.mapped >> i & 1 != 0);
        put(s, i, pte);
        self.present = self.present + u64::from(pte.present()) - u64::from(old.present());
        old
    }

    /// Makes the entries of `start..end` this address space's own. Afterwards a frame that has one owner belongs to
    /// nobody else.
    pub fn unshare(&mut self, start: u64, end: u64) {
        for (&n, s) in self.leaves.range_mut(leaves_of(start, end)) {
            if s.leaf.present & mask(n, start, end) != 0 {
                Arc::make_mut(&mut s.leaf);
            }
        }
    }

    /// True if the frame at `addr` belongs to this entry alone.
    pub fn owns(&mut self, addr: u64) -> bool {
        let Some(s) = self.leaves.get_mut(&(addr / LEAF_SIZE)) else { return false };
        // Not the bare count: what another did with the leaf before it let go of it must have happened.
        let pte = s.leaf.pte(index(addr));
        pte.present() && Arc::get_mut(&mut s.leaf).is_some() && frames().owners(pte.pfn()) == 1
    }

    /// Calls `f` with each present entry of `start..end` and its guest address; what it leaves not present is removed
    /// (the reference on the frame is then the caller's).
    pub fn for_each_mut(&mut self, start: u64, end: u64, mut f: impl FnMut(u64, &mut Pte)) {
        let mut empty = Vec::new();
        for (&n, s) in self.leaves.range_mut(leaves_of(start, end)) {
            each_bit(s.leaf.present & mask(n, start, end), |i| {
                let mut old = s.leaf.pte(i);
                old.set_mapped(s.mapped >> i & 1 != 0);
                let mut new = old;
                f(address(n, i), &mut new);
                if new != old {
                    put(s, i, new);
                    self.present -= u64::from(!new.present());
                }
            });
            if s.leaf.present == 0 {
                empty.push(n);
            }
        }
        for n in empty {
            self.leaves.remove(&n);
        }
    }

    /// Calls `f` with each present entry of `start..end`.
    pub fn for_each(&self, start: u64, end: u64, mut f: impl FnMut(u64, Pte)) {
        for (&n, s) in self.leaves.range(leaves_of(start, end)) {
            each_bit(s.leaf.present & mask(n, start, end), |i| {
                let mut p = s.leaf.pte(i);
                p.set_mapped(s.mapped >> i & 1 != 0);
                f(address(n, i), p);
            });
        }
    }

    /// Takes everything in `start..end` out: whole leaves where they hold nothing else, single entries otherwise. Gives
    /// the span of what the stub maps of it, if there is any.
    pub fn take(
        &mut self,
        start: u64,
        end: u64,
        mut leaf: impl FnMut(Arc<Leaf>),
        mut page: impl FnMut(Pfn),
    ) -> Option<(u64, u64)> {
        let mut span: Option<(u64, u64)> = None;
        let mut whole = Vec::new();
        for (&n, s) in self.leaves.range_mut(leaves_of(start, end)) {
            let gone = s.leaf.present & mask(n, start, end);
            if gone == 0 {
                continue;
            }
            let mapped = s.mapped & gone;
            if let Some((low, high)) = bounds(n, mapped) {
                span = Some((span.map_or(low, |s| s.0), high));
            }
            self.present -= u64::from(gone.count_ones());
            if gone == s.leaf.present {
                whole.push(n);
                continue;
            }
            let l = Arc::make_mut(&mut s.leaf);
            each_bit(gone, |i| page(l.pfns[i]));
            l.present &= !gone;
            l.readable &= !gone;
            l.writable &= !gone;
            s.mapped &= !gone;
        }
        for n in whole {
            if let Some(s) = self.leaves.remove(&n) {
                leaf(s.leaf);
            }
        }
        span
    }

    /// Takes the right to write from all pages of `start..end`; `told` gets address and length of those that the stub
    /// maps.
    pub fn write_protect(&mut self, start: u64, end: u64, mut told: impl FnMut(u64, u64)) {
        for (&n, s) in self.leaves.range_mut(leaves_of(start, end)) {
            let hit = s.leaf.writable & mask(n, start, end);
            if hit == 0 {
                continue;
            }
            Arc::make_mut(&mut s.leaf).writable &= !hit;
            each_bit(hit & s.mapped, |i| told(address(n, i), PAGE_SIZE as u64));
        }
    }

    /// From the first to the last page of `start..end` that the stub maps.
    pub fn mapped_span(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let mut span: Option<(u64, u64)> = None;
        for (&n, s) in self.leaves.range(leaves_of(start, end)) {
            if let Some((low, high)) = bounds(n, s.mapped & mask(n, start, end)) {
                span = Some((span.map_or(low, |s| s.0), high));
            }
        }
        span
    }

    /// Number of pages of `start..end` that may be written.
    pub fn writable_pages(&self, start: u64, end: u64) -> usize {
        let leaves = self.leaves.range(leaves_of(start, end));
        leaves.map(|(&n, s)| (s.leaf.writable & mask(n, start, end)).count_ones() as usize).sum()
    }

    /// A second page table over the same frames without what lies in the ranges `but`; nothing of it is mapped. No
    /// private page may be writable in what is shared.
    pub fn fork(&self, but: &[(u64, u64)]) -> Self {
        let mut skip: BTreeMap<u64, u128> = BTreeMap::new();
        for &(start, end) in but {
            for (&n, _) in self.leaves.range(leaves_of(start, end)) {
                *skip.entry(n).or_default() |= mask(n, start, end);
            }
        }
        let mut present = 0;
        let leaves = self.leaves.iter().filter_map(|(&n, s)| {
            let skip = skip.get(&n).copied().unwrap_or(0) & s.leaf.present;
            present += u64::from((s.leaf.present & !skip).count_ones());
            if skip == 0 {
                return Some((n, Slot { leaf: Arc::clone(&s.leaf), mapped: 0 }));
            }
            let part = s.leaf.part(!skip);
            (part.present != 0).then(|| (n, Slot { leaf: Arc::new(part), mapped: 0 }))
        });
        let leaves = leaves.collect();
        Self { leaves, present }
    }

    /// Present pages (the resident set).
    pub fn resident(&self) -> u64 {
        self.present
    }

    /// Present pages of `start..end`.
    pub fn resident_in(&self, start: u64, end: u64) -> u64 {
        let leaves = self.leaves.range(leaves_of(start, end));
        leaves.map(|(&n, s)| u64::from((s.leaf.present & mask(n, start, end)).count_ones())).sum()
    }
}

/// Changes entry `i`; the leaf is copied first if others have it too and the entry is not the same but for
/// [`Pte::mapped`].
fn put(s: &mut Slot, i: usize, pte: Pte) {
    let bit = 1u128 << i;
    s.mapped = if pte.mapped() { s.mapped | bit } else { s.mapped & !bit };
    let mut bare = pte;
    bare.set_mapped(false);
    if s.leaf.pte(i) != bare {
        Arc::make_mut(&mut s.leaf).put(i, bare);
    }
}

/// Position of a page in its leaf.
pub const fn index(addr: u64) -> usize {
    (addr >> PAGE_SHIFT) as usize % LEAF_PAGES
}

#[cfg(test)]
mod tests;
