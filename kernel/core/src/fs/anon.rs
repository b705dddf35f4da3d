//! Files without a place: pipes, sockets, event files, memory files. Each kind has a kernel-only mount, so that such
//! a file has a path like every other.

use super::dentry::Dentry;
use super::file::{File, FileOps};
use super::inode::{Attr, Inode, InodeOps, S_IFDIR, S_IFIFO, S_IFSOCK, SetAttr, Timespec};
use super::mount::Mount;
use super::path::Path;
use super::super_block::{PlainSuper, SuperBlock};
use std::sync::{Arc, OnceLock};

/// Which of the kernel's own file systems a file without a place belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnonFs {
    /// Pipes: shown as `pipe:[N]`.
    Pipe,
    /// Sockets: `socket:[N]`.
    Sock,
    /// Everything else: `anon_inode:[name]`.
    Anon,
}

struct Plain;
impl InodeOps for Plain {
    fn setattr<'a>(&'a self, _inode: &'a Arc<Inode>, _set: &'a SetAttr) -> super::inode::Answer<'a, ()> {
        super::inode::Answer::Now(Ok(()))
    }
}

struct Home {
    mnt: Arc<Mount>,
    label: Arc<[u8]>,
}

fn home(fs: AnonFs) -> &'static Home {
    static HOMES: [OnceLock<Home>; 3] = [const { OnceLock::new() }; 3];
    let (i, name, magic, label) = match fs {
        AnonFs::Pipe => (0, "pipefs", 0x5049_5045, "pipe:"),
        AnonFs::Sock => (1, "sockfs", 0x534f_434b, "socket:"),
        AnonFs::Anon => (2, "anon_inodefs", 0x0904_1934, "anon_inode:"),
    };
    HOMES[i].get_or_init(|| {
        let sb = SuperBlock::new(name, magic, 0, Box::new(PlainSuper));
        let attr = Attr { mode: S_IFDIR | 0o555, nlink: 1, ..Attr::default() };
        let root = Inode::new(sb, 1, Box::new(Plain), attr);
        Home { mnt: Mount::detached(&root, name, 0), label: Arc::from(label.as_bytes()) }
    })
}

/// A new inode of one of the kernel's own file systems.
pub fn inode(fs: AnonFs, cred: &crate::task::Cred) -> Arc<Inode> {
    let sb = Arc::clone(&home(fs).mnt.sb);
    let now = Timespec::now();
    let mode = match fs {
        AnonFs::Pipe => S_IFIFO | 0o600,
        AnonFs::Sock => S_IFSOCK | 0o777,
        AnonFs::Anon => 0o600,
    };
    let attr = Attr {
        mode,
        nlink: 1,
        uid: cred.fsuid,
        gid: cred.fsgid,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        ..Attr::default()
    };
    let ino = sb.new_ino();
    Inode::new(sb, ino, Box::new(Plain), attr)
}

/// An open file over an inode that [`inode`] made; `name` is shown for [`AnonFs::Anon`] as `anon_inode:name`.
pub fn file(fs: AnonFs, name: &str, inode: Arc<Inode>, ops: Arc<dyn FileOps>, flags: u32) -> Arc<File> {
    let h = home(fs);
    let label = if name.is_empty() {
        Arc::clone(&h.label)
    } else {
        Arc::from(format!("anon_inode:{name}").as_bytes())
    };
    let dentry = Dentry::new_anon(&label, Arc::clone(&inode));
    File::new(ops, inode, Some(Path { mnt: Arc::clone(&h.mnt), dentry }), flags)
}

/// An open file of kind `anon_inode:[name]` (eventfd and the like); all of them share one inode.
pub fn anon_file(name: &str, ops: Arc<dyn FileOps>, flags: u32) -> Arc<File> {
    static SHARED: OnceLock<Arc<Inode>> = OnceLock::new();
    let inode = SHARED.get_or_init(|| inode(AnonFs::Anon, &crate::task::Cred::root()));
    file(AnonFs::Anon, name, Arc::clone(inode), ops, flags)
}

/// A socket's open file. `flags` are `O_RDWR` with `O_NONBLOCK` as wanted.
pub fn socket_file(cred: &crate::task::Cred, ops: Arc<dyn FileOps>, flags: u32) -> Arc<File> {
    file(AnonFs::Sock, "", inode(AnonFs::Sock, cred), ops, flags)
}

/// The name of a file without a place, as /proc/PID/fd shows it; `None` for all others.
pub fn anon_name(path: &Path) -> Option<Vec<u8>> {
    if path.dentry.parent().is_some() || path.mnt.mountpoint().is_some() {
        return None;
    }
    let name = path.dentry.name();
    match path.mnt.sb.fs_type {
        "pipefs" | "sockfs" => {
            let ino = path.inode().ok()?.ino;
            let mut out = name.to_vec();
            out.extend_from_slice(format!("[{ino}]").as_bytes());
            Some(out)
        }
        "anon_inodefs" => Some(name.to_vec()),
        "memfd" => Some([&b"/memfd:"[..], &name, b" (deleted)"].concat()),
        _ => None,
    }
}

/// A file with an own inode in a kernel-only mount (memory files): the name is shown as the mount's kind says.
pub fn placed(mnt: &Arc<Mount>, name: &[u8], inode: Arc<Inode>) -> Path {
    Path { mnt: Arc::clone(mnt), dentry: Dentry::new_anon(&Arc::from(name), inode) }
}
