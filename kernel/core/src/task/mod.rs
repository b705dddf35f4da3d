//! Tasks (threads), thread groups (processes), process groups and sessions, and their lives.
//!
//! Key types: [`Task`], [`ThreadGroup`], [`session::Session`], [`pid::PidTable`]. A life: `copy` makes a task, `run`
//! runs it, `exit` ends it, `wait` lets the parent collect it.
//! Neighbours: `signal` (pending signals, delivery), `mm`, `fs`, `futex` (robust lists).
//! Lock order: pid table > `ThreadGroup::inner` > `ThreadGroup::signals` > `TaskSignals` > `SigHand` > other `Task`
//! fields. Kinship (parent, children, process group, session, zombie) changes only with the pid table locked for
//! writing. Wait queues may be woken under any of them.

pub mod acct;
pub mod balance;
pub mod caps;
pub mod clone;
pub mod completion;
pub mod copy;
pub mod cred;
pub mod exec;
pub mod exit;
pub mod ids;
pub mod limits;
pub mod misc;
pub mod oom;
pub mod pid;
pub mod pidfd;
pub mod prctl;
pub mod regs;
pub mod run;
pub mod rusage;
pub mod sched;
pub mod sched_calls;
pub mod session;
pub mod setid;
#[allow(clippy::module_inception, reason = "struct Task has the name that Linux gives it, and its own file")]
pub mod task;
#[cfg(test)]
pub(crate) mod tests;
pub mod thread_group;
pub mod wait;
pub mod wait_event;

pub use cred::Cred;
pub use regs::UserRegs;
pub use task::{Pid, Task};
pub use thread_group::ThreadGroup;
