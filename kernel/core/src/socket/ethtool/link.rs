//! Link settings by ioctl, in the old form and the new one, and the old switches of single offloads.

use super::{GLINKSETTINGS, GSET, bytes, features};
use crate::{Errno, Result};
use net::dev::Dev;
use std::sync::Arc;

/// Words of a mask of link modes (102 of them).
const MODE_WORDS: i8 = 4;

/// `struct ethtool_cmd`.
pub fn old_settings(dev: &Dev) -> Result<Vec<u8>> {
    let l = dev.drv.ethtool().link_settings()?;
    let speed = l.speed.unwrap_or(u32::MAX);
    let mut d = vec![0; 44];
    d[..4].copy_from_slice(&GSET.to_ne_bytes());
    d[12..14].copy_from_slice(&(speed as u16).to_ne_bytes());
    d[14] = l.duplex as u8;
    d[15] = l.port;
    d[18] = l.autoneg.into();
    d[28..30].copy_from_slice(&((speed >> 16) as u16).to_ne_bytes());
    Ok(d)
}

/// `struct ethtool_link_settings`. Whoever does not know how many words a mask has is told so with a negative number.
pub fn settings(dev: &Dev, req: &[u8]) -> Result<Vec<u8>> {
    let l = dev.drv.ethtool().link_settings()?;
    let n = req.get(15).copied().unwrap_or(0).cast_signed();
    let mut d = vec![0; 48];
    d[..4].copy_from_slice(&GLINKSETTINGS.to_ne_bytes());
    if n != MODE_WORDS {
        d[15] = (-MODE_WORDS).cast_unsigned();
        return Ok(d);
    }
    d[4..8].copy_from_slice(&l.speed.unwrap_or(u32::MAX).to_ne_bytes());
    d[8] = l.duplex as u8;
    d[9] = l.port;
    d[11] = l.autoneg.into();
    d[15] = MODE_WORDS.cast_unsigned();
    // Supported, advertised, of the peer: none.
    d.extend(bytes(&[0; 3 * MODE_WORDS as usize]));
    Ok(d)
}

/// ETHTOOL_S* of one offload: refused if nothing of it can be switched.
pub fn switch(dev: &Arc<Dev>, bits: u64, on: bool) -> Result<()> {
    let b = features::bits(dev);
    let can = bits & b.hw;
    if can == 0 {
        return if (b.active & bits != 0) == on { Ok(()) } else { Err(Errno::EOPNOTSUPP) };
    }
    features::set(dev, can, if on { can } else { 0 });
    Ok(())
}
