//! Inodes: reading, checking, caching.

use crate::Ext4;
use crate::csum;
use crate::disk::inode::{
    CSUM_HI_OFFSET, CSUM_LO_OFFSET, EXT4_EXTENTS_FL, EXT4_HUGE_FILE_FL, EXT4_INDEX_FL, EXT4_INLINE_DATA_FL,
    GOOD_OLD_INODE_SIZE, I_BLOCK_LEN, I_BLOCK_OFFSET, RawInode, RawInodeExtra,
};
use crate::disk::{join, le32, view};
use crate::features as f;
use klib::{Errno, Result};
use std::sync::Arc;

/// The root directory (`EXT4_ROOT_INO`).
pub const ROOT_INO: u32 = 2;

/// How many blocks of an inode table one request reads.
const ITABLE_READ_AHEAD: u64 = 8;

/// Seconds and nanoseconds since 1970; seconds may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timespec {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds, below 10^9.
    pub nsec: u32,
}

/// What kind of file an inode or directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// Not known (directory entries of file systems without the `filetype` feature).
    Unknown,
    /// Regular file.
    Regular,
    /// Directory.
    Directory,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// FIFO.
    Fifo,
    /// Socket.
    Socket,
    /// Symbolic link.
    Symlink,
}

impl FileType {
    /// From the `S_IFMT` bits of a mode.
    pub fn from_mode(mode: u16) -> Self {
        match mode & 0o170_000 {
            0o100_000 => Self::Regular,
            0o040_000 => Self::Directory,
            0o020_000 => Self::CharDevice,
            0o060_000 => Self::BlockDevice,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            0o120_000 => Self::Symlink,
            _ => Self::Unknown,
        }
    }

    /// From the file type of a directory entry (`EXT4_FT_*`).
    pub(crate) fn from_dirent(ft: u8) -> Self {
        match ft {
            1 => Self::Regular,
            2 => Self::Directory,
            3 => Self::CharDevice,
            4 => Self::BlockDevice,
            5 => Self::Fifo,
            6 => Self::Socket,
            7 => Self::Symlink,
            _ => Self::Unknown,
        }
    }

    /// The `DT_*` value of getdents(2).
    pub fn dt(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Fifo => 1,
            Self::CharDevice => 2,
            Self::Directory => 4,
            Self::BlockDevice => 6,
            Self::Regular => 8,
            Self::Symlink => 10,
            Self::Socket => 12,
        }
    }
}

/// What stat(2) and statx(2) want to know of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Type and permission bits, as `st_mode`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes; at most `i64::MAX`.
    pub size: u64,
    /// Links. A directory with 1 has more than could be counted (`dir_nlink`).
    pub nlink: u32,
    /// Allocated space in units of 512 bytes, as `st_blocks`.
    pub blocks: u64,
    /// Last access.
    pub atime: Timespec,
    /// Last change of the data.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
    /// Creation, where the inode is large enough to know.
    pub crtime: Option<Timespec>,
    /// `EXT4_*_FL`, as `FS_IOC_GETFLAGS` gives them.
    pub flags: u32,
    /// Device number (major, minor) of device nodes, else zeros.
    pub rdev: (u32, u32),
    /// Generation, as `FS_IOC_GETVERSION` gives it.
    pub generation: u32,
}

/// An inode in memory. There is one per number at any time.
pub struct Inode {
    ino: u32,
    attr: Attr,
    raw: Box<[u8]>,
    /// crc32c of the file system's seed, number and generation: the seed of what belongs to this inode.
    csum_seed: u32,
    file_acl: u64,
    /// Bytes of the fixed part behind byte 128, or nothing if the inode has no room for attributes.
    extra_isize: Option<usize>,
}

impl Inode {
    /// The number.
    pub fn ino(&self) -> u32 {
        self.ino
    }

    /// A snapshot of the attributes.
    pub fn attr(&self) -> Attr {
        self.attr
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.attr.size
    }

    /// Kind of file.
    pub fn file_type(&self) -> FileType {
        FileType::from_mode(self.attr.mode)
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    pub(crate) fn has_extents(&self) -> bool {
        self.attr.flags & EXT4_EXTENTS_FL != 0
    }

    pub(crate) fn has_inline_data(&self) -> bool {
        self.attr.flags & EXT4_INLINE_DATA_FL != 0
    }

    pub(crate) fn has_index(&self) -> bool {
        self.attr.flags & EXT4_INDEX_FL != 0
    }

    pub(crate) fn csum_seed(&self) -> u32 {
        self.csum_seed
    }

    pub(crate) fn file_acl(&self) -> u64 {
        self.file_acl
    }

    /// The 60 bytes of `i_block`.
    pub(crate) fn i_block(&self) -> &[u8] {
        self.raw.get(I_BLOCK_OFFSET..I_BLOCK_OFFSET + I_BLOCK_LEN).unwrap_or(&[])
    }

    /// The bytes behind the fixed part, where attributes may be.
    pub(crate) fn xattr_area(&self) -> &[u8] {
        self.extra_isize.and_then(|n| self.raw.get(GOOD_OLD_INODE_SIZE + n..)).unwrap_or(&[])
    }
}

impl std::fmt::Debug for Inode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inode").field("ino", &self.ino).field("attr", &self.attr).finish_non_exhaustive()
    }
}

fn timespec(sec: u32, extra: u32) -> Timespec {
    // Two bits of epoch extend the signed 32 bits of seconds, the other thirty are nanoseconds.
    let sec = i64::from(sec as i32) + (i64::from(extra & 3) << 32);
    let nsec = extra >> 2;
    Timespec { sec, nsec: if nsec < 1_000_000_000 { nsec } else { 0 } }
}

/// `i_block[0]` holds the old 16-bit form, `i_block[1]` the new one.
fn device_number(block: &[u8]) -> (u32, u32) {
    match (le32(block, 0).unwrap_or(0), le32(block, 4).unwrap_or(0)) {
        (0, dev) => ((dev & 0xf_ff00) >> 8, dev & 0xff | dev >> 12 & 0xf_ff00),
        (old, _) => (old >> 8 & 0xff, old & 0xff),
    }
}

impl Ext4 {
    /// The inode of a number that came from a directory entry, [`root_ino`](Self::root_ino) or a file handle.
    ///
    /// Errors: `EUCLEAN` for a number no entry may name or a broken inode, `EBADMSG` for a wrong checksum, `ESTALE`
    /// for a free inode.
    pub async fn inode(&self, ino: u32) -> Result<Arc<Inode>> {
        if ino != ROOT_INO && ino < self.sb.first_ino || ino > self.sb.inodes_count {
            return Err(self.corrupted("inode number", format_args!("{ino}")));
        }
        self.any_inode(ino).await
    }

    /// As [`inode`](Self::inode), but reserved numbers are allowed.
    pub(crate) async fn any_inode(&self, ino: u32) -> Result<Arc<Inode>> {
        let cached = self.inodes.lock().get(ino);
        if let Some(inode) = cached {
            return Ok(inode);
        }
        let inode = Arc::new(self.read_inode(ino).await?);
        Ok(self.inodes.lock().insert(ino, inode))
    }

    async fn read_inode(&self, ino: u32) -> Result<Inode> {
        let sb = &self.sb;
        let index = ino.checked_sub(1).filter(|i| *i < sb.inodes_count).ok_or(Errno::EUCLEAN)?;
        let group = self.group(index / sb.inodes_per_group).await?;
        let size = usize::from(sb.inode_size);
        let byte = u64::from(index % sb.inodes_per_group) * u64::from(sb.inode_size);
        let nr = byte >> sb.block_bits;
        let ahead = ITABLE_READ_AHEAD.min(u64::from(sb.itable_blocks()).saturating_sub(nr));
        let buf = self.blocks.read_ahead(group.inode_table + nr, ahead).await?;
        // The remainder is below the block size.
        let start = (byte & u64::from(sb.block_size - 1)) as usize;
        let raw = buf.data.get(start..start + size).ok_or(Errno::EUCLEAN)?;
        self.parse_inode(ino, raw)
    }

    fn parse_inode(&self, ino: u32, bytes: &[u8]) -> Result<Inode> {
        let sb = &self.sb;
        let bad = |what: &str| self.corrupted("inode", format_args!("{ino}: {what}"));
        let raw: &RawInode = view(bytes, 0).ok_or(Errno::EUCLEAN)?;
        let extra: Option<&RawInodeExtra> = view(bytes, GOOD_OLD_INODE_SIZE);
        let stored_extra = extra.map_or(0, |e| usize::from(e.extra_isize.get()));
        if GOOD_OLD_INODE_SIZE + stored_extra > bytes.len() || !stored_extra.is_multiple_of(4) {
            return Err(bad("extra size"));
        }
        let generation = raw.generation.get();
        let seed = csum::crc32c(csum::crc32c(sb.csum_seed, &ino.to_le_bytes()), &generation.to_le_bytes());
        if sb.has_csum() && !inode_csum_ok(bytes, raw, extra, stored_extra, seed) {
            return Err(self.bad_csum("inode", format_args!("{ino}")));
        }
        let mode = raw.mode.get();
        let nlink = u32::from(raw.links_count.get());
        if mode == 0 && nlink == 0 {
            return Err(Errno::ESTALE);
        }
        // An inode that does not say how large its fixed part is has it all, unused (`__ext4_iget`).
        let fits = if extra.is_some() && stored_extra == 0 { 32 } else { stored_extra };
        let ext =
            |end: usize, get: fn(&RawInodeExtra) -> u32| extra.filter(|_| fits >= end).map(get).unwrap_or(0);
        let file_type = FileType::from_mode(mode);
        let flags = raw.flags.get();
        if flags & EXT4_INLINE_DATA_FL != 0 && !sb.incompat(f::INCOMPAT_INLINE_DATA) {
            return Err(bad("inline data without the feature"));
        }
        let wide_size = file_type == FileType::Regular || sb.incompat(f::INCOMPAT_LARGEDIR);
        let size = join(raw.size_lo.get(), if wide_size { raw.size_hi.get() } else { 0 });
        if i64::try_from(size).is_err() {
            return Err(bad("size"));
        }
        let blocks = if sb.ro_compat & f::RO_COMPAT_HUGE_FILE != 0 {
            let n = join(raw.blocks_lo.get(), u32::from(raw.blocks_hi.get()));
            if flags & EXT4_HUGE_FILE_FL != 0 { n << (sb.block_bits - 9) } else { n }
        } else {
            u64::from(raw.blocks_lo.get())
        };
        let file_acl = join(raw.file_acl_lo.get(), u32::from(raw.file_acl_hi.get()));
        let is_dev = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
        let id = |lo: u16, hi: u16| u32::from(hi) << 16 | u32::from(lo);
        Ok(Inode {
            ino,
            attr: Attr {
                mode,
                uid: id(raw.uid.get(), raw.uid_hi.get()),
                gid: id(raw.gid.get(), raw.gid_hi.get()),
                size,
                nlink,
                blocks,
                atime: timespec(raw.atime.get(), ext(16, |e| e.atime_extra.get())),
                mtime: timespec(raw.mtime.get(), ext(12, |e| e.mtime_extra.get())),
                ctime: timespec(raw.ctime.get(), ext(8, |e| e.ctime_extra.get())),
                crtime: extra
                    .filter(|_| fits >= 20)
                    .map(|e| timespec(e.crtime.get(), ext(24, |e| e.crtime_extra.get()))),
                flags,
                rdev: if is_dev { device_number(&raw.block) } else { (0, 0) },
                generation,
            },
            raw: bytes.into(),
            csum_seed: seed,
            file_acl,
            extra_isize: (stored_extra != 0).then_some(stored_extra),
        })
    }
}

fn inode_csum_ok(
    bytes: &[u8],
    raw: &RawInode,
    extra: Option<&RawInodeExtra>,
    extra_isize: usize,
    seed: u32,
) -> bool {
    let (lo, hi) = bytes.split_at(GOOD_OLD_INODE_SIZE);
    let crc = csum::crc32c_with_hole(seed, lo, CSUM_LO_OFFSET, 2);
    match extra.filter(|_| extra_isize >= 4) {
        Some(e) => {
            let crc = csum::crc32c_with_hole(crc, hi, CSUM_HI_OFFSET - GOOD_OLD_INODE_SIZE, 2);
            crc == u32::from(e.checksum_hi.get()) << 16 | u32::from(raw.checksum_lo.get())
        }
        None => csum::crc32c(crc, hi) as u16 == raw.checksum_lo.get(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_reach_from_1901_to_2446() {
        assert_eq!(timespec(0x8000_0000, 0).sec, -0x8000_0000);
        assert_eq!(timespec(0x7fff_ffff, 3).sec, 0x3_7fff_ffff);
        assert_eq!(timespec(0, 999_999_999 << 2 | 1), Timespec { sec: 1 << 32, nsec: 999_999_999 });
        assert_eq!(timespec(0, u32::MAX).nsec, 0);
    }

    #[test]
    fn device_numbers_in_both_forms() {
        let mut b = [0u8; 60];
        b[..4].copy_from_slice(&0x0803u32.to_le_bytes());
        assert_eq!(device_number(&b), (8, 3));
        b[..4].fill(0);
        // Major 259, minor 0x12345: mmmm mMMM MMmm as new_encode_dev(9) packs them.
        let dev = 0x45 | 259 << 8 | (0x12345u32 & !0xff) << 12;
        b[4..8].copy_from_slice(&dev.to_le_bytes());
        assert_eq!(device_number(&b), (259, 0x12345));
    }
}
