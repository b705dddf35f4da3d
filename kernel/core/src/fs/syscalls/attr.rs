//! chmod, chown, utimensat, truncate, fallocate.

use super::{file, target};
use crate::fs::attr::{self, NewTime};
use crate::fs::inode::{S_IFDIR, S_IFIFO, Timespec};
use crate::fs::namei::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, path_at};
use crate::fs::perm::{self, MAY_WRITE};
use crate::syscall::{Fd, UserPtr};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;

const CWD: Fd = Fd(AT_FDCWD);
const AT_FLAGS: u32 = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW;

/// chmod(2).
pub async fn sys_chmod(cur: &Arc<Task>, name: UserPtr<u8>, mode: u32) -> Result<u64> {
    sys_fchmodat2(cur, CWD, name, mode, 0).await
}

/// fchmodat(2).
pub async fn sys_fchmodat(cur: &Arc<Task>, dirfd: Fd, name: UserPtr<u8>, mode: u32) -> Result<u64> {
    sys_fchmodat2(cur, dirfd, name, mode, 0).await
}

/// fchmodat2(2).
pub async fn sys_fchmodat2(
    cur: &Arc<Task>,
    dirfd: Fd,
    name: UserPtr<u8>,
    mode: u32,
    flags: u32,
) -> Result<u64> {
    if flags & !AT_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let (inode, path) = target(cur, dirfd, name, flags).await?;
    attr::chmod(&cur.cred(), path.as_ref(), &inode, mode).await.map(|()| 0)
}

/// fchmod(2).
pub async fn sys_fchmod(cur: &Arc<Task>, fd: Fd, mode: u32) -> Result<u64> {
    let f = file(cur, fd)?;
    attr::chmod(&cur.cred(), f.path.as_ref(), &f.inode, mode).await.map(|()| 0)
}

/// chown(2).
pub async fn sys_chown(cur: &Arc<Task>, name: UserPtr<u8>, uid: u32, gid: u32) -> Result<u64> {
    sys_fchownat(cur, CWD, name, uid, gid, 0).await
}

/// lchown(2).
pub async fn sys_lchown(cur: &Arc<Task>, name: UserPtr<u8>, uid: u32, gid: u32) -> Result<u64> {
    sys_fchownat(cur, CWD, name, uid, gid, AT_SYMLINK_NOFOLLOW).await
}

/// fchownat(2).
pub async fn sys_fchownat(
    cur: &Arc<Task>,
    dirfd: Fd,
    name: UserPtr<u8>,
    uid: u32,
    gid: u32,
    flags: u32,
) -> Result<u64> {
    if flags & !AT_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let (inode, path) = target(cur, dirfd, name, flags).await?;
    attr::chown(&cur.cred(), path.as_ref(), &inode, uid, gid).await.map(|()| 0)
}

/// fchown(2).
pub async fn sys_fchown(cur: &Arc<Task>, fd: Fd, uid: u32, gid: u32) -> Result<u64> {
    let f = file(cur, fd)?;
    attr::chown(&cur.cred(), f.path.as_ref(), &f.inode, uid, gid).await.map(|()| 0)
}

type Times = Option<(NewTime, NewTime)>;

async fn set_times(cur: &Arc<Task>, dirfd: Fd, name: UserPtr<u8>, t: Times, flags: u32) -> Result<u64> {
    if flags & !AT_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    if name.is_null() {
        // futimens(3): the descriptor itself.
        let f = file(cur, dirfd)?;
        return attr::utimens(&cur.cred(), f.path.as_ref(), &f.inode, t).await.map(|()| 0);
    }
    let (inode, path) = target(cur, dirfd, name, flags).await?;
    attr::utimens(&cur.cred(), path.as_ref(), &inode, t).await.map(|()| 0)
}

fn new_time([sec, nsec]: [i64; 2]) -> Result<NewTime> {
    const UTIME_NOW: i64 = (1 << 30) - 1;
    const UTIME_OMIT: i64 = (1 << 30) - 2;
    match nsec {
        UTIME_NOW => Ok(NewTime::Now),
        UTIME_OMIT => Ok(NewTime::Omit),
        n => {
            let nsec = u32::try_from(n).ok().filter(|&n| n < 1_000_000_000).ok_or(Errno::EINVAL)?;
            Ok(NewTime::At(Timespec { sec, nsec }))
        }
    }
}

fn from_timeval([sec, usec]: [i64; 2]) -> Result<NewTime> {
    if !(0..1_000_000).contains(&usec) {
        return Err(Errno::EINVAL);
    }
    new_time([sec, usec * 1000])
}

/// utimensat(2).
pub async fn sys_utimensat(
    cur: &Arc<Task>,
    dirfd: Fd,
    name: UserPtr<u8>,
    times: UserPtr<[[i64; 2]; 2]>,
    flags: u32,
) -> Result<u64> {
    let t = match times.read_opt(cur).await? {
        None => None,
        Some([a, m]) => Some((new_time(a)?, new_time(m)?)),
    };
    set_times(cur, dirfd, name, t, flags).await
}

/// futimesat(2).
pub async fn sys_futimesat(
    cur: &Arc<Task>,
    dirfd: Fd,
    name: UserPtr<u8>,
    times: UserPtr<[[i64; 2]; 2]>,
) -> Result<u64> {
    let t = match times.read_opt(cur).await? {
        None => None,
        Some([a, m]) => Some((from_timeval(a)?, from_timeval(m)?)),
    };
    set_times(cur, dirfd, name, t, 0).await
}

/// utimes(2).
pub async fn sys_utimes(cur: &Arc<Task>, name: UserPtr<u8>, times: UserPtr<[[i64; 2]; 2]>) -> Result<u64> {
    sys_futimesat(cur, CWD, name, times).await
}

/// utime(2).
pub async fn sys_utime(cur: &Arc<Task>, name: UserPtr<u8>, times: UserPtr<[i64; 2]>) -> Result<u64> {
    let at = |sec| NewTime::At(Timespec { sec, nsec: 0 });
    let t = times.read_opt(cur).await?.map(|[a, m]| (at(a), at(m)));
    set_times(cur, CWD, name, t, 0).await
}

/// truncate(2).
pub async fn sys_truncate(cur: &Arc<Task>, name: UserPtr<u8>, size: i64) -> Result<u64> {
    let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
    let name = name.read_path(cur).await?;
    let p = path_at(cur, AT_FDCWD, &name, true).await?;
    let inode = p.inode()?;
    if inode.kind == S_IFDIR {
        return Err(Errno::EISDIR);
    }
    if !inode.is_regular() {
        return Err(Errno::EINVAL);
    }
    perm::inode_permission(&cur.cred(), &inode, MAY_WRITE)?;
    perm::check_writable(&p.mnt, &inode)?;
    may_grow(cur, size, inode.attr().size)?;
    attr::truncate(&inode, size).await.map(|()| 0)
}

/// A file may shrink whatever RLIMIT_FSIZE says, but not grow past it.
fn may_grow(cur: &Task, size: u64, old: u64) -> Result<()> {
    if size <= old { Ok(()) } else { crate::fs::file::check_fsize(cur, size - 1, 1).map(|_| ()) }
}

/// ftruncate(2).
pub async fn sys_ftruncate(cur: &Arc<Task>, fd: Fd, size: i64) -> Result<u64> {
    let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
    let f = file(cur, fd)?;
    if !f.writable() || !f.inode.is_regular() {
        return Err(Errno::EINVAL);
    }
    may_grow(cur, size, f.inode.attr().size)?;
    attr::truncate(&f.inode, size).await.map(|()| 0)
}

/// fallocate(2).
pub async fn sys_fallocate(cur: &Arc<Task>, fd: Fd, mode: u32, pos: i64, len: i64) -> Result<u64> {
    let f = file(cur, fd)?;
    let pos = u64::try_from(pos).map_err(|_| Errno::EINVAL)?;
    let len = u64::try_from(len).ok().filter(|&n| n > 0).ok_or(Errno::EINVAL)?;
    if !f.writable() {
        return Err(Errno::EBADF);
    }
    if f.inode.kind == S_IFIFO {
        return Err(Errno::ESPIPE);
    }
    if !f.inode.is_regular() {
        return Err(Errno::ENODEV);
    }
    f.inode.ops.fallocate(&f.inode, mode, pos, len)?;
    f.inode.touch_modified();
    Ok(0)
}
