//! eventfd(2): a counter that a ring can poll.

use super::fd::HostFd;
use super::from_rustix;
use rustix::event::{EventfdFlags, eventfd};
use uapi::{Errno, Result};

/// A non-blocking eventfd. Clones are the same counter.
#[derive(Clone, Debug)]
pub struct EventFd {
    fd: HostFd,
}

impl EventFd {
    /// A counter at zero.
    pub fn new() -> Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(from_rustix)?;
        Ok(Self { fd: HostFd::from(fd) })
    }

    /// Adds one. A full counter is already readable, so `EAGAIN` is success.
    pub fn signal(&self) {
        let _ = self.fd.write(&1u64.to_ne_bytes());
    }

    /// Takes the count and resets it; `EAGAIN` if it is zero.
    pub fn take(&self) -> Result<u64> {
        let mut buf = [0u8; 8];
        match self.fd.read(&mut buf)? {
            8 => Ok(u64::from_ne_bytes(buf)),
            _ => Err(Errno::EIO),
        }
    }

    /// The descriptor, for polling.
    pub fn fd(&self) -> &HostFd {
        &self.fd
    }
}
