//! The memory file: `mem=` bytes of guest memory, mapped whole in the kernel and piecewise in the stubs.
//!
//! Guest threads write it at any time, so there is no `&[u8]` of it: only copies, fills and atomic words. Offsets
//! are checked; a wrong one is a kernel bug and panics.

use crate::host::{fd::HostFd, last_errno};
use klib::addr::PAGE_SIZE;
use std::any::Any;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use uapi::{Errno, Result};

/// Guest memory. Cheap to clone.
#[derive(Clone)]
pub struct PhysMem(Arc<Inner>);

struct Inner {
    fd: HostFd,
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is shared memory that is only accessed through raw copies and atomics.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: unmaps what `new` mapped; no copy of the pointer outlives the last clone (ring operations hold one).
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

impl PhysMem {
    /// Guest memory of `len` bytes, a multiple of the page size. Nothing of it is used until it is touched.
    pub fn new(len: usize) -> Result<Self> {
        if len == 0 || !len.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let fd = crate::user::memfd_create(c"kibble-mem", libc::MFD_ALLOW_SEALING, true)?;
        let size = i64::try_from(len).map_err(|_| Errno::ENOMEM)?;
        // SAFETY: sets the size of a file that we own.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), size) } < 0 {
            return Err(last_errno());
        }
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: fcntl with integers on a descriptor that we own.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
            return Err(last_errno());
        }
        // SAFETY: a fresh shared mapping at an address that the host chooses.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                fd.as_raw_fd(),
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(last_errno());
        }
        Ok(Self(Arc::new(Inner { fd, base: NonNull::new(p.cast()).ok_or(Errno::ENOMEM)?, len })))
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    pub(crate) fn fd(&self) -> &HostFd {
        &self.0.fd
    }

    /// The address of byte `off` for a host call that moves `len` bytes, and what keeps the mapping alive.
    pub(crate) fn target(&self, off: u64, len: usize) -> (*mut u8, Arc<dyn Any + Send + Sync>) {
        (self.ptr(off, len), Arc::clone(&self.0) as Arc<dyn Any + Send + Sync>)
    }

    fn ptr(&self, off: u64, len: usize) -> *mut u8 {
        let end = usize::try_from(off).ok().and_then(|o| o.checked_add(len));
        assert!(end.is_some_and(|e| e <= self.0.len), "offset {off:#x}+{len:#x} lies in guest memory");
        // SAFETY: checked against the length of the mapping.
        unsafe { self.0.base.as_ptr().add(off as usize) }
    }

    /// Copies out of guest memory.
    pub fn read(&self, off: u64, to: &mut [u8]) {
        let p = self.ptr(off, to.len());
        // SAFETY: in bounds; `to` is ours, so the two do not overlap; bytes may be torn, which the caller expects.
        unsafe { std::ptr::copy_nonoverlapping(p, to.as_mut_ptr(), to.len()) };
    }

    /// Copies into guest memory.
    pub fn write(&self, off: u64, from: &[u8]) {
        let p = self.ptr(off, from.len());
        // SAFETY: as `read`.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), p, from.len()) };
    }

    /// Copies `len` bytes between frames that do not overlap.
    pub fn copy(&self, from: u64, to: u64, len: usize) {
        assert!(from.abs_diff(to) >= len as u64, "frames do not overlap");
        let (src, dst) = (self.ptr(from, len), self.ptr(to, len));
        // SAFETY: both in bounds and disjoint.
        unsafe { std::ptr::copy_nonoverlapping(src, dst, len) };
    }

    /// Fills with zeros.
    pub fn zero(&self, off: u64, len: usize) {
        let p = self.ptr(off, len);
        // SAFETY: in bounds.
        unsafe { std::ptr::write_bytes(p, 0, len) };
    }

    /// Gives whole pages back to the host; they read as zeros.
    pub fn punch(&self, off: u64, len: usize) {
        let p = self.ptr(off, len);
        // SAFETY: in bounds; MADV_REMOVE on a shared file mapping punches a hole and invalidates no pointer.
        unsafe { libc::madvise(p.cast(), len, libc::MADV_REMOVE) };
    }

    /// An atomic word (futexes). `off` is a multiple of 4.
    fn word(&self, off: u64) -> &AtomicU32 {
        assert!(off.is_multiple_of(4), "aligned word");
        // SAFETY: in bounds and aligned; guests access it with plain instructions, which the hardware keeps whole.
        unsafe { AtomicU32::from_ptr(self.ptr(off, 4).cast()) }
    }

    /// Reads a word atomically.
    pub fn load_u32(&self, off: u64) -> u32 {
        self.word(off).load(Ordering::SeqCst)
    }

    /// Compares and exchanges a word; `Err` holds what was there.
    pub fn cmpxchg_u32(&self, off: u64, old: u32, new: u32) -> core::result::Result<u32, u32> {
        self.word(off).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
    }

    /// Bytes of host memory in use by guest frames.
    pub fn host_bytes(&self) -> u64 {
        // SAFETY: `st` is a plain struct that the call fills.
        let mut st: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live local of the right type.
        unsafe { libc::fstat(self.0.fd.as_raw_fd(), &raw mut st) };
        u64::try_from(st.st_blocks).unwrap_or(0) * 512
    }
}
