//! The machine under the kernel: the host process, guest CPUs and address spaces, io_uring as interrupt controller.
//! This crate is the only home of `unsafe`; everything it exports is safe to call.
//!
//! * [`host`]: thin safe wrappers of host calls, one file a subject.
//! * [`irqchip`]: the ring; a completion is an interrupt.
//! * [`mm`]: guest memory (`PhysMem`) and guest address spaces (`AddrSpace`).
//! * [`user`]: running guest code and receiving its traps.

pub mod host;
pub mod irqchip;
pub mod mm;
pub mod user;
