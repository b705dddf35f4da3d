//! The Linux ABI: what guests see, nothing else. One file a header; numbers and layouts come from
//! `linux-raw-sys`, which is generated from the kernel's own headers.
#![deny(unsafe_code)]

pub mod errno;
pub mod pod;

pub use errno::{Errno, Result};
/// The generated headers: `raw::general` (most of it), `raw::net`, `raw::netlink`, `raw::ioctl`, ...
pub use linux_raw_sys as raw;
/// System call numbers: `nr::__NR_read` and so on.
pub use linux_raw_sys::general as nr;
