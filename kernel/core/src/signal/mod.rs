//! Signals: actions, pending sets, delivery, restart, sigreturn (signal(7)).

/// Signal actions of a process, shared by CLONE_SIGHAND.
#[derive(Default)]
pub struct SigHand {}

/// Mask, pending signals and alternate stack of one thread.
#[derive(Default)]
pub struct TaskSignals {}
