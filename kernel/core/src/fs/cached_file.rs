//! Regular files whose data lives in the page cache.

use super::file::{File, FileOps};
use super::inode::{Inode, Timespec};
use super::iov::IovIter;
use super::mount::ms;
use crate::mm::page_cache::PageCache;
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

/// An open regular file over the pages of its inode.
pub struct CachedFile {
    inode: Arc<Inode>,
    cache: Arc<PageCache>,
}

impl CachedFile {
    /// The behaviour of an open file; `cache` is the inode's one cache.
    pub fn new(inode: Arc<Inode>, cache: Arc<PageCache>) -> Arc<Self> {
        Arc::new(Self { inode, cache })
    }
}

/// Updates the access time as the mount wants it: relatime moves it only past a change, or after a day.
pub fn accessed(file: &File) {
    let Some(p) = &file.path else { return };
    if file.flags() & c::O_NOATIME != 0 || p.mnt.flags() & ms::NOATIME != 0 || p.mnt.read_only() {
        return;
    }
    let (atime, mtime, ctime) = file.inode.update(|a| (a.atime, a.mtime, a.ctime));
    let now = Timespec::now();
    if atime <= mtime || atime <= ctime || now.sec.saturating_sub(atime.sec) >= 86_400 {
        file.inode.update(|a| a.atime = now);
    }
}

impl FileOps for CachedFile {
    fn try_read(&self, file: &File, pos: u64, to: &mut IovIter<'_>) -> Result<usize> {
        let n = self.cache.try_read(pos, to)?;
        if n > 0 && pos == 0 {
            accessed(file);
        }
        Ok(n)
    }

    fn try_write(&self, file: &File, pos: u64, from: &mut IovIter<'_>) -> Result<usize> {
        let guard = self.inode.lock_writes();
        let size = self.cache.size();
        let pos = if file.flags() & c::O_APPEND != 0 { size } else { pos };
        if from.remaining() == 0 {
            return Ok(0);
        }
        if pos >= i64::MAX as u64 {
            return Err(Errno::EFBIG);
        }
        from.truncate(usize::try_from(i64::MAX as u64 - pos).unwrap_or(usize::MAX));
        self.inode.ops.check_write(&self.inode, pos, from.remaining() as u64, size)?;
        let n = self.cache.try_write(pos, from)?;
        drop(guard);
        super::attr::drop_suid(&self.inode);
        self.inode.touch_modified();
        Ok(n)
    }

    fn fill(&self, pos: u64, len: usize) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.cache.fill(pos, len))
    }

    fn seekable(&self) -> bool {
        true
    }

    fn size(&self) -> u64 {
        self.cache.size()
    }

    fn mapping(&self) -> Option<Arc<PageCache>> {
        Some(Arc::clone(&self.cache))
    }

    fn ioctl<'a>(
        &'a self,
        cur: &'a Arc<Task>,
        file: &'a File,
        cmd: u32,
        arg: u64,
    ) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            if cmd != uapi::raw::ioctl::FIONREAD {
                return Err(Errno::ENOTTY);
            }
            let left = self.cache.size().saturating_sub(file.pos());
            let left = i32::try_from(left).unwrap_or(i32::MAX);
            cur.mm().write_obj(arg, &left).await.map(|()| 0)
        })
    }
}
