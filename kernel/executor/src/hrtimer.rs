//! Timers that call a function instead of waking a task.

use crate::machine::lock;
use crate::time::{Armed, TimerEntry, arm};
use klib::ktime::Ktime;
use std::sync::{Arc, Mutex};

/// A timer with a fixed callback. The callback runs on the CPU that armed it, between tasks; it must not block, and may
/// arm the timer again. Dropping the timer disarms it.
pub struct Hrtimer {
    callback: Arc<dyn Fn() + Send + Sync>,
    armed: Mutex<Option<Armed>>,
}

impl Hrtimer {
    /// A timer, not armed.
    pub fn new(callback: impl Fn() + Send + Sync + 'static) -> Self {
        Self { callback: Arc::new(callback), armed: Mutex::new(None) }
    }

    /// Arms it for `at`, instead of whatever it was armed for ([`Ktime::MAX`] disarms).
    pub fn arm(&self, at: Ktime) {
        let mut armed = lock(&self.armed);
        if let Some(old) = armed.take() {
            old.cancel();
        }
        if at != Ktime::MAX {
            *armed = arm(at, TimerEntry::Call(Arc::clone(&self.callback)));
        }
    }

    /// Disarms it. False if it was not armed, has fired, or is firing on another CPU just now.
    pub fn cancel(&self) -> bool {
        lock(&self.armed).take().is_some_and(Armed::cancel)
    }
}

impl Drop for Hrtimer {
    fn drop(&mut self) {
        self.cancel();
    }
}
