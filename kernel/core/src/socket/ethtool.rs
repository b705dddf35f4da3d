//! SIOCETHTOOL (linux/ethtool.h): what programs ask for when the netlink family `ethtool` is not there.

use super::inet::stack;
use super::msg::first_int;
use crate::task::Task;
use crate::{Errno, Result};
use net::Features;
use net::dev::Dev;
use std::sync::Arc;

const GDRVINFO: u32 = 0x03;
const GLINK: u32 = 0x0a;
const GRXCSUM: u32 = 0x14;
const GTXCSUM: u32 = 0x16;
const GSG: u32 = 0x18;
const GSTRINGS: u32 = 0x1b;
const GSTATS: u32 = 0x1d;
const GTSO: u32 = 0x1e;
const GPERMADDR: u32 = 0x20;
const GGSO: u32 = 0x23;
const GGRO: u32 = 0x2b;
const GSSET_INFO: u32 = 0x37;
/// The set of strings that names statistics.
const ETH_SS_STATS: u32 = 1;
/// Bytes of a name in a set of strings (ETH_GSTRING_LEN).
const GSTRING: usize = 32;

fn text(out: &mut [u8], at: usize, len: usize, s: &str) {
    let n = s.len().min(len - 1);
    if let Some(room) = out.get_mut(at..at + n) {
        room.copy_from_slice(&s.as_bytes()[..n]);
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
    let mut head = [0u8; 16];
    mm.copy_from_user(data, &mut head[..4]).await?;
    let cmd = first_int(&head)?.cast_unsigned();
    if matches!(cmd, GSTRINGS | GSTATS | GPERMADDR) {
        mm.copy_from_user(data, &mut head[..12]).await?;
    } else if cmd == GSSET_INFO {
        mm.copy_from_user(data, &mut head).await?;
    }
    mm.copy_to_user(data, &answer(&dev, cmd, &head)?).await
}

fn value(cmd: u32, v: u32) -> Vec<u8> {
    [cmd, v].iter().flat_map(|w| w.to_ne_bytes()).collect()
}

fn answer(dev: &Dev, cmd: u32, head: &[u8; 16]) -> Result<Vec<u8>> {
    let word = |at: usize| first_int(head.get(at..).unwrap_or(&[])).map(i32::cast_unsigned);
    let f = dev.drv.features();
    let has = |bits: Features| Ok(value(cmd, f.intersects(bits).into()));
    let stats = || dev.drv.ethtool_stats();
    match cmd {
        GDRVINFO => {
            let driver = dev.drv.driver_name();
            if driver.is_empty() {
                return Err(Errno::EOPNOTSUPP);
            }
            let mut d = vec![0u8; 196];
            d[..4].copy_from_slice(&cmd.to_ne_bytes());
            text(&mut d, 4, 32, driver);
            text(&mut d, 36, 32, env!("CARGO_PKG_VERSION"));
            let n = u32::try_from(stats().len()).unwrap_or(0);
            d[180..184].copy_from_slice(&n.to_ne_bytes());
            Ok(d)
        }
        GLINK => Ok(value(cmd, (dev.is_up() && dev.drv.carrier()).into())),
        GRXCSUM => has(Features::RXCSUM),
        GTXCSUM => has(Features::HW_CSUM),
        GSG => has(Features::SG),
        GTSO => has(Features::TSO4 | Features::TSO6),
        // Segments are cut, and merged, in software wherever the device does not.
        GGSO => Ok(value(cmd, 1)),
        GGRO => has(Features::GRO | Features::LRO),
        GPERMADDR => {
            let room = usize::try_from(word(4)?).unwrap_or(0);
            if room < 6 {
                return Err(Errno::EINVAL);
            }
            Ok([&cmd.to_ne_bytes()[..], &6u32.to_ne_bytes(), &dev.drv.mac()].concat())
        }
        GSSET_INFO => {
            let mask = u64::from(word(8)?) | u64::from(word(12)?) << 32;
            let n = u32::try_from(stats().len()).unwrap_or(0);
            let have = mask & (1 << ETH_SS_STATS);
            let mut d = [cmd.to_ne_bytes(), [0; 4]].concat();
            d.extend_from_slice(&have.to_ne_bytes());
            if have != 0 {
                d.extend_from_slice(&n.to_ne_bytes());
            }
            Ok(d)
        }
        GSTRINGS => {
            if word(4)? != ETH_SS_STATS {
                return Err(Errno::EOPNOTSUPP);
            }
            let names = stats();
            let n = u32::try_from(names.len()).unwrap_or(0);
            let mut d: Vec<u8> = [cmd, ETH_SS_STATS, n].iter().flat_map(|w| w.to_ne_bytes()).collect();
            for (name, _) in names {
                let at = d.len();
                d.resize(at + GSTRING, 0);
                text(&mut d, at, GSTRING, name);
            }
            Ok(d)
        }
        GSTATS => {
            let all = stats();
            let mut d = value(cmd, u32::try_from(all.len()).unwrap_or(0));
            d.extend(all.iter().flat_map(|(_, v)| v.to_ne_bytes()));
            Ok(d)
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}
