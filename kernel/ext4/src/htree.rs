//! Lookup in indexed directories: a tree of hashes over the leaf blocks, at most three levels.

use crate::Ext4;
use crate::blocks::{Buf, Kind};
use crate::dirblock::dx_entries_offset;
use crate::disk::dirent::{DX_INFO_OFFSET, RawDxCountLimit, RawDxEntry, RawDxInfo};
use crate::disk::{view, views};
use crate::features as f;
use crate::hash::dx_hash;
use crate::inode::Inode;
use klib::Result;
use std::sync::Arc;

/// Block numbers in entries have 28 bits.
const DX_BLOCK_MASK: u32 = 0x0fff_ffff;

/// One level of the path: a node and where we are in it.
struct Frame {
    buf: Arc<Buf>,
    off: usize,
    count: usize,
    at: usize,
}

impl Frame {
    /// Checks the counts of a node and goes to the entry that covers `hash`.
    fn open(buf: Arc<Buf>, root: bool, hash: u32) -> Option<Self> {
        let off = dx_entries_offset(&buf.data, root)?;
        let cl: &RawDxCountLimit = view(&buf.data, off)?;
        let (count, limit) = (usize::from(cl.count.get()), usize::from(cl.limit.get()));
        let entries: &[RawDxEntry] = views(&buf.data, off, count)?;
        // The hash of entry 0 is the counts' place; it covers everything below entry 1.
        if count == 0 || count > limit {
            return None;
        }
        let at = entries.get(1..)?.partition_point(|e| e.hash.get() <= hash);
        Some(Self { buf, off, count, at })
    }

    fn entry(&self) -> Option<&RawDxEntry> {
        views::<RawDxEntry>(&self.buf.data, self.off, self.count)?.get(self.at)
    }

    fn block(&self) -> Option<u64> {
        self.entry().map(|e| u64::from(e.block.get() & DX_BLOCK_MASK))
    }
}

impl Ext4 {
    /// Looks `name` up through the index. The outer `None` says that the index is unusable (unknown hash, odd
    /// structure): scan the blocks instead, as Linux does.
    pub(crate) async fn lookup_htree(&self, dir: &Inode, name: &[u8]) -> Result<Option<Option<u32>>> {
        let blocks = self.dir_blocks(dir)?;
        let Ok(root) = self.dir_block(dir, 0, false).await? else { return Ok(None) };
        let Some(info) = view::<RawDxInfo>(&root.data, DX_INFO_OFFSET) else { return Ok(None) };
        let levels = info.indirect_levels;
        let max_levels = if self.sb.incompat(f::INCOMPAT_LARGEDIR) { 2 } else { 1 };
        let hash = dx_hash(name, info.hash_version, self.sb.hash_unsigned, &self.sb.hash_seed);
        let (Some(hash), true, 0) = (hash, levels <= max_levels, info.unused_flags & 1) else {
            self.corrupted("directory index", format_args!("inode {}: version or depth", dir.ino()));
            return Ok(None);
        };
        let odd = |what: &str| {
            self.corrupted("directory index", format_args!("inode {}: {what}", dir.ino()));
            Ok(None)
        };
        let Some(frame) = Frame::open(root, true, hash) else { return odd("root") };
        let mut frames = vec![frame];
        for _ in 0..levels {
            let Some(frame) = self.dx_child(dir, &frames, hash).await? else { return odd("node") };
            frames.push(frame);
        }
        // Names whose hashes are equal may fill more leaves than one; there are no more leaves than blocks.
        for _ in 0..blocks {
            let Some(leaf) = frames.last().and_then(Frame::block) else { return odd("leaf") };
            if leaf == 0 || leaf >= blocks {
                return odd("leaf number");
            }
            let Ok(buf) = self.dir_block(dir, leaf, false).await? else { return odd("leaf in a hole") };
            if let Some(ino) = self.search_block(dir, leaf, &buf.data, 0, name)? {
                return Ok(Some(Some(ino)));
            }
            if !self.dx_next(dir, &mut frames, hash).await? {
                return Ok(Some(None));
            }
        }
        odd("endless chain of leaves")
    }

    /// Opens the node below the last frame.
    async fn dx_child(&self, dir: &Inode, frames: &[Frame], hash: u32) -> Result<Option<Frame>> {
        let Some(block) = frames.last().and_then(Frame::block) else { return Ok(None) };
        if block == 0 || block >= self.dir_blocks(dir)? {
            return Ok(None);
        }
        let Ok(buf) = self.dir_block(dir, block, false).await? else { return Ok(None) };
        if !buf.is_verified(Kind::DxNode, dir.ino()) {
            return Ok(None);
        }
        Ok(Frame::open(buf, false, hash))
    }

    /// Moves to the next leaf if it goes on with the same hash (bit 0 of its entry's hash says so).
    async fn dx_next(&self, dir: &Inode, frames: &mut Vec<Frame>, hash: u32) -> Result<bool> {
        let depth = frames.len();
        while frames.last().is_some_and(|f| f.at + 1 >= f.count) {
            frames.pop();
        }
        let Some(top) = frames.last_mut() else { return Ok(false) };
        top.at += 1;
        if top.entry().is_none_or(|e| e.hash.get() & !1 != hash) {
            return Ok(false);
        }
        while frames.len() < depth {
            // Hash 0 leads to the first entry of each node on the way down.
            let Some(frame) = self.dx_child(dir, frames, 0).await? else { return Ok(false) };
            frames.push(frame);
        }
        Ok(true)
    }
}
