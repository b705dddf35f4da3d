//! Interrupt coalescing (`ethtool -C`): a burst may wait for company, for so many microseconds or until so many frames are
//! there. With 0 microseconds, as at boot, nothing waits.
//!
//! Lock order: a timer's own lock is a leaf; its callback is called with none held.

use executor::hrtimer::Hrtimer;
use klib::ktime::Ktime;
use net::dev::ethtool::Coalesce;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use uapi::{Errno, Result};

/// Longest wait: whoever wants more has mistaken the unit.
const MAX_USECS: u32 = 1_000_000;

/// What is to be done with the frames that are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Do it now.
    Now,
    /// Do it at the end of the wait, which begins.
    Begin,
    /// The wait is under way.
    Wait,
}

/// One direction's rule and its state; no timer in it, so that it can be tried without one.
#[derive(Default)]
struct Rule {
    usecs: AtomicU32,
    frames: AtomicU32,
    waiting: AtomicU32,
    armed: AtomicBool,
}

impl Rule {
    /// `n` frames more are there.
    fn more(&self, n: u32) {
        self.waiting.fetch_add(n, Ordering::Relaxed);
    }

    fn verdict(&self, bound: u32) -> Verdict {
        if self.usecs.load(Ordering::Relaxed) == 0 {
            return Verdict::Now;
        }
        let frames = match self.frames.load(Ordering::Relaxed) {
            0 => bound,
            n => n.min(bound),
        };
        if self.waiting.load(Ordering::Relaxed) >= frames {
            Verdict::Now
        } else if self.armed.swap(true, Ordering::AcqRel) {
            Verdict::Wait
        } else {
            Verdict::Begin
        }
    }

    /// The wait is over. True if one was under way.
    fn over(&self) -> bool {
        self.waiting.store(0, Ordering::Relaxed);
        self.armed.swap(false, Ordering::AcqRel)
    }
}

/// A direction: rule and timer.
pub struct Direction {
    rule: Rule,
    timer: Hrtimer,
}

impl Direction {
    /// At the end of a wait `f` is called, as an interrupt.
    pub fn new(f: impl Fn() + Send + Sync + 'static) -> Self {
        Self { rule: Rule::default(), timer: Hrtimer::new(f) }
    }

    /// A frame more is there.
    pub fn more(&self) {
        if self.rule.usecs.load(Ordering::Relaxed) != 0 {
            self.rule.more(1);
        }
    }

    /// True if it is to be done now; else the callback will come. `bound`: so many frames never wait.
    pub fn is_due(&self, bound: u32) -> bool {
        match self.rule.verdict(bound) {
            Verdict::Now => {
                if self.rule.over() {
                    self.timer.cancel();
                }
                true
            }
            Verdict::Begin => {
                let wait = Duration::from_micros(self.rule.usecs.load(Ordering::Relaxed).into());
                self.timer.arm(later(wait));
                false
            }
            Verdict::Wait => false,
        }
    }

    /// The callback has come: begins anew.
    pub fn fired(&self) {
        self.rule.over();
    }

    fn set(&self, usecs: u32, frames: u32) {
        self.rule.usecs.store(usecs, Ordering::Relaxed);
        self.rule.frames.store(frames, Ordering::Relaxed);
    }
}

fn later(wait: Duration) -> Ktime {
    executor::time::now() + wait
}

/// `ethtool -c`.
pub fn get(rx: &Direction, tx: &Direction) -> Coalesce {
    let load = |n: &AtomicU32| Some(n.load(Ordering::Relaxed));
    Coalesce {
        rx_usecs: load(&rx.rule.usecs),
        rx_frames: load(&rx.rule.frames),
        tx_usecs: load(&tx.rule.usecs),
        tx_frames: load(&tx.rule.frames),
    }
}

/// `ethtool -C`.
pub fn set(rx: &Direction, tx: &Direction, c: &Coalesce) -> Result<()> {
    let of = |v: Option<u32>| v.unwrap_or(0);
    if of(c.rx_usecs).max(of(c.tx_usecs)) > MAX_USECS {
        return Err(Errno::EINVAL);
    }
    rx.set(of(c.rx_usecs), of(c.rx_frames));
    tx.set(of(c.tx_usecs), of(c.tx_frames));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_wait_until_enough_are_there() {
        let r = Rule::default();
        r.more(1);
        assert_eq!(r.verdict(64), Verdict::Now, "nothing waits at boot");
        r.over();
        r.usecs.store(100, Ordering::Relaxed);
        r.frames.store(3, Ordering::Relaxed);
        for want in [Verdict::Begin, Verdict::Wait, Verdict::Now] {
            r.more(1);
            assert_eq!(r.verdict(64), want);
        }
        assert!(r.over(), "a timer was under way");
        r.more(2);
        assert_eq!(r.verdict(2), Verdict::Now, "the queue is full");
    }
}
