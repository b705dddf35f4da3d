//! Places in the tree of mounts, and a task's root and working directory.

use super::dentry::Dentry;
use super::inode::Inode;
use super::mount::{Mount, MountNs};
use crate::{Errno, Result};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A mount and a dentry in it. The dentry is never negative.
#[derive(Clone)]
pub struct Path {
    /// The mount.
    pub mnt: Arc<Mount>,
    /// The name in it.
    pub dentry: Arc<Dentry>,
}

impl Path {
    /// The inode; `ENOENT` if the name has turned negative under the caller.
    pub fn inode(&self) -> Result<Arc<Inode>> {
        self.dentry.inode().ok_or(Errno::ENOENT)
    }

    /// Both are the same place.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mnt, &other.mnt) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }

    /// The directory that `..` names, crossing mounts but not `root`.
    pub fn dotdot(&self, root: &Self) -> Self {
        let mut at = self.clone();
        loop {
            if at.same(root) {
                return at;
            }
            if let Some(p) = at.dentry.parent()
                && !Arc::ptr_eq(&at.dentry, &at.mnt.root)
            {
                return Self { mnt: at.mnt, dentry: p }.topmost();
            }
            match at.mnt.mountpoint() {
                Some(up) => at = up,
                None => return at,
            }
        }
    }

    /// The root of what is mounted here, on top of everything.
    pub fn topmost(mut self) -> Self {
        while self.dentry.is_mountpoint() {
            match super::mount::mounted_on(&self) {
                Some(m) => {
                    let dentry = Arc::clone(&m.root);
                    self = Self { mnt: m, dentry };
                }
                None => break,
            }
        }
        self
    }

    /// The absolute name as seen from `root` (d_path); a place out of reach of `root` is named from the top, and the
    /// flag is false. A removed name ends in ` (deleted)`.
    pub fn display(&self, root: &Self) -> (Vec<u8>, bool) {
        if let Some(name) = super::anon::anon_name(self) {
            return (name, true);
        }
        let mut parts: Vec<Arc<[u8]>> = Vec::new();
        let mut at = self.clone();
        let deleted = self.dentry.is_unlinked();
        let mut reached = true;
        while !at.same(root) {
            if let Some(p) = at.dentry.parent()
                && !Arc::ptr_eq(&at.dentry, &at.mnt.root)
            {
                parts.push(at.dentry.name());
                at.dentry = p;
                continue;
            }
            match at.mnt.mountpoint() {
                Some(up) => at = up,
                None => {
                    reached = false;
                    break;
                }
            }
        }
        let mut out = Vec::new();
        for p in parts.iter().rev() {
            out.push(b'/');
            out.extend_from_slice(p);
        }
        if out.is_empty() {
            out.push(b'/');
        }
        if deleted {
            out.extend_from_slice(b" (deleted)");
        }
        (out, reached)
    }
}

struct FsInner {
    root: Path,
    cwd: Path,
    ns: Arc<MountNs>,
}

/// Root directory, working directory, umask and mount namespace, shared by CLONE_FS.
pub struct FsStruct {
    inner: RwLock<FsInner>,
    umask: AtomicU32,
}

impl FsStruct {
    /// At the root of the first mount namespace, umask 022.
    pub fn new() -> Self {
        let ns = super::mount::init_ns();
        let root = ns.root_path();
        Self { inner: RwLock::new(FsInner { cwd: root.clone(), root, ns }), umask: AtomicU32::new(0o022) }
    }

    /// A copy for fork(2).
    pub fn duplicate(&self) -> Self {
        let i = self.inner.read();
        Self {
            inner: RwLock::new(FsInner { root: i.root.clone(), cwd: i.cwd.clone(), ns: Arc::clone(&i.ns) }),
            umask: AtomicU32::new(self.umask()),
        }
    }

    /// Root directory.
    pub fn root(&self) -> Path {
        self.inner.read().root.clone()
    }

    /// Working directory.
    pub fn cwd(&self) -> Path {
        self.inner.read().cwd.clone()
    }

    /// chroot(2).
    pub fn set_root(&self, p: Path) {
        self.inner.write().root = p;
    }

    /// chdir(2).
    pub fn set_cwd(&self, p: Path) {
        self.inner.write().cwd = p;
    }

    /// The mount namespace.
    pub fn ns(&self) -> Arc<MountNs> {
        Arc::clone(&self.inner.read().ns)
    }

    /// unshare(CLONE_NEWNS), setns(2): another namespace, with root and working directory in it.
    pub fn set_ns(&self, ns: Arc<MountNs>, root: Path, cwd: Path) {
        *self.inner.write() = FsInner { root, cwd, ns };
    }

    /// The file mode creation mask.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// umask(2): sets it and gives the old one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }
}

impl Default for FsStruct {
    fn default() -> Self {
        Self::new()
    }
}
