//! Symbolic links: short ones in `i_block`, others in one block, or inline.

use crate::Ext4;
use crate::disk::inode::I_BLOCK_LEN;
use crate::inode::{FileType, Inode};
use crate::map::ExtentState;
use klib::{Errno, Result};

/// Longest target: `PATH_MAX` less its NUL.
const MAX_TARGET: u64 = 4095;

impl Ext4 {
    /// The target of a symbolic link.
    ///
    /// Errors: `EINVAL` for other files, `EUCLEAN` for an impossible length or a link without its block.
    pub async fn readlink(&self, inode: &Inode) -> Result<Vec<u8>> {
        if inode.file_type() != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        let bad = || self.corrupted("symbolic link", format_args!("inode {}", inode.ino()));
        let size = inode.size();
        if size == 0 || size > MAX_TARGET || size > u64::from(self.sb.block_size) {
            return Err(bad());
        }
        // At most 4095.
        let len = size as usize;
        let target = if inode.has_inline_data() {
            self.inline_data(inode)?.get(..len).map(<[u8]>::to_vec)
        } else if self.is_fast_symlink(inode) {
            if len >= I_BLOCK_LEN {
                return Err(bad());
            }
            inode.i_block().get(..len).map(<[u8]>::to_vec)
        } else {
            let ExtentState::Mapped { physical } = self.map_meta(inode, 0, 1).await?.state else {
                return Err(bad());
            };
            self.blocks.read(physical).await?.data.get(..len).map(<[u8]>::to_vec)
        };
        target.filter(|t| !t.contains(&0)).ok_or_else(bad)
    }

    /// A link without blocks (but for that of its attributes) has its target in the inode.
    fn is_fast_symlink(&self, inode: &Inode) -> bool {
        let ea = if inode.file_acl() != 0 {
            1u64 << (self.sb.block_bits + self.sb.cluster_bits).saturating_sub(9)
        } else {
            0
        };
        inode.attr().blocks.saturating_sub(ea) == 0
    }
}
