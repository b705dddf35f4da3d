//! Copies between the kernel and guest memory.
//!
//! A copy holds the page table for reading, which pins the pages: nobody can take a frame away meanwhile. It never
//! sleeps; where a page is missing it stops, and the caller brings the page in with [`Mm::fault_in`] and goes on.

use super::fault::Access;
use super::frames::frames;
use super::mm::{Mm, MmInner};
use crate::{Errno, Result};
use arch::user::GUEST_END;
use klib::addr::{PAGE_SIZE, RUN_SIZE};
use std::sync::Arc;
use uapi::pod::{self, Pod};

/// What a futex is known by: an address of an address space, or a place in a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FutexKey {
    /// Private: address space and address.
    Private {
        /// [`Mm::id`].
        mm: u64,
        /// Guest address.
        addr: u64,
    },
    /// Shared: identity of the page cache and offset in the file.
    Shared {
        /// Identity of the page cache.
        cache: usize,
        /// Byte offset.
        offset: u64,
    },
}

impl MmInner {
    /// Calls `f(offset in the memory file, position, length)` for each piece of `addr..addr+len` that is in memory and
    /// may be accessed; gives the bytes covered before the first that is not.
    fn walk(&self, addr: u64, len: usize, write: bool, mut f: impl FnMut(u64, usize, usize)) -> usize {
        if addr >= GUEST_END || len as u64 > GUEST_END - addr {
            return 0;
        }
        let mut done = 0;
        while done < len {
            let at = addr + done as u64;
            let Some(leaf) = self.pt.leaf(at) else { break };
            let mut i = super::pte::index(at);
            let off = at as usize % PAGE_SIZE;
            let start = leaf.pte(i);
            let ok = |p: super::pte::Pte| p.present() && if write { p.writable() } else { p.readable() };
            if !ok(start) {
                break;
            }
            // Neighbours in the run that are neighbours in the file are one piece.
            let mut n = PAGE_SIZE - off;
            let in_run = RUN_SIZE - (at as usize % RUN_SIZE);
            let mut pfn = start.pfn();
            while n < (len - done).min(in_run) {
                let next = leaf.pte(i + 1);
                if !ok(next) || next.pfn() != pfn.add(1) {
                    break;
                }
                i += 1;
                pfn = next.pfn();
                n += PAGE_SIZE;
            }
            let n = n.min(len - done);
            f(start.pfn().offset() + off as u64, done, n);
            done += n;
        }
        done
    }
}

impl Mm {
    /// Copies to the guest without sleeping; gives the number of bytes copied before the first page that is missing
    /// or may not be written.
    pub fn try_copy_to_user(&self, addr: u64, src: &[u8]) -> usize {
        let phys = frames().phys();
        self.inner.read().walk(addr, src.len(), true, |mem, at, n| phys.write(mem, &src[at..at + n]))
    }

    /// As [`try_copy_to_user`](Self::try_copy_to_user), the other way.
    pub fn try_copy_from_user(&self, addr: u64, dst: &mut [u8]) -> usize {
        let phys = frames().phys();
        self.inner.read().walk(addr, dst.len(), false, |mem, at, n| phys.read(mem, &mut dst[at..at + n]))
    }

    /// Brings the pages of a range in, for reading or writing. `EFAULT` where the guest may not.
    pub async fn fault_in(&self, addr: u64, len: usize, write: bool) -> Result<()> {
        let access = if write { Access::Write } else { Access::Read };
        let end = addr.checked_add(len.max(1) as u64).filter(|&e| e <= GUEST_END).ok_or(Errno::EFAULT)?;
        let mut at = klib::addr::page_down(addr);
        while at < end {
            self.resolve(at.max(addr), access, false).await.map_err(|_| Errno::EFAULT)?;
            at += PAGE_SIZE as u64;
        }
        Ok(())
    }

    /// Copies from the guest, bringing pages in as needed.
    pub async fn copy_from_user(&self, addr: u64, dst: &mut [u8]) -> Result<()> {
        let mut done = 0;
        loop {
            done += self.try_copy_from_user(addr.wrapping_add(done as u64), &mut dst[done..]);
            if done == dst.len() {
                return Ok(());
            }
            self.fault_in(addr.wrapping_add(done as u64), 1, false).await?;
        }
    }

    /// Copies to the guest, bringing pages in as needed.
    pub async fn copy_to_user(&self, addr: u64, src: &[u8]) -> Result<()> {
        let mut done = 0;
        loop {
            done += self.try_copy_to_user(addr.wrapping_add(done as u64), &src[done..]);
            if done == src.len() {
                return Ok(());
            }
            self.fault_in(addr.wrapping_add(done as u64), 1, true).await?;
        }
    }

    /// Reads a C struct.
    pub async fn read_obj<T: Pod>(&self, addr: u64) -> Result<T> {
        let mut buf = vec![0u8; size_of::<T>()];
        self.copy_from_user(addr, &mut buf).await?;
        pod::read_from(&buf).ok_or(Errno::EFAULT)
    }

    /// Writes a C struct.
    pub async fn write_obj<T: Pod>(&self, addr: u64, value: &T) -> Result<()> {
        let bytes = pod::bytes_of(value).to_vec();
        self.copy_to_user(addr, &bytes).await
    }

    /// Reads a NUL-terminated string, without the NUL; `ENAMETOOLONG` if none is found in `max` bytes.
    pub async fn read_cstr(&self, addr: u64, max: usize) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut at = addr;
        while out.len() < max {
            let n = (max - out.len()).min(256).min(PAGE_SIZE - (at as usize % PAGE_SIZE));
            let mut buf = [0u8; 256];
            self.copy_from_user(at, &mut buf[..n]).await?;
            if let Some(end) = buf[..n].iter().position(|&b| b == 0) {
                out.extend_from_slice(&buf[..end]);
                return Ok(out);
            }
            out.extend_from_slice(&buf[..n]);
            at = at.wrapping_add(n as u64);
        }
        Err(Errno::ENAMETOOLONG)
    }

    fn word(&self, addr: u64, write: bool) -> Option<(parking_lot::RwLockReadGuard<'_, MmInner>, u64)> {
        let inner = self.inner.read();
        let mut off = None;
        inner.walk(addr, 4, write, |mem, _, n| off = (n == 4).then_some(mem));
        off.map(|o| (inner, o))
    }

    /// Reads an aligned word atomically; `EFAULT`: not in memory (bring it in and try again), `EINVAL`: not aligned.
    pub fn try_load_u32(&self, addr: u64) -> Result<u32> {
        if !addr.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        let (_pin, off) = self.word(addr, false).ok_or(Errno::EFAULT)?;
        Ok(frames().phys().load_u32(off))
    }

    /// Compares and exchanges an aligned word: `Ok(Err(found))` if it was another value; errors as
    /// [`try_load_u32`](Self::try_load_u32).
    pub fn try_cmpxchg_u32(&self, addr: u64, old: u32, new: u32) -> Result<core::result::Result<u32, u32>> {
        if !addr.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        let (_pin, off) = self.word(addr, true).ok_or(Errno::EFAULT)?;
        Ok(frames().phys().cmpxchg_u32(off, old, new))
    }

    /// The key of a futex. `shared`: the call was made without FUTEX_PRIVATE_FLAG.
    pub fn futex_key(&self, addr: u64, shared: bool) -> Result<FutexKey> {
        if shared {
            let inner = self.inner.read();
            let vma = inner.vmas.find(addr).ok_or(Errno::EFAULT)?;
            if let super::vma::Backing::File { cache, .. } = &vma.backing
                && vma.shared
            {
                return Ok(FutexKey::Shared {
                    cache: Arc::as_ptr(cache) as usize,
                    offset: vma.file_offset(addr),
                });
            }
        }
        Ok(FutexKey::Private { mm: self.id, addr })
    }
}
