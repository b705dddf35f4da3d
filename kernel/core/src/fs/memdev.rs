//! The memory devices: null, zero, full, random, urandom (null(4), random(4)).

use super::devices::{OpenChr, register_chr};
use super::file::{File, FileOps};
use super::iov::IovIter;
use crate::mm::page_cache::PageCache;
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use std::sync::Arc;

struct Null;
struct Zero {
    /// /dev/full: writes find no space.
    full: bool,
}
struct Random;

static ZEROS: [u8; 4096] = [0; 4096];

/// Bytes that one try moves: a read of gigabytes must not keep a CPU to itself.
const CHUNK: usize = 4 << 20;

fn discard(from: &mut IovIter<'_>) -> usize {
    let n = from.remaining();
    from.advance(n);
    n
}

impl FileOps for Null {
    fn try_read(&self, _file: &File, _pos: u64, _to: &mut IovIter<'_>) -> Result<usize> {
        Ok(0)
    }

    fn try_write(&self, _file: &File, _pos: u64, from: &mut IovIter<'_>) -> Result<usize> {
        Ok(discard(from))
    }

    fn seek(&self, _file: &File, _offset: i64, _whence: u32) -> Option<Result<u64>> {
        Some(Ok(0))
    }
}

impl FileOps for Zero {
    fn try_read(&self, _file: &File, _pos: u64, to: &mut IovIter<'_>) -> Result<usize> {
        let mut done = 0;
        while to.remaining() > 0 && done < CHUNK {
            match to.copy_to(&ZEROS) {
                Ok(n) => {
                    done += n;
                    if n < ZEROS.len() {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn try_write(&self, _file: &File, _pos: u64, from: &mut IovIter<'_>) -> Result<usize> {
        if self.full && from.remaining() > 0 { Err(Errno::ENOSPC) } else { Ok(discard(from)) }
    }

    fn seek(&self, _file: &File, _offset: i64, _whence: u32) -> Option<Result<u64>> {
        Some(Ok(0))
    }

    fn mapping(&self) -> Option<Arc<PageCache>> {
        let cache = PageCache::new_memory();
        // As large as any mapping may be; nothing is held until it is touched.
        cache.truncate(1 << 46).ok()?;
        (!self.full).then_some(cache)
    }
}

impl FileOps for Random {
    fn try_read(&self, _file: &File, _pos: u64, to: &mut IovIter<'_>) -> Result<usize> {
        let mut done = 0;
        let mut buf = [0u8; 1024];
        while to.remaining() > 0 && done < CHUNK / 16 {
            let n = buf.len().min(to.remaining());
            arch::host::random::fill(&mut buf[..n])?;
            match to.copy_to(&buf[..n]) {
                Ok(k) => {
                    done += k;
                    if k < n {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn try_write(&self, _file: &File, _pos: u64, from: &mut IovIter<'_>) -> Result<usize> {
        Ok(discard(from))
    }

    fn ioctl<'a>(
        &'a self,
        cur: &'a Arc<Task>,
        _file: &'a File,
        cmd: u32,
        arg: u64,
    ) -> BoxFuture<'a, Result<u64>> {
        const RNDGETENTCNT: u32 = 0x8004_5200;
        Box::pin(async move {
            match cmd {
                RNDGETENTCNT => cur.mm().write_obj(arg, &256i32).await.map(|()| 0),
                _ => Err(Errno::EINVAL),
            }
        })
    }
}

fn open(o: &OpenChr<'_>) -> Result<Arc<dyn FileOps>> {
    Ok(match o.minor {
        3 => Arc::new(Null),
        5 => Arc::new(Zero { full: false }),
        7 => Arc::new(Zero { full: true }),
        8 | 9 => Arc::new(Random),
        11 => return crate::printk::open_kmsg(o),
        _ => return Err(Errno::ENXIO),
    })
}

/// Makes the devices known.
pub fn register() {
    register_chr(1, 3..=11, "mem", open);
}
