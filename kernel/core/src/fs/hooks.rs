//! What files and terminals use of signals and sessions.

use crate::signal::{SigInfo, send};
use crate::task::Task;

/// Sends `sig` to the process of a task.
pub fn send_thread(task: &Task, sig: u32) {
    send::send_sig(task, sig);
}

/// Sends `sig` to a process group, as the kernel does.
pub fn send_group(pgrp: u32, sig: u32) {
    // A group that has gone needs no signal.
    send::send_pgrp(pgrp, SigInfo::kernel(sig.cast_signed())).ok();
}
