//! What files and terminals need of signals and sessions.

use crate::task::Task;
use parking_lot::RwLock;

/// Offered by the task side at boot.
pub trait TaskHooks: Send + Sync {
    /// Sends `sig` to a thread.
    fn send_thread(&self, task: &Task, sig: u32);
    /// Sends `sig` to a process group.
    fn send_group(&self, pgrp: u32, sig: u32);
    /// Process group of a task.
    fn pgrp(&self, task: &Task) -> u32;
    /// Session of a task.
    fn session(&self, task: &Task) -> u32;
    /// True if `sig` is blocked or ignored by the task (SIGTTIN, SIGTTOU).
    fn ignored(&self, task: &Task, sig: u32) -> bool;
}

static HOOKS: RwLock<Option<&'static dyn TaskHooks>> = RwLock::new(None);

/// Puts the hooks in place.
pub fn install(hooks: &'static dyn TaskHooks) {
    *HOOKS.write() = Some(hooks);
}

/// See [`TaskHooks::send_thread`].
pub fn send_thread(task: &Task, sig: u32) {
    if let Some(h) = *HOOKS.read() {
        h.send_thread(task, sig);
    }
}

/// See [`TaskHooks::send_group`].
pub fn send_group(pgrp: u32, sig: u32) {
    if let Some(h) = *HOOKS.read() {
        h.send_group(pgrp, sig);
    }
}

/// See [`TaskHooks::pgrp`].
pub fn pgrp(task: &Task) -> u32 {
    HOOKS.read().map_or_else(|| task.tgid(), |h| h.pgrp(task))
}

/// See [`TaskHooks::session`].
pub fn session(task: &Task) -> u32 {
    HOOKS.read().map_or(0, |h| h.session(task))
}

/// See [`TaskHooks::ignored`].
pub fn ignored(task: &Task, sig: u32) -> bool {
    HOOKS.read().is_some_and(|h| h.ignored(task, sig))
}
