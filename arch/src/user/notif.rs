//! Seccomp user notification (seccomp_unotify(2)): the trap itself.

use crate::host::{fd::HostFd, last_errno};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use uapi::{Errno, Result};

/// `struct seccomp_notif`, flattened.
#[repr(C)]
#[derive(Default, Clone, Copy, Debug)]
pub(super) struct Notif {
    pub id: u64,
    pub pid: u32,
    pub flags: u32,
    pub nr: i32,
    pub arch: u32,
    pub ip: u64,
    pub args: [u64; 6],
}

#[repr(C)]
struct Resp {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

const IOCTL_RECV: u64 = 0xc050_2100;
const IOCTL_SEND: u64 = 0xc018_2101;
const IOCTL_ID_VALID: u64 = 0x4008_2102;
const IOCTL_SET_FLAGS: u64 = 0x4008_2104;
const FD_SYNC_WAKE_UP: u64 = 1;

/// A copy of descriptor `fd` of the process behind `pidfd` (pidfd_getfd(2)). `EBADF`: it has none; `ESRCH`: it is gone.
pub(super) fn take_fd(pidfd: &HostFd, fd: i32) -> Result<HostFd> {
    // SAFETY: plain integers; a new descriptor is returned.
    let got = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) };
    if got < 0 {
        return Err(last_errno());
    }
    let fd = i32::try_from(got).map_err(|_| Errno::EMFILE)?;
    // SAFETY: the call above has just made the descriptor for us.
    Ok(HostFd::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// A listener: the kernel's end of the filter of one host thread.
pub(super) struct Listener(HostFd);

impl Listener {
    /// Takes the listener that has number `fd` in the process behind `pidfd`; `EBADF` if it is not there yet, or
    /// something else is still there.
    pub fn take_from(pidfd: &HostFd, fd: i32) -> Result<Self> {
        let l = Self(take_fd(pidfd, fd)?);
        let no_id = 0u64;
        // SAFETY: the argument points to a live u64; a listener answers ENOENT for an id that it has not given.
        unsafe { libc::ioctl(l.0.as_raw_fd(), IOCTL_ID_VALID, &raw const no_id) };
        if last_errno() != Errno::ENOENT {
            return Err(Errno::EBADF);
        }
        // Linux 6.6 and later wake the other side on this CPU; older hosts refuse, and nothing is lost.
        // SAFETY: the argument is an integer.
        unsafe { libc::ioctl(l.0.as_raw_fd(), IOCTL_SET_FLAGS, FD_SYNC_WAKE_UP) };
        Ok(l)
    }

    pub fn fd(&self) -> &HostFd {
        &self.0
    }

    /// Takes a notification. Call only after a poll has said POLLIN, else it may wait. `ENOENT`: the thread was
    /// interrupted or died meanwhile.
    pub fn recv(&self) -> Result<Notif> {
        let mut n = Notif::default();
        // SAFETY: `n` has the size and layout of struct seccomp_notif and is zeroed, as the call demands.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), IOCTL_RECV, &raw mut n) } < 0 {
            Err(last_errno())
        } else {
            Ok(n)
        }
    }

    /// Answers: the call returns `val` (a negative errno for an error).
    pub fn send(&self, id: u64, val: i64) -> Result<()> {
        self.respond(&Resp { id, val, error: 0, flags: 0 })
    }

    fn respond(&self, r: &Resp) -> Result<()> {
        // SAFETY: `r` has the layout of struct seccomp_notif_resp and outlives the call.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), IOCTL_SEND, std::ptr::from_ref(r)) } < 0 {
            Err(last_errno())
        } else {
            Ok(())
        }
    }
}
