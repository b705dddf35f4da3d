//! VXLAN (RFC 7348, section 5): flags, network identifier, frame. Eight bytes over UDP port 4789.

use super::{Writer, be32, vni_word};
use crate::vector::header::{DropReason, Header, Outgoing, Stripped};

/// The identifier is valid; the other bits are reserved: sent as 0, not looked at when received.
const F_VNI: u32 = 0x0800_0000;

/// Header of a VXLAN segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vxlan {
    /// Network identifier expected, 24 bits.
    pub rx_vni: u32,
    /// Network identifier sent, 24 bits.
    pub tx_vni: u32,
}

impl Header for Vxlan {
    fn rx(&self, msg: &[u8]) -> Result<Stripped, DropReason> {
        let (flags, vni) = (be32(msg, 0)?, be32(msg, 4)? >> 8);
        if flags & F_VNI == 0 {
            return Err(DropReason::Header);
        }
        if vni != self.rx_vni {
            return Err(DropReason::Key);
        }
        Stripped::plain(msg, 8)
    }

    fn tx_len(&self) -> usize {
        8
    }

    fn tx(&self, out: &mut [u8], _frame: Outgoing<'_>) {
        let mut w = Writer(out);
        w.put(&F_VNI.to_be_bytes());
        w.put(&vni_word(self.tx_vni));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{frame, head, hex, inner, wire};
    use super::*;

    #[test]
    fn layout_and_checks() {
        let v = Vxlan { rx_vni: 0x12_3456, tx_vni: 0xfe_dcba };
        assert_eq!(head(&v), hex("08000000 fedcba00"));
        let f = frame(60);
        let peer = Vxlan { rx_vni: 0xfe_dcba, tx_vni: 0x12_3456 };
        let w = wire(&peer, &f);
        assert_eq!(inner(&v, &w), Ok(&f[..]));
        assert_eq!(inner(&peer, &w), Err(DropReason::Key));
        for cut in 0..22 {
            assert_eq!(inner(&v, &w[..cut]), Err(DropReason::Short), "{cut}");
        }
        let body = "00112233445566778899aabbccdd";
        assert_eq!(inner(&v, &hex(&format!("00000000 12345600 {body}"))), Err(DropReason::Header));
        assert!(inner(&v, &hex(&format!("0c000003 123456ff {body}"))).is_ok(), "reserved bits are ignored");
    }
}
