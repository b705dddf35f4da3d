//! Timers in the order in which they expire.

use crate::ktime::Ktime;
use std::collections::BTreeMap;

/// Names one armed timer; given by [`TimerQueue::add`], used once by [`TimerQueue::cancel`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TimerId {
    expires: Ktime,
    seq: u64,
}

impl TimerId {
    /// When the timer fires.
    pub const fn expires(self) -> Ktime {
        self.expires
    }
}

/// A queue of values, each due at an instant; equal instants keep their order of arrival.
pub struct TimerQueue<T> {
    timers: BTreeMap<TimerId, T>,
    seq: u64,
}

impl<T> Default for TimerQueue<T> {
    fn default() -> Self {
        Self { timers: BTreeMap::new(), seq: 0 }
    }
}

impl<T> TimerQueue<T> {
    /// Arms a timer.
    pub fn add(&mut self, expires: Ktime, value: T) -> TimerId {
        self.seq += 1;
        let id = TimerId { expires, seq: self.seq };
        self.timers.insert(id, value);
        id
    }

    /// Disarms a timer; `None` if it has fired already.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        self.timers.remove(&id)
    }

    /// When the next timer is due.
    pub fn next(&self) -> Option<Ktime> {
        self.timers.first_key_value().map(|(id, _)| id.expires)
    }

    /// Takes the next timer that is due at `now`.
    pub fn pop_due(&mut self, now: Ktime) -> Option<T> {
        let first = self.timers.first_entry()?;
        (first.key().expires <= now).then(|| first.remove())
    }

    /// Number of armed timers.
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// True if nothing is armed.
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_in_order_and_only_when_due() {
        let mut q = TimerQueue::default();
        q.add(Ktime(30), 'c');
        q.add(Ktime(10), 'a');
        let b = q.add(Ktime(10), 'b');
        assert_eq!(q.next(), Some(Ktime(10)));
        assert_eq!(q.pop_due(Ktime(9)), None);
        assert_eq!(q.pop_due(Ktime(10)), Some('a'));
        assert_eq!(q.cancel(b), Some('b'));
        assert_eq!(q.cancel(b), None);
        assert_eq!(q.pop_due(Ktime(29)), None);
        assert_eq!(q.pop_due(Ktime(30)), Some('c'));
        assert!(q.is_empty());
    }
}
