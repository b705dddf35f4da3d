//! Making, removing and renaming names: mknod, mkdir, symlink, link, unlink, rmdir, rename.

use super::dentry::Dentry;
use super::inode::{Inode, S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, Timespec};
use super::namei::{AT_EMPTY_PATH, AT_SYMLINK_FOLLOW, Last, Walk, path_at_flags};
use super::open::new_inode;
use super::path::Path;
use super::perm::{self, cap};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;

/// RENAME_NOREPLACE of renameat2(2).
pub const RENAME_NOREPLACE: u32 = 1;
/// RENAME_EXCHANGE.
pub const RENAME_EXCHANGE: u32 = 2;

/// Makes a name of any kind: `mode` holds the type, umask not yet applied.
pub async fn make_node(
    cur: &Arc<Task>,
    dirfd: i32,
    name: &[u8],
    mode: u32,
    rdev: u64,
    target: &[u8],
) -> Result<Path> {
    let kind = mode & S_IFMT;
    if matches!(kind, S_IFCHR | S_IFBLK) && !cur.cred().capable(cap::MKNOD) {
        return Err(Errno::EPERM);
    }
    let mut walk = Walk::new(cur, dirfd, name, 0)?;
    let (last, slash) = match walk.parent(name).await? {
        Last::Name(n, s) => (n, s),
        _ => return Err(Errno::EEXIST),
    };
    let dir = walk.at.inode()?;
    let found = walk.lookup(&last).await?;
    if found.is_some_and(|d| d.inode().is_some()) {
        return Err(Errno::EEXIST);
    }
    if slash && kind != S_IFDIR {
        return Err(Errno::ENOENT);
    }
    perm::may_change_dir(&walk.cred, &walk.at.mnt, &dir)?;
    if walk.at.dentry.is_unlinked() {
        return Err(Errno::ENOENT);
    }
    let mode = if kind == S_IFLNK { S_IFLNK | 0o777 } else { kind | (mode & 0o7777 & !cur.fs().umask()) };
    let new = new_inode(&walk.cred, &dir, mode, rdev, target);
    let inode = dir.ops.create(&dir, &last, &new).get().await?;
    let dentry = walk.at.dentry.instantiate(&dir, &last, inode);
    dir.touch_modified();
    Ok(Path { mnt: walk.at.mnt.clone(), dentry })
}

/// mknod(2)'s mode: a missing type means a regular file.
pub fn mknod_mode(mode: u32) -> Result<u32> {
    match mode & S_IFMT {
        0 => Ok(mode | S_IFREG),
        S_IFDIR => Err(Errno::EPERM),
        S_IFLNK => Err(Errno::EINVAL),
        _ => Ok(mode & (S_IFMT | 0o7777)),
    }
}

async fn existing(walk: &Walk<'_>, name: &[u8]) -> Result<(Arc<Dentry>, Arc<Inode>)> {
    let d = walk.lookup(name).await?.ok_or(Errno::ENOENT)?;
    let i = d.inode().ok_or(Errno::ENOENT)?;
    Ok((d, i))
}

/// unlink(2) and, with `dir`, rmdir(2).
pub async fn remove(cur: &Arc<Task>, dirfd: i32, name: &[u8], rmdir: bool) -> Result<()> {
    let mut walk = Walk::new(cur, dirfd, name, 0)?;
    let (last, slash) = match (walk.parent(name).await?, rmdir) {
        (Last::Name(n, s), _) => (n, s),
        (Last::Dot, true) => return Err(Errno::EINVAL),
        (Last::DotDot, true) => return Err(Errno::ENOTEMPTY),
        (Last::Root, true) => return Err(Errno::EBUSY),
        (_, false) => return Err(Errno::EISDIR),
    };
    let dir = walk.at.inode()?;
    if walk.at.mnt.read_only() {
        return Err(Errno::EROFS);
    }
    let (dentry, victim) = existing(&walk, &last).await?;
    if slash && !rmdir {
        return Err(if victim.is_dir() { Errno::EISDIR } else { Errno::ENOTDIR });
    }
    perm::may_change_dir(&walk.cred, &walk.at.mnt, &dir)?;
    perm::check_sticky(&walk.cred, &dir, &victim)?;
    match (rmdir, victim.is_dir()) {
        (true, false) => return Err(Errno::ENOTDIR),
        (false, true) => return Err(Errno::EISDIR),
        _ => {}
    }
    if dentry.is_mountpoint() {
        return Err(Errno::EBUSY);
    }
    dir.ops.unlink(&dir, &last, &victim).get().await?;
    walk.at.dentry.removed(&dir, &last);
    dir.touch_modified();
    Ok(())
}

/// link(2), linkat(2).
pub async fn link(cur: &Arc<Task>, from: (i32, &[u8]), to: (i32, &[u8]), flags: u32) -> Result<()> {
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & AT_EMPTY_PATH != 0 && from.1.is_empty() && !cur.cred().capable(cap::DAC_READ_SEARCH) {
        return Err(Errno::ENOENT);
    }
    let nofollow = if flags & AT_SYMLINK_FOLLOW == 0 { super::namei::AT_SYMLINK_NOFOLLOW } else { 0 };
    let old = path_at_flags(cur, from.0, from.1, nofollow | (flags & AT_EMPTY_PATH)).await?;
    let inode = old.inode()?;
    let mut walk = Walk::new(cur, to.0, to.1, 0)?;
    let last = match walk.parent(to.1).await? {
        Last::Name(_, true) => return Err(Errno::ENOENT),
        Last::Name(n, false) => n,
        _ => return Err(Errno::EEXIST),
    };
    let found = walk.lookup(&last).await?;
    if found.is_some_and(|d| d.inode().is_some()) {
        return Err(Errno::EEXIST);
    }
    let dir = walk.at.inode()?;
    if !Arc::ptr_eq(&old.mnt, &walk.at.mnt) {
        return Err(Errno::EXDEV);
    }
    perm::may_change_dir(&walk.cred, &walk.at.mnt, &dir)?;
    if inode.is_dir() {
        return Err(Errno::EPERM);
    }
    if walk.at.dentry.is_unlinked() {
        return Err(Errno::ENOENT);
    }
    dir.ops.link(&dir, &last, &inode).get().await?;
    walk.at.dentry.instantiate(&dir, &last, Arc::clone(&inode));
    inode.touch_changed();
    dir.touch_modified();
    Ok(())
}

/// rename(2), renameat2(2).
pub async fn rename(cur: &Arc<Task>, from: (i32, &[u8]), to: (i32, &[u8]), flags: u32) -> Result<()> {
    if flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE) != 0
        || flags & (RENAME_NOREPLACE | RENAME_EXCHANGE) == RENAME_NOREPLACE | RENAME_EXCHANGE
    {
        return Err(Errno::EINVAL);
    }
    let mut a = Walk::new(cur, from.0, from.1, 0)?;
    let mut b = Walk::new(cur, to.0, to.1, 0)?;
    let last_a = a.parent(from.1).await?;
    let last_b = b.parent(to.1).await?;
    if !Arc::ptr_eq(&a.at.mnt, &b.at.mnt) {
        return Err(Errno::EXDEV);
    }
    let (Last::Name(name_a, slash_a), Last::Name(name_b, slash_b)) = (last_a, last_b) else {
        return Err(Errno::EBUSY);
    };
    let mnt = Arc::clone(&a.at.mnt);
    if mnt.read_only() {
        return Err(Errno::EROFS);
    }
    let (dir_a, dir_b) = (a.at.inode()?, b.at.inode()?);
    let (old, old_inode) = existing(&a, &name_a).await?;
    let new = b.lookup(&name_b).await?.and_then(|d| d.inode().map(|i| (d, i)));
    if new.is_some() && flags & RENAME_NOREPLACE != 0 {
        return Err(Errno::EEXIST);
    }
    if new.is_none() && flags & RENAME_EXCHANGE != 0 {
        return Err(Errno::ENOENT);
    }
    if !old_inode.is_dir() && (slash_a || (slash_b && flags & RENAME_EXCHANGE == 0)) {
        return Err(Errno::ENOTDIR);
    }
    // Neither may become its own ancestor.
    if b.at.dentry.is_below(&old) {
        return Err(Errno::EINVAL);
    }
    if let Some((d, _)) = &new
        && a.at.dentry.is_below(d)
    {
        return Err(if flags & RENAME_EXCHANGE != 0 { Errno::EINVAL } else { Errno::ENOTEMPTY });
    }
    perm::may_change_dir(&a.cred, &mnt, &dir_a)?;
    perm::check_sticky(&a.cred, &dir_a, &old_inode)?;
    perm::may_change_dir(&b.cred, &mnt, &dir_b)?;
    if b.at.dentry.is_unlinked() {
        return Err(Errno::ENOENT);
    }
    if let Some((d, i)) = &new {
        if Arc::ptr_eq(i, &old_inode) {
            return Ok(());
        }
        perm::check_sticky(&b.cred, &dir_b, i)?;
        if flags & RENAME_EXCHANGE == 0 {
            match (old_inode.is_dir(), i.is_dir()) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                _ => {}
            }
        }
        if d.is_mountpoint() {
            return Err(Errno::EBUSY);
        }
    }
    if old.is_mountpoint() {
        return Err(Errno::EBUSY);
    }
    dir_a.ops.rename((&dir_a, &name_a), (&dir_b, &name_b), flags).get().await?;
    Dentry::moved(
        (&a.at.dentry, &dir_a, &name_a),
        (&b.at.dentry, &dir_b, &name_b),
        flags & RENAME_EXCHANGE != 0,
    );
    let now = Timespec::now();
    for i in [&dir_a, &dir_b] {
        i.update(|x| {
            x.mtime = now;
            x.ctime = now;
        });
    }
    old_inode.touch_changed();
    Ok(())
}
