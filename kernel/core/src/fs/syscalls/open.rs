//! open(2), openat2(2), creat(2), pipes.

use crate::fs::namei::{AT_FDCWD, O_TMPFILE_BIT, VALID_OPEN_FLAGS, resolve};
use crate::fs::open::{OpenHow, do_open};
use crate::syscall::{Fd, UserPtr};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

/// Gives an open file the lowest free descriptor.
pub fn install(cur: &Task, file: Arc<crate::fs::file::File>, flags: u32) -> Result<u64> {
    let fd = cur.files().install(file, flags & c::O_CLOEXEC != 0, 0, cur.nofile_limit())?;
    u64::try_from(fd).map_err(|_| Errno::EMFILE)
}

async fn open(cur: &Arc<Task>, dirfd: i32, name: UserPtr<u8>, flags: u32, how: OpenHow) -> Result<u64> {
    let name = name.read_path(cur).await?;
    let f = do_open(cur, dirfd, &name, how).await?;
    install(cur, f, flags)
}

/// open(2).
pub async fn sys_open(cur: &Arc<Task>, name: UserPtr<u8>, flags: u32, mode: u32) -> Result<u64> {
    open(cur, AT_FDCWD, name, flags, OpenHow::from_open(flags, mode)).await
}

/// openat(2).
pub async fn sys_openat(cur: &Arc<Task>, dirfd: Fd, name: UserPtr<u8>, flags: u32, mode: u32) -> Result<u64> {
    open(cur, dirfd.0, name, flags, OpenHow::from_open(flags, mode)).await
}

/// creat(2).
pub async fn sys_creat(cur: &Arc<Task>, name: UserPtr<u8>, mode: u32) -> Result<u64> {
    let flags = c::O_CREAT | c::O_WRONLY | c::O_TRUNC;
    open(cur, AT_FDCWD, name, flags, OpenHow::from_open(flags, mode)).await
}

/// openat2(2).
pub async fn sys_openat2(
    cur: &Arc<Task>,
    dirfd: Fd,
    name: UserPtr<u8>,
    how: UserPtr<[u64; 3]>,
    size: usize,
) -> Result<u64> {
    if size < 24 {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let [flags, mode, res] = how.read(cur).await?;
    let rest = UserPtr::<u8>::new(how.addr().wrapping_add(24)).read_vec(cur, size - 24).await?;
    if rest.iter().any(|&b| b != 0) {
        return Err(Errno::E2BIG);
    }
    let flags = u32::try_from(flags).map_err(|_| Errno::EINVAL)?;
    let creates = flags & (c::O_CREAT | O_TMPFILE_BIT) != 0;
    if flags & !VALID_OPEN_FLAGS != 0
        || res & !resolve::ALL != 0
        || mode & !0o7777 != 0
        || (mode != 0 && !creates)
        || (res & resolve::BENEATH != 0 && res & resolve::IN_ROOT != 0)
    {
        return Err(Errno::EINVAL);
    }
    if flags & c::O_PATH != 0 && flags & !(c::O_PATH | c::O_DIRECTORY | c::O_NOFOLLOW | c::O_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    if res & resolve::CACHED != 0 {
        // "Only from the cache" may always be refused; the caller tries again without it.
        return Err(Errno::EAGAIN);
    }
    let mode = u32::try_from(mode).map_err(|_| Errno::EINVAL)?;
    open(cur, dirfd.0, name, flags, OpenHow { flags, mode, resolve: res }).await
}

/// pipe(2).
pub async fn sys_pipe(cur: &Arc<Task>, fds: UserPtr<[i32; 2]>) -> Result<u64> {
    sys_pipe2(cur, fds, 0).await
}

/// pipe2(2).
pub async fn sys_pipe2(cur: &Arc<Task>, out: UserPtr<[i32; 2]>, flags: u32) -> Result<u64> {
    if flags & !(c::O_CLOEXEC | c::O_NONBLOCK | c::O_DIRECT) != 0 {
        return Err(Errno::EINVAL);
    }
    let (r, w) = crate::fs::pipe::new_pipe(cur, flags);
    let files = cur.files();
    let cloexec = flags & c::O_CLOEXEC != 0;
    let a = files.install(r, cloexec, 0, cur.nofile_limit())?;
    let b = match files.install(w, cloexec, 0, cur.nofile_limit()) {
        Ok(b) => b,
        Err(e) => {
            files.remove(a).ok();
            return Err(e);
        }
    };
    if let Err(e) = out.write(cur, &[a, b]).await {
        files.remove(a).ok();
        files.remove(b).ok();
        return Err(e);
    }
    Ok(0)
}
