//! signalfd(2): pending signals of the reader as records.
//! DIFFERS: poll(2) looks at the process that made the descriptor, whoever asks.

use super::file::{File, FileOps};
use super::iov::{IovIter, copy_whole};
use super::poll::{self, PollTable};
use crate::signal::{SigInfo, SigSet};
use crate::task::Task;
use crate::{Errno, Result};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// Bytes of struct signalfd_siginfo.
const RECORD: usize = 128;

/// Signals to be read instead of delivered.
pub struct SignalFd {
    mask: Mutex<SigSet>,
    maker: Weak<Task>,
}

impl SignalFd {
    /// For the signals of `mask`.
    pub fn new(maker: &Arc<Task>, mask: SigSet) -> Arc<Self> {
        Arc::new(Self { mask: Mutex::new(mask), maker: Arc::downgrade(maker) })
    }

    /// signalfd(2) on an old descriptor: another mask.
    pub fn set_mask(&self, cur: &Task, mask: SigSet) {
        *self.mask.lock() = mask;
        cur.group.signalfd_wait.wake(poll::IN);
    }
}

/// struct signalfd_siginfo.
fn record(s: &SigInfo) -> [u8; RECORD] {
    let mut r = [0u8; RECORD];
    let mut put = |at: usize, b: &[u8]| r[at..at + b.len()].copy_from_slice(b);
    put(0, &s.signo.to_ne_bytes());
    put(4, &s.errno.to_ne_bytes());
    put(8, &s.code.to_ne_bytes());
    put(12, &s.pid().to_ne_bytes());
    put(16, &s.uid().to_ne_bytes());
    put(40, &s.status().to_ne_bytes());
    let value = s.value();
    put(44, &value.to_ne_bytes()[..4]);
    put(48, &value.to_ne_bytes());
    let (utime, stime) = s.child_times();
    put(56, &utime.to_ne_bytes());
    put(64, &stime.to_ne_bytes());
    r
}

impl FileOps for SignalFd {
    fn try_read_as(&self, cur: &Task, _file: &File, _pos: u64, to: &mut IovIter<'_>) -> Result<usize> {
        if to.remaining() < RECORD {
            return Err(Errno::EINVAL);
        }
        let mask = *self.mask.lock();
        let mut done = 0;
        while to.remaining() >= RECORD {
            // A signal once taken cannot be put back: the place for it is tried first.
            let mark = to.done();
            match copy_whole(to, &[0; RECORD]) {
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
                Ok(()) => to.rewind(mark),
            }
            let Some(info) = cur.dequeue_signal(mask) else { break };
            copy_whole(to, &record(&info))?;
            done += RECORD;
        }
        if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }

    fn poll(&self, _file: &File, table: &mut PollTable) -> u32 {
        let Some(t) = self.maker.upgrade() else { return 0 };
        table.register(&t.group.signalfd_wait, poll::IN);
        if t.all_pending().and(*self.mask.lock()).is_empty() { 0 } else { poll::IN }
    }
}
