//! `struct ext4_inode`: 128 bytes and, in larger inodes, the extra fields after them.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// Bytes every inode has.
pub(crate) const GOOD_OLD_INODE_SIZE: usize = 128;
/// Bytes of `i_block`.
pub(crate) const I_BLOCK_LEN: usize = 60;
/// Where `i_block` is.
pub(crate) const I_BLOCK_OFFSET: usize = 0x28;
/// Where the low half of the checksum is.
pub(crate) const CSUM_LO_OFFSET: usize = 0x7c;
/// Where the high half of the checksum is.
pub(crate) const CSUM_HI_OFFSET: usize = 0x82;

/// `i_flags`: the directory has an htree.
pub(crate) const EXT4_INDEX_FL: u32 = 0x1000;
/// `i_flags`: `i_blocks` counts blocks, not sectors.
pub(crate) const EXT4_HUGE_FILE_FL: u32 = 0x4_0000;
/// `i_flags`: `i_block` is an extent tree.
pub(crate) const EXT4_EXTENTS_FL: u32 = 0x8_0000;
/// `i_flags`: `i_block` and the xattr `system.data` are the data.
pub(crate) const EXT4_INLINE_DATA_FL: u32 = 0x1000_0000;

/// The first 128 bytes.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawInode {
    pub mode: U16,
    pub uid: U16,
    pub size_lo: U32,
    pub atime: U32,
    pub ctime: U32,
    pub mtime: U32,
    pub dtime: U32,
    pub gid: U16,
    pub links_count: U16,
    pub blocks_lo: U32,
    pub flags: U32,
    _version: U32,
    pub block: [u8; I_BLOCK_LEN],
    pub generation: U32,
    pub file_acl_lo: U32,
    pub size_hi: U32,
    _faddr: U32,
    pub blocks_hi: U16,
    pub file_acl_hi: U16,
    pub uid_hi: U16,
    pub gid_hi: U16,
    pub checksum_lo: U16,
    _reserved: U16,
}

/// What follows from byte 128 on; only the first `extra_isize` bytes of it are valid.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawInodeExtra {
    pub extra_isize: U16,
    pub checksum_hi: U16,
    pub ctime_extra: U32,
    pub mtime_extra: U32,
    pub atime_extra: U32,
    pub crtime: U32,
    pub crtime_extra: U32,
    _version_hi: U32,
    _projid: U32,
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<RawInode>() == GOOD_OLD_INODE_SIZE);
    assert!(offset_of!(RawInode, block) == I_BLOCK_OFFSET);
    assert!(offset_of!(RawInode, checksum_lo) == CSUM_LO_OFFSET);
    assert!(size_of::<RawInodeExtra>() == 32);
};
