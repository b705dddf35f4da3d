//! Block devices: what `ubd` offers and the file systems stand on.

use crate::BoxFuture;
use uapi::Result;

/// A disk. Offsets and lengths are bytes, multiples of [`sector_size`](Self::sector_size).
///
/// Data moves in buffers that the operation owns, because the host may touch them until it completes, whatever
/// becomes of the future that asked.
pub trait BlockDevice: Send + Sync {
    /// Kernel name, for example `ubda`.
    fn name(&self) -> &str;
    /// Size of the disk in bytes.
    fn size(&self) -> u64;
    /// Smallest unit of a request: 512.
    fn sector_size(&self) -> u32 {
        512
    }
    /// True if writes are refused.
    fn read_only(&self) -> bool;
    /// Reads `len` bytes at `offset`. Past the end of a host file that is shorter than the disk: zeros.
    fn read(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Vec<u8>>>;
    /// Reads straight into guest frames: `len` bytes at `offset` of the disk to byte `mem` of the memory file.
    /// The caller holds the frames until the future is done, and awaits it to the end: if it is dropped, the host may
    /// still write to the frames for a while (do page-ins in a task of their own, not in one that a signal may end).
    fn read_frames(&self, offset: u64, len: usize, mem: u64) -> BoxFuture<'_, Result<()>>;
    /// Writes `data` at `offset`.
    fn write(&self, offset: u64, data: Vec<u8>) -> BoxFuture<'_, Result<()>>;
    /// Makes all completed writes durable.
    fn flush(&self) -> BoxFuture<'_, Result<()>>;
}
