//! SIOCETHTOOL (linux/ethtool.h): the older way of ethtool(8), and still the only one for statistics, the driver's name,
//! the permanent address, the self-test and firmware.
//!
//! A command is read with the bytes that belong to it ([`request_size`]), answered from them alone ([`answer`]), and its
//! answer written back. `link`: old and new link settings; `flash`: firmware; `features`, `strings`: shared with netlink.

pub mod features;
mod flash;
mod link;
mod params;
pub mod strings;

use super::inet::stack;
use crate::task::Task;
use crate::{Errno, Result};
use net::dev::Dev;
use std::sync::Arc;

const GSET: u32 = 0x01;
const GDRVINFO: u32 = 0x03;
const GMSGLVL: u32 = 0x07;
const SMSGLVL: u32 = 0x08;
const GLINK: u32 = 0x0a;
const GCOALESCE: u32 = 0x0e;
const SCOALESCE: u32 = 0x0f;
const GRINGPARAM: u32 = 0x10;
const SRINGPARAM: u32 = 0x11;
const TEST: u32 = 0x1a;
const GSTRINGS: u32 = 0x1b;
const GSTATS: u32 = 0x1d;
const GPERMADDR: u32 = 0x20;
const FLASHDEV: u32 = 0x33;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const SFEATURES: u32 = 0x3b;
const GCHANNELS: u32 = 0x3c;
const SCHANNELS: u32 = 0x3d;
const GET_TS_INFO: u32 = 0x41;
const GLINKSETTINGS: u32 = 0x4c;
/// Bytes of a name in a set of strings (ETH_GSTRING_LEN).
const GSTRING: usize = 32;
/// Words of 32 features: two.
const FEATURE_WORDS: u32 = 2;
const CAP_NET_ADMIN: u32 = 12;

/// Switches of one offload each: the command that tells, the one that sets, the bits.
const SWITCHES: [(u32, u32, u64); 6] = [
    (0x14, 0x15, 1 << 40),
    (0x16, 0x17, 0b1_1010 | 1 << 35 | 1 << 36),
    (0x18, 0x19, 1 | 1 << 6),
    (0x1e, 0x1f, 0x1d << 16),
    (0x23, 0x24, 1 << 11),
    (0x2b, 0x2c, 1 << 14),
];

/// Bytes of a command that are read, itself included.
fn request_size(cmd: u32) -> usize {
    match cmd {
        SMSGLVL | GSTATS | GPERMADDR | GFEATURES => 8,
        GSTRINGS => 12,
        TEST | GSSET_INFO => 16,
        // Two words of what is to change and its value each.
        SFEATURES => 24,
        SRINGPARAM | SCHANNELS => 36,
        GLINKSETTINGS => 48,
        SCOALESCE => params::COALESCE_SIZE,
        FLASHDEV => flash::SIZE,
        c if SWITCHES.iter().any(|s| s.1 == c) => 8,
        _ => 4,
    }
}

/// Commands that everybody may use.
fn is_harmless(cmd: u32) -> bool {
    matches!(
        cmd,
        GSET | GDRVINFO
            | GMSGLVL
            | GLINK
            | GCOALESCE
            | GRINGPARAM
            | GSTRINGS
            | GSTATS
            | GPERMADDR
            | GSSET_INFO
            | GFEATURES
            | GCHANNELS
            | GET_TS_INFO
            | GLINKSETTINGS
    ) || SWITCHES.iter().any(|s| s.0 == cmd)
}

/// A number of a struct.
fn word(b: &[u8], at: usize) -> Result<u32> {
    b.get(at..).and_then(|b| b.first_chunk::<4>()).map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn text(out: &mut [u8], at: usize, len: usize, s: &str) {
    let n = s.len().min(len - 1);
    if let (Some(room), Some(s)) = (out.get_mut(at..at + n), s.as_bytes().get(..n)) {
        room.copy_from_slice(s);
    }
}

/// One request; `arg` is a `struct ifreq` whose data points at the command.
pub async fn ethtool(cur: &Arc<Task>, arg: u64) -> Result<()> {
    let mm = cur.mm();
    let mut ifr = [0u8; 40];
    mm.copy_from_user(arg, &mut ifr).await?;
    let name = ifr[..16].split(|&b| b == 0).next().unwrap_or(&[]);
    let name = std::str::from_utf8(name).map_err(|_| Errno::ENODEV)?;
    let data = ifr[16..].first_chunk::<8>().map_or(0, |b| u64::from_ne_bytes(*b));
    let dev = stack().devs.by_name(name).ok_or(Errno::ENODEV)?;
    let mut head = [0u8; 4];
    mm.copy_from_user(data, &mut head).await?;
    let cmd = u32::from_ne_bytes(head);
    if !is_harmless(cmd) && !cur.cred().capable(CAP_NET_ADMIN) {
        return Err(Errno::EPERM);
    }
    let mut req = vec![0; request_size(cmd)];
    mm.copy_from_user(data, &mut req).await?;
    if cmd == FLASHDEV {
        return flash::flash(cur, &dev, &req).await;
    }
    mm.copy_to_user(data, &answer(&dev, cmd, &req)?).await
}

/// The bytes to write over the command.
fn answer(dev: &Arc<Dev>, cmd: u32, req: &[u8]) -> Result<Vec<u8>> {
    let ops = dev.drv.ethtool();
    if let Some((get, _, bits)) = SWITCHES.iter().find(|s| s.0 == cmd || s.1 == cmd) {
        if cmd == *get {
            return Ok(bytes(&[cmd, (features::bits(dev).active & bits != 0).into()]));
        }
        return link::switch(dev, *bits, word(req, 4)? != 0).map(|()| req.to_vec());
    }
    match cmd {
        GSET => link::old_settings(dev),
        GLINKSETTINGS => link::settings(dev, req),
        GDRVINFO => driver_info(dev),
        GMSGLVL => Ok(bytes(&[cmd, ops.msglevel()?])),
        SMSGLVL => ops.set_msglevel(word(req, 4)?).map(|()| req.to_vec()),
        GLINK => Ok(bytes(&[cmd, (dev.is_up() && dev.drv.carrier()).into()])),
        GPERMADDR => {
            if word(req, 4)? < 6 {
                return Err(Errno::EINVAL);
            }
            Ok([&bytes(&[cmd, 6])[..], &ops.perm_addr()].concat())
        }
        GCOALESCE => params::coalesce(ops),
        SCOALESCE => params::set_coalesce(ops, req).map(|()| req.to_vec()),
        GRINGPARAM => params::rings(ops),
        SRINGPARAM => params::set_rings(ops, req).map(|()| req.to_vec()),
        GCHANNELS => params::channels(ops),
        SCHANNELS => params::set_channels(ops, req).map(|()| req.to_vec()),
        TEST => self_test(dev, req),
        GSSET_INFO => sset_info(dev, req),
        GSTRINGS => string_set(dev, req),
        GSTATS => {
            let all = ops.stats();
            let mut d = bytes(&[cmd, count(all.len())]);
            d.extend(all.iter().flat_map(|(_, v)| v.to_ne_bytes()));
            Ok(d)
        }
        GFEATURES => {
            let b = features::bits(dev);
            let n = word(req, 4)?.min(FEATURE_WORDS);
            let mut d = bytes(&[cmd, n]);
            for half in 0..n {
                // available, requested, active, never changed
                for v in [b.hw, b.wanted, b.active, features::NEVER_CHANGE] {
                    d.extend_from_slice(&((v >> (32 * half)) as u32).to_ne_bytes());
                }
            }
            Ok(d)
        }
        SFEATURES => {
            if word(req, 4)? != FEATURE_WORDS {
                return Err(Errno::EINVAL);
            }
            let two =
                |at: usize| Ok::<u64, Errno>(u64::from(word(req, at)?) | u64::from(word(req, at + 8)?) << 32);
            features::set(dev, two(8)?, two(12)?);
            Ok(req.to_vec())
        }
        GET_TS_INFO => {
            let mut d = bytes(&[cmd, strings::SOFTWARE_STAMPS, u32::MAX]);
            d.resize(44, 0);
            Ok(d)
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// `struct ethtool_drvinfo`.
fn driver_info(dev: &Dev) -> Result<Vec<u8>> {
    let ops = dev.drv.ethtool();
    let i = ops.driver_info();
    if i.driver.is_empty() {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut d = vec![0u8; 196];
    d[..4].copy_from_slice(&GDRVINFO.to_ne_bytes());
    for (at, s) in [(4, i.driver), (36, &*i.version), (68, &*i.firmware), (100, &*i.bus)] {
        text(&mut d, at, 32, s);
    }
    d[180..184].copy_from_slice(&count(ops.stats().len()).to_ne_bytes());
    d[184..188].copy_from_slice(&count(ops.self_test_names().len()).to_ne_bytes());
    Ok(d)
}

/// `struct ethtool_sset_info`: sizes of the sets whose bits are asked for.
fn sset_info(dev: &Dev, req: &[u8]) -> Result<Vec<u8>> {
    let mask = u64::from(word(req, 8)?) | u64::from(word(req, 12)?) << 32;
    let sizes: Vec<(u32, u32)> = (0..64)
        .filter(|i| mask & (1 << i) != 0)
        .filter_map(|i| Some((i, count(strings::of(Some(dev), i)?.len()))))
        .filter(|(i, n)| *n > 0 || strings::GLOBAL.contains(i))
        .collect();
    let have = sizes.iter().fold(0u64, |m, s| m | 1 << s.0);
    let mut d = bytes(&[GSSET_INFO, 0]);
    d.extend_from_slice(&have.to_ne_bytes());
    d.extend(sizes.iter().flat_map(|s| s.1.to_ne_bytes()));
    Ok(d)
}

/// `struct ethtool_gstrings`.
fn string_set(dev: &Dev, req: &[u8]) -> Result<Vec<u8>> {
    let id = word(req, 4)?;
    let names = strings::of(Some(dev), id).ok_or(Errno::EOPNOTSUPP)?;
    let mut d = bytes(&[GSTRINGS, id, count(names.len())]);
    for name in names {
        let at = d.len();
        d.resize(at + GSTRING, 0);
        text(&mut d, at, GSTRING, &name);
    }
    Ok(d)
}

/// `struct ethtool_test`: flags say how to test, and then whether it failed.
fn self_test(dev: &Dev, req: &[u8]) -> Result<Vec<u8>> {
    const OFFLINE: u32 = 1;
    const FAILED: u32 = 2;
    let ops = dev.drv.ethtool();
    let mut flags = word(req, 4)?;
    let results = ops.self_test(flags & OFFLINE != 0)?;
    if results.iter().any(|t| t.result != 0) {
        flags |= FAILED;
    }
    let mut d = bytes(&[TEST, flags, 0, count(results.len())]);
    d.extend(results.iter().flat_map(|t| t.result.to_ne_bytes()));
    Ok(d)
}
