//! memfd_create(2), and memory for shared anonymous mappings.

use super::file::File;
use super::impls::tmpfs;
use super::inode::Inode;
use super::mount::Mount;
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::{Arc, OnceLock};
use uapi::raw::general as c;

/// The kernel's own tmpfs, where these files are.
fn home() -> Result<&'static (Arc<Inode>, Arc<Mount>)> {
    static HOME: OnceLock<(Arc<Inode>, Arc<Mount>)> = OnceLock::new();
    if let Some(h) = HOME.get() {
        return Ok(h);
    }
    let root = tmpfs::new_fs("memfd", tmpfs::TMPFS_MAGIC, u64::MAX >> 12, 1 << 20, 0o700, (0, 0), false)?;
    let mnt = Mount::detached(&root, "tmpfs", 0);
    Ok(HOME.get_or_init(|| (root, mnt)))
}

/// A memory file named `name`; `sealable`: seals may be added.
pub fn create(cur: &Arc<Task>, name: &[u8], sealable: bool, exec: bool) -> Result<Arc<File>> {
    let (root, mnt) = home()?;
    let cred = cur.cred();
    let mode = if exec { 0o777 } else { 0o666 };
    let inode = tmpfs::new_unnamed(root, mode, (cred.fsuid, cred.fsgid), sealable)?;
    let flags = c::O_RDWR | c::O_LARGEFILE;
    let ops = inode.ops.open(&inode, cur, flags)?;
    let path = super::anon::placed(mnt, name, Arc::clone(&inode));
    Ok(File::new(ops, inode, Some(path), flags))
}

/// memfd_create(2) after its arguments have been read.
pub fn memfd_create(cur: &Arc<Task>, name: &[u8], flags: u32) -> Result<Arc<File>> {
    if flags & c::MFD_HUGETLB != 0 {
        return Err(Errno::ENOSYS);
    }
    const NOEXEC_SEAL: u32 = 8;
    const EXEC: u32 = 16;
    if flags & !(c::MFD_CLOEXEC | c::MFD_ALLOW_SEALING | NOEXEC_SEAL | EXEC) != 0
        || flags & (NOEXEC_SEAL | EXEC) == NOEXEC_SEAL | EXEC
        || name.len() > 249
    {
        return Err(Errno::EINVAL);
    }
    create(cur, name, flags & (c::MFD_ALLOW_SEALING | NOEXEC_SEAL) != 0, flags & NOEXEC_SEAL == 0)
}
