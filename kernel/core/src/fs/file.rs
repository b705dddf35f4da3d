//! Open files and the one wait loop of blocking reads and writes.

use super::iov::IovIter;
use super::poll::{self, PollTable};
use crate::mm::page_cache::PageCache;
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use uapi::raw::general as c;

/// What close(2) may wait for after a file is gone.
pub struct Linger {
    /// The longest wait.
    pub limit: std::time::Duration,
    /// Whether it is over; registers with what tells so.
    pub over: Box<dyn FnMut(&mut PollTable) -> bool + Send>,
}

/// What a kind of file does. Nothing here sleeps but the methods that return a boxed future; the blocking calls are
/// made of `try_*` and `poll` by [`File::read`] and [`File::write`].
pub trait FileOps: Any + Send + Sync {
    /// Reads at `pos`. `EAGAIN`: nothing now, wait for `POLLIN`. `EIOCBQUEUED`: call [`fill`](Self::fill) first.
    fn try_read(&self, _file: &File, _pos: u64, _to: &mut IovIter<'_>) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// As [`try_read`](Self::try_read) for files whose data depends on who reads (signalfd(2)).
    fn try_read_as(&self, _cur: &Task, file: &File, pos: u64, to: &mut IovIter<'_>) -> Result<usize> {
        self.try_read(file, pos, to)
    }

    /// Writes at `pos`; errors as [`try_read`](Self::try_read). With `O_APPEND` the implementation takes the end.
    fn try_write(&self, _file: &File, _pos: u64, _from: &mut IovIter<'_>) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// As [`try_write`](Self::try_write) for files where it matters who writes (sockets: SCM_CREDENTIALS).
    fn try_write_as(&self, _cur: &Task, file: &File, pos: u64, from: &mut IovIter<'_>) -> Result<usize> {
        self.try_write(file, pos, from)
    }

    /// Brings `len` bytes at `pos` into memory.
    fn fill(&self, _pos: u64, _len: usize) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// Readiness now, computed; registers with every queue that may change the answer.
    fn poll(&self, _file: &File, _table: &mut PollTable) -> u32 {
        poll::IN | poll::OUT
    }

    /// Asked before each try of a read or write of `cur`: job control of terminals.
    fn before_io(&self, _cur: &Task, _file: &File, _read: bool) -> Result<()> {
        Ok(())
    }

    /// True if a read whose time is over ends with 0 bytes, not with `EAGAIN` (VTIME of terminals).
    fn timeout_is_eof(&self) -> bool {
        false
    }

    /// How long a blocking read (or write) waits before it gives up with `EAGAIN` (SO_RCVTIMEO, SO_SNDTIMEO);
    /// `None`: for ever.
    fn io_timeout(&self, _read: bool) -> Option<std::time::Duration> {
        None
    }

    /// ioctl(2).
    fn ioctl<'a>(
        &'a self,
        _cur: &'a Arc<Task>,
        _file: &'a File,
        _cmd: u32,
        _arg: u64,
    ) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async { Err(Errno::ENOTTY) })
    }

    /// True if the file has a position: `read` advances it, lseek(2) and pread(2) work. Else `ESPIPE`.
    fn seekable(&self) -> bool {
        false
    }

    /// End of the file for `SEEK_END`.
    fn size(&self) -> u64 {
        0
    }

    /// The page cache behind mmap(2); `None`: `ENODEV`.
    fn mapping(&self) -> Option<Arc<PageCache>> {
        None
    }

    /// True if a write that fails with `EPIPE` also raises SIGPIPE (pipes, stream sockets).
    fn sigpipe(&self) -> bool {
        false
    }

    /// lseek(2) for files that do it their own way (SEEK_DATA, listings made anew); `None`: the usual one.
    fn seek(&self, _file: &File, _offset: i64, _whence: u32) -> Option<Result<u64>> {
        None
    }

    /// More lines of /proc/PID/fdinfo/N.
    fn show_fdinfo(&self, _file: &File) -> String {
        String::new()
    }

    /// Called once when the last descriptor of the open file is gone.
    fn release(&self, _file: &File) {}

    /// What close(2) waits for if it was the last to hold the file; asked for before (SO_LINGER).
    fn linger(&self) -> Option<Linger> {
        None
    }

    /// Called when a descriptor of it is closed (close(2)); errors reach the caller.
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// An open file description: what descriptors of several processes may share.
pub struct File {
    /// The kind of file.
    pub ops: Arc<dyn FileOps>,
    /// Where it was opened, for /proc/self/fd, fstat(2) and the *at calls; `None` for pipes, sockets and the like
    /// that have no place (they give a name by [`super::anon::anon_name`]).
    pub path: Option<super::path::Path>,
    /// The inode, for fstat(2).
    pub inode: Arc<super::inode::Inode>,
    flags: AtomicU32,
    pos: parking_lot::Mutex<u64>,
    /// Epoll items that watch it.
    watchers: parking_lot::Mutex<Vec<std::sync::Weak<super::eventpoll::Item>>>,
    /// F_SETOWN: process (positive) or process group (negative).
    pub owner: AtomicI32,
}

/// Access as open(2) granted it, and the status flags.
impl File {
    /// A new open file; `flags` are open(2)'s, without the creation flags.
    pub fn new(
        ops: Arc<dyn FileOps>,
        inode: Arc<super::inode::Inode>,
        path: Option<super::path::Path>,
        flags: u32,
    ) -> Arc<Self> {
        NR_FILES.fetch_add(1, Ordering::Relaxed);
        if inode.is_regular()
            && matches!(flags & c::O_ACCMODE, c::O_WRONLY | c::O_RDWR)
            && flags & c::O_PATH == 0
        {
            inode.deny_write.fetch_sub(1, Ordering::AcqRel);
        }
        Arc::new(Self {
            ops,
            path,
            inode,
            flags: AtomicU32::new(flags),
            pos: parking_lot::Mutex::new(0),
            watchers: parking_lot::Mutex::default(),
            owner: AtomicI32::new(0),
        })
    }

    /// Notes an epoll item, which goes when the file goes.
    pub(super) fn watch(&self, item: std::sync::Weak<super::eventpoll::Item>) {
        let mut w = self.watchers.lock();
        w.retain(|x| x.strong_count() > 0);
        w.push(item);
    }

    /// Names the open file while it lives (lock owners, epoll).
    pub fn id(&self) -> u64 {
        std::ptr::from_ref(self) as u64
    }

    /// Takes write access away from everyone while a program runs from it; `ETXTBSY` if somebody writes it. Give it
    /// back with [`allow_write`](Self::allow_write).
    pub fn deny_write(&self) -> Result<()> {
        self.inode
            .deny_write
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n >= 0).then_some(n + 1))
            .map(|_| ())
            .map_err(|_| Errno::ETXTBSY)
    }

    /// Ends [`deny_write`](Self::deny_write).
    pub fn allow_write(&self) {
        self.inode.deny_write.fetch_sub(1, Ordering::AcqRel);
    }

    /// open(2) flags as F_GETFL gives them.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// F_SETFL: replaces the flags that may change (O_APPEND, O_ASYNC, O_DIRECT, O_NOATIME, O_NONBLOCK).
    pub fn set_flags(&self, flags: u32) {
        const MAY: u32 = c::O_APPEND | c::FASYNC | c::O_DIRECT | c::O_NOATIME | c::O_NONBLOCK;
        self.flags
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |f| Some((f & !MAY) | (flags & MAY)))
            .ok();
    }

    /// O_NONBLOCK is set.
    pub fn nonblocking(&self) -> bool {
        self.flags() & c::O_NONBLOCK != 0
    }

    /// Opened for reading.
    pub fn readable(&self) -> bool {
        matches!(self.flags() & c::O_ACCMODE, c::O_RDONLY | c::O_RDWR) && self.flags() & c::O_PATH == 0
    }

    /// Opened for writing.
    pub fn writable(&self) -> bool {
        matches!(self.flags() & c::O_ACCMODE, c::O_WRONLY | c::O_RDWR) && self.flags() & c::O_PATH == 0
    }

    /// The position.
    pub fn pos(&self) -> u64 {
        *self.pos.lock()
    }

    /// Sets the position.
    pub fn set_pos(&self, pos: u64) {
        *self.pos.lock() = pos;
    }

    /// Readiness without waiting.
    pub fn poll_now(&self) -> u32 {
        let target: Arc<klib::waitqueue::TaskTarget> = Arc::default();
        let mut table = PollTable::for_task(&target);
        table.registered();
        self.ops.poll(self, &mut table)
    }

    /// The implementation as its own type, for calls that exist only for one kind (sockets, epoll, eventfd).
    pub fn ops_as<T: FileOps>(&self) -> Option<Arc<T>> {
        let any: Arc<dyn Any + Send + Sync> = Arc::clone(&self.ops) as Arc<dyn Any + Send + Sync>;
        any.downcast::<T>().ok()
    }

    /// read(2) and its family: at `at`, or at the file's position, which then advances. Blocks unless O_NONBLOCK.
    pub async fn read(&self, cur: &Task, at: Option<u64>, to: &mut IovIter<'_>) -> Result<usize> {
        if !self.readable() {
            return Err(Errno::EBADF);
        }
        self.transfer(cur, at, to, true).await
    }

    /// write(2) and its family; as [`read`](Self::read).
    pub async fn write(&self, cur: &Task, at: Option<u64>, from: &mut IovIter<'_>) -> Result<usize> {
        if !self.writable() {
            return Err(Errno::EBADF);
        }
        if self.inode.is_regular() {
            let append = self.flags() & c::O_APPEND != 0;
            let pos = if append { self.ops.size() } else { at.unwrap_or_else(|| self.pos()) };
            from.truncate(check_fsize(cur, pos, from.remaining())?);
        }
        let r = self.transfer(cur, at, from, false).await;
        if r == Err(Errno::EPIPE) && self.ops.sigpipe() {
            super::hooks::send_thread(cur, c::SIGPIPE);
        }
        r
    }

    /// The one wait loop: try; bring in what was missing; wait for readiness; try again. A signal or an error ends
    /// it with what was done so far, or with itself if that is nothing. Reads return after the first success,
    /// writes to blocking files go on until all is written.
    async fn transfer(
        &self,
        cur: &Task,
        at: Option<u64>,
        iov: &mut IovIter<'_>,
        read: bool,
    ) -> Result<usize> {
        let mut total = 0usize;
        loop {
            let pos = match at {
                Some(p) => p + total as u64,
                None => self.pos(),
            };
            let want = iov.remaining();
            if let Err(e) = self.ops.before_io(cur, self, read) {
                return if total > 0 { Ok(total) } else { Err(e) };
            }
            let r = if read {
                self.ops.try_read_as(cur, self, pos, iov)
            } else {
                self.ops.try_write_as(cur, self, pos, iov)
            };
            let fault = iov.take_fault();
            let err = match r {
                Ok(n) => {
                    total += n;
                    if at.is_none() && self.ops.seekable() {
                        let end = !read && self.flags() & c::O_APPEND != 0;
                        self.set_pos(if end { self.ops.size() } else { pos + n as u64 });
                    }
                    // A copy that stopped at a missing page is not the end of the data: go on, unless EOF.
                    let more = iov.remaining() > 0 && n > 0 && n < want;
                    match fault {
                        Some(f) if iov.remaining() > 0 => {
                            if cur.mm().fault_in(f.addr, 1, f.write).await.is_err() {
                                return if total > 0 { Ok(total) } else { Err(Errno::EFAULT) };
                            }
                            continue;
                        }
                        _ if read && self.ops.seekable() && more => continue,
                        _ if !read && more && !self.nonblocking() => continue,
                        _ => return Ok(total),
                    }
                }
                Err(e) => e,
            };
            match err {
                Errno::EFAULT => {
                    let Some(f) = fault else { return if total > 0 { Ok(total) } else { Err(err) } };
                    if cur.mm().fault_in(f.addr, 1, f.write).await.is_err() {
                        return if total > 0 { Ok(total) } else { Err(Errno::EFAULT) };
                    }
                }
                Errno::EIOCBQUEUED => {
                    if let Err(e) = self.ops.fill(pos, want).await {
                        return if total > 0 { Ok(total) } else { Err(e) };
                    }
                }
                Errno::EAGAIN if !self.nonblocking() => {
                    if read && total > 0 {
                        return Ok(total);
                    }
                    let events = if read { poll::POLLIN } else { poll::POLLOUT };
                    let deadline = self.ops.io_timeout(read).map(|d| executor::time::now() + d);
                    if let Err(e) = self.wait_ready(cur, events, deadline).await {
                        if e == Errno::ETIMEDOUT && self.ops.timeout_is_eof() {
                            return Ok(total);
                        }
                        let e = if e == Errno::ETIMEDOUT { Errno::EAGAIN } else { e };
                        return if total > 0 { Ok(total) } else { Err(e) };
                    }
                }
                e => return if total > 0 { Ok(total) } else { Err(e) },
            }
        }
    }

    /// Waits until one of `events` (or an error or hang-up) is there. `ERESTARTSYS` on a signal, `ETIMEDOUT` past
    /// `deadline`.
    pub async fn wait_ready(
        &self,
        cur: &Task,
        events: u32,
        deadline: Option<klib::ktime::Ktime>,
    ) -> Result<u32> {
        cur.wait_event(deadline, |table| {
            let ready = self.ops.poll(self, table) & (events | poll::ALWAYS);
            (ready != 0).then_some(ready)
        })
        .await
    }
}

/// RLIMIT_FSIZE: how many of `len` bytes may be written at `pos`; `EFBIG` and SIGXFSZ if none.
pub fn check_fsize(cur: &Task, pos: u64, len: usize) -> Result<usize> {
    let (limit, _) = cur.group.rlimit(c::RLIMIT_FSIZE);
    if limit == u64::MAX || len == 0 {
        return Ok(len);
    }
    if pos >= limit {
        super::hooks::send_thread(cur, c::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(usize::try_from(limit - pos).unwrap_or(usize::MAX).min(len))
}

/// Open files of all processes (fs.file-nr).
static NR_FILES: AtomicU64 = AtomicU64::new(0);
/// Open files that all processes together may have (fs.file-max).
pub const FILE_MAX: u64 = 1 << 20;

/// Number of open files in all.
pub fn nr_files() -> u64 {
    NR_FILES.load(Ordering::Relaxed)
}

impl Drop for File {
    fn drop(&mut self) {
        NR_FILES.fetch_sub(1, Ordering::Relaxed);
        if self.inode.is_regular() && self.writable() {
            self.inode.deny_write.fetch_add(1, Ordering::AcqRel);
        }
        super::eventpoll::file_gone(self.watchers.get_mut());
        if let Some(locks) = self.inode.locks.get() {
            locks.unflock(self.id());
            locks.release(super::locks::Owner::Ofd(self.id()));
        }
        let ops = Arc::clone(&self.ops);
        ops.release(self);
    }
}
