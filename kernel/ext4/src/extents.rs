//! Extent trees: B+ trees keyed by logical block, root in `i_block`, at most five levels below it.

use crate::Ext4;
use crate::blocks::Kind;
use crate::csum;
use crate::disk::extent::{
    EXT4_EXT_MAGIC, EXTENT_ENTRY_LEN, MAX_EXTENT_DEPTH, RawExtent, RawExtentHeader, RawExtentIdx,
};
use crate::disk::{le32, view, views};
use crate::inode::Inode;
use crate::map::{Extent, ExtentState, MAX_BLOCKS};
use klib::{Errno, Result};

enum Step {
    Child(u64),
    Found(Extent),
}

/// One level: what is at `logical`. `next` is where the entry right of the path starts, lowered on the way down.
fn step(node: &[u8], depth: u16, logical: u64, max: u64, next: &mut u64) -> Option<Step> {
    let header: &RawExtentHeader = view(node, 0)?;
    let n = usize::from(header.entries.get());
    let hole = |until: u64| {
        let len = until.saturating_sub(logical).clamp(1, max);
        Step::Found(Extent { logical, len, state: ExtentState::Hole })
    };
    if depth > 0 {
        let idx: &[RawExtentIdx] = views(node, EXTENT_ENTRY_LEN, n)?;
        let after = idx.partition_point(|e| u64::from(e.block.get()) <= logical);
        if let Some(e) = idx.get(after) {
            *next = (*next).min(u64::from(e.block.get()));
        }
        return Some(match after.checked_sub(1).and_then(|i| idx.get(i)) {
            Some(e) => Step::Child(e.leaf()),
            None => hole(*next),
        });
    }
    let exts: &[RawExtent] = views(node, EXTENT_ENTRY_LEN, n)?;
    let after = exts.partition_point(|e| u64::from(e.block.get()) <= logical);
    if let Some(e) = exts.get(after) {
        *next = (*next).min(u64::from(e.block.get()));
    }
    if let Some(e) = after.checked_sub(1).and_then(|i| exts.get(i)) {
        let skip = logical - u64::from(e.block.get());
        if let Some(left) = u64::from(e.len()).checked_sub(skip).filter(|n| *n > 0) {
            let state = if e.is_unwritten() {
                ExtentState::Unwritten
            } else {
                ExtentState::Mapped { physical: e.start() + skip }
            };
            return Some(Step::Found(Extent { logical, len: left.min(max), state }));
        }
    }
    Some(hole(*next))
}

/// Structure of a node: what the search relies on.
fn check(fs: &Ext4, node: &[u8], depth: u16) -> Result<(), &'static str> {
    let header: &RawExtentHeader = view(node, 0).ok_or("no header")?;
    if header.magic.get() != EXT4_EXT_MAGIC {
        return Err("magic");
    }
    if header.depth.get() != depth {
        return Err("depth");
    }
    let (n, max) = (usize::from(header.entries.get()), usize::from(header.max.get()));
    let room = node.len() / EXTENT_ENTRY_LEN - 1;
    if n > max || max > room {
        return Err("number of entries");
    }
    let first = u64::from(fs.sb.first_data_block);
    let mut end = 0u64;
    if depth > 0 {
        let idx: &[RawExtentIdx] = views(node, EXTENT_ENTRY_LEN, n).ok_or("entries")?;
        for (i, e) in idx.iter().enumerate() {
            let block = u64::from(e.block.get());
            if i > 0 && block < end {
                return Err("order of index entries");
            }
            end = block + 1;
            if e.leaf() <= first || !fs.blocks.contains(e.leaf(), 1) {
                return Err("block of an index entry");
            }
        }
    } else {
        let exts: &[RawExtent] = views(node, EXTENT_ENTRY_LEN, n).ok_or("entries")?;
        for e in exts {
            let (block, len) = (u64::from(e.block.get()), u64::from(e.len()));
            if block < end || len == 0 || block + len > MAX_BLOCKS {
                return Err("order of extents");
            }
            end = block + len;
            if e.start() <= first || !fs.blocks.contains(e.start(), len) {
                return Err("blocks of an extent");
            }
        }
    }
    Ok(())
}

fn checksum_ok(node: &[u8], seed: u32) -> Option<bool> {
    let header: &RawExtentHeader = view(node, 0)?;
    let off = EXTENT_ENTRY_LEN * (1 + usize::from(header.max.get()));
    let stored = le32(node, off)?;
    Some(csum::crc32c(seed, node.get(..off)?) == stored)
}

/// What is at `logical` (below 2^32), at most `max` blocks of it.
pub(crate) async fn map(fs: &Ext4, inode: &Inode, logical: u64, max: u64) -> Result<Extent> {
    let bad = |what: &str| fs.corrupted("extent tree", format_args!("inode {}: {what}", inode.ino()));
    let mut depth = view::<RawExtentHeader>(inode.i_block(), 0).map_or(0, |h| h.depth.get());
    if depth > MAX_EXTENT_DEPTH {
        return Err(bad("too deep"));
    }
    check(fs, inode.i_block(), depth).map_err(bad)?;
    let mut next = MAX_BLOCKS;
    let mut at = match step(inode.i_block(), depth, logical, max, &mut next).ok_or(Errno::EUCLEAN)? {
        Step::Found(ext) => return Ok(ext),
        Step::Child(block) => block,
    };
    loop {
        depth = depth.checked_sub(1).ok_or(Errno::EUCLEAN)?;
        let buf = fs.blocks.read(at).await?;
        if !buf.is_verified(Kind::Extent, inode.ino()) {
            check(fs, &buf.data, depth).map_err(bad)?;
            if fs.sb.has_csum() && checksum_ok(&buf.data, inode.csum_seed()) != Some(true) {
                let (ino, block) = (inode.ino(), buf.block);
                return Err(fs.bad_csum("extent block", format_args!("inode {ino}, block {block}")));
            }
            buf.set_verified(Kind::Extent, inode.ino());
        }
        // The same block may hang at two depths of a hostile tree.
        if view::<RawExtentHeader>(&buf.data, 0).is_none_or(|h| h.depth.get() != depth) {
            return Err(bad("depth"));
        }
        match step(&buf.data, depth, logical, max, &mut next).ok_or(Errno::EUCLEAN)? {
            Step::Found(ext) => return Ok(ext),
            Step::Child(block) => at = block,
        }
    }
}
