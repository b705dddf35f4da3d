//! `ubd<unit><flags>=<file>[,<file2>][,<serial>]`: disks.

use super::{At, number};

/// Units go from 0 to 15 (ubda to ubdp).
pub const UNITS: u64 = 16;

/// One disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// The option.
    pub at: At,
    /// 0 to 15: ubda to ubdp.
    pub unit: u8,
    /// Host file: the COW file if there is a `backing`.
    pub file: String,
    /// Backing file of a COW file.
    pub backing: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// `r`: read-only.
    pub read_only: bool,
    /// `s`: O_SYNC.
    pub sync: bool,
    /// `d`: plain data, not looked at for a COW header.
    pub data: bool,
    /// `c`: shared, no lock on the host file.
    pub shared: bool,
    /// `t`: no discard.
    pub no_trim: bool,
}

impl Disk {
    /// Kernel name: ubda to ubdp.
    pub fn name(&self) -> String {
        format!("ubd{}", char::from(b'a' + self.unit % 26))
    }

    /// Parses an option; `rest` is what follows `ubd`.
    pub(super) fn parse(at: At, rest: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected ubd<0-15 or a-p>[r][s][d][c][t]=FILE[,BACKING][,SERIAL]";
        let Some((head, value)) = rest.split_once('=') else {
            return Err(format!("missing '='; {EXPECTED}"));
        };
        let (unit, flags) = unit(head).ok_or(format!("couldn't parse device number; {EXPECTED}"))?;
        let unit = u8::try_from(unit)
            .ok()
            .filter(|&u| u64::from(u) < UNITS)
            .ok_or("device number out of range; expected 0 to 15 or a to p")?;
        let mut disk = Self { at, unit, ..Self::default() };
        if flags.len() > 6 {
            return Err(format!("too many flags specified; {EXPECTED}"));
        }
        for flag in flags.chars() {
            match flag {
                'r' => disk.read_only = true,
                's' => disk.sync = true,
                'd' => disk.data = true,
                'c' => disk.shared = true,
                't' => disk.no_trim = true,
                _ => return Err(format!("flag '{flag}'; expected '=' or flag letter (r, s, c, t or d)")),
            }
        }
        let mut parts = value.split([',', ':']);
        disk.file = parts.next().unwrap_or_default().into();
        if disk.file.is_empty() {
            return Err(format!("no file given; {EXPECTED}"));
        }
        disk.backing = parts.next().filter(|p| !p.is_empty()).map(Into::into);
        disk.serial = parts.next().filter(|p| !p.is_empty()).map(Into::into);
        if parts.next().is_some() {
            return Err(
                "too many parts (names with ',' or ':' cannot be given); expected FILE[,BACKING][,SERIAL]"
                    .into(),
            );
        }
        if disk.backing.is_some() && disk.data {
            return Err("can't specify both 'd' and a COW file; expected one file, or no flag d".into());
        }
        if disk.backing.is_some() {
            return Err("COW files are not yet supported; expected one plain file, as in ubd0=FILE".into());
        }
        Ok(disk)
    }
}

/// Unit number and what follows: a C integer or one letter.
pub(super) fn unit(text: &str) -> Option<(u64, &str)> {
    match text.chars().next()? {
        c @ 'a'..='z' => Some((u64::from(c) - u64::from('a'), text.get(1..)?)),
        _ => number::c_uint(text),
    }
}
