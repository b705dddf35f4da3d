//! Directories: listing and linear lookup.

use crate::Ext4;
use crate::dirblock::{Dirent, dirent_at};
use crate::disk::dirent::NAME_LEN;
use crate::inode::{FileType, Inode};
use klib::{Errno, Result};

/// One entry of a directory, as [`Ext4::readdir`] hands it out.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: u32,
    /// Type, where the file system stores it in entries.
    pub file_type: FileType,
    /// The name: 1 to 255 bytes, in practice without `/` and NUL (a damaged image may have any).
    pub name: &'a [u8],
    /// The cookie behind this entry: give it to the next call to go on (`d_off` of getdents(2)).
    pub next_pos: u64,
}

/// Cookies of `.` and `..` and of the first real entry of directories that keep entries in the inode: where they
/// would be after conversion to blocks.
const INLINE_DOTDOT: u64 = 12;
const INLINE_FIRST: u64 = 24;
/// Bytes of the parent's number in front of inline entries.
const INLINE_PARENT_LEN: usize = 4;

impl Ext4 {
    /// Hands the entries from cookie `pos` on (0 = the start) to `emit`, until it returns false (that entry was not
    /// taken: go on with the cookie before it) or the directory ends. `.` and `..` are entries like others.
    ///
    /// A cookie is the byte position, stable as long as the directory is.
    /// Errors: `ENOTDIR`, and `EUCLEAN`/`EBADMSG` at a broken block; what came before it has been handed out.
    pub async fn readdir(
        &self,
        dir: &Inode,
        pos: u64,
        emit: &mut (dyn FnMut(DirEntry<'_>) -> bool + Send),
    ) -> Result<()> {
        if !dir.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        if dir.has_inline_data() {
            return self.readdir_inline(dir, pos, emit);
        }
        let rules = self.dirent_rules();
        let bits = self.sb.block_bits;
        let blocks = self.dir_blocks(dir)?;
        let mut logical = pos >> bits;
        // Below the block size.
        let mut from = (pos & u64::from(self.sb.block_size - 1)) as usize;
        while logical < blocks {
            let buf = match self.dir_block(dir, logical, true).await? {
                Ok(buf) => buf,
                Err(hole) => {
                    logical = logical.saturating_add(hole);
                    from = 0;
                    continue;
                }
            };
            let base = logical << bits;
            let mut off = 0;
            // From the start of the block, so that a made-up cookie cannot land inside an entry.
            while off < buf.data.len() {
                let e = dirent_at(&buf.data, off, rules).ok_or_else(|| self.bad_dirent(dir, logical, off))?;
                off += e.rec_len;
                if e.off >= from && e.ino != 0 && !emit(to_entry(&e, base + off as u64)) {
                    return Ok(());
                }
            }
            logical += 1;
            from = 0;
        }
        Ok(())
    }

    fn readdir_inline(
        &self,
        dir: &Inode,
        pos: u64,
        emit: &mut (dyn FnMut(DirEntry<'_>) -> bool + Send),
    ) -> Result<()> {
        let data = self.inline_data(dir)?;
        let parent = self.inline_parent(dir, &data)?;
        let dots = [(0, dir.ino(), &b"."[..], INLINE_DOTDOT), (INLINE_DOTDOT, parent, b"..", INLINE_FIRST)];
        for (at, ino, name, next_pos) in dots {
            let e = DirEntry { ino, file_type: FileType::Directory, name, next_pos };
            if pos <= at && !emit(e) {
                return Ok(());
            }
        }
        let rules = self.dirent_rules();
        let mut off = INLINE_PARENT_LEN;
        while off < data.len() {
            let e = dirent_at(&data, off, rules).ok_or_else(|| self.bad_dirent(dir, 0, off))?;
            off += e.rec_len;
            let cookie = |o: usize| (o - INLINE_PARENT_LEN) as u64 + INLINE_FIRST;
            if cookie(e.off) >= pos && e.ino != 0 && !emit(to_entry(&e, cookie(off))) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn inline_parent(&self, dir: &Inode, data: &[u8]) -> Result<u32> {
        crate::disk::le32(data, 0)
            .filter(|p| *p != 0 && *p <= self.sb.inodes_count)
            .ok_or_else(|| self.bad_dirent(dir, 0, 0))
    }

    /// The inode number behind `name` in `dir`, `.` and `..` included.
    ///
    /// Errors: `ENOTDIR`, `ENAMETOOLONG` above 255 bytes, `EUCLEAN`/`EBADMSG` for a broken directory.
    pub async fn lookup(&self, dir: &Inode, name: &[u8]) -> Result<Option<u32>> {
        if !dir.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        if name.len() > NAME_LEN {
            return Err(Errno::ENAMETOOLONG);
        }
        if name.is_empty() {
            return Ok(None);
        }
        if dir.has_inline_data() {
            return self.lookup_inline(dir, name);
        }
        if self.is_indexed(dir)
            && !matches!(name, b"." | b"..")
            && let Some(found) = self.lookup_htree(dir, name).await?
        {
            return Ok(found);
        }
        let blocks = self.dir_blocks(dir)?;
        let mut logical = 0u64;
        while logical < blocks {
            match self.dir_block(dir, logical, true).await? {
                Ok(buf) => {
                    if let Some(ino) = self.search_block(dir, logical, &buf.data, 0, name)? {
                        return Ok(Some(ino));
                    }
                    logical += 1;
                }
                Err(hole) => logical = logical.saturating_add(hole),
            }
        }
        Ok(None)
    }

    fn lookup_inline(&self, dir: &Inode, name: &[u8]) -> Result<Option<u32>> {
        let data = self.inline_data(dir)?;
        match name {
            b"." => Ok(Some(dir.ino())),
            b".." => self.inline_parent(dir, &data).map(Some),
            _ => self.search_block(dir, 0, &data, INLINE_PARENT_LEN, name),
        }
    }

    /// Looks for `name` among the entries of `data` from `start` on.
    pub(crate) fn search_block(
        &self,
        dir: &Inode,
        logical: u64,
        data: &[u8],
        start: usize,
        name: &[u8],
    ) -> Result<Option<u32>> {
        let rules = self.dirent_rules();
        let mut off = start;
        while off < data.len() {
            let e = dirent_at(data, off, rules).ok_or_else(|| self.bad_dirent(dir, logical, off))?;
            if e.ino != 0 && e.name == name {
                return Ok(Some(e.ino));
            }
            off += e.rec_len;
        }
        Ok(None)
    }
}

fn to_entry<'a>(e: &Dirent<'a>, next_pos: u64) -> DirEntry<'a> {
    DirEntry { ino: e.ino, file_type: e.file_type, name: e.name, next_pos }
}
