//! Page faults: the guest's own, and those that the kernel's copies meet.

use super::frames::frames;
use super::mm::{Mm, MmInner};
use super::page_cache::PageCache;
use super::pte::{PageTable, Pte};
use super::tlb::{Ticket, Tlb};
use super::vma::{Backing, PROT_EXEC, PROT_READ, PROT_WRITE, Vma};
use super::walk::Bring;
use crate::{Errno, Result};
use arch::mm::MapOp;
use klib::addr::{PAGE_SIZE, Pfn, RUN_PAGES, RUN_SIZE, page_down};
use std::sync::Arc;

/// What was attempted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A read.
    Read,
    /// A write.
    Write,
    /// An instruction fetch.
    Exec,
}

impl Access {
    /// From the CPU's page fault error code.
    pub fn from_error_code(err: u64) -> Self {
        match (err & 2 != 0, err & 16 != 0) {
            (true, _) => Self::Write,
            (_, true) => Self::Exec,
            _ => Self::Read,
        }
    }
}

/// Why a fault cannot be mended; the signal that the guest gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadFault {
    /// SIGSEGV, SEGV_MAPERR: nothing is mapped there.
    Unmapped,
    /// SIGSEGV, SEGV_ACCERR: the area does not allow it.
    Protected,
    /// SIGBUS, BUS_ADRERR: past the end of the file, or the file could not be read.
    PastEnd,
    /// `mem=` is full: the process ends.
    NoMemory,
}

/// Around a fault this much is mapped if it is in memory.
const WINDOW: u64 = 4 * RUN_SIZE as u64;

enum Step {
    Done(Ticket),
    /// The stub must catch up first.
    Settle(Ticket),
    /// Pages of a file are missing.
    Fill {
        cache: Arc<PageCache>,
        pos: u64,
        len: usize,
    },
}

impl Mm {
    /// Mends a fault of guest code at `addr`: afterwards the access can be repeated.
    pub async fn handle_fault(&self, addr: u64, access: Access) -> Result<(), BadFault> {
        self.resolve(addr, access, true).await
    }

    /// Queues what a fault at `addr` would do, if nothing has to be read for it: the stub learns of it with the next
    /// change. For pages that a program is sure to touch.
    pub fn expect(&self, addr: u64, access: Access) {
        // What cannot be done now is done by the fault.
        let _ = self.inner.write().fault(&self.space.tlb, addr, access, true);
    }

    /// Brings the page at `addr` in for `access`; with `map` also into the stub.
    pub(super) async fn resolve(&self, addr: u64, access: Access, map: bool) -> Result<(), BadFault> {
        // A file page may be dropped between its reading and its mapping: bounded tries.
        for _ in 0..16 {
            let step = self.inner.write().fault(&self.space.tlb, addr, access, map)?;
            match step {
                Step::Done(ticket) => {
                    return match self.space.tlb.flush(ticket).await {
                        Err(Errno::ENOMEM) => Err(BadFault::NoMemory),
                        // A dead stub is noticed by its threads.
                        _ => Ok(()),
                    };
                }
                Step::Settle(ticket) => {
                    if self.space.tlb.flush(ticket).await.is_err() {
                        return Ok(());
                    }
                }
                Step::Fill { cache, pos, len } => match cache.fill(pos, len).await {
                    Ok(()) => {}
                    Err(Errno::ENOMEM) => return Err(BadFault::NoMemory),
                    Err(_) => return Err(BadFault::PastEnd),
                },
            }
        }
        Err(BadFault::PastEnd)
    }
}

impl MmInner {
    fn fault(&mut self, tlb: &Tlb, addr: u64, access: Access, map: bool) -> Result<Step, BadFault> {
        let vma = self.vmas.find_mut(addr).ok_or(BadFault::Unmapped)?;
        let allowed = match access {
            Access::Write => vma.prot & PROT_WRITE != 0,
            Access::Read => vma.prot & (PROT_READ | PROT_WRITE | PROT_EXEC) != 0,
            Access::Exec => vma.prot & PROT_EXEC != 0,
        };
        if !allowed {
            return Err(BadFault::Protected);
        }
        let page = page_down(addr);
        let run = RUN_SIZE as u64;
        let start = (addr / run * run).max(vma.start);
        let end = (addr / run * run + run).min(vma.end);
        let here = self.pt.get(page);
        let write = access == Access::Write;
        if here.present() {
            if write && !here.writable() {
                // A protection that the stub has not heard of yet: another thread may still write the old frame, and
                // what it writes after the copy would be lost.
                if vma.private() && !self.pt.owns(page) && !tlb.is_settled() {
                    return Ok(Step::Settle(tlb.now()));
                }
                copy_on_write(&mut self.pt, vma, tlb, start, end, page)?;
            } else if map && here.mapped() {
                // The stub should have it. It does not (or the fault raced with a change): tell it again.
                let (mem, prot) = (here.pfn().offset(), host_prot(vma, here));
                tlb.push(MapOp::Map { va: page, len: PAGE_SIZE as u64, mem, prot, populate: true });
            }
            if map {
                map_window(&mut self.pt, vma, tlb, addr);
            }
            return Ok(Step::Done(tlb.now()));
        }
        let anon = matches!(vma.backing, Backing::Anon);
        if anon {
            return self.fault_anon(tlb, page, map);
        }
        let Backing::File { cache, .. } = &vma.backing else { return Err(BadFault::Unmapped) };
        let (cache, pos) = (Arc::clone(cache), vma.file_offset(page));
        if pos >= cache.size().next_multiple_of(PAGE_SIZE as u64) {
            return Err(BadFault::PastEnd);
        }
        // What lies around it and is cached comes along: a fault costs more than many entries.
        let (low, high) = window(vma, addr);
        if !insert_file_pages(&mut self.pt, vma, &cache, low, high, page)? {
            let len = (end - page) as usize;
            return Ok(Step::Fill { cache, pos, len });
        }
        if write && vma.private() {
            copy_on_write(&mut self.pt, vma, tlb, start, end, page)?;
        }
        if map {
            map_window(&mut self.pt, vma, tlb, addr);
        }
        Ok(Step::Done(tlb.now()))
    }

    /// Fresh zeroed frames for the page and for what `Walk` expects next.
    fn fault_anon(&mut self, tlb: &Tlb, page: u64, map: bool) -> Result<Step, BadFault> {
        let Some(vma) = self.vmas.find_mut(page) else { return Err(BadFault::Unmapped) };
        let pt = &mut self.pt;
        let bring = vma.walk.fault(page, vma.start, vma.end, |at| pt.run_is_empty(at));
        let (read, write) = rights(vma, true);
        match bring {
            Bring::Range { start, end, now } => {
                let mut at = start;
                while at < end {
                    let stop = (at / RUN_SIZE as u64 * RUN_SIZE as u64 + RUN_SIZE as u64).min(end);
                    if let Err(e) = fill_anon(pt, at, stop, read, write) {
                        if pt.get(page).present() {
                            break;
                        }
                        // Not even a run is left: the one page, or nothing.
                        let pfn = frames().alloc(1).map_err(|_| e)?;
                        pt.set(page, Pte::new(pfn, read, write));
                        break;
                    }
                    at = stop;
                }
                if map {
                    map_range(pt, vma, tlb, start, end, now);
                }
            }
            Bring::Strides { first, stride, count } => {
                for at in (0..u64::from(count)).map(|k| first + k * stride) {
                    match frames().alloc(1) {
                        Ok(pfn) => pt.set(at, Pte::new(pfn, read, write)),
                        Err(_) if at == page => return Err(BadFault::NoMemory),
                        Err(_) => break,
                    };
                    if map {
                        map_range(pt, vma, tlb, at, at + PAGE_SIZE as u64, true);
                    }
                }
            }
        }
        Ok(Step::Done(tlb.now()))
    }
}

/// What entries of an area may say: readable, and writable if the frame is the area's own.
pub(super) fn rights(vma: &Vma, own: bool) -> (bool, bool) {
    (vma.prot != 0, own && vma.prot & PROT_WRITE != 0)
}

/// Puts frames where none are in `start..end`, which lies in one run; all neighbours if the range is empty.
fn fill_anon(pt: &mut PageTable, start: u64, end: u64, read: bool, write: bool) -> Result<(), BadFault> {
    let page = PAGE_SIZE as u64;
    let mut at = start;
    while at < end {
        if pt.get(at).present() {
            at += page;
            continue;
        }
        let mut stop = at + page;
        while stop < end && !pt.get(stop).present() {
            stop += page;
        }
        let n = ((stop - at) / page) as usize;
        let first = frames().alloc(n.min(RUN_PAGES)).map_err(|_| BadFault::NoMemory)?;
        for i in 0..n {
            pt.set(at + i as u64 * page, Pte::new(first.add(i as u32), read, write));
        }
        at = stop;
    }
    Ok(())
}

/// Enters the cached pages of `start..end` that are not there yet. False if the one at `page` is not cached.
fn insert_file_pages(
    pt: &mut PageTable,
    vma: &Vma,
    cache: &PageCache,
    start: u64,
    end: u64,
    page: u64,
) -> Result<bool, BadFault> {
    // A private page belongs to the cache until it is copied; a shared one is written in place.
    let (read, write) = rights(vma, vma.shared);
    if !cache.get_page(vma.file_offset(page), vma.shared, |pfn| {
        pt.set(page, Pte::new(pfn, read, write));
    })? {
        return Ok(false);
    }
    let mut at = start;
    while at < end {
        if !pt.get(at).present() {
            cache.peek_page(vma.file_offset(at), |pfn| {
                pt.set(at, Pte::new(pfn, read, write));
            });
        }
        at += PAGE_SIZE as u64;
    }
    Ok(true)
}

/// Makes the pages of `start..end` that are present the area's own and writable: those that have no other owner as
/// they are, the others by copying. Where the stub maps them it is told.
fn copy_on_write(
    pt: &mut PageTable,
    vma: &Vma,
    tlb: &Tlb,
    start: u64,
    end: u64,
    page: u64,
) -> Result<(), BadFault> {
    if vma.shared {
        let mut pte = pt.get(page);
        pte.set_writable(true);
        pt.set(page, pte);
        if pte.mapped() {
            tlb.push(MapOp::Protect { va: page, len: PAGE_SIZE as u64, prot: vma.prot });
        }
        return Ok(());
    }
    // From here on the count of a frame says who else has it.
    pt.unshare(start, end);
    let f = frames();
    // Who else has a frame is asked once: others may let go of it meanwhile.
    let mut todo: Vec<(u64, Pte, bool)> = Vec::with_capacity(RUN_PAGES);
    pt.for_each(start, end, |a, p| {
        if !p.writable() {
            todo.push((a, p, f.owners(p.pfn()) > 1));
        }
    });
    let must_copy = todo.iter().filter(|(.., copy)| *copy).count();
    // One contiguous reservation, so that the host's mappings join again; else page by page.
    let mut fresh = if must_copy > 0 { f.alloc_raw(must_copy).ok() } else { None };
    for (addr, old, copy) in todo {
        let mut new = old;
        if copy {
            let pfn: Pfn = match fresh {
                Some(p) => {
                    fresh = Some(p.add(1));
                    p
                }
                None if addr == page => f.alloc_raw(1).map_err(|_| BadFault::NoMemory)?,
                None => continue,
            };
            f.phys().copy(old.pfn().offset(), pfn.offset(), PAGE_SIZE);
            new = Pte::new(pfn, old.readable(), true);
        } else {
            new.set_writable(true);
        }
        if old.mapped() {
            new.set_mapped(true);
            let mem = new.pfn().offset();
            tlb.push(MapOp::Map { va: addr, len: PAGE_SIZE as u64, mem, prot: vma.prot, populate: true });
        }
        pt.set(addr, new);
        if new.pfn() != old.pfn() {
            tlb.put_after(old.pfn());
        }
    }
    Ok(())
}

/// The part of an area around `addr` that is looked at together.
fn window(vma: &Vma, addr: u64) -> (u64, u64) {
    let low = addr / WINDOW * WINDOW;
    (low.max(vma.start), (low + WINDOW).min(vma.end))
}

/// Tells the stub of the present pages around `addr`. Only the run of the fault is populated: the host's own
/// fault-around is good enough for its neighbours.
fn map_window(pt: &mut PageTable, vma: &Vma, tlb: &Tlb, addr: u64) {
    let (low, high) = window(vma, addr);
    let run = RUN_SIZE as u64;
    let (start, end) = ((addr / run * run).max(low), (addr / run * run + run).min(high));
    map_range(pt, vma, tlb, low, start, false);
    map_range(pt, vma, tlb, start, end, true);
    map_range(pt, vma, tlb, end, high, false);
}

/// Tells the stub of the present pages of `start..end` that it does not map yet.
fn map_range(pt: &mut PageTable, vma: &Vma, tlb: &Tlb, start: u64, end: u64, populate: bool) -> Ticket {
    let page = PAGE_SIZE as u64;
    pt.for_each_mut(start, end, |addr, p| {
        if !p.mapped() {
            p.set_mapped(true);
            let prot = host_prot(vma, *p);
            tlb.push(MapOp::Map { va: addr, len: page, mem: p.pfn().offset(), prot, populate });
        }
    });
    tlb.now()
}

/// The protection that the stub gets for an entry.
pub(super) fn host_prot(vma: &Vma, pte: Pte) -> u32 {
    if pte.writable() { vma.prot } else { vma.prot & !PROT_WRITE }
}
