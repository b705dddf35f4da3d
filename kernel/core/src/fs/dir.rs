//! Open directories and their listing (getdents64(2)).

use super::file::{File, FileOps};
use super::inode::{DirEnt, S_IFDIR};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;

/// An open directory.
pub struct DirOps;

impl FileOps for DirOps {
    fn try_read(&self, _file: &File, _pos: u64, _to: &mut super::iov::IovIter<'_>) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn seekable(&self) -> bool {
        true
    }
}

/// Which layout a listing has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// getdents(2): type in the last byte.
    Old,
    /// getdents64(2).
    New,
}

/// Bytes that one listing call gathers at most.
const MAX_LIST: usize = 1 << 20;

/// Fills a buffer of up to `len` bytes with entries from the file's position. `EINVAL` if the first does not fit.
/// The position to go on from is given beside it; the caller commits it once the bytes are with the guest.
pub async fn list(cur: &Arc<Task>, file: &File, len: usize, layout: Layout) -> Result<(Vec<u8>, u64)> {
    if !file.inode.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let dir = &file.inode;
    let path = file.path.as_ref().ok_or(Errno::ENOTDIR)?;
    if path.dentry.is_unlinked() {
        return Err(Errno::ENOENT);
    }
    let len = len.min(MAX_LIST);
    let mut out = Vec::with_capacity(len.min(32768));
    let mut pos = file.pos();
    let mut too_small = false;
    if pos == 0 {
        if !put(&mut out, len, layout, &DirEnt { name: b".", ino: dir.ino, kind: S_IFDIR, next: 1 }) {
            return Err(Errno::EINVAL);
        }
        pos = 1;
    }
    if pos == 1 {
        let up = path.dotdot(&cur.fs().root()).inode()?;
        if !put(&mut out, len, layout, &DirEnt { name: b"..", ino: up.ino, kind: S_IFDIR, next: 2 }) {
            return if out.is_empty() { Err(Errno::EINVAL) } else { Ok((out, pos)) };
        }
        pos = 2;
    }
    {
        let mut sink = |e: &DirEnt<'_>| {
            if put(&mut out, len, layout, e) {
                pos = e.next;
                true
            } else {
                too_small = true;
                false
            }
        };
        let from = file.pos().max(2);
        dir.ops.readdir(dir, from, &mut sink).get().await?;
    }
    if too_small && out.is_empty() {
        return Err(Errno::EINVAL);
    }
    Ok((out, pos))
}

/// Appends one entry in guest layout: d_ino, d_off, d_reclen, then type and name, or name, padding and type.
fn put(out: &mut Vec<u8>, max: usize, layout: Layout, e: &DirEnt<'_>) -> bool {
    let head = 18;
    let reclen = match layout {
        Layout::New => (head + 1 + e.name.len() + 1).next_multiple_of(8),
        Layout::Old => (head + e.name.len() + 2).next_multiple_of(8),
    };
    let Ok(short) = u16::try_from(reclen) else { return true };
    if out.len() + reclen > max {
        return false;
    }
    let start = out.len();
    let dtype = u8::try_from(e.kind >> 12).unwrap_or(0);
    out.extend_from_slice(&e.ino.to_ne_bytes());
    out.extend_from_slice(&e.next.to_ne_bytes());
    out.extend_from_slice(&short.to_ne_bytes());
    if layout == Layout::New {
        out.push(dtype);
    }
    out.extend_from_slice(e.name);
    out.resize(start + reclen, 0);
    if layout == Layout::Old {
        out[start + reclen - 1] = dtype;
    }
    true
}
