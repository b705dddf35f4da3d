//! The Network Service Header (RFC 8300): which service path a frame is on, and how far along it.

use super::{Writer, be16, be32};
use crate::vector::header::DropReason;

/// Bytes of base header and service path header.
pub const NSH_LEN: usize = 8;
/// Next protocol: Ethernet.
const NEXT_ETHERNET: u8 = 3;
/// Hops that a fresh frame may make (RFC 8300, 2.2).
const TTL: u16 = 63;
/// Metadata of any length, here none. Every implementation knows it (RFC 8300, 2.5).
const MD_TYPE_2: u8 = 2;
const MD_TYPE_1: u8 = 1;
/// Words of a header with metadata of type 1.
const MD1_WORDS: u16 = 6;
const F_OAM: u16 = 0x2000;
const VERSION: u16 = 0xc000;

/// A place on a service path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nsh {
    /// Service path identifier, 24 bits.
    pub path: u32,
    /// Service index.
    pub index: u8,
}

impl Nsh {
    /// The header at the start of `msg` and where the Ethernet frame behind it begins.
    pub fn parse(msg: &[u8]) -> Result<(Self, usize), DropReason> {
        let (base, kind, next) = (be16(msg, 0)?, be16(msg, 2)? >> 8 & 0xf, be16(msg, 2)? & 0xff);
        let words = base & 0x3f;
        let fits = match u8::try_from(kind) {
            Ok(MD_TYPE_1) => words == MD1_WORDS,
            Ok(MD_TYPE_2) => words >= 2,
            _ => false,
        };
        if base & (VERSION | F_OAM) != 0 || !fits {
            return Err(DropReason::Header);
        }
        let path = be32(msg, 4)?;
        if next != u16::from(NEXT_ETHERNET) {
            return Err(DropReason::Protocol);
        }
        let at = usize::from(words) * 4;
        if msg.len() < at {
            return Err(DropReason::Short);
        }
        Ok((Self { path: path >> 8, index: path as u8 }, at))
    }

    /// Writes the header for an Ethernet frame, without metadata; `out` has `NSH_LEN` bytes.
    pub fn write(&self, out: &mut [u8]) {
        let mut w = Writer(out);
        w.put(&(TTL << 6 | 2).to_be_bytes());
        w.put(&[MD_TYPE_2, NEXT_ETHERNET]);
        w.put(&(self.path << 8 | u32::from(self.index)).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::hex;
    use super::*;

    #[test]
    fn layout_and_checks() {
        let n = Nsh { path: 0x12_3456, index: 0xfe };
        let mut out = [0xee; NSH_LEN];
        n.write(&mut out);
        assert_eq!(out[..], hex("0fc2 02 03 123456 fe"));
        assert_eq!(Nsh::parse(&out), Ok((n, 8)));
        let with = |h: &str| Nsh::parse(&[hex(h), vec![0; 60]].concat());
        assert_eq!(with("0fc6 01 03 123456 fe"), Ok((n, 24)), "context of type 1");
        assert_eq!(with("0fc5 02 03 123456 fe"), Ok((n, 20)), "metadata of type 2");
        assert_eq!(with("0fc5 01 03 123456 fe"), Err(DropReason::Header), "type 1 has six words");
        assert_eq!(with("0fc1 02 03 123456 fe"), Err(DropReason::Header), "too short for itself");
        assert_eq!(with("0fc2 00 03 123456 fe"), Err(DropReason::Header), "reserved type");
        assert_eq!(with("4fc2 02 03 123456 fe"), Err(DropReason::Header), "another version");
        assert_eq!(with("2fc2 02 03 123456 fe"), Err(DropReason::Header), "an OAM packet");
        assert_eq!(with("0fc2 02 01 123456 fe"), Err(DropReason::Protocol), "IPv4 inside");
        assert_eq!(Nsh::parse(&hex("0fff 02 03 123456 fe 00")), Err(DropReason::Short));
        for cut in 0..8 {
            assert_eq!(Nsh::parse(&out[..cut]), Err(DropReason::Short), "{cut}");
        }
    }
}
