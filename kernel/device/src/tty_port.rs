//! The far side of a terminal line: bytes in, bytes out. The line discipline is the kernel's.

use klib::waitqueue::WaitQueue;
use uapi::Result;

/// A console or serial line on the host.
pub trait TtyPort: Send + Sync {
    /// Takes up to `buf.len()` bytes that have arrived; `EAGAIN` if there are none, `Ok(0)` after hang-up.
    fn try_read(&self, buf: &mut [u8]) -> Result<usize>;
    /// Queues bytes for output and says how many were taken; `EAGAIN` if none fits now.
    fn try_write(&self, buf: &[u8]) -> Result<usize>;
    /// Woken with POLLIN when input or a hang-up arrives, POLLOUT when space appears, POLLPRI when the window size changed.
    fn wait_queue(&self) -> &WaitQueue;
    /// Columns and rows of the host terminal, if it is one.
    fn winsize(&self) -> Option<(u16, u16)>;
    /// Waits for nothing: hands everything queued to the host (shutdown, panic).
    fn flush_now(&self);
}
