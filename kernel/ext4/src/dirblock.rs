//! Blocks of directories: entries, their checks, checksums of leaves and of htree nodes.

use crate::Ext4;
use crate::blocks::{Buf, Kind};
use crate::csum;
use crate::disk::dirent::{
    DIRENT_HEADER, DIRENT_MIN, DIRENT_TAIL, DX_INFO_OFFSET, DX_NODE_ENTRIES, FT_DIR_CSUM, RawDirent,
    RawDirentTail, RawDxCountLimit, RawDxInfo, RawDxTail,
};
use crate::disk::view;
use crate::features as f;
use crate::inode::{FileType, Inode};
use crate::map::ExtentState;
use klib::{Errno, Result};
use std::sync::Arc;

/// How many blocks of a directory a linear scan reads at once.
const DIR_READ_AHEAD: u64 = 16;

/// One entry of a block; `ino` 0 is free space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dirent<'a> {
    pub off: usize,
    pub rec_len: usize,
    pub ino: u32,
    pub file_type: FileType,
    pub name: &'a [u8],
}

/// What entries are checked against.
#[derive(Clone, Copy)]
pub(crate) struct DirentRules {
    pub has_filetype: bool,
    pub inodes_count: u32,
    pub block_size: usize,
}

/// `rec_len` as stored: with 64 KiB blocks the 16 bits do not suffice.
fn rec_len(stored: u16, block_size: usize) -> usize {
    if block_size < 65536 {
        usize::from(stored)
    } else if stored == 65535 || stored == 0 {
        block_size
    } else {
        usize::from(stored & 65532) | usize::from(stored & 3) << 16
    }
}

/// The entry at `off`; nothing if it breaks a rule.
pub(crate) fn dirent_at(data: &[u8], off: usize, rules: DirentRules) -> Option<Dirent<'_>> {
    let raw: &RawDirent = view(data, off)?;
    let len = rec_len(raw.rec_len.get(), rules.block_size);
    let end = off.checked_add(len)?;
    let ino = raw.inode.get();
    let name_len = usize::from(raw.name_len);
    let needed = DIRENT_HEADER + name_len;
    let fits = len >= DIRENT_MIN && len.is_multiple_of(4) && len >= needed && end <= data.len();
    if !fits || ino > rules.inodes_count || ino != 0 && name_len == 0 {
        return None;
    }
    let name = data.get(off + DIRENT_HEADER..off + needed)?;
    let file_type = if rules.has_filetype { FileType::from_dirent(raw.file_type) } else { FileType::Unknown };
    Some(Dirent { off, rec_len: len, ino, file_type, name })
}

impl Ext4 {
    pub(crate) fn dirent_rules(&self) -> DirentRules {
        DirentRules {
            has_filetype: self.sb.incompat(f::INCOMPAT_FILETYPE),
            inodes_count: self.sb.inodes_count,
            block_size: self.sb.block_size as usize,
        }
    }

    /// True if the directory has an htree that we may use.
    pub(crate) fn is_indexed(&self, dir: &Inode) -> bool {
        self.sb.compat & f::COMPAT_DIR_INDEX != 0 && dir.has_index()
    }

    /// Number of blocks of a directory; an error if it claims more than the file system has.
    pub(crate) fn dir_blocks(&self, dir: &Inode) -> Result<u64> {
        let n = dir.size() >> self.sb.block_bits;
        if n > self.sb.blocks_count {
            return Err(
                self.corrupted("directory", format_args!("inode {}: {} bytes", dir.ino(), dir.size()))
            );
        }
        Ok(n)
    }

    /// Block `logical` of a directory, verified as what it looks like; nothing and the length where there is a hole.
    pub(crate) async fn dir_block(
        &self,
        dir: &Inode,
        logical: u64,
        scan: bool,
    ) -> Result<Result<Arc<Buf>, u64>> {
        let ext = self.map_meta(dir, logical, if scan { DIR_READ_AHEAD } else { 1 }).await?;
        let physical = match ext.state {
            ExtentState::Mapped { physical } => physical,
            _ => return Ok(Err(ext.len)),
        };
        let buf = self.blocks.read_ahead(physical, ext.len).await?;
        let kind = self.dir_block_kind(dir, logical, &buf);
        if !buf.is_verified(kind, dir.ino()) {
            if self.sb.has_csum() && dir_csum_ok(&buf.data, kind, dir.csum_seed()) != Some(true) {
                return Err(
                    self.bad_csum("directory block", format_args!("inode {}, block {logical}", dir.ino()))
                );
            }
            buf.set_verified(kind, dir.ino());
        }
        Ok(Ok(buf))
    }

    /// Inner nodes of an htree look like one free entry of a whole block, which no leaf with a checksum can be.
    fn dir_block_kind(&self, dir: &Inode, logical: u64, buf: &Buf) -> Kind {
        if !self.is_indexed(dir) {
            return Kind::DirLeaf;
        }
        if logical == 0 {
            return Kind::DxRoot;
        }
        let block_size = self.sb.block_size as usize;
        let whole = view::<RawDirent>(&buf.data, 0)
            .is_some_and(|e| e.inode.get() == 0 && rec_len(e.rec_len.get(), block_size) == block_size);
        if whole { Kind::DxNode } else { Kind::DirLeaf }
    }

    /// The error of a directory block that breaks a rule, logged.
    pub(crate) fn bad_dirent(&self, dir: &Inode, logical: u64, off: usize) -> Errno {
        self.corrupted("directory entry", format_args!("inode {}, block {logical}, byte {off}", dir.ino()))
    }
}

/// Where the entries of an htree node start: behind the info of the root, behind the fake entry of others.
pub(crate) fn dx_entries_offset(data: &[u8], root: bool) -> Option<usize> {
    if !root {
        return Some(DX_NODE_ENTRIES);
    }
    let info: &RawDxInfo = view(data, DX_INFO_OFFSET)?;
    (info.info_length == 8).then_some(DX_INFO_OFFSET + 8)
}

fn dir_csum_ok(data: &[u8], kind: Kind, seed: u32) -> Option<bool> {
    if kind == Kind::DirLeaf {
        let off = data.len().checked_sub(DIRENT_TAIL)?;
        let tail: &RawDirentTail = view(data, off)?;
        let is_tail = tail.inode.get() == 0
            && usize::from(tail.rec_len.get()) == DIRENT_TAIL
            && tail.name_len == 0
            && tail.file_type == FT_DIR_CSUM;
        return Some(is_tail && csum::crc32c(seed, data.get(..off)?) == tail.checksum.get());
    }
    let off = dx_entries_offset(data, kind == Kind::DxRoot)?;
    let cl: &RawDxCountLimit = view(data, off)?;
    let tail_off = off + usize::from(cl.limit.get()) * 8;
    let tail: &RawDxTail = view(data, tail_off)?;
    let crc = csum::crc32c(seed, data.get(..off + usize::from(cl.count.get()) * 8)?);
    let crc = csum::crc32c(crc, &tail.reserved.get().to_le_bytes());
    Some(csum::crc32c(crc, &[0; 4]) == tail.checksum.get())
}
