//! devtmpfs: one memory file system with the nodes of the devices that the kernel has.

use super::tmpfs;
use crate::fs::inode::{Answer, Inode, NewInode, S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, makedev};
use crate::fs::super_block::{FsType, MountArgs};
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use std::sync::{Arc, OnceLock};

/// The one root: all mounts show the same nodes.
pub fn root() -> &'static Arc<Inode> {
    static ROOT: OnceLock<Arc<Inode>> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = tmpfs::new_fs("devtmpfs", tmpfs::TMPFS_MAGIC, 4096, 65_536, 0o755, (0, 0), false)
            .expect("an empty file system has room for its root");
        for (name, mode, major, minor) in [
            ("null", 0o666, 1, 3),
            ("zero", 0o666, 1, 5),
            ("full", 0o666, 1, 7),
            ("random", 0o666, 1, 8),
            ("urandom", 0o666, 1, 9),
            ("kmsg", 0o644, 1, 11),
            ("tty", 0o666, 5, 0),
            ("console", 0o600, 5, 1),
            ("ptmx", 0o666, 5, 2),
            ("tty0", 0o620, 4, 0),
            ("tty1", 0o620, 4, 1),
        ] {
            add(&root, name, S_IFCHR | mode, makedev(major, minor), b"").ok();
        }
        for (name, to) in [
            ("fd", &b"/proc/self/fd"[..]),
            ("stdin", b"/proc/self/fd/0"),
            ("stdout", b"/proc/self/fd/1"),
            ("stderr", b"/proc/self/fd/2"),
        ] {
            add(&root, name, S_IFLNK | 0o777, 0, to).ok();
        }
        for dir in ["pts", "shm"] {
            add(&root, dir, S_IFDIR | if dir == "shm" { 0o1777 } else { 0o755 }, 0, b"").ok();
        }
        root
    })
}

fn add(dir: &Arc<Inode>, name: &str, mode: u32, rdev: u64, target: &[u8]) -> Result<Arc<Inode>> {
    let new = NewInode { mode, rdev, target, uid: 0, gid: 0 };
    match dir.ops.create(dir, name.as_bytes(), &new) {
        Answer::Now(r) => r,
        Answer::Later(_) => Err(Errno::EIO),
    }
}

/// Adds a node, making the directories of its name; one that is there stays. A dentry that says "absent" is
/// forgotten with the next change of the directory.
pub fn add_node(name: &str, mode: u32, rdev: u64) {
    debug_assert!(matches!(mode & crate::fs::inode::S_IFMT, S_IFCHR | S_IFBLK));
    let mut dir = Arc::clone(root());
    let mut parts = name.split('/').peekable();
    while let Some(p) = parts.next() {
        if parts.peek().is_none() {
            if add(&dir, p, mode, rdev, b"").is_ok() {
                dir.bump();
            }
            return;
        }
        let next = match dir.ops.lookup(&dir, p.as_bytes()) {
            Answer::Now(Ok(i)) => i,
            _ => match add(&dir, p, S_IFDIR | 0o755, 0, b"") {
                Ok(i) => i,
                Err(_) => return,
            },
        };
        dir = next;
    }
}

fn mount<'a>(_cur: &'a Arc<Task>, _args: MountArgs<'a>) -> BoxFuture<'a, Result<Arc<Inode>>> {
    Box::pin(async { Ok(Arc::clone(root())) })
}

/// Makes devtmpfs known to mount(2).
pub fn register() {
    crate::fs::super_block::register(FsType { name: "devtmpfs", needs_dev: false, mount });
}
