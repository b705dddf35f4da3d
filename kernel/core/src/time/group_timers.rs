//! The timers of a process.

use crate::signal::SigInfo;
use crate::task::Task;
use std::sync::Arc;

/// setitimer(2) and timer_create(2) timers.
#[derive(Default)]
pub struct GroupTimers {}

impl GroupTimers {
    /// A timer's signal is being delivered: fills in its overrun count.
    pub fn on_dequeue(&self, _info: &mut SigInfo) {}

    /// The process ends: all timers go.
    pub fn clear(&self) {}

    /// execve(2): POSIX timers go, interval timers stay (timer_create(2), setitimer(2)).
    pub fn exec(&self) {}

    /// A thread ends.
    pub fn thread_exit(&self, _task: &Arc<Task>) {}
}
