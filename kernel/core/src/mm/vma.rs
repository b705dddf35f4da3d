//! Areas of an address space: what a guest has mapped where.

use super::page_cache::PageCache;
use super::walk::Walk;
use crate::fs::file::File;
use klib::addr::PAGE_SHIFT;
use std::collections::BTreeMap;
use std::sync::Arc;

/// PROT_READ.
pub const PROT_READ: u32 = 1;
/// PROT_WRITE.
pub const PROT_WRITE: u32 = 2;
/// PROT_EXEC.
pub const PROT_EXEC: u32 = 4;

/// What stands behind an area.
#[derive(Clone)]
pub enum Backing {
    /// Zeros.
    Anon,
    /// A file, from byte `offset`.
    File {
        /// The file's pages.
        cache: Arc<PageCache>,
        /// Offset of the area's first byte.
        offset: u64,
        /// The open file, for its name; shared anonymous memory has none.
        file: Option<Arc<File>>,
    },
}

/// A mapped area, `start..end` in whole pages.
#[derive(Clone)]
pub struct Vma {
    /// First address.
    pub start: u64,
    /// Address after the last byte.
    pub end: u64,
    /// PROT_* bits.
    pub prot: u32,
    /// MAP_SHARED.
    pub shared: bool,
    /// Bits that mprotect(2) may set: a shared mapping of a file opened read-only cannot become writable.
    pub may_prot: u32,
    /// What stands behind it.
    pub backing: Backing,
    /// MADV_DONTFORK.
    pub dontfork: bool,
    /// MADV_WIPEONFORK: the child finds it as if never touched.
    pub wipeonfork: bool,
    /// Name in /proc/PID/maps for areas without a file: `[heap]`, `[stack]`, ...
    pub name: &'static str,
    /// Where faults of anonymous memory seem to go.
    pub walk: Walk,
}

impl Vma {
    /// True if frames of this area are private to the address space (and its forks, until written).
    pub fn private(&self) -> bool {
        !self.shared
    }

    /// Offset in the file of guest address `addr`.
    pub fn file_offset(&self, addr: u64) -> u64 {
        match &self.backing {
            Backing::Anon => 0,
            Backing::File { offset, .. } => offset + (addr - self.start),
        }
    }

    /// Cuts the area at `at` and gives the upper part.
    fn split(&mut self, at: u64) -> Self {
        let mut upper = self.clone();
        if let Backing::File { offset, .. } = &mut upper.backing {
            *offset += at - self.start;
        }
        upper.start = at;
        self.end = at;
        upper
    }

    /// True if `next` may be joined to this area's end.
    fn continues(&self, next: &Self) -> bool {
        let same_backing = match (&self.backing, &next.backing) {
            (Backing::Anon, Backing::Anon) => true,
            (Backing::File { cache: a, offset: o, .. }, Backing::File { cache: b, offset: p, .. }) => {
                Arc::ptr_eq(a, b) && o + (self.end - self.start) == *p
            }
            _ => false,
        };
        self.end == next.start
            && self.prot == next.prot
            && self.shared == next.shared
            && self.may_prot == next.may_prot
            && self.dontfork == next.dontfork
            && self.wipeonfork == next.wipeonfork
            && self.name == next.name
            && same_backing
    }
}

/// The areas of an address space, by address.
#[derive(Default)]
pub struct VmaTree {
    areas: BTreeMap<u64, Vma>,
}

/// Most areas an address space may have (vm.max_map_count).
pub const MAX_AREAS: usize = 65530;

impl VmaTree {
    /// The area that holds `addr`.
    pub fn find(&self, addr: u64) -> Option<&Vma> {
        self.areas.range(..=addr).next_back().map(|(_, v)| v).filter(|v| addr < v.end)
    }

    /// As [`find`](Self::find), to be changed (not its bounds).
    pub fn find_mut(&mut self, addr: u64) -> Option<&mut Vma> {
        self.areas.range_mut(..=addr).next_back().map(|(_, v)| v).filter(|v| addr < v.end)
    }

    /// The first area at or above `addr`.
    pub fn next_from(&self, addr: u64) -> Option<&Vma> {
        self.areas.range(addr..).next().map(|(_, v)| v)
    }

    /// True if nothing is mapped in `start..end`.
    pub fn is_free(&self, start: u64, end: u64) -> bool {
        self.find(start).is_none() && self.areas.range(start..end).next().is_none()
    }

    /// All areas in order.
    pub fn iter(&self) -> impl Iterator<Item = &Vma> {
        self.areas.values()
    }

    /// Number of areas.
    pub fn len(&self) -> usize {
        self.areas.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.areas.is_empty()
    }

    /// Makes `addr` a border between areas.
    fn split_at(&mut self, addr: u64) {
        let upper = self.find_mut(addr).filter(|v| v.start < addr).map(|v| v.split(addr));
        if let Some(u) = upper {
            self.areas.insert(u.start, u);
        }
    }

    /// Takes everything in `start..end` out.
    pub fn remove(&mut self, start: u64, end: u64) -> Vec<Vma> {
        self.split_at(start);
        self.split_at(end);
        let keys: Vec<u64> = self.areas.range(start..end).map(|(k, _)| *k).collect();
        keys.iter().filter_map(|k| self.areas.remove(k)).collect()
    }

    /// Puts an area into free space, joined with its neighbours where they are alike.
    pub fn insert(&mut self, vma: Vma) {
        debug_assert!(self.is_free(vma.start, vma.end));
        let start = vma.start;
        self.areas.insert(start, vma);
        self.merge_around(start);
    }

    fn merge_around(&mut self, start: u64) {
        let Some(v) = self.areas.get(&start) else { return };
        if let Some(next) = self.areas.get(&v.end).filter(|n| v.continues(n)) {
            let (key, end) = (next.start, next.end);
            self.areas.remove(&key);
            if let Some(v) = self.areas.get_mut(&start) {
                v.end = end;
            }
        }
        let Some(v) = self.areas.get(&start) else { return };
        let prev = self.areas.range(..start).next_back().map(|(_, p)| p).filter(|p| p.continues(v));
        if let Some(key) = prev.map(|p| p.start) {
            let end = v.end;
            self.areas.remove(&start);
            if let Some(p) = self.areas.get_mut(&key) {
                p.end = end;
            }
        }
    }

    /// Calls `f` on each area of `start..end`, cut to that range, and joins what has become alike.
    pub fn update(&mut self, start: u64, end: u64, mut f: impl FnMut(&mut Vma)) {
        self.split_at(start);
        self.split_at(end);
        let keys: Vec<u64> = self.areas.range(start..end).map(|(k, _)| *k).collect();
        for k in &keys {
            if let Some(v) = self.areas.get_mut(k) {
                f(v);
            }
        }
        for k in keys {
            self.merge_around(k);
        }
        self.merge_around(end);
    }

    /// True if `start..end` is mapped without a gap.
    pub fn covers(&self, start: u64, end: u64) -> bool {
        let mut at = start;
        while at < end {
            match self.find(at) {
                Some(v) => at = v.end,
                None => return false,
            }
        }
        true
    }

    /// The highest free place of `len` bytes below `top` and at or above `floor`.
    pub fn find_gap_below(&self, len: u64, floor: u64, top: u64) -> Option<u64> {
        let mut end = top;
        for v in self.areas.range(..top).rev().map(|(_, v)| v) {
            if v.end <= end && end - v.end >= len {
                break;
            }
            end = end.min(v.start);
        }
        end.checked_sub(len).filter(|&s| s >= floor)
    }

    /// Pages of all areas.
    pub fn pages(&self) -> u64 {
        self.areas.values().map(|v| (v.end - v.start) >> PAGE_SHIFT).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anon(start: u64, end: u64, prot: u32) -> Vma {
        Vma {
            start,
            end,
            prot,
            shared: false,
            may_prot: 7,
            backing: Backing::Anon,
            dontfork: false,
            wipeonfork: false,
            name: "",
            walk: Walk::default(),
        }
    }

    #[test]
    fn areas_split_join_and_leave_gaps() {
        let mut t = VmaTree::default();
        t.insert(anon(0x1000, 0x5000, 3));
        t.insert(anon(0x5000, 0x8000, 3));
        assert_eq!(t.len(), 1);
        t.update(0x2000, 0x3000, |v| v.prot = 1);
        assert_eq!(t.len(), 3);
        assert_eq!(t.find(0x2fff).unwrap().prot, 1);
        t.update(0x2000, 0x3000, |v| v.prot = 3);
        assert_eq!(t.len(), 1);
        assert_eq!(t.remove(0x3000, 0x4000).len(), 1);
        assert!(t.is_free(0x3000, 0x4000) && !t.covers(0x1000, 0x8000) && t.covers(0x4000, 0x8000));
        assert_eq!(t.find_gap_below(0x1000, 0x1000, 0x8000), Some(0x3000));
        assert_eq!(t.find_gap_below(0x2000, 0x1000, 0x8000), None);
        assert_eq!(t.find_gap_below(0x2000, 0x1000, 0xb000), Some(0x9000));
    }
}
