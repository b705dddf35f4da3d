//! Running guest code in stub processes and receiving its traps.
//!
//! * [`StubHost`]: the zygote, the control file, the doorbell; one per kernel.
//! * [`StubProcess`]: one host process, that is one guest address space.
//! * [`UserThread`]: one host thread that runs guest code; [`UserThread::recv`] gives its [`Trap`]s.
//!
//! Nothing here waits: making a stub or a thread is a request, then a doorbell, then the taking of what was made.
//! The kernel awaits the descriptors on its ring. docs/security.md is the contract of this module.
//!
//! Neighbours: `mm::aspace` drives the mapper of a stub. Lock order: the free lists of `StubHost` are leaves.

mod ctl;
mod filter;
mod frame;
mod image;
pub(crate) mod layout;
mod notif;
pub mod probe;
mod process;
mod stub_host;
mod thread;
mod zygote;

pub use frame::{FaultInfo, UserRegs, fpu_image_is_sound};
pub use layout::{GUEST_END, GUEST_START};
pub use process::{Block, MAPPER_BATCH, MapOp, Mapper, StubProcess};
pub use stub_host::StubHost;
pub use thread::{Trap, UserThread, kick};

use crate::host::{fd::HostFd, last_errno};
use std::ffi::CStr;
use std::os::fd::{FromRawFd, OwnedFd};
use uapi::{Errno, Result};

/// memfd_create(2), with MFD_EXEC where the host knows it (6.3; hosts with vm.memfd_noexec demand it).
pub(crate) fn memfd_create(name: &CStr, flags: u32, exec: bool) -> Result<HostFd> {
    const MFD_EXEC: u32 = 0x10;
    let base = flags | libc::MFD_CLOEXEC;
    for f in [base | if exec { MFD_EXEC } else { 0 }, base] {
        // SAFETY: a C string and integers; a new descriptor is returned.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), f) };
        if fd >= 0 {
            // SAFETY: the call above has just made the descriptor for us.
            return Ok(HostFd::from(unsafe { OwnedFd::from_raw_fd(fd) }));
        }
        if last_errno() != Errno::EINVAL {
            break;
        }
    }
    Err(last_errno())
}
