//! Futexes (futex(2)): waiting for a word of guest memory to change.
//!
//! A word is known by its [`FutexKey`](crate::mm::FutexKey); waiters stand in hash buckets ([`bucket`]) in the order of
//! their arrival. The value check of FUTEX_WAIT and the entry into the bucket happen under the bucket's lock, which every
//! wake takes too: a wake between check and sleep finds the waiter. [`robust`] cleans up after threads that die.
//! Neighbours: `mm` (keys, atomic access), `task` (waits, exit). Lock order: lower bucket > higher bucket > `Mm`.

pub mod bucket;
pub mod op;
pub mod robust;

pub use op::{sys_futex, wait, wake};
pub use robust::exit_robust_list;
