//! A guest address space.

use crate::{Errno, Result};
use std::sync::Arc;
use uapi::pod::{self, Pod};

/// A guest address space, shared by the threads of a process (and by a vfork child).
pub struct Mm {}

impl Mm {
    /// Copies to the guest without sleeping; gives the number of bytes copied before the first page that is missing
    /// or may not be written.
    pub fn try_copy_to_user(&self, _addr: u64, _src: &[u8]) -> usize {
        0
    }

    /// As [`try_copy_to_user`](Self::try_copy_to_user), the other way.
    pub fn try_copy_from_user(&self, _addr: u64, _dst: &mut [u8]) -> usize {
        0
    }

    /// Brings the pages of a range in, for reading or writing. `EFAULT` where the guest may not.
    pub async fn fault_in(&self, _addr: u64, _len: usize, _write: bool) -> Result<()> {
        Err(Errno::EFAULT)
    }

    /// Copies from the guest, bringing pages in as needed.
    pub async fn copy_from_user(&self, addr: u64, dst: &mut [u8]) -> Result<()> {
        let mut done = 0;
        loop {
            done += self.try_copy_from_user(addr.wrapping_add(done as u64), &mut dst[done..]);
            if done == dst.len() {
                return Ok(());
            }
            self.fault_in(addr.wrapping_add(done as u64), 1, false).await?;
        }
    }

    /// Copies to the guest, bringing pages in as needed.
    pub async fn copy_to_user(&self, addr: u64, src: &[u8]) -> Result<()> {
        let mut done = 0;
        loop {
            done += self.try_copy_to_user(addr.wrapping_add(done as u64), &src[done..]);
            if done == src.len() {
                return Ok(());
            }
            self.fault_in(addr.wrapping_add(done as u64), 1, true).await?;
        }
    }

    /// Reads a C struct.
    pub async fn read_obj<T: Pod>(&self, addr: u64) -> Result<T> {
        let mut buf = vec![0u8; size_of::<T>()];
        self.copy_from_user(addr, &mut buf).await?;
        pod::read_from(&buf).ok_or(Errno::EFAULT)
    }

    /// Writes a C struct.
    pub async fn write_obj<T: Pod>(&self, addr: u64, value: &T) -> Result<()> {
        let bytes = pod::bytes_of(value).to_vec();
        self.copy_to_user(addr, &bytes).await
    }

    /// Reads a NUL-terminated string, without the NUL; `ENAMETOOLONG` if none is found in `max` bytes.
    pub async fn read_cstr(&self, addr: u64, max: usize) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut at = addr;
        while out.len() < max {
            let n = (max - out.len()).min(256).min(4096 - (at as usize & 4095));
            let mut buf = [0u8; 256];
            self.copy_from_user(at, &mut buf[..n]).await?;
            if let Some(end) = buf[..n].iter().position(|&b| b == 0) {
                out.extend_from_slice(&buf[..end]);
                return Ok(out);
            }
            out.extend_from_slice(&buf[..n]);
            at = at.wrapping_add(n as u64);
        }
        Err(Errno::ENAMETOOLONG)
    }
}

/// The shape in which `Task` holds its address space.
pub type MmRef = Arc<Mm>;
