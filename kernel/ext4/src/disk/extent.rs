//! Extent tree nodes: a header, then index entries or extents, 12 bytes each.

use super::join;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// `eh_magic`.
pub(crate) const EXT4_EXT_MAGIC: u16 = 0xf30a;
/// `EXT4_MAX_EXTENT_DEPTH`.
pub(crate) const MAX_EXTENT_DEPTH: u16 = 5;
/// Bytes of a header and of an entry.
pub(crate) const EXTENT_ENTRY_LEN: usize = 12;
/// Lengths above this are unwritten extents of `len - 32768` blocks.
pub(crate) const EXT_INIT_MAX_LEN: u16 = 1 << 15;

/// `struct ext4_extent_header`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtentHeader {
    pub magic: U16,
    pub entries: U16,
    pub max: U16,
    pub depth: U16,
    _generation: U32,
}

/// `struct ext4_extent_idx`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtentIdx {
    pub block: U32,
    leaf_lo: U32,
    leaf_hi: U16,
    _unused: U16,
}

/// `struct ext4_extent`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtent {
    pub block: U32,
    len: U16,
    start_hi: U16,
    start_lo: U32,
}

impl RawExtentIdx {
    /// The block of the child node.
    pub fn leaf(&self) -> u64 {
        join(self.leaf_lo.get(), u32::from(self.leaf_hi.get()))
    }
}

impl RawExtent {
    /// The first physical block.
    pub fn start(&self) -> u64 {
        join(self.start_lo.get(), u32::from(self.start_hi.get()))
    }

    /// True if the blocks are allocated but read as zeros.
    pub fn is_unwritten(&self) -> bool {
        self.len.get() > EXT_INIT_MAX_LEN
    }

    /// Length in blocks.
    pub fn len(&self) -> u16 {
        if self.is_unwritten() { self.len.get() - EXT_INIT_MAX_LEN } else { self.len.get() }
    }
}

const _: () = {
    assert!(size_of::<RawExtentHeader>() == EXTENT_ENTRY_LEN);
    assert!(size_of::<RawExtentIdx>() == EXTENT_ENTRY_LEN);
    assert!(size_of::<RawExtent>() == EXTENT_ENTRY_LEN);
};
