//! The kernel's page table of an address space: which frame stands at which guest page. The host's mappings in the
//! stub are a cache of it and may be dropped at any time.

use klib::addr::{PAGE_SHIFT, Pfn, RUN_PAGES, RUN_SIZE};
use std::collections::BTreeMap;

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

/// The entries of one naturally aligned run of guest pages.
pub type Chunk = [Pte; RUN_PAGES];

/// All entries of an address space.
#[derive(Default)]
pub struct PageTable {
    chunks: BTreeMap<u64, Box<Chunk>>,
    present: u64,
}

impl PageTable {
    /// The entry of the page that holds `addr`.
    pub fn get(&self, addr: u64) -> Pte {
        self.chunk(addr).map_or_else(Pte::default, |c| c[index(addr)])
    }

    /// The run that holds `addr`.
    pub fn chunk(&self, addr: u64) -> Option<&Chunk> {
        self.chunks.get(&(addr / RUN_SIZE as u64)).map(|c| &**c)
    }

    /// Sets an entry and gives the old one.
    pub fn set(&mut self, addr: u64, pte: Pte) -> Pte {
        let c = self
            .chunks
            .entry(addr / RUN_SIZE as u64)
            .or_insert_with(|| Box::new([Pte::default(); RUN_PAGES]));
        let old = std::mem::replace(&mut c[index(addr)], pte);
        self.present = self.present + u64::from(pte.present()) - u64::from(old.present());
        old
    }

    /// Calls `f` with each present entry of `start..end` and its guest address; what it leaves not present is removed.
    pub fn for_each_mut(&mut self, start: u64, end: u64, mut f: impl FnMut(u64, &mut Pte)) {
        let mut empty = Vec::new();
        let run = RUN_SIZE as u64;
        for (&n, c) in self.chunks.range_mut(start / run..end.div_ceil(run)) {
            let base = n * run;
            let mut left = false;
            for (i, p) in c.iter_mut().enumerate() {
                let addr = base + ((i as u64) << PAGE_SHIFT);
                if p.present() && addr >= start && addr < end {
                    f(addr, p);
                    if !p.present() {
                        self.present -= 1;
                    }
                }
                left |= p.present();
            }
            if !left {
                empty.push(n);
            }
        }
        for n in empty {
            self.chunks.remove(&n);
        }
    }

    /// Calls `f` with each present entry of `start..end`.
    pub fn for_each(&self, start: u64, end: u64, mut f: impl FnMut(u64, Pte)) {
        let run = RUN_SIZE as u64;
        for (&n, c) in self.chunks.range(start / run..end.div_ceil(run)) {
            for (i, p) in c.iter().enumerate() {
                let addr = n * run + ((i as u64) << PAGE_SHIFT);
                if p.present() && addr >= start && addr < end {
                    f(addr, *p);
                }
            }
        }
    }

    /// Present pages (the resident set).
    pub fn resident(&self) -> u64 {
        self.present
    }
}

/// Position of a page in its run.
pub const fn index(addr: u64) -> usize {
    (addr >> PAGE_SHIFT) as usize % RUN_PAGES
}
