//! Hash buckets of waiters.

use crate::mm::FutexKey;
use klib::waitqueue::{TaskTarget, WakeTarget};
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const BUCKETS: usize = 256;

/// One sleeper. Its key changes when it is requeued, with both buckets locked.
pub(super) struct Waiter {
    key: Mutex<FutexKey>,
    bitset: u32,
    woken: AtomicBool,
    target: Arc<TaskTarget>,
}

type Queue = VecDeque<Arc<Waiter>>;

static TABLE: [Mutex<Queue>; BUCKETS] = [const { Mutex::new(VecDeque::new()) }; BUCKETS];

fn index(key: &FutexKey) -> usize {
    let mut h = DefaultHasher::new();
    key.hash(&mut h);
    #[allow(clippy::cast_possible_truncation)]
    let n = h.finish() as usize;
    n % BUCKETS
}

impl Waiter {
    pub fn new(key: FutexKey, bitset: u32, target: Arc<TaskTarget>) -> Arc<Self> {
        Arc::new(Self { key: Mutex::new(key), bitset, woken: AtomicBool::new(false), target })
    }

    pub fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }

    fn matches(&self, key: &FutexKey, bitset: u32) -> bool {
        self.bitset & bitset != 0 && *self.key.lock() == *key
    }

    /// Called after it has been taken out of its bucket, outside of the lock.
    fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.target.wake(u32::MAX);
    }
}

/// A waiter's place in its bucket; dropping it takes the waiter out.
pub(super) struct Queued(pub Arc<Waiter>);

impl Drop for Queued {
    fn drop(&mut self) {
        if self.0.is_woken() {
            return;
        }
        loop {
            let key = *self.0.key.lock();
            let mut q = TABLE[index(&key)].lock();
            // Requeued in the meantime: look in the other bucket.
            if *self.0.key.lock() != key {
                continue;
            }
            if let Some(i) = q.iter().position(|w| Arc::ptr_eq(w, &self.0)) {
                q.remove(i);
            }
            return;
        }
    }
}

/// Puts a waiter at the end of its bucket if `check` agrees under the bucket's lock.
pub(super) fn enqueue<E>(w: Arc<Waiter>, check: impl FnOnce() -> Result<(), E>) -> Result<Queued, E> {
    let key = *w.key.lock();
    let mut q = TABLE[index(&key)].lock();
    check()?;
    q.push_back(Arc::clone(&w));
    drop(q);
    Ok(Queued(w))
}

fn take(q: &mut Queue, key: &FutexKey, bitset: u32, n: u32, out: &mut Vec<Arc<Waiter>>) -> u32 {
    let mut done = 0;
    let mut i = 0;
    while done < n && i < q.len() {
        if q.get(i).is_some_and(|w| w.matches(key, bitset)) {
            if let Some(w) = q.remove(i) {
                out.push(w);
            }
            done += 1;
        } else {
            i += 1;
        }
    }
    done
}

/// Wakes up to `n` waiters whose bitset meets `bitset`, the longest waiting first; gives how many.
pub(super) fn wake(key: &FutexKey, n: u32, bitset: u32) -> u32 {
    let mut out = Vec::new();
    let done = take(&mut TABLE[index(key)].lock(), key, bitset, n, &mut out);
    for w in out {
        w.wake();
    }
    done
}

/// Locks the buckets of two keys in table order.
struct Pair {
    a: MutexGuard<'static, Queue>,
    b: Option<MutexGuard<'static, Queue>>,
    swapped: bool,
}

impl Pair {
    fn lock(k1: &FutexKey, k2: &FutexKey) -> Self {
        let (i, j) = (index(k1), index(k2));
        if i == j {
            return Self { a: TABLE[i].lock(), b: None, swapped: false };
        }
        let swapped = i > j;
        let (lo, hi) = if swapped { (j, i) } else { (i, j) };
        let a = TABLE[lo].lock();
        let b = Some(TABLE[hi].lock());
        Self { a, b, swapped }
    }

    fn first(&mut self) -> &mut Queue {
        match &mut self.b {
            Some(b) if self.swapped => b,
            _ => &mut self.a,
        }
    }

    fn second(&mut self) -> &mut Queue {
        match &mut self.b {
            Some(b) if !self.swapped => b,
            _ => &mut self.a,
        }
    }
}

/// FUTEX_REQUEUE: under both locks asks `check`, wakes `n_wake` waiters of `from`, moves up to `n_move` others to `to`.
/// Gives how many were woken and moved.
pub(super) fn requeue<E>(
    from: &FutexKey,
    to: &FutexKey,
    n_wake: u32,
    n_move: u32,
    check: impl FnOnce() -> Result<(), E>,
) -> Result<(u32, u32), E> {
    let mut out = Vec::new();
    let mut moved = Vec::new();
    let (woken, n_moved);
    {
        let mut pair = Pair::lock(from, to);
        check()?;
        woken = take(pair.first(), from, u32::MAX, n_wake, &mut out);
        n_moved = take(pair.first(), from, u32::MAX, n_move, &mut moved);
        for w in moved {
            *w.key.lock() = *to;
            pair.second().push_back(w);
        }
    }
    for w in out {
        w.wake();
    }
    Ok((woken, n_moved))
}

/// FUTEX_WAKE_OP: under both locks `op` changes the second word and says whether its waiters wake too.
pub(super) fn wake_op<E>(
    k1: &FutexKey,
    k2: &FutexKey,
    n1: u32,
    n2: u32,
    op: impl FnOnce() -> Result<bool, E>,
) -> Result<u32, E> {
    let mut out = Vec::new();
    let mut done;
    {
        let mut pair = Pair::lock(k1, k2);
        let second = op()?;
        done = take(pair.first(), k1, u32::MAX, n1, &mut out);
        if second {
            done += take(pair.second(), k2, u32::MAX, n2, &mut out);
        }
    }
    for w in out {
        w.wake();
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(addr: u64) -> FutexKey {
        // An address space of its own, so that tests do not meet.
        FutexKey::Private { mm: 0x7e57_0000, addr }
    }

    fn waiter(addr: u64, bitset: u32) -> Queued {
        enqueue::<()>(Waiter::new(key(addr), bitset, Arc::default()), || Ok(())).unwrap()
    }

    #[test]
    fn first_come_first_woken_and_bitsets_hold() {
        let a = waiter(8, 1);
        let b = waiter(8, 2);
        let c = waiter(8, 3);
        assert_eq!(wake(&key(8), 1, 2), 1);
        assert_eq!((a.0.is_woken(), b.0.is_woken(), c.0.is_woken()), (false, true, false));
        assert_eq!(wake(&key(8), 5, u32::MAX), 2);
        assert_eq!(wake(&key(8), 5, u32::MAX), 0);
    }

    #[test]
    fn the_check_decides_and_a_dropped_waiter_is_gone() {
        assert!(enqueue(Waiter::new(key(16), 1, Arc::default()), || Err(5)).is_err());
        assert_eq!(wake(&key(16), 5, u32::MAX), 0);
        drop(waiter(16, 1));
        assert_eq!(wake(&key(16), 5, u32::MAX), 0);
    }

    #[test]
    fn requeue_wakes_some_and_moves_the_rest() {
        let w: Vec<_> = (0..5).map(|_| waiter(24, 1)).collect();
        assert_eq!(requeue::<()>(&key(24), &key(32), 1, 3, || Ok(())), Ok((1, 3)));
        assert!(w[0].0.is_woken());
        assert_eq!(wake(&key(32), 1, u32::MAX), 1);
        assert!(w[1].0.is_woken());
        assert_eq!(wake(&key(24), 9, u32::MAX), 1);
        assert!(w[4].0.is_woken());
        drop(w);
        assert_eq!(wake(&key(32), 9, u32::MAX), 0, "dropped waiters leave the bucket they were moved to");
    }

    #[test]
    fn wake_op_wakes_the_second_word_only_if_asked() {
        let a = waiter(40, 1);
        let b = waiter(48, 1);
        assert_eq!(wake_op::<()>(&key(40), &key(48), 1, 1, || Ok(false)), Ok(1));
        assert_eq!((a.0.is_woken(), b.0.is_woken()), (true, false));
        assert_eq!(wake_op::<()>(&key(40), &key(48), 1, 1, || Ok(true)), Ok(1));
        assert!(b.0.is_woken());
    }
}
