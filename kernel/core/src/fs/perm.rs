//! Permission checks (path_resolution(7), capabilities(7)).

use super::inode::{Inode, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFSOCK, S_ISVTX};
use super::mount::{Mount, ms};
use crate::task::Cred;
use crate::{Errno, Result};

/// Execute, or search a directory.
pub const MAY_EXEC: u32 = 1;
/// Write.
pub const MAY_WRITE: u32 = 2;
/// Read.
pub const MAY_READ: u32 = 4;

/// Capability numbers (capabilities(7)) that files care about.
pub mod cap {
    #![allow(missing_docs)]
    pub const CHOWN: u32 = 0;
    pub const DAC_OVERRIDE: u32 = 1;
    pub const DAC_READ_SEARCH: u32 = 2;
    pub const FOWNER: u32 = 3;
    pub const FSETID: u32 = 4;
    pub const SYS_CHROOT: u32 = 18;
    pub const SYS_ADMIN: u32 = 21;
    pub const SYS_RESOURCE: u32 = 24;
    pub const SYS_TTY_CONFIG: u32 = 26;
    pub const MKNOD: u32 = 27;
    pub const LEASE: u32 = 28;
    pub const SYSLOG: u32 = 34;
}

/// Checks `mask` (`MAY_*`) on an inode with the file system ids of `cred`.
pub fn inode_permission(cred: &Cred, inode: &Inode, mask: u32) -> Result<()> {
    let (mode, uid, gid) = inode.owner_mode();
    let bits = if cred.fsuid == uid {
        mode >> 6
    } else if cred.in_group(gid) {
        mode >> 3
    } else {
        mode
    };
    if bits & mask & 7 == mask {
        return Ok(());
    }
    if inode.is_dir() {
        if cred.capable(cap::DAC_OVERRIDE) || (mask & MAY_WRITE == 0 && cred.capable(cap::DAC_READ_SEARCH)) {
            return Ok(());
        }
    } else {
        if mask == MAY_READ && cred.capable(cap::DAC_READ_SEARCH) {
            return Ok(());
        }
        // Root may execute only what somebody may execute.
        if cred.capable(cap::DAC_OVERRIDE) && (mask & MAY_EXEC == 0 || mode & 0o111 != 0) {
            return Ok(());
        }
    }
    Err(Errno::EACCES)
}

/// `EROFS` if `inode` may not be written through this mount. Devices, FIFOs and sockets may.
pub fn check_writable(mnt: &Mount, inode: &Inode) -> Result<()> {
    if matches!(inode.kind, S_IFCHR | S_IFBLK | S_IFIFO | S_IFSOCK) || !mnt.read_only() {
        Ok(())
    } else {
        Err(Errno::EROFS)
    }
}

/// True if `cred` owns the inode or may act as its owner.
pub fn owner_or_capable(cred: &Cred, inode: &Inode) -> bool {
    cred.fsuid == inode.owner_mode().1 || cred.capable(cap::FOWNER)
}

/// May `victim` be removed from `dir` (write permission has been checked): the sticky bit.
pub fn check_sticky(cred: &Cred, dir: &Inode, victim: &Inode) -> Result<()> {
    let (mode, uid, _) = dir.owner_mode();
    if mode & S_ISVTX != 0
        && cred.fsuid != uid
        && cred.fsuid != victim.owner_mode().1
        && !cred.capable(cap::FOWNER)
    {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// May a name be made in or taken from `dir`.
pub fn may_change_dir(cred: &Cred, mnt: &Mount, dir: &Inode) -> Result<()> {
    if dir.kind != S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    if mnt.read_only() {
        return Err(Errno::EROFS);
    }
    inode_permission(cred, dir, MAY_WRITE | MAY_EXEC)
}

/// `EACCES` for a device on a mount with MS_NODEV.
pub fn check_nodev(mnt: &Mount, inode: &Inode) -> Result<()> {
    if matches!(inode.kind, S_IFCHR | S_IFBLK) && mnt.flags() & ms::NODEV != 0 {
        return Err(Errno::EACCES);
    }
    Ok(())
}
