//! Extended attributes: header of the block, entries.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// `h_magic`, in the block and in the inode.
pub(crate) const EXT4_XATTR_MAGIC: u32 = 0xea02_0000;
/// Bytes of the block's header.
pub(crate) const XATTR_HEADER: usize = 32;
/// Where the block's checksum is.
pub(crate) const XATTR_CSUM_OFFSET: usize = 16;

/// `struct ext4_xattr_header`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawXattrHeader {
    pub magic: U32,
    _refcount: U32,
    pub blocks: U32,
    _hash: U32,
    pub checksum: U32,
    _reserved: [U32; 3],
}

/// `struct ext4_xattr_entry`, followed by the name.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawXattrEntry {
    pub name_len: u8,
    pub name_index: u8,
    pub value_offs: U16,
    pub value_inum: U32,
    pub value_size: U32,
    _hash: U32,
}
