//! The outer IPv4 header, which raw IPv4 sockets hand over with each packet (raw(7)); those of IPv6 do not.

use crate::vector::header::{DropReason, Header, Outgoing, Stripped};

/// A header that comes behind an IPv4 header and is sent without (the host writes it).
#[derive(Debug)]
pub struct OverIpv4<H>(pub H);

impl<H: Header> Header for OverIpv4<H> {
    fn rx(&self, msg: &[u8]) -> Result<Stripped, DropReason> {
        let first = *msg.first().ok_or(DropReason::Short)?;
        let skip = usize::from(first & 0xf) * 4;
        if first >> 4 != 4 || skip < 20 {
            return Err(DropReason::Header);
        }
        let s = self.0.rx(msg.get(skip..).ok_or(DropReason::Short)?)?;
        Ok(Stripped { at: s.at + skip, ..s })
    }

    fn tx_len(&self) -> usize {
        self.0.tx_len()
    }

    fn tx(&self, out: &mut [u8], frame: Outgoing<'_>) {
        self.0.tx(out, frame);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{frame, inner, wire};
    use super::super::{Gre, GreConfig};
    use super::*;

    #[test]
    fn headers_with_options_too() {
        let f = frame(40);
        let g = OverIpv4(Gre::new(GreConfig::default()));
        let w = wire(&g, &f);
        assert_eq!(w.len(), 44, "nothing more is sent");
        for (first, len, want) in [
            (0x45, 20, Ok(&f[..])),
            (0x46, 24, Ok(&f[..])),
            (0x44, 20, Err(DropReason::Header)),
            (0x65, 20, Err(DropReason::Header)),
        ] {
            let mut msg = vec![0; len];
            msg[0] = first;
            msg.extend_from_slice(&w);
            assert_eq!(inner(&g, &msg), want, "{first:#x}");
        }
        assert_eq!(inner(&g, &[0x4f; 30]), Err(DropReason::Short));
        assert_eq!(inner(&g, &[]), Err(DropReason::Short));
    }
}
