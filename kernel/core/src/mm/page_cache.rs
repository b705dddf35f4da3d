//! The pages of a file, in frames of guest memory: what read(2) copies from and mmap(2) maps.

use crate::fs::iov::IovIter;
use crate::{BoxFuture, Errno, Result};
use std::sync::Arc;

/// Where the pages of a cache come from when they are not there.
pub trait PageSource: Send + Sync {
    /// Reads `len` bytes (whole pages) at `offset` of the file to byte `mem` of the memory file. Holes and what lies
    /// past the end of the file become zeros.
    fn fill(&self, offset: u64, len: usize, mem: u64) -> BoxFuture<'_, Result<()>>;
}

/// The page cache of one inode. Memory files (tmpfs) have no source: what is not there is zeros.
pub struct PageCache {
    source: Option<Arc<dyn PageSource>>,
}

impl PageCache {
    /// A cache whose only copy of the data is itself (tmpfs, memfd).
    pub fn new_memory() -> Arc<Self> {
        Arc::new(Self { source: None })
    }

    /// A cache over a file of `size` bytes on disk.
    pub fn new_backed(source: Arc<dyn PageSource>, _size: u64) -> Arc<Self> {
        Arc::new(Self { source: Some(source) })
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        0
    }

    /// Copies at `pos` up to the end of the file: `Ok(0)` at the end, `EIOCBQUEUED` if the first page is missing.
    pub fn try_read(&self, _pos: u64, _to: &mut IovIter<'_>) -> Result<usize> {
        Err(Errno::EIO)
    }

    /// Writes at `pos`, growing the file; memory files only for now (others `EROFS`). `ENOSPC` when `mem=` is full.
    pub fn try_write(&self, _pos: u64, _from: &mut IovIter<'_>) -> Result<usize> {
        Err(if self.source.is_some() { Errno::EROFS } else { Errno::ENOSPC })
    }

    /// Brings `len` bytes at `pos` into memory (with read-ahead of its own choice).
    pub async fn fill(&self, _pos: u64, _len: usize) -> Result<()> {
        Err(Errno::EIO)
    }

    /// Sets the size (memory files); pages past the end are unmapped and freed, the rest of the last page zeroed.
    pub fn truncate(&self, _size: u64) -> Result<()> {
        Err(Errno::EROFS)
    }

    /// Frees pages in a range, which then reads as zeros (FALLOC_FL_PUNCH_HOLE; memory files).
    pub fn punch_hole(&self, _pos: u64, _len: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Number of 4 KiB pages held (st_blocks of tmpfs, statfs).
    pub fn nr_pages(&self) -> u64 {
        0
    }
}
