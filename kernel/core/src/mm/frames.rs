//! Page frames: who owns which page of the memory file.
//!
//! Frames come in runs of 64 KiB, so that neighbours in an address space are neighbours in the file and the host
//! needs few mappings. A frame is free when its count is zero. A frame that was used before is zeroed when it is
//! handed out again; frames that nobody wants for a while go back to the host.

use crate::{Errno, Result};
use arch::mm::PhysMem;
use klib::addr::{PAGE_SIZE, Pfn, RUN_PAGES, RUN_SIZE};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Free runs whose pages have been used stay with us up to this number (16 MiB), the rest is given to the host.
const KEEP_USED_RUNS: usize = 256;
const FULL: u16 = u16::MAX;

/// All frames of the machine.
pub struct Frames {
    phys: PhysMem,
    refs: Box<[AtomicU32]>,
    inner: Mutex<Inner>,
    free: AtomicU64,
}

struct Inner {
    /// Free pages of each run, bit set = free.
    masks: Vec<u16>,
    /// Pages of each run that hold old data, bit set = must be zeroed.
    used: Vec<u16>,
    /// Wholly free runs whose pages are all zero at the host.
    clean: Vec<u32>,
    /// Wholly free runs with old data.
    stale: Vec<u32>,
    /// Runs with some free pages.
    partial: BTreeSet<u32>,
}

static FRAMES: OnceLock<Frames> = OnceLock::new();

/// Sets guest memory up, once.
pub fn init(phys: PhysMem) {
    FRAMES.set(Frames::new(phys)).ok();
}

/// The frames of the machine.
///
/// # Panics
/// Before [`init`].
pub fn frames() -> &'static Frames {
    FRAMES.get().expect("memory is set up before anything uses it")
}

impl Frames {
    fn new(phys: PhysMem) -> Self {
        let runs = phys.len() / RUN_SIZE;
        let pages = runs * RUN_PAGES;
        Self {
            refs: (0..pages).map(|_| AtomicU32::new(0)).collect(),
            inner: Mutex::new(Inner {
                masks: vec![FULL; runs],
                used: vec![0; runs],
                clean: (0..runs as u32).rev().collect(),
                stale: Vec::new(),
                partial: BTreeSet::new(),
            }),
            free: AtomicU64::new(pages as u64),
            phys,
        }
    }

    /// The memory file.
    pub fn phys(&self) -> &PhysMem {
        &self.phys
    }

    /// Pages of the machine.
    pub fn total_pages(&self) -> u64 {
        self.refs.len() as u64
    }

    /// Free pages.
    pub fn free_pages(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Hands out `n` (1..=16) neighbouring zeroed frames with a count of one each, reclaiming cached pages if needed.
    /// `ENOMEM`: `mem=` is full.
    pub fn alloc(&self, n: usize) -> Result<Pfn> {
        self.reclaiming(n, || self.try_alloc(n, true))
    }

    /// As [`alloc`](Self::alloc), but the frames may hold old data of anybody: the caller writes all of each before
    /// anything can read it.
    pub fn alloc_raw(&self, n: usize) -> Result<Pfn> {
        self.reclaiming(n, || self.try_alloc(n, false))
    }

    fn reclaiming(&self, n: usize, f: impl Fn() -> Option<Pfn>) -> Result<Pfn> {
        if let Some(p) = f() {
            return Ok(p);
        }
        super::reclaim::shrink(n.max(64) as u64);
        f().ok_or(Errno::ENOMEM)
    }

    fn try_alloc(&self, n: usize, zero: bool) -> Option<Pfn> {
        debug_assert!((1..=RUN_PAGES).contains(&n));
        let want = if n == RUN_PAGES { FULL } else { (1u16 << n) - 1 };
        let mut inner = self.inner.lock();
        let mut found = None;
        if n < RUN_PAGES {
            // First fit among the broken runs, looking at a bounded number of them.
            found = inner.partial.iter().take(64).find_map(|&run| {
                let mask = inner.masks[run as usize];
                (0..=RUN_PAGES - n).find(|&s| mask >> s & want == want).map(|s| (run, s))
            });
        }
        let (run, start) = match found {
            Some(f) => f,
            None => {
                let run = inner.stale.pop().or_else(|| inner.clean.pop())?;
                if n < RUN_PAGES {
                    inner.partial.insert(run);
                }
                (run, 0)
            }
        };
        let bits = want << start;
        let r = run as usize;
        inner.masks[r] &= !bits;
        if inner.masks[r] == 0 {
            inner.partial.remove(&run);
        }
        let stale = inner.used[r] & bits;
        inner.used[r] |= bits;
        drop(inner);
        self.free.fetch_sub(n as u64, Ordering::Relaxed);
        let first = Pfn(run * RUN_PAGES as u32 + start as u32);
        for i in 0..n {
            if zero && stale >> (start + i) & 1 != 0 {
                self.phys.zero(first.add(i as u32).offset(), PAGE_SIZE);
            }
            self.count(first.add(i as u32)).store(1, Ordering::Release);
        }
        Some(first)
    }

    fn count(&self, pfn: Pfn) -> &AtomicU32 {
        &self.refs[pfn.0 as usize]
    }

    /// One more owner.
    pub fn get(&self, pfn: Pfn) {
        let old = self.count(pfn).fetch_add(1, Ordering::Relaxed);
        debug_assert!(old > 0, "a frame that is referenced is not free");
    }

    /// Number of owners.
    pub fn owners(&self, pfn: Pfn) -> u32 {
        self.count(pfn).load(Ordering::Acquire)
    }

    /// One owner less; the last one frees the frame.
    pub fn put(&self, pfn: Pfn) {
        self.put_all([pfn]);
    }

    /// One owner less for each of several frames; neighbours are freed together.
    pub fn put_all(&self, pfns: impl IntoIterator<Item = Pfn>) {
        let (mut run, mut mask) = (0, 0);
        for pfn in pfns {
            if self.count(pfn).fetch_sub(1, Ordering::AcqRel) != 1 {
                continue;
            }
            let r = pfn.0 / RUN_PAGES as u32;
            if r != run {
                self.free_in_run(run, mask);
                (run, mask) = (r, 0);
            }
            mask |= 1 << (pfn.0 % RUN_PAGES as u32);
        }
        self.free_in_run(run, mask);
    }

    fn free_in_run(&self, run: u32, mask: u16) {
        if mask == 0 {
            return;
        }
        let r = run as usize;
        let mut give = Vec::new();
        {
            let mut inner = self.inner.lock();
            let was_partial = inner.masks[r] != 0;
            inner.masks[r] |= mask;
            if inner.masks[r] == FULL {
                if was_partial {
                    inner.partial.remove(&run);
                }
                inner.stale.push(run);
                if inner.stale.len() > KEEP_USED_RUNS {
                    give = inner.stale.drain(..KEEP_USED_RUNS / 2).collect();
                }
            } else if !was_partial {
                inner.partial.insert(run);
            }
        }
        self.free.fetch_add(u64::from(mask.count_ones()), Ordering::Relaxed);
        self.give_back(give);
    }

    /// Gives all free memory that holds old data to the host (the machine has become idle).
    pub fn trim(&self) {
        let give = std::mem::take(&mut self.inner.lock().stale);
        self.give_back(give);
    }

    fn give_back(&self, mut runs: Vec<u32>) {
        if runs.is_empty() {
            return;
        }
        runs.sort_unstable();
        for group in runs.chunk_by(|a, b| a + 1 == *b) {
            self.phys.punch(u64::from(group[0]) * RUN_SIZE as u64, group.len() * RUN_SIZE);
        }
        let mut inner = self.inner.lock();
        for &run in &runs {
            inner.used[run as usize] = 0;
            inner.clean.push(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_break_and_heal_and_old_data_is_gone() {
        let f = Frames::new(PhysMem::new(4 * RUN_SIZE).unwrap());
        let a = f.alloc(16).unwrap();
        let b = f.try_alloc(3, true).unwrap();
        let c = f.try_alloc(5, true).unwrap();
        assert_eq!(b.0 / 16, c.0 / 16, "small ones share a run");
        f.phys().write(a.offset(), b"old");
        f.get(a);
        f.put(a);
        assert_eq!(f.owners(a), 1);
        (0..16).for_each(|i| f.put(a.add(i)));
        let d = f.try_alloc(16, true).unwrap();
        let mut buf = [1; 3];
        f.phys().read(d.offset(), &mut buf);
        assert_eq!(buf, [0; 3]);
        assert!(f.try_alloc(16, true).is_some());
        assert!(f.try_alloc(16, true).is_some());
        assert!(f.try_alloc(16, true).is_none());
        assert_eq!(f.free_pages(), 8);
        assert!(f.try_alloc(8, true).is_some());
        assert!(f.try_alloc(1, true).is_none());
    }
}
