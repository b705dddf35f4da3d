//! Host signals, taken as readable events instead of handlers: block them everywhere, read a signalfd(2).

use super::fd::HostFd;
use super::last_errno;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use uapi::{Errno, Result};

pub use libc::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGWINCH};

fn sigset(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigemptyset initialises the set it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised just above (and all-zero is a valid set).
    let mut set = unsafe { set.assume_init() };
    for &s in signals {
        // SAFETY: the set is a live local; an invalid number is refused with EINVAL.
        unsafe { libc::sigaddset(&raw mut set, s) };
    }
    set
}

/// Blocks signals for the calling thread and for every thread it starts from now on.
pub fn block(signals: &[i32]) {
    let set = sigset(signals);
    // SAFETY: the set is a live local; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Unblocks signals for the calling thread.
pub fn unblock(signals: &[i32]) {
    let set = sigset(signals);
    // SAFETY: the set is a live local; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Delivers a signal to this process (kill(2) on ourselves), for tests and for dying by a signal.
pub fn raise(signal: i32) {
    // SAFETY: sends a signal to our own process; no memory involved.
    unsafe { libc::kill(std::process::id().cast_signed(), signal) };
}

/// A non-blocking signalfd for signals that all threads have blocked.
#[derive(Clone, Debug)]
pub struct SignalFd(HostFd);

impl SignalFd {
    /// Opens one.
    pub fn new(signals: &[i32]) -> Result<Self> {
        let set = sigset(signals);
        // SAFETY: the set is a live local; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(last_errno());
        }
        // SAFETY: the kernel has just made this number for us.
        Ok(Self(HostFd::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// The number of the next pending signal; `EAGAIN` if there is none.
    pub fn take(&self) -> Result<i32> {
        let mut buf = [0u8; size_of::<libc::signalfd_siginfo>()];
        if self.0.read(&mut buf)? != buf.len() {
            return Err(Errno::EIO);
        }
        // ssi_signo is the first member, a u32 (signalfd(2)).
        let [a, b, c, d, ..] = buf;
        i32::try_from(u32::from_ne_bytes([a, b, c, d])).map_err(|_| Errno::EIO)
    }

    /// The descriptor number, for polling.
    pub fn raw(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// Sends a signal to the calling thread alone (for tests: it reaches a signalfd that this thread reads).
pub fn raise_in_thread(signal: i32) {
    // SAFETY: gives the handle of the calling thread.
    let me = unsafe { libc::pthread_self() };
    // SAFETY: the handle is that of a live thread, the calling one.
    unsafe { libc::pthread_kill(me, signal) };
}
