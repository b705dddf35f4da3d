//! fcntl(2).

use super::file;
use crate::fs::file::File;
use crate::fs::locks::{Owner, Range};
use crate::fs::perm::cap;
use crate::fs::pipe::PipeEnd;
use crate::syscall::{Fd, UserPtr};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uapi::raw::general as c;

const F_OFD_GETLK: u32 = 36;
const F_OFD_SETLK: u32 = 37;
const F_OFD_SETLKW: u32 = 38;
const F_DUPFD_QUERY: u32 = 1027;

/// fcntl(2).
pub async fn sys_fcntl(cur: &Arc<Task>, fd: Fd, cmd: u32, arg: u64) -> Result<u64> {
    let files = cur.files();
    let any = files.get(fd.0)?;
    match cmd {
        c::F_DUPFD | c::F_DUPFD_CLOEXEC => {
            let min = usize::try_from(arg).map_err(|_| Errno::EINVAL)?;
            if min >= cur.nofile_limit() {
                return Err(Errno::EINVAL);
            }
            let n = files.install(any, cmd == c::F_DUPFD_CLOEXEC, min, cur.nofile_limit())?;
            return u64::try_from(n).map_err(|_| Errno::EMFILE);
        }
        c::F_GETFD => return Ok(u64::from(files.cloexec(fd.0)?)),
        c::F_SETFD => {
            files.set_cloexec(fd.0, arg & u64::from(c::FD_CLOEXEC) != 0)?;
            return Ok(0);
        }
        c::F_GETFL => return Ok(u64::from(any.flags())),
        F_DUPFD_QUERY => {
            let other = files.get(i32::try_from(arg).map_err(|_| Errno::EBADF)?)?;
            return Ok(u64::from(Arc::ptr_eq(&any, &other)));
        }
        _ => {}
    }
    let f = file(cur, fd)?;
    #[allow(clippy::cast_possible_truncation)]
    let low = arg as u32;
    match cmd {
        c::F_SETFL => f.set_flags(low),
        c::F_GETLK | F_OFD_GETLK => get_lock(cur, &f, UserPtr::new(arg), cmd == F_OFD_GETLK).await?,
        c::F_SETLK | F_OFD_SETLK => set_lock(cur, &f, UserPtr::new(arg), false, cmd == F_OFD_SETLK).await?,
        c::F_SETLKW | F_OFD_SETLKW => set_lock(cur, &f, UserPtr::new(arg), true, cmd == F_OFD_SETLKW).await?,
        c::F_SETOWN => f.owner.store(low.cast_signed(), Ordering::Relaxed),
        c::F_GETOWN => return Ok(i64::from(f.owner.load(Ordering::Relaxed)).cast_unsigned()),
        c::F_SETOWN_EX => {
            let [kind, pid] = UserPtr::<[i32; 2]>::new(arg).read(cur).await?;
            let who = match kind {
                0 | 1 => pid,
                2 => -pid,
                _ => return Err(Errno::EINVAL),
            };
            f.owner.store(who, Ordering::Relaxed);
        }
        c::F_GETOWN_EX => {
            let who = f.owner.load(Ordering::Relaxed);
            let ex = if who < 0 { [2, who.saturating_neg()] } else { [1, who] };
            UserPtr::<[i32; 2]>::new(arg).write(cur, &ex).await?;
        }
        c::F_SETSIG if low <= 64 => {}
        c::F_GETSIG => return Ok(0),
        c::F_GETLEASE => return Ok(u64::from(c::F_UNLCK)),
        c::F_SETLEASE => return Err(Errno::EAGAIN),
        c::F_SETPIPE_SZ => {
            let end = f.ops_as::<PipeEnd>().ok_or(Errno::EBADF)?;
            let n = end.pipe().set_size(low as usize, cur.cred().capable(cap::SYS_RESOURCE))?;
            return Ok(n as u64);
        }
        c::F_GETPIPE_SZ => {
            return Ok(f.ops_as::<PipeEnd>().ok_or(Errno::EBADF)?.pipe().size() as u64);
        }
        c::F_ADD_SEALS => {
            if !f.writable() {
                return Err(Errno::EPERM);
            }
            f.inode.ops.seals(low)?;
        }
        c::F_GET_SEALS => return f.inode.ops.seals(0).map(u64::from),
        c::F_GET_RW_HINT | c::F_GET_FILE_RW_HINT => UserPtr::<u64>::new(arg).write(cur, &0).await?,
        c::F_SET_RW_HINT | c::F_SET_FILE_RW_HINT => {}
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// struct flock in four words: type and whence, start, length, pid.
type Flock = [i64; 4];

fn kind_of(l: &Flock) -> (i16, i16) {
    let b = l[0].to_ne_bytes();
    (i16::from_ne_bytes([b[0], b[1]]), i16::from_ne_bytes([b[2], b[3]]))
}

/// The range that a struct flock means for this file.
fn range_of(cur: &Task, f: &File, l: &Flock, ofd: bool) -> Result<Range> {
    let (kind, whence) = kind_of(l);
    let pid = l[3].cast_unsigned() & 0xffff_ffff;
    if ofd && pid != 0 {
        return Err(Errno::EINVAL);
    }
    let base = match u32::from(whence.cast_unsigned()) {
        c::SEEK_SET => 0,
        c::SEEK_CUR => i64::try_from(f.pos()).map_err(|_| Errno::EOVERFLOW)?,
        c::SEEK_END => i64::try_from(f.ops.size()).map_err(|_| Errno::EOVERFLOW)?,
        _ => return Err(Errno::EINVAL),
    };
    let at = base.checked_add(l[1]).ok_or(Errno::EOVERFLOW)?;
    let (start, end) = match l[2] {
        0 => (at, i64::MAX),
        n if n > 0 => (at, at.checked_add(n - 1).ok_or(Errno::EOVERFLOW)?),
        n => (at.checked_add(n).ok_or(Errno::EINVAL)?, at - 1),
    };
    let start = u64::try_from(start).map_err(|_| Errno::EINVAL)?;
    let end = if end == i64::MAX { u64::MAX } else { u64::try_from(end).map_err(|_| Errno::EINVAL)? };
    Ok(Range {
        start,
        end,
        write: i64::from(kind) == i64::from(c::F_WRLCK),
        owner: if ofd { Owner::Ofd(f.id()) } else { Owner::Posix(cur.files().id) },
        pid: cur.tgid(),
    })
}

async fn get_lock(cur: &Arc<Task>, f: &File, ptr: UserPtr<Flock>, ofd: bool) -> Result<()> {
    let mut l = ptr.read(cur).await?;
    let (kind, _) = kind_of(&l);
    if !matches!(u32::from(kind.cast_unsigned()), c::F_RDLCK | c::F_WRLCK) {
        return Err(Errno::EINVAL);
    }
    let r = range_of(cur, f, &l, ofd)?;
    let pack = |kind: u32| i64::from(kind);
    match f.inode.locks.get().and_then(|x| x.test(&r)) {
        None => l[0] = (l[0] & !0xffff) | pack(c::F_UNLCK),
        Some(other) => {
            l[0] = pack(if other.write { c::F_WRLCK } else { c::F_RDLCK });
            l[1] = other.start.cast_signed();
            l[2] = if other.end == u64::MAX { 0 } else { (other.end - other.start + 1).cast_signed() };
            l[3] = match other.owner {
                Owner::Posix(_) => i64::from(other.pid),
                Owner::Ofd(_) => 0xffff_ffff,
            };
        }
    }
    ptr.write(cur, &l).await
}

async fn set_lock(cur: &Arc<Task>, f: &File, ptr: UserPtr<Flock>, wait: bool, ofd: bool) -> Result<()> {
    let l = ptr.read(cur).await?;
    let r = range_of(cur, f, &l, ofd)?;
    let locks = f.inode.locks();
    match u32::from(kind_of(&l).0.cast_unsigned()) {
        c::F_UNLCK => {
            locks.unlock(&r);
            return Ok(());
        }
        c::F_RDLCK if !f.readable() => return Err(Errno::EBADF),
        c::F_WRLCK if !f.writable() => return Err(Errno::EBADF),
        c::F_RDLCK | c::F_WRLCK => {}
        _ => return Err(Errno::EINVAL),
    }
    if wait { locks.lock(cur, &r).await } else { locks.try_lock(&r) }
}
