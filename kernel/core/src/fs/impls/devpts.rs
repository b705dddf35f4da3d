//! devpts: /dev/pts/N for every pair, and its own ptmx.
//! DIFFERS: all mounts show the same pairs.

use crate::fs::inode::{
    Answer, Attr, DirEnt, DirSink, Inode, InodeOps, S_IFCHR, S_IFDIR, SetAttr, Timespec, makedev,
};
use crate::fs::mount::Mount;
use crate::fs::super_block::{FsType, MountArgs, PlainSuper, SuperBlock};
use crate::task::Task;
use crate::tty::pty::{self, PTS_MAJOR};
use crate::{BoxFuture, Errno, Result};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

const MAGIC: u64 = 0x1cd1;
/// Group `tty`, and the mode that lets it write: what every distribution mounts with.
const TTY_GID: u32 = 5;

/// Nodes by number, each with the pair it was made for.
type Nodes = HashMap<u32, (Weak<pty::Pair>, Arc<Inode>)>;

struct Root {
    /// Nodes in use, so that chown and chmod last as long as the pair.
    nodes: Mutex<Nodes>,
    ptmx: OnceLock<Arc<Inode>>,
}

struct Node;
impl InodeOps for Node {
    fn setattr<'a>(&'a self, _inode: &'a Arc<Inode>, _set: &'a SetAttr) -> Answer<'a, ()> {
        Answer::Now(Ok(()))
    }
}

fn node(sb: &Arc<SuperBlock>, ino: u64, rdev: u64, mode: u32, owner: (u32, u32), t: Timespec) -> Arc<Inode> {
    let attr = Attr {
        mode: S_IFCHR | mode,
        nlink: 1,
        uid: owner.0,
        gid: owner.1,
        rdev,
        atime: t,
        mtime: t,
        ctime: t,
        btime: t,
        ..Attr::default()
    };
    Inode::new(Arc::clone(sb), ino, Box::new(Node), attr)
}

impl InodeOps for Root {
    fn lookup<'a>(&'a self, dir: &'a Arc<Inode>, name: &'a [u8]) -> Answer<'a, Arc<Inode>> {
        if name == b"ptmx" {
            let now = Timespec::now();
            let i = self.ptmx.get_or_init(|| node(&dir.sb, 2, makedev(5, 2), 0o666, (0, 0), now));
            return Answer::Now(Ok(Arc::clone(i)));
        }
        Answer::Now((|| {
            let text = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
            let n: u32 = text.parse().map_err(|_| Errno::ENOENT)?;
            if text != n.to_string() {
                return Err(Errno::ENOENT);
            }
            let pair = pty::pair(n).ok_or(Errno::ENOENT)?;
            let mut nodes = self.nodes.lock();
            nodes.retain(|_, (p, _)| p.strong_count() > 0);
            if let Some((p, i)) = nodes.get(&n)
                && std::ptr::eq(p.as_ptr(), Arc::as_ptr(&pair))
            {
                return Ok(Arc::clone(i));
            }
            let owner = (pair.owner.0, TTY_GID);
            let i = node(&dir.sb, u64::from(n) + 3, makedev(PTS_MAJOR, n), 0o620, owner, pair.made);
            nodes.insert(n, (Arc::downgrade(&pair), Arc::clone(&i)));
            Ok(i)
        })())
    }

    fn readdir<'a>(&'a self, _dir: &'a Arc<Inode>, pos: u64, sink: &'a mut DirSink<'a>) -> Answer<'a, ()> {
        if pos <= 2 && !sink(&DirEnt { name: b"ptmx", ino: 2, kind: S_IFCHR, next: 3 }) {
            return Answer::Now(Ok(()));
        }
        for p in pty::pairs() {
            let ino = u64::from(p.index) + 3;
            if ino >= pos.max(3) {
                let name = p.index.to_string();
                if !sink(&DirEnt { name: name.as_bytes(), ino, kind: S_IFCHR, next: ino + 1 }) {
                    break;
                }
            }
        }
        Answer::Now(Ok(()))
    }

    fn setattr<'a>(&'a self, _inode: &'a Arc<Inode>, _set: &'a SetAttr) -> Answer<'a, ()> {
        Answer::Now(Ok(()))
    }

    fn cacheable(&self, _name: &[u8]) -> bool {
        false
    }
}

/// The one root.
pub fn root() -> &'static Arc<Inode> {
    static ROOT: OnceLock<Arc<Inode>> = OnceLock::new();
    ROOT.get_or_init(|| {
        let sb = SuperBlock::new("devpts", MAGIC, 0, Box::new(PlainSuper));
        let now = Timespec::now();
        let attr = Attr {
            mode: S_IFDIR | 0o755,
            nlink: 2,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            ..Attr::default()
        };
        Inode::new(sb, 1, Box::new(Root { nodes: Mutex::default(), ptmx: OnceLock::new() }), attr)
    })
}

/// A mount for the kernel's own opens.
pub fn kernel_mount() -> &'static Arc<Mount> {
    static MNT: OnceLock<Arc<Mount>> = OnceLock::new();
    MNT.get_or_init(|| Mount::detached(root(), "devpts", 0))
}

fn mount<'a>(_cur: &'a Arc<Task>, _args: MountArgs<'a>) -> BoxFuture<'a, Result<Arc<Inode>>> {
    Box::pin(async { Ok(Arc::clone(root())) })
}

/// Makes devpts known to mount(2).
pub fn register() {
    crate::fs::super_block::register(FsType { name: "devpts", needs_dev: false, mount });
}
