//! A bounded map with second-chance eviction ("clock"), used for metadata blocks and for inodes.
//!
//! A value that somebody still holds is never evicted: there is one copy of a block or inode at any time, which is
//! what writing will stand on. The bound can therefore be passed while more is held than the cache may keep; what is
//! held costs the same outside the cache.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// How many slots one insertion looks at in its search for a victim.
const SCAN: usize = 64;

struct Slot<K, V> {
    key: K,
    value: Arc<V>,
    referenced: bool,
}

/// The cache; the caller locks it.
pub(crate) struct Clock<K, V> {
    index: HashMap<K, usize>,
    slots: Vec<Slot<K, V>>,
    hand: usize,
    limit: usize,
}

impl<K: Copy + Eq + Hash, V> Clock<K, V> {
    /// An empty cache for `limit` values (at least 8).
    pub fn new(limit: usize) -> Self {
        Self { index: HashMap::new(), slots: Vec::new(), hand: 0, limit: limit.max(8) }
    }

    /// The value of `key`, marked as used.
    pub fn get(&mut self, key: K) -> Option<Arc<V>> {
        let slot = self.slots.get_mut(*self.index.get(&key)?)?;
        slot.referenced = true;
        Some(slot.value.clone())
    }

    /// Puts `value` in, unless there is one already; returns the one that is in.
    pub fn insert(&mut self, key: K, value: Arc<V>) -> Arc<V> {
        if let Some(old) = self.get(key) {
            return old;
        }
        while self.slots.len() >= self.limit {
            let Some(victim) = self.find_victim() else { break };
            self.remove_slot(victim);
        }
        self.index.insert(key, self.slots.len());
        self.slots.push(Slot { key, value: value.clone(), referenced: true });
        value
    }

    /// Number of values held.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    fn find_victim(&mut self) -> Option<usize> {
        for _ in 0..SCAN.min(self.slots.len() * 2) {
            let at = self.hand % self.slots.len();
            self.hand = at + 1;
            let slot = self.slots.get_mut(at)?;
            if std::mem::take(&mut slot.referenced) {
                continue;
            }
            if Arc::strong_count(&slot.value) == 1 {
                return Some(at);
            }
        }
        None
    }

    fn remove_slot(&mut self, at: usize) {
        let gone = self.slots.swap_remove(at);
        self.index.remove(&gone.key);
        if let Some(moved) = self.slots.get(at) {
            self.index.insert(moved.key, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_near_its_bound_and_keeps_what_is_held() {
        let mut c = Clock::new(100);
        let held = c.insert(0u64, Arc::new(0u64));
        for i in 1..10_000u64 {
            c.insert(i, Arc::new(i));
            assert!(c.len() <= 104, "{} values", c.len());
        }
        assert!(Arc::ptr_eq(&held, &c.get(0).expect("still in")));
        assert_eq!(c.get(9_999).as_deref(), Some(&9_999));
        assert!(c.get(1).is_none());
    }

    #[test]
    fn first_insertion_wins() {
        let mut c = Clock::new(8);
        let a = c.insert(1u32, Arc::new(1));
        assert!(Arc::ptr_eq(&a, &c.insert(1, Arc::new(2))));
    }
}
