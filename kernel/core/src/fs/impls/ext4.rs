//! ext4 (and ext2, ext3) behind the VFS: the crate `ext4` answers where things are, the page cache holds file data
//! and reads the disk itself. Read-only until the crate writes.

use crate::fs::cached_file::CachedFile;
use crate::fs::devices;
use crate::fs::file::FileOps;
use crate::fs::inode::{Answer, Attr, DirEnt, DirSink, Inode, InodeOps, S_IFMT, Timespec, makedev};
use crate::fs::super_block::{FsType, MS_RDONLY, MountArgs, StatFs, SuperBlock, SuperOps};
use crate::mm::frames::frames;
use crate::mm::page_cache::{PageCache, PageSource};
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use device::block::BlockDevice;
use ext4::{Ext4, ExtentState, MountOptions};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

/// f_type of ext2, ext3 and ext4.
const EXT4_MAGIC: u64 = 0xef53;

struct DiskIo(Arc<dyn BlockDevice>);

impl ext4::BlockIo for DiskIo {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Vec<u8>>> {
        self.0.read(offset, len)
    }
}

/// A mounted file system, shared by its inodes.
struct Mounted {
    fs: Arc<Ext4>,
    dev: Arc<dyn BlockDevice>,
    /// Inodes in use: one for a number, whatever its names.
    inodes: Mutex<HashMap<u32, Weak<Inode>>>,
}

impl Mounted {
    async fn inode(self: &Arc<Self>, sb: &Arc<SuperBlock>, ino: u32) -> Result<Arc<Inode>> {
        if let Some(i) = self.inodes.lock().get(&ino).and_then(Weak::upgrade) {
            return Ok(i);
        }
        let disk = self.fs.inode(ino).await?;
        let mut map = self.inodes.lock();
        if let Some(i) = map.get(&ino).and_then(Weak::upgrade) {
            return Ok(i);
        }
        let attr = convert(&disk.attr());
        let ops = Ext4Inode { m: Arc::clone(self), disk, cache: OnceLock::new() };
        let i = Inode::new(Arc::clone(sb), u64::from(ino), Box::new(ops), attr);
        map.insert(ino, Arc::downgrade(&i));
        Ok(i)
    }
}

fn time(t: ext4::Timespec) -> Timespec {
    Timespec { sec: t.sec, nsec: t.nsec }
}

fn convert(a: &ext4::Attr) -> Attr {
    Attr {
        mode: u32::from(a.mode),
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: makedev(a.rdev.0, a.rdev.1),
        size: a.size,
        blocks: a.blocks,
        atime: time(a.atime),
        mtime: time(a.mtime),
        ctime: time(a.ctime),
        btime: a.crtime.map(time).unwrap_or_default(),
    }
}

impl SuperOps for Arc<Mounted> {
    fn statfs(&self) -> StatFs {
        let s = self.fs.statfs();
        StatFs {
            bsize: s.bsize,
            blocks: s.blocks,
            bfree: s.bfree,
            bavail: s.bavail,
            files: s.files,
            ffree: s.ffree,
        }
    }

    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        self.dev.flush()
    }

    fn remount(&self, read_only: bool, _data: &[u8]) -> Result<()> {
        if read_only { Ok(()) } else { Err(Errno::EROFS) }
    }
}

/// One file on disk.
struct Ext4Inode {
    m: Arc<Mounted>,
    disk: Arc<ext4::Inode>,
    cache: OnceLock<Arc<PageCache>>,
}

impl Drop for Ext4Inode {
    fn drop(&mut self) {
        let mut map = self.m.inodes.lock();
        // Another may have taken the place already.
        if map.get(&self.disk.ino()).is_some_and(|w| w.strong_count() == 0) {
            map.remove(&self.disk.ino());
        }
    }
}

impl Ext4Inode {
    fn pages(&self) -> &Arc<PageCache> {
        self.cache.get_or_init(|| {
            let source = Source { m: Arc::clone(&self.m), disk: Arc::clone(&self.disk) };
            PageCache::new_backed(Arc::new(source), self.disk.size())
        })
    }
}

impl InodeOps for Ext4Inode {
    fn lookup<'a>(&'a self, dir: &'a Arc<Inode>, name: &'a [u8]) -> Answer<'a, Arc<Inode>> {
        Answer::Later(Box::pin(async move {
            let ino = self.m.fs.lookup(&self.disk, name).await?.ok_or(Errno::ENOENT)?;
            self.m.inode(&dir.sb, ino).await
        }))
    }

    fn readdir<'a>(&'a self, _dir: &'a Arc<Inode>, pos: u64, sink: &'a mut DirSink<'a>) -> Answer<'a, ()> {
        // Positions are the crate's cookies; 2 is the start. Its own `.` and `..` are the VFS's to give.
        let from = if pos <= 2 { 0 } else { pos };
        Answer::Later(Box::pin(async move {
            let mut emit = |e: ext4::DirEntry<'_>| {
                if matches!(e.name, b"." | b"..") || e.name.contains(&b'/') || e.name.contains(&0) {
                    return true;
                }
                let kind = u32::from(e.file_type.dt()) << 12 & S_IFMT;
                sink(&DirEnt { name: e.name, ino: u64::from(e.ino), kind, next: e.next_pos.max(3) })
            };
            self.m.fs.readdir(&self.disk, from, &mut emit).await
        }))
    }

    fn readlink<'a>(&'a self, _inode: &'a Arc<Inode>, _cur: &'a Arc<Task>) -> Answer<'a, Vec<u8>> {
        Answer::Later(Box::pin(self.m.fs.readlink(&self.disk)))
    }

    fn open(&self, inode: &Arc<Inode>, _cur: &Arc<Task>, _flags: u32) -> Result<Arc<dyn FileOps>> {
        Ok(CachedFile::new(Arc::clone(inode), Arc::clone(self.pages())))
    }

    fn mapping(&self, inode: &Arc<Inode>) -> Option<Arc<PageCache>> {
        inode.is_regular().then(|| Arc::clone(self.pages()))
    }

    fn getxattr<'a>(&'a self, _inode: &'a Arc<Inode>, name: &'a [u8]) -> Answer<'a, Vec<u8>> {
        Answer::Later(Box::pin(self.m.fs.getxattr(&self.disk, name)))
    }

    fn setxattr(
        &self,
        _inode: &Arc<Inode>,
        _name: &[u8],
        _value: &[u8],
        _mode: crate::fs::inode::XattrMode,
    ) -> Result<()> {
        Err(Errno::EROFS)
    }

    fn listxattr<'a>(&'a self, _inode: &'a Arc<Inode>) -> Answer<'a, Vec<u8>> {
        Answer::Later(Box::pin(async move {
            let names = self.m.fs.listxattr(&self.disk).await?;
            let mut out = Vec::new();
            for n in names {
                out.extend_from_slice(&n);
                out.push(0);
            }
            Ok(out)
        }))
    }

    fn removexattr(&self, _inode: &Arc<Inode>, _name: &[u8]) -> Result<()> {
        Err(Errno::EROFS)
    }
}

/// Where the pages of a file come from.
struct Source {
    m: Arc<Mounted>,
    disk: Arc<ext4::Inode>,
}

impl PageSource for Source {
    fn fill(&self, offset: u64, len: usize, mem: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let bs = u64::from(self.m.fs.block_size());
            let end = offset + len as u64;
            let size = self.disk.size();
            let phys = frames().phys();
            let mut pos = offset;
            while pos < end.min(size) {
                let logical = pos / bs;
                let ext = self.m.fs.map(&self.disk, logical, end.div_ceil(bs) - logical).await?;
                let stop = (logical + ext.len).saturating_mul(bs).min(end);
                let n = usize::try_from(stop.saturating_sub(pos)).map_err(|_| Errno::EIO)?;
                if n == 0 {
                    return Err(Errno::EIO);
                }
                let to = mem + (pos - offset);
                match ext.state {
                    ExtentState::Hole | ExtentState::Unwritten => phys.zero(to, n),
                    ExtentState::Mapped { physical } => {
                        let at = physical
                            .checked_mul(bs)
                            .and_then(|b| b.checked_add(pos % bs))
                            .ok_or(Errno::EIO)?;
                        self.m.dev.read_frames(at, n, to).await?;
                    }
                    ExtentState::Inline => {
                        let data = self.m.fs.read(&self.disk, pos, n).await?;
                        phys.zero(to, n);
                        phys.write(to, &data[..data.len().min(n)]);
                    }
                }
                pos = stop;
            }
            // Behind the end a mapping sees zeros, whatever the last block holds.
            let from = size.clamp(offset, end);
            if from < end {
                phys.zero(mem + (from - offset), usize::try_from(end - from).map_err(|_| Errno::EIO)?);
            }
            Ok(())
        })
    }
}

/// Roots of what is mounted, by device: a second mount shows the same file system.
static MOUNTED: Mutex<Option<HashMap<u64, Weak<Inode>>>> = Mutex::new(None);

/// Mounts a disk and gives its root.
pub async fn mount_disk(disk: &devices::DiskRef) -> Result<Arc<Inode>> {
    let known = |m: &Option<HashMap<u64, Weak<Inode>>>| {
        m.as_ref().and_then(|m| m.get(&disk.number)).and_then(Weak::upgrade)
    };
    if let Some(root) = known(&MOUNTED.lock()) {
        return Ok(root);
    }
    let io = Arc::new(DiskIo(Arc::clone(&disk.dev)));
    let fs = Ext4::mount(io, MountOptions::default()).await.map_err(|e| {
        log::error!(target: "ext4", "{}: {e}", disk.name);
        e.errno()
    })?;
    let kind = fs.fs_type();
    let ino = fs.root_ino();
    let m = Arc::new(Mounted { fs, dev: Arc::clone(&disk.dev), inodes: Mutex::default() });
    let sb = SuperBlock::with_dev(disk.number, kind, EXT4_MAGIC, MS_RDONLY, Box::new(Arc::clone(&m)));
    let root = m.inode(&sb, ino).await?;
    if !root.is_dir() {
        log::error!(target: "ext4", "{}: the root is no directory", disk.name);
        return Err(Errno::EUCLEAN);
    }
    MOUNTED.lock().get_or_insert_default().insert(disk.number, Arc::downgrade(&root));
    log::info!(target: "ext4", "{}: mounted {kind} file system read-only", disk.name);
    Ok(root)
}

fn mount<'a>(cur: &'a Arc<Task>, args: MountArgs<'a>) -> BoxFuture<'a, Result<Arc<Inode>>> {
    Box::pin(async move {
        let disk = devices::disk_at(cur, args.source).await?;
        if args.flags & MS_RDONLY == 0 {
            // As for a write-protected device: mount(8) then tries again with `ro` and says so.
            return Err(Errno::EROFS);
        }
        mount_disk(&disk).await
    })
}

/// Makes the three names known to mount(2).
pub fn register() {
    for name in ["ext4", "ext3", "ext2"] {
        crate::fs::super_block::register(FsType { name, needs_dev: true, mount });
    }
}
