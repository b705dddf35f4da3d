//! Page arithmetic and frame numbers.

/// Bytes of a page, the unit of protection and of `mem=` accounting.
pub const PAGE_SIZE: usize = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Pages of a run: the unit in which frames are handed out and host mappings are made (64 KiB).
pub const RUN_PAGES: usize = 16;
/// Bytes of a run.
pub const RUN_SIZE: usize = RUN_PAGES * PAGE_SIZE;

/// Number of a page frame: its byte offset in the memory file divided by [`PAGE_SIZE`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pfn(pub u32);

impl Pfn {
    /// Byte offset of the frame in the memory file.
    pub const fn offset(self) -> u64 {
        (self.0 as u64) << PAGE_SHIFT
    }

    /// The frame `pages` further on.
    pub const fn add(self, pages: u32) -> Self {
        Self(self.0 + pages)
    }
}

/// Rounds down to a page boundary.
pub const fn page_down(addr: u64) -> u64 {
    addr & !(PAGE_SIZE as u64 - 1)
}

/// Rounds up to a page boundary; `None` on overflow.
pub const fn page_up(addr: u64) -> Option<u64> {
    match addr.checked_add(PAGE_SIZE as u64 - 1) {
        Some(a) => Some(page_down(a)),
        None => None,
    }
}

/// True if the address lies on a page boundary.
pub const fn is_page_aligned(addr: u64) -> bool {
    addr & (PAGE_SIZE as u64 - 1) == 0
}
