//! Where the blocks of the journal are.

use crate::blocks::Blocks;
use crate::inode::FileType;
use crate::{Ext4, MountError};
use klib::{Errno, Result};

/// How many runs a journal may lie in; mke2fs makes a handful.
const MAX_RUNS: usize = 65536;

/// The journal's runs of blocks, in order.
pub(crate) struct Layout<'a> {
    blocks: &'a Blocks,
    /// (logical start, physical start, length), logical starts ascending without gaps.
    runs: Vec<(u64, u64, u64)>,
}

impl<'a> Layout<'a> {
    /// Maps the journal's inode. `fs` reads the disk without any overlay.
    pub async fn of(fs: &'a Ext4) -> Result<Self, MountError> {
        let bad = |what: &str| MountError::Journal(format!("journal inode {}: {what}", fs.sb.journal_inum));
        if fs.sb.journal_inum == 0 {
            return Err(MountError::Journal("needs recovery from an external journal device".into()));
        }
        let inode = fs.any_inode(fs.sb.journal_inum).await.map_err(|e| bad(e.name()))?;
        if inode.file_type() != FileType::Regular || inode.attr().nlink == 0 || inode.has_inline_data() {
            return Err(bad("not a file"));
        }
        let total = inode.size() >> fs.sb.block_bits;
        let mut runs = Vec::new();
        let mut at = 0u64;
        while at < total {
            let ext = fs.map_meta(&inode, at, total - at).await.map_err(|e| bad(e.name()))?;
            let physical = ext.physical().ok_or_else(|| bad("has a hole"))?;
            runs.push((at, physical, ext.len));
            at += ext.len;
            if runs.len() > MAX_RUNS {
                return Err(bad("too fragmented"));
            }
        }
        Ok(Self { blocks: &fs.blocks, runs })
    }

    /// Length of the journal in blocks.
    pub fn len(&self) -> u64 {
        self.runs.last().map_or(0, |(at, _, len)| at + len)
    }

    /// The block of the device that is block `logical` of the journal, and how many follow it directly.
    pub fn physical(&self, logical: u64) -> Option<(u64, u64)> {
        let i = self.runs.partition_point(|(at, ..)| *at <= logical).checked_sub(1)?;
        let (at, start, len) = *self.runs.get(i)?;
        let skip = logical - at;
        (skip < len).then(|| (start + skip, len - skip))
    }

    /// The bytes of block `logical` of the journal.
    pub async fn read(&self, logical: u64) -> Result<Vec<u8>> {
        let (block, _) = self.physical(logical).ok_or(Errno::EUCLEAN)?;
        self.blocks.read_raw(block, 1).await
    }

    /// Bytes of `n` blocks of the device.
    pub async fn read_device(&self, block: u64, n: u64) -> Result<Vec<u8>> {
        self.blocks.read_raw(block, n).await
    }
}
