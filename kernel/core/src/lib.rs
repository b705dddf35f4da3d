//! The kernel proper: tasks, memory, files, sockets, terminals, time and the system calls over them.
//!
//! A guest thread is a future (`task::run`): run user code until it traps, handle the trap, run on. A blocking call
//! is an await; a signal ends any interruptible wait. Drivers are handed in by `vmlinux` behind the traits of
//! `device` and `net::dev`; this crate sees no driver and no host call.
//!
//! Lock order, outermost first (a lock may be taken only while holding locks above it):
//! `task::pid` table > `ThreadGroup` > signals > `Task` fields > `FdTable` > inode and dentry locks > `Mm` > page cache >
//! page allocator > wait queues.
#![deny(unsafe_code)]

pub mod fs;
pub mod futex;
pub mod loader;
pub mod mm;
pub mod param;
pub mod power;
pub mod printk;
pub mod signal;
pub mod socket;
pub mod start;
pub mod syscall;
pub mod task;
pub mod time;
pub mod tty;

pub use uapi::{Errno, Result};

/// A boxed future, for the few calls behind traits that sleep.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
