//! Changes of the areas: mmap(2), munmap(2), mprotect(2), mremap(2), brk(2), madvise(2).

use super::fault::{host_prot, rights};
use super::frames::frames;
use super::mm::{MMAP_TOP, Mm, MmInner};
use super::tlb::{Held, Ticket, Tlb};
use super::vma::{Backing, MAX_AREAS, Vma};
use super::walk::Walk;
use crate::{Errno, Result};
use arch::mm::MapOp;
use arch::user::{GUEST_END, GUEST_START};
use klib::addr::{PAGE_SIZE, RUN_SIZE, is_page_aligned, page_up};

/// Where a mapping goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Anywhere, near the hint if it is free.
    Hint(u64),
    /// Exactly there, in place of what is there (MAP_FIXED).
    Fixed(u64),
    /// Exactly there, or `EEXIST` (MAP_FIXED_NOREPLACE).
    FixedFree(u64),
}

/// What is mapped.
#[derive(Clone)]
pub struct MapRequest {
    /// Bytes; rounded up to pages.
    pub len: u64,
    /// PROT_* bits.
    pub prot: u32,
    /// Bits that mprotect may set later.
    pub may_prot: u32,
    /// MAP_SHARED.
    pub shared: bool,
    /// What stands behind it.
    pub backing: Backing,
    /// Name in /proc/PID/maps.
    pub name: &'static str,
}

fn range(addr: u64, len: u64) -> Result<(u64, u64)> {
    let len = page_up(len).filter(|&l| l > 0).ok_or(Errno::EINVAL)?;
    let end = addr.checked_add(len).filter(|&e| e <= GUEST_END).ok_or(Errno::ENOMEM)?;
    if !is_page_aligned(addr) {
        return Err(Errno::EINVAL);
    }
    Ok((addr, end))
}

impl MmInner {
    /// Takes the pages of a range out of the page table; the stub forgets them, then the frames are freed.
    pub(super) fn zap(&mut self, tlb: &Tlb, start: u64, end: u64) {
        let (mut leaves, mut pages) = (Vec::new(), Vec::new());
        let mapped = self.pt.take(start, end, |l| leaves.push(l), |p| pages.push(p));
        if let Some((low, high)) = mapped {
            tlb.push(MapOp::Unmap { va: low, len: high - low });
        }
        leaves.into_iter().for_each(|l| tlb.drop_after(Held::Leaf(l)));
        pages.into_iter().for_each(|p| tlb.put_after(p));
    }

    fn unmap(&mut self, tlb: &Tlb, start: u64, end: u64) -> Vec<Vma> {
        self.zap(tlb, start, end);
        self.vmas.remove(start, end)
    }

    fn place(&self, len: u64, place: Place) -> Result<u64> {
        match place {
            Place::Fixed(a) | Place::FixedFree(a) => {
                let (start, end) = range(a, len)?;
                if start < GUEST_START {
                    return Err(Errno::EPERM);
                }
                if matches!(place, Place::FixedFree(_)) && !self.vmas.is_free(start, end) {
                    return Err(Errno::EEXIST);
                }
                Ok(start)
            }
            Place::Hint(a) => {
                let a = klib::addr::page_down(a);
                if a >= GUEST_START
                    && let Ok((start, end)) = range(a, len)
                    && self.vmas.is_free(start, end)
                {
                    return Ok(start);
                }
                let run = RUN_SIZE as u64;
                // Whole runs start on a run, so that frames and host mappings go together.
                if len >= run
                    && let Some(at) = self.vmas.find_gap_below(len + run, GUEST_START, MMAP_TOP)
                {
                    // As high as alignment allows.
                    return Ok((at + run) / run * run);
                }
                self.vmas.find_gap_below(len, GUEST_START, MMAP_TOP).ok_or(Errno::ENOMEM)
            }
        }
    }

    fn map(&mut self, tlb: &Tlb, place: Place, req: MapRequest) -> Result<u64> {
        let len = page_up(req.len).filter(|&l| l > 0 && l <= GUEST_END).ok_or(Errno::ENOMEM)?;
        if self.vmas.len() >= MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        let start = self.place(len, place)?;
        if matches!(place, Place::Fixed(_)) {
            self.unmap(tlb, start, start + len);
        }
        self.vmas.insert(Vma {
            start,
            end: start + len,
            prot: req.prot,
            shared: req.shared,
            may_prot: req.may_prot,
            backing: req.backing,
            dontfork: false,
            wipeonfork: false,
            name: req.name,
            walk: Walk::default(),
        });
        Ok(start)
    }

    fn protect(&mut self, tlb: &Tlb, start: u64, end: u64, prot: u32) -> Result<()> {
        if !self.vmas.covers(start, end) {
            return Err(Errno::ENOMEM);
        }
        let mut at = start;
        while let Some(v) = self.vmas.find(at).filter(|_| at < end) {
            if prot & !v.may_prot != 0 {
                return Err(Errno::EACCES);
            }
            at = v.end;
        }
        self.vmas.update(start, end, |v| v.prot = prot);
        let f = frames();
        let Self { vmas, pt, .. } = self;
        pt.unshare(start, end);
        pt.for_each_mut(start, end, |addr, p| {
            let Some(vma) = vmas.find(addr) else { return };
            // A private page that others own too stays read-only until it is copied.
            let own = vma.shared || f.owners(p.pfn()) == 1;
            let (read, write) = rights(vma, own);
            p.set_readable(read);
            p.set_writable(write);
            if p.mapped() {
                let prot = host_prot(vma, *p);
                tlb.push(MapOp::Protect { va: addr, len: PAGE_SIZE as u64, prot });
            }
        });
        Ok(())
    }

    /// Moves the pages of `old..old+len` to `new` (free); the stub finds them there by faults.
    fn move_pages(&mut self, tlb: &Tlb, old: u64, new: u64, len: u64) {
        let mut moved = Vec::new();
        let mut mapped = false;
        self.pt.for_each_mut(old, old + len, |addr, p| {
            mapped |= p.mapped();
            let mut q = *p;
            q.set_mapped(false);
            moved.push((addr - old + new, q));
            *p = super::pte::Pte::default();
        });
        if mapped {
            tlb.push(MapOp::Unmap { va: old, len });
        }
        for (addr, p) in moved {
            self.pt.set(addr, p);
        }
    }

    fn remap(
        &mut self,
        tlb: &Tlb,
        old: u64,
        old_len: u64,
        new_len: u64,
        to: Option<u64>,
        may_move: bool,
    ) -> Result<u64> {
        let (old, old_end) = range(old, old_len)?;
        let new_len = page_up(new_len).filter(|&l| l > 0).ok_or(Errno::EINVAL)?;
        let old_len = old_end - old;
        let vma = self.vmas.find(old).ok_or(Errno::EFAULT)?.clone();
        if vma.end < old_end {
            return Err(Errno::EFAULT);
        }
        if to.is_none() {
            if new_len <= old_len {
                if new_len < old_len {
                    self.unmap(tlb, old + new_len, old_end);
                }
                return Ok(old);
            }
            let end = old.checked_add(new_len).filter(|&e| e <= GUEST_END);
            if let Some(end) = end.filter(|&e| vma.end == old_end && self.vmas.is_free(old_end, e)) {
                let mut more = vma.clone();
                more.backing = shifted(&vma, old_end);
                (more.start, more.end) = (old_end, end);
                self.vmas.insert(more);
                return Ok(old);
            }
            if !may_move {
                return Err(Errno::ENOMEM);
            }
        }
        let new = match to {
            Some(a) => {
                let (s, e) = range(a, new_len).map_err(|_| Errno::EINVAL)?;
                if s < old_end && old < e {
                    return Err(Errno::EINVAL);
                }
                self.unmap(tlb, s, e);
                s
            }
            None => self.place(new_len, Place::Hint(0))?,
        };
        let keep = old_len.min(new_len);
        let mut moved = vma.clone();
        moved.backing = shifted(&vma, old);
        (moved.start, moved.end) = (new, new + new_len);
        self.move_pages(tlb, old, new, keep);
        self.unmap(tlb, old, old_end);
        self.vmas.insert(moved);
        Ok(new)
    }
}

/// The backing of a part of `vma` that starts at `at` (which may be its end).
fn shifted(vma: &Vma, at: u64) -> Backing {
    match &vma.backing {
        Backing::Anon => Backing::Anon,
        Backing::File { cache, offset, file } => {
            Backing::File { cache: cache.clone(), offset: offset + (at - vma.start), file: file.clone() }
        }
    }
}

impl Mm {
    async fn done(&self, ticket: Ticket) {
        // A dead stub has nothing left to change.
        self.space.tlb.flush(ticket).await.ok();
    }

    /// mmap(2): gives the address. Data comes by faults.
    pub async fn map(&self, place: Place, req: MapRequest) -> Result<u64> {
        let (addr, ticket) = {
            let mut i = self.inner.write();
            let addr = i.map(&self.space.tlb, place, req)?;
            (addr, self.space.tlb.now())
        };
        if matches!(place, Place::Fixed(_)) {
            self.done(ticket).await;
        }
        Ok(addr)
    }

    /// munmap(2).
    pub async fn unmap(&self, addr: u64, len: u64) -> Result<()> {
        let (start, end) = range(addr, len).map_err(|_| Errno::EINVAL)?;
        let (gone, ticket) = {
            let mut i = self.inner.write();
            (i.unmap(&self.space.tlb, start, end), self.space.tlb.now())
        };
        self.done(ticket).await;
        drop(gone);
        Ok(())
    }

    /// mprotect(2).
    pub async fn protect(&self, addr: u64, len: u64, prot: u32) -> Result<()> {
        if len == 0 {
            return if is_page_aligned(addr) { Ok(()) } else { Err(Errno::EINVAL) };
        }
        let (start, end) = range(addr, len)?;
        let ticket = {
            let mut i = self.inner.write();
            i.protect(&self.space.tlb, start, end, prot)?;
            self.space.tlb.now()
        };
        self.done(ticket).await;
        Ok(())
    }

    /// mremap(2); `to` is MREMAP_FIXED's address.
    pub async fn remap(
        &self,
        old: u64,
        old_len: u64,
        new_len: u64,
        to: Option<u64>,
        may_move: bool,
    ) -> Result<u64> {
        let (addr, ticket) = {
            let mut i = self.inner.write();
            let addr = i.remap(&self.space.tlb, old, old_len, new_len, to, may_move)?;
            (addr, self.space.tlb.now())
        };
        self.done(ticket).await;
        Ok(addr)
    }

    /// Sets the heap up: empty, from `start`.
    pub fn set_brk(&self, start: u64) {
        let mut i = self.inner.write();
        (i.brk_start, i.brk) = (start, start);
    }

    /// brk(2): gives the new end, or the old one if that cannot be.
    pub async fn brk(&self, to: u64, limit: u64) -> u64 {
        let (brk, ticket) = {
            let mut i = self.inner.write();
            let old = i.brk;
            let (Some(old_end), Some(new_end)) = (page_up(old), page_up(to)) else { return old };
            if to < i.brk_start || to - i.brk_start > limit || new_end > GUEST_END {
                return old;
            }
            if new_end > old_end {
                let req = MapRequest {
                    len: new_end - old_end,
                    prot: 3,
                    may_prot: 7,
                    shared: false,
                    backing: Backing::Anon,
                    name: "[heap]",
                };
                if i.map(&self.space.tlb, Place::FixedFree(old_end), req).is_err() {
                    return old;
                }
                // Whoever asks for a heap uses it.
                i.expect_heap(&self.space.tlb, old_end, new_end);
            } else if new_end < old_end {
                i.unmap(&self.space.tlb, new_end, old_end);
            }
            i.brk = to;
            (to, self.space.tlb.now())
        };
        self.done(ticket).await;
        brk
    }

    /// MADV_DONTNEED: pages are as if never touched. `ENOMEM` if part of the range is not mapped.
    pub async fn dont_need(&self, addr: u64, len: u64) -> Result<()> {
        let (start, end) = range(addr, len)?;
        let (whole, ticket) = {
            let mut i = self.inner.write();
            i.zap(&self.space.tlb, start, end);
            (i.vmas.covers(start, end), self.space.tlb.now())
        };
        self.done(ticket).await;
        if whole { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// MADV_DONTFORK and MADV_DOFORK.
    pub fn set_dontfork(&self, addr: u64, len: u64, on: bool) -> Result<()> {
        let (start, end) = range(addr, len)?;
        self.inner.write().vmas.update(start, end, |v| v.dontfork = on);
        Ok(())
    }

    /// MADV_WIPEONFORK and MADV_KEEPONFORK. `EINVAL`: wiping is for private memory without a file.
    pub fn set_wipeonfork(&self, addr: u64, len: u64, on: bool) -> Result<()> {
        let (start, end) = range(addr, len)?;
        let mut inner = self.inner.write();
        let wrong =
            |v: &Vma| v.start < end && v.end > start && !(v.private() && matches!(v.backing, Backing::Anon));
        if on && inner.vmas.iter().any(wrong) {
            return Err(Errno::EINVAL);
        }
        inner.vmas.update(start, end, |v| v.wipeonfork = on);
        Ok(())
    }

    /// True if all of the range is mapped.
    pub fn is_mapped(&self, addr: u64, len: u64) -> bool {
        range(addr, len).is_ok_and(|(s, e)| self.inner.read().vmas.covers(s, e))
    }

    /// Tells which pages of a range are in memory (mincore(2)).
    pub fn in_core(&self, addr: u64, pages: usize) -> Vec<u8> {
        let i = self.inner.read();
        (0..pages as u64).map(|n| u8::from(i.pt.get(addr + n * PAGE_SIZE as u64).present())).collect()
    }
}
