//! Getting memory back when `mem=` is full: cached file pages that can be read again and that nobody maps.

use super::page_cache::PageCache;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

struct Registry {
    caches: Vec<Weak<PageCache>>,
    /// Where the next round begins, so that no cache is always first.
    hand: usize,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { caches: Vec::new(), hand: 0 });

/// A cache from which pages may be taken.
pub(super) fn register(cache: &Arc<PageCache>) {
    let mut r = REGISTRY.lock();
    if r.caches.len() == r.caches.capacity() {
        r.caches.retain(|c| c.strong_count() > 0);
    }
    r.caches.push(Arc::downgrade(cache));
}

/// Frees about `want` pages; gives how many.
pub(super) fn shrink(want: u64) -> u64 {
    // A caller may hold the lock of one cache; that one is skipped (`try_lock`).
    let caches: Vec<Arc<PageCache>> = {
        let Some(mut r) = REGISTRY.try_lock() else { return 0 };
        let n = r.caches.len().max(1);
        let hand = r.hand % n;
        r.hand = hand + 1;
        r.caches[hand.min(r.caches.len())..]
            .iter()
            .chain(&r.caches[..hand.min(r.caches.len())])
            .filter_map(Weak::upgrade)
            .collect()
    };
    let mut freed = 0;
    for c in caches {
        if freed >= want {
            break;
        }
        freed += c.shrink(want - freed);
    }
    freed
}
