//! Directory entries and htree nodes (`ext4_dir_entry_2`, `dx_root`, `dx_node`).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// Bytes before the name.
pub(crate) const DIRENT_HEADER: usize = 8;
/// `ext4_dir_rec_len(1)`: the smallest entry.
pub(crate) const DIRENT_MIN: usize = 12;
/// Bytes of the checksum entry at the end of a leaf block.
pub(crate) const DIRENT_TAIL: usize = 12;
/// `EXT4_FT_DIR_CSUM`: the file type of that entry.
pub(crate) const FT_DIR_CSUM: u8 = 0xde;
/// `EXT4_NAME_LEN`.
pub(crate) const NAME_LEN: usize = 255;
/// Where `dx_root.info` is.
pub(crate) const DX_INFO_OFFSET: usize = 0x18;
/// Where the entries of an inner htree node are.
pub(crate) const DX_NODE_ENTRIES: usize = 8;

/// The fixed part of `struct ext4_dir_entry_2`. Without the `filetype` feature `file_type` is the (always zero)
/// high byte of the name's length.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawDirent {
    pub inode: U32,
    pub rec_len: U16,
    pub name_len: u8,
    pub file_type: u8,
}

/// `struct ext4_dir_entry_tail`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawDirentTail {
    pub inode: U32,
    pub rec_len: U16,
    pub name_len: u8,
    pub file_type: u8,
    pub checksum: U32,
}

/// `struct dx_root_info`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawDxInfo {
    _reserved: U32,
    pub hash_version: u8,
    pub info_length: u8,
    pub indirect_levels: u8,
    pub unused_flags: u8,
}

/// `struct dx_countlimit`, which lies over the hash of entry 0.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawDxCountLimit {
    pub limit: U16,
    pub count: U16,
}

/// `struct dx_entry`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawDxEntry {
    pub hash: U32,
    pub block: U32,
}

/// `struct dx_tail`, after the last possible entry.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawDxTail {
    pub reserved: U32,
    pub checksum: U32,
}
