//! Pure building blocks of the kernel: no host calls, no tasks.
#![deny(unsafe_code)]

pub mod addr;
pub mod ktime;
pub mod sync;
pub mod timerqueue;
pub mod waitqueue;

pub use uapi::{Errno, Result};
