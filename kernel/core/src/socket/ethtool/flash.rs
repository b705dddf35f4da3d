//! ETHTOOL_FLASHDEV: a file found as Linux finds firmware, handed to the device.

use crate::fs::iov::IovIter;
use crate::fs::open::open_kernel;
use crate::task::Task;
use crate::{Errno, Result};
use net::dev::Dev;
use std::sync::Arc;
use uapi::raw::general as c;

/// Bytes of `struct ethtool_flash`.
pub const SIZE: usize = 136;
/// Where firmware is looked for.
const DIRS: [&str; 2] = ["/lib/firmware/updates/", "/lib/firmware/"];
/// Largest file: no filter program is nearly as long.
const MAX_IMAGE: usize = 1 << 20;

/// Finds the file that the request names, reads it, and gives it to the device.
pub async fn flash(cur: &Arc<Task>, dev: &Dev, req: &[u8]) -> Result<()> {
    let name = req.get(8..SIZE).ok_or(Errno::EINVAL)?.split(|b| *b == 0).next().unwrap_or(&[]);
    let name = std::str::from_utf8(name).map_err(|_| Errno::EINVAL)?;
    if let Err(e) = dev.drv.ethtool().flash_allowed() {
        if e == Errno::EPERM {
            log::error!(target: "vector", "{}: loading firmware not permitted: {name}", dev.name());
        }
        return Err(e);
    }
    // Names are relative to the directories, and stay below them.
    if name.is_empty() || name.starts_with('/') || name.split('/').any(|p| p == "..") {
        return Err(Errno::EINVAL);
    }
    let image = load(cur, name).await?;
    dev.drv.ethtool().flash(&image)
}

async fn load(cur: &Arc<Task>, name: &str) -> Result<Vec<u8>> {
    for dir in DIRS {
        let path = format!("{dir}{name}");
        let file = match open_kernel(cur, path.as_bytes(), c::O_RDONLY).await {
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            f => f?,
        };
        if !file.inode.is_regular() {
            return Err(Errno::EINVAL);
        }
        let mut image = Vec::new();
        let mut part = vec![0; 64 << 10];
        loop {
            let n = file.read(cur, Some(image.len() as u64), &mut IovIter::kernel_dst(&mut part)).await?;
            image.extend_from_slice(part.get(..n).unwrap_or(&[]));
            if n == 0 {
                return Ok(image);
            }
            if image.len() > MAX_IMAGE {
                return Err(Errno::EFBIG);
            }
        }
    }
    Err(Errno::ENOENT)
}
