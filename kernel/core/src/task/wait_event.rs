//! Interruptible waiting: the one way in which a guest task sleeps for an event.

use super::task::Task;
use crate::fs::poll::PollTable;
use crate::{Errno, Result};
use klib::ktime::Ktime;
use klib::waitqueue::{TaskTarget, WakeTarget};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

/// A waiter that remembers which CPU woke it.
#[derive(Default)]
struct Sleeper {
    target: TaskTarget,
    /// The CPU plus one; 0: not woken yet, or by a foreign thread.
    by: AtomicUsize,
}

impl WakeTarget for Sleeper {
    fn wake(&self, events: u32) {
        self.by.store(executor::try_this_cpu().map_or(0, |c| c + 1), Ordering::Relaxed);
        self.target.wake(events);
    }
}

impl Task {
    /// Waits until `ready` gives a value. It is called once with a table that registers with the wait queues it
    /// names, then again after each wake. `ERESTARTSYS` when a signal is pending, `ETIMEDOUT` past `deadline`.
    pub async fn wait_event<T>(
        &self,
        deadline: Option<Ktime>,
        mut ready: impl FnMut(&mut PollTable) -> Option<T>,
    ) -> Result<T> {
        let sleeper: Arc<Sleeper> = Arc::default();
        let mut table = PollTable::new(Arc::clone(&sleeper) as Arc<dyn WakeTarget>);
        let mut sleep = pin!(deadline.map(executor::time::sleep_until));
        poll_fn(move |cx| {
            sleeper.target.arm(cx.waker());
            self.arm_signal_waker(cx.waker());
            self.set_state(b'R');
            if let Some(v) = ready(&mut table) {
                let by = sleeper.by.load(Ordering::Relaxed);
                if by != 0 {
                    super::balance::woken(self, by - 1);
                }
                return Poll::Ready(Ok(v));
            }
            table.registered();
            if self.sig_pending.load(Ordering::SeqCst) {
                return Poll::Ready(Err(Errno::ERESTARTSYS));
            }
            if let Some(sleep) = sleep.as_mut().as_pin_mut()
                && sleep.poll(cx).is_ready()
            {
                return Poll::Ready(Err(Errno::ETIMEDOUT));
            }
            self.set_state(b'S');
            self.nvcsw.fetch_add(1, Ordering::Relaxed);
            Poll::Pending
        })
        .await
    }

    /// As [`wait_event`](Self::wait_event) without a deadline, but only a fatal signal ends it (`ERESTARTNOINTR`).
    pub async fn wait_killable<T>(&self, ready: impl FnMut(&mut PollTable) -> Option<T>) -> Result<T> {
        self.wait_killable_as(b'D', ready).await
    }

    /// As [`wait_killable`](Self::wait_killable), shown in /proc as `state`.
    pub async fn wait_killable_as<T>(
        &self,
        state: u8,
        mut ready: impl FnMut(&mut PollTable) -> Option<T>,
    ) -> Result<T> {
        let target: Arc<TaskTarget> = Arc::default();
        let mut table = PollTable::for_task(&target);
        poll_fn(move |cx| {
            target.arm(cx.waker());
            self.arm_signal_waker(cx.waker());
            self.set_state(b'R');
            if let Some(v) = ready(&mut table) {
                return Poll::Ready(Ok(v));
            }
            table.registered();
            if self.fatal_signal_pending() {
                return Poll::Ready(Err(Errno::ERESTARTNOINTR));
            }
            self.set_state(state);
            Poll::Pending
        })
        .await
    }

    /// Sleeps until `deadline`; `ERESTARTSYS` if a signal comes first.
    pub async fn sleep_interruptible(&self, deadline: Ktime) -> Result<()> {
        match self.wait_event::<()>(Some(deadline), |_| None).await {
            Err(Errno::ETIMEDOUT) => Ok(()),
            Err(e) => Err(e),
            Ok(()) => Ok(()),
        }
    }

    /// Notes the waker that a signal must wake; called at each poll of a wait, before the condition is looked at.
    pub fn arm_signal_waker(&self, waker: &std::task::Waker) {
        let mut w = self.waker.lock();
        if !w.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *w = Some(waker.clone());
        }
    }

    /// A signal may be deliverable: ends interruptible waits, and kicks the thread out of user mode.
    pub fn signal_wake_up(&self) {
        self.sig_pending.store(true, Ordering::SeqCst);
        let waker = self.waker.lock().clone();
        if let Some(w) = waker {
            w.wake();
        }
        if self.in_user.load(Ordering::SeqCst)
            && let Some(me) = self.me.upgrade()
        {
            // Signals are sent with the locks of the pid table and of processes held; a kick may want them.
            executor::spawn(async move {
                if me.in_user.load(Ordering::SeqCst) && me.signal_pending() {
                    super::sched::kick(&me);
                }
            });
        }
    }
}
