//! Block maps of ext2 and ext3: twelve direct blocks, then one, two and three levels of tables.

use crate::Ext4;
use crate::disk::le32;
use crate::inode::Inode;
use crate::map::{Extent, ExtentState};
use klib::Result;

const DIRECT: u64 = 12;

/// Finds the path to `logical`: the slot in `i_block` and the number of tables below it, with the rest of the number.
fn path(logical: u64, bits: u32) -> Option<(usize, u32, u64)> {
    let mut rest = logical;
    if rest < DIRECT {
        return Some((rest as usize, 0, 0));
    }
    rest -= DIRECT;
    for levels in 1..=3u32 {
        let span = 1u64 << (bits * levels);
        if rest < span {
            return Some((DIRECT as usize + levels as usize - 1, levels, rest));
        }
        rest -= span;
    }
    None
}

/// Counts how the run that starts at `table[index]` goes on: consecutive blocks, or zeros.
fn run(table: &[u8], index: usize, end: usize, max: u64) -> Option<(u32, u64)> {
    let first = le32(table, index.checked_mul(4)?)?;
    let mut len = 1u64;
    let mut i = index + 1;
    while len < max && i < end {
        let expected = if first == 0 { Some(0) } else { u64::from(first).checked_add(len) };
        if le32(table, i * 4).map(u64::from) != expected {
            break;
        }
        len += 1;
        i += 1;
    }
    Some((first, len))
}

/// What is at `logical` (below 2^32), at most `max` blocks of it.
pub(crate) async fn map(fs: &Ext4, inode: &Inode, logical: u64, max: u64) -> Result<Extent> {
    let bad = |block: u64| {
        fs.corrupted("block map", format_args!("inode {}, block {logical} of the file: {block}", inode.ino()))
    };
    let hole = |len: u64| Extent { logical, len: len.clamp(1, max), state: ExtentState::Hole };
    let first = u64::from(fs.sb.first_data_block);
    let done = |start: u32, len: u64| {
        if start == 0 {
            return Ok(hole(len));
        }
        let physical = u64::from(start);
        if physical <= first || !fs.blocks.contains(physical, len) {
            return Err(bad(physical));
        }
        Ok(Extent { logical, len, state: ExtentState::Mapped { physical } })
    };
    // 256 to 16384 pointers in a block: 8 to 14 bits, 42 for three levels.
    let bits = fs.sb.block_bits - 2;
    let Some((slot, mut levels, rest)) = path(logical, bits) else { return Ok(hole(max)) };
    if levels == 0 {
        let (start, len) = run(inode.i_block(), slot, DIRECT as usize, max).ok_or_else(|| bad(0))?;
        return done(start, len);
    }
    let mut block = le32(inode.i_block(), slot * 4).ok_or_else(|| bad(0))?;
    loop {
        if block == 0 {
            // Nothing under this table: its whole span, from here on, is a hole.
            let span = 1u64 << (bits * levels);
            return Ok(hole(span - (rest & (span - 1))));
        }
        let table = u64::from(block);
        if table <= first || !fs.blocks.contains(table, 1) {
            return Err(bad(table));
        }
        let buf = fs.blocks.read(table).await?;
        levels -= 1;
        // Masked to 14 bits at most.
        let index = (rest >> (bits * levels) & ((1 << bits) - 1)) as usize;
        if levels == 0 {
            let (start, len) = run(&buf.data, index, 1 << bits, max).ok_or_else(|| bad(0))?;
            return done(start, len);
        }
        block = le32(&buf.data, index * 4).ok_or_else(|| bad(0))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_edges() {
        assert_eq!(path(11, 8), Some((11, 0, 0)));
        assert_eq!(path(12, 8), Some((12, 1, 0)));
        assert_eq!(path(12 + 255, 8), Some((12, 1, 255)));
        assert_eq!(path(12 + 256, 8), Some((13, 2, 0)));
        assert_eq!(path(12 + 256 + 65536, 8), Some((14, 3, 0)));
        assert_eq!(path(12 + 256 + 65536 + (1 << 24), 8), None);
    }

    #[test]
    fn runs_of_blocks_and_of_holes() {
        let t: Vec<u8> = [5u32, 6, 7, 9, 0, 0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(run(&t, 0, 6, 100), Some((5, 3)));
        assert_eq!(run(&t, 0, 6, 2), Some((5, 2)));
        assert_eq!(run(&t, 3, 6, 100), Some((9, 1)));
        assert_eq!(run(&t, 4, 6, 100), Some((0, 2)));
        assert_eq!(run(&t, 6, 7, 1), None);
    }
}
