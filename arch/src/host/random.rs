//! Random bytes from the host's generator (random(4)).

use std::fs::File;
use std::io::Read;
use std::sync::OnceLock;
use uapi::{Errno, Result};

/// Fills `buf` with random bytes.
pub fn fill(buf: &mut [u8]) -> Result<()> {
    static DEV: OnceLock<Option<File>> = OnceLock::new();
    let dev = DEV.get_or_init(|| File::open("/dev/urandom").ok());
    let mut dev = dev.as_ref().ok_or(Errno::EIO)?;
    dev.read_exact(buf).map_err(|e| super::from_io(&e))
}
