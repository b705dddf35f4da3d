//! First touch of pages, mapping and unmapping.

use crate::per_op;
use std::time::Instant;

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;

fn map(len: usize) -> Option<*mut u8> {
    // SAFETY: a fresh private mapping at an address that the kernel chooses.
    let p = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    (p != libc::MAP_FAILED).then_some(p.cast())
}

fn unmap(p: *mut u8, len: usize) -> bool {
    // SAFETY: `p` is a mapping of `len` bytes made by `map`; nothing refers to it any more.
    unsafe { libc::munmap(p.cast(), len) == 0 }
}

/// Writes one byte every `step` of a fresh mapping; the median of ten in ns a page.
fn touch(len: usize, step: usize) -> Option<f64> {
    let mut parts = Vec::new();
    for _ in 0..10 {
        let p = map(len)?;
        let start = Instant::now();
        for at in (0..len).step_by(step) {
            // SAFETY: inside the mapping.
            let q = unsafe { p.add(at) };
            // SAFETY: as above; volatile so that the write is made.
            unsafe { q.write_volatile(1) };
        }
        parts.push(start.elapsed().as_nanos() as f64 / (len / step) as f64);
        unmap(p, len);
    }
    parts.sort_by(f64::total_cmp);
    Some(parts[5])
}

pub fn touch_seq() -> Option<f64> {
    touch(32 * MIB, PAGE)
}

pub fn touch_mib() -> Option<f64> {
    touch(128 * MIB, MIB)
}

pub fn mmap_munmap() -> Option<f64> {
    per_op(|| map(16 * PAGE).is_some_and(|p| unmap(p, 16 * PAGE)))
}

/// A parent with this much memory of its own, touched.
pub fn hold(len: usize) -> Option<impl Drop> {
    struct Held(*mut u8, usize);
    impl Drop for Held {
        fn drop(&mut self) {
            unmap(self.0, self.1);
        }
    }
    let p = map(len)?;
    for at in (0..len).step_by(PAGE) {
        // SAFETY: inside the mapping.
        let q = unsafe { p.add(at) };
        // SAFETY: as above.
        unsafe { q.write_volatile(1) };
    }
    Some(Held(p, len))
}
