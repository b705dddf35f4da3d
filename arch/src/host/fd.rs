//! Host file descriptors with shared ownership: a ring operation keeps a clone, so a number is never closed and
//! re-used under an operation that has not been submitted yet.

use super::{from_io, from_rustix, last_errno};
use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use uapi::{Errno, Result};

/// An open host file. Clones share it; the last one closes it.
#[derive(Clone, Debug)]
pub struct HostFd(Arc<OwnedFd>);

/// What kind of file a descriptor is (stat(2) `st_mode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// Regular file.
    Regular,
    /// Block device.
    Block,
    /// Terminal.
    Tty,
    /// Other character device.
    Char,
    /// Pipe or FIFO.
    Pipe,
    /// Socket.
    Socket,
    /// Directory or anything else.
    Other,
}

/// How to open a file with [`HostFd::open`].
#[derive(Clone, Copy, Default, Debug)]
pub struct OpenHow {
    /// Open for writing as well as for reading.
    pub write: bool,
    /// Create it if missing, with mode 0644.
    pub create: bool,
    /// O_SYNC.
    pub sync: bool,
    /// O_NONBLOCK.
    pub nonblock: bool,
    /// Open for writing alone.
    pub write_only: bool,
}

impl From<OwnedFd> for HostFd {
    fn from(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }
}

impl AsFd for HostFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for HostFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl HostFd {
    /// Opens a file for reading (and writing if asked), close-on-exec.
    pub fn open(path: &Path, how: OpenHow) -> Result<Self> {
        let mut flags = libc::O_CLOEXEC | libc::O_NOCTTY;
        if how.sync {
            flags |= libc::O_SYNC;
        }
        if how.nonblock {
            flags |= libc::O_NONBLOCK;
        }
        OpenOptions::new()
            .read(!how.write_only)
            .write(how.write || how.write_only)
            .create(how.create && how.write)
            .mode(0o644)
            .custom_flags(flags)
            .open(path)
            .map(|f| Self::from(OwnedFd::from(f)))
            .map_err(|e| from_io(&e))
    }

    /// A duplicate of a descriptor that this process was started with (`fd:N`); `EBADF` if it is not open.
    pub fn dup_of(number: RawFd) -> Result<Self> {
        if number < 0 {
            return Err(Errno::EBADF);
        }
        // SAFETY: fcntl with F_DUPFD_CLOEXEC touches no memory; an unknown number gives EBADF.
        let new = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
        if new < 0 {
            return Err(last_errno());
        }
        // SAFETY: the kernel has just made this number for us and nobody else knows it.
        Ok(Self::from(unsafe { OwnedFd::from_raw_fd(new) }))
    }

    /// Opens the same file once more, non-blocking, so that O_NONBLOCK is not forced upon others who share this open
    /// file description (a shell shares its terminal with us). Works for terminals, pipes and devices that we may open;
    /// not for sockets.
    pub fn reopen_nonblocking(&self, write_only: bool) -> Result<Self> {
        let path = format!("/proc/self/fd/{}", self.as_raw_fd());
        Self::open(Path::new(&path), OpenHow { nonblock: true, write_only, ..OpenHow::default() })
    }

    /// send(2) without waiting; `ENOTSOCK` for anything but a socket.
    pub fn send_now(&self, buf: &[u8]) -> Result<usize> {
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        rustix::net::send(self, buf, flags).map_err(from_rustix)
    }

    /// recv(2) without waiting; `ENOTSOCK` for anything but a socket.
    pub fn recv_now(&self, buf: &mut [u8]) -> Result<usize> {
        rustix::net::recv(self, buf, rustix::net::RecvFlags::DONTWAIT).map(|(n, _)| n).map_err(from_rustix)
    }

    /// read(2). May block if the file does.
    pub fn read(&self, buf: &mut [u8]) -> Result<usize> {
        rustix::io::read(self, buf).map_err(from_rustix)
    }

    /// write(2). May block if the file does.
    pub fn write(&self, buf: &[u8]) -> Result<usize> {
        rustix::io::write(self, buf).map_err(from_rustix)
    }

    /// pread(2).
    pub fn pread(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        rustix::io::pread(self, buf, offset).map_err(from_rustix)
    }

    /// poll(2) without waiting: which of `events` hold now (plus POLLERR, POLLHUP).
    pub fn poll_now(&self, events: u16) -> Result<u16> {
        self.poll_wait(events, 0)
    }

    /// poll(2) for at most `timeout_ms` milliseconds. Blocks the host thread: not for executors.
    pub fn poll_wait(&self, events: u16, timeout_ms: u32) -> Result<u16> {
        let ts = rustix::time::Timespec {
            tv_sec: i64::from(timeout_ms / 1000),
            tv_nsec: i64::from(timeout_ms % 1000) * 1_000_000,
        };
        let mut p = [rustix::event::PollFd::new(self, rustix::event::PollFlags::from_bits_retain(events))];
        rustix::event::poll(&mut p, Some(&ts)).map_err(from_rustix)?;
        Ok(p[0].revents().bits())
    }

    /// Sets or clears O_NONBLOCK (shared with everyone who has this open file description).
    pub fn set_nonblocking(&self, on: bool) -> Result<()> {
        let mut fl = rustix::fs::fcntl_getfl(self).map_err(from_rustix)?;
        fl.set(rustix::fs::OFlags::NONBLOCK, on);
        rustix::fs::fcntl_setfl(self, fl).map_err(from_rustix)
    }

    /// The kind of file.
    pub fn kind(&self) -> Result<FileKind> {
        use rustix::fs::FileType as T;
        let st = rustix::fs::fstat(self).map_err(from_rustix)?;
        Ok(match T::from_raw_mode(st.st_mode) {
            T::RegularFile => FileKind::Regular,
            T::BlockDevice => FileKind::Block,
            T::CharacterDevice if rustix::termios::isatty(self) => FileKind::Tty,
            T::CharacterDevice => FileKind::Char,
            T::Fifo => FileKind::Pipe,
            T::Socket => FileKind::Socket,
            _ => FileKind::Other,
        })
    }

    /// Size in bytes of a regular file or a block device; `EINVAL` for anything else.
    pub fn size(&self) -> Result<u64> {
        match self.kind()? {
            FileKind::Regular => {
                let st = rustix::fs::fstat(self).map_err(from_rustix)?;
                u64::try_from(st.st_size).map_err(|_| Errno::EINVAL)
            }
            FileKind::Block => rustix::fs::seek(self, rustix::fs::SeekFrom::End(0)).map_err(from_rustix),
            _ => Err(Errno::EINVAL),
        }
    }

    /// fdatasync(2), blocking.
    pub fn datasync(&self) -> Result<()> {
        rustix::fs::fdatasync(self).map_err(from_rustix)
    }

    /// Takes a whole-file fcntl(2) record lock without waiting (a write lock if `exclusive`). `Err(Some(pid))` names
    /// who holds a conflicting one, `Err(None)` if that cannot be told.
    pub fn lock(&self, exclusive: bool) -> core::result::Result<(), (Errno, Option<i32>)> {
        let kind = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
        let mut fl = libc::flock { l_type: kind as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        // SAFETY: F_SETLK reads the struct, which lives on this stack frame.
        let rc = unsafe { libc::fcntl(self.as_raw_fd(), libc::F_SETLK, &raw const fl) };
        if rc == 0 {
            return Ok(());
        }
        let err = last_errno();
        // SAFETY: F_GETLK reads and writes the struct, which lives on this stack frame.
        let rc = unsafe { libc::fcntl(self.as_raw_fd(), libc::F_GETLK, &raw mut fl) };
        let pid = (rc == 0 && i32::from(fl.l_type) != libc::F_UNLCK).then_some(fl.l_pid);
        Err((err, pid))
    }
}

/// A connected pair of stream sockets (socketpair(2)), non-blocking.
pub fn socketpair(datagrams: bool) -> Result<(HostFd, HostFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let ty = if datagrams { SocketType::DGRAM } else { SocketType::STREAM };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (a, b) = socketpair(AddressFamily::UNIX, ty, flags, None).map_err(from_rustix)?;
    Ok((a.into(), b.into()))
}

/// A pipe: (read end, write end), close-on-exec.
pub fn pipe(nonblock: bool) -> Result<(HostFd, HostFd)> {
    let mut flags = rustix::pipe::PipeFlags::CLOEXEC;
    flags.set(rustix::pipe::PipeFlags::NONBLOCK, nonblock);
    let (r, w) = rustix::pipe::pipe_with(flags).map_err(from_rustix)?;
    Ok((r.into(), w.into()))
}
