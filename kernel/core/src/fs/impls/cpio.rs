//! Unpacks an initramfs (cpio "newc", as Documentation/driver-api/early-userspace/buffer-format says) into a memory
//! file system. Every length is checked against what is left; names may not leave the tree.

use crate::fs::inode::{Inode, NewInode, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, SetAttr, Timespec, makedev};
use crate::fs::iov::IovIter;
use crate::{Errno, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// One entry of an archive.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Name without leading `/` or `./`.
    pub name: &'a [u8],
    /// Inode number in the archive, with the device part.
    pub ino: (u32, u32, u32),
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Links.
    pub nlink: u32,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Device number of a node.
    pub rdev: u64,
    /// Contents, or the target of a link.
    pub data: &'a [u8],
}

/// Reads an archive entry by entry; ends at the trailer, at the end of the bytes, or with `EINVAL`.
pub struct Reader<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Over the bytes of an archive, or of several one after the other.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, at: 0 }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        if n > self.rest.len() {
            return Err(Errno::EINVAL);
        }
        let (a, b) = self.rest.split_at(n);
        self.rest = b;
        self.at += n;
        Ok(a)
    }

    fn align(&mut self) {
        let pad = (4 - self.at % 4) % 4;
        self.take(pad.min(self.rest.len())).ok();
    }

    /// The next entry; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'a>>> {
        loop {
            // Archives may be padded with zeros and follow each other.
            while self.rest.first() == Some(&0) {
                self.take(1)?;
            }
            if self.rest.is_empty() {
                return Ok(None);
            }
            let head = self.take(110)?;
            if !matches!(&head[..6], b"070701" | b"070702") {
                return Err(Errno::EINVAL);
            }
            let mut f = [0u32; 13];
            for (i, v) in f.iter_mut().enumerate() {
                let s = std::str::from_utf8(&head[6 + i * 8..14 + i * 8]).map_err(|_| Errno::EINVAL)?;
                *v = u32::from_str_radix(s, 16).map_err(|_| Errno::EINVAL)?;
            }
            let [ino, mode, uid, gid, nlink, mtime, size, dmaj, dmin, rmaj, rmin, namesize, _] = f;
            if namesize == 0 || namesize > 4096 {
                return Err(Errno::EINVAL);
            }
            let name = self.take(namesize as usize)?;
            self.align();
            let data = self.take(size as usize)?;
            self.align();
            let name = name.split(|&b| b == 0).next().unwrap_or(&[]);
            if name == b"TRAILER!!!" {
                continue;
            }
            let mut name = name;
            while let Some(n) = name.strip_prefix(b"/").or_else(|| name.strip_prefix(b"./")) {
                name = n;
            }
            return Ok(Some(Entry {
                name,
                ino: (dmaj, dmin, ino),
                mode,
                uid,
                gid,
                nlink,
                mtime,
                rdev: makedev(rmaj, rmin),
                data,
            }));
        }
    }
}

/// Writes all of an archive into the memory file system with this root; gives the number of entries.
pub fn unpack(root: &Arc<Inode>, bytes: &[u8]) -> Result<usize> {
    let mut reader = Reader::new(bytes);
    let mut links: HashMap<(u32, u32, u32), Arc<Inode>> = HashMap::new();
    let mut count = 0;
    while let Some(e) = reader.next_entry()? {
        count += 1;
        if e.name.is_empty() || e.name == b"." {
            root.update(|a| a.mode = S_IFDIR | (e.mode & 0o7777));
            continue;
        }
        place(root, &e, &mut links)?;
    }
    Ok(count)
}

fn now<T>(a: crate::fs::inode::Answer<'_, T>) -> Result<T> {
    match a {
        crate::fs::inode::Answer::Now(r) => r,
        crate::fs::inode::Answer::Later(_) => Err(Errno::EINVAL),
    }
}

fn place(root: &Arc<Inode>, e: &Entry<'_>, links: &mut HashMap<(u32, u32, u32), Arc<Inode>>) -> Result<()> {
    let mut dir = Arc::clone(root);
    let mut parts: Vec<&[u8]> =
        e.name.split(|&b| b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    let Some(last) = parts.pop() else { return Ok(()) };
    if last == b".." || last.len() > 255 || parts.iter().any(|p| *p == b".." || p.len() > 255) {
        return Err(Errno::EINVAL);
    }
    for p in parts {
        let next = match now(dir.ops.lookup(&dir, p)) {
            Ok(i) => i,
            Err(Errno::ENOENT) => {
                let new = NewInode { mode: S_IFDIR | 0o755, rdev: 0, target: &[], uid: 0, gid: 0 };
                now(dir.ops.create(&dir, p, &new))?
            }
            Err(x) => return Err(x),
        };
        if !next.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        dir = next;
    }
    let kind = e.mode & S_IFMT;
    if let Ok(old) = now(dir.ops.lookup(&dir, last)) {
        if old.is_dir() && kind == S_IFDIR {
            old.update(|a| a.mode = S_IFDIR | (e.mode & 0o7777));
            return Ok(());
        }
        now(dir.ops.unlink(&dir, last, &old))?;
    }
    if kind == S_IFREG
        && e.nlink > 1
        && let Some(first) = links.get(&e.ino)
    {
        now(dir.ops.link(&dir, last, first))?;
        return if e.data.is_empty() { Ok(()) } else { fill(first, e.data) };
    }
    let target: &[u8] = if kind == S_IFLNK { e.data } else { &[] };
    if target.len() >= 4096 {
        return Err(Errno::ENAMETOOLONG);
    }
    let new = NewInode { mode: kind | (e.mode & 0o7777), rdev: e.rdev, target, uid: e.uid, gid: e.gid };
    let inode = now(dir.ops.create(&dir, last, &new))?;
    if kind == S_IFREG {
        if e.nlink > 1 {
            links.insert(e.ino, Arc::clone(&inode));
        }
        fill(&inode, e.data)?;
    }
    let t = Timespec { sec: i64::from(e.mtime), nsec: 0 };
    inode.update(|a| a.mtime = t);
    Ok(())
}

fn fill(inode: &Arc<Inode>, data: &[u8]) -> Result<()> {
    let cache = inode.ops.mapping(inode).ok_or(Errno::EINVAL)?;
    let set = SetAttr { size: Some(data.len() as u64), ..SetAttr::default() };
    let mut from = IovIter::kernel_src(data);
    while from.remaining() > 0 {
        let pos = from.done() as u64;
        if cache.try_write(pos, &mut from)? == 0 {
            return Err(Errno::ENOSPC);
        }
    }
    now(inode.ops.setattr(inode, &set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::impls::tmpfs;

    /// Appends an entry in newc form.
    fn put(out: &mut Vec<u8>, name: &str, mode: u32, nlink: u32, ino: u32, data: &[u8]) {
        out.extend_from_slice(b"070701");
        let f = [ino, mode, 1, 2, nlink, 7, data.len() as u32, 0, 0, 5, 1, name.len() as u32 + 1, 0];
        for v in f {
            out.extend_from_slice(format!("{v:08x}").as_bytes());
        }
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(4), 0);
    }

    fn sample() -> Vec<u8> {
        let mut a = Vec::new();
        put(&mut a, ".", 0o040_755, 2, 1, b"");
        put(&mut a, "dev/console", 0o020_600, 1, 2, b"");
        put(&mut a, "bin/sh", 0o120_777, 1, 3, b"busybox");
        put(&mut a, "TRAILER!!!", 0, 1, 0, b"");
        a.resize(a.len() + 512, 0);
        a
    }

    #[test]
    fn unpacks_a_tree() {
        let root = tmpfs::new_rootfs();
        assert_eq!(unpack(&root, &sample()), Ok(3));
        let dev = now(root.ops.lookup(&root, b"dev")).unwrap();
        let con = now(dev.ops.lookup(&dev, b"console")).unwrap();
        assert_eq!(con.rdev(), makedev(5, 1));
        let bin = now(root.ops.lookup(&root, b"bin")).unwrap();
        assert!(now(bin.ops.lookup(&bin, b"sh")).unwrap().is_symlink());
    }

    #[test]
    fn damaged_archives_end_with_an_error() {
        let good = sample();
        for cut in 0..good.len() {
            unpack(&tmpfs::new_rootfs(), &good[..cut]).ok();
        }
        let mut x = 12345u64;
        for _ in 0..2000 {
            let mut bad = good.clone();
            for _ in 0..3 {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let i = (x >> 33) as usize % bad.len();
                bad[i] = (x >> 20) as u8;
            }
            unpack(&tmpfs::new_rootfs(), &bad).ok();
        }
        let mut a = Vec::new();
        put(&mut a, "a/../../etc/passwd", 0o100_644, 1, 1, b"x");
        assert_eq!(unpack(&tmpfs::new_rootfs(), &a), Err(Errno::EINVAL));
    }
}
