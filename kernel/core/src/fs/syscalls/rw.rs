//! read(2), write(2) and their families, lseek(2).

use super::file;
use crate::fs::file::File;
use crate::fs::iov::{IoVec, IovIter};
use crate::syscall::{Fd, UserPtr};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

/// Bytes that one call moves at most (MAX_RW_COUNT).
pub const MAX_RW: usize = 0x7fff_f000;
/// Elements of an iovec array (UIO_MAXIOV).
const MAX_IOV: usize = 1024;

/// Reads and checks an iovec array; what lies beyond [`MAX_RW`] bytes is cut off.
pub async fn import_iovec(cur: &Arc<Task>, iov: UserPtr<[u64; 2]>, n: usize) -> Result<Vec<IoVec>> {
    if n > MAX_IOV {
        return Err(Errno::EINVAL);
    }
    let mut left = MAX_RW;
    let mut out = Vec::with_capacity(n);
    for [base, len] in iov.read_vec(cur, n).await? {
        if i64::try_from(len).is_err() {
            return Err(Errno::EINVAL);
        }
        let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?.min(left);
        left -= len;
        out.push(IoVec { base, len });
    }
    Ok(out)
}

async fn rw(cur: &Arc<Task>, f: &File, at: Option<u64>, segs: &[IoVec], read: bool) -> Result<u64> {
    let mm = cur.mm();
    let mut iov = IovIter::user(&mm, segs);
    let n = if read { f.read(cur, at, &mut iov).await } else { f.write(cur, at, &mut iov).await };
    n.map(|n| n as u64)
}

/// A position argument of pread and friends; `None`: the file's own.
fn position(f: &File, pos: Option<i64>) -> Result<Option<u64>> {
    let Some(pos) = pos else { return Ok(None) };
    let pos = u64::try_from(pos).map_err(|_| Errno::EINVAL)?;
    if !f.ops.seekable() {
        return Err(Errno::ESPIPE);
    }
    Ok(Some(pos))
}

/// A read or write of one buffer.
async fn plain(
    cur: &Arc<Task>,
    fd: Fd,
    buf: UserPtr<u8>,
    len: usize,
    pos: Option<i64>,
    read: bool,
) -> Result<u64> {
    let f = file(cur, fd)?;
    let at = position(&f, pos)?;
    rw(cur, &f, at, &[IoVec { base: buf.addr(), len: len.min(MAX_RW) }], read).await
}

/// A read or write of several buffers.
async fn vector(
    cur: &Arc<Task>,
    fd: Fd,
    iov: UserPtr<[u64; 2]>,
    n: usize,
    pos: Option<i64>,
    read: bool,
) -> Result<u64> {
    let f = file(cur, fd)?;
    let at = position(&f, pos)?;
    let segs = import_iovec(cur, iov, n).await?;
    rw(cur, &f, at, &segs, read).await
}

/// read(2).
pub async fn sys_read(cur: &Arc<Task>, fd: Fd, buf: UserPtr<u8>, len: usize) -> Result<u64> {
    plain(cur, fd, buf, len, None, true).await
}

/// write(2).
pub async fn sys_write(cur: &Arc<Task>, fd: Fd, buf: UserPtr<u8>, len: usize) -> Result<u64> {
    plain(cur, fd, buf, len, None, false).await
}

/// pread64(2).
pub async fn sys_pread64(cur: &Arc<Task>, fd: Fd, buf: UserPtr<u8>, len: usize, pos: i64) -> Result<u64> {
    plain(cur, fd, buf, len, Some(pos), true).await
}

/// pwrite64(2).
pub async fn sys_pwrite64(cur: &Arc<Task>, fd: Fd, buf: UserPtr<u8>, len: usize, pos: i64) -> Result<u64> {
    plain(cur, fd, buf, len, Some(pos), false).await
}

/// readv(2).
pub async fn sys_readv(cur: &Arc<Task>, fd: Fd, iov: UserPtr<[u64; 2]>, n: usize) -> Result<u64> {
    vector(cur, fd, iov, n, None, true).await
}

/// writev(2).
pub async fn sys_writev(cur: &Arc<Task>, fd: Fd, iov: UserPtr<[u64; 2]>, n: usize) -> Result<u64> {
    vector(cur, fd, iov, n, None, false).await
}

/// preadv(2); the high half of the position is not used on 64-bit machines.
pub async fn sys_preadv(
    cur: &Arc<Task>,
    fd: Fd,
    iov: UserPtr<[u64; 2]>,
    n: usize,
    pos: i64,
    _high: u64,
) -> Result<u64> {
    vector(cur, fd, iov, n, Some(pos), true).await
}

/// pwritev(2).
pub async fn sys_pwritev(
    cur: &Arc<Task>,
    fd: Fd,
    iov: UserPtr<[u64; 2]>,
    n: usize,
    pos: i64,
    _high: u64,
) -> Result<u64> {
    vector(cur, fd, iov, n, Some(pos), false).await
}

/// RWF_* flags: hints are accepted; those that change the meaning are not there.
fn check_rwf(flags: u32) -> Result<()> {
    const RWF_HIPRI: u32 = 1;
    const RWF_DSYNC: u32 = 2;
    const RWF_SYNC: u32 = 4;
    if flags & !(RWF_HIPRI | RWF_DSYNC | RWF_SYNC) != 0 { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
}

/// preadv2(2); position -1 is the file's own.
pub async fn sys_preadv2(
    cur: &Arc<Task>,
    fd: Fd,
    iov: UserPtr<[u64; 2]>,
    n: usize,
    pos: i64,
    _high: u64,
    flags: u32,
) -> Result<u64> {
    check_rwf(flags)?;
    vector(cur, fd, iov, n, (pos != -1).then_some(pos), true).await
}

/// pwritev2(2).
pub async fn sys_pwritev2(
    cur: &Arc<Task>,
    fd: Fd,
    iov: UserPtr<[u64; 2]>,
    n: usize,
    pos: i64,
    _high: u64,
    flags: u32,
) -> Result<u64> {
    check_rwf(flags)?;
    vector(cur, fd, iov, n, (pos != -1).then_some(pos), false).await
}

/// lseek(2).
pub fn sys_lseek(cur: &Arc<Task>, fd: Fd, offset: i64, whence: u32) -> Result<u64> {
    let f = file(cur, fd)?;
    if let Some(r) = f.ops.seek(&f, offset, whence) {
        return r;
    }
    if !f.ops.seekable() {
        return Err(Errno::ESPIPE);
    }
    let signed = |n: u64| i64::try_from(n).map_err(|_| Errno::EOVERFLOW);
    let base = match whence {
        c::SEEK_SET => 0,
        c::SEEK_CUR => signed(f.pos())?,
        c::SEEK_END => signed(f.ops.size())?,
        c::SEEK_DATA | c::SEEK_HOLE => {
            // A file without holes: data from anywhere to the end, where the one hole begins.
            let (at, size) = (u64::try_from(offset).map_err(|_| Errno::ENXIO)?, f.ops.size());
            if at >= size {
                return Err(Errno::ENXIO);
            }
            let to = if whence == c::SEEK_DATA { at } else { size };
            f.set_pos(to);
            return Ok(to);
        }
        _ => return Err(Errno::EINVAL),
    };
    let to = base.checked_add(offset).ok_or(Errno::EOVERFLOW)?;
    let to = u64::try_from(to).map_err(|_| Errno::EINVAL)?;
    f.set_pos(to);
    Ok(to)
}
