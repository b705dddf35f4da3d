//! Mounting: superblock, journal, root.

use crate::blocks::Blocks;
use crate::cache::Clock;
use crate::disk::superblock::{SUPER_OFFSET, SUPER_SIZE};
use crate::features as f;
use crate::journal::{Layout, Overlay, recover};
use crate::statfs::Free;
use crate::super_block::Super;
use crate::{BlockIo, Ext4};
use klib::Errno;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// About how many bytes of metadata blocks to keep in memory.
    pub block_cache_bytes: usize,
    /// How many inodes to keep that nobody holds.
    pub inode_cache: usize,
    /// Linux' `noload`: leave the journal alone, even if it needs recovery. What is seen may be inconsistent.
    pub noload: bool,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self { block_cache_bytes: 16 << 20, inode_cache: 8192, noload: false }
    }
}

/// Why a mount failed; `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountError {
    /// No magic number.
    NotExt4,
    /// Features that are not supported, by name.
    Unsupported(String),
    /// A checksum is wrong; what of.
    Checksum(String),
    /// A structure is impossible; which.
    Corrupt(String),
    /// The device is smaller than the file system.
    DeviceTooSmall {
        /// Bytes of the file system.
        need: u128,
        /// Bytes of the device.
        have: u64,
    },
    /// The journal cannot be recovered; why.
    Journal(String),
    /// The device failed.
    Io(Errno),
}

impl MountError {
    /// What mount(2) returns.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotExt4 | Self::Unsupported(_) | Self::DeviceTooSmall { .. } => Errno::EINVAL,
            Self::Checksum(_) => Errno::EBADMSG,
            Self::Corrupt(_) | Self::Journal(_) => Errno::EUCLEAN,
            Self::Io(e) => *e,
        }
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotExt4 => f.write_str("not an ext2, ext3 or ext4 file system"),
            Self::Unsupported(names) => write!(f, "ext4: unsupported feature: {names}"),
            Self::Checksum(what) => write!(f, "ext4: wrong checksum: {what}"),
            Self::Corrupt(what) => write!(f, "ext4: corrupt superblock or root: {what}"),
            Self::DeviceTooSmall { need, have } => {
                write!(f, "ext4: the file system has {need} bytes, the device only {have}")
            }
            Self::Journal(why) => write!(f, "ext4: journal: {why}"),
            Self::Io(e) => write!(f, "ext4: cannot read the device: {e}"),
        }
    }
}

impl std::error::Error for MountError {}

impl Ext4 {
    /// Mounts the file system on `io`, read-only. A journal that needs recovery is read through, not written back.
    pub async fn mount(io: Arc<dyn BlockIo>, opts: MountOptions) -> Result<Arc<Self>, MountError> {
        let size = io.size();
        if size < SUPER_OFFSET + SUPER_SIZE as u64 {
            return Err(MountError::NotExt4);
        }
        let data = io.read(SUPER_OFFSET, SUPER_SIZE).await.map_err(MountError::Io)?;
        let sb = Super::parse(&data, size)?;
        let mut fs = Self::assemble(io.clone(), sb, Overlay::default(), &opts);
        let needs_recovery = fs.sb.incompat(f::INCOMPAT_RECOVER) && fs.sb.compat & f::COMPAT_HAS_JOURNAL != 0;
        if needs_recovery && opts.noload {
            log::warn!(target: "ext4", "journal needs recovery and is left alone (noload)");
        } else if needs_recovery {
            let layout = Layout::of(&fs).await?;
            let found = recover(&layout, fs.sb.block_size as usize, fs.sb.blocks_count).await?;
            log::info!(
                target: "ext4",
                "journal: {} transactions, {} blocks read from the journal",
                found.transactions,
                found.overlay.len()
            );
            // The superblock itself may be among what was committed.
            fs = Self::assemble(io.clone(), fs.sb, found.overlay, &opts);
            let nr = SUPER_OFFSET / u64::from(fs.sb.block_size);
            let buf = fs.blocks.read(nr).await.map_err(MountError::Io)?;
            let at = (SUPER_OFFSET % u64::from(fs.sb.block_size)) as usize;
            let sb = Super::parse(buf.data.get(at..).unwrap_or(&[]), size)?;
            if sb.block_size != fs.sb.block_size {
                return Err(MountError::Corrupt("the journal changes the block size".into()));
            }
            let Self { blocks, .. } = fs;
            fs = Self::assemble(io, sb, blocks.into_overlay(), &opts);
        }
        let corrupt = |what: &str, e: Errno| match e {
            Errno::EBADMSG => MountError::Checksum(what.into()),
            Errno::EUCLEAN | Errno::ESTALE => MountError::Corrupt(what.into()),
            e => MountError::Io(e),
        };
        let root = fs.inode(fs.root_ino()).await.map_err(|e| corrupt("root inode", e))?;
        if !root.is_dir() || root.attr().nlink == 0 {
            return Err(MountError::Corrupt("root inode is not a directory".into()));
        }
        fs.free = fs.count_free().await.map_err(|e| corrupt("group descriptors", e))?;
        if fs.sb.has_errors {
            log::warn!(target: "ext4", "mounting a file system with errors, running e2fsck is recommended");
        }
        Ok(Arc::new(fs))
    }

    fn assemble(io: Arc<dyn BlockIo>, sb: Super, overlay: Overlay, opts: &MountOptions) -> Self {
        let blocks = Blocks::new(io, sb.block_size, sb.blocks_count, overlay, opts.block_cache_bytes);
        let free = Free {
            clusters: sb.free_blocks_count >> sb.cluster_bits,
            inodes: u64::from(sb.free_inodes_count),
        };
        Self {
            sb,
            blocks,
            inodes: Mutex::new(Clock::new(opts.inode_cache)),
            free,
            logged: Mutex::new(HashSet::new()),
        }
    }
}
