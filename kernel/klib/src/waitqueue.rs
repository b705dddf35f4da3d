//! Wait queues: who wants to hear of an event, and the waking of them.
//!
//! Readiness is never kept here. A waiter registers *before* it looks, so a wake between its look and its sleep is
//! not lost; a wake that finds nothing to do is legal, a lost one is not.
//!
//! Lock order: the queue's own lock is a leaf; targets are called after it has been dropped, because a target may
//! wake a task, which takes run queue locks.

use parking_lot::Mutex;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

/// Told when a queue it registered with is woken with an event it asked for.
pub trait WakeTarget: Send + Sync {
    /// `events` are the poll(2) bits of the wake (all bits if the waker named none). Must not block.
    fn wake(&self, events: u32);
}

impl WakeTarget for Waker {
    fn wake(&self, _events: u32) {
        self.wake_by_ref();
    }
}

struct Entry {
    id: u64,
    events: u32,
    exclusive: bool,
    target: Arc<dyn WakeTarget>,
}

#[derive(Default)]
struct Inner {
    entries: Vec<Entry>,
    next_id: u64,
}

/// A list of waiters. Cheap to clone: clones are the same queue.
#[derive(Clone, Default)]
pub struct WaitQueue {
    inner: Arc<Mutex<Inner>>,
}

/// A registration; dropping it ends it.
#[must_use = "dropping the token ends the registration"]
pub struct WaitToken {
    queue: Arc<Mutex<Inner>>,
    id: u64,
}

impl Drop for WaitToken {
    fn drop(&mut self) {
        let mut q = self.queue.lock();
        if let Some(i) = q.entries.iter().position(|e| e.id == self.id) {
            // Order is kept: exclusive waiters are served first come, first served.
            q.entries.remove(i);
        }
    }
}

impl WaitQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers `target` for wakes that carry one of `events` (poll bits; `u32::MAX` for all).
    pub fn add(&self, events: u32, target: Arc<dyn WakeTarget>) -> WaitToken {
        self.insert(events, target, false)
    }

    /// As [`add`](Self::add); of all exclusive waiters [`wake_one`](Self::wake_one) tells only the first.
    pub fn add_exclusive(&self, events: u32, target: Arc<dyn WakeTarget>) -> WaitToken {
        self.insert(events, target, true)
    }

    fn insert(&self, events: u32, target: Arc<dyn WakeTarget>, exclusive: bool) -> WaitToken {
        let mut q = self.inner.lock();
        q.next_id += 1;
        let id = q.next_id;
        q.entries.push(Entry { id, events, exclusive, target });
        WaitToken { queue: Arc::clone(&self.inner), id }
    }

    /// Tells everyone who asked for one of `events`.
    pub fn wake(&self, events: u32) {
        self.notify(events, usize::MAX);
    }

    /// Tells everyone.
    pub fn wake_all(&self) {
        self.notify(u32::MAX, usize::MAX);
    }

    /// Tells all shared waiters and the first `n` exclusive ones.
    pub fn wake_one(&self, events: u32) {
        self.notify(events, 1);
    }

    fn notify(&self, events: u32, mut exclusive: usize) {
        let q = self.inner.lock();
        if q.entries.is_empty() {
            return;
        }
        let mut woken: Vec<Arc<dyn WakeTarget>> = Vec::with_capacity(q.entries.len().min(8));
        for e in q.entries.iter().filter(|e| e.events & events != 0) {
            if e.exclusive {
                if exclusive == 0 {
                    continue;
                }
                exclusive -= 1;
            }
            woken.push(Arc::clone(&e.target));
        }
        drop(q);
        for t in woken {
            t.wake(events);
        }
    }

    /// True if nobody waits (a hint for skipping work; it may be stale at once).
    pub fn is_empty(&self) -> bool {
        self.inner.lock().entries.is_empty()
    }

    /// Waits until `ready` gives a value; it is asked once at first and again after each wake. Not interruptible:
    /// guest-visible waits go through `kernel::task::wait`, which adds signals and time limits.
    pub async fn wait_until<T>(&self, mut ready: impl FnMut() -> Option<T>) -> T {
        let mut slot: Option<(WaitToken, Arc<TaskTarget>)> = None;
        poll_fn(move |cx| {
            let target = match &slot {
                Some((_, t)) => Arc::clone(t),
                None => {
                    let t = Arc::new(TaskTarget::default());
                    let token = self.add(u32::MAX, Arc::clone(&t) as Arc<dyn WakeTarget>);
                    slot = Some((token, Arc::clone(&t)));
                    t
                }
            };
            target.arm(cx.waker());
            match ready() {
                Some(v) => Poll::Ready(v),
                None => Poll::Pending,
            }
        })
        .await
    }
}

/// A [`WakeTarget`] for a future: remembers the waker of its latest poll and whether a wake has come since.
#[derive(Default)]
pub struct TaskTarget {
    waker: Mutex<Option<Waker>>,
    woken: AtomicBool,
}

impl TaskTarget {
    /// Notes whom to wake; call on every poll, before looking whether the event has happened.
    pub fn arm(&self, waker: &Waker) {
        let mut w = self.waker.lock();
        if !w.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *w = Some(waker.clone());
        }
        self.woken.store(false, Ordering::SeqCst);
    }

    /// True if a wake has come since the last [`arm`](Self::arm).
    pub fn was_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }
}

impl WakeTarget for TaskTarget {
    fn wake(&self, _events: u32) {
        self.woken.store(true, Ordering::SeqCst);
        let waker = self.waker.lock().clone();
        if let Some(w) = waker {
            w.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    struct Count(AtomicU32);
    impl WakeTarget for Count {
        fn wake(&self, _events: u32) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn wakes_only_who_asked_and_one_exclusive() {
        let q = WaitQueue::new();
        let a = Arc::new(Count(AtomicU32::new(0)));
        let b = Arc::new(Count(AtomicU32::new(0)));
        let c = Arc::new(Count(AtomicU32::new(0)));
        let ta = q.add(1, a.clone());
        let _tb = q.add_exclusive(2, b.clone());
        let _tc = q.add_exclusive(2, c.clone());
        q.wake(1);
        q.wake_one(2);
        assert_eq!(
            (a.0.load(Ordering::SeqCst), b.0.load(Ordering::SeqCst), c.0.load(Ordering::SeqCst)),
            (1, 1, 0)
        );
        drop(ta);
        q.wake_all();
        assert_eq!(
            (a.0.load(Ordering::SeqCst), b.0.load(Ordering::SeqCst), c.0.load(Ordering::SeqCst)),
            (1, 2, 1)
        );
    }
}
