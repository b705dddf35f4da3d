//! getpid(2) and its family.

use super::task::Task;
use crate::Result;
use std::sync::Arc;

/// getpid(2).
pub fn sys_getpid(cur: &Arc<Task>) -> Result<u64> {
    Ok(u64::from(cur.tgid()))
}
