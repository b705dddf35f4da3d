//! poll(2) events and the table by which a waiter registers with the queues of a file.

use klib::waitqueue::{TaskTarget, WaitQueue, WaitToken, WakeTarget};
use std::sync::Arc;

/// There is data to read.
pub const POLLIN: u32 = 0x1;
/// Urgent data, or an event of the file's own kind.
pub const POLLPRI: u32 = 0x2;
/// Writing will not block.
pub const POLLOUT: u32 = 0x4;
/// Error (always reported).
pub const POLLERR: u32 = 0x8;
/// Hang-up (always reported).
pub const POLLHUP: u32 = 0x10;
/// The descriptor is not open (always reported).
pub const POLLNVAL: u32 = 0x20;
/// As `POLLIN`.
pub const POLLRDNORM: u32 = 0x40;
/// As `POLLOUT`.
pub const POLLWRNORM: u32 = 0x100;
/// The peer shut down its writing half.
pub const POLLRDHUP: u32 = 0x2000;
/// Readable, in both spellings.
pub const IN: u32 = POLLIN | POLLRDNORM;
/// Writable, in both spellings.
pub const OUT: u32 = POLLOUT | POLLWRNORM;
/// Reported whether asked for or not.
pub const ALWAYS: u32 = POLLERR | POLLHUP | POLLNVAL;

/// Collects registrations while files are asked for their readiness. On the first pass of a wait it registers, on
/// later passes it does nothing: the registrations stand until the table is dropped.
pub struct PollTable {
    target: Arc<dyn WakeTarget>,
    tokens: Vec<WaitToken>,
    registering: bool,
    exclusive: bool,
}

impl PollTable {
    /// A table whose registrations wake `target`.
    pub fn new(target: Arc<dyn WakeTarget>) -> Self {
        Self { target, tokens: Vec::new(), registering: true, exclusive: false }
    }

    /// As [`new`](Self::new) for a future's own target.
    pub fn for_task(target: &Arc<TaskTarget>) -> Self {
        Self::new(Arc::clone(target) as Arc<dyn WakeTarget>)
    }

    /// Registrations become exclusive (accept(2), blocking reads: one event wakes one waiter).
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Called by `FileOps::poll` for each queue whose wake may change the answer.
    pub fn register(&mut self, queue: &WaitQueue, events: u32) {
        if self.registering {
            let events = events | ALWAYS;
            let target = Arc::clone(&self.target);
            self.tokens.push(if self.exclusive {
                queue.add_exclusive(events, target)
            } else {
                queue.add(events, target)
            });
        }
    }

    /// From now on [`register`](Self::register) does nothing.
    pub fn registered(&mut self) {
        self.registering = false;
    }

    /// True while registrations are being made.
    pub fn is_registering(&self) -> bool {
        self.registering
    }
}
