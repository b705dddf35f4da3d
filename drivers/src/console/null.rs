//! The line that leads nowhere: output is discarded, input never comes.

use device::tty_port::TtyPort;
use klib::waitqueue::WaitQueue;
use uapi::{Errno, Result};

/// The `null` channel.
#[derive(Default)]
pub struct NullPort {
    queue: WaitQueue,
}

impl TtyPort for NullPort {
    fn try_read(&self, _buf: &mut [u8]) -> Result<usize> {
        Err(Errno::EAGAIN)
    }

    fn try_write(&self, buf: &[u8]) -> Result<usize> {
        Ok(buf.len())
    }

    fn wait_queue(&self) -> &WaitQueue {
        &self.queue
    }

    fn winsize(&self) -> Option<(u16, u16)> {
        None
    }

    fn flush_now(&self) {}
}
