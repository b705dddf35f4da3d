//! Rings, queues and coalescing by ioctl: structs of numbers at fixed places (linux/ethtool.h).

use super::{GCHANNELS, GCOALESCE, GRINGPARAM, bytes, word};
use crate::{Errno, Result};
use net::dev::EthtoolOps;
use net::dev::ethtool::{ChannelParams, Coalesce, RingParams};

/// Bytes of `struct ethtool_coalesce`.
pub const COALESCE_SIZE: usize = 92;
/// Words of it that we know: rx-usecs, rx-frames, tx-usecs, tx-frames.
const KNOWN: [usize; 4] = [1, 2, 5, 6];

/// `struct ethtool_ringparam`.
pub fn rings(ops: &dyn EthtoolOps) -> Result<Vec<u8>> {
    let p = ops.rings()?;
    Ok(bytes(&[GRINGPARAM, p.rx_max, 0, 0, p.tx_max, p.rx, 0, 0, p.tx]))
}

/// ETHTOOL_SRINGPARAM.
pub fn set_rings(ops: &dyn EthtoolOps, req: &[u8]) -> Result<()> {
    let old = ops.rings()?;
    let new = RingParams { rx: word(req, 20)?, tx: word(req, 32)?, ..old };
    if new.rx > old.rx_max || new.tx > old.tx_max || word(req, 24)? != 0 || word(req, 28)? != 0 {
        return Err(Errno::EINVAL);
    }
    if (new.rx == 0 && old.rx_max > 0) || (new.tx == 0 && old.tx_max > 0) {
        return Err(Errno::EINVAL);
    }
    ops.set_rings(&new)
}

/// `struct ethtool_channels`.
pub fn channels(ops: &dyn EthtoolOps) -> Result<Vec<u8>> {
    let p = ops.channels()?;
    Ok(bytes(&[GCHANNELS, p.rx_max, p.tx_max, 0, p.combined_max, p.rx, p.tx, 0, p.combined]))
}

/// ETHTOOL_SCHANNELS.
pub fn set_channels(ops: &dyn EthtoolOps, req: &[u8]) -> Result<()> {
    let old = ops.channels()?;
    let new = ChannelParams { rx: word(req, 20)?, tx: word(req, 24)?, combined: word(req, 32)?, ..old };
    let bound = new.rx <= old.rx_max && new.tx <= old.tx_max && new.combined <= old.combined_max;
    let works = new.combined > 0 || (new.rx > 0 && new.tx > 0);
    if !bound || !works || word(req, 28)? != 0 {
        return Err(Errno::EINVAL);
    }
    ops.set_channels(&new)
}

/// `struct ethtool_coalesce`.
pub fn coalesce(ops: &dyn EthtoolOps) -> Result<Vec<u8>> {
    let c = ops.coalesce()?;
    let mut words = [0; COALESCE_SIZE / 4];
    words[0] = GCOALESCE;
    for (at, v) in KNOWN.into_iter().zip([c.rx_usecs, c.rx_frames, c.tx_usecs, c.tx_frames]) {
        words[at] = v.unwrap_or(0);
    }
    Ok(bytes(&words))
}

/// ETHTOOL_SCOALESCE.
pub fn set_coalesce(ops: &dyn EthtoolOps, req: &[u8]) -> Result<()> {
    let old = ops.coalesce()?;
    for at in (1..COALESCE_SIZE / 4).filter(|at| !KNOWN.contains(at)) {
        if word(req, at * 4)? != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
    }
    let take = |old: Option<u32>, at: usize| {
        let v = word(req, at * 4)?;
        match old {
            None if v != 0 => Err(Errno::EOPNOTSUPP),
            o => Ok(o.map(|_| v)),
        }
    };
    ops.set_coalesce(&Coalesce {
        rx_usecs: take(old.rx_usecs, KNOWN[0])?,
        rx_frames: take(old.rx_frames, KNOWN[1])?,
        tx_usecs: take(old.tx_usecs, KNOWN[2])?,
        tx_frames: take(old.tx_frames, KNOWN[3])?,
    })
}
