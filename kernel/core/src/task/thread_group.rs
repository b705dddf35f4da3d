//! A process: what its threads share.

use super::task::{Pid, Task};
use parking_lot::Mutex;
use std::sync::Arc;

/// A process (thread group).
pub struct ThreadGroup {
    /// Process id: the thread id of the first thread.
    pub tgid: Pid,
    /// Everything that changes.
    pub inner: Mutex<GroupInner>,
}

/// The changing part of a [`ThreadGroup`].
#[derive(Default)]
pub struct GroupInner {
    /// Live threads.
    pub threads: Vec<Arc<Task>>,
    /// Soft and hard limits by RLIMIT_* number.
    pub rlimits: [(u64, u64); 16],
}

impl ThreadGroup {
    /// Soft and hard limit of `resource` (RLIMIT_*); unknown ones are unlimited.
    pub fn rlimit(&self, resource: u32) -> (u64, u64) {
        self.inner.lock().rlimits.get(resource as usize).copied().unwrap_or((u64::MAX, u64::MAX))
    }
}
