//! The timers of a process.

use super::clock::Clock;
use super::timer::{Notify, Timer};
use crate::signal::SigInfo;
use crate::task::ThreadGroup;
use crate::{Errno, Result};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use uapi::raw::general as c;

/// POSIX timers a process may have (Linux bounds them by RLIMIT_SIGPENDING).
const MAX_TIMERS: usize = 4096;

/// setitimer(2) and timer_create(2) timers.
#[derive(Default)]
pub struct GroupTimers {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
    itimers: [Option<Arc<Timer>>; 3],
    posix: BTreeMap<i32, Arc<Timer>>,
    next_id: i32,
}

impl GroupTimers {
    /// An interval timer (ITIMER_*), made on first use; `EINVAL` for a number that is none.
    pub(super) fn itimer(&self, group: &Arc<ThreadGroup>, which: u32) -> Result<Arc<Timer>> {
        let (clock, sig) = match which {
            c::ITIMER_REAL => (Clock::Mono, c::SIGALRM),
            c::ITIMER_VIRTUAL => (Clock::Process(Arc::clone(group), true), c::SIGVTALRM),
            c::ITIMER_PROF => (Clock::Process(Arc::clone(group), false), c::SIGPROF),
            _ => return Err(Errno::EINVAL),
        };
        let mut inner = self.inner.lock();
        let slot = inner.itimers.get_mut(which as usize).ok_or(Errno::EINVAL)?;
        let make = || {
            let notify = Notify::Group(Arc::downgrade(group));
            Timer::new(-1, &clock, notify, sig.cast_signed(), 0)
        };
        Ok(Arc::clone(slot.get_or_insert_with(make)))
    }

    /// Makes a POSIX timer with the next free id; `EAGAIN` when there are too many.
    pub(super) fn create(&self, make: impl FnOnce(i32) -> Arc<Timer>) -> Result<i32> {
        let mut inner = self.inner.lock();
        if inner.posix.len() >= MAX_TIMERS {
            return Err(Errno::EAGAIN);
        }
        while inner.posix.contains_key(&inner.next_id) {
            inner.next_id = inner.next_id.checked_add(1).unwrap_or(0);
        }
        let id = inner.next_id;
        inner.next_id = id.checked_add(1).unwrap_or(0);
        let timer = make(id);
        inner.posix.insert(id, timer);
        Ok(id)
    }

    /// A POSIX timer, or `EINVAL`.
    pub(super) fn get(&self, id: i32) -> Result<Arc<Timer>> {
        self.inner.lock().posix.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// Takes a POSIX timer away.
    pub(super) fn delete(&self, id: i32) -> Result<()> {
        let t = { self.inner.lock().posix.remove(&id) }.ok_or(Errno::EINVAL)?;
        t.disarm();
        Ok(())
    }

    /// A timer's signal is being delivered: fills in its overrun count and starts the next period.
    pub fn on_dequeue(&self, info: &mut SigInfo) {
        let t = { self.inner.lock().posix.get(&info.pid().cast_signed()).cloned() };
        if let Some(t) = t {
            t.on_dequeue(info);
        }
    }

    /// The process ends: all timers go.
    pub fn clear(&self) {
        let gone = std::mem::take(&mut *self.inner.lock());
        for t in gone.itimers.iter().flatten().chain(gone.posix.values()) {
            t.disarm();
        }
    }

    /// execve(2): POSIX timers go, interval timers stay (timer_create(2), setitimer(2)).
    pub fn exec(&self) {
        let gone = std::mem::take(&mut self.inner.lock().posix);
        for t in gone.values() {
            t.disarm();
        }
    }
}
