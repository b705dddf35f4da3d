//! Extended attributes, in the inode and in the one block an inode may have for them; data kept in the inode.

use crate::Ext4;
use crate::blocks::{Buf, Kind};
use crate::csum;
use crate::disk::inode::I_BLOCK_LEN;
use crate::disk::xattr::{EXT4_XATTR_MAGIC, RawXattrEntry, RawXattrHeader, XATTR_CSUM_OFFSET, XATTR_HEADER};
use crate::disk::{le32, view};
use crate::inode::{FileType, Inode};
use klib::{Errno, Result};
use std::sync::Arc;

/// `EXT4_XATTR_INDEX_*` that have names above the file system, with the names' prefixes.
const PREFIXES: [(u8, &[u8]); 6] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
    (10, b"gnu."),
];
const INDEX_ACL_ACCESS: u8 = 2;
const INDEX_ACL_DEFAULT: u8 = 3;
/// `EXT4_XATTR_INDEX_SYSTEM`: internal, holds the rest of inline data under the name `data`.
const INDEX_SYSTEM: u8 = 7;

struct Entry<'a> {
    index: u8,
    name: &'a [u8],
    value: &'a [u8],
}

/// Entries that start at byte `first` of `base`, with values at offsets from `base`; the first error ends it.
struct Entries<'a> {
    base: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        // Four zero bytes end the list; so does the end of the space, which has no room for them then.
        if le32(self.base, self.at).unwrap_or(0) == 0 {
            return None;
        }
        let entry = self.parse();
        if entry.is_none() {
            self.at = self.base.len();
        }
        Some(entry.ok_or(Errno::EUCLEAN))
    }
}

impl<'a> Entries<'a> {
    fn parse(&mut self) -> Option<Entry<'a>> {
        let base = self.base;
        let raw: &RawXattrEntry = view(base, self.at)?;
        let name_at = self.at + size_of::<RawXattrEntry>();
        let name = base.get(name_at..name_at + usize::from(raw.name_len))?;
        if name.contains(&0) {
            return None;
        }
        let size = usize::try_from(raw.value_size.get()).ok()?;
        let start = usize::from(raw.value_offs.get());
        // Values in inodes of their own are the `ea_inode` feature, which is refused at mount.
        if raw.value_inum.get() != 0 {
            return None;
        }
        let value = if size == 0 { &[] } else { base.get(start..start.checked_add(size)?)? };
        self.at = (name_at + name.len()).next_multiple_of(4);
        Some(Entry { index: raw.name_index, name, value })
    }
}

/// Entries in the inode's own space.
fn in_inode(inode: &Inode) -> Entries<'_> {
    let area = inode.xattr_area();
    let base = if le32(area, 0) == Some(EXT4_XATTR_MAGIC) { area.get(4..).unwrap_or(&[]) } else { &[] };
    Entries { base, at: 0 }
}

/// Entries in an attribute block.
fn in_block(buf: &Buf) -> Entries<'_> {
    Entries { base: &buf.data, at: XATTR_HEADER }
}

fn full_name(index: u8, name: &[u8]) -> Option<Vec<u8>> {
    let (_, prefix) = PREFIXES.iter().find(|(i, _)| *i == index)?;
    Some([prefix, name].concat())
}

/// Splits a name as users know it into index and rest.
fn split_name(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|&(index, prefix)| {
        let rest = name.strip_prefix(prefix)?;
        // A prefix with a dot wants a name behind it, the ACLs' want none.
        (rest.is_empty() != prefix.ends_with(b".")).then_some((index, rest))
    })
}

/// An ACL as ext4 stores it (version 1, short entries) in the form that user space knows (version 2, acl(5)).
fn acl_to_user(value: &[u8]) -> Option<Vec<u8>> {
    const ACL_USER: u16 = 2;
    const ACL_GROUP: u16 = 8;
    const UNDEFINED_ID: u32 = u32::MAX;
    if le32(value, 0)? != 1 {
        return None;
    }
    let le16 = |at: usize| Some(u16::from_le_bytes(value.get(at..at + 2)?.try_into().ok()?));
    let mut out = 2u32.to_le_bytes().to_vec();
    let mut at = 4;
    while at < value.len() {
        let (tag, perm) = (le16(at)?, le16(at + 2)?);
        at += 4;
        let mut id = UNDEFINED_ID;
        if tag == ACL_USER || tag == ACL_GROUP {
            id = le32(value, at)?;
            at += 4;
        }
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&perm.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    Some(out)
}

impl Ext4 {
    fn bad_xattr(&self, inode: &Inode) -> Errno {
        self.corrupted("extended attributes", format_args!("inode {}", inode.ino()))
    }

    async fn xattr_block(&self, inode: &Inode) -> Result<Option<Arc<Buf>>> {
        let block = inode.file_acl();
        if block == 0 {
            return Ok(None);
        }
        if block <= u64::from(self.sb.first_data_block) || !self.blocks.contains(block, 1) {
            return Err(self.bad_xattr(inode));
        }
        let buf = self.blocks.read(block).await?;
        // The block may be shared, so its checksum knows the block, not the inode.
        if !buf.is_verified(Kind::Xattr, 0) {
            let header: &RawXattrHeader = view(&buf.data, 0).ok_or(Errno::EUCLEAN)?;
            if header.magic.get() != EXT4_XATTR_MAGIC || header.blocks.get() != 1 {
                return Err(self.bad_xattr(inode));
            }
            if self.sb.has_csum() {
                let crc = csum::crc32c(self.sb.csum_seed, &block.to_le_bytes());
                if csum::crc32c_with_hole(crc, &buf.data, XATTR_CSUM_OFFSET, 4) != header.checksum.get() {
                    return Err(self.bad_csum("extended attribute block", format_args!("block {block}")));
                }
            }
            buf.set_verified(Kind::Xattr, 0);
        }
        Ok(Some(buf))
    }

    /// The value of attribute `name` (`user.x`, `security.capability`, `system.posix_acl_access`, ...).
    ///
    /// Who may see `trusted.` and `security.` is the caller's to decide.
    /// Errors: `ENODATA` if there is none, `EOPNOTSUPP` for a name of no known class, `EUCLEAN`/`EBADMSG`.
    pub async fn getxattr(&self, inode: &Inode, name: &[u8]) -> Result<Vec<u8>> {
        let (index, rest) = split_name(name).ok_or(Errno::EOPNOTSUPP)?;
        let find = |entries: Entries<'_>| -> Result<Option<Vec<u8>>> {
            for e in entries {
                let e = e.map_err(|_| self.bad_xattr(inode))?;
                if e.index == index && e.name == rest {
                    return Ok(Some(e.value.to_vec()));
                }
            }
            Ok(None)
        };
        let value = match find(in_inode(inode))? {
            Some(value) => Some(value),
            None => match self.xattr_block(inode).await? {
                Some(buf) => find(in_block(&buf))?,
                None => None,
            },
        };
        let value = value.ok_or(Errno::ENODATA)?;
        if matches!(index, INDEX_ACL_ACCESS | INDEX_ACL_DEFAULT) {
            return acl_to_user(&value).ok_or_else(|| self.bad_xattr(inode));
        }
        Ok(value)
    }

    /// The names of all attributes, with their prefixes. The caller hides `trusted.` from those without
    /// `CAP_SYS_ADMIN`.
    pub async fn listxattr(&self, inode: &Inode) -> Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        let mut add = |entries: Entries<'_>| -> Result<()> {
            for e in entries {
                let e = e.map_err(|_| self.bad_xattr(inode))?;
                names.extend(full_name(e.index, e.name));
            }
            Ok(())
        };
        add(in_inode(inode))?;
        if let Some(buf) = self.xattr_block(inode).await? {
            add(in_block(&buf))?;
        }
        Ok(names)
    }

    /// All data of an inode with `inline_data`: 60 bytes of `i_block`, the rest in the attribute `system.data`. Cut at
    /// the size of a file or link; of a directory all space.
    pub(crate) fn inline_data(&self, inode: &Inode) -> Result<Vec<u8>> {
        let mut data = inode.i_block().to_vec();
        for e in in_inode(inode) {
            let e = e.map_err(|_| self.bad_xattr(inode))?;
            if e.index == INDEX_SYSTEM && e.name == b"data" {
                data.extend_from_slice(e.value);
                break;
            }
        }
        let size = usize::try_from(inode.size()).unwrap_or(usize::MAX);
        if inode.file_type() != FileType::Directory {
            if size > data.len() {
                return Err(
                    self.corrupted("inline data", format_args!("inode {}: {size} bytes", inode.ino()))
                );
            }
            data.truncate(size);
        } else if data.len() < I_BLOCK_LEN {
            return Err(Errno::EUCLEAN);
        }
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_and_join() {
        assert_eq!(split_name(b"user.a.b"), Some((1, &b"a.b"[..])));
        assert_eq!(split_name(b"user."), None);
        assert_eq!(split_name(b"system.posix_acl_access"), Some((2, &b""[..])));
        assert_eq!(split_name(b"system.posix_acl_accessx"), None);
        assert_eq!(split_name(b"system.data"), None);
        assert_eq!(full_name(6, b"capability"), Some(b"security.capability".to_vec()));
        assert_eq!(full_name(7, b"data"), None);
    }

    #[test]
    fn acls_become_version_two() {
        // user::rw-, user:1000:r--, mask::r--
        let disk: &[u8] = &[1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 4, 0, 0xe8, 3, 0, 0, 0x10, 0, 4, 0];
        let user = acl_to_user(disk).expect("well formed");
        assert_eq!(user.len(), 4 + 3 * 8);
        assert_eq!(&user[4..12], &[1, 0, 6, 0, 255, 255, 255, 255]);
        assert_eq!(&user[12..20], &[2, 0, 4, 0, 0xe8, 3, 0, 0]);
        assert!(acl_to_user(&disk[..14]).is_none());
    }
}
