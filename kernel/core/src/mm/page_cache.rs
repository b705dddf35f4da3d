//! The pages of a file, in frames of guest memory: what read(2) copies from and mmap(2) maps.

use super::fault::BadFault;
use super::frames::frames;
use super::mm::Mm;
use crate::fs::iov::IovIter;
use crate::{BoxFuture, Errno, Result};
use klib::addr::{PAGE_SIZE, Pfn, RUN_PAGES, RUN_SIZE};
use klib::waitqueue::WaitQueue;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

/// Where the pages of a cache come from when they are not there.
pub trait PageSource: Send + Sync {
    /// Reads `len` bytes (whole pages) at `offset` of the file to byte `mem` of the memory file. Holes and what lies
    /// past the end of the file become zeros.
    fn fill(&self, offset: u64, len: usize, mem: u64) -> BoxFuture<'_, Result<()>>;
}

/// Bytes that one disk read of a sequential reader brings in at most.
const MAX_READAHEAD: u64 = 8 * RUN_SIZE as u64;

/// The page cache of one inode. Memory files (tmpfs) have no source: what is not there is zeros.
pub struct PageCache {
    source: Option<Arc<dyn PageSource>>,
    inner: Mutex<Inner>,
    filled: WaitQueue,
}

#[derive(Default)]
struct Inner {
    size: u64,
    pages: BTreeMap<u64, Pfn>,
    /// Runs that are being read.
    filling: BTreeSet<u64>,
    /// End of the last read, and the window of the next.
    next: u64,
    window: u64,
    /// Address spaces that map the file, for truncation.
    mappers: Vec<Weak<Mm>>,
}

const PAGE: u64 = PAGE_SIZE as u64;
const RUN: u64 = RUN_SIZE as u64;

impl PageCache {
    fn new(source: Option<Arc<dyn PageSource>>, size: u64) -> Arc<Self> {
        let inner = Mutex::new(Inner { size, ..Inner::default() });
        let cache = Arc::new(Self { source, inner, filled: WaitQueue::new() });
        super::reclaim::register(&cache);
        cache
    }

    /// A cache whose only copy of the data is itself (tmpfs, memfd).
    pub fn new_memory() -> Arc<Self> {
        Self::new(None, 0)
    }

    /// A cache over a file of `size` bytes on disk.
    pub fn new_backed(source: Arc<dyn PageSource>, size: u64) -> Arc<Self> {
        Self::new(Some(source), size)
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.inner.lock().size
    }

    /// Copies at `pos` up to the end of the file: `Ok(0)` at the end, `EIOCBQUEUED` if the first page is missing.
    pub fn try_read(&self, pos: u64, to: &mut IovIter<'_>) -> Result<usize> {
        let f = frames();
        let mut done = 0;
        let mut buf = [0u8; PAGE_SIZE];
        loop {
            let at = pos + done as u64;
            let (pfn, n) = {
                let i = self.inner.lock();
                let n = (i.size.saturating_sub(at)).min(PAGE - at % PAGE).min(to.remaining() as u64) as usize;
                if n == 0 {
                    return Ok(done);
                }
                match i.pages.get(&(at / PAGE)) {
                    Some(&p) => {
                        f.get(p);
                        (Some(p), n)
                    }
                    None if self.source.is_none() => (None, n),
                    None => return if done > 0 { Ok(done) } else { Err(Errno::EIOCBQUEUED) },
                }
            };
            match pfn {
                Some(p) => {
                    f.phys().read(p.offset() + at % PAGE, &mut buf[..n]);
                    f.put(p);
                }
                None => buf[..n].fill(0),
            }
            match to.copy_to(&buf[..n]) {
                Ok(k) => {
                    done += k;
                    if k < n {
                        return Ok(done);
                    }
                }
                Err(e) => return if done > 0 { Ok(done) } else { Err(e) },
            }
        }
    }

    /// Writes at `pos`, growing the file; memory files only for now (others `EROFS`). `ENOSPC` when `mem=` is full.
    pub fn try_write(&self, pos: u64, from: &mut IovIter<'_>) -> Result<usize> {
        if self.source.is_some() {
            return Err(Errno::EROFS);
        }
        let f = frames();
        let mut done = 0;
        let mut buf = [0u8; PAGE_SIZE];
        while from.remaining() > 0 {
            let at = pos.checked_add(done as u64).filter(|&a| a < i64::MAX as u64).ok_or(Errno::EFBIG)?;
            let n = (PAGE - at % PAGE).min(from.remaining() as u64) as usize;
            // Copy first: the page is entered only when there is something to put into it.
            let n = match from.copy_from(&mut buf[..n]) {
                Ok(n) => n,
                Err(e) => return if done > 0 { Ok(done) } else { Err(e) },
            };
            let mut i = self.inner.lock();
            let pfn = match page_or_new(&mut i, at / PAGE) {
                Ok(p) => p,
                Err(_) if done > 0 => return Ok(done),
                Err(_) => return Err(Errno::ENOSPC),
            };
            f.phys().write(pfn.offset() + at % PAGE, &buf[..n]);
            i.size = i.size.max(at + n as u64);
            drop(i);
            done += n;
        }
        Ok(done)
    }

    /// Brings the page at `pos` into memory, with what follows up to `len` bytes or the read-ahead window.
    pub async fn fill(&self, pos: u64, len: usize) -> Result<()> {
        let Some(source) = self.source.clone() else { return Ok(()) };
        let (first, end) = {
            let mut i = self.inner.lock();
            let start = pos / RUN * RUN;
            i.window =
                if i.next == start && start > 0 { (i.window * 2).clamp(RUN, MAX_READAHEAD) } else { RUN };
            let want = (pos + (len as u64).min(MAX_READAHEAD)).next_multiple_of(RUN).max(start + i.window);
            let end = want.min(i.size.next_multiple_of(PAGE)).min(start + MAX_READAHEAD);
            i.next = end.next_multiple_of(RUN);
            (start, end)
        };
        let mut at = first;
        while at < end {
            let stop = (at + RUN).min(end);
            self.fill_run(&source, at, stop).await?;
            at = stop;
        }
        Ok(())
    }

    /// Reads the missing pages of `at..end`, which lies in one run.
    async fn fill_run(&self, source: &Arc<dyn PageSource>, at: u64, end: u64) -> Result<()> {
        let run = at / RUN;
        self.filled.wait_until(|| self.inner.lock().filling.insert(run).then_some(())).await;
        let r = self.fill_claimed(source, at, end).await;
        self.inner.lock().filling.remove(&run);
        self.filled.wake_all();
        r
    }

    async fn fill_claimed(&self, source: &Arc<dyn PageSource>, at: u64, end: u64) -> Result<()> {
        let (mut a, mut b) = (at, end);
        {
            let i = self.inner.lock();
            while a < b && i.pages.contains_key(&(a / PAGE)) {
                a += PAGE;
            }
            while b > a && i.pages.contains_key(&(b / PAGE - 1)) {
                b -= PAGE;
            }
        }
        if a >= b {
            return Ok(());
        }
        let n = ((b - a) / PAGE) as usize;
        let f = frames();
        let first = f.alloc(n.min(RUN_PAGES))?;
        let r = source.fill(a, n * PAGE_SIZE, first.offset()).await;
        let mut i = self.inner.lock();
        for k in 0..n as u64 {
            let pfn = first.add(k as u32);
            let index = a / PAGE + k;
            if r.is_err() || i.pages.contains_key(&index) {
                f.put(pfn);
            } else {
                i.pages.insert(index, pfn);
            }
        }
        r
    }

    /// Hands the page at `pos` to `f` with one owner more (the caller's page table). Memory files make it if `pos` lies
    /// in the file. False: it must be read first.
    pub(super) fn get_page(&self, pos: u64, _write: bool, f: impl FnOnce(Pfn)) -> Result<bool, BadFault> {
        let mut i = self.inner.lock();
        if pos >= i.size.next_multiple_of(PAGE) {
            return Err(BadFault::PastEnd);
        }
        let pfn = match i.pages.get(&(pos / PAGE)) {
            Some(&p) => p,
            None if self.source.is_some() => return Ok(false),
            None => page_or_new(&mut i, pos / PAGE).map_err(|_| BadFault::NoMemory)?,
        };
        frames().get(pfn);
        drop(i);
        f(pfn);
        Ok(true)
    }

    /// As [`get_page`](Self::get_page) if the page is there already.
    pub(super) fn peek_page(&self, pos: u64, f: impl FnOnce(Pfn)) {
        let i = self.inner.lock();
        if pos < i.size.next_multiple_of(PAGE)
            && let Some(&p) = i.pages.get(&(pos / PAGE))
        {
            frames().get(p);
            drop(i);
            f(p);
        }
    }

    /// Hands each page of `start..end` that is there to `f`, with its offset and one owner more.
    pub(super) fn peek_pages(&self, start: u64, end: u64, mut f: impl FnMut(u64, Pfn)) {
        let i = self.inner.lock();
        let end = end.min(i.size.next_multiple_of(PAGE));
        if start < end {
            for (&n, &pfn) in i.pages.range(start / PAGE..end.div_ceil(PAGE)) {
                frames().get(pfn);
                f(n * PAGE, pfn);
            }
        }
    }

    /// Notes an address space that maps the file, so that truncation reaches it.
    pub fn mapped_by(&self, mm: &Arc<Mm>) {
        let mut i = self.inner.lock();
        i.mappers.retain(|m| m.strong_count() > 0);
        if !i.mappers.iter().any(|m| std::ptr::eq(m.as_ptr(), Arc::as_ptr(mm))) {
            i.mappers.push(Arc::downgrade(mm));
        }
    }

    /// Sets the size (memory files); pages past the end are freed, the rest of the last page zeroed. What address
    /// spaces map of them is taken away first.
    pub fn truncate(&self, size: u64) -> Result<()> {
        if self.source.is_some() {
            return Err(Errno::EROFS);
        }
        if size > i64::MAX as u64 {
            return Err(Errno::EFBIG);
        }
        let old = std::mem::replace(&mut self.inner.lock().size, size);
        if size < old {
            self.drop_pages(size.next_multiple_of(PAGE), u64::MAX);
            self.zero_part(size, size.next_multiple_of(PAGE));
        }
        Ok(())
    }

    /// Frees pages in a range, which then reads as zeros (FALLOC_FL_PUNCH_HOLE; memory files).
    pub fn punch_hole(&self, pos: u64, len: u64) -> Result<()> {
        if self.source.is_some() {
            return Err(Errno::EROFS);
        }
        let end = pos.checked_add(len).ok_or(Errno::EFBIG)?;
        let (a, b) = (pos.next_multiple_of(PAGE), end / PAGE * PAGE);
        if a < b {
            self.drop_pages(a, b);
        }
        self.zero_part(pos, a.min(end));
        if b >= a {
            self.zero_part(b.max(pos), end);
        }
        Ok(())
    }

    /// Zeroes bytes inside one page, if it is there.
    fn zero_part(&self, start: u64, end: u64) {
        if start < end
            && let Some(p) = self.inner.lock().pages.get(&(start / PAGE))
        {
            frames().phys().zero(p.offset() + start % PAGE, (end - start) as usize);
        }
    }

    fn drop_pages(&self, start: u64, end: u64) {
        let (gone, mappers) = {
            let mut i = self.inner.lock();
            let keys: Vec<u64> = i.pages.range(start / PAGE..end / PAGE).map(|(k, _)| *k).collect();
            let gone: Vec<Pfn> = keys.iter().filter_map(|k| i.pages.remove(k)).collect();
            (gone, i.mappers.iter().filter_map(Weak::upgrade).collect::<Vec<_>>())
        };
        for mm in mappers {
            mm.forget_file(self, start, end);
        }
        gone.into_iter().for_each(|p| frames().put(p));
    }

    /// Number of 4 KiB pages held (st_blocks of tmpfs, statfs).
    pub fn nr_pages(&self) -> u64 {
        self.inner.lock().pages.len() as u64
    }

    /// Frees up to `want` pages that can be read again and that nobody maps; gives how many.
    pub(super) fn shrink(&self, want: u64) -> u64 {
        if self.source.is_none() {
            return 0;
        }
        let Some(mut i) = self.inner.try_lock() else { return 0 };
        let f = frames();
        let idle: Vec<u64> =
            i.pages.iter().filter(|(_, p)| f.owners(**p) == 1).map(|(k, _)| *k).take(want as usize).collect();
        for k in &idle {
            if let Some(p) = i.pages.remove(k) {
                f.put(p);
            }
        }
        idle.len() as u64
    }
}

/// The page `index` of a memory file, made if it is not there.
fn page_or_new(i: &mut Inner, index: u64) -> Result<Pfn> {
    if let Some(&p) = i.pages.get(&index) {
        return Ok(p);
    }
    let p = frames().alloc(1)?;
    i.pages.insert(index, p);
    Ok(p)
}

impl Drop for PageCache {
    fn drop(&mut self) {
        let i = self.inner.get_mut();
        std::mem::take(&mut i.pages).into_values().for_each(|p| frames().put(p));
    }
}

impl Mm {
    /// Takes the pages `start..end` of a file out of every area that maps it. The stub forgets them in its own time;
    /// frames stay until it has.
    fn forget_file(&self, cache: &PageCache, start: u64, end: u64) {
        use super::vma::Backing;
        let mut inner = self.inner.write();
        let hit: Vec<(u64, u64)> = inner
            .vmas
            .iter()
            .filter_map(|v| match &v.backing {
                Backing::File { cache: c, offset, .. } if std::ptr::eq(&raw const **c, cache) => {
                    let len = v.end - v.start;
                    let a = start.saturating_sub(*offset).min(len);
                    let b = end.saturating_sub(*offset).min(len);
                    (a < b).then_some((v.start + a, v.start + b))
                }
                _ => None,
            })
            .collect();
        for (a, b) in hit {
            inner.zap(&self.space.tlb, a, b);
        }
        let ticket = self.space.tlb.now();
        drop(inner);
        let space = Arc::clone(&self.space);
        executor::spawn(async move {
            space.tlb.flush(ticket).await.ok();
        });
    }
}
