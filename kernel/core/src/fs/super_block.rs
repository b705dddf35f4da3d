//! Super blocks: mounted file systems, and the table of file system types.

use super::inode::{Inode, makedev};
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What statfs(2) tells beyond the super block itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatFs {
    /// Bytes of a block.
    pub bsize: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Free blocks for users without privilege.
    pub bavail: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
}

/// What a file system does as a whole.
pub trait SuperOps: Send + Sync {
    /// Space and inodes.
    fn statfs(&self) -> StatFs {
        StatFs { bsize: 4096, ..StatFs::default() }
    }

    /// Options as /proc/mounts shows them, each with a leading comma.
    fn show_options(&self) -> String {
        String::new()
    }

    /// Makes everything durable.
    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// mount(2) with MS_REMOUNT: new options.
    fn remount(&self, _read_only: bool, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// A file system without state of its own as a whole.
pub struct PlainSuper;
impl SuperOps for PlainSuper {}

/// A mounted file system, whatever the number of places it is mounted at.
pub struct SuperBlock {
    /// `st_dev`.
    pub dev: u64,
    /// Type as /proc/filesystems names it.
    pub fs_type: &'static str,
    /// `f_type` of statfs(2).
    pub magic: u64,
    /// SB_RDONLY and the like (MS_* bits).
    flags: AtomicU32,
    /// What the file system does as a whole.
    pub ops: Box<dyn SuperOps>,
    next_ino: AtomicU64,
    pub(super) root: parking_lot::Mutex<std::sync::Weak<super::dentry::Dentry>>,
}

/// `MS_RDONLY`.
pub const MS_RDONLY: u32 = 1;

impl SuperBlock {
    /// A file system with an anonymous device number.
    pub fn new(fs_type: &'static str, magic: u64, flags: u32, ops: Box<dyn SuperOps>) -> Arc<Self> {
        static NEXT_MINOR: AtomicU32 = AtomicU32::new(1);
        let dev = makedev(0, NEXT_MINOR.fetch_add(1, Ordering::Relaxed) & 0xf_ffff);
        Self::with_dev(dev, fs_type, magic, flags, ops)
    }

    /// A file system on the block device with this number.
    pub fn with_dev(
        dev: u64,
        fs_type: &'static str,
        magic: u64,
        flags: u32,
        ops: Box<dyn SuperOps>,
    ) -> Arc<Self> {
        Arc::new(Self {
            dev,
            fs_type,
            magic,
            flags: AtomicU32::new(flags),
            ops,
            next_ino: AtomicU64::new(1),
            root: parking_lot::Mutex::default(),
        })
    }

    /// A number for a new inode.
    pub fn new_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// True if nothing may be written.
    pub fn read_only(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & MS_RDONLY != 0
    }

    /// Allows or forbids writing.
    pub fn set_read_only(&self, on: bool) {
        if on {
            self.flags.fetch_or(MS_RDONLY, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!MS_RDONLY, Ordering::Relaxed);
        }
    }
}

/// What mount(2) gives to a file system.
pub struct MountArgs<'a> {
    /// Device or name given as source.
    pub source: &'a [u8],
    /// Options of the file system.
    pub data: &'a [u8],
    /// MS_* flags.
    pub flags: u32,
}

/// Mounts a file system and gives its root.
pub type MountFn = for<'a> fn(&'a Arc<Task>, MountArgs<'a>) -> BoxFuture<'a, Result<Arc<Inode>>>;

/// A kind of file system.
#[derive(Clone, Copy)]
pub struct FsType {
    /// Name for mount(2).
    pub name: &'static str,
    /// It needs a block device.
    pub needs_dev: bool,
    /// Mounts one.
    pub mount: MountFn,
}

static TYPES: RwLock<Vec<FsType>> = RwLock::new(Vec::new());

/// Adds a kind of file system; a second one of the same name is ignored.
pub fn register(t: FsType) {
    let mut types = TYPES.write();
    if !types.iter().any(|x| x.name == t.name) {
        types.push(t);
    }
}

/// The kind of this name, or `ENODEV`.
pub fn find(name: &[u8]) -> Result<FsType> {
    TYPES.read().iter().find(|t| t.name.as_bytes() == name).copied().ok_or(Errno::ENODEV)
}

/// All kinds, for /proc/filesystems.
pub fn types() -> Vec<FsType> {
    TYPES.read().clone()
}
