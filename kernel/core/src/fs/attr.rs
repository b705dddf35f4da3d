//! Changes of attributes: chmod, chown, utimensat, truncate.

use super::inode::{Inode, S_ISGID, S_ISUID, SetAttr, Timespec};
use super::path::Path;
use super::perm::{self, MAY_WRITE, cap};
use crate::task::Cred;
use crate::{Errno, Result};
use std::sync::Arc;

/// Applies a change; permissions have been checked.
pub async fn change(inode: &Arc<Inode>, set: &SetAttr) -> Result<()> {
    inode.ops.setattr(inode, set).get().await?;
    let now = Timespec::now();
    inode.update(|a| {
        if let Some(m) = set.mode {
            a.mode = (a.mode & super::inode::S_IFMT) | (m & 0o7777);
        }
        if let Some(u) = set.uid {
            a.uid = u;
        }
        if let Some(g) = set.gid {
            a.gid = g;
        }
        if set.size.is_some() {
            a.mtime = now;
        }
        if let Some(t) = set.atime {
            a.atime = t;
        }
        if let Some(t) = set.mtime {
            a.mtime = t;
        }
        a.ctime = now;
    });
    Ok(())
}

/// chmod(2) on a place.
pub async fn chmod(cred: &Cred, path: Option<&Path>, inode: &Arc<Inode>, mode: u32) -> Result<()> {
    writable_mount(path)?;
    if !perm::owner_or_capable(cred, inode) {
        return Err(Errno::EPERM);
    }
    if inode.is_symlink() {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut mode = mode & 0o7777;
    let (_, _, gid) = inode.owner_mode();
    if !cred.in_group(gid) && !cred.capable(cap::FSETID) {
        mode &= !S_ISGID;
    }
    change(inode, &SetAttr { mode: Some(mode), ..SetAttr::default() }).await
}

/// chown(2) on a place; `u32::MAX` leaves an id as it is.
pub async fn chown(cred: &Cred, path: Option<&Path>, inode: &Arc<Inode>, uid: u32, gid: u32) -> Result<()> {
    writable_mount(path)?;
    let (mode, old_uid, old_gid) = inode.owner_mode();
    let uid = (uid != u32::MAX).then_some(uid);
    let gid = (gid != u32::MAX).then_some(gid);
    if !cred.capable(cap::CHOWN) {
        if uid.is_some_and(|u| u != old_uid || cred.fsuid != old_uid) {
            return Err(Errno::EPERM);
        }
        if gid.is_some_and(|g| cred.fsuid != old_uid || (g != old_gid && !cred.in_group(g))) {
            return Err(Errno::EPERM);
        }
    }
    let mut set = SetAttr { uid, gid, ..SetAttr::default() };
    if !inode.is_dir() && mode & (S_ISUID | S_ISGID) != 0 && (uid.is_some() || gid.is_some()) {
        // A new owner must not inherit the power of the old one; S_ISGID without group execution is no power.
        let mut m = mode & !S_ISUID;
        if mode & 0o010 != 0 {
            m &= !S_ISGID;
        }
        set.mode = Some(m & 0o7777);
    }
    change(inode, &set).await
}

/// truncate(2) and ftruncate(2), after the check of the open file or of the permission to write.
pub async fn truncate(inode: &Arc<Inode>, size: u64) -> Result<()> {
    if inode.is_dir() {
        return Err(Errno::EISDIR);
    }
    if !inode.is_regular() {
        return Err(Errno::EINVAL);
    }
    drop_suid(inode);
    change(inode, &SetAttr { size: Some(size), ..SetAttr::default() }).await
}

/// What an unprivileged write takes away from a program (file capabilities aside).
pub fn drop_suid(inode: &Inode) {
    let (mode, ..) = inode.owner_mode();
    let mut gone = mode & S_ISUID;
    if mode & (S_ISGID | 0o010) == S_ISGID | 0o010 {
        gone |= S_ISGID;
    }
    if gone != 0 {
        inode.update(|a| a.mode &= !gone);
    }
}

/// A time argument of utimensat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewTime {
    /// UTIME_NOW.
    Now,
    /// UTIME_OMIT.
    Omit,
    /// This time.
    At(Timespec),
}

/// utimensat(2) on a place; `None` sets both to now.
pub async fn utimens(
    cred: &Cred,
    path: Option<&Path>,
    inode: &Arc<Inode>,
    times: Option<(NewTime, NewTime)>,
) -> Result<()> {
    if times == Some((NewTime::Omit, NewTime::Omit)) {
        return Ok(());
    }
    writable_mount(path)?;
    let both_now = matches!(times, None | Some((NewTime::Now, NewTime::Now)));
    if !perm::owner_or_capable(cred, inode) {
        if !both_now {
            return Err(Errno::EPERM);
        }
        perm::inode_permission(cred, inode, MAY_WRITE)?;
    }
    let (a, m) = times.unwrap_or((NewTime::Now, NewTime::Now));
    let now = Timespec::now();
    let pick = |t| match t {
        NewTime::Now => Some(now),
        NewTime::Omit => None,
        NewTime::At(t) => Some(t),
    };
    change(inode, &SetAttr { atime: pick(a), mtime: pick(m), ..SetAttr::default() }).await
}

fn writable_mount(path: Option<&Path>) -> Result<()> {
    match path {
        Some(p) if p.mnt.read_only() => Err(Errno::EROFS),
        _ => Ok(()),
    }
}
