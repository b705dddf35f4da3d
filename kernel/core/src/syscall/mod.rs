//! System calls: one declarative table gives number, argument types and dispatch.
//!
//! A handler is `fn(cur: &Arc<Task>, args..) -> Result<u64>` (never sleeps, builds no future) or
//! `async fn` of the same shape. `table` lists them; `args` decodes raw registers into typed arguments, so no
//! handler sees a `u64` that means something else.

pub mod args;
pub mod strace;
pub mod table;

pub use args::{Fd, FromArg, UserPtr};
pub use table::dispatch;

/// The registers of a system call as the trap delivered them.
#[derive(Clone, Copy, Debug)]
pub struct SyscallArgs {
    /// Number (rax).
    pub nr: u64,
    /// rdi, rsi, rdx, r10, r8, r9.
    pub args: [u64; 6],
}
