//! close(2), dup(2), close_range(2), flock(2), ioctl(2), fsync(2) and what else works on a descriptor alone.

use super::file;
use crate::syscall::{Fd, UserPtr};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

/// close(2). SO_LINGER waits here, until a signal comes at the latest.
///
/// DIFFERS: dup2(2), close_range(2) and execve(2) close without that wait.
pub async fn sys_close(cur: &Arc<Task>, fd: Fd) -> Result<u64> {
    let f = cur.files().remove(fd.0)?;
    let r = f.ops.flush();
    let linger = f.ops.linger();
    drop(f);
    if let Some(mut l) = linger {
        let deadline = executor::time::now() + l.limit;
        // The file is gone however the wait ends.
        cur.wait_event(Some(deadline), |table| (l.over)(table).then_some(())).await.ok();
    }
    r.map(|()| 0)
}

/// close_range(2).
pub fn sys_close_range(cur: &Arc<Task>, first: u32, last: u32, flags: u32) -> Result<u64> {
    const UNSHARE: u32 = 2;
    const CLOEXEC: u32 = 4;
    if flags & !(UNSHARE | CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    if flags & UNSHARE != 0 {
        let own = Arc::new(cur.files().duplicate());
        cur.replace_files(own);
    }
    cur.files().close_range(first as usize, last as usize, flags & CLOEXEC != 0);
    Ok(0)
}

/// dup(2).
pub fn sys_dup(cur: &Arc<Task>, fd: Fd) -> Result<u64> {
    let f = cur.files().get(fd.0)?;
    super::open::install(cur, f, 0)
}

/// dup2(2).
pub fn sys_dup2(cur: &Arc<Task>, old: Fd, new: Fd) -> Result<u64> {
    let f = cur.files().get(old.0)?;
    if old != new {
        drop(cur.files().replace(new.0, f, false, cur.nofile_limit())?);
    }
    u64::try_from(new.0).map_err(|_| Errno::EBADF)
}

/// dup3(2).
pub fn sys_dup3(cur: &Arc<Task>, old: Fd, new: Fd, flags: u32) -> Result<u64> {
    if flags & !c::O_CLOEXEC != 0 || old == new {
        return Err(Errno::EINVAL);
    }
    let f = cur.files().get(old.0)?;
    drop(cur.files().replace(new.0, f, flags & c::O_CLOEXEC != 0, cur.nofile_limit())?);
    u64::try_from(new.0).map_err(|_| Errno::EBADF)
}

/// flock(2).
pub async fn sys_flock(cur: &Arc<Task>, fd: Fd, op: u32) -> Result<u64> {
    let f = file(cur, fd)?;
    let locks = f.inode.locks();
    let exclusive = match op & !c::LOCK_NB {
        c::LOCK_SH => false,
        c::LOCK_EX => true,
        c::LOCK_UN => {
            locks.unflock(f.id());
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL),
    };
    if op & c::LOCK_NB != 0 {
        locks.try_flock(f.id(), exclusive)?;
    } else {
        locks.flock(cur, f.id(), exclusive).await?;
    }
    Ok(0)
}

/// ioctl(2): what every file knows, then the file's own.
pub async fn sys_ioctl(cur: &Arc<Task>, fd: Fd, cmd: u32, arg: u64) -> Result<u64> {
    const FIOCLEX: u32 = 0x5451;
    const FIONCLEX: u32 = 0x5450;
    const FIONBIO: u32 = 0x5421;
    const FIOASYNC: u32 = 0x5452;
    let f = file(cur, fd)?;
    match cmd {
        FIOCLEX => cur.files().set_cloexec(fd.0, true)?,
        FIONCLEX => cur.files().set_cloexec(fd.0, false)?,
        FIONBIO | FIOASYNC => {
            let on = UserPtr::<i32>::new(arg).read(cur).await? != 0;
            let bit = if cmd == FIONBIO { c::O_NONBLOCK } else { c::FASYNC };
            f.set_flags(if on { f.flags() | bit } else { f.flags() & !bit });
        }
        _ => return f.ops.ioctl(cur, &f, cmd, arg).await,
    }
    Ok(0)
}

/// fsync(2).
pub async fn sys_fsync(cur: &Arc<Task>, fd: Fd) -> Result<u64> {
    sync(cur, fd, false).await
}

/// fdatasync(2).
pub async fn sys_fdatasync(cur: &Arc<Task>, fd: Fd) -> Result<u64> {
    sync(cur, fd, true).await
}

async fn sync(cur: &Arc<Task>, fd: Fd, data_only: bool) -> Result<u64> {
    let f = file(cur, fd)?;
    if !f.inode.is_regular() && !f.inode.is_dir() && f.inode.kind != crate::fs::inode::S_IFBLK {
        return Err(Errno::EINVAL);
    }
    f.inode.ops.fsync(&f.inode, data_only).get().await?;
    Ok(0)
}

/// sync(2).
pub async fn sys_sync(cur: &Arc<Task>) -> Result<u64> {
    let mut seen = Vec::new();
    for m in cur.fs().ns().mounts() {
        if !seen.contains(&m.sb.dev) {
            seen.push(m.sb.dev);
            m.sb.ops.sync().await.ok();
        }
    }
    Ok(0)
}

/// syncfs(2).
pub async fn sys_syncfs(cur: &Arc<Task>, fd: Fd) -> Result<u64> {
    let f = file(cur, fd)?;
    f.inode.sb.ops.sync().await.map(|()| 0)
}

/// sync_file_range(2).
pub async fn sys_sync_file_range(cur: &Arc<Task>, fd: Fd, pos: i64, len: i64, flags: u32) -> Result<u64> {
    let f = file(cur, fd)?;
    if flags & !7 != 0 || pos < 0 || len < 0 {
        return Err(Errno::EINVAL);
    }
    if !f.ops.seekable() {
        return Err(Errno::ESPIPE);
    }
    f.inode.ops.fsync(&f.inode, true).get().await.map(|()| 0)
}

/// posix_fadvise(2): hints.
pub fn sys_fadvise64(cur: &Arc<Task>, fd: Fd, _pos: i64, len: i64, advice: u32) -> Result<u64> {
    let f = file(cur, fd)?;
    if f.inode.kind == crate::fs::inode::S_IFIFO {
        return Err(Errno::ESPIPE);
    }
    if advice > 5 || len < 0 { Err(Errno::EINVAL) } else { Ok(0) }
}

/// readahead(2).
pub async fn sys_readahead(cur: &Arc<Task>, fd: Fd, pos: i64, len: usize) -> Result<u64> {
    let f = file(cur, fd)?;
    if !f.readable() {
        return Err(Errno::EBADF);
    }
    if !f.inode.is_regular() {
        return Err(Errno::EINVAL);
    }
    let pos = u64::try_from(pos).map_err(|_| Errno::EINVAL)?;
    let len = len.min(2 << 20).min(usize::try_from(f.ops.size().saturating_sub(pos)).unwrap_or(0));
    if len > 0 {
        f.ops.fill(pos, len).await?;
    }
    Ok(0)
}
