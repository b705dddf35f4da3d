//! The locks of the kernel: parking_lot's, under the lock order that the head of each subsystem states.
//!
//! Their guards are not `Send`, so a guard that is held over an await does not compile in a spawned task.

pub use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
