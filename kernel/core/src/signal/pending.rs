//! Pending signals: one of each standard signal, any number of real-time ones, with their information.

use super::siginfo::SigInfo;
use super::sigset::{SIGRTMIN, SigSet};
use std::collections::VecDeque;

/// A set of pending signals, of a thread or of a process.
#[derive(Default)]
pub struct SigPending {
    set: SigSet,
    queue: VecDeque<SigInfo>,
}

impl SigPending {
    /// Which signals are pending.
    pub fn set(&self) -> SigSet {
        self.set
    }

    /// Queued infos (RLIMIT_SIGPENDING counts them).
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// True if nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Adds a signal with its information. A standard signal that is pending already is dropped (`false`).
    pub fn push(&mut self, info: SigInfo) -> bool {
        if info.signo < SIGRTMIN && self.set.has(info.signo) {
            return false;
        }
        self.set.add(info.signo);
        self.queue.push_back(info);
        true
    }

    /// Adds a signal whose information could not be queued: only its number is remembered.
    pub fn push_bare(&mut self, sig: i32) {
        self.set.add(sig);
    }

    /// Takes the next signal of `mask`, in the order of signal(7).
    pub fn take(&mut self, mask: SigSet) -> Option<SigInfo> {
        let sig = self.set.and(mask).first()?;
        self.take_signal(sig)
    }

    /// The number of the signal that [`take`](Self::take) would give.
    pub fn peek(&self, mask: SigSet) -> Option<i32> {
        self.set.and(mask).first()
    }

    fn take_signal(&mut self, sig: i32) -> Option<SigInfo> {
        if !self.set.has(sig) {
            return None;
        }
        let at = self.queue.iter().position(|i| i.signo == sig);
        let info = at.and_then(|i| self.queue.remove(i));
        if !self.queue.iter().any(|i| i.signo == sig) {
            self.set.remove(sig);
        }
        // Without information the guest sees what Linux gives then: SI_USER from nobody.
        Some(info.unwrap_or(SigInfo::new(sig, 0)))
    }

    /// Forgets all pending signals of `mask`.
    pub fn discard(&mut self, mask: SigSet) {
        if !self.set.and(mask).is_empty() {
            self.set = self.set.minus(mask);
            self.queue.retain(|i| !mask.has(i.signo));
        }
    }

    /// True if an information for which `f` holds is queued.
    pub fn any(&self, f: impl FnMut(&SigInfo) -> bool) -> bool {
        self.queue.iter().any(f)
    }

    /// Forgets the queued informations for which `f` holds.
    pub fn discard_if(&mut self, mut f: impl FnMut(&SigInfo) -> bool) {
        let gone: SigSet =
            SigSet(self.queue.iter().filter(|i| f(i)).fold(0, |m, i| m | SigSet::of(i.signo).0));
        if gone.is_empty() {
            return;
        }
        self.queue.retain(|i| !f(i));
        let left = SigSet(self.queue.iter().fold(0, |m, i| m | SigSet::of(i.signo).0));
        self.set = self.set.minus(gone.minus(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_signals_are_kept_once_and_real_time_ones_queue() {
        let mut p = SigPending::default();
        assert!(p.push(SigInfo::user(10, 0, 1, 0)));
        assert!(!p.push(SigInfo::user(10, 0, 2, 0)));
        assert!(p.push(SigInfo::user(40, -1, 3, 0)));
        assert!(p.push(SigInfo::user(40, -1, 4, 0)));
        assert!(p.push(SigInfo::user(35, -1, 5, 0)));
        assert_eq!(p.take(SigSet::ALL).map(|i| (i.signo, i.pid())), Some((10, 1)));
        assert_eq!(p.take(SigSet::ALL).map(|i| (i.signo, i.pid())), Some((35, 5)));
        assert_eq!(p.take(SigSet::ALL).map(|i| (i.signo, i.pid())), Some((40, 3)));
        assert!(p.set().has(40));
        assert_eq!(p.take(SigSet::ALL).map(|i| (i.signo, i.pid())), Some((40, 4)));
        assert!(p.is_empty());
        assert_eq!(p.take(SigSet::ALL), None);
    }

    #[test]
    fn synchronous_signals_come_first_and_masks_hold() {
        let mut p = SigPending::default();
        p.push(SigInfo::kernel(1));
        p.push(SigInfo::fault(11, 1, 0x1000));
        assert_eq!(p.take(SigSet::of(15)), None);
        assert_eq!(p.take(SigSet::ALL).map(|i| (i.signo, i.addr())), Some((11, 0x1000)));
        p.push_bare(3);
        p.discard(SigSet::of(1));
        assert_eq!(p.take(SigSet::ALL).map(|i| (i.signo, i.code)), Some((3, 0)));
        assert!(p.is_empty());
    }
}
