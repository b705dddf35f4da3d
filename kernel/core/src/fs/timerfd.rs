//! timerfd_create(2): a timer to wait on.

use super::file::{File, FileOps};
use super::iov::{IovIter, copy_whole};
use super::poll::{self, PollTable};
use crate::time::clock::Clock;
use crate::{Errno, Result};
use executor::hrtimer::Hrtimer;
use klib::waitqueue::WaitQueue;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

#[derive(Default)]
struct State {
    /// Time of its clock at which it next expires; 0: disarmed.
    next_ns: u64,
    interval_ns: u64,
    /// Expirations that nobody has read yet, up to the last look at the clock.
    ticks: u64,
}

/// A timer.
pub struct TimerFd {
    clock: Clock,
    /// Number of the clock, for fdinfo.
    clock_id: i32,
    state: Mutex<State>,
    wait: WaitQueue,
    timer: Hrtimer,
}

impl TimerFd {
    /// A disarmed timer.
    pub fn new(clock: Clock, clock_id: i32) -> Arc<Self> {
        Arc::new_cyclic(|me: &Weak<Self>| {
            let me = me.clone();
            let fire = move || {
                if let Some(t) = me.upgrade() {
                    t.wait.wake(poll::IN);
                }
            };
            Self {
                clock,
                clock_id,
                state: Mutex::default(),
                wait: WaitQueue::new(),
                timer: Hrtimer::new(fire),
            }
        })
    }

    /// Counts what has expired, and arms the timer for what comes.
    fn update(&self, s: &mut State) {
        if s.next_ns == 0 {
            return;
        }
        let now = self.clock.now_ns();
        if now < s.next_ns {
            return;
        }
        match (now - s.next_ns).checked_div(s.interval_ns) {
            None => {
                s.ticks = s.ticks.saturating_add(1);
                s.next_ns = 0;
            }
            Some(whole) => {
                let n = whole + 1;
                s.ticks = s.ticks.saturating_add(n);
                s.next_ns = s.next_ns.saturating_add(n.saturating_mul(s.interval_ns));
            }
        }
        self.arm(s);
    }

    fn arm(&self, s: &State) {
        if s.next_ns == 0 {
            self.timer.cancel();
        } else {
            self.timer.arm(self.clock.when(s.next_ns));
        }
    }

    /// timerfd_gettime(2): (interval, time left) in nanoseconds.
    pub fn get(&self) -> (u64, u64) {
        let mut s = self.state.lock();
        self.update(&mut s);
        let left = if s.next_ns == 0 { 0 } else { s.next_ns.saturating_sub(self.clock.now_ns()).max(1) };
        (s.interval_ns, left)
    }

    /// timerfd_settime(2): gives the old setting.
    pub fn set(&self, interval_ns: u64, value_ns: u64, absolute: bool) -> (u64, u64) {
        let old = self.get();
        let mut s = self.state.lock();
        s.ticks = 0;
        s.interval_ns = if value_ns == 0 { 0 } else { interval_ns };
        s.next_ns = match (value_ns, absolute) {
            (0, _) => 0,
            (at, true) => at,
            (d, false) => self.clock.now_ns().saturating_add(d),
        };
        self.arm(&s);
        drop(s);
        self.wait.wake(poll::IN);
        old
    }
}

impl FileOps for TimerFd {
    fn try_read(&self, _file: &File, _pos: u64, to: &mut IovIter<'_>) -> Result<usize> {
        if to.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut s = self.state.lock();
        self.update(&mut s);
        if s.ticks == 0 {
            return Err(Errno::EAGAIN);
        }
        copy_whole(to, &s.ticks.to_ne_bytes())?;
        s.ticks = 0;
        Ok(8)
    }

    fn poll(&self, _file: &File, table: &mut PollTable) -> u32 {
        table.register(&self.wait, poll::IN);
        let mut s = self.state.lock();
        self.update(&mut s);
        if s.ticks > 0 { poll::IN } else { 0 }
    }

    fn show_fdinfo(&self, _file: &File) -> String {
        let (interval, left) = self.get();
        let ticks = self.state.lock().ticks;
        format!(
            "clockid: {}\nticks: {ticks}\nsettime flags: 00\nit_value: ({}, {})\nit_interval: ({}, {})\n",
            self.clock_id,
            left / 1_000_000_000,
            left % 1_000_000_000,
            interval / 1_000_000_000,
            interval % 1_000_000_000
        )
    }
}
