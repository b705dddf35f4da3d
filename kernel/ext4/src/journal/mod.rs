//! JBD2, the reading half: what is committed in the log but not yet in its place.
//!
//! A read-only mount writes nothing, so recovery is a map, [`Overlay`]: file system block to the journal block that
//! holds its committed content. `log` walks the log and builds it; `Blocks` reads through it.
//! The journal's own blocks are found by `layout` through the journal's inode, before there is an overlay.

mod layout;
mod log;

use std::collections::BTreeMap;

pub(crate) use layout::Layout;
pub(crate) use log::recover;

/// How many blocks an overlay may hold: the largest journals mke2fs makes have fewer.
const MAX_OVERLAY: usize = 4 << 20;

/// Where the committed content of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    /// The block of the device (inside the journal) to read instead.
    pub journal_block: u64,
    /// True if the first four bytes are the journal's magic number and were stored as zeros.
    pub escaped: bool,
}

/// Committed blocks that override the disk.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    map: BTreeMap<u64, Copy>,
}

impl Overlay {
    /// What overrides `block`.
    pub fn get(&self, block: u64) -> Option<Copy> {
        if self.map.is_empty() {
            return None;
        }
        self.map.get(&block).copied()
    }

    /// The first overridden block among `len` from `start`.
    pub fn first_in(&self, start: u64, len: u64) -> Option<(u64, Copy)> {
        if self.map.is_empty() {
            return None;
        }
        self.map.range(start..start.saturating_add(len)).next().map(|(b, c)| (*b, *c))
    }

    /// Number of blocks overridden.
    pub fn len(&self) -> usize {
        self.map.len()
    }
}
