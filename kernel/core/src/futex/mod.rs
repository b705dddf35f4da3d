//! Futexes (futex(2)).

use crate::Result;
use crate::task::Task;
use std::sync::Arc;

/// Wakes up to `n` waiters of a word.
pub fn wake(_cur: &Arc<Task>, _addr: u64, _shared: bool, _n: u32, _bitset: u32) -> Result<u32> {
    Ok(0)
}

/// Marks the robust futexes of a thread that ends.
pub async fn exit_robust_list(_cur: &Arc<Task>) {}
