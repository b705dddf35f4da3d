//! What statfs(2) says.

use crate::Ext4;
use crate::features as f;
use klib::Result;

/// Up to so many groups are asked for their free space at mount (8 TiB with 4 KiB blocks); above, the superblock's
/// totals must do, which after a crash may be old.
const MAX_COUNTED_GROUPS: u32 = 65536;
/// `ext4_calculate_resv_clusters`: one fiftieth, at most 4096.
const RESV_PART: u64 = 50;
const RESV_MAX: u64 = 4096;

/// Free space by the group descriptors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Free {
    pub clusters: u64,
    pub inodes: u64,
}

/// The fields of statfs(2) that are the file system's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    /// `EXT4_SUPER_MAGIC`.
    pub f_type: u64,
    /// Block size in bytes.
    pub bsize: u64,
    /// Blocks for data: all less the file system's own.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Free blocks less those reserved for root.
    pub bavail: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// From the UUID.
    pub fsid: u64,
    /// Longest name.
    pub namelen: u64,
}

impl Ext4 {
    /// Free space and inodes, by the groups.
    pub(crate) async fn count_free(&self) -> Result<Free> {
        let groups = self.sb.groups_count;
        if groups > MAX_COUNTED_GROUPS {
            return Ok(self.free);
        }
        let mut free = Free { clusters: 0, inodes: 0 };
        for group in 0..groups {
            let g = self.group(group).await?;
            free.clusters += u64::from(g.free_clusters);
            free.inodes += u64::from(g.free_inodes);
        }
        Ok(free)
    }

    /// Blocks that hold the file system's own structures, if the superblock does not say (`ext4_calculate_overhead`).
    fn overhead(&self) -> u64 {
        let sb = &self.sb;
        if sb.overhead_clusters != 0 {
            return u64::from(sb.overhead_clusters) << sb.cluster_bits;
        }
        let gdt =
            u64::from(sb.groups_count.div_ceil(sb.descs_per_block())) + u64::from(sb.reserved_gdt_blocks);
        let per_group = u64::from(sb.itable_blocks()) + 2;
        let groups = u64::from(sb.groups_count);
        let copies = if sb.groups_count <= MAX_COUNTED_GROUPS {
            (0..sb.groups_count).filter(|g| sb.group_has_super(*g)).count() as u64
        } else {
            0
        };
        u64::from(sb.first_data_block) + groups * per_group + copies * (1 + gdt)
    }

    /// The numbers of statfs(2).
    pub fn statfs(&self) -> StatFs {
        let sb = &self.sb;
        let bfree = self.free.clusters << sb.cluster_bits;
        let resv = if sb.incompat(f::INCOMPAT_EXTENTS) {
            ((sb.blocks_count >> sb.cluster_bits) / RESV_PART).min(RESV_MAX) << sb.cluster_bits
        } else {
            0
        };
        let half =
            |i: usize| sb.uuid.get(i..i + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        StatFs {
            f_type: 0xef53,
            bsize: u64::from(sb.block_size),
            blocks: sb.blocks_count.saturating_sub(self.overhead()),
            bfree,
            bavail: bfree.saturating_sub(sb.r_blocks_count.saturating_add(resv)),
            files: u64::from(sb.inodes_count),
            ffree: self.free.inodes,
            fsid: half(0) ^ half(8),
            namelen: 255,
        }
    }
}
