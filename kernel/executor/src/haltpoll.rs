//! Waiting awake for what comes soon, as Linux's haltpoll governor does.
//!
//! A wake-up from another core costs tens of microseconds where cores are virtual: an interrupt between them, and a halt
//! to leave. A request/response pair whose other half runs on another core pays that twice a round. A CPU whose waits
//! end again and again within such a time therefore waits awake, and stops as soon as that is in vain. It sleeps
//! whenever a host thread of its own could run meanwhile (guest code, a mapper), so nothing but idle time of the host is spent; a peer that the
//! host has put on this core is out of luck for two waits, and not asked to wait again.

use crate::machine::Local;
use arch::host::clock;
use arch::irqchip::Ring;
use std::cell::Cell;
use std::time::Duration;

/// Longest time to wait awake.
const LIMIT: Duration = Duration::from_micros(100);
/// Waits shorter than this end on the same core, whose thread must not be kept from it.
const ACROSS: Duration = Duration::from_micros(25);
/// So many waits in a row between the two say that the next will be one, too.
const TRUST: u8 = 16;
/// So many in vain are forgiven.
const PATIENCE: u8 = 2;

/// What the last waits of a CPU were like.
#[derive(Default)]
pub(crate) struct HaltPoll(Cell<u8>);

impl HaltPoll {
    /// True if the next wait should be awake.
    pub(crate) fn wanted(&self) -> bool {
        self.0.get() >= TRUST
    }

    /// A wait took so long.
    pub(crate) fn waited(&self, time: Duration) {
        let n = self.0.get();
        self.0.set(match time {
            t if t < ACROSS => n,
            t if t < LIMIT => (n + 1).min(TRUST + PATIENCE - 1),
            _ if n >= TRUST => n - 1,
            _ => 0,
        });
    }
}

/// Waits awake, no longer than `timeout`, until something has happened (true), or in vain.
pub(crate) fn poll(local: &Local, ring: &mut Ring, timeout: Option<Duration>) -> klib::Result<bool> {
    let cpu = local.me();
    ring.flush()?;
    let limit = timeout.map_or(LIMIT, |t| t.min(LIMIT));
    let until = crate::time::now() + limit;
    loop {
        for _ in 0..32 {
            std::hint::spin_loop();
            if ring.wants_flush() {
                ring.flush()?;
            }
            if ring.has_completions() || cpu.has_work() {
                return Ok(true);
            }
        }
        if clock::monotonic() >= until {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_takes_a_row_and_ends_soon() {
        let h = HaltPoll::default();
        let us = Duration::from_micros;
        for _ in 0..15 {
            h.waited(us(60));
            h.waited(us(3));
        }
        assert!(!h.wanted(), "not yet");
        h.waited(us(60));
        assert!(h.wanted());
        h.waited(us(60));
        h.waited(us(150));
        assert!(h.wanted(), "one in vain is forgiven");
        h.waited(us(150));
        assert!(!h.wanted());
        h.waited(us(150));
        for _ in 0..15 {
            h.waited(us(60));
        }
        assert!(!h.wanted(), "it begins anew");
        for _ in 0..100 {
            h.waited(us(10));
        }
        assert!(!h.wanted(), "short waits are no reason");
    }
}
