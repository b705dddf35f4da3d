//! One timer of a process: a POSIX timer or an interval timer.

use super::clock::Clock;
use crate::signal::{SigInfo, send_group, send_task};
use crate::task::{Task, ThreadGroup};
use executor::hrtimer::Hrtimer;
use klib::ktime::Ktime;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// Who hears of an expiry.
pub enum Notify {
    /// SIGEV_NONE.
    Nobody,
    /// The process.
    Group(Weak<ThreadGroup>),
    /// One thread (SIGEV_THREAD_ID).
    Thread(Weak<Task>),
}

/// Which clock, without holding the process alive.
#[derive(Clone)]
pub enum TimerClock {
    /// CLOCK_REALTIME.
    Real,
    /// CLOCK_MONOTONIC.
    Mono,
    /// CPU time of a process (true: user time alone).
    Process(Weak<ThreadGroup>, bool),
    /// CPU time of a thread (true: user time alone).
    Thread(Weak<Task>, bool),
}

impl From<&Clock> for TimerClock {
    fn from(clock: &Clock) -> Self {
        match clock {
            Clock::Real => Self::Real,
            Clock::Mono => Self::Mono,
            Clock::Process(g, u) => Self::Process(Arc::downgrade(g), *u),
            Clock::Thread(t, u) => Self::Thread(Arc::downgrade(t), *u),
        }
    }
}

impl TimerClock {
    fn clock(&self) -> Option<Clock> {
        Some(match self {
            Self::Real => Clock::Real,
            Self::Mono => Clock::Mono,
            Self::Process(g, u) => Clock::Process(g.upgrade()?, *u),
            Self::Thread(t, u) => Clock::Thread(t.upgrade()?, *u),
        })
    }
}

#[derive(Default, Debug)]
struct State {
    /// Next expiry in the timer's clock.
    expires_ns: Option<u64>,
    interval_ns: u64,
    /// Expired, and the next period begins when the signal is taken (POSIX timers).
    requeue: bool,
    overrun: u64,
    last_overrun: i32,
}

impl State {
    /// Moves the expiry past `now`; gives the periods skipped beyond the first.
    fn forward(&mut self, now: u64) -> u64 {
        let Some(at) = self.expires_ns else { return 0 };
        if self.interval_ns == 0 || now < at {
            return 0;
        }
        let n = (now - at) / self.interval_ns;
        self.expires_ns = Some(at.saturating_add((n + 1).saturating_mul(self.interval_ns)));
        n
    }
}

/// A timer. It must live in an `Arc`, since its expiry finds it by a weak reference.
pub struct Timer {
    /// timer_create(2)'s id; -1 for interval timers.
    pub id: i32,
    clock: TimerClock,
    notify: Notify,
    signo: i32,
    value: u64,
    state: Mutex<State>,
    hr: OnceLock<Hrtimer>,
}

/// Setting and remaining time of a timer, ns; `value` 0: not armed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerSpec {
    /// Time to the next expiry.
    pub value_ns: u64,
    /// Period, 0 for none.
    pub interval_ns: u64,
}

/// An expiry comes at most this often, so that a timer of one nanosecond does not take a whole CPU.
const MIN_PERIOD: Duration = Duration::from_micros(50);

impl Timer {
    /// A timer that is not armed. With `id` -1 its signal carries SI_KERNEL (setitimer(2)), else SI_TIMER.
    pub fn new(id: i32, clock: &Clock, notify: Notify, signo: i32, value: u64) -> Arc<Self> {
        let timer = Arc::new(Self {
            id,
            clock: TimerClock::from(clock),
            notify,
            signo,
            value,
            state: Mutex::default(),
            hr: OnceLock::new(),
        });
        let weak = Arc::downgrade(&timer);
        let _ = timer.hr.set(Hrtimer::new(move || {
            if let Some(t) = weak.upgrade() {
                t.expire();
            }
        }));
        timer
    }

    /// The clock, unless what it counts has gone.
    pub fn clock(&self) -> Option<Clock> {
        self.clock.clock()
    }

    fn arm(&self, clock: &Clock, state: &State) {
        let Some(hr) = self.hr.get() else { return };
        match state.expires_ns {
            Some(at) if !matches!(self.notify, Notify::Nobody) => hr.arm(clock.when(at)),
            _ => hr.arm(Ktime::MAX),
        }
    }

    /// Sets it (value 0 disarms) and gives what was set. With `absolute` the value is a time of the clock.
    pub fn set(&self, new: TimerSpec, absolute: bool) -> TimerSpec {
        let Some(clock) = self.clock.clock() else { return TimerSpec::default() };
        let mut s = self.state.lock();
        let now = clock.now_ns();
        let old = Self::spec(&mut s, now, matches!(self.notify, Notify::Nobody));
        s.requeue = false;
        s.overrun = 0;
        s.interval_ns = new.interval_ns;
        s.expires_ns = (new.value_ns != 0)
            .then(|| if absolute { new.value_ns } else { now.saturating_add(new.value_ns) });
        self.arm(&clock, &s);
        old
    }

    /// Disarms it for good.
    pub fn disarm(&self) {
        let mut s = self.state.lock();
        s.expires_ns = None;
        s.requeue = false;
        if let Some(hr) = self.hr.get() {
            hr.arm(Ktime::MAX);
        }
    }

    /// Remaining time and period.
    pub fn get(&self) -> TimerSpec {
        let Some(clock) = self.clock.clock() else { return TimerSpec::default() };
        let now = clock.now_ns();
        Self::spec(&mut self.state.lock(), now, matches!(self.notify, Notify::Nobody))
    }

    fn spec(s: &mut State, now: u64, silent: bool) -> TimerSpec {
        if silent || s.requeue {
            let skipped = s.forward(now);
            s.overrun = s.overrun.saturating_add(skipped);
        }
        let Some(at) = s.expires_ns else { return TimerSpec { value_ns: 0, interval_ns: s.interval_ns } };
        let left = at.saturating_sub(now);
        // A timer that is armed never shows zero: that means disarmed.
        let value_ns = if left == 0 && !(silent && s.interval_ns == 0) { 1 } else { left };
        TimerSpec { value_ns, interval_ns: s.interval_ns }
    }

    /// timer_getoverrun(2): of the last delivery.
    pub fn overrun(&self) -> i32 {
        self.state.lock().last_overrun
    }

    /// The executor's timer has fired.
    fn expire(&self) {
        let Some(clock) = self.clock.clock() else { return };
        let posix = self.id >= 0;
        {
            let mut s = self.state.lock();
            let Some(at) = s.expires_ns else { return };
            let now = clock.now_ns();
            if now < at {
                // A CPU clock has not got there yet.
                self.arm(&clock, &s);
                return;
            }
            if s.interval_ns == 0 {
                s.expires_ns = None;
            } else if posix {
                s.requeue = true;
            } else {
                s.forward(now);
            }
        }
        let queued = self.send();
        let mut s = self.state.lock();
        if s.interval_ns == 0 || s.expires_ns.is_none() {
            return;
        }
        if posix && queued {
            // Goes on when the signal is taken: see `on_dequeue`.
            return;
        }
        if posix {
            s.requeue = false;
            s.forward(clock.now_ns());
        }
        if let (Some(hr), Some(at)) = (self.hr.get(), s.expires_ns) {
            hr.arm(clock.when(at).max(executor::time::now() + MIN_PERIOD));
        }
    }

    /// Sends the signal; true if it is queued now.
    fn send(&self) -> bool {
        let info = if self.id >= 0 {
            SigInfo::timer(self.signo, self.id, 0, self.value)
        } else {
            SigInfo::kernel(self.signo)
        };
        let mine = |i: &SigInfo| i.code == info.code && i.pid() == info.pid() && i.signo == info.signo;
        match &self.notify {
            Notify::Nobody => false,
            Notify::Group(g) => {
                g.upgrade().is_some_and(|g| send_group(&g, info).is_ok() && g.signals.lock().shared.any(mine))
            }
            Notify::Thread(t) => {
                t.upgrade().is_some_and(|t| send_task(&t, info).is_ok() && t.signals.lock().pending.any(mine))
            }
        }
    }

    /// Its signal is being delivered: fills in the overrun count and begins the next period.
    pub(super) fn on_dequeue(&self, info: &mut SigInfo) {
        let Some(clock) = self.clock.clock() else { return };
        let mut s = self.state.lock();
        if s.requeue {
            s.requeue = false;
            let skipped = s.forward(clock.now_ns());
            s.overrun = s.overrun.saturating_add(skipped);
            if let (Some(hr), Some(at)) = (self.hr.get(), s.expires_ns) {
                hr.arm(clock.when(at));
            }
        }
        s.last_overrun = i32::try_from(std::mem::take(&mut s.overrun)).unwrap_or(i32::MAX);
        info.set_overrun(s.last_overrun);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_counts_the_skipped_periods() {
        let mut s = State { expires_ns: Some(100), interval_ns: 10, ..State::default() };
        assert_eq!(s.forward(99), 0);
        assert_eq!(s.expires_ns, Some(100));
        assert_eq!(s.forward(100), 0);
        assert_eq!(s.expires_ns, Some(110));
        assert_eq!(s.forward(135), 2);
        assert_eq!(s.expires_ns, Some(140));
        let mut s = State { expires_ns: Some(1), interval_ns: u64::MAX, ..State::default() };
        assert_eq!(s.forward(u64::MAX), 0);
        assert_eq!(s.expires_ns, Some(u64::MAX));
    }

    #[test]
    fn an_armed_timer_never_shows_zero() {
        let mut s = State { expires_ns: Some(100), ..State::default() };
        assert_eq!(Timer::spec(&mut s, 100, false).value_ns, 1);
        assert_eq!(Timer::spec(&mut s, 40, false).value_ns, 60);
    }
}
