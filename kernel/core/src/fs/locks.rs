//! Advisory locks: flock(2), POSIX and open file description locks of fcntl(2).
//!
//! A list of intervals an inode; waiters sleep on one queue and look again after every release.
//! DIFFERS: no EDEADLK; a deadlock of two lockers is ended by a signal.

use crate::task::Task;
use crate::{Errno, Result};
use klib::waitqueue::WaitQueue;
use parking_lot::Mutex;

/// Who holds a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A process, by its descriptor table.
    Posix(u64),
    /// An open file (F_OFD_SETLK).
    Ofd(u64),
}

/// One locked range, ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Last byte; `u64::MAX` for "to the end, however far it moves".
    pub end: u64,
    /// Exclusive.
    pub write: bool,
    /// Holder.
    pub owner: Owner,
    /// Process that set it, for F_GETLK.
    pub pid: u32,
}

#[derive(Default)]
struct Inner {
    ranges: Vec<Range>,
    /// flock(2) holders: open file and whether exclusive.
    flocks: Vec<(u64, bool)>,
}

/// Locks of an inode.
#[derive(Default)]
pub struct FileLocks {
    inner: Mutex<Inner>,
    queue: WaitQueue,
}

/// Ranges that one file may carry.
const MAX_RANGES: usize = 65_536;

impl FileLocks {
    fn conflict(ranges: &[Range], new: &Range) -> Option<Range> {
        ranges
            .iter()
            .find(|r| {
                r.owner != new.owner && r.start <= new.end && new.start <= r.end && (r.write || new.write)
            })
            .copied()
    }

    /// F_GETLK: the first lock in the way.
    pub fn test(&self, new: &Range) -> Option<Range> {
        Self::conflict(&self.inner.lock().ranges, new)
    }

    /// Cuts `new`'s range out of what its owner holds.
    fn cut(ranges: &mut Vec<Range>, new: &Range) {
        let mut out = Vec::with_capacity(ranges.len() + 1);
        for r in ranges.drain(..) {
            if r.owner != new.owner || r.end < new.start || new.end < r.start {
                out.push(r);
                continue;
            }
            if r.start < new.start {
                out.push(Range { end: new.start - 1, ..r });
            }
            if r.end > new.end {
                out.push(Range { start: new.end + 1, ..r });
            }
        }
        *ranges = out;
    }

    /// F_SETLK: `EAGAIN` if another holds a part.
    pub fn try_lock(&self, new: &Range) -> Result<()> {
        let mut i = self.inner.lock();
        if Self::conflict(&i.ranges, new).is_some() {
            return Err(Errno::EAGAIN);
        }
        if i.ranges.len() >= MAX_RANGES {
            return Err(Errno::ENOLCK);
        }
        let before = i.ranges.iter().any(|r| r.owner == new.owner && r.write);
        Self::cut(&mut i.ranges, new);
        // Neighbours of the same kind become one, so that a file locked record by record does not grow a list.
        let mut merged = *new;
        i.ranges.retain(|r| {
            let touches = r.owner == new.owner
                && r.write == new.write
                && r.start <= merged.end.saturating_add(1)
                && merged.start <= r.end.saturating_add(1);
            if touches {
                merged.start = merged.start.min(r.start);
                merged.end = merged.end.max(r.end);
            }
            !touches
        });
        i.ranges.push(merged);
        drop(i);
        if before {
            self.queue.wake_all();
        }
        Ok(())
    }

    /// F_SETLKW.
    pub async fn lock(&self, cur: &Task, new: &Range) -> Result<()> {
        cur.wait_event(None, |table| {
            table.register(&self.queue, u32::MAX);
            match self.try_lock(new) {
                Err(Errno::EAGAIN) => None,
                r => Some(r),
            }
        })
        .await?
    }

    /// F_UNLCK.
    pub fn unlock(&self, range: &Range) {
        Self::cut(&mut self.inner.lock().ranges, range);
        self.queue.wake_all();
    }

    /// Everything an owner holds goes (close(2), exit).
    pub fn release(&self, owner: Owner) {
        let mut i = self.inner.lock();
        let before = i.ranges.len();
        i.ranges.retain(|r| r.owner != owner);
        let gone = before != i.ranges.len();
        drop(i);
        if gone {
            self.queue.wake_all();
        }
    }

    /// flock(2), not waiting. A change of kind lets go of the old lock first, as Linux does.
    pub fn try_flock(&self, file: u64, exclusive: bool) -> Result<()> {
        let mut i = self.inner.lock();
        let had = i.flocks.len();
        i.flocks.retain(|&(f, x)| f != file || x == exclusive);
        let lost = i.flocks.len() != had;
        let r = if i.flocks.iter().any(|&(f, x)| f == file && x == exclusive) {
            Ok(())
        } else if i.flocks.iter().any(|&(_, x)| x || exclusive) {
            Err(Errno::EAGAIN)
        } else {
            i.flocks.push((file, exclusive));
            Ok(())
        };
        drop(i);
        if lost {
            self.queue.wake_all();
        }
        r
    }

    /// flock(2), waiting.
    pub async fn flock(&self, cur: &Task, file: u64, exclusive: bool) -> Result<()> {
        cur.wait_event(None, |table| {
            table.register(&self.queue, u32::MAX);
            match self.try_flock(file, exclusive) {
                Err(Errno::EAGAIN) => None,
                r => Some(r),
            }
        })
        .await?
    }

    /// LOCK_UN, and the end of an open file.
    pub fn unflock(&self, file: u64) {
        let mut i = self.inner.lock();
        let before = i.flocks.len();
        i.flocks.retain(|&(f, _)| f != file);
        let gone = before != i.flocks.len();
        drop(i);
        if gone {
            self.queue.wake_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(start: u64, end: u64, write: bool, who: u64) -> Range {
        Range { start, end, write, owner: Owner::Posix(who), pid: 1 }
    }

    #[test]
    fn ranges_split_and_merge() {
        let l = FileLocks::default();
        l.try_lock(&r(0, 99, true, 1)).unwrap();
        assert_eq!(l.try_lock(&r(50, 60, false, 2)), Err(Errno::EAGAIN));
        l.unlock(&r(50, 60, true, 1));
        l.try_lock(&r(50, 60, false, 2)).unwrap();
        assert_eq!(l.inner.lock().ranges.len(), 3);
        assert_eq!(l.test(&r(0, u64::MAX, true, 3)).map(|x| x.owner), Some(Owner::Posix(1)));
        l.release(Owner::Posix(2));
        l.try_lock(&r(50, 60, true, 1)).unwrap();
        assert_eq!(l.inner.lock().ranges, vec![r(0, 99, true, 1)]);
    }

    #[test]
    fn flock_shares_and_excludes() {
        let l = FileLocks::default();
        l.try_flock(1, false).unwrap();
        l.try_flock(2, false).unwrap();
        assert_eq!(l.try_flock(3, true), Err(Errno::EAGAIN));
        l.unflock(1);
        l.try_flock(2, true).unwrap();
        assert_eq!(l.try_flock(1, false), Err(Errno::EAGAIN));
    }
}
