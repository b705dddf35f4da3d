//! `struct ext4_group_desc`: 32 bytes, or 64 and more with the `64bit` feature.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// Bytes of a descriptor without `64bit`.
pub(crate) const MIN_DESC_SIZE: usize = 32;
/// Where `bg_checksum` is.
pub(crate) const DESC_CSUM_OFFSET: usize = 0x1e;

/// The first 32 bytes.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawGroup {
    pub block_bitmap_lo: U32,
    pub inode_bitmap_lo: U32,
    pub inode_table_lo: U32,
    pub free_blocks_count_lo: U16,
    pub free_inodes_count_lo: U16,
    pub used_dirs_count_lo: U16,
    pub flags: U16,
    _exclude: U32,
    _bitmap_csums: [U16; 2],
    _itable_unused_lo: U16,
    pub checksum: U16,
}

/// The next 32 bytes: high halves.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawGroupHi {
    pub block_bitmap_hi: U32,
    pub inode_bitmap_hi: U32,
    pub inode_table_hi: U32,
    pub free_blocks_count_hi: U16,
    pub free_inodes_count_hi: U16,
    pub used_dirs_count_hi: U16,
    _rest: [u8; 14],
}

const _: () = {
    assert!(size_of::<RawGroup>() == MIN_DESC_SIZE);
    assert!(size_of::<RawGroupHi>() == 32);
    assert!(core::mem::offset_of!(RawGroup, checksum) == DESC_CSUM_OFFSET);
};
