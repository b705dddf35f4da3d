//! sendfile(2), splice(2), tee(2), copy_file_range(2): through a kernel buffer.
//! DIFFERS: pages are copied, not moved; what a pipe gave and the other side refused is lost with the error.

use super::file;
use crate::fs::file::File;
use crate::fs::iov::IovIter;
use crate::fs::pipe::PipeEnd;
use crate::syscall::{Fd, UserPtr};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

/// Bytes moved at a time.
const CHUNK: usize = 65_536;

/// Where one side of a copy reads or writes: at its own position, or at one that is given back.
struct Side<'a> {
    file: &'a Arc<File>,
    at: Option<u64>,
}

/// Copies up to `len` bytes. From a seekable file only what was written counts as read.
async fn copy(cur: &Arc<Task>, from: &mut Side<'_>, to: &mut Side<'_>, len: usize) -> Result<usize> {
    let mut total = 0;
    let mut buf = vec![0u8; len.min(CHUNK)];
    while total < len {
        let want = (len - total).min(CHUNK);
        let seekable = from.file.ops.seekable();
        let at = from.at.or_else(|| seekable.then(|| from.file.pos()));
        let got = match from.file.read(cur, at, &mut IovIter::kernel_dst(&mut buf[..want])).await {
            Ok(n) => n,
            Err(e) => return if total > 0 { Ok(total) } else { Err(e) },
        };
        if got == 0 {
            break;
        }
        let put = match to.file.write(cur, to.at, &mut IovIter::kernel_src(&buf[..got])).await {
            Ok(n) => n,
            Err(e) => return if total > 0 { Ok(total) } else { Err(e) },
        };
        total += put;
        if let Some(p) = &mut from.at {
            *p += put as u64;
        } else if let Some(p) = at {
            from.file.set_pos(p + put as u64);
        }
        if let Some(p) = &mut to.at {
            *p += put as u64;
        }
        if put < got || got < want {
            // A pipe or socket that is empty now, the end of a file, or a full target.
            break;
        }
    }
    Ok(total)
}

/// sendfile(2).
pub async fn sys_sendfile64(
    cur: &Arc<Task>,
    out: Fd,
    input: Fd,
    offset: UserPtr<i64>,
    count: usize,
) -> Result<u64> {
    let (i, o) = (file(cur, input)?, file(cur, out)?);
    if !i.readable() || !o.writable() {
        return Err(Errno::EBADF);
    }
    if o.flags() & c::O_APPEND != 0 {
        return Err(Errno::EINVAL);
    }
    let at = match offset.read_opt(cur).await? {
        Some(p) => {
            if !i.ops.seekable() {
                return Err(Errno::ESPIPE);
            }
            Some(u64::try_from(p).map_err(|_| Errno::EINVAL)?)
        }
        None => None,
    };
    let mut from = Side { file: &i, at };
    let n = copy(cur, &mut from, &mut Side { file: &o, at: None }, count.min(super::rw::MAX_RW)).await?;
    if let Some(p) = from.at {
        offset.write(cur, &p.cast_signed()).await?;
    }
    Ok(n as u64)
}

/// copy_file_range(2).
pub async fn sys_copy_file_range(
    cur: &Arc<Task>,
    input: Fd,
    off_in: UserPtr<i64>,
    out: Fd,
    off_out: UserPtr<i64>,
    len: usize,
    flags: u32,
) -> Result<u64> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let (i, o) = (file(cur, input)?, file(cur, out)?);
    if !i.readable() || !o.writable() || o.flags() & c::O_APPEND != 0 {
        return Err(Errno::EBADF);
    }
    if i.inode.is_dir() || o.inode.is_dir() {
        return Err(Errno::EISDIR);
    }
    if !i.inode.is_regular() || !o.inode.is_regular() {
        return Err(Errno::EINVAL);
    }
    let place = |p: Option<i64>| p.map(|p| u64::try_from(p).map_err(|_| Errno::EINVAL)).transpose();
    let a = place(off_in.read_opt(cur).await?)?;
    let b = place(off_out.read_opt(cur).await?)?;
    let len = len.min(super::rw::MAX_RW);
    let (pa, pb) = (a.unwrap_or_else(|| i.pos()), b.unwrap_or_else(|| o.pos()));
    if Arc::ptr_eq(&i.inode, &o.inode)
        && pa < pb.saturating_add(len as u64)
        && pb < pa.saturating_add(len as u64)
    {
        return Err(Errno::EINVAL);
    }
    let (mut from, mut to) = (Side { file: &i, at: a }, Side { file: &o, at: b });
    let n = copy(cur, &mut from, &mut to, len).await?;
    if let Some(p) = from.at {
        off_in.write(cur, &p.cast_signed()).await?;
    }
    if let Some(p) = to.at {
        off_out.write(cur, &p.cast_signed()).await?;
    }
    Ok(n as u64)
}

/// splice(2).
pub async fn sys_splice(
    cur: &Arc<Task>,
    input: Fd,
    off_in: UserPtr<i64>,
    out: Fd,
    off_out: UserPtr<i64>,
    len: usize,
    flags: u32,
) -> Result<u64> {
    if flags & !0xf != 0 {
        return Err(Errno::EINVAL);
    }
    let (i, o) = (file(cur, input)?, file(cur, out)?);
    if !i.readable() || !o.writable() {
        return Err(Errno::EBADF);
    }
    let (pipe_in, pipe_out) = (i.ops_as::<PipeEnd>(), o.ops_as::<PipeEnd>());
    if pipe_in.is_none() && pipe_out.is_none() {
        return Err(Errno::EINVAL);
    }
    if (pipe_in.is_some() && !off_in.is_null()) || (pipe_out.is_some() && !off_out.is_null()) {
        return Err(Errno::ESPIPE);
    }
    const SPLICE_F_NONBLOCK: u32 = 2;
    let mut len = len.min(super::rw::MAX_RW);
    if flags & SPLICE_F_NONBLOCK != 0 {
        if let Some(p) = &pipe_in {
            if p.pipe().is_empty() && i.poll_now() & crate::fs::poll::POLLHUP == 0 {
                return Err(Errno::EAGAIN);
            }
            len = len.min(p.pipe().len());
        } else if let Some(p) = &pipe_out {
            let room = p.pipe().size().saturating_sub(p.pipe().len());
            if room == 0 {
                return Err(Errno::EAGAIN);
            }
            len = len.min(room);
        }
    }
    let place = |p: Option<i64>| p.map(|p| u64::try_from(p).map_err(|_| Errno::EINVAL)).transpose();
    let mut from = Side { file: &i, at: place(off_in.read_opt(cur).await?)? };
    let mut to = Side { file: &o, at: place(off_out.read_opt(cur).await?)? };
    if (from.at.is_some() && !i.ops.seekable()) || (to.at.is_some() && !o.ops.seekable()) {
        return Err(Errno::ESPIPE);
    }
    // One chunk: a splice from a pipe takes what is there.
    let n = copy(cur, &mut from, &mut to, len.min(CHUNK)).await?;
    if let Some(p) = from.at {
        off_in.write(cur, &p.cast_signed()).await?;
    }
    if let Some(p) = to.at {
        off_out.write(cur, &p.cast_signed()).await?;
    }
    Ok(n as u64)
}

/// tee(2).
pub async fn sys_tee(cur: &Arc<Task>, input: Fd, out: Fd, len: usize, flags: u32) -> Result<u64> {
    let (i, o) = (file(cur, input)?, file(cur, out)?);
    let (Some(a), Some(b)) = (i.ops_as::<PipeEnd>(), o.ops_as::<PipeEnd>()) else {
        return Err(Errno::EINVAL);
    };
    if !i.readable() || !o.writable() {
        return Err(Errno::EBADF);
    }
    if flags & !0xf != 0 || Arc::ptr_eq(a.pipe(), b.pipe()) {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    if flags & 2 == 0 && !i.nonblocking() {
        i.wait_ready(cur, crate::fs::poll::POLLIN, None).await?;
    }
    let bytes = a.pipe().peek(len.min(CHUNK));
    if bytes.is_empty() {
        return if i.poll_now() & crate::fs::poll::POLLHUP != 0 { Ok(0) } else { Err(Errno::EAGAIN) };
    }
    let n = o.write(cur, None, &mut IovIter::kernel_src(&bytes)).await?;
    Ok(n as u64)
}
