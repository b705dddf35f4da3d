//! Tasks (threads), thread groups (processes), process groups and sessions, and their lives.
//!
//! Key types: [`Task`], [`ThreadGroup`]. Neighbours: `signal` (pending signals, delivery), `mm`, `fs`.
//! Lock order: pid table > `ThreadGroup::inner` > `Task` fields.

pub mod cred;
pub mod ids;
pub mod sched;
pub mod task;
pub mod thread_group;
pub mod wait_event;

pub use cred::Cred;
pub use task::Task;
pub use thread_group::ThreadGroup;
