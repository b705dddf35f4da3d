//! Path walk (path_resolution(7)).
//!
//! One loop, no recursion: a symbolic link puts its target in front of what is left of the name. A name whose parts
//! are all in the dentry cache is walked without sleeping and without an allocation.

use super::dentry::{Cached, Dentry};
use super::mount::ms;
use super::path::Path;
use super::perm::{self, MAY_EXEC};
use crate::task::{Cred, Task};
use crate::{Errno, Result};
use std::borrow::Cow;
use std::sync::Arc;
use uapi::raw::general as c;

/// Links that one walk follows at most (MAXSYMLINKS).
const MAX_LINKS: u32 = 40;
/// Bytes of one name.
pub const NAME_MAX: usize = 255;
/// Bytes of a path with its NUL.
pub const PATH_MAX: usize = 4096;
/// The *at calls' "working directory".
pub const AT_FDCWD: i32 = -100;
/// Do not follow a link at the end.
pub const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
/// faccessat: effective ids; unlinkat: the same bit is AT_REMOVEDIR.
pub const AT_EACCESS: u32 = 0x200;
/// unlinkat: rmdir.
pub const AT_REMOVEDIR: u32 = 0x200;
/// linkat: follow.
pub const AT_SYMLINK_FOLLOW: u32 = 0x400;
/// Accepted, no automounts here.
pub const AT_NO_AUTOMOUNT: u32 = 0x800;
/// An empty name means the descriptor itself.
pub const AT_EMPTY_PATH: u32 = 0x1000;

/// openat2(2) `resolve` bits.
pub mod resolve {
    #![allow(missing_docs)]
    pub const NO_XDEV: u64 = 1;
    pub const NO_MAGICLINKS: u64 = 2;
    pub const NO_SYMLINKS: u64 = 4;
    pub const BENEATH: u64 = 8;
    pub const IN_ROOT: u64 = 16;
    pub const CACHED: u64 = 32;
    pub const ALL: u64 = 63;
}

/// The last part of a name whose parent was walked to.
#[derive(Debug, PartialEq, Eq)]
pub enum Last {
    /// An ordinary name; true if slashes follow it.
    Name(Vec<u8>, bool),
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// The name was `/`.
    Root,
}

/// A walk under way.
pub struct Walk<'a> {
    cur: &'a Arc<Task>,
    /// Whose permissions count.
    pub cred: Arc<Cred>,
    root: Path,
    /// Where the walk stands.
    pub at: Path,
    links: u32,
    resolve: u64,
}

/// Where names relative to `dirfd` begin.
pub fn dir_base(cur: &Task, dirfd: i32) -> Result<Path> {
    if dirfd == AT_FDCWD {
        return Ok(cur.fs().cwd());
    }
    let f = cur.files().get(dirfd)?;
    f.path.clone().ok_or(Errno::ENOTDIR)
}

impl<'a> Walk<'a> {
    /// A walk of `name` by `cur` from `dirfd`.
    pub fn new(cur: &'a Arc<Task>, dirfd: i32, name: &[u8], resolve: u64) -> Result<Self> {
        if name.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let absolute = name.first() == Some(&b'/');
        let mut root = cur.fs().root();
        if absolute && resolve & resolve::BENEATH != 0 {
            return Err(Errno::EXDEV);
        }
        let at =
            if absolute && resolve & resolve::IN_ROOT == 0 { root.clone() } else { dir_base(cur, dirfd)? };
        if resolve & (resolve::BENEATH | resolve::IN_ROOT) != 0 {
            root = at.clone();
        }
        Ok(Self { cur, cred: cur.cred(), root, at, links: 0, resolve })
    }

    /// A walk from a place of the kernel's choice, with that place as root.
    pub fn from(cur: &'a Arc<Task>, at: Path) -> Self {
        Self { cur, cred: cur.cred(), root: at.clone(), at, links: 0, resolve: 0 }
    }

    /// The dentry of `name` in the directory where the walk stands; negative or absent if there is none.
    pub async fn lookup(&self, name: &[u8]) -> Result<Option<Arc<Dentry>>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let dir = self.at.inode()?;
        let cacheable = dir.ops.cacheable(name);
        loop {
            let generation = if cacheable {
                match self.at.dentry.cached(&dir, name) {
                    Cached::Hit(d) => return Ok(Some(d)),
                    Cached::Miss(g) => g,
                }
            } else {
                0
            };
            let found = match dir.ops.lookup(&dir, name).get().await {
                Ok(i) => Some(i),
                Err(Errno::ENOENT) => None,
                Err(e) => return Err(e),
            };
            if !cacheable {
                return Ok(found.map(|i| Dentry::new_loose(&self.at.dentry, name, i)));
            }
            if self.at.dentry.is_unlinked() || (found.is_none() && !dir.ops.cache_absent()) {
                return Ok(None);
            }
            if let Some(d) = self.at.dentry.add_child(&dir, name, found, generation) {
                return Ok(Some(d));
            }
        }
    }

    /// Walks all of `name`; follows a link at the end if `follow`.
    pub async fn full(&mut self, name: &[u8], follow: bool) -> Result<Path> {
        self.walk(name, false, follow).await?;
        Ok(self.at.clone())
    }

    /// Walks to the directory of the last part and gives that part.
    pub async fn parent(&mut self, name: &[u8]) -> Result<Last> {
        self.walk(name, true, false).await?.ok_or(Errno::ENOENT)
    }

    async fn walk(&mut self, name: &[u8], parent: bool, follow: bool) -> Result<Option<Last>> {
        if name.is_empty() {
            return Err(Errno::ENOENT);
        }
        let mut rest: Cow<'_, [u8]> = Cow::Borrowed(name);
        let mut pos = 0;
        let mut last = Last::Root;
        loop {
            while rest.get(pos) == Some(&b'/') {
                pos += 1;
            }
            if pos >= rest.len() {
                // Nothing but slashes were left: the walk is done, at a directory if there were any.
                if rest.last() == Some(&b'/') && !self.at.inode()?.is_dir() {
                    return Err(Errno::ENOTDIR);
                }
                return Ok(parent.then_some(last));
            }
            let end = rest[pos..].iter().position(|&b| b == b'/').map_or(rest.len(), |n| pos + n);
            let is_last = rest[end..].iter().all(|&b| b == b'/');
            let slash = is_last && end < rest.len();
            let dir = self.at.inode()?;
            if !dir.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            perm::inode_permission(&self.cred, &dir, MAY_EXEC)?;
            let part = &rest[pos..end];
            if is_last && parent {
                if part.len() > NAME_MAX {
                    return Err(Errno::ENAMETOOLONG);
                }
                return Ok(Some(match part {
                    b"." => Last::Dot,
                    b".." => Last::DotDot,
                    _ => Last::Name(part.to_vec(), slash),
                }));
            }
            match part {
                b"." => last = Last::Dot,
                b".." => {
                    self.dotdot()?;
                    last = Last::DotDot;
                }
                _ => {
                    let d = self.lookup(part).await?.ok_or(Errno::ENOENT)?;
                    let inode = d.inode().ok_or(Errno::ENOENT)?;
                    if inode.is_symlink() && (!is_last || follow || slash) {
                        let here = Path { mnt: Arc::clone(&self.at.mnt), dentry: d };
                        match self.read_link(&here).await? {
                            Link::Jumped => {}
                            Link::Text(mut target) => {
                                target.push(b'/');
                                target.extend_from_slice(rest.get(end + 1..).unwrap_or(&[]));
                                if is_last && !slash {
                                    target.pop();
                                }
                                rest = Cow::Owned(target);
                                pos = 0;
                                continue;
                            }
                        }
                    } else {
                        self.step(d)?;
                    }
                }
            }
            pos = end;
        }
    }

    /// Goes to a dentry of the directory where the walk stands, and onto what is mounted there.
    pub fn step(&mut self, d: Arc<Dentry>) -> Result<()> {
        let next = Path { mnt: Arc::clone(&self.at.mnt), dentry: d }.topmost();
        self.check_xdev(&next)?;
        self.at = next;
        Ok(())
    }

    fn check_xdev(&self, next: &Path) -> Result<()> {
        if self.resolve & resolve::NO_XDEV != 0 && !Arc::ptr_eq(&next.mnt, &self.at.mnt) {
            return Err(Errno::EXDEV);
        }
        Ok(())
    }

    /// Goes up.
    pub fn dotdot(&mut self) -> Result<()> {
        if self.resolve & resolve::BENEATH != 0 && self.at.same(&self.root) {
            return Err(Errno::EXDEV);
        }
        let next = self.at.dotdot(&self.root);
        self.check_xdev(&next)?;
        self.at = next;
        Ok(())
    }

    /// Follows the link `here`, which lies in the directory where the walk stands: jumps, or gives the text that
    /// replaces its name (an absolute one has moved the walk to the root).
    pub async fn read_link(&mut self, here: &Path) -> Result<Link> {
        self.links += 1;
        if self.links > MAX_LINKS
            || self.resolve & resolve::NO_SYMLINKS != 0
            || here.mnt.flags() & ms::NOSYMFOLLOW != 0
        {
            return Err(Errno::ELOOP);
        }
        let inode = here.inode()?;
        if let Some(to) = inode.ops.magic_link(&inode, self.cur) {
            if self.resolve & resolve::NO_MAGICLINKS != 0 {
                return Err(Errno::ELOOP);
            }
            if self.resolve & (resolve::BENEATH | resolve::IN_ROOT) != 0 {
                return Err(Errno::EXDEV);
            }
            let to = to?;
            self.check_xdev(&to)?;
            self.at = to;
            return Ok(Link::Jumped);
        }
        let text = inode.ops.readlink(&inode, self.cur).get().await?;
        if text.is_empty() {
            return Err(Errno::ENOENT);
        }
        if text[0] == b'/' {
            if self.resolve & resolve::BENEATH != 0 {
                return Err(Errno::EXDEV);
            }
            let root = self.root.clone();
            self.check_xdev(&root)?;
            self.at = root;
        }
        Ok(Link::Text(text))
    }
}

/// What following a link came to.
pub enum Link {
    /// The walk stands at its target.
    Jumped,
    /// This text takes its place.
    Text(Vec<u8>),
}

/// The place that `name` means from `dirfd`; an empty name is `ENOENT`.
pub async fn path_at(cur: &Arc<Task>, dirfd: i32, name: &[u8], follow: bool) -> Result<Path> {
    Walk::new(cur, dirfd, name, 0)?.full(name, follow).await
}

/// As [`path_at`] with the flags of the *at calls (`AT_EMPTY_PATH`, `AT_SYMLINK_NOFOLLOW`).
pub async fn path_at_flags(cur: &Arc<Task>, dirfd: i32, name: &[u8], flags: u32) -> Result<Path> {
    if name.is_empty() && flags & AT_EMPTY_PATH != 0 {
        return dir_base(cur, dirfd);
    }
    path_at(cur, dirfd, name, flags & AT_SYMLINK_NOFOLLOW == 0).await
}

/// A directory that may be searched (chdir(2), chroot(2)).
pub async fn dir_at(cur: &Arc<Task>, dirfd: i32, name: &[u8]) -> Result<Path> {
    let p = path_at(cur, dirfd, name, true).await?;
    let inode = p.inode()?;
    if !inode.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    perm::inode_permission(&cur.cred(), &inode, MAY_EXEC)?;
    Ok(p)
}

/// Flags that openat(2) ignores but openat2(2) refuses are not in here.
pub const VALID_OPEN_FLAGS: u32 = c::O_ACCMODE
    | c::O_CREAT
    | c::O_EXCL
    | c::O_NOCTTY
    | c::O_TRUNC
    | c::O_APPEND
    | c::O_NONBLOCK
    | c::O_SYNC
    | c::O_DSYNC
    | c::FASYNC
    | c::O_DIRECT
    | c::O_LARGEFILE
    | c::O_DIRECTORY
    | c::O_NOFOLLOW
    | c::O_NOATIME
    | c::O_CLOEXEC
    | c::O_PATH
    | O_TMPFILE_BIT;

/// `__O_TMPFILE`, without the O_DIRECTORY that O_TMPFILE carries.
pub const O_TMPFILE_BIT: u32 = 0o20_000_000;
