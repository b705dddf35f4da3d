//! The devices of the machine, each over ring operations of the executor.
//!
//! * [`console`]: terminal lines on host descriptors.
//! * [`ubd`]: disks on host files.
//! * [`vector`]: network cards on host sockets and taps.
//!
//! Above: `vmlinux`, which hands them to the kernel as traits of `device` and `net`. Below: the executor and `arch`.
#![deny(unsafe_code)]

pub mod console;
pub mod ubd;
pub mod vector;
