//! `root=`: the disk of the root file system.

use super::{number, ubd};
use std::fmt;

/// Minors of a disk: the disk itself and 15 partitions.
const MINORS: u64 = 16;
/// Major number of ubd.
const MAJOR: u64 = 98;

/// A disk or a partition of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootDev {
    /// 0 to 15: ubda to ubdp.
    pub unit: u8,
    /// 0: the whole disk.
    pub partition: u8,
}

/// The name under /dev: `/dev/ubda`.
impl fmt::Display for RootDev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/dev/ubd{}", char::from(b'a' + self.unit % 26))?;
        if self.partition > 0 { write!(f, "{}", self.partition) } else { Ok(()) }
    }
}

/// What `root=` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// A disk.
    Dev(RootDev),
    /// `/dev/root`: the default one.
    Default,
    /// `/dev/ram0`, `none`: no disk.
    Initramfs,
}

const EXPECTED: &str = "expected /dev/ubda to /dev/ubdp (or /dev/ubd0, 98:0, 6200)";

/// Parses the value. `Err` says what is wrong and what was expected.
pub(super) fn parse(value: &str) -> Result<Root, String> {
    let name = value.strip_prefix("/dev/").unwrap_or(value);
    match name {
        "root" => return Ok(Root::Default),
        "none" | "ram" | "ram0" => return Ok(Root::Initramfs),
        "" => return Err(format!("no device given; {EXPECTED}")),
        "nfs" | "cifs" => return Err(format!("root over the network is not supported; {EXPECTED}")),
        _ => {}
    }
    if ["LABEL=", "UUID=", "PARTUUID=", "PARTLABEL=", "/dev/disk/"].iter().any(|p| value.starts_with(p)) {
        return Err(format!("disks by label or id are not yet supported; {EXPECTED}"));
    }
    if let Some(rest) = name.strip_prefix("ubd") {
        // ubd0 and ubd/0 are what devices are called on the command line and in old systems.
        return disk(rest.strip_prefix('/').unwrap_or(rest)).map(Root::Dev);
    }
    if let Some((major, minor)) = name.split_once(':') {
        let (Ok(major), Ok(minor)) = (major.parse::<u64>(), minor.parse::<u64>()) else {
            return Err(format!("not MAJOR:MINOR; {EXPECTED}"));
        };
        return number(major, minor);
    }
    if value.starts_with("/dev/") {
        return Err(format!("no such device here; {EXPECTED}"));
    }
    let hex = name.strip_prefix("0x").unwrap_or(name);
    match u64::from_str_radix(hex, 16) {
        Ok(dev) if dev < 1 << 16 => number(dev >> 8, dev & 0xff),
        _ => Err(format!("not a device; {EXPECTED}")),
    }
}

fn number(major: u64, minor: u64) -> Result<Root, String> {
    match (u8::try_from(minor / MINORS), u8::try_from(minor % MINORS)) {
        (Ok(unit), Ok(partition)) if major == MAJOR && u64::from(unit) < ubd::UNITS => {
            whole(RootDev { unit, partition }).map(Root::Dev)
        }
        _ => Err(format!("device {major}:{minor} is not a disk of ours; {EXPECTED}")),
    }
}

fn disk(rest: &str) -> Result<RootDev, String> {
    let letter = rest.starts_with(|c: char| c.is_ascii_lowercase());
    let (unit, partition) = if letter {
        ubd::unit(rest).ok_or_else(|| format!("not a disk; {EXPECTED}"))?
    } else {
        number::c_uint(rest).ok_or_else(|| format!("not a disk; {EXPECTED}"))?
    };
    let partition = match partition {
        "" => 0,
        p => p
            .parse::<u8>()
            .ok()
            .filter(|&p| letter && p > 0 && u64::from(p) < MINORS)
            .ok_or("not a partition; expected 1 to 15 as in /dev/ubda1")?,
    };
    match u8::try_from(unit) {
        Ok(unit) if u64::from(unit) < ubd::UNITS => whole(RootDev { unit, partition }),
        _ => Err(format!("device number out of range; {EXPECTED}")),
    }
}

/// Partition tables are not read yet.
fn whole(dev: RootDev) -> Result<RootDev, String> {
    if dev.partition == 0 {
        return Ok(dev);
    }
    let disk = RootDev { partition: 0, ..dev };
    Err(format!("partitions are not yet supported; expected a disk that is one file system, as {disk}"))
}
