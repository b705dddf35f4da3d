//! Thin safe wrappers of host calls, one file a subject: descriptors, eventfds, memory, threads, clocks, signals,
//! terminals.
//!
//! Key types: [`fd::HostFd`], [`eventfd::EventFd`], [`mmap::AnonMap`], [`signal::SignalFd`], [`term::RawMode`].
//! Above: `irqchip`, `mm`, `user`, the executor and the drivers. Below: the host kernel. No locks.

pub mod clock;
pub mod eventfd;
pub mod fd;
pub mod limits;
pub mod malloc;
pub mod mmap;
pub mod netif;
pub mod packet;
pub mod random;
pub mod rawip;
pub mod signal;
pub mod tap;
pub mod term;
pub mod thread;
pub mod udp;
pub mod unix;

use uapi::Errno;

/// The error of the host call that has just failed on this thread.
pub fn last_errno() -> Errno {
    from_io(&std::io::Error::last_os_error())
}

/// An [`Errno`] for a standard library error (`EIO` if it carries no number).
pub fn from_io(e: &std::io::Error) -> Errno {
    e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// An [`Errno`] for rustix's error.
pub(crate) fn from_rustix(e: rustix::io::Errno) -> Errno {
    Errno::from_raw(e.raw_os_error())
}

/// A value of the process's own auxiliary vector (getauxval(3)); 0 if the host gives none.
pub fn auxv(kind: u64) -> u64 {
    // SAFETY: reads the vector that the host put on the first stack.
    unsafe { libc::getauxval(kind) }
}
