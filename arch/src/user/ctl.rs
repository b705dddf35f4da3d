//! The control file: command pages, operation lists and thread blocks, mapped whole in the kernel and piecewise in
//! the stubs (command pages and lists read-only there).

use super::layout::*;
use crate::host::{fd::HostFd, last_errno};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use uapi::{Errno, Result};

/// One operation for an interpreter of `stub.S`: a host call and where a child of it goes on.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Op {
    pub nr: u64,
    pub args: [u64; 6],
    pub child: u64,
}

impl Op {
    pub fn new(nr: libc::c_long, args: [u64; 6]) -> Self {
        Self { nr: nr as u64, args, child: 0 }
    }
}

/// The kernel's mapping of the control file.
pub(super) struct Ctl {
    base: NonNull<u8>,
    fd: HostFd,
}

// SAFETY: the mapping lives as long as the process, and all access is through atomics or raw copies.
unsafe impl Send for Ctl {}
// SAFETY: as above; callers own the page or block that they touch.
unsafe impl Sync for Ctl {}

impl Ctl {
    pub fn new() -> Result<Self> {
        let fd = super::memfd_create(c"kibble-ctl", 0, false)?;
        // SAFETY: sets the size of a file that we own.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), CTL_LEN as i64) } < 0 {
            return Err(last_errno());
        }
        // SAFETY: a fresh shared mapping at an address that the host chooses.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                CTL_LEN as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                fd.as_raw_fd(),
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(last_errno());
        }
        Ok(Self { base: NonNull::new(p.cast()).ok_or(Errno::ENOMEM)?, fd })
    }

    pub fn fd(&self) -> &HostFd {
        &self.fd
    }

    fn ptr(&self, off: u64, len: u64) -> *mut u8 {
        assert!(off.checked_add(len).is_some_and(|end| end <= CTL_LEN), "inside the control file");
        // SAFETY: the offset was checked against the length of the mapping.
        unsafe { self.base.as_ptr().add(off as usize) }
    }

    pub fn write(&self, off: u64, bytes: &[u8]) {
        let p = self.ptr(off, bytes.len() as u64);
        // SAFETY: in bounds; guest threads may race on blocks, which copies of plain bytes tolerate.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, bytes.len()) };
    }

    pub fn read(&self, off: u64, bytes: &mut [u8]) {
        let p = self.ptr(off, bytes.len() as u64);
        // SAFETY: as `write`.
        unsafe { std::ptr::copy_nonoverlapping(p, bytes.as_mut_ptr(), bytes.len()) };
    }

    pub fn write_u64(&self, off: u64, v: u64) {
        self.write(off, &v.to_ne_bytes());
    }

    fn atomic32(&self, off: u64) -> &AtomicU32 {
        // SAFETY: in bounds, aligned (callers pass multiples of 8), and only ever accessed atomically.
        unsafe { AtomicU32::from_ptr(self.ptr(off, 4).cast()) }
    }

    /// Reads a word that the other side publishes.
    pub fn load_u32(&self, off: u64) -> u32 {
        self.atomic32(off).load(Ordering::Acquire)
    }

    /// Writes the list `ops` at `list` and its length at `count` (both offsets in the file).
    pub fn put_ops(&self, list: u64, count: u64, ops: &[Op]) {
        for (i, op) in ops.iter().enumerate() {
            let at = list + i as u64 * OP_LEN;
            self.write_u64(at, op.nr);
            for (j, a) in op.args.iter().enumerate() {
                self.write_u64(at + 8 + j as u64 * 8, *a);
            }
            self.write_u64(at + 56, op.child);
        }
        // SAFETY: in bounds and aligned; the release orders the list before its length.
        let word = unsafe { AtomicU64::from_ptr(self.ptr(count, 8).cast()) };
        word.store(ops.len() as u64, Ordering::Release);
    }

    /// Publishes a new command on the page at `page` and wakes who waits there. Gives the sequence number.
    pub fn command(&self, page: u64) -> u32 {
        let seq = self.atomic32(page);
        let next = seq.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        // SAFETY: FUTEX_WAKE on a word of our own mapping.
        unsafe { libc::syscall(libc::SYS_futex, self.ptr(page, 4), libc::FUTEX_WAKE, 1, 0, 0, 0) };
        next
    }

    /// Gives a range back to the host; it reads as zeros afterwards.
    pub fn discard(&self, off: u64, len: u64) {
        let p = self.ptr(off, len);
        // SAFETY: in bounds; MADV_REMOVE on a shared file mapping punches a hole, no pointer is invalidated.
        unsafe { libc::madvise(p.cast(), len as usize, libc::MADV_REMOVE) };
    }
}
