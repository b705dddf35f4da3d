//! The inter-processor interrupt: an eventfd with a standing poll on the sleeper's ring, rung only if it sleeps.

use crate::host::eventfd::EventFd;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering, fence};
use uapi::Result;

const RUNNING: u32 = 0;
const IDLE: u32 = 1;
const RUNG: u32 = 2;

/// Wakes one CPU out of its idle wait.
///
/// Protocol (Dekker): no wake is lost and a CPU that runs costs its wakers no host call.
///
/// ```text
/// waker                              sleeper
///   publish work                       state = IDLE            (prepare_idle)
///   fence(SeqCst)                      fence(SeqCst)
///   state == IDLE?  -> RUNG, write     work published? -> do not sleep
///                                      sleep on the ring
///                                      state = RUNNING         (leave_idle)
/// ```
///
/// In the total order of the two fences either the waker's comes first, then the sleeper sees the work; or the
/// sleeper's does, then the waker sees IDLE and writes the eventfd, which ends the sleep even if it has not begun,
/// because the standing poll queues a completion. Only the waker that turns IDLE to RUNG writes: later ones are
/// coalesced.
#[derive(Debug)]
pub struct Doorbell {
    event: EventFd,
    state: AtomicU32,
}

impl Doorbell {
    /// A doorbell of a CPU that runs.
    pub fn new() -> Result<Self> {
        Ok(Self { event: EventFd::new()?, state: AtomicU32::new(RUNNING) })
    }

    /// Call after publishing work. True if the host had to be called.
    pub fn kick(&self) -> bool {
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) != IDLE {
            return false;
        }
        if self.state.compare_exchange(IDLE, RUNG, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        self.event.signal();
        true
    }

    /// The sleeper says that it is about to sleep; it must look for work once more afterwards.
    pub fn prepare_idle(&self) {
        self.state.store(IDLE, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The sleeper is awake. True if someone rang.
    pub fn leave_idle(&self) -> bool {
        self.state.swap(RUNNING, Ordering::AcqRel) == RUNG
    }

    pub(super) fn raw(&self) -> RawFd {
        self.event.fd().as_raw_fd()
    }
}
