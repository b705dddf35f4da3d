//! The superblock, checked: the numbers everything else computes with.

use crate::MountError;
use crate::csum;
use crate::disk::superblock::{
    EXT2_FLAGS_UNSIGNED_HASH, EXT4_ERROR_FS, EXT4_SUPER_MAGIC, RawSuper, SUPER_SIZE,
};
use crate::disk::{join, view};
use crate::features as f;

/// What the superblock says, after all checks that later arithmetic relies on.
#[derive(Clone, Debug)]
pub(crate) struct Super {
    pub block_size: u32,
    pub block_bits: u32,
    pub blocks_count: u64,
    pub r_blocks_count: u64,
    pub free_blocks_count: u64,
    pub inodes_count: u32,
    pub free_inodes_count: u32,
    pub first_data_block: u32,
    pub blocks_per_group: u32,
    pub inodes_per_group: u32,
    pub groups_count: u32,
    pub inode_size: u16,
    pub first_ino: u32,
    pub desc_size: u16,
    pub reserved_gdt_blocks: u16,
    pub first_meta_bg: u32,
    pub cluster_bits: u32,
    pub overhead_clusters: u32,
    pub backup_bgs: [u32; 2],
    pub compat: u32,
    pub incompat: u32,
    pub ro_compat: u32,
    pub uuid: [u8; 16],
    pub label: Vec<u8>,
    pub last_mounted: Vec<u8>,
    pub journal_inum: u32,
    pub hash_seed: [u32; 4],
    pub hash_unsigned: bool,
    pub has_errors: bool,
    pub csum_seed: u32,
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|&b| b == 0).next().unwrap_or(&[]).to_vec()
}

fn corrupt<T>(what: impl Into<String>) -> Result<T, MountError> {
    Err(MountError::Corrupt(what.into()))
}

impl Super {
    /// Reads the 1024 bytes; `device_bytes` is the size of the device.
    pub fn parse(data: &[u8], device_bytes: u64) -> Result<Self, MountError> {
        let raw: &RawSuper = view(data, 0).ok_or(MountError::NotExt4)?;
        if raw.magic.get() != EXT4_SUPER_MAGIC {
            return Err(MountError::NotExt4);
        }
        let old = raw.rev_level.get() == 0;
        let (compat, incompat, ro_compat) = if old {
            (0, 0, 0)
        } else {
            (raw.feature_compat.get(), raw.feature_incompat.get(), raw.feature_ro_compat.get())
        };
        let csum = ro_compat & f::RO_COMPAT_METADATA_CSUM != 0;
        if csum {
            if raw.checksum_type != 1 {
                return Err(MountError::Unsupported(format!("checksum type {}", raw.checksum_type)));
            }
            let body = data.get(..SUPER_SIZE - 4).ok_or(MountError::NotExt4)?;
            if csum::crc32c(!0, body) != raw.checksum.get() {
                return Err(MountError::Checksum("superblock".into()));
            }
        }
        let unknown = incompat & !f::KNOWN_INCOMPAT;
        if unknown != 0 {
            return Err(MountError::Unsupported(f::incompat_names(unknown)));
        }
        let log = raw.log_block_size.get();
        if log > 6 {
            return corrupt(format!("block size of 2^{} bytes", u64::from(log) + 10));
        }
        let block_bits = log + 10;
        let block_size = 1u32 << block_bits;
        let bigalloc = ro_compat & f::RO_COMPAT_BIGALLOC != 0;
        let cluster_bits = if bigalloc {
            match raw.log_cluster_size.get().checked_sub(log) {
                Some(bits) if bits <= 20 => bits,
                _ => return corrupt("cluster size"),
            }
        } else {
            0
        };
        let wide = incompat & f::INCOMPAT_64BIT != 0;
        let hi = |v: u32| if wide { v } else { 0 };
        let blocks_count = join(raw.blocks_count_lo.get(), hi(raw.blocks_count_hi.get()));
        if blocks_count > device_bytes >> block_bits {
            return Err(MountError::DeviceTooSmall {
                need: u128::from(blocks_count) << block_bits,
                have: device_bytes,
            });
        }
        let first_data_block = raw.first_data_block.get();
        let expected_first = if block_size == 1024 && !bigalloc { 1 } else { 0 };
        if first_data_block != expected_first || u64::from(first_data_block) >= blocks_count {
            return corrupt(format!("first data block {first_data_block}"));
        }
        let blocks_per_group = raw.blocks_per_group.get();
        let max_bpg = (u64::from(block_size) * 8) << cluster_bits;
        if blocks_per_group == 0 || u64::from(blocks_per_group) > max_bpg {
            return corrupt(format!("{blocks_per_group} blocks per group"));
        }
        let inodes_per_group = raw.inodes_per_group.get();
        let inode_size = if old { 128 } else { raw.inode_size.get() };
        if !inode_size.is_power_of_two() || inode_size < 128 || u32::from(inode_size) > block_size {
            return corrupt(format!("inode size {inode_size}"));
        }
        if inodes_per_group == 0 || inodes_per_group > block_size * 8 {
            return corrupt(format!("{inodes_per_group} inodes per group"));
        }
        let desc_size = if wide { raw.desc_size.get() } else { 32 };
        if wide && (!desc_size.is_power_of_two() || !(64..=1024).contains(&desc_size)) {
            return corrupt(format!("descriptor size {desc_size}"));
        }
        let groups = (blocks_count - u64::from(first_data_block)).div_ceil(u64::from(blocks_per_group));
        let inodes_count = raw.inodes_count.get();
        if groups.checked_mul(u64::from(inodes_per_group)) != Some(u64::from(inodes_count)) {
            return corrupt(format!("{inodes_count} inodes in {groups} groups of {inodes_per_group}"));
        }
        let groups_count = u32::try_from(groups).or_else(|_| corrupt("too many groups"))?;
        let csum_seed = if incompat & f::INCOMPAT_CSUM_SEED != 0 {
            raw.checksum_seed.get()
        } else {
            csum::crc32c(!0, &raw.uuid)
        };
        Ok(Self {
            block_size,
            block_bits,
            blocks_count,
            r_blocks_count: join(raw.r_blocks_count_lo.get(), hi(raw.r_blocks_count_hi.get())),
            free_blocks_count: join(raw.free_blocks_count_lo.get(), hi(raw.free_blocks_count_hi.get())),
            inodes_count,
            free_inodes_count: raw.free_inodes_count.get(),
            first_data_block,
            blocks_per_group,
            inodes_per_group,
            groups_count,
            inode_size,
            first_ino: if old { 11 } else { raw.first_ino.get() },
            desc_size,
            reserved_gdt_blocks: raw.reserved_gdt_blocks.get(),
            first_meta_bg: raw.first_meta_bg.get(),
            cluster_bits,
            overhead_clusters: raw.overhead_clusters.get(),
            backup_bgs: raw.backup_bgs.map(|b| b.get()),
            compat,
            incompat,
            ro_compat,
            uuid: raw.uuid,
            label: until_nul(&raw.volume_name),
            last_mounted: until_nul(&raw.last_mounted),
            journal_inum: raw.journal_inum.get(),
            hash_seed: raw.hash_seed.map(|s| s.get()),
            hash_unsigned: raw.flags.get() & EXT2_FLAGS_UNSIGNED_HASH != 0,
            has_errors: raw.state.get() & EXT4_ERROR_FS != 0,
            csum_seed,
        })
    }

    /// True if metadata carries crc32c checksums.
    pub fn has_csum(&self) -> bool {
        self.ro_compat & f::RO_COMPAT_METADATA_CSUM != 0
    }

    /// True if the incompatible feature is on.
    pub fn incompat(&self, bit: u32) -> bool {
        self.incompat & bit != 0
    }

    /// Group descriptors in a block.
    pub fn descs_per_block(&self) -> u32 {
        self.block_size / u32::from(self.desc_size)
    }

    /// Blocks of an inode table.
    pub fn itable_blocks(&self) -> u32 {
        // At most 8 * 65536 inodes of at most 65536 bytes: needs 64 bits.
        let bytes = u64::from(self.inodes_per_group) * u64::from(self.inode_size);
        u32::try_from(bytes.div_ceil(u64::from(self.block_size))).unwrap_or(u32::MAX)
    }

    /// The first block of a group.
    pub fn group_first_block(&self, group: u32) -> u64 {
        u64::from(self.first_data_block) + u64::from(group) * u64::from(self.blocks_per_group)
    }

    /// True if a group starts with a copy of the superblock.
    pub fn group_has_super(&self, group: u32) -> bool {
        let power_of = |base: u32| {
            let mut n = base;
            while n < group {
                match n.checked_mul(base) {
                    Some(m) => n = m,
                    None => return false,
                }
            }
            n == group
        };
        if group == 0 {
            true
        } else if self.compat & f::COMPAT_SPARSE_SUPER2 != 0 {
            self.backup_bgs.contains(&group)
        } else if group == 1 || self.ro_compat & f::RO_COMPAT_SPARSE_SUPER == 0 {
            true
        } else {
            group % 2 == 1 && (power_of(3) || power_of(5) || power_of(7))
        }
    }

    /// The block that holds the descriptor of `group`, and the descriptor's byte in it.
    pub fn desc_location(&self, group: u32) -> (u64, usize) {
        let per_block = self.descs_per_block();
        let nr = group / per_block;
        let byte = (group % per_block) as usize * usize::from(self.desc_size);
        // The superblock is at byte 1024 of the device, whatever the first data block is (0 with bigalloc).
        let super_block = u64::from(self.block_size == 1024);
        let block = if !self.incompat(f::INCOMPAT_META_BG) || nr < self.first_meta_bg {
            super_block + 1 + u64::from(nr)
        } else {
            let first = nr * per_block;
            let boot_block = nr == 0 && super_block > u64::from(self.first_data_block);
            self.group_first_block(first) + u64::from(self.group_has_super(first)) + u64::from(boot_block)
        };
        (block, byte)
    }
}
