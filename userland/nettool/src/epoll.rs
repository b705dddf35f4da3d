//! The little of epoll(7) that the load generators need, and their limit of descriptors.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// An epoll instance; each watched descriptor has a number that comes back with its events.
pub struct Epoll(OwnedFd);

/// What a descriptor is ready for.
pub struct Event {
    /// The number given to [`Epoll::add`].
    pub id: usize,
    /// It can be written to.
    pub writable: bool,
}

/// Readable.
pub const IN: u32 = libc::EPOLLIN as u32;
/// Writable.
pub const OUT: u32 = libc::EPOLLOUT as u32;

fn check(n: i32) -> Result<i32> {
    if n < 0 { Err(Error::last_os_error()) } else { Ok(n) }
}

impl Epoll {
    pub fn new() -> Result<Self> {
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn ctl(&self, op: i32, fd: &impl AsRawFd, id: usize, events: u32) -> Result<()> {
        let mut ev = libc::epoll_event { events, u64: id as u64 };
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), op, fd.as_raw_fd(), &mut ev) }).map(|_| ())
    }

    pub fn add(&self, fd: &impl AsRawFd, id: usize, events: u32) -> Result<()> {
        self.ctl(libc::EPOLL_CTL_ADD, fd, id, events)
    }

    pub fn modify(&self, fd: &impl AsRawFd, id: usize, events: u32) -> Result<()> {
        self.ctl(libc::EPOLL_CTL_MOD, fd, id, events)
    }

    /// Up to 256 events; none if `ms` milliseconds pass without one (-1: for ever).
    pub fn wait(&self, ms: i32) -> Result<Vec<Event>> {
        let mut ev = [libc::epoll_event { events: 0, u64: 0 }; 256];
        let n = unsafe { libc::epoll_wait(self.0.as_raw_fd(), ev.as_mut_ptr(), 256, ms) };
        match check(n) {
            Ok(n) => Ok(ev[..n as usize]
                .iter()
                .map(|e| Event { id: e.u64 as usize, writable: e.events & OUT != 0 })
                .collect()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }
}

/// Raises the limit of open descriptors so that `n` fit; says so if the hard limit is in the way.
pub fn allow_files(n: usize) -> Result<()> {
    let mut l = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut l) })?;
    let want = n as u64 + 64;
    if l.rlim_cur >= want {
        return Ok(());
    }
    l.rlim_cur = want;
    l.rlim_max = l.rlim_max.max(want);
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &l) })
        .map(|_| ())
        .map_err(|e| Error::other(format!("{want} descriptors: {e}; ulimit -Hn must allow them")))
}
