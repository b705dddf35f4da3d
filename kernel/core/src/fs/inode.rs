//! Inodes: what a file system knows of a file, and the operations it offers on it.
//!
//! Lock order: a file system's own tree lock > `Inode::attr` > page cache. `attr` is never held over a call of
//! [`InodeOps`].

use super::file::FileOps;
use super::path::Path;
use super::super_block::SuperBlock;
use crate::mm::page_cache::PageCache;
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use parking_lot::{Mutex, MutexGuard, RwLock};
use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// Mask of the file type in a mode (inode(7)).
pub const S_IFMT: u32 = 0o170_000;
/// Regular file.
pub const S_IFREG: u32 = 0o100_000;
/// Directory.
pub const S_IFDIR: u32 = 0o040_000;
/// Symbolic link.
pub const S_IFLNK: u32 = 0o120_000;
/// Character device.
pub const S_IFCHR: u32 = 0o020_000;
/// Block device.
pub const S_IFBLK: u32 = 0o060_000;
/// FIFO.
pub const S_IFIFO: u32 = 0o010_000;
/// Socket.
pub const S_IFSOCK: u32 = 0o140_000;
/// Set-user-ID.
pub const S_ISUID: u32 = 0o4000;
/// Set-group-ID.
pub const S_ISGID: u32 = 0o2000;
/// Sticky.
pub const S_ISVTX: u32 = 0o1000;

/// A time as stat(2) gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timespec {
    /// Seconds since 1970.
    pub sec: i64,
    /// Nanoseconds, below 10^9.
    pub nsec: u32,
}

impl Timespec {
    /// The current time of CLOCK_REALTIME.
    pub fn now() -> Self {
        let ns = arch::host::clock::realtime_ns();
        Self {
            sec: i64::try_from(ns / 1_000_000_000).unwrap_or(0),
            nsec: u32::try_from(ns % 1_000_000_000).unwrap_or(0),
        }
    }
}

/// What stat(2) tells of an inode.
#[derive(Clone, Debug, Default)]
pub struct Attr {
    /// Type and permissions.
    pub mode: u32,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, as [`makedev`] makes it.
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// Units of 512 bytes in use.
    pub blocks: u64,
    /// Last access.
    pub atime: Timespec,
    /// Last change of the data.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
    /// Birth.
    pub btime: Timespec,
}

/// What changes by chmod, chown, utimensat and truncate; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct SetAttr {
    /// Permission bits (without the type).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<Timespec>,
    /// Modification time.
    pub mtime: Option<Timespec>,
}

/// A device number (makedev(3)), in the 64-bit encoding of stat(2).
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (ma, mi) = (major as u64, minor as u64);
    (mi & 0xff) | ((ma & 0xfff) << 8) | ((mi & !0xff) << 12) | ((ma & !0xfff) << 32)
}

/// Major part of a device number.
#[allow(clippy::cast_possible_truncation)]
pub const fn major(dev: u64) -> u32 {
    (((dev >> 8) & 0xfff) | ((dev >> 32) & !0xfff)) as u32
}

/// Minor part of a device number.
#[allow(clippy::cast_possible_truncation)]
pub const fn minor(dev: u64) -> u32 {
    ((dev & 0xff) | ((dev >> 12) & 0xffff_ff00)) as u32
}

/// An answer that is there at once, or after the disk has been read.
pub enum Answer<'a, T> {
    /// No sleep was needed.
    Now(Result<T>),
    /// The disk has to be read.
    Later(BoxFuture<'a, Result<T>>),
}

impl<T> Answer<'_, T> {
    /// The answer, sleeping if it must.
    pub async fn get(self) -> Result<T> {
        match self {
            Self::Now(r) => r,
            Self::Later(f) => f.await,
        }
    }
}

/// One name that a directory listing gives.
pub struct DirEnt<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Inode number.
    pub ino: u64,
    /// `S_IFMT` bits of the type, 0 if unknown.
    pub kind: u32,
    /// Where a listing goes on behind this name.
    pub next: u64,
}

/// Takes one name; false when it is full (the name was not taken).
pub type DirSink<'a> = dyn FnMut(&DirEnt<'_>) -> bool + Send + 'a;

/// A new file: what mknod, mkdir, symlink and open with O_CREAT ask for.
pub struct NewInode<'a> {
    /// Type and permissions, umask applied.
    pub mode: u32,
    /// Device number for device nodes.
    pub rdev: u64,
    /// Target of a symbolic link.
    pub target: &'a [u8],
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// How setxattr(2) treats an existing name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    /// Create or replace.
    Any,
    /// XATTR_CREATE.
    Create,
    /// XATTR_REPLACE.
    Replace,
}

/// What a file system does with an inode. Defaults answer as Linux does for a file of a read-only or simple kind.
/// The VFS has checked permissions, types and mounts before it calls.
pub trait InodeOps: Any + Send + Sync {
    /// The inode of `name` in a directory, or `ENOENT`.
    fn lookup<'a>(&'a self, _dir: &'a Arc<Inode>, _name: &'a [u8]) -> Answer<'a, Arc<Inode>> {
        Answer::Now(Err(Errno::ENOTDIR))
    }

    /// Makes `name` in a directory.
    fn create<'a>(
        &'a self,
        _dir: &'a Arc<Inode>,
        _name: &'a [u8],
        _new: &'a NewInode<'a>,
    ) -> Answer<'a, Arc<Inode>> {
        Answer::Now(Err(Errno::EROFS))
    }

    /// Adds a hard link.
    fn link<'a>(&'a self, _dir: &'a Arc<Inode>, _name: &'a [u8], _to: &'a Arc<Inode>) -> Answer<'a, ()> {
        Answer::Now(Err(Errno::EPERM))
    }

    /// Removes a name; of a directory only if it is empty (`ENOTEMPTY`).
    fn unlink<'a>(
        &'a self,
        _dir: &'a Arc<Inode>,
        _name: &'a [u8],
        _victim: &'a Arc<Inode>,
    ) -> Answer<'a, ()> {
        Answer::Now(Err(Errno::EPERM))
    }

    /// Renames; `flags` are RENAME_NOREPLACE and RENAME_EXCHANGE. Both directories are of this file system.
    fn rename<'a>(
        &'a self,
        _from: (&'a Arc<Inode>, &'a [u8]),
        _to: (&'a Arc<Inode>, &'a [u8]),
        _flags: u32,
    ) -> Answer<'a, ()> {
        Answer::Now(Err(Errno::EPERM))
    }

    /// Lists a directory from `pos` (2 is the first; the VFS gives `.` and `..`).
    fn readdir<'a>(&'a self, _dir: &'a Arc<Inode>, _pos: u64, _sink: &'a mut DirSink<'a>) -> Answer<'a, ()> {
        Answer::Now(Err(Errno::ENOTDIR))
    }

    /// Target of a symbolic link.
    fn readlink<'a>(&'a self, _inode: &'a Arc<Inode>, _cur: &'a Arc<Task>) -> Answer<'a, Vec<u8>> {
        Answer::Now(Err(Errno::EINVAL))
    }

    /// Where a link of /proc leads that is no text (exe, cwd, fd/N); `None` for all other links.
    fn magic_link(&self, _inode: &Arc<Inode>, _cur: &Arc<Task>) -> Option<Result<Path>> {
        None
    }

    /// A regular file in a directory's file system that has no name (O_TMPFILE).
    fn tmpfile(&self, _dir: &Arc<Inode>, _new: &NewInode<'_>) -> Result<Arc<Inode>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Behaviour of the file when opened (regular files; the VFS handles directories, devices and FIFOs).
    fn open(&self, _inode: &Arc<Inode>, _cur: &Arc<Task>, _flags: u32) -> Result<Arc<dyn FileOps>> {
        Err(Errno::ENXIO)
    }

    /// Corrects what [`Inode::attr`] holds (size and blocks of cached files, living files of /proc).
    fn getattr(&self, _inode: &Inode, _attr: &mut Attr) {}

    /// Asked before a change of attributes takes effect; `EROFS` by default. `EPERM` to refuse.
    fn setattr<'a>(&'a self, _inode: &'a Arc<Inode>, _set: &'a SetAttr) -> Answer<'a, ()> {
        Answer::Now(Err(Errno::EROFS))
    }

    /// May `len` bytes be written at `pos` of a file of `size` bytes: seals, space. Called with the write lock held.
    fn check_write(&self, _inode: &Arc<Inode>, _pos: u64, _len: u64, _size: u64) -> Result<()> {
        Ok(())
    }

    /// F_ADD_SEALS and F_GET_SEALS of memory files: adds `seals`, gives what is set.
    fn seals(&self, _add: u32) -> Result<u32> {
        Err(Errno::EINVAL)
    }

    /// fallocate(2) with its mode.
    fn fallocate(&self, _inode: &Arc<Inode>, _mode: u32, _pos: u64, _len: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Pages of the file, for mmap(2) and execve(2).
    fn mapping(&self, _inode: &Arc<Inode>) -> Option<Arc<PageCache>> {
        None
    }

    /// False if this name may come, go or change its inode without the VFS (/proc/PID): it is not cached.
    fn cacheable(&self, _name: &[u8]) -> bool {
        true
    }

    /// False if names may come without the VFS: that one is not there is not remembered.
    fn cache_absent(&self) -> bool {
        true
    }

    /// Value of an extended attribute, or `ENODATA`.
    fn getxattr<'a>(&'a self, _inode: &'a Arc<Inode>, _name: &'a [u8]) -> Answer<'a, Vec<u8>> {
        Answer::Now(Err(Errno::EOPNOTSUPP))
    }

    /// Sets an extended attribute.
    fn setxattr(&self, _inode: &Arc<Inode>, _name: &[u8], _value: &[u8], _mode: XattrMode) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Names of all extended attributes, each with a NUL.
    fn listxattr<'a>(&'a self, _inode: &'a Arc<Inode>) -> Answer<'a, Vec<u8>> {
        Answer::Now(Ok(Vec::new()))
    }

    /// Removes an extended attribute.
    fn removexattr(&self, _inode: &Arc<Inode>, _name: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes data and attributes durable.
    fn fsync<'a>(&'a self, _inode: &'a Arc<Inode>, _data_only: bool) -> Answer<'a, ()> {
        Answer::Now(Ok(()))
    }
}

/// A file as the file system knows it.
pub struct Inode {
    /// Number, unique in its super block.
    pub ino: u64,
    /// The file system it is of.
    pub sb: Arc<SuperBlock>,
    /// What the file system does with it.
    pub ops: Box<dyn InodeOps>,
    /// `S_IFMT` bits; never changes.
    pub kind: u32,
    attr: RwLock<Attr>,
    /// Serialises appends and truncation.
    pub write_lock: Mutex<()>,
    /// Counts changes of a directory, so that a lookup that ran beside one is not cached.
    pub(super) dir_gen: AtomicU64,
    /// Advisory locks, made when first used.
    pub(super) locks: OnceLock<Box<super::locks::FileLocks>>,
    /// The pipe of a FIFO while somebody has it open.
    pub(super) fifo: Mutex<Weak<super::pipe::Pipe>>,
    /// The socket bound to this name (unix(7)); the socket side stores and reads it.
    pub socket: Mutex<Option<Weak<dyn Any + Send + Sync>>>,
    /// Processes that run or map it for execution (ETXTBSY), less those that write it.
    pub deny_write: std::sync::atomic::AtomicI32,
}

impl Inode {
    /// A new inode.
    pub fn new(sb: Arc<SuperBlock>, ino: u64, ops: Box<dyn InodeOps>, attr: Attr) -> Arc<Self> {
        Arc::new(Self {
            ino,
            sb,
            ops,
            kind: attr.mode & S_IFMT,
            attr: RwLock::new(attr),
            write_lock: Mutex::new(()),
            dir_gen: AtomicU64::new(0),
            locks: OnceLock::new(),
            fifo: Mutex::new(Weak::new()),
            socket: Mutex::new(None),
            deny_write: std::sync::atomic::AtomicI32::new(0),
        })
    }

    /// Attributes as stat(2) gives them now.
    pub fn attr(&self) -> Attr {
        let mut a = self.attr.read().clone();
        self.ops.getattr(self, &mut a);
        a
    }

    /// Mode, owner and group alone (permission checks).
    pub fn owner_mode(&self) -> (u32, u32, u32) {
        let a = self.attr.read();
        (a.mode, a.uid, a.gid)
    }

    /// Changes the stored attributes.
    pub fn update<R>(&self, f: impl FnOnce(&mut Attr) -> R) -> R {
        f(&mut self.attr.write())
    }

    /// Marks the data as changed now.
    pub fn touch_modified(&self) {
        let now = Timespec::now();
        self.update(|a| {
            a.mtime = now;
            a.ctime = now;
        });
    }

    /// Marks the inode as changed now.
    pub fn touch_changed(&self) {
        let now = Timespec::now();
        self.update(|a| a.ctime = now);
    }

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == S_IFDIR
    }

    /// True for a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind == S_IFLNK
    }

    /// True for a regular file.
    pub fn is_regular(&self) -> bool {
        self.kind == S_IFREG
    }

    /// Device number of a device node.
    pub fn rdev(&self) -> u64 {
        self.attr.read().rdev
    }

    /// Advisory locks of this file.
    pub fn locks(&self) -> &super::locks::FileLocks {
        self.locks.get_or_init(Box::default)
    }

    /// The file system's own state of this inode.
    pub fn ops_as<T: InodeOps>(&self) -> Option<&T> {
        let any: &dyn Any = &*self.ops;
        any.downcast_ref::<T>()
    }

    /// Guard under which the size of the file is stable.
    pub fn lock_writes(&self) -> MutexGuard<'_, ()> {
        self.write_lock.lock()
    }

    pub(super) fn generation(&self) -> u64 {
        self.dir_gen.load(Ordering::Acquire)
    }

    pub(in crate::fs) fn bump(&self) {
        self.dir_gen.fetch_add(1, Ordering::AcqRel);
    }
}
