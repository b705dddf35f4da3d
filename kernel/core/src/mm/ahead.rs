//! Pages that a program is sure to touch, entered and told to the stub before it faults: a fault costs more than many
//! entries, and a whole batch of changes hardly more than one. What cannot be done now is left to the faults.

use super::fault::{Access, host_prot, rights};
use super::frames::frames;
use super::mm::{Mm, MmInner};
use super::page_cache::PageCache;
use super::pte::{PageTable, Pte};
use super::tlb::Tlb;
use super::vma::{Backing, PROT_WRITE, Vma};
use arch::mm::MapOp;
use klib::addr::{PAGE_SIZE, Pfn, RUN_PAGES, RUN_SIZE};

/// Most cached pages of one area that are mapped ahead (2 MiB).
const READ_PAGES: u64 = 512;
/// Most pages of one area that are copied or zeroed ahead.
const WRITE_PAGES: u64 = 32;
/// Most pages of new heap that are given ahead.
const HEAP_PAGES: u64 = 16;
/// Most changes that a fork queues for its child's stub.
const FORK_OPS: usize = 32;

const PAGE: u64 = PAGE_SIZE as u64;
const RUN: u64 = RUN_SIZE as u64;

impl Mm {
    /// Queues what a fresh program touches first, for an address space that holds nothing but it: the cached pages of
    /// its files, its data, the first instruction and the stack.
    pub fn expect_program(&self, ip: u64, sp: u64) {
        let mut inner = self.inner.write();
        let areas: Vec<(u64, u64)> = inner.vmas.iter().map(|v| (v.start, v.end)).collect();
        for (start, end) in areas {
            inner.expect_area(&self.space.tlb, start, end);
        }
        let missing = [(ip, Access::Exec), (sp, Access::Write)]
            .map(|(at, a)| (!inner.pt.get(at).mapped()).then_some((at, a)));
        drop(inner);
        missing.into_iter().flatten().for_each(|(at, a)| self.expect(at, a));
    }
}

impl MmInner {
    /// Queues the pages of `start..end`, which lies in one private area.
    pub(super) fn expect_area(&mut self, tlb: &Tlb, start: u64, end: u64) {
        let Self { vmas, pt, .. } = self;
        let Some(vma) = vmas.find(start).filter(|v| v.private() && v.prot != 0 && end <= v.end) else {
            return;
        };
        let write = vma.prot & PROT_WRITE != 0;
        let end = end.min(start + PAGE * if write { WRITE_PAGES } else { READ_PAGES });
        match &vma.backing {
            Backing::File { cache, .. } if write => copy_ahead(pt, vma, cache, start, end),
            Backing::File { cache, .. } => enter_cached(pt, vma, cache, start, end),
            // A large one is a stack or the like: where it is touched first is not known.
            Backing::Anon if write && end == vma.end => zero_ahead(pt, vma, start, end),
            Backing::Anon => return,
        }
        tell(pt, vma, tlb, start, end, write, usize::MAX);
    }
}

impl MmInner {
    /// Queues the first pages of what the heap has grown by.
    pub(super) fn expect_heap(&mut self, tlb: &Tlb, start: u64, end: u64) {
        let Self { vmas, pt, .. } = self;
        let Some(vma) = vmas.find(start).filter(|v| v.prot & PROT_WRITE != 0) else { return };
        let end = end.min(start + HEAP_PAGES * PAGE);
        zero_ahead(pt, vma, start, end);
        tell(pt, vma, tlb, start, end, true, usize::MAX);
    }
}

/// Enters the pages of `start..end` that the cache has.
fn enter_cached(pt: &mut PageTable, vma: &Vma, cache: &PageCache, start: u64, end: u64) {
    let (read, _) = rights(vma, false);
    let base = vma.file_offset(start);
    cache.peek_pages(base, base + (end - start), |pos, pfn| {
        let at = start + (pos - base);
        let old = pt.get(at);
        if old.present() {
            frames().put(pfn);
        } else {
            pt.set(at, Pte::new(pfn, read, false));
        }
    });
}

/// Enters copies of the pages of `start..end` that the cache has.
fn copy_ahead(pt: &mut PageTable, vma: &Vma, cache: &PageCache, start: u64, end: u64) {
    let f = frames();
    let base = vma.file_offset(start);
    let mut found: Vec<(u64, Pfn)> = Vec::new();
    cache.peek_pages(base, base + (end - start), |pos, pfn| found.push((start + (pos - base), pfn)));
    let (read, write) = rights(vma, true);
    // What the loader has read of it is there as the cache's own page.
    let due = |(at, pfn): &(u64, Pfn)| {
        let p = pt.get(*at);
        !p.present() || !p.mapped() && !p.writable() && p.pfn() == *pfn
    };
    let absent: Vec<(u64, Pfn)> = found.iter().copied().filter(due).collect();
    for group in absent.chunk_by(|a, b| a.0 + PAGE == b.0 && !b.0.is_multiple_of(RUN)) {
        let Ok(first) = f.alloc_raw(group.len()) else { break };
        for (i, (at, from)) in group.iter().enumerate() {
            let pfn = first.add(i as u32);
            f.phys().copy(from.offset(), pfn.offset(), PAGE_SIZE);
            let old = pt.set(*at, Pte::new(pfn, read, write));
            if old.present() {
                f.put(old.pfn());
            }
        }
    }
    f.put_all(found.into_iter().map(|(_, p)| p));
}

/// Enters zeroed pages where `start..end` has none.
fn zero_ahead(pt: &mut PageTable, vma: &Vma, start: u64, end: u64) {
    let (read, write) = rights(vma, true);
    let absent: Vec<u64> = (start..end).step_by(PAGE_SIZE).filter(|at| !pt.get(*at).present()).collect();
    for group in absent.chunk_by(|a, b| a + PAGE == *b && !b.is_multiple_of(RUN)) {
        let Ok(first) = frames().alloc(group.len().min(RUN_PAGES)) else { return };
        for (i, at) in group.iter().enumerate() {
            pt.set(*at, Pte::new(first.add(i as u32), read, write));
        }
    }
}

/// Queues at most `room` changes for the present pages of `start..end` that the stub does not map; gives how many.
fn tell(
    pt: &mut PageTable,
    vma: &Vma,
    tlb: &Tlb,
    start: u64,
    end: u64,
    populate: bool,
    room: usize,
) -> usize {
    let mut used = 0;
    let mut open: Option<(u64, u64, u64, u32)> = None;
    let push = |o: &mut Option<(u64, u64, u64, u32)>| {
        if let Some((va, len, mem, prot)) = o.take() {
            tlb.push(MapOp::Map { va, len, mem, prot, populate });
        }
    };
    pt.for_each_mut(start, end, |at, p| {
        if p.mapped() || used > room {
            return;
        }
        let (mem, prot) = (p.pfn().offset(), host_prot(vma, *p));
        match &mut open {
            Some((va, len, m, pr)) if *va + *len == at && *m + *len == mem && *pr == prot => *len += PAGE,
            _ => {
                push(&mut open);
                used += 1;
                if used > room {
                    return;
                }
                open = Some((at, PAGE, mem, prot));
            }
        }
        p.set_mapped(true);
    });
    push(&mut open);
    used
}

/// Queues for the stub of a forked child what it shares with its parent of mapped files, as far as the parent has
/// used it.
pub(super) fn expect_child(parent: &PageTable, child: &mut MmInner, tlb: &Tlb) {
    let mut room = FORK_OPS;
    let MmInner { vmas, pt, .. } = child;
    for vma in vmas.iter().filter(|v| matches!(v.backing, Backing::File { .. }) && v.prot != 0) {
        let end = vma.end.min(vma.start + READ_PAGES * PAGE);
        let Some((start, end)) = parent.mapped_span(vma.start, end) else { continue };
        let used = tell(pt, vma, tlb, start, end, false, room);
        room = room.saturating_sub(used);
        if room == 0 {
            break;
        }
    }
}
