//! tmpfs, ramfs, devtmpfs and the rootfs: files in memory (tmpfs(5)).
//!
//! All changes of the tree of one file system run under `TmpFs::tree`; lookups take only the directory's own lock.
//! Lock order: `TmpFs::tree` > `DirNode` of one directory > inode attributes.

mod mount;

pub use mount::register;

use crate::fs::cached_file::CachedFile;
use crate::fs::file::FileOps;
use crate::fs::inode::{
    Answer, Attr, DirEnt, DirSink, Inode, InodeOps, NewInode, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, SetAttr,
    Timespec, XattrMode,
};
use crate::fs::namei_ops::{RENAME_EXCHANGE, RENAME_NOREPLACE};
use crate::fs::super_block::{StatFs, SuperBlock, SuperOps};
use crate::mm::page_cache::PageCache;
use crate::task::Task;
use crate::{Errno, Result};
use parking_lot::Mutex;
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// f_type of tmpfs.
pub const TMPFS_MAGIC: u64 = 0x0102_1994;
/// f_type of ramfs, which the rootfs shows.
pub const RAMFS_MAGIC: u64 = 0x8584_58f6;
/// Bytes of all extended attributes of one inode.
const XATTR_MAX: usize = 128 << 10;

/// Limits and books of one tmpfs.
pub struct TmpFs {
    tree: Mutex<()>,
    max_pages: AtomicU64,
    pages: AtomicU64,
    max_inodes: AtomicU64,
    inodes: AtomicU64,
    show: bool,
}

impl TmpFs {
    fn new(max_pages: u64, max_inodes: u64, show: bool) -> Arc<Self> {
        Arc::new(Self {
            tree: Mutex::new(()),
            max_pages: AtomicU64::new(max_pages),
            pages: AtomicU64::new(0),
            max_inodes: AtomicU64::new(max_inodes),
            inodes: AtomicU64::new(0),
            show,
        })
    }

    fn take_inode(&self) -> Result<()> {
        let max = self.max_inodes.load(Ordering::Relaxed);
        self.inodes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1))
            .map(|_| ())
            .map_err(|_| Errno::ENOSPC)
    }
}

struct TmpSuper(Arc<TmpFs>);

impl SuperOps for TmpSuper {
    fn statfs(&self) -> StatFs {
        let f = &self.0;
        let blocks = f.max_pages.load(Ordering::Relaxed);
        let free = blocks.saturating_sub(f.pages.load(Ordering::Relaxed));
        let files = f.max_inodes.load(Ordering::Relaxed);
        let ffree = files.saturating_sub(f.inodes.load(Ordering::Relaxed));
        StatFs { bsize: 4096, blocks, bfree: free, bavail: free, files, ffree }
    }

    fn show_options(&self) -> String {
        if self.0.show {
            format!(",size={}k", self.0.max_pages.load(Ordering::Relaxed) * 4)
        } else {
            String::new()
        }
    }

    fn remount(&self, _read_only: bool, data: &[u8]) -> Result<()> {
        let o = mount::Options::parse(data)?;
        if let Some(p) = o.pages {
            self.0.max_pages.store(p, Ordering::Relaxed);
        }
        if let Some(n) = o.inodes {
            self.0.max_inodes.store(n, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[derive(Default)]
struct DirNode {
    by_name: HashMap<Box<[u8]>, (u64, Arc<Inode>)>,
    by_cookie: BTreeMap<u64, Box<[u8]>>,
    next: u64,
    dead: bool,
}

impl DirNode {
    fn insert(&mut self, name: &[u8], inode: Arc<Inode>) {
        self.next = self.next.max(2) + 1;
        self.by_cookie.insert(self.next, name.into());
        self.by_name.insert(name.into(), (self.next, inode));
    }

    fn remove(&mut self, name: &[u8]) -> Option<Arc<Inode>> {
        let (cookie, inode) = self.by_name.remove(name)?;
        self.by_cookie.remove(&cookie);
        Some(inode)
    }
}

enum Node {
    Dir(Mutex<DirNode>),
    File(Arc<PageCache>),
    Link(Box<[u8]>),
    Special,
}

type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// An inode of tmpfs.
pub struct TmpInode {
    fs: Arc<TmpFs>,
    node: Node,
    xattrs: Mutex<Option<Box<Xattrs>>>,
    /// F_SEAL_* of a memory file.
    seals: AtomicU32,
    /// Pages of this file that are in the books of the file system.
    booked: AtomicU64,
}

const F_SEAL_SEAL: u32 = 1;
const F_SEAL_SHRINK: u32 = 2;
const F_SEAL_GROW: u32 = 4;
const F_SEAL_WRITE: u32 = 8;
const F_SEAL_FUTURE_WRITE: u32 = 16;

/// Makes an inode that no directory names yet.
fn make(sb: &Arc<SuperBlock>, fs: &Arc<TmpFs>, new: &NewInode<'_>) -> Result<Arc<Inode>> {
    fs.take_inode()?;
    let node = match new.mode & S_IFMT {
        S_IFDIR => Node::Dir(Mutex::default()),
        S_IFREG => Node::File(PageCache::new_memory()),
        S_IFLNK => Node::Link(new.target.into()),
        _ => Node::Special,
    };
    let now = Timespec::now();
    let attr = Attr {
        mode: new.mode,
        nlink: if matches!(node, Node::Dir(_)) { 2 } else { 1 },
        uid: new.uid,
        gid: new.gid,
        rdev: new.rdev,
        size: new.target.len() as u64,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        ..Attr::default()
    };
    let ops = TmpInode {
        fs: Arc::clone(fs),
        node,
        xattrs: Mutex::new(None),
        seals: AtomicU32::new(F_SEAL_SEAL),
        booked: AtomicU64::new(0),
    };
    Ok(Inode::new(Arc::clone(sb), sb.new_ino(), Box::new(ops), attr))
}

/// The root of a new memory file system with these limits.
pub fn new_fs(
    fs_type: &'static str,
    magic: u64,
    pages: u64,
    inodes: u64,
    mode: u32,
    owner: (u32, u32),
    show: bool,
) -> Result<Arc<Inode>> {
    let fs = TmpFs::new(pages, inodes, show);
    let sb = SuperBlock::new(fs_type, magic, 0, Box::new(TmpSuper(Arc::clone(&fs))));
    let new = NewInode { mode: S_IFDIR | (mode & 0o7777), rdev: 0, target: &[], uid: owner.0, gid: owner.1 };
    make(&sb, &fs, &new)
}

/// The lowest root of the first mount namespace.
pub fn new_rootfs() -> Arc<Inode> {
    new_fs("rootfs", RAMFS_MAGIC, u64::MAX >> 12, u64::MAX, 0o755, (0, 0), false)
        .expect("an empty file system has room for its root")
}

/// A regular file in `like`'s file system that no directory names (memfd_create(2), shared anonymous memory).
/// `sealable` clears F_SEAL_SEAL.
pub fn new_unnamed(like: &Arc<Inode>, mode: u32, owner: (u32, u32), sealable: bool) -> Result<Arc<Inode>> {
    let t = like.ops_as::<TmpInode>().ok_or(Errno::EINVAL)?;
    let new = NewInode { mode: S_IFREG | mode, rdev: 0, target: &[], uid: owner.0, gid: owner.1 };
    let inode = make(&like.sb, &t.fs, &new)?;
    inode.update(|a| a.nlink = 0);
    if sealable && let Some(t) = inode.ops_as::<TmpInode>() {
        t.seals.store(0, Ordering::Relaxed);
    }
    Ok(inode)
}

impl TmpInode {
    fn dir(&self) -> Result<&Mutex<DirNode>> {
        match &self.node {
            Node::Dir(d) => Ok(d),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn book(&self, cache: &PageCache) {
        let now = cache.nr_pages();
        let before = self.booked.swap(now, Ordering::Relaxed);
        self.fs.pages.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    fn add(&self, dir: &Arc<Inode>, name: &[u8], inode: &Arc<Inode>) -> Result<()> {
        let mut d = self.dir()?.lock();
        if d.dead {
            return Err(Errno::ENOENT);
        }
        if d.by_name.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        d.insert(name, Arc::clone(inode));
        drop(d);
        if inode.is_dir() {
            dir.update(|a| a.nlink += 1);
        }
        Ok(())
    }

    /// Marks a directory as removed if it is empty.
    fn kill_dir(victim: &Arc<Inode>) -> Result<()> {
        let Some(t) = victim.ops_as::<Self>() else { return Err(Errno::EXDEV) };
        if let Node::Dir(d) = &t.node {
            let mut d = d.lock();
            if !d.by_name.is_empty() {
                return Err(Errno::ENOTEMPTY);
            }
            d.dead = true;
        }
        Ok(())
    }

    fn dropped_name(dir: &Arc<Inode>, victim: &Arc<Inode>) {
        let is_dir = victim.is_dir();
        victim.update(|a| a.nlink = if is_dir { 0 } else { a.nlink.saturating_sub(1) });
        victim.touch_changed();
        if is_dir {
            dir.update(|a| a.nlink = a.nlink.saturating_sub(1));
        }
    }

    fn do_unlink(&self, dir: &Arc<Inode>, name: &[u8], victim: &Arc<Inode>) -> Result<()> {
        let _tree = self.fs.tree.lock();
        match self.dir()?.lock().by_name.get(name) {
            Some((_, i)) if Arc::ptr_eq(i, victim) => {}
            _ => return Err(Errno::ENOENT),
        }
        Self::kill_dir(victim)?;
        let gone = self.dir()?.lock().remove(name);
        if let Some(v) = gone {
            Self::dropped_name(dir, &v);
        }
        Ok(())
    }

    fn do_rename(&self, from: (&Arc<Inode>, &[u8]), to: (&Arc<Inode>, &[u8]), flags: u32) -> Result<()> {
        let _tree = self.fs.tree.lock();
        let other = to.0.ops_as::<Self>().ok_or(Errno::EXDEV)?;
        let get = |t: &Self, n: &[u8]| -> Result<Option<Arc<Inode>>> {
            Ok(t.dir()?.lock().by_name.get(n).map(|(_, i)| Arc::clone(i)))
        };
        let a = get(self, from.1)?.ok_or(Errno::ENOENT)?;
        let b = get(other, to.1)?;
        if other.dir()?.lock().dead {
            return Err(Errno::ENOENT);
        }
        match &b {
            Some(_) if flags & RENAME_NOREPLACE != 0 => return Err(Errno::EEXIST),
            Some(b) if flags & RENAME_EXCHANGE == 0 => {
                Self::kill_dir(b)?;
            }
            None if flags & RENAME_EXCHANGE != 0 => return Err(Errno::ENOENT),
            _ => {}
        }
        self.dir()?.lock().remove(from.1);
        other.dir()?.lock().remove(to.1);
        other.dir()?.lock().insert(to.1, Arc::clone(&a));
        if a.is_dir() {
            from.0.update(|x| x.nlink = x.nlink.saturating_sub(1));
            to.0.update(|x| x.nlink += 1);
        }
        if let Some(b) = b {
            if flags & RENAME_EXCHANGE == 0 {
                Self::dropped_name(to.0, &b);
            } else {
                self.dir()?.lock().insert(from.1, Arc::clone(&b));
                if b.is_dir() {
                    to.0.update(|x| x.nlink = x.nlink.saturating_sub(1));
                    from.0.update(|x| x.nlink += 1);
                }
            }
        }
        Ok(())
    }

    fn truncate(&self, size: u64) -> Result<()> {
        let Node::File(cache) = &self.node else { return Err(Errno::EINVAL) };
        let seals = self.seals.load(Ordering::Relaxed);
        let old = cache.size();
        if (size < old && seals & F_SEAL_SHRINK != 0) || (size > old && seals & F_SEAL_GROW != 0) {
            return Err(Errno::EPERM);
        }
        cache.truncate(size)?;
        self.book(cache);
        Ok(())
    }
}

impl InodeOps for TmpInode {
    fn lookup<'a>(&'a self, _dir: &'a Arc<Inode>, name: &'a [u8]) -> Answer<'a, Arc<Inode>> {
        Answer::Now(
            self.dir()
                .and_then(|d| d.lock().by_name.get(name).map(|(_, i)| Arc::clone(i)).ok_or(Errno::ENOENT)),
        )
    }

    fn create<'a>(
        &'a self,
        dir: &'a Arc<Inode>,
        name: &'a [u8],
        new: &'a NewInode<'a>,
    ) -> Answer<'a, Arc<Inode>> {
        let _tree = self.fs.tree.lock();
        Answer::Now((|| {
            let inode = make(&dir.sb, &self.fs, new)?;
            self.add(dir, name, &inode)?;
            Ok(inode)
        })())
    }

    fn tmpfile(&self, dir: &Arc<Inode>, new: &NewInode<'_>) -> Result<Arc<Inode>> {
        let inode = make(&dir.sb, &self.fs, new)?;
        inode.update(|a| a.nlink = 0);
        Ok(inode)
    }

    fn link<'a>(&'a self, dir: &'a Arc<Inode>, name: &'a [u8], to: &'a Arc<Inode>) -> Answer<'a, ()> {
        let _tree = self.fs.tree.lock();
        Answer::Now(self.add(dir, name, to).map(|()| to.update(|a| a.nlink += 1)))
    }

    fn unlink<'a>(&'a self, dir: &'a Arc<Inode>, name: &'a [u8], victim: &'a Arc<Inode>) -> Answer<'a, ()> {
        Answer::Now(self.do_unlink(dir, name, victim))
    }

    fn rename<'a>(
        &'a self,
        from: (&'a Arc<Inode>, &'a [u8]),
        to: (&'a Arc<Inode>, &'a [u8]),
        flags: u32,
    ) -> Answer<'a, ()> {
        Answer::Now(self.do_rename(from, to, flags))
    }

    fn readdir<'a>(&'a self, _dir: &'a Arc<Inode>, pos: u64, sink: &'a mut DirSink<'a>) -> Answer<'a, ()> {
        Answer::Now((|| {
            let d = self.dir()?.lock();
            for (&cookie, name) in d.by_cookie.range(pos..) {
                let Some((_, i)) = d.by_name.get(name) else { continue };
                if !sink(&DirEnt { name, ino: i.ino, kind: i.kind, next: cookie + 1 }) {
                    break;
                }
            }
            Ok(())
        })())
    }

    fn readlink<'a>(&'a self, _inode: &'a Arc<Inode>, _cur: &'a Arc<Task>) -> Answer<'a, Vec<u8>> {
        Answer::Now(match &self.node {
            Node::Link(t) => Ok(t.to_vec()),
            _ => Err(Errno::EINVAL),
        })
    }

    fn open(&self, inode: &Arc<Inode>, _cur: &Arc<Task>, _flags: u32) -> Result<Arc<dyn FileOps>> {
        match &self.node {
            Node::File(cache) => Ok(CachedFile::new(Arc::clone(inode), Arc::clone(cache))),
            _ => Err(Errno::ENXIO),
        }
    }

    fn getattr(&self, _inode: &Inode, attr: &mut Attr) {
        match &self.node {
            Node::File(cache) => {
                attr.size = cache.size();
                attr.blocks = cache.nr_pages() * 8;
            }
            Node::Dir(d) => attr.size = d.lock().by_name.len() as u64 * 20 + 40,
            _ => {}
        }
    }

    fn setattr<'a>(&'a self, inode: &'a Arc<Inode>, set: &'a SetAttr) -> Answer<'a, ()> {
        Answer::Now(match set.size {
            Some(size) => {
                let _guard = inode.lock_writes();
                self.truncate(size)
            }
            None => Ok(()),
        })
    }

    fn check_write(&self, _inode: &Arc<Inode>, pos: u64, len: u64, size: u64) -> Result<()> {
        let Node::File(cache) = &self.node else { return Err(Errno::EINVAL) };
        let seals = self.seals.load(Ordering::Relaxed);
        let end = pos.saturating_add(len);
        if seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) != 0 || (end > size && seals & F_SEAL_GROW != 0) {
            return Err(Errno::EPERM);
        }
        // What the last write took is booked now; one write may go over the limit by its own length.
        self.book(cache);
        if end > size && self.fs.pages.load(Ordering::Relaxed) >= self.fs.max_pages.load(Ordering::Relaxed) {
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    fn seals(&self, add: u32) -> Result<u32> {
        if !matches!(self.node, Node::File(_)) {
            return Err(Errno::EINVAL);
        }
        if add != 0 {
            if add & !0x3f != 0 {
                return Err(Errno::EINVAL);
            }
            if self.seals.load(Ordering::Relaxed) & F_SEAL_SEAL != 0 {
                return Err(Errno::EPERM);
            }
            self.seals.fetch_or(add, Ordering::Relaxed);
        }
        Ok(self.seals.load(Ordering::Relaxed))
    }

    fn fallocate(&self, inode: &Arc<Inode>, mode: u32, pos: u64, len: u64) -> Result<()> {
        const KEEP_SIZE: u32 = 1;
        const PUNCH_HOLE: u32 = 2;
        let Node::File(cache) = &self.node else { return Err(Errno::ENODEV) };
        let end = pos.checked_add(len).filter(|&e| e <= i64::MAX as u64).ok_or(Errno::EFBIG)?;
        let _guard = inode.lock_writes();
        match mode {
            m if m == PUNCH_HOLE | KEEP_SIZE => {
                if self.seals.load(Ordering::Relaxed) & F_SEAL_WRITE != 0 {
                    return Err(Errno::EPERM);
                }
                cache.punch_hole(pos, len)?;
                self.book(cache);
                Ok(())
            }
            0 | KEEP_SIZE => {
                let free = self
                    .fs
                    .max_pages
                    .load(Ordering::Relaxed)
                    .saturating_sub(self.fs.pages.load(Ordering::Relaxed));
                let grow = end.saturating_sub(cache.size().max(pos)).div_ceil(4096);
                if grow > free {
                    return Err(Errno::ENOSPC);
                }
                if mode == 0 && end > cache.size() { self.truncate(end) } else { Ok(()) }
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn mapping(&self, _inode: &Arc<Inode>) -> Option<Arc<PageCache>> {
        match &self.node {
            Node::File(c) => Some(Arc::clone(c)),
            _ => None,
        }
    }

    fn getxattr<'a>(&'a self, _inode: &'a Arc<Inode>, name: &'a [u8]) -> Answer<'a, Vec<u8>> {
        if !known_xattr(name) {
            return Answer::Now(Err(Errno::EOPNOTSUPP));
        }
        let x = self.xattrs.lock();
        Answer::Now(x.as_ref().and_then(|m| m.get(name)).map(|v| v.to_vec()).ok_or(Errno::ENODATA))
    }

    fn setxattr(&self, _inode: &Arc<Inode>, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        if !known_xattr(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut x = self.xattrs.lock();
        let map = x.get_or_insert_default();
        match (map.contains_key(name), mode) {
            (true, XattrMode::Create) => return Err(Errno::EEXIST),
            (false, XattrMode::Replace) => return Err(Errno::ENODATA),
            _ => {}
        }
        let used: usize = map.iter().filter(|(k, _)| &***k != name).map(|(k, v)| k.len() + v.len()).sum();
        if used + name.len() + value.len() > XATTR_MAX {
            return Err(Errno::ENOSPC);
        }
        map.insert(name.into(), value.into());
        Ok(())
    }

    fn listxattr<'a>(&'a self, _inode: &'a Arc<Inode>) -> Answer<'a, Vec<u8>> {
        let mut out = Vec::new();
        if let Some(map) = self.xattrs.lock().as_ref() {
            for k in map.keys() {
                out.extend_from_slice(k);
                out.push(0);
            }
        }
        Answer::Now(Ok(out))
    }

    fn removexattr(&self, _inode: &Arc<Inode>, name: &[u8]) -> Result<()> {
        self.xattrs.lock().as_mut().and_then(|m| m.remove(name)).map(|_| ()).ok_or(Errno::ENODATA)
    }
}

/// Names that tmpfs keeps; POSIX ACLs (`system.`) are not among them.
fn known_xattr(name: &[u8]) -> bool {
    [&b"user."[..], b"trusted.", b"security."].iter().any(|p| name.starts_with(p) && name.len() > p.len())
}

impl Drop for TmpInode {
    /// Takes the tree below apart without recursion: it may be very deep.
    fn drop(&mut self) {
        self.fs.inodes.fetch_sub(1, Ordering::Relaxed);
        self.fs.pages.fetch_sub(self.booked.load(Ordering::Relaxed), Ordering::Relaxed);
        let Node::Dir(d) = &mut self.node else { return };
        let mut todo: Vec<Arc<Inode>> = d.get_mut().by_name.drain().map(|(_, (_, i))| i).collect();
        while let Some(i) = todo.pop() {
            let Some(mut inode) = Arc::into_inner(i) else { continue };
            let any: &mut dyn Any = &mut *inode.ops;
            if let Some(t) = any.downcast_mut::<Self>()
                && let Node::Dir(d) = &mut t.node
            {
                todo.extend(d.get_mut().by_name.drain().map(|(_, (_, i))| i));
            }
        }
    }
}
