//! Geneve (RFC 8926): eight bytes and options over UDP port 6081. We send no options and know none; those of others are
//! skipped unless they are critical.

use super::{ETH_P_TEB, Writer, be16, be32, vni_word};
use crate::vector::header::{DropReason, Header, Outgoing, Stripped};

/// Version and options length, then flags: a control packet, not for us.
const F_CONTROL: u16 = 0x0080;
const VERSION: u16 = 0xc000;
/// Bytes in front of the options.
const HEAD: usize = 8;
/// In the type of an option: whoever does not know it must drop the packet.
const CRITICAL: u8 = 0x80;

/// Header of a Geneve segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geneve {
    /// Network identifier expected, 24 bits.
    pub rx_vni: u32,
    /// Network identifier sent, 24 bits.
    pub tx_vni: u32,
}

/// Looks at all options: they must fill their room exactly, and none may be critical.
fn check_options(mut opts: &[u8]) -> Result<(), DropReason> {
    while !opts.is_empty() {
        let Some(&[_, _, kind, len]) = opts.first_chunk::<4>() else { return Err(DropReason::Header) };
        let size = 4 + usize::from(len & 0x1f) * 4;
        opts = opts.get(size..).ok_or(DropReason::Header)?;
        if kind & CRITICAL != 0 {
            return Err(DropReason::Option);
        }
    }
    Ok(())
}

impl Header for Geneve {
    fn rx(&self, msg: &[u8]) -> Result<Stripped, DropReason> {
        let (first, proto, vni) = (be16(msg, 0)?, be16(msg, 2)?, be32(msg, 4)? >> 8);
        if first & (VERSION | F_CONTROL) != 0 {
            return Err(DropReason::Header);
        }
        if proto != ETH_P_TEB {
            return Err(DropReason::Protocol);
        }
        if vni != self.rx_vni {
            return Err(DropReason::Key);
        }
        let end = HEAD + usize::from(first >> 8 & 0x3f) * 4;
        check_options(msg.get(HEAD..end).ok_or(DropReason::Short)?)?;
        Stripped::plain(msg, end)
    }

    fn tx_len(&self) -> usize {
        HEAD
    }

    fn tx(&self, out: &mut [u8], _frame: Outgoing<'_>) {
        let mut w = Writer(out);
        w.put(&[0, 0]);
        w.put(&ETH_P_TEB.to_be_bytes());
        w.put(&vni_word(self.tx_vni));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{frame, head, hex, inner, wire};
    use super::*;

    #[test]
    fn layout_and_checks() {
        let g = Geneve { rx_vni: 9, tx_vni: 0xfe_dcba };
        assert_eq!(head(&g), hex("0000 6558 fedcba00"));
        let f = frame(60);
        let peer = Geneve { rx_vni: 0xfe_dcba, tx_vni: 9 };
        let w = wire(&peer, &f);
        assert_eq!(inner(&g, &w), Ok(&f[..]));
        assert_eq!(inner(&peer, &w), Err(DropReason::Key));
        for cut in 0..22 {
            assert_eq!(inner(&g, &w[..cut]), Err(DropReason::Short), "{cut}");
        }
        let with = |h: &str| inner(&g, &[hex(h), f.clone()].concat()).map(<[u8]>::len);
        assert_eq!(with("0200 6558 000009ff 0102 03 01 deadbeef"), Ok(60), "an option is skipped");
        assert_eq!(with("0300 6558 00000900 0102 03 01 deadbeef 0102 04 00"), Ok(60), "two of them");
        assert_eq!(with("0240 6558 00000900 0102 83 01 deadbeef"), Err(DropReason::Option), "a critical one");
        assert_eq!(
            with("0200 6558 00000900 0102 03 02 deadbeef"),
            Err(DropReason::Header),
            "beyond the options"
        );
        assert_eq!(with("0080 6558 00000900"), Err(DropReason::Header), "a control packet");
        assert_eq!(with("4000 6558 00000900"), Err(DropReason::Header), "another version");
        assert_eq!(with("0000 0800 00000900"), Err(DropReason::Protocol), "IPv4");
        assert_eq!(inner(&g, &hex("3f00 6558 00000900 01020300")), Err(DropReason::Short), "options cut off");
    }
}
