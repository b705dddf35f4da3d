//! eventfd(2): a counter to wait on.

use super::file::{File, FileOps};
use super::iov::IovIter;
use super::poll::{self, PollTable};
use crate::{Errno, Result};
use klib::waitqueue::WaitQueue;
use parking_lot::Mutex;
use std::sync::Arc;

/// The counter.
pub struct EventFd {
    count: Mutex<u64>,
    semaphore: bool,
    wait: WaitQueue,
}

impl EventFd {
    /// A counter that starts at `count`; `semaphore`: reads take one at a time.
    pub fn new(count: u64, semaphore: bool) -> Arc<Self> {
        Arc::new(Self { count: Mutex::new(count), semaphore, wait: WaitQueue::new() })
    }
}

impl FileOps for EventFd {
    fn try_read(&self, _file: &File, _pos: u64, to: &mut IovIter<'_>) -> Result<usize> {
        if to.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        {
            let mut n = self.count.lock();
            if *n == 0 {
                return Err(Errno::EAGAIN);
            }
            let give = if self.semaphore { 1 } else { *n };
            super::iov::copy_whole(to, &give.to_ne_bytes())?;
            *n -= give;
        }
        self.wait.wake(poll::OUT);
        Ok(8)
    }

    fn try_write(&self, _file: &File, _pos: u64, from: &mut IovIter<'_>) -> Result<usize> {
        if from.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        {
            let mut n = self.count.lock();
            let mark = from.done();
            let mut b = [0u8; 8];
            if from.copy_from(&mut b)? < 8 {
                from.rewind(mark);
                return Err(Errno::EFAULT);
            }
            let add = u64::from_ne_bytes(b);
            if add == u64::MAX {
                return Err(Errno::EINVAL);
            }
            if u64::MAX - 1 - *n < add {
                from.rewind(mark);
                return Err(Errno::EAGAIN);
            }
            *n += add;
        }
        self.wait.wake(poll::IN);
        Ok(8)
    }

    fn poll(&self, _file: &File, table: &mut PollTable) -> u32 {
        table.register(&self.wait, poll::IN | poll::OUT);
        let n = *self.count.lock();
        let mut ready = 0;
        if n > 0 {
            ready |= poll::IN;
        }
        if n < u64::MAX - 1 {
            ready |= poll::OUT;
        }
        ready
    }

    fn show_fdinfo(&self, _file: &File) -> String {
        format!("eventfd-count: {:16x}\n", *self.count.lock())
    }
}
