//! Ethernet over GRE (RFC 2784; key and sequence number: RFC 2890): flags, protocol, then checksum, key and sequence number
//! where the flags say so.

use super::{ETH_P_TEB, Sequence, Writer, be16, be32};
use crate::vector::header::{DropReason, Header, Outgoing, Stripped};
use net::csum;

const F_CHECKSUM: u16 = 0x8000;
const F_KEY: u16 = 0x2000;
const F_SEQUENCE: u16 = 0x1000;
/// Routing, strict source route, recursion: of RFC 1701 alone; frames with them must be dropped (RFC 2784, 2.3).
const F_OBSOLETE: u16 = 0x4c00;
const VERSION: u16 = 0x0007;

/// What a GRE tunnel carries besides frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GreConfig {
    /// Keys: (expected, sent).
    pub key: Option<(u32, u32)>,
    /// Number the frames; received ones must have a number, which is not looked at.
    pub sequence: bool,
    /// The number is always 0.
    pub pin_sequence: bool,
    /// Sum up frames; received ones must have a sum.
    pub checksum: bool,
}

/// Header of a GRE tunnel.
#[derive(Debug)]
pub struct Gre {
    cfg: GreConfig,
    sequence: Sequence,
}

impl Gre {
    /// A tunnel that has sent nothing yet.
    pub fn new(cfg: GreConfig) -> Self {
        Self { cfg, sequence: Sequence::new(cfg.pin_sequence) }
    }
}

impl Header for Gre {
    fn rx(&self, msg: &[u8]) -> Result<Stripped, DropReason> {
        let flags = be16(msg, 0)?;
        if flags & (F_OBSOLETE | VERSION) != 0 || (self.cfg.sequence && flags & F_SEQUENCE == 0) {
            return Err(DropReason::Header);
        }
        if be16(msg, 2)? != ETH_P_TEB {
            return Err(DropReason::Protocol);
        }
        let mut at = 4;
        // A sum is looked at even if none was asked for; if one was, it must be there.
        if flags & F_CHECKSUM != 0 {
            if be32(msg, at).is_err() {
                return Err(DropReason::Short);
            }
            if csum::checksum(msg, 0) != 0 {
                return Err(DropReason::Checksum);
            }
            at += 4;
        } else if self.cfg.checksum {
            return Err(DropReason::Checksum);
        }
        let key = if flags & F_KEY != 0 {
            at += 4;
            Some(be32(msg, at - 4)?)
        } else {
            None
        };
        if key != self.cfg.key.map(|k| k.0) {
            return Err(DropReason::Key);
        }
        if flags & F_SEQUENCE != 0 {
            at += 4;
        }
        Stripped::plain(msg, at)
    }

    fn tx_len(&self) -> usize {
        let c = &self.cfg;
        4 + 4 * (usize::from(c.checksum) + usize::from(c.key.is_some()) + usize::from(c.sequence))
    }

    fn tx(&self, out: &mut [u8], frame: Outgoing<'_>) {
        let c = &self.cfg;
        let mut flags = 0;
        for (on, bit) in [(c.checksum, F_CHECKSUM), (c.key.is_some(), F_KEY), (c.sequence, F_SEQUENCE)] {
            flags |= if on { bit } else { 0 };
        }
        let mut w = Writer(out);
        w.put(&flags.to_be_bytes());
        w.put(&ETH_P_TEB.to_be_bytes());
        if c.checksum {
            w.put(&[0; 4]);
        }
        if let Some((_, tx)) = c.key {
            w.put(&tx.to_be_bytes());
        }
        if c.sequence {
            w.put(&self.sequence.next().to_be_bytes());
        }
        if c.checksum {
            // The header has an even length, so the two sums simply add up.
            let sum = csum::checksum(frame.frame, csum::sum(out, 0));
            if let Some(field) = out.get_mut(4..6) {
                field.copy_from_slice(&sum.to_be_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{frame, head, hex, inner, wire};
    use super::*;

    #[test]
    fn layouts() {
        let plain = Gre::new(GreConfig::default());
        assert_eq!(head(&plain), hex("0000 6558"));
        let keyed = Gre::new(GreConfig { key: Some((1, 0x5678)), sequence: true, ..GreConfig::default() });
        assert_eq!(head(&keyed), hex("3000 6558 00005678 00000001"));
        assert_eq!(head(&keyed), hex("3000 6558 00005678 00000002"));
        let pinned = GreConfig { sequence: true, pin_sequence: true, ..GreConfig::default() };
        assert_eq!(head(&Gre::new(pinned)), hex("1000 6558 00000000"));
        let all = GreConfig { key: Some((7, 7)), sequence: true, checksum: true, pin_sequence: false };
        let h = head(&Gre::new(all));
        assert_eq!((&h[..4], &h[6..]), (&hex("b000 6558")[..], &hex("0000 00000007 00000001")[..]));
        // Odd lengths are padded in the sum.
        let w = wire(&Gre::new(all), &frame(21));
        assert_eq!(csum::checksum(&w, 0), 0);
    }

    #[test]
    fn what_is_sent_is_understood_and_nothing_else() {
        let f = frame(60);
        let keys = |rx, tx| GreConfig { key: Some((rx, tx)), ..GreConfig::default() };
        assert_eq!(inner(&Gre::new(keys(5, 1)), &wire(&Gre::new(keys(1, 5)), &f)), Ok(&f[..]));
        assert_eq!(inner(&Gre::new(keys(6, 1)), &wire(&Gre::new(keys(1, 5)), &f)), Err(DropReason::Key));
        let plain = Gre::new(GreConfig::default());
        assert_eq!(inner(&plain, &wire(&Gre::new(keys(1, 5)), &f)), Err(DropReason::Key), "unexpected key");
        assert_eq!(inner(&Gre::new(keys(0, 1)), &wire(&plain, &f)), Err(DropReason::Key), "no key");
        let summed = Gre::new(GreConfig { checksum: true, ..GreConfig::default() });
        let mut w = wire(&summed, &f);
        assert_eq!(inner(&summed, &w), Ok(&f[..]));
        assert_eq!(inner(&plain, &w), Ok(&f[..]), "a sum is welcome");
        w[30] ^= 1;
        assert_eq!(inner(&summed, &w), Err(DropReason::Checksum));
        assert_eq!(inner(&plain, &w), Err(DropReason::Checksum));
        assert_eq!(inner(&summed, &wire(&plain, &f)), Err(DropReason::Checksum), "no sum");
        let numbered = Gre::new(GreConfig { sequence: true, ..GreConfig::default() });
        assert_eq!(inner(&numbered, &wire(&numbered, &f)), Ok(&f[..]));
        assert_eq!(inner(&plain, &wire(&numbered, &f)), Ok(&f[..]), "a number is welcome");
        assert_eq!(inner(&numbered, &wire(&plain, &f)), Err(DropReason::Header));
        for (bytes, want) in [
            ("", DropReason::Short),
            ("00", DropReason::Short),
            ("0000 65", DropReason::Short),
            ("0000 6558", DropReason::Short),
            ("0000 6558 00112233445566778899aabbcc", DropReason::Short),
            ("0000 0800 00112233445566778899aabbccdd", DropReason::Protocol),
            ("4000 6558 00112233445566778899aabbccdd", DropReason::Header),
            ("0001 6558 00112233445566778899aabbccdd", DropReason::Header),
            ("8000 6558 0011", DropReason::Short),
            ("2000 6558 0011", DropReason::Short),
            ("1000 6558 00112233445566778899aabbccddee", DropReason::Short),
        ] {
            assert_eq!(inner(&plain, &hex(bytes)), Err(want), "{bytes}");
        }
        assert_eq!(inner(&plain, &hex("0ff8 6558 00112233445566778899aabbccdd")), Err(DropReason::Header));
        assert!(
            inner(&plain, &hex("03f8 6558 00112233445566778899aabbccdd")).is_ok(),
            "reserved bits are ignored"
        );
    }
}
