//! A one-time event (vfork(2) waits for one).

use super::task::Task;
use crate::Result;
use klib::waitqueue::WaitQueue;
use std::sync::atomic::{AtomicBool, Ordering};

/// Done once, for ever.
#[derive(Default)]
pub struct Completion {
    done: AtomicBool,
    queue: WaitQueue,
}

impl Completion {
    /// It has happened.
    pub fn complete(&self) {
        self.done.store(true, Ordering::SeqCst);
        self.queue.wake_all();
    }

    /// True once it has happened.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    /// Waits for it; only a fatal signal ends the wait early.
    pub async fn wait_killable(&self, cur: &Task) -> Result<()> {
        cur.wait_killable(|table| {
            table.register(&self.queue, u32::MAX);
            self.is_done().then_some(())
        })
        .await
    }
}
