//! The memory calls: mmap(2) and its family.

use super::mmap::{MapRequest, Place};
use super::page_cache::PageCache;
use super::vma::{Backing, PROT_WRITE};
use crate::syscall::{Fd, UserPtr};
use crate::task::Task;
use crate::{Errno, Result};
use klib::addr::{PAGE_SIZE, is_page_aligned, page_up};
use std::sync::Arc;
use uapi::raw::general as c;

const PROT_ALL: u32 = 7;

/// mmap(2).
pub async fn sys_mmap(
    cur: &Arc<Task>,
    addr: u64,
    len: u64,
    prot: u32,
    flags: u32,
    fd: Fd,
    off: u64,
) -> Result<u64> {
    if len == 0 || !is_page_aligned(off) {
        return Err(Errno::EINVAL);
    }
    let prot = prot & PROT_ALL;
    let shared = match flags & c::MAP_TYPE {
        c::MAP_PRIVATE => false,
        c::MAP_SHARED | c::MAP_SHARED_VALIDATE => true,
        _ => return Err(Errno::EINVAL),
    };
    if flags & c::MAP_HUGETLB != 0 {
        return Err(Errno::ENOMEM);
    }
    let place = if flags & c::MAP_FIXED_NOREPLACE != 0 {
        Place::FixedFree(addr)
    } else if flags & c::MAP_FIXED != 0 {
        Place::Fixed(addr)
    } else {
        Place::Hint(addr)
    };
    if !matches!(place, Place::Hint(_)) && !is_page_aligned(addr) {
        return Err(Errno::EINVAL);
    }
    let mm = cur.mm();
    let (backing, may_prot) = if flags & c::MAP_ANONYMOUS != 0 {
        let backing = if shared {
            let cache = PageCache::new_memory();
            cache.truncate(page_up(len).ok_or(Errno::ENOMEM)?)?;
            Backing::File { cache, offset: 0, file: None }
        } else {
            Backing::Anon
        };
        (backing, PROT_ALL)
    } else {
        let file = cur.files().get(fd.0)?;
        if !file.readable() || (shared && prot & PROT_WRITE != 0 && !file.writable()) {
            return Err(Errno::EACCES);
        }
        let may = if shared && !file.writable() { PROT_ALL & !PROT_WRITE } else { PROT_ALL };
        off.checked_add(len).filter(|&e| e <= i64::MAX as u64).ok_or(Errno::EOVERFLOW)?;
        let cache = file.ops.mapping().ok_or(Errno::ENODEV)?;
        cache.mapped_by(&mm);
        (Backing::File { cache, offset: off, file: Some(file) }, may)
    };
    let req = MapRequest { len, prot, may_prot, shared, backing, name: "" };
    let at = mm.map(place, req).await?;
    if flags & (c::MAP_POPULATE | c::MAP_LOCKED) != 0 && flags & c::MAP_NONBLOCK == 0 && prot != 0 {
        // Best effort, as mmap(2) says.
        mm.fault_in(at, len as usize, prot & PROT_WRITE != 0).await.ok();
    }
    Ok(at)
}

/// munmap(2).
pub async fn sys_munmap(cur: &Arc<Task>, addr: u64, len: u64) -> Result<u64> {
    cur.mm().unmap(addr, len).await.map(|()| 0)
}

/// mprotect(2).
pub async fn sys_mprotect(cur: &Arc<Task>, addr: u64, len: u64, prot: u32) -> Result<u64> {
    if prot & !(PROT_ALL | c::PROT_GROWSDOWN | c::PROT_GROWSUP) != 0 {
        return Err(Errno::EINVAL);
    }
    cur.mm().protect(addr, len, prot & PROT_ALL).await.map(|()| 0)
}

/// brk(2): the raw call gives the new end, or the old one.
pub async fn sys_brk(cur: &Arc<Task>, addr: u64) -> Result<u64> {
    let mm = cur.mm();
    if addr == 0 {
        return Ok(mm.heap().1);
    }
    let limit = cur.group.rlimit(c::RLIMIT_DATA).0;
    Ok(mm.brk(addr, limit).await)
}

/// mremap(2).
pub async fn sys_mremap(
    cur: &Arc<Task>,
    old: u64,
    old_len: u64,
    new_len: u64,
    flags: u32,
    new_addr: u64,
) -> Result<u64> {
    let (may_move, fixed) = (flags & c::MREMAP_MAYMOVE != 0, flags & c::MREMAP_FIXED != 0);
    if flags & !(c::MREMAP_MAYMOVE | c::MREMAP_FIXED) != 0 || (fixed && !may_move) || old_len == 0 {
        return Err(Errno::EINVAL);
    }
    cur.mm().remap(old, old_len, new_len, fixed.then_some(new_addr), may_move).await
}

/// madvise(2): what changes the contents is done, mere hints are accepted.
pub async fn sys_madvise(cur: &Arc<Task>, addr: u64, len: u64, advice: u32) -> Result<u64> {
    if !is_page_aligned(addr) {
        return Err(Errno::EINVAL);
    }
    let mm = cur.mm();
    if len == 0 {
        return Ok(0);
    }
    match advice {
        // MADV_FREE may drop the pages at any time; now is a time.
        c::MADV_DONTNEED | c::MADV_FREE => mm.dont_need(addr, len).await?,
        c::MADV_DONTFORK => mm.set_dontfork(addr, len, true)?,
        c::MADV_DOFORK => mm.set_dontfork(addr, len, false)?,
        c::MADV_WIPEONFORK => mm.set_wipeonfork(addr, len, true)?,
        c::MADV_KEEPONFORK => mm.set_wipeonfork(addr, len, false)?,
        c::MADV_NORMAL
        | c::MADV_RANDOM
        | c::MADV_SEQUENTIAL
        | c::MADV_WILLNEED
        | c::MADV_HUGEPAGE
        | c::MADV_NOHUGEPAGE
        | c::MADV_DONTDUMP
        | c::MADV_DODUMP
        | c::MADV_MERGEABLE
        | c::MADV_UNMERGEABLE
        | c::MADV_COLD
        | c::MADV_PAGEOUT => {
            if !mm.is_mapped(addr, len) {
                return Err(Errno::ENOMEM);
            }
        }
        c::MADV_POPULATE_READ | c::MADV_POPULATE_WRITE => {
            mm.fault_in(addr, len as usize, advice == c::MADV_POPULATE_WRITE).await?;
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// msync(2): memory files are their own storage; disk files are not writable yet.
pub fn sys_msync(cur: &Arc<Task>, addr: u64, len: u64, flags: u32) -> Result<u64> {
    const ALL: u32 = c::MS_ASYNC | c::MS_INVALIDATE | c::MS_SYNC;
    if !is_page_aligned(addr)
        || flags & !ALL != 0
        || flags & (c::MS_ASYNC | c::MS_SYNC) == c::MS_ASYNC | c::MS_SYNC
    {
        return Err(Errno::EINVAL);
    }
    if len == 0 || cur.mm().is_mapped(addr, len) { Ok(0) } else { Err(Errno::ENOMEM) }
}

/// mincore(2).
pub async fn sys_mincore(cur: &Arc<Task>, addr: u64, len: u64, vec: UserPtr<u8>) -> Result<u64> {
    if !is_page_aligned(addr) {
        return Err(Errno::EINVAL);
    }
    let pages = usize::try_from(page_up(len).ok_or(Errno::ENOMEM)?).map_err(|_| Errno::ENOMEM)? / PAGE_SIZE;
    let mm = cur.mm();
    if len > 0 && !mm.is_mapped(addr, len) {
        return Err(Errno::ENOMEM);
    }
    // In pieces, so that a huge range costs no huge buffer.
    let mut done = 0;
    while done < pages {
        let n = (pages - done).min(4096);
        let map = mm.in_core(addr + (done * PAGE_SIZE) as u64, n);
        mm.copy_to_user(vec.add(done).addr(), &map).await?;
        done += n;
    }
    Ok(0)
}

/// mlock(2), mlock2(2): guest memory is not swapped, so it is enough that it is there.
pub async fn sys_mlock(cur: &Arc<Task>, addr: u64, len: u64) -> Result<u64> {
    let mm = cur.mm();
    let start = klib::addr::page_down(addr);
    let len = len.checked_add(addr - start).ok_or(Errno::EINVAL)?;
    if len > 0 && !mm.is_mapped(start, len) {
        return Err(Errno::ENOMEM);
    }
    mm.fault_in(start, len as usize, false).await.map_err(|_| Errno::ENOMEM)?;
    Ok(0)
}

/// munlock(2).
pub fn sys_munlock(cur: &Arc<Task>, addr: u64, len: u64) -> Result<u64> {
    let start = klib::addr::page_down(addr);
    let len = len.checked_add(addr - start).ok_or(Errno::EINVAL)?;
    if len == 0 || cur.mm().is_mapped(start, len) { Ok(0) } else { Err(Errno::ENOMEM) }
}

/// mlockall(2), munlockall(2): as [`sys_mlock`], for what is there already.
pub fn sys_mlockall(_cur: &Arc<Task>, flags: u32) -> Result<u64> {
    if flags == 0 || flags & !7 != 0 { Err(Errno::EINVAL) } else { Ok(0) }
}

/// munlockall(2).
pub fn sys_munlockall(_cur: &Arc<Task>) -> Result<u64> {
    Ok(0)
}
