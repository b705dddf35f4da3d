//! Settings of the C library's allocator, for the whole process.

/// Blocks of this size and more are mappings of their own.
const MMAP_THRESHOLD: libc::c_int = 128 << 10;
/// Arenas: more of them only keep more memory that nobody uses.
const ARENA_MAX: libc::c_int = 2;

/// Large blocks come from the host's zero pages and go back to it when freed, whatever was freed before: a socket's ring is
/// neither zeroed by hand nor kept by the heap. To be called before there are threads. mallopt(3).
pub fn tune() {
    for (what, value) in [(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD), (libc::M_ARENA_MAX, ARENA_MAX)] {
        // SAFETY: changes settings of the allocator, no memory; it takes its own lock.
        let _ = unsafe { libc::mallopt(what, value) };
    }
}
