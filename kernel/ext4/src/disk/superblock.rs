//! `struct ext4_super_block`: 1024 bytes at byte 1024.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// Where the primary copy is, and how large it is.
pub(crate) const SUPER_OFFSET: u64 = 1024;
/// Size of the structure.
pub(crate) const SUPER_SIZE: usize = 1024;
/// `s_magic`.
pub(crate) const EXT4_SUPER_MAGIC: u16 = 0xef53;
/// `s_flags`: the directory hash takes characters as unsigned.
pub(crate) const EXT2_FLAGS_UNSIGNED_HASH: u32 = 2;
/// `s_state`: errors were found.
pub(crate) const EXT4_ERROR_FS: u16 = 2;

/// `struct ext4_super_block`; runs of fields that nobody reads are left as bytes.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned, Clone)]
#[repr(C)]
pub(crate) struct RawSuper {
    pub inodes_count: U32,
    pub blocks_count_lo: U32,
    pub r_blocks_count_lo: U32,
    pub free_blocks_count_lo: U32,
    pub free_inodes_count: U32,
    pub first_data_block: U32,
    pub log_block_size: U32,
    pub log_cluster_size: U32,
    pub blocks_per_group: U32,
    pub clusters_per_group: U32,
    pub inodes_per_group: U32,
    _times: [u8; 8],
    _mnt_counts: [u8; 4],
    pub magic: U16,
    pub state: U16,
    _errors: [u8; 16],
    pub rev_level: U32,
    _def_ids: [u8; 4],
    pub first_ino: U32,
    pub inode_size: U16,
    _block_group_nr: U16,
    pub feature_compat: U32,
    pub feature_incompat: U32,
    pub feature_ro_compat: U32,
    pub uuid: [u8; 16],
    pub volume_name: [u8; 16],
    pub last_mounted: [u8; 64],
    _algorithm: U32,
    _prealloc: [u8; 2],
    pub reserved_gdt_blocks: U16,
    _journal_uuid: [u8; 16],
    pub journal_inum: U32,
    _journal_dev: U32,
    _last_orphan: U32,
    pub hash_seed: [U32; 4],
    _def_hash: [u8; 2],
    pub desc_size: U16,
    _default_mount_opts: U32,
    pub first_meta_bg: U32,
    _mkfs_time: U32,
    _jnl_blocks: [u8; 68],
    pub blocks_count_hi: U32,
    pub r_blocks_count_hi: U32,
    pub free_blocks_count_hi: U32,
    _extra_isizes: [u8; 4],
    pub flags: U32,
    _raid: [u8; 17],
    pub checksum_type: u8,
    _mid: [u8; 210],
    pub overhead_clusters: U32,
    pub backup_bgs: [U32; 2],
    _crypt: [u8; 28],
    pub checksum_seed: U32,
    _tail: [u8; 392],
    pub checksum: U32,
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<RawSuper>() == SUPER_SIZE);
    assert!(offset_of!(RawSuper, magic) == 0x38);
    assert!(offset_of!(RawSuper, rev_level) == 0x4c);
    assert!(offset_of!(RawSuper, uuid) == 0x68);
    assert!(offset_of!(RawSuper, journal_inum) == 0xe0);
    assert!(offset_of!(RawSuper, hash_seed) == 0xec);
    assert!(offset_of!(RawSuper, desc_size) == 0xfe);
    assert!(offset_of!(RawSuper, blocks_count_hi) == 0x150);
    assert!(offset_of!(RawSuper, flags) == 0x160);
    assert!(offset_of!(RawSuper, checksum_type) == 0x175);
    assert!(offset_of!(RawSuper, overhead_clusters) == 0x248);
    assert!(offset_of!(RawSuper, checksum_seed) == 0x270);
};
