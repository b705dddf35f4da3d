//! Anonymous memory that the host may write to: ring buffers.

use super::from_rustix;
use rustix::mm::{MapFlags, ProtFlags};
use std::ptr::NonNull;
use uapi::{Errno, Result};

/// Private anonymous pages, zero at first, touched lazily, unmapped on drop.
#[derive(Debug)]
pub struct AnonMap {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory; all access goes through raw pointers whose users state their own exclusion.
unsafe impl Send for AnonMap {}
// SAFETY: as above; a shared reference only gives out the address.
unsafe impl Sync for AnonMap {}

impl AnonMap {
    /// Maps `len` bytes (rounded up to a page by the host), page-aligned.
    pub fn new(len: usize) -> Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: no fixed address, so nothing that exists is replaced.
        let p = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, prot, flags) };
        let base = NonNull::new(p.map_err(from_rustix)?.cast::<u8>()).ok_or(Errno::ENOMEM)?;
        Ok(Self { base, len })
    }

    /// First byte.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for AnonMap {
    fn drop(&mut self) {
        // SAFETY: the range is ours and, by the contract of the users of `base`, nobody touches it any more.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
