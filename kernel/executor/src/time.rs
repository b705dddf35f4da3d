//! Waiting for the clock. One timer queue a CPU; the earliest deadline bounds the CPU's idle wait, so there is no tick.

use crate::machine::{Cpu, Machine, lock, machine, with_local};
use crate::stats::Counters;
use arch::host::clock;
use klib::ktime::Ktime;
use klib::timerqueue::TimerId;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Timers fired in one round before tasks get their turn.
const TIMER_BUDGET: usize = 256;

/// What a timer does.
pub(crate) enum TimerEntry {
    Wake(Waker),
    Call(Arc<dyn Fn() + Send + Sync>),
}

/// Where a timer was armed, for disarming it.
pub(crate) struct Armed {
    machine: Arc<Machine>,
    cpu: usize,
    id: TimerId,
}

/// Arms a timer on this CPU (CPU 0 from a foreign thread); `None` if the executor does not run.
pub(crate) fn arm(at: Ktime, entry: TimerEntry) -> Option<Armed> {
    let here = with_local(|l| l.map(|l| (Arc::clone(&l.machine), l.id)));
    let foreign = here.is_none();
    let (machine, cpu) = match here {
        Some(h) => h,
        None => (machine()?, 0),
    };
    let id = lock(&machine.cpu(cpu).timers).add(at, entry);
    if foreign {
        machine.cpu(cpu).kick();
    }
    Some(Armed { machine, cpu, id })
}

impl Armed {
    /// Disarms it; false if it has fired (or is about to: a callback may be running on its CPU).
    pub(crate) fn cancel(self) -> bool {
        let entry = lock(&self.machine.cpu(self.cpu).timers).cancel(self.id);
        // A waker may free its task: not under the lock.
        entry.is_some()
    }
}

/// Fires what is due on a CPU.
pub(crate) fn run_due(cpu: &Cpu) {
    let mut now = None;
    for _ in 0..TIMER_BUDGET {
        let entry = {
            let mut timers = lock(&cpu.timers);
            if timers.is_empty() {
                return;
            }
            let now = *now.get_or_insert_with(clock::monotonic);
            timers.pop_due(now)
        };
        match entry {
            None => return,
            Some(TimerEntry::Wake(w)) => w.wake(),
            Some(TimerEntry::Call(f)) => f(),
        }
        Counters::add_own(&cpu.counters.timers, 1);
    }
}

/// CLOCK_MONOTONIC; costs no host call.
pub fn now() -> Ktime {
    let now = clock::monotonic();
    with_local(|l| l.map(|l| l.clock.set(now)));
    now
}

/// CLOCK_MONOTONIC when this CPU read it last: at the latest when it woke up, or when [`now`] was called.
pub fn recent() -> Ktime {
    with_local(|l| l.map(|l| l.clock.get())).unwrap_or_else(now)
}

/// Waits until an instant ([`Ktime::MAX`]: for ever).
pub fn sleep_until(deadline: Ktime) -> Sleep {
    Sleep { deadline, armed: None }
}

/// Waits for a time.
pub fn sleep(time: Duration) -> Sleep {
    sleep_until(now() + time)
}

/// Future of [`sleep_until`]; dropping it disarms the timer.
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline: Ktime,
    armed: Option<(Armed, Waker)>,
}

impl Sleep {
    /// When it ends.
    pub fn deadline(&self) -> Ktime {
        self.deadline
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline == Ktime::MAX {
            return Poll::Pending;
        }
        if now() >= self.deadline {
            if let Some((armed, _)) = self.armed.take() {
                armed.cancel();
            }
            return Poll::Ready(());
        }
        if self.armed.as_ref().is_some_and(|(_, w)| w.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        if let Some((old, _)) = self.armed.take() {
            old.cancel();
        }
        let waker = cx.waker().clone();
        match arm(self.deadline, TimerEntry::Wake(waker.clone())) {
            Some(armed) => {
                self.armed = Some((armed, waker));
                Poll::Pending
            }
            // The executor has ended: nobody will poll again.
            None => Poll::Pending,
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((armed, _)) = self.armed.take() {
            armed.cancel();
        }
    }
}

/// Waits for `f`, at most until `deadline` (`None`: for ever). `None` if time was up first; `f` is looked at first.
pub async fn timeout<F: Future>(deadline: Option<Ktime>, f: F) -> Option<F::Output> {
    let mut f = pin!(f);
    let mut sleep = sleep_until(deadline.unwrap_or(Ktime::MAX));
    poll_fn(|cx| {
        if let Poll::Ready(v) = f.as_mut().poll(cx) {
            return Poll::Ready(Some(v));
        }
        Pin::new(&mut sleep).poll(cx).map(|()| None)
    })
    .await
}
