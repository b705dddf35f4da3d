//! A way to the host that is lost, and its return: the interface was deleted, the peer has ended. The queues go, the carrier
//! with them; one task tries to open the way again, when there is news of the interface or after a pause that grows
//! to a bound. Nothing is kept for the time between: what the stack sends is dropped and counted.
//!
//! Lock order: as in the parent; the task holds no lock while it waits, and the host is asked on a thread that may sleep.

use super::lanes::Queues;
use super::transport::{Again, Framing};
use super::{Vector, link};
use klib::ktime::Ktime;
use klib::waitqueue::WaitQueue;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use uapi::{Errno, Result};

/// The first pause between tries.
const FIRST: Duration = Duration::from_millis(50);
/// The longest.
const LONGEST: Duration = Duration::from_secs(5);
/// A way that holds so long is trusted again: the next loss begins with no pause.
const CALM: Duration = Duration::from_secs(5);

/// State of the tries.
#[derive(Default)]
pub struct Recovery {
    /// The task is there. Changed with the NIC's queues locked.
    busy: AtomicBool,
    news: AtomicBool,
    wake: WaitQueue,
    /// When the way came back last, in nanoseconds.
    back: AtomicU64,
    /// The pause before the next try, in milliseconds.
    pause: AtomicU64,
}

impl Recovery {
    /// True while the way is lost.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Try now: something has changed.
    fn hurry(&self) {
        self.news.store(true, Ordering::SeqCst);
        self.wake.wake_all();
    }

    /// The next pause: each is twice the one before.
    fn pause(&self) -> Duration {
        let now = self.pause.load(Ordering::Relaxed).max(FIRST.as_millis() as u64);
        self.pause.store((2 * now).min(LONGEST.as_millis() as u64), Ordering::Relaxed);
        Duration::from_millis(now)
    }
}

impl Vector {
    /// Looks at the interface of the host if there is news of it.
    pub(super) fn follow_link(&self) {
        let Some(name) = self.transport.host_ifname() else { return };
        let index = self.transport.host_ifindex();
        if !self.link.heard(name, index) {
            return;
        }
        if self.recovery.is_busy() {
            return self.recovery.hurry();
        }
        if !self.transport.is_alive() {
            return self.lost(None, Err(Errno::ENODEV));
        }
        // One that has gone to another namespace works on there; of its link we hear no more.
        if let Some(on) = link::running(name, index)
            && self.set_carrier(on)
        {
            let how = if on { "up" } else { "down" };
            log::warn!(target: "vector", "vec{}: the interface on the host is {how}", self.unit);
        }
    }

    /// The way to the host is of no use any more. With `queues`: unless it has been replaced meanwhile.
    pub(super) fn lost(&self, queues: Option<&Arc<Queues>>, why: Result<()>) {
        let mut now = self.queues.lock();
        if queues.is_some_and(|q| now.as_ref().is_none_or(|n| !Arc::ptr_eq(n, q))) {
            return;
        }
        let old = now.take();
        let again = self.recovery.busy.swap(true, Ordering::AcqRel);
        drop(now);
        if let Some(q) = &old {
            self.starved.fetch_add(q.starved(), Ordering::Relaxed);
        }
        drop(old);
        if again {
            return self.recovery.hurry();
        }
        let why = match why {
            Err(Errno::ENODEV) => "its interface is gone",
            Err(e) => e.text(),
            Ok(()) => "the peer has ended it",
        };
        log::warn!(target: "vector", "vec{}: the way to the host is lost: {why}", self.unit);
        self.set_carrier(false);
        self.tx_wake();
        executor::spawn(task(Weak::clone(&self.me)));
    }

    /// The transport is open again: frames flow. `Err`: not yet.
    fn revive(&self) -> Result<()> {
        let mut queues = self.queues.lock();
        if self.up.load(Ordering::Acquire) || self.transport.framing() == Framing::Stream {
            *queues = Some(Arc::new(self.start()?));
        }
        self.recovery.back.store(executor::time::now().as_ns(), Ordering::Relaxed);
        self.recovery.busy.store(false, Ordering::Release);
        drop(queues);
        log::warn!(target: "vector", "vec{}: back: {}", self.unit, self.transport.describe());
        match self.transport.host_ifname() {
            // Whether it is up as well is for the next look, at once.
            Some(_) if self.link.ask() => self.schedule(),
            _ => {
                self.set_carrier(true);
            }
        }
        self.tx_wake();
        Ok(())
    }

    /// Whoever was refused a frame by queues that are gone waits for a word of ours.
    fn tx_wake(&self) {
        if let Some((net, ifindex)) = self.net.get() {
            net.tx_wake(*ifindex);
        }
    }
}

/// Tries until the way is back.
async fn task(me: Weak<Vector>) {
    let Some(v) = me.upgrade() else { return };
    let calm = executor::time::now() >= Ktime(v.recovery.back.load(Ordering::Relaxed)) + CALM;
    if calm {
        v.recovery.pause.store(0, Ordering::Relaxed);
    } else {
        // It has only just come back: whatever breaks it again and again shall not keep us busy.
        executor::time::sleep(v.recovery.pause()).await;
    }
    drop(v);
    let mut said = String::new();
    loop {
        let Some(v) = me.upgrade() else { return };
        // News from here on is not lost on the try that begins.
        v.recovery.news.store(false, Ordering::SeqCst);
        let transport = Arc::clone(&v.transport);
        let tried = executor::blocking::spawn_blocking(move || transport.reopen()).await;
        let again = match tried.and_then(|()| v.revive().map_err(|e| Again::Later(e.text().to_owned()))) {
            Ok(()) => return,
            Err(a) => a,
        };
        let until = match &again {
            Again::Never => {
                log::error!(target: "vector", "vec{}: the way to the host cannot be opened again", v.unit);
                return;
            }
            Again::News => None,
            Again::Later(why) => {
                if *why != said {
                    log::warn!(target: "vector", "vec{}: not back yet: {why}", v.unit);
                    said.clone_from(why);
                }
                Some(executor::time::now() + v.recovery.pause())
            }
        };
        let wake = v.recovery.wake.clone();
        let weak = Weak::clone(&me);
        drop(v);
        let news = wake.wait_until(move || {
            let heard = weak.upgrade().is_none_or(|v| v.recovery.news.load(Ordering::SeqCst));
            heard.then_some(())
        });
        executor::time::timeout(until, news).await;
    }
}
