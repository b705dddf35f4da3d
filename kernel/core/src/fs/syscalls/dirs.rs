//! Names: mkdir, unlink, rename, link, symlink, mknod; chdir, getcwd, chroot, umask; getdents.

use super::file;
use crate::fs::dir::{Layout, list};
use crate::fs::inode::{S_IFDIR, S_IFLNK};
use crate::fs::namei::{AT_FDCWD, AT_REMOVEDIR, dir_at};
use crate::fs::namei_ops::{self as ops, make_node};
use crate::fs::perm::{self, MAY_EXEC, cap};
use crate::syscall::{Fd, UserPtr};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;

const CWD: Fd = Fd(AT_FDCWD);

/// getdents64(2).
pub async fn sys_getdents64(cur: &Arc<Task>, fd: Fd, buf: UserPtr<u8>, len: u32) -> Result<u64> {
    getdents(cur, fd, buf, len, Layout::New).await
}

/// getdents(2).
pub async fn sys_getdents(cur: &Arc<Task>, fd: Fd, buf: UserPtr<u8>, len: u32) -> Result<u64> {
    getdents(cur, fd, buf, len, Layout::Old).await
}

async fn getdents(cur: &Arc<Task>, fd: Fd, buf: UserPtr<u8>, len: u32, layout: Layout) -> Result<u64> {
    let f = file(cur, fd)?;
    let (bytes, next) = list(cur, &f, len as usize, layout).await?;
    cur.mm().copy_to_user(buf.addr(), &bytes).await?;
    f.set_pos(next);
    Ok(bytes.len() as u64)
}

/// mkdir(2).
pub async fn sys_mkdir(cur: &Arc<Task>, name: UserPtr<u8>, mode: u32) -> Result<u64> {
    sys_mkdirat(cur, CWD, name, mode).await
}

/// mkdirat(2).
pub async fn sys_mkdirat(cur: &Arc<Task>, dirfd: Fd, name: UserPtr<u8>, mode: u32) -> Result<u64> {
    let name = name.read_path(cur).await?;
    make_node(cur, dirfd.0, &name, S_IFDIR | (mode & 0o1777), 0, &[]).await.map(|_| 0)
}

/// mknod(2).
pub async fn sys_mknod(cur: &Arc<Task>, name: UserPtr<u8>, mode: u32, dev: u32) -> Result<u64> {
    sys_mknodat(cur, CWD, name, mode, dev).await
}

/// mknodat(2).
pub async fn sys_mknodat(cur: &Arc<Task>, dirfd: Fd, name: UserPtr<u8>, mode: u32, dev: u32) -> Result<u64> {
    let mode = ops::mknod_mode(mode)?;
    let name = name.read_path(cur).await?;
    make_node(cur, dirfd.0, &name, mode, u64::from(dev), &[]).await.map(|_| 0)
}

/// symlink(2).
pub async fn sys_symlink(cur: &Arc<Task>, target: UserPtr<u8>, name: UserPtr<u8>) -> Result<u64> {
    sys_symlinkat(cur, target, CWD, name).await
}

/// symlinkat(2).
pub async fn sys_symlinkat(
    cur: &Arc<Task>,
    target: UserPtr<u8>,
    dirfd: Fd,
    name: UserPtr<u8>,
) -> Result<u64> {
    let target = target.read_path(cur).await?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let name = name.read_path(cur).await?;
    make_node(cur, dirfd.0, &name, S_IFLNK | 0o777, 0, &target).await.map(|_| 0)
}

/// rmdir(2).
pub async fn sys_rmdir(cur: &Arc<Task>, name: UserPtr<u8>) -> Result<u64> {
    sys_unlinkat(cur, CWD, name, AT_REMOVEDIR).await
}

/// unlink(2).
pub async fn sys_unlink(cur: &Arc<Task>, name: UserPtr<u8>) -> Result<u64> {
    sys_unlinkat(cur, CWD, name, 0).await
}

/// unlinkat(2).
pub async fn sys_unlinkat(cur: &Arc<Task>, dirfd: Fd, name: UserPtr<u8>, flags: u32) -> Result<u64> {
    if flags & !AT_REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    let name = name.read_path(cur).await?;
    ops::remove(cur, dirfd.0, &name, flags & AT_REMOVEDIR != 0).await.map(|()| 0)
}

/// link(2).
pub async fn sys_link(cur: &Arc<Task>, old: UserPtr<u8>, new: UserPtr<u8>) -> Result<u64> {
    sys_linkat(cur, CWD, old, CWD, new, 0).await
}

/// linkat(2).
pub async fn sys_linkat(
    cur: &Arc<Task>,
    olddir: Fd,
    old: UserPtr<u8>,
    newdir: Fd,
    new: UserPtr<u8>,
    flags: u32,
) -> Result<u64> {
    let (old, new) = (old.read_path(cur).await?, new.read_path(cur).await?);
    ops::link(cur, (olddir.0, &old), (newdir.0, &new), flags).await.map(|()| 0)
}

/// rename(2).
pub async fn sys_rename(cur: &Arc<Task>, old: UserPtr<u8>, new: UserPtr<u8>) -> Result<u64> {
    sys_renameat2(cur, CWD, old, CWD, new, 0).await
}

/// renameat(2).
pub async fn sys_renameat(
    cur: &Arc<Task>,
    olddir: Fd,
    old: UserPtr<u8>,
    newdir: Fd,
    new: UserPtr<u8>,
) -> Result<u64> {
    sys_renameat2(cur, olddir, old, newdir, new, 0).await
}

/// renameat2(2).
pub async fn sys_renameat2(
    cur: &Arc<Task>,
    olddir: Fd,
    old: UserPtr<u8>,
    newdir: Fd,
    new: UserPtr<u8>,
    flags: u32,
) -> Result<u64> {
    let (old, new) = (old.read_path(cur).await?, new.read_path(cur).await?);
    ops::rename(cur, (olddir.0, &old), (newdir.0, &new), flags).await.map(|()| 0)
}

/// chdir(2).
pub async fn sys_chdir(cur: &Arc<Task>, name: UserPtr<u8>) -> Result<u64> {
    let name = name.read_path(cur).await?;
    let p = dir_at(cur, AT_FDCWD, &name).await?;
    cur.fs().set_cwd(p);
    Ok(0)
}

/// fchdir(2).
pub fn sys_fchdir(cur: &Arc<Task>, fd: Fd) -> Result<u64> {
    let f = cur.files().get(fd.0)?;
    if !f.inode.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    perm::inode_permission(&cur.cred(), &f.inode, MAY_EXEC)?;
    cur.fs().set_cwd(f.path.clone().ok_or(Errno::ENOTDIR)?);
    Ok(0)
}

/// chroot(2).
pub async fn sys_chroot(cur: &Arc<Task>, name: UserPtr<u8>) -> Result<u64> {
    let name = name.read_path(cur).await?;
    let p = dir_at(cur, AT_FDCWD, &name).await?;
    if !cur.cred().capable(cap::SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    cur.fs().set_root(p);
    Ok(0)
}

/// getcwd(2): gives the length with the NUL.
pub async fn sys_getcwd(cur: &Arc<Task>, buf: UserPtr<u8>, size: usize) -> Result<u64> {
    let fs = cur.fs();
    let cwd = fs.cwd();
    if cwd.dentry.is_unlinked() {
        return Err(Errno::ENOENT);
    }
    let (mut text, reached) = cwd.display(&fs.root());
    if !reached {
        text.splice(0..0, *b"(unreachable)");
    }
    text.push(0);
    if text.len() > 4096 {
        return Err(Errno::ENAMETOOLONG);
    }
    if text.len() > size {
        return Err(Errno::ERANGE);
    }
    cur.mm().copy_to_user(buf.addr(), &text).await?;
    Ok(text.len() as u64)
}

/// umask(2).
pub fn sys_umask(cur: &Arc<Task>, mask: u32) -> Result<u64> {
    Ok(u64::from(cur.fs().set_umask(mask)))
}
