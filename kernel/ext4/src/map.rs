//! From file offsets to the disk: the question the kernel's page cache asks.

use crate::inode::{FileType, Inode};
use crate::{Ext4, extents, indirect};
use klib::{Errno, Result};

/// Logical block numbers have 32 bits.
pub(crate) const MAX_BLOCKS: u64 = 1 << 32;

/// Where a run of a file's blocks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentState {
    /// Nothing is allocated: reads as zeros.
    Hole,
    /// Allocated, never written: reads as zeros.
    Unwritten,
    /// Consecutive blocks on the disk.
    Mapped {
        /// The first of them, in file system blocks.
        physical: u64,
    },
    /// Not a plain run of the disk (data in the inode, or escaped in the journal): take it with [`Ext4::read`].
    Inline,
}

/// A run of a file's blocks; all numbers in file system blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first block, as asked for.
    pub logical: u64,
    /// How many blocks, at least 1 and at most what was asked for.
    pub len: u64,
    /// Where they are.
    pub state: ExtentState,
}

impl Extent {
    /// The first physical block, if the run is on the disk.
    pub fn physical(&self) -> Option<u64> {
        match self.state {
            ExtentState::Mapped { physical } => Some(physical),
            _ => None,
        }
    }
}

impl Ext4 {
    /// Maps up to `max` blocks of a file from `logical` on; shorter where the state changes. The file's size is not
    /// looked at: blocks behind the end are holes or preallocated.
    ///
    /// Errors: `EINVAL` for what has no blocks or a `max` of 0, `EUCLEAN`/`EBADMSG` for a broken tree.
    pub async fn map(&self, inode: &Inode, logical: u64, max: u64) -> Result<Extent> {
        if max == 0 {
            return Err(Errno::EINVAL);
        }
        match inode.file_type() {
            FileType::Regular | FileType::Directory | FileType::Symlink => {}
            _ => return Err(Errno::EINVAL),
        }
        if inode.has_inline_data() {
            return Ok(Extent { logical, len: max, state: ExtentState::Inline });
        }
        let Some(max) = MAX_BLOCKS.checked_sub(logical).filter(|n| *n > 0).map(|n| n.min(max)) else {
            return Ok(Extent { logical, len: max, state: ExtentState::Hole });
        };
        let ext = if inode.has_extents() {
            extents::map(self, inode, logical, max).await?
        } else {
            indirect::map(self, inode, logical, max).await?
        };
        Ok(self.overlaid(ext))
    }

    /// Blocks whose committed content is still in the journal are read there (`data=journal`).
    fn overlaid(&self, ext: Extent) -> Extent {
        let Some(physical) = ext.physical() else { return ext };
        match self.blocks.overlay().first_in(physical, ext.len) {
            None => ext,
            Some((block, copy)) if block == physical => {
                let state = if copy.escaped {
                    ExtentState::Inline
                } else {
                    ExtentState::Mapped { physical: copy.journal_block }
                };
                Extent { len: 1, state, ..ext }
            }
            Some((block, _)) => Extent { len: block - physical, ..ext },
        }
    }

    /// Reads up to `len` bytes at `offset`: fewer at the end of the file, none behind it. For small reads and for
    /// what [`map`](Self::map) calls `Inline`; the page cache reads the rest itself.
    pub async fn read(&self, inode: &Inode, offset: u64, len: usize) -> Result<Vec<u8>> {
        let Some(left) = inode.size().checked_sub(offset).filter(|n| *n > 0) else { return Ok(Vec::new()) };
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(len);
        if inode.has_inline_data() {
            let data = self.inline_data(inode)?;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
            let end = start.saturating_add(len).min(data.len());
            return Ok(data.get(start..end).unwrap_or(&[]).to_vec());
        }
        let bits = self.sb.block_bits;
        let mut out = Vec::new();
        out.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        while out.len() < len {
            let pos = offset + out.len() as u64;
            let within = pos & u64::from(self.sb.block_size - 1);
            let want = (len - out.len()) as u64;
            let ext =
                self.map(inode, pos >> bits, (within + want).div_ceil(u64::from(self.sb.block_size))).await?;
            let bytes = ((ext.len << bits) - within).min(want);
            // Bounded by `want`, which came from a usize.
            let (skip, bytes) = (within as usize, bytes as usize);
            match ext.state {
                ExtentState::Hole | ExtentState::Unwritten => out.resize(out.len() + bytes, 0),
                ExtentState::Mapped { physical } => {
                    let data = self.blocks.read_raw(physical, ext.len).await?;
                    out.extend_from_slice(data.get(skip..skip + bytes).ok_or(Errno::EIO)?);
                }
                ExtentState::Inline => {
                    // One escaped block: the cache puts its first bytes back.
                    let physical = self.raw_physical(inode, ext.logical).await?;
                    let buf = self.blocks.read(physical).await?;
                    out.extend_from_slice(buf.data.get(skip..skip + bytes).ok_or(Errno::EIO)?);
                }
            }
        }
        Ok(out)
    }

    async fn raw_physical(&self, inode: &Inode, logical: u64) -> Result<u64> {
        let ext = if inode.has_extents() {
            extents::map(self, inode, logical, 1).await?
        } else {
            indirect::map(self, inode, logical, 1).await?
        };
        ext.physical().ok_or(Errno::EIO)
    }

    /// Where a metadata block of a file (directory, long symlink) is, without the journal's overlay, which
    /// `Blocks::read` adds itself.
    pub(crate) async fn map_meta(&self, inode: &Inode, logical: u64, max: u64) -> Result<Extent> {
        if inode.has_extents() {
            extents::map(self, inode, logical, max).await
        } else {
            indirect::map(self, inode, logical, max).await
        }
    }
}
