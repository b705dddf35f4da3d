//! The system calls on files, one file a family. Handlers copy arguments in, call the work in `fs`, copy results out.

pub mod attr;
pub mod copy;
pub mod descriptor;
pub mod dirs;
pub mod events;
pub mod fcntl;
pub mod mount;
pub mod open;
pub mod poll;
pub mod rw;
pub mod stat;
pub mod xattr;

use super::file::File;
use super::inode::Inode;
use super::namei::{AT_EMPTY_PATH, AT_FDCWD, path_at_flags};
use super::path::Path;
use crate::syscall::{Fd, UserPtr};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

/// The open file of a descriptor that may be worked on; `EBADF` for O_PATH.
pub fn file(cur: &Task, fd: Fd) -> Result<Arc<File>> {
    let f = cur.files().get(fd.0)?;
    if f.flags() & c::O_PATH != 0 { Err(Errno::EBADF) } else { Ok(f) }
}

/// What a (directory, name, flags) triple of the *at calls means: an inode, and its place. A null or empty name with
/// `AT_EMPTY_PATH` is the descriptor itself, of whatever kind.
pub async fn target(
    cur: &Arc<Task>,
    dirfd: Fd,
    name: UserPtr<u8>,
    flags: u32,
) -> Result<(Arc<Inode>, Option<Path>)> {
    let name =
        if name.is_null() && flags & AT_EMPTY_PATH != 0 { Vec::new() } else { name.read_path(cur).await? };
    if name.is_empty() && flags & AT_EMPTY_PATH != 0 && dirfd.0 != AT_FDCWD {
        let f = cur.files().get(dirfd.0)?;
        return Ok((Arc::clone(&f.inode), f.path.clone()));
    }
    let p = path_at_flags(cur, dirfd.0, &name, flags).await?;
    Ok((p.inode()?, Some(p)))
}

/// A struct timespec of the guest: seconds and nanoseconds, checked.
pub fn timespec_to_duration(ts: [i64; 2]) -> Result<std::time::Duration> {
    let [sec, nsec] = ts;
    let s = u64::try_from(sec).map_err(|_| Errno::EINVAL)?;
    let n = u32::try_from(nsec).ok().filter(|&n| n < 1_000_000_000).ok_or(Errno::EINVAL)?;
    Ok(std::time::Duration::new(s, n))
}
