//! Disks as files: /dev/ubda over the page cache.
//! DIFFERS: writing through the node is refused; file systems write to the device themselves.

use super::file::{File, FileOps};
use super::iov::IovIter;
use crate::mm::page_cache::{PageCache, PageSource};
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use device::block::BlockDevice;
use std::sync::Arc;
use std::sync::OnceLock;
use uapi::raw::general as c;

/// A disk that the kernel knows.
pub struct Disk {
    /// Kernel name, for example `ubda`.
    pub name: String,
    /// Device number.
    pub number: u64,
    /// The driver.
    pub dev: Arc<dyn BlockDevice>,
    cache: OnceLock<Arc<PageCache>>,
}

impl Disk {
    /// A disk with this number.
    pub fn new(number: u64, dev: Arc<dyn BlockDevice>) -> Arc<Self> {
        Arc::new(Self { name: dev.name().to_owned(), number, dev, cache: OnceLock::new() })
    }

    /// open(2) of its node.
    pub fn open(self: &Arc<Self>, flags: u32) -> Result<Arc<dyn FileOps>> {
        if self.dev.read_only() && flags & c::O_ACCMODE != c::O_RDONLY {
            return Err(Errno::EACCES);
        }
        let cache = self.cache.get_or_init(|| {
            let source = Arc::new(DiskSource(Arc::clone(&self.dev)));
            PageCache::new_backed(source, self.dev.size())
        });
        Ok(Arc::new(DiskFile { disk: Arc::clone(self), cache: Arc::clone(cache) }))
    }
}

struct DiskSource(Arc<dyn BlockDevice>);

impl PageSource for DiskSource {
    fn fill(&self, offset: u64, len: usize, mem: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            // Behind the end of the disk, up to the end of the page, there are zeros.
            let have = usize::try_from(self.0.size().saturating_sub(offset)).unwrap_or(usize::MAX).min(len);
            let whole = have / 512 * 512;
            if whole < len {
                crate::mm::frames::frames().phys().zero(mem + whole as u64, len - whole);
            }
            if whole > 0 { self.0.read_frames(offset, whole, mem).await } else { Ok(()) }
        })
    }
}

struct DiskFile {
    disk: Arc<Disk>,
    cache: Arc<PageCache>,
}

impl FileOps for DiskFile {
    fn try_read(&self, _file: &File, pos: u64, to: &mut IovIter<'_>) -> Result<usize> {
        self.cache.try_read(pos, to)
    }

    fn try_write(&self, _file: &File, _pos: u64, _from: &mut IovIter<'_>) -> Result<usize> {
        Err(Errno::EROFS)
    }

    fn fill(&self, pos: u64, len: usize) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.cache.fill(pos, len))
    }

    fn seekable(&self) -> bool {
        true
    }

    fn size(&self) -> u64 {
        self.disk.dev.size()
    }

    fn mapping(&self) -> Option<Arc<PageCache>> {
        Some(Arc::clone(&self.cache))
    }

    fn ioctl<'a>(
        &'a self,
        cur: &'a Arc<Task>,
        _file: &'a File,
        cmd: u32,
        arg: u64,
    ) -> BoxFuture<'a, Result<u64>> {
        const BLKROGET: u32 = 0x125e;
        const BLKGETSIZE: u32 = 0x1260;
        const BLKFLSBUF: u32 = 0x1261;
        const BLKSSZGET: u32 = 0x1268;
        const BLKBSZGET: u32 = 0x8008_1270;
        const BLKGETSIZE64: u32 = 0x8008_1272;
        const BLKIOMIN: u32 = 0x1278;
        const BLKIOOPT: u32 = 0x1279;
        const BLKPBSZGET: u32 = 0x127b;
        Box::pin(async move {
            let d = &self.disk.dev;
            let mm = cur.mm();
            match cmd {
                BLKROGET => mm.write_obj(arg, &i32::from(d.read_only())).await?,
                BLKGETSIZE => mm.write_obj(arg, &(d.size() / 512)).await?,
                BLKGETSIZE64 => mm.write_obj(arg, &d.size()).await?,
                BLKSSZGET | BLKPBSZGET | BLKIOMIN => mm.write_obj(arg, &d.sector_size()).await?,
                BLKBSZGET => mm.write_obj(arg, &4096u32).await?,
                BLKIOOPT => mm.write_obj(arg, &0u32).await?,
                BLKFLSBUF => d.flush().await?,
                _ => return Err(Errno::ENOTTY),
            }
            Ok(0)
        })
    }
}
