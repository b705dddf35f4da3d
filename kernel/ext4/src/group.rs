//! Group descriptors: where the inode tables are, what is free.

use crate::Ext4;
use crate::csum;
use crate::disk::group::{DESC_CSUM_OFFSET, MIN_DESC_SIZE, RawGroup, RawGroupHi};
use crate::disk::{join, view};
use crate::features as f;
use klib::{Errno, Result};

/// A descriptor, decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub inode_table: u64,
    pub free_clusters: u32,
    pub free_inodes: u32,
}

impl Ext4 {
    /// The descriptor of `group`, its checksum verified.
    pub(crate) async fn group(&self, group: u32) -> Result<Group> {
        let sb = &self.sb;
        let (block, byte) = sb.desc_location(group);
        let buf = self.blocks.read(block).await?;
        let size = usize::from(sb.desc_size);
        let desc = buf.data.get(byte..byte + size).ok_or(Errno::EUCLEAN)?;
        let lo: &RawGroup = view(desc, 0).ok_or(Errno::EUCLEAN)?;
        let want = if sb.has_csum() {
            let crc = csum::crc32c(sb.csum_seed, &group.to_le_bytes());
            Some(csum::crc32c_with_hole(crc, desc, DESC_CSUM_OFFSET, 2) as u16)
        } else if sb.ro_compat & f::RO_COMPAT_GDT_CSUM != 0 {
            let crc = csum::crc16(csum::crc16(!0, &sb.uuid), &group.to_le_bytes());
            let crc = csum::crc16(crc, desc.get(..DESC_CSUM_OFFSET).unwrap_or(desc));
            Some(csum::crc16(crc, desc.get(MIN_DESC_SIZE..).unwrap_or(&[])))
        } else {
            None
        };
        if want.is_some_and(|want| want != lo.checksum.get()) {
            return Err(self.bad_csum("group descriptor", format_args!("group {group}")));
        }
        let hi: Option<&RawGroupHi> =
            if sb.incompat(f::INCOMPAT_64BIT) { view(desc, MIN_DESC_SIZE) } else { None };
        let wide = |lo: u16, hi: Option<u16>| u32::from(hi.unwrap_or(0)) << 16 | u32::from(lo);
        let inode_table = join(lo.inode_table_lo.get(), hi.map_or(0, |h| h.inode_table_hi.get()));
        if inode_table <= u64::from(sb.first_data_block)
            || !self.blocks.contains(inode_table, u64::from(sb.itable_blocks()))
        {
            return Err(
                self.corrupted("group descriptor", format_args!("group {group}: inode table {inode_table}"))
            );
        }
        Ok(Group {
            inode_table,
            free_clusters: wide(lo.free_blocks_count_lo.get(), hi.map(|h| h.free_blocks_count_hi.get())),
            free_inodes: wide(lo.free_inodes_count_lo.get(), hi.map(|h| h.free_inodes_count_hi.get())),
        })
    }
}
