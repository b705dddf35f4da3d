//! Opening files (open(2), openat2(2)).

use super::file::{File, FileOps};
use super::inode::{
    Inode, NewInode, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK, S_ISGID, SetAttr,
};
use super::namei::{AT_FDCWD, Last, Link, O_TMPFILE_BIT, VALID_OPEN_FLAGS, Walk};
use super::path::Path;
use super::perm::{self, MAY_EXEC, MAY_READ, MAY_WRITE};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uapi::raw::general as c;

/// How to open: openat2(2)'s struct.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenHow {
    /// O_* flags.
    pub flags: u32,
    /// Mode of a new file.
    pub mode: u32,
    /// RESOLVE_* flags.
    pub resolve: u64,
}

impl OpenHow {
    /// As open(2) takes it: unknown flags are ignored.
    pub fn from_open(flags: u32, mode: u32) -> Self {
        let mut flags = flags & VALID_OPEN_FLAGS;
        if flags & c::O_PATH != 0 {
            flags &= c::O_PATH | c::O_DIRECTORY | c::O_NOFOLLOW | c::O_CLOEXEC;
        }
        let creates = flags & (c::O_CREAT | O_TMPFILE_BIT) != 0;
        Self { flags, mode: if creates { mode & 0o7777 } else { 0 }, resolve: 0 }
    }
}

/// Opens a file and gives it without a descriptor.
pub async fn do_open(cur: &Arc<Task>, dirfd: i32, name: &[u8], how: OpenHow) -> Result<Arc<File>> {
    if how.flags & O_TMPFILE_BIT != 0 {
        return open_tmpfile(cur, dirfd, name, how).await;
    }
    let mut walk = Walk::new(cur, dirfd, name, how.resolve)?;
    if how.flags & c::O_CREAT == 0 {
        let path = walk.full(name, how.flags & c::O_NOFOLLOW == 0).await?;
        return finish(cur, path, how.flags, false).await;
    }
    let (path, created) = create_or_find(cur, &mut walk, name, how).await?;
    finish(cur, path, how.flags, created).await
}

/// Opens for the kernel itself (execve, the boot console) in the task's view.
pub async fn open_kernel(cur: &Arc<Task>, name: &[u8], flags: u32) -> Result<Arc<File>> {
    do_open(cur, AT_FDCWD, name, OpenHow::from_open(flags, 0)).await
}

/// Opens a name below a place of the kernel's choice.
pub async fn open_from(mut walk: Walk<'_>, cur: &Arc<Task>, name: &[u8], flags: u32) -> Result<Arc<File>> {
    let path = walk.full(name, true).await?;
    finish(cur, path, flags, false).await
}

/// Opens a program for execve(2): a regular file that may be executed and is not on a noexec mount. The name is
/// relative to `dirfd`; with `AT_EMPTY_PATH` and an empty name it is the descriptor itself.
pub async fn open_exec(cur: &Arc<Task>, dirfd: i32, name: &[u8], at_flags: u32) -> Result<Arc<File>> {
    let path = super::namei::path_at_flags(cur, dirfd, name, at_flags).await?;
    let inode = path.inode()?;
    if inode.kind == S_IFLNK {
        return Err(Errno::ELOOP);
    }
    if inode.kind != S_IFREG || path.mnt.flags() & super::mount::ms::NOEXEC != 0 {
        return Err(Errno::EACCES);
    }
    perm::inode_permission(&cur.cred(), &inode, MAY_EXEC)?;
    let ops = inode.ops.open(&inode, cur, c::O_RDONLY)?;
    Ok(File::new(ops, inode, Some(path), c::O_RDONLY | c::O_LARGEFILE))
}

async fn create_or_find(
    cur: &Arc<Task>,
    walk: &mut Walk<'_>,
    name: &[u8],
    how: OpenHow,
) -> Result<(Path, bool)> {
    let mut name = name.to_vec();
    loop {
        let last = match walk.parent(&name).await? {
            Last::Name(_, true) => return Err(Errno::EISDIR),
            Last::Name(n, false) => n,
            _ if how.flags & c::O_EXCL != 0 => return Err(Errno::EEXIST),
            _ => return Err(Errno::EISDIR),
        };
        let found = walk.lookup(&last).await?;
        if let Some(d) = found
            && let Some(inode) = d.inode()
        {
            if how.flags & c::O_EXCL != 0 {
                return Err(Errno::EEXIST);
            }
            if inode.is_symlink() {
                if how.flags & c::O_NOFOLLOW != 0 {
                    return Err(Errno::ELOOP);
                }
                let here = Path { mnt: Arc::clone(&walk.at.mnt), dentry: d };
                match walk.read_link(&here).await? {
                    Link::Jumped => return Ok((walk.at.clone(), false)),
                    Link::Text(t) => name = t,
                }
                continue;
            }
            walk.step(d)?;
            return Ok((walk.at.clone(), false));
        }
        let dir = walk.at.inode()?;
        perm::may_change_dir(&walk.cred, &walk.at.mnt, &dir)?;
        if walk.at.dentry.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        let mode = S_IFREG | (how.mode & !cur.fs().umask());
        let new = new_inode(&walk.cred, &dir, mode, 0, &[]);
        match dir.ops.create(&dir, &last, &new).get().await {
            Ok(inode) => {
                let dentry = walk.at.dentry.instantiate(&dir, &last, inode);
                dir.touch_modified();
                return Ok((Path { mnt: Arc::clone(&walk.at.mnt), dentry }, true));
            }
            // Somebody was faster: without O_EXCL theirs is opened.
            Err(Errno::EEXIST) if how.flags & c::O_EXCL == 0 => {}
            Err(e) => return Err(e),
        }
    }
}

/// Owner and group of a new file: the creator's, the group of a set-group-ID directory (inode(7)).
pub fn new_inode<'a>(
    cred: &crate::task::Cred,
    dir: &Inode,
    mode: u32,
    rdev: u64,
    target: &'a [u8],
) -> NewInode<'a> {
    let (dmode, _, dgid) = dir.owner_mode();
    let mut mode = mode;
    let gid = if dmode & S_ISGID != 0 {
        if mode & super::inode::S_IFMT == S_IFDIR {
            mode |= S_ISGID;
        } else if mode & (S_ISGID | 0o010) == S_ISGID | 0o010
            && !cred.in_group(dgid)
            && !cred.capable(perm::cap::FSETID)
        {
            mode &= !S_ISGID;
        }
        dgid
    } else {
        cred.fsgid
    };
    NewInode { mode, rdev, target, uid: cred.fsuid, gid }
}

async fn open_tmpfile(cur: &Arc<Task>, dirfd: i32, name: &[u8], how: OpenHow) -> Result<Arc<File>> {
    if how.flags & c::O_DIRECTORY == 0 || how.flags & c::O_ACCMODE == c::O_RDONLY {
        return Err(Errno::EINVAL);
    }
    let mut walk = Walk::new(cur, dirfd, name, how.resolve)?;
    let path = walk.full(name, true).await?;
    let dir = path.inode()?;
    perm::may_change_dir(&walk.cred, &path.mnt, &dir)?;
    let mode = S_IFREG | (how.mode & !cur.fs().umask());
    let inode = dir.ops.tmpfile(&dir, &new_inode(&walk.cred, &dir, mode, 0, &[]))?;
    let ops = inode.ops.open(&inode, cur, how.flags)?;
    let label = format!("#{}", inode.ino);
    let dentry = super::dentry::Dentry::new_loose(&path.dentry, label.as_bytes(), Arc::clone(&inode));
    dentry.mark_unlinked();
    let flags = status_flags(how.flags);
    Ok(File::new(ops, inode, Some(Path { mnt: path.mnt, dentry }), flags))
}

fn status_flags(flags: u32) -> u32 {
    (flags & !(c::O_CREAT | c::O_EXCL | c::O_NOCTTY | c::O_TRUNC | c::O_CLOEXEC)) | c::O_LARGEFILE
}

/// Access that the flags ask for, as `MAY_*`.
fn access_of(flags: u32) -> u32 {
    let acc = match flags & c::O_ACCMODE {
        c::O_RDONLY => MAY_READ,
        c::O_WRONLY => MAY_WRITE,
        _ => MAY_READ | MAY_WRITE,
    };
    if flags & c::O_TRUNC != 0 { acc | MAY_WRITE } else { acc }
}

/// The second half of open(2): the place is known.
async fn finish(cur: &Arc<Task>, path: Path, flags: u32, created: bool) -> Result<Arc<File>> {
    let inode = path.inode()?;
    if flags & c::O_DIRECTORY != 0 && !inode.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if flags & c::O_PATH != 0 {
        return Ok(File::new(Arc::new(PathOps), inode, Some(path), flags & !c::O_CLOEXEC));
    }
    let acc = access_of(flags);
    let cred = cur.cred();
    match inode.kind {
        S_IFLNK => return Err(Errno::ELOOP),
        S_IFDIR if acc & MAY_WRITE != 0 || flags & c::O_CREAT != 0 => return Err(Errno::EISDIR),
        S_IFSOCK => return Err(Errno::ENXIO),
        _ => {}
    }
    perm::check_nodev(&path.mnt, &inode)?;
    // The creator of a file may open it whatever its mode says.
    if !created {
        perm::inode_permission(&cred, &inode, acc)?;
    }
    if acc & MAY_WRITE != 0 {
        perm::check_writable(&path.mnt, &inode)?;
        if inode.is_regular() && inode.deny_write.load(Ordering::Acquire) > 0 {
            return Err(Errno::ETXTBSY);
        }
    }
    if flags & c::O_NOATIME != 0 && !perm::owner_or_capable(&cred, &inode) {
        return Err(Errno::EPERM);
    }
    if flags & c::O_TRUNC != 0 && inode.is_regular() && !created {
        let set = SetAttr { size: Some(0), ..SetAttr::default() };
        super::attr::change(&inode, &set).await?;
    }
    let ops: Arc<dyn FileOps> = match inode.kind {
        S_IFDIR => Arc::new(super::dir::DirOps),
        S_IFCHR => super::devices::open_chr(cur, &inode, &path, flags)?,
        S_IFBLK => super::devices::open_blk(&inode, flags)?,
        S_IFIFO => super::pipe::open_fifo(cur, &inode, flags).await?,
        _ => inode.ops.open(&inode, cur, flags)?,
    };
    Ok(File::new(ops, inode, Some(path), status_flags(flags)))
}

/// An O_PATH descriptor: names a place and does nothing.
struct PathOps;
impl FileOps for PathOps {}
