//! Tap devices (linux/if_tun.h): one descriptor that reads and writes Ethernet frames, each behind a virtio-net header.

use super::fd::{HostFd, OpenHow};
use super::last_errno;
use std::os::fd::AsRawFd;
use std::path::Path;
use uapi::Errno;

/// The step at which a tap could not be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TapStep {
    /// Opening /dev/net/tun.
    Open,
    /// TUNGETFEATURES: the host has no virtio-net headers on taps.
    Features,
    /// TUNSETIFF: taking or creating the interface.
    SetIff,
    /// TUNSETVNETHDRSZ.
    HeaderSize,
    /// TUNSETOFFLOAD.
    Offload,
}

/// A tap and its interface's name.
#[derive(Debug)]
pub struct Tap {
    /// Reads and writes frames; blocking, as ring operations want it.
    pub fd: HostFd,
    /// Name of the interface on the host.
    pub name: String,
}

/// Longest name of an interface (IFNAMSIZ without the NUL).
pub const MAX_NAME: usize = 15;

const IFF_TAP: u16 = 0x0002;
const IFF_MULTI_QUEUE: u16 = 0x0100;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const TUNGETFEATURES: libc::c_ulong = 0x8004_54cf;
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;

const TUNGETIFF: libc::c_ulong = 0x8004_54d2;

/// Host takes frames with unfinished checksums, and hands them out.
pub const TUN_F_CSUM: u32 = 1;
/// Super-frames of TCP over IPv4.
pub const TUN_F_TSO4: u32 = 2;
/// Super-frames of TCP over IPv6.
pub const TUN_F_TSO6: u32 = 4;

/// `struct ifreq` with the flags in use.
#[repr(C)]
struct IfReq {
    name: [u8; 16],
    flags: u16,
    pad: [u8; 22],
}

/// Takes the tap `name`, or a new one (`%d` in it is filled in by the host), with virtio-net headers of `header` bytes and
/// the TUN_F_ offloads in `offload`. `EBUSY` means that somebody else has it open. With `multi_queue` it is one of several
/// queues, each opened by a call of its own; `EINVAL` if there is a tap of the name that was made otherwise.
pub fn open(
    name: &str,
    header: i32,
    offload: u32,
    multi_queue: bool,
) -> core::result::Result<Tap, (TapStep, Errno)> {
    let how = OpenHow { write: true, ..OpenHow::default() };
    let fd = HostFd::open(Path::new("/dev/net/tun"), how).map_err(|e| (TapStep::Open, e))?;
    let mut features = 0u32;
    // SAFETY: TUNGETFEATURES writes one unsigned int, which lives on this stack frame.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), TUNGETFEATURES, &raw mut features) };
    if rc < 0 {
        return Err((TapStep::Features, last_errno()));
    }
    if features & u32::from(IFF_VNET_HDR) == 0 {
        return Err((TapStep::Features, Errno::EOPNOTSUPP));
    }
    if name.len() > MAX_NAME || name.bytes().any(|b| b == 0) {
        return Err((TapStep::SetIff, Errno::EINVAL));
    }
    let multi = if multi_queue { IFF_MULTI_QUEUE } else { 0 };
    let mut req = IfReq { name: [0; 16], flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | multi, pad: [0; 22] };
    req.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes a struct ifreq, which lives on this stack frame and has its size of 40 bytes.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF, &raw mut req) };
    if rc < 0 {
        return Err((TapStep::SetIff, last_errno()));
    }
    set_header(&fd, header).map_err(|e| (TapStep::HeaderSize, e))?;
    // A persistent tap remembers what its last user set, so this is said even when there is nothing to switch on.
    set_offload(&fd, offload).map_err(|e| (TapStep::Offload, e))?;
    let end = req.name.iter().position(|&b| b == 0).unwrap_or(req.name.len());
    let name = String::from_utf8_lossy(&req.name[..end]).into_owned();
    Ok(Tap { fd, name })
}

/// Length of the virtio-net headers of a tap that has them.
pub fn set_header(fd: &HostFd, header: i32) -> uapi::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one int, which lives on this stack frame.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETVNETHDRSZ, &raw const header) };
    if rc < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Switches what the host hands out and takes unfinished (TUN_F_ bits).
pub fn set_offload(fd: &HostFd, offload: u32) -> uapi::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes a number and touches no memory.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETOFFLOAD, libc::c_ulong::from(offload)) };
    if rc < 0 { Err(last_errno()) } else { Ok(()) }
}

/// What a descriptor that somebody else opened is: `(name, virtio-net headers)` of a tap; `ENOTTY` and kin for anything
/// else, `EINVAL` for a tun (no Ethernet) or one with packet information in front.
pub fn inspect(fd: &HostFd) -> uapi::Result<(String, bool)> {
    let mut req = IfReq { name: [0; 16], flags: 0, pad: [0; 22] };
    // SAFETY: TUNGETIFF writes a struct ifreq, which lives on this stack frame and has its size of 40 bytes.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), TUNGETIFF, &raw mut req) };
    if rc < 0 {
        return Err(last_errno());
    }
    if req.flags & IFF_TAP == 0 || req.flags & IFF_NO_PI == 0 {
        return Err(Errno::EINVAL);
    }
    let end = req.name.iter().position(|&b| b == 0).unwrap_or(req.name.len());
    Ok((String::from_utf8_lossy(&req.name[..end]).into_owned(), req.flags & IFF_VNET_HDR != 0))
}
