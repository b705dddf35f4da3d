//! mount(2), umount2(2), pivot_root(2).

use crate::fs::mount::ms;
use crate::fs::namei::{AT_FDCWD, dir_at, path_at};
use crate::fs::perm::cap;
use crate::fs::super_block::{self, MountArgs};
use crate::syscall::UserPtr;
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;

fn may_mount(cur: &Task) -> Result<()> {
    if cur.cred().capable(cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

async fn opt_cstr(cur: &Arc<Task>, p: UserPtr<u8>, max: usize) -> Result<Vec<u8>> {
    if p.is_null() { Ok(Vec::new()) } else { p.read_cstr(cur, max).await }
}

/// mount(2).
pub async fn sys_mount(
    cur: &Arc<Task>,
    source: UserPtr<u8>,
    target: UserPtr<u8>,
    fs_type: UserPtr<u8>,
    flags: u64,
    data: UserPtr<u8>,
) -> Result<u64> {
    // The old magic number in the high half of the flags means nothing.
    let mut flags = u32::try_from(flags & 0xffff_ffff).unwrap_or(0);
    if flags & 0xffff_0000 == 0xc0ed_0000 {
        flags &= 0xffff;
    }
    let source = opt_cstr(cur, source, 4096).await?;
    let target = target.read_path(cur).await?;
    let fs_type = opt_cstr(cur, fs_type, 256).await?;
    let data = opt_cstr(cur, data, 4096).await?;
    let at = path_at(cur, AT_FDCWD, &target, true).await?;
    may_mount(cur)?;
    let ns = cur.fs().ns();
    if flags & ms::REMOUNT != 0 {
        return ns.remount(&at, flags, &data).map(|()| 0);
    }
    if flags & ms::BIND != 0 {
        let what = path_at(cur, AT_FDCWD, &source, true).await?;
        return ns.bind(&what, at, flags & ms::REC != 0).map(|()| 0);
    }
    if flags & ms::PROPAGATION != 0 {
        return ns.set_propagation(&at, flags, flags & ms::REC != 0).map(|()| 0);
    }
    if flags & ms::MOVE != 0 {
        let what = path_at(cur, AT_FDCWD, &source, true).await?;
        return ns.move_mount(&what, at).map(|()| 0);
    }
    if fs_type.is_empty() {
        return Err(Errno::EINVAL);
    }
    let kind = super_block::find(&fs_type)?;
    let root = (kind.mount)(cur, MountArgs { source: &source, data: &data, flags }).await?;
    if flags & ms::RDONLY != 0 && kind.needs_dev {
        root.sb.set_read_only(true);
    }
    let source =
        if source.is_empty() { "none".to_owned() } else { String::from_utf8_lossy(&source).into_owned() };
    ns.mount(at, &root, &source, flags).map(|_| 0)
}

/// umount2(2).
pub async fn sys_umount2(cur: &Arc<Task>, target: UserPtr<u8>, flags: u32) -> Result<u64> {
    const FORCE: u32 = 1;
    const DETACH: u32 = 2;
    const EXPIRE: u32 = 4;
    const NOFOLLOW: u32 = 8;
    if flags & !(FORCE | DETACH | EXPIRE | NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & EXPIRE != 0 && flags & (FORCE | DETACH) != 0 {
        return Err(Errno::EINVAL);
    }
    may_mount(cur)?;
    let target = target.read_path(cur).await?;
    let at = path_at(cur, AT_FDCWD, &target, flags & NOFOLLOW == 0).await?;
    if flags & EXPIRE != 0 {
        return Err(Errno::EAGAIN);
    }
    cur.fs().ns().umount(at, flags & DETACH != 0).map(|()| 0)
}

/// pivot_root(2). Tasks whose root or working directory is the old root keep it; the caller's move.
pub async fn sys_pivot_root(cur: &Arc<Task>, new: UserPtr<u8>, old: UserPtr<u8>) -> Result<u64> {
    may_mount(cur)?;
    let (new, old) = (new.read_path(cur).await?, old.read_path(cur).await?);
    let new = dir_at(cur, AT_FDCWD, &new).await?;
    let put_old = dir_at(cur, AT_FDCWD, &old).await?;
    let fs = cur.fs();
    let before = fs.root();
    fs.ns().pivot_root(&fs, &new, &put_old)?;
    fs.set_root(new.clone());
    if fs.cwd().same(&before) {
        fs.set_cwd(new);
    }
    Ok(0)
}
