//! stat(2), statx(2), statfs(2), access(2), readlink(2).

use super::target;
use crate::fs::inode::{Inode, major, minor};
use crate::fs::mount::ms;
use crate::fs::namei::{
    AT_EACCESS, AT_EMPTY_PATH, AT_FDCWD, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, path_at, path_at_flags,
};
use crate::fs::path::Path;
use crate::fs::perm::{self, MAY_EXEC, MAY_WRITE};
use crate::fs::super_block::SuperBlock;
use crate::syscall::{Fd, UserPtr};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;

/// struct stat in words.
pub type Stat = [u64; 18];

/// struct stat of an inode.
pub fn stat_of(inode: &Inode) -> Stat {
    let a = inode.attr();
    [
        inode.sb.dev,
        inode.ino,
        u64::from(a.nlink),
        u64::from(a.mode) | u64::from(a.uid) << 32,
        u64::from(a.gid),
        a.rdev,
        a.size,
        4096,
        a.blocks,
        a.atime.sec.cast_unsigned(),
        u64::from(a.atime.nsec),
        a.mtime.sec.cast_unsigned(),
        u64::from(a.mtime.nsec),
        a.ctime.sec.cast_unsigned(),
        u64::from(a.ctime.nsec),
        0,
        0,
        0,
    ]
}

/// stat(2).
pub async fn sys_stat(cur: &Arc<Task>, name: UserPtr<u8>, out: UserPtr<Stat>) -> Result<u64> {
    sys_newfstatat(cur, Fd(AT_FDCWD), name, out, 0).await
}

/// lstat(2).
pub async fn sys_lstat(cur: &Arc<Task>, name: UserPtr<u8>, out: UserPtr<Stat>) -> Result<u64> {
    sys_newfstatat(cur, Fd(AT_FDCWD), name, out, AT_SYMLINK_NOFOLLOW).await
}

/// fstat(2).
pub async fn sys_fstat(cur: &Arc<Task>, fd: Fd, out: UserPtr<Stat>) -> Result<u64> {
    let f = cur.files().get(fd.0)?;
    out.write(cur, &stat_of(&f.inode)).await.map(|()| 0)
}

/// newfstatat(2).
pub async fn sys_newfstatat(
    cur: &Arc<Task>,
    dirfd: Fd,
    name: UserPtr<u8>,
    out: UserPtr<Stat>,
    flags: u32,
) -> Result<u64> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let (inode, _) = target(cur, dirfd, name, flags).await?;
    out.write(cur, &stat_of(&inode)).await.map(|()| 0)
}

/// statx(2).
pub async fn sys_statx(
    cur: &Arc<Task>,
    dirfd: Fd,
    name: UserPtr<u8>,
    flags: u32,
    mask: u32,
    out: UserPtr<[u64; 32]>,
) -> Result<u64> {
    const SYNC_TYPE: u32 = 0x6000;
    const MNT_ID: u32 = 0x1000;
    const BASIC_AND_BTIME: u32 = 0xfff;
    const ATTR_MOUNT_ROOT: u64 = 0x2000;
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | SYNC_TYPE) != 0
        || flags & SYNC_TYPE == SYNC_TYPE
        || mask & 0x8000_0000 != 0
    {
        return Err(Errno::EINVAL);
    }
    let (inode, path) = target(cur, dirfd, name, flags).await?;
    let a = inode.attr();
    let two = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let is_root = path.as_ref().is_some_and(|p| Arc::ptr_eq(&p.dentry, &p.mnt.root));
    let mut x = [0u64; 32];
    x[0] = two(BASIC_AND_BTIME | (mask & MNT_ID), 4096);
    x[1] = if is_root { ATTR_MOUNT_ROOT } else { 0 };
    x[2] = two(a.nlink, a.uid);
    x[3] = two(a.gid, a.mode & 0xffff);
    x[4] = inode.ino;
    x[5] = a.size;
    x[6] = a.blocks;
    x[7] = ATTR_MOUNT_ROOT;
    for (i, t) in [a.atime, a.btime, a.ctime, a.mtime].into_iter().enumerate() {
        x[8 + i * 2] = t.sec.cast_unsigned();
        x[9 + i * 2] = u64::from(t.nsec);
    }
    x[16] = two(major(a.rdev), minor(a.rdev));
    x[17] = two(major(inode.sb.dev), minor(inode.sb.dev));
    x[18] = path.map_or(0, |p| p.mnt.id);
    out.write(cur, &x).await.map(|()| 0)
}

fn statfs_of(sb: &SuperBlock, mnt_flags: u32) -> [u64; 15] {
    const ST_VALID: u64 = 0x20;
    let s = sb.ops.statfs();
    let mut flags = ST_VALID | u64::from(mnt_flags & (ms::RDONLY | ms::NOSUID | ms::NODEV | ms::NOEXEC));
    for (bit, st) in [(ms::NOATIME, 0x400), (ms::NODIRATIME, 0x800), (ms::RELATIME, 0x1000)] {
        if mnt_flags & bit != 0 {
            flags |= st;
        }
    }
    if sb.read_only() {
        flags |= 1;
    }
    [
        sb.magic, s.bsize, s.blocks, s.bfree, s.bavail, s.files, s.ffree, sb.dev, 255, s.bsize, flags, 0, 0,
        0, 0,
    ]
}

/// statfs(2).
pub async fn sys_statfs(cur: &Arc<Task>, name: UserPtr<u8>, out: UserPtr<[u64; 15]>) -> Result<u64> {
    let name = name.read_path(cur).await?;
    let p = path_at(cur, AT_FDCWD, &name, true).await?;
    out.write(cur, &statfs_of(&p.mnt.sb, p.mnt.flags())).await.map(|()| 0)
}

/// fstatfs(2).
pub async fn sys_fstatfs(cur: &Arc<Task>, fd: Fd, out: UserPtr<[u64; 15]>) -> Result<u64> {
    let f = cur.files().get(fd.0)?;
    let flags = f.path.as_ref().map_or(0, |p| p.mnt.flags());
    out.write(cur, &statfs_of(&f.inode.sb, flags)).await.map(|()| 0)
}

/// access(2).
pub async fn sys_access(cur: &Arc<Task>, name: UserPtr<u8>, mode: u32) -> Result<u64> {
    access(cur, Fd(AT_FDCWD), name, mode, 0).await
}

/// faccessat(2).
pub async fn sys_faccessat(cur: &Arc<Task>, dirfd: Fd, name: UserPtr<u8>, mode: u32) -> Result<u64> {
    access(cur, dirfd, name, mode, 0).await
}

/// faccessat2(2).
pub async fn sys_faccessat2(
    cur: &Arc<Task>,
    dirfd: Fd,
    name: UserPtr<u8>,
    mode: u32,
    flags: u32,
) -> Result<u64> {
    access(cur, dirfd, name, mode, flags).await
}

async fn access(cur: &Arc<Task>, dirfd: Fd, name: UserPtr<u8>, mode: u32, flags: u32) -> Result<u64> {
    if mode & !7 != 0 || flags & !(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let (inode, path) = target(cur, dirfd, name, flags).await?;
    if mode == 0 {
        return Ok(0);
    }
    let mut cred = (*cur.cred()).clone();
    if flags & AT_EACCESS == 0 {
        cred.fsuid = cred.uid;
        cred.fsgid = cred.gid;
        // The question is what the real user may do: root's capabilities count only for a real root.
        cred.cap_effective = if cred.uid == 0 { cred.cap_permitted } else { 0 };
    }
    if let Some(p) = &path
        && mode & MAY_EXEC != 0
        && inode.is_regular()
        && p.mnt.flags() & ms::NOEXEC != 0
    {
        return Err(Errno::EACCES);
    }
    perm::inode_permission(&cred, &inode, mode)?;
    if mode & MAY_WRITE != 0
        && let Some(p) = &path
    {
        perm::check_writable(&p.mnt, &inode)?;
    }
    Ok(0)
}

/// readlink(2).
pub async fn sys_readlink(cur: &Arc<Task>, name: UserPtr<u8>, buf: UserPtr<u8>, len: i32) -> Result<u64> {
    sys_readlinkat(cur, Fd(AT_FDCWD), name, buf, len).await
}

/// readlinkat(2).
pub async fn sys_readlinkat(
    cur: &Arc<Task>,
    dirfd: Fd,
    name: UserPtr<u8>,
    buf: UserPtr<u8>,
    len: i32,
) -> Result<u64> {
    let len = usize::try_from(len).ok().filter(|&n| n > 0).ok_or(Errno::EINVAL)?;
    let name = name.read_path(cur).await?;
    // An empty name means the descriptor of a link that was opened with O_PATH | O_NOFOLLOW.
    let p = path_at_flags(cur, dirfd.0, &name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW).await?;
    let inode = p.inode()?;
    if !inode.is_symlink() {
        return Err(if name.is_empty() { Errno::ENOENT } else { Errno::EINVAL });
    }
    let text = link_text(cur, &inode).await?;
    let n = text.len().min(len);
    cur.mm().copy_to_user(buf.addr(), &text[..n]).await?;
    Ok(n as u64)
}

/// What readlink(2) shows of a link, magic ones included.
pub async fn link_text(cur: &Arc<Task>, inode: &Arc<Inode>) -> Result<Vec<u8>> {
    if let Some(to) = inode.ops.magic_link(inode, cur) {
        let p: Path = to?;
        return Ok(p.display(&cur.fs().root()).0);
    }
    inode.ops.readlink(inode, cur).get().await
}
