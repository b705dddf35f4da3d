//! Extended attributes (xattr(7)).

use super::file;
use crate::fs::inode::{Inode, XattrMode};
use crate::fs::namei::{AT_FDCWD, path_at};
use crate::fs::path::Path;
use crate::fs::perm::{self, MAY_READ, MAY_WRITE, cap};
use crate::syscall::{Fd, UserPtr};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;

/// Bytes of a value (XATTR_SIZE_MAX).
const SIZE_MAX: usize = 65_536;

async fn read_name(cur: &Arc<Task>, name: UserPtr<u8>) -> Result<Vec<u8>> {
    let n = name
        .read_cstr(cur, 256)
        .await
        .map_err(|e| if e == Errno::ENAMETOOLONG { Errno::ERANGE } else { e })?;
    if n.is_empty() { Err(Errno::ERANGE) } else { Ok(n) }
}

async fn by_path(cur: &Arc<Task>, name: UserPtr<u8>, follow: bool) -> Result<(Arc<Inode>, Option<Path>)> {
    let name = name.read_path(cur).await?;
    let p = path_at(cur, AT_FDCWD, &name, follow).await?;
    Ok((p.inode()?, Some(p)))
}

fn by_fd(cur: &Arc<Task>, fd: Fd) -> Result<(Arc<Inode>, Option<Path>)> {
    let f = file(cur, fd)?;
    Ok((Arc::clone(&f.inode), f.path.clone()))
}

fn check(cur: &Task, inode: &Inode, path: Option<&Path>, name: &[u8], write: bool) -> Result<()> {
    let cred = cur.cred();
    if write && path.is_some_and(|p| p.mnt.read_only()) {
        return Err(Errno::EROFS);
    }
    if name.starts_with(b"trusted.") && !cred.capable(cap::SYS_ADMIN) {
        return Err(if write { Errno::EPERM } else { Errno::ENODATA });
    }
    if name.starts_with(b"user.") {
        if !inode.is_regular() && !inode.is_dir() {
            return Err(if write { Errno::EPERM } else { Errno::ENODATA });
        }
        return perm::inode_permission(&cred, inode, if write { MAY_WRITE } else { MAY_READ });
    }
    if write && name.starts_with(b"security.") && !cred.capable(cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

async fn checked_name(
    cur: &Arc<Task>,
    inode: &Inode,
    path: Option<&Path>,
    name: UserPtr<u8>,
    write: bool,
) -> Result<Vec<u8>> {
    let name = read_name(cur, name).await?;
    check(cur, inode, path, &name, write)?;
    Ok(name)
}

type Place = (Arc<Inode>, Option<Path>);

async fn set(
    cur: &Arc<Task>,
    (inode, path): Place,
    name: UserPtr<u8>,
    value: UserPtr<u8>,
    size: usize,
    flags: u32,
) -> Result<u64> {
    let mode = match flags {
        0 => XattrMode::Any,
        1 => XattrMode::Create,
        2 => XattrMode::Replace,
        _ => return Err(Errno::EINVAL),
    };
    let name = read_name(cur, name).await?;
    if size > SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let value = value.read_vec(cur, size).await?;
    check(cur, &inode, path.as_ref(), &name, true)?;
    inode.ops.setxattr(&inode, &name, &value, mode)?;
    inode.touch_changed();
    Ok(0)
}

async fn give(cur: &Arc<Task>, bytes: &[u8], out: UserPtr<u8>, size: usize) -> Result<u64> {
    if size > 0 {
        if bytes.len() > size {
            return Err(Errno::ERANGE);
        }
        cur.mm().copy_to_user(out.addr(), bytes).await?;
    }
    Ok(bytes.len() as u64)
}

async fn get(
    cur: &Arc<Task>,
    (inode, path): Place,
    name: UserPtr<u8>,
    out: UserPtr<u8>,
    size: usize,
) -> Result<u64> {
    let name = checked_name(cur, &inode, path.as_ref(), name, false).await?;
    let value = inode.ops.getxattr(&inode, &name).get().await?;
    give(cur, &value, out, size).await
}

async fn list(cur: &Arc<Task>, (inode, _): Place, out: UserPtr<u8>, size: usize) -> Result<u64> {
    let mut names = inode.ops.listxattr(&inode).get().await?;
    if !cur.cred().capable(cap::SYS_ADMIN) {
        names = names
            .split_inclusive(|&b| b == 0)
            .filter(|n| !n.starts_with(b"trusted."))
            .flatten()
            .copied()
            .collect();
    }
    give(cur, &names, out, size).await
}

async fn remove(cur: &Arc<Task>, (inode, path): Place, name: UserPtr<u8>) -> Result<u64> {
    let name = checked_name(cur, &inode, path.as_ref(), name, true).await?;
    inode.ops.removexattr(&inode, &name)?;
    inode.touch_changed();
    Ok(0)
}

/// setxattr(2).
pub async fn sys_setxattr(
    cur: &Arc<Task>,
    path: UserPtr<u8>,
    name: UserPtr<u8>,
    value: UserPtr<u8>,
    size: usize,
    flags: u32,
) -> Result<u64> {
    set(cur, by_path(cur, path, true).await?, name, value, size, flags).await
}

/// lsetxattr(2).
pub async fn sys_lsetxattr(
    cur: &Arc<Task>,
    path: UserPtr<u8>,
    name: UserPtr<u8>,
    value: UserPtr<u8>,
    size: usize,
    flags: u32,
) -> Result<u64> {
    set(cur, by_path(cur, path, false).await?, name, value, size, flags).await
}

/// fsetxattr(2).
pub async fn sys_fsetxattr(
    cur: &Arc<Task>,
    fd: Fd,
    name: UserPtr<u8>,
    value: UserPtr<u8>,
    size: usize,
    flags: u32,
) -> Result<u64> {
    set(cur, by_fd(cur, fd)?, name, value, size, flags).await
}

/// getxattr(2).
pub async fn sys_getxattr(
    cur: &Arc<Task>,
    path: UserPtr<u8>,
    name: UserPtr<u8>,
    out: UserPtr<u8>,
    size: usize,
) -> Result<u64> {
    get(cur, by_path(cur, path, true).await?, name, out, size).await
}

/// lgetxattr(2).
pub async fn sys_lgetxattr(
    cur: &Arc<Task>,
    path: UserPtr<u8>,
    name: UserPtr<u8>,
    out: UserPtr<u8>,
    size: usize,
) -> Result<u64> {
    get(cur, by_path(cur, path, false).await?, name, out, size).await
}

/// fgetxattr(2).
pub async fn sys_fgetxattr(
    cur: &Arc<Task>,
    fd: Fd,
    name: UserPtr<u8>,
    out: UserPtr<u8>,
    size: usize,
) -> Result<u64> {
    get(cur, by_fd(cur, fd)?, name, out, size).await
}

/// listxattr(2).
pub async fn sys_listxattr(cur: &Arc<Task>, path: UserPtr<u8>, out: UserPtr<u8>, size: usize) -> Result<u64> {
    list(cur, by_path(cur, path, true).await?, out, size).await
}

/// llistxattr(2).
pub async fn sys_llistxattr(
    cur: &Arc<Task>,
    path: UserPtr<u8>,
    out: UserPtr<u8>,
    size: usize,
) -> Result<u64> {
    list(cur, by_path(cur, path, false).await?, out, size).await
}

/// flistxattr(2).
pub async fn sys_flistxattr(cur: &Arc<Task>, fd: Fd, out: UserPtr<u8>, size: usize) -> Result<u64> {
    list(cur, by_fd(cur, fd)?, out, size).await
}

/// removexattr(2).
pub async fn sys_removexattr(cur: &Arc<Task>, path: UserPtr<u8>, name: UserPtr<u8>) -> Result<u64> {
    remove(cur, by_path(cur, path, true).await?, name).await
}

/// lremovexattr(2).
pub async fn sys_lremovexattr(cur: &Arc<Task>, path: UserPtr<u8>, name: UserPtr<u8>) -> Result<u64> {
    remove(cur, by_path(cur, path, false).await?, name).await
}

/// fremovexattr(2).
pub async fn sys_fremovexattr(cur: &Arc<Task>, fd: Fd, name: UserPtr<u8>) -> Result<u64> {
    remove(cur, by_fd(cur, fd)?, name).await
}

/// name_to_handle_at(2): no file system here gives handles out.
pub fn sys_name_to_handle_at(_cur: &Arc<Task>) -> Result<u64> {
    Err(Errno::EOPNOTSUPP)
}
