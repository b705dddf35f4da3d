//! Scheduling calls and kicks.

use super::task::Task;
use crate::Result;
use std::sync::Arc;

/// sched_yield(2).
pub async fn sys_sched_yield(_cur: &Arc<Task>) -> Result<u64> {
    executor::yield_now().await;
    Ok(0)
}

/// Makes a thread that runs guest code trap, so that it sees its pending signals.
pub fn kick(_task: &Task) {}
