//! The ext4 file system (and ext2, ext3) over an async block trait: no tasks, no host calls.
//!
//! Read-only for now. A journal that needs recovery is honoured without a write: its committed blocks lie over the
//! disk as an overlay (`journal`). Everything a caller holds is an [`Inode`]; file data belongs to the caller's page
//! cache, which asks [`Ext4::map`] where a range of a file is and reads the device itself.
//!
//! ```text
//! let fs = Ext4::mount(io, MountOptions::default()).await?;      // Arc<Ext4>
//! let root = fs.inode(fs.root_ino()).await?;                     // Arc<Inode>
//! if let Some(ino) = fs.lookup(&root, b"etc").await? { ... }     // names
//! fs.readdir(&root, 0, &mut |e| { ...; true }).await?;           // entries with cookies
//! let ext = fs.map(&inode, logical, max).await?;                 // Extent { logical, len, state }
//! let bytes = fs.read(&inode, offset, len).await?;               // small reads, and ExtentState::Inline
//! let target = fs.readlink(&inode).await?;
//! let value = fs.getxattr(&inode, b"security.capability").await?;
//! ```
//!
//! Taken: every feature of mke2fs' defaults from ext2 to today (`extent`, `64bit`, `flex_bg`, `dir_index`,
//! `metadata_csum`, `metadata_csum_seed`, `uninit_bg`, `has_journal`, `orphan_file`, `huge_file`, `dir_nlink`,
//! `extra_isize`, `large_file`, `sparse_super`, `sparse_super2`, `ext_attr`, `resize_inode`), and `inline_data`,
//! `large_dir`, `meta_bg`, `bigalloc`, block maps, block sizes up to 64 KiB; as in Linux, what only writers must know
//! (`ro_compat`) does not stop a reader. Refused by name: all else, among it `encrypt`, `casefold`, `ea_inode`, `mmp`;
//! and a journal that needs recovery if it is external or holds fast commits.
//!
//! Layers, top to bottom: `dir`, `htree`, `symlink`, `xattr`, `map` on `inode` on `group`, `extents`, `indirect` on
//! `blocks` (cache and overlay) on [`BlockIo`]. `disk` has the structures, `csum` and `hash` the arithmetic.
//!
//! Everything in an image is believed only after its check. Damage is `EBADMSG` (a checksum) or `EUCLEAN` (a
//! structure), the names Linux gives `EFSBADCRC` and `EFSCORRUPTED`; each kind is logged once per mount as an error,
//! later ones at debug.
//!
//! Locks: the block cache's shards, the inode cache, the set of logged kinds; all leaves, none held over an await.
#![deny(unsafe_code)]

mod blocks;
mod cache;
mod csum;
mod dir;
mod dirblock;
mod disk;
mod extents;
mod features;
mod group;
mod hash;
mod htree;
mod indirect;
mod inode;
mod journal;
mod map;
mod mount;
mod statfs;
mod super_block;
mod symlink;
mod xattr;

pub use dir::DirEntry;
pub use inode::{Attr, FileType, Inode, Timespec};
pub use map::{Extent, ExtentState};
pub use mount::{MountError, MountOptions};
pub use statfs::StatFs;

use klib::{Errno, Result};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// A boxed future of a block request.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The disk under a file system. Writing, flushing and discarding come with the journal.
pub trait BlockIo: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Reads exactly `len` bytes at `offset`; both are multiples of 512.
    fn read(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Vec<u8>>>;
}

/// A mounted file system.
pub struct Ext4 {
    sb: super_block::Super,
    blocks: blocks::Blocks,
    inodes: Mutex<cache::Clock<u32, Inode>>,
    free: statfs::Free,
    logged: Mutex<HashSet<&'static str>>,
}

impl Ext4 {
    /// The inode number of the root directory.
    pub fn root_ino(&self) -> u32 {
        inode::ROOT_INO
    }

    /// The file system's UUID.
    pub fn uuid(&self) -> [u8; 16] {
        self.sb.uuid
    }

    /// The volume label, at most 16 bytes, possibly empty.
    pub fn label(&self) -> &[u8] {
        &self.sb.label
    }

    /// The directory it was last mounted on, as far as it is known.
    pub fn last_mounted(&self) -> &[u8] {
        &self.sb.last_mounted
    }

    /// Block size in bytes: the unit of [`map`](Self::map).
    pub fn block_size(&self) -> u32 {
        self.sb.block_size
    }

    /// `"ext2"`, `"ext3"` or `"ext4"`, by the features that only the later ones have (as blkid(8) decides).
    pub fn fs_type(&self) -> &'static str {
        use features as f;
        let ext4 = f::INCOMPAT_EXTENTS
            | f::INCOMPAT_64BIT
            | f::INCOMPAT_FLEX_BG
            | f::INCOMPAT_CSUM_SEED
            | f::INCOMPAT_INLINE_DATA
            | f::INCOMPAT_LARGEDIR;
        let ext4_ro = !(f::RO_COMPAT_SPARSE_SUPER | f::RO_COMPAT_LARGE_FILE);
        if self.sb.incompat & ext4 != 0 || self.sb.ro_compat & ext4_ro != 0 {
            "ext4"
        } else if self.sb.compat & f::COMPAT_HAS_JOURNAL != 0 {
            "ext3"
        } else {
            "ext2"
        }
    }

    /// Blocks whose committed content is read from the journal; 0 after a clean unmount.
    pub fn journal_overlay_len(&self) -> usize {
        self.blocks.overlay().len()
    }

    /// Blocks and inodes in the caches.
    pub fn cached(&self) -> (usize, usize) {
        (self.blocks.cached(), self.inodes.lock().len())
    }

    /// Notes damage of a structure and returns its error.
    fn corrupted(&self, what: &'static str, detail: fmt::Arguments<'_>) -> Errno {
        self.log_once(what, detail);
        Errno::EUCLEAN
    }

    /// Notes a wrong checksum and returns its error.
    fn bad_csum(&self, what: &'static str, detail: fmt::Arguments<'_>) -> Errno {
        self.log_once(what, format_args!("{detail}: wrong checksum"));
        Errno::EBADMSG
    }

    fn log_once(&self, what: &'static str, detail: fmt::Arguments<'_>) {
        let first = self.logged.lock().insert(what);
        let level = if first { log::Level::Error } else { log::Level::Debug };
        log::log!(target: "ext4", level, "bad {what}: {detail}");
    }
}

impl fmt::Debug for Ext4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ext4").field("sb", &self.sb).finish_non_exhaustive()
    }
}
