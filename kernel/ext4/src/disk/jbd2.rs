//! The journal's structures (`include/linux/jbd2.h`), big endian.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// `JBD2_MAGIC_NUMBER`.
pub(crate) const JBD2_MAGIC: u32 = 0xc03b_3998;

/// Block types.
pub(crate) const DESCRIPTOR_BLOCK: u32 = 1;
pub(crate) const COMMIT_BLOCK: u32 = 2;
pub(crate) const SUPERBLOCK_V1: u32 = 3;
pub(crate) const SUPERBLOCK_V2: u32 = 4;
pub(crate) const REVOKE_BLOCK: u32 = 5;

/// Compatible features.
pub(crate) const COMPAT_CHECKSUM: u32 = 1;
/// Incompatible features.
pub(crate) const INCOMPAT_REVOKE: u32 = 1;
pub(crate) const INCOMPAT_64BIT: u32 = 2;
pub(crate) const INCOMPAT_ASYNC_COMMIT: u32 = 4;
pub(crate) const INCOMPAT_CSUM_V2: u32 = 8;
pub(crate) const INCOMPAT_CSUM_V3: u32 = 16;
pub(crate) const INCOMPAT_FAST_COMMIT: u32 = 32;
/// Those we can read, with their names.
pub(crate) const KNOWN_INCOMPAT: u32 = INCOMPAT_REVOKE
    | INCOMPAT_64BIT
    | INCOMPAT_ASYNC_COMMIT
    | INCOMPAT_CSUM_V2
    | INCOMPAT_CSUM_V3
    | INCOMPAT_FAST_COMMIT;

/// Tag flags.
pub(crate) const FLAG_ESCAPE: u32 = 1;
pub(crate) const FLAG_SAME_UUID: u32 = 2;
pub(crate) const FLAG_LAST_TAG: u32 = 8;

/// `JBD2_DEFAULT_FAST_COMMIT_BLOCKS`.
pub(crate) const DEFAULT_FC_BLOCKS: u32 = 256;
/// Where the superblock's checksum is.
pub(crate) const JSB_CSUM_OFFSET: usize = 0xfc;
/// Bytes of the superblock.
pub(crate) const JSB_SIZE: usize = 1024;
/// Where a commit block's checksum is.
pub(crate) const COMMIT_CSUM_OFFSET: usize = 16;
/// Bytes of a block header.
pub(crate) const HEADER_LEN: usize = 12;
/// Bytes of a revoke block's header.
pub(crate) const REVOKE_HEADER_LEN: usize = 16;

/// `journal_header_t`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub magic: U32,
    pub blocktype: U32,
    pub sequence: U32,
}

/// `journal_superblock_t` up to its checksum.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawJournalSuper {
    pub header: RawHeader,
    pub blocksize: U32,
    pub maxlen: U32,
    pub first: U32,
    pub sequence: U32,
    pub start: U32,
    pub errno: U32,
    pub feature_compat: U32,
    pub feature_incompat: U32,
    pub feature_ro_compat: U32,
    pub uuid: [u8; 16],
    _users: [u8; 16],
    pub checksum_type: u8,
    _pad: [u8; 3],
    pub num_fc_blks: U32,
    _rest: [u8; 164],
    pub checksum: U32,
}

/// `journal_block_tag3_t`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawTag3 {
    pub blocknr: U32,
    pub flags: U32,
    pub blocknr_high: U32,
    pub checksum: U32,
}

/// The first 8 bytes of `journal_block_tag_t`; the high half of the block follows where the journal is 64bit.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawTag {
    pub blocknr: U32,
    pub checksum: U16,
    pub flags: U16,
}

/// `struct commit_header`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawCommit {
    pub header: RawHeader,
    pub chksum_type: u8,
    pub chksum_size: u8,
    _pad: [u8; 2],
    pub chksum: [U32; 8],
    pub commit_sec: U64,
    pub commit_nsec: U32,
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(RawJournalSuper, checksum) == JSB_CSUM_OFFSET);
    assert!(offset_of!(RawJournalSuper, num_fc_blks) == 84);
    assert!(offset_of!(RawCommit, chksum) == COMMIT_CSUM_OFFSET);
    assert!(offset_of!(RawCommit, commit_sec) == 48);
};
