//! VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe): VXLAN that names what it carries: Ethernet, or Ethernet behind a Network Service
//! Header. Over UDP port 4790.

use super::nsh::{NSH_LEN, Nsh};
use super::{Writer, be32, vni_word};
use crate::vector::header::{DropReason, Header, Outgoing, Stripped};

const F_VERSION: u32 = 0x3000_0000;
const F_VNI: u32 = 0x0800_0000;
const F_PROTOCOL: u32 = 0x0400_0000;
const F_OAM: u32 = 0x0100_0000;
const NEXT_ETHERNET: u32 = 3;
const NEXT_NSH: u32 = 4;
/// Bytes in front of the payload.
const HEAD: usize = 8;

/// Header of a VXLAN-GPE segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VxlanGpe {
    /// Network identifier expected, 24 bits.
    pub rx_vni: u32,
    /// Network identifier sent, 24 bits.
    pub tx_vni: u32,
    /// Service path of frames sent; absent: without such a header. Received frames may be on any or none.
    pub nsh: Option<Nsh>,
}

impl Header for VxlanGpe {
    fn rx(&self, msg: &[u8]) -> Result<Stripped, DropReason> {
        let (flags, vni) = (be32(msg, 0)?, be32(msg, 4)? >> 8);
        if flags & (F_VERSION | F_OAM) != 0 || flags & F_VNI == 0 {
            return Err(DropReason::Header);
        }
        if vni != self.rx_vni {
            return Err(DropReason::Key);
        }
        // Without the flag it is plain VXLAN.
        let next = if flags & F_PROTOCOL != 0 { flags & 0xff } else { NEXT_ETHERNET };
        match next {
            NEXT_ETHERNET => Stripped::plain(msg, HEAD),
            NEXT_NSH => {
                let (_, skip) = Nsh::parse(msg.get(HEAD..).ok_or(DropReason::Short)?)?;
                Stripped::plain(msg, HEAD + skip)
            }
            _ => Err(DropReason::Protocol),
        }
    }

    fn tx_len(&self) -> usize {
        HEAD + if self.nsh.is_some() { NSH_LEN } else { 0 }
    }

    fn tx(&self, out: &mut [u8], _frame: Outgoing<'_>) {
        let next = if self.nsh.is_some() { NEXT_NSH } else { NEXT_ETHERNET };
        let mut w = Writer(out);
        w.put(&(F_VNI | F_PROTOCOL | next).to_be_bytes());
        w.put(&vni_word(self.tx_vni));
        if let Some(n) = &self.nsh {
            n.write(w.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{frame, head, hex, inner, wire};
    use super::*;

    #[test]
    fn layouts() {
        let v = VxlanGpe { rx_vni: 1, tx_vni: 0xfe_dcba, nsh: None };
        assert_eq!(head(&v), hex("0c000003 fedcba00"));
        let on = VxlanGpe { nsh: Some(Nsh { path: 7, index: 255 }), ..v };
        assert_eq!(head(&on), hex("0c000004 fedcba00 0fc20203 000007ff"));
    }

    #[test]
    fn what_is_carried() {
        let f = frame(60);
        let v = VxlanGpe { rx_vni: 9, tx_vni: 9, nsh: None };
        let on = VxlanGpe { nsh: Some(Nsh { path: 7, index: 255 }), ..v };
        for w in [wire(&v, &f), wire(&on, &f)] {
            assert_eq!(inner(&v, &w), Ok(&f[..]));
            assert_eq!(inner(&on, &w), Ok(&f[..]));
            assert_eq!(inner(&VxlanGpe { rx_vni: 8, ..v }, &w), Err(DropReason::Key));
            let head = w.len() - 60;
            for cut in 0..head + 14 {
                assert_eq!(inner(&v, &w[..cut]), Err(DropReason::Short), "{cut}");
            }
        }
        let with = |h: &str| inner(&v, &[hex(h), f.clone()].concat()).map(<[u8]>::len);
        assert_eq!(with("08000000 00000900"), Ok(60), "plain VXLAN");
        assert_eq!(with("0e000003 00000900"), Ok(60), "to many");
        assert_eq!(with("0c000001 00000900"), Err(DropReason::Protocol), "IPv4");
        assert_eq!(with("0c000000 00000900"), Err(DropReason::Protocol), "nothing");
        assert_eq!(with("0d000003 00000900"), Err(DropReason::Header), "an OAM packet");
        assert_eq!(with("1c000003 00000900"), Err(DropReason::Header), "another version");
        assert_eq!(with("04000003 00000900"), Err(DropReason::Header), "no identifier");
    }
}
