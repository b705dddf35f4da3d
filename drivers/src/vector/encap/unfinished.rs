//! Inner frames as a tunnel device of the same host leaves them: it counts on hardware that will never come, so their TCP or
//! UDP checksum holds the pseudo-header's sum alone, and a frame may stand for many.

use crate::vector::header::{DropReason, ETH_HLEN, Header, Outgoing, Stripped};
use net::{CsumStatus, GsoInfo, GsoType, csum, ip};
use std::sync::Arc;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A tunnel's header that also looks at what is inside.
pub struct Unfinished {
    /// The tunnel's header.
    pub header: Arc<dyn Header>,
    /// Largest IP packet of the device: longer ones stand for several.
    pub mtu: usize,
}

/// What must still be done to a frame; nothing for almost all.
fn look(frame: &[u8], mtu: usize) -> Option<(CsumStatus, Option<GsoInfo>)> {
    let proto = frame.get(12..14)?;
    if proto != [8, 0] && proto != [0x86, 0xdd] {
        return None;
    }
    let l3 = frame.get(ETH_HLEN..)?;
    let p = ip::parse(l3)?;
    let at = match p.proto {
        TCP => 16,
        UDP => 6,
        _ => return None,
    };
    if p.frag.is_some() {
        return None;
    }
    let l4 = l3.get(p.l4..p.end)?;
    let field = l4.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))?;
    // A complete checksum that happens to look like this is taken for good without a look: one of 65536, and the outer
    // checksum is there as well.
    if field != csum::fold(csum::pseudo(p.src, p.dst, p.proto, l4.len())) {
        return None;
    }
    let start = u16::try_from(ETH_HLEN + p.l4).ok()?;
    let partial = CsumStatus::Partial { start, offset: at as u16 };
    let head = p.l4 + usize::from(l4.get(12).map_or(0, |b| b >> 4)) * 4;
    let size = u16::try_from(mtu.checked_sub(head)?).ok().filter(|s| *s > 0)?;
    let kind = if p.src.is_ipv4() { GsoType::TcpV4 } else { GsoType::TcpV6 };
    let many = p.proto == TCP && p.end > mtu;
    Some((partial, many.then_some(GsoInfo { kind, size, hdr_len: 0 })))
}

impl Header for Unfinished {
    fn rx(&self, msg: &[u8]) -> Result<Stripped, DropReason> {
        let mut s = self.header.rx(msg)?;
        let frame = msg.get(s.at..).and_then(|b| b.get(..s.len)).ok_or(DropReason::Short)?;
        if let Some((csum, gso)) = look(frame, self.mtu) {
            (s.csum, s.gso) = (csum, gso);
        }
        Ok(s)
    }

    fn tx_len(&self) -> usize {
        self.header.tx_len()
    }

    fn tx(&self, out: &mut [u8], frame: Outgoing<'_>) {
        self.header.tx(out, frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::header::Bare;

    fn frame(payload: usize, proto: u8) -> Vec<u8> {
        let mut f = vec![0; 12];
        f.extend([8, 0]);
        f.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, proto, 0, 0, 10, 0, 2, 1, 10, 0, 2, 2]);
        f.resize(34 + 20 + payload, 0);
        f[46] = 0x50;
        let total = u16::try_from(f.len() - 14).unwrap();
        f[16..18].copy_from_slice(&total.to_be_bytes());
        let sum = csum::checksum(&f[14..34], 0);
        f[24..26].copy_from_slice(&sum.to_be_bytes());
        f
    }

    #[test]
    fn only_what_is_unfinished() {
        let h = Unfinished { header: Arc::new(Bare), mtu: 1450 };
        for (len, proto, many) in
            [(10, 6, false), (1410, 6, false), (1411, 6, true), (9000, 6, true), (10, 17, false)]
        {
            let mut f = frame(len, proto);
            let plain = h.rx(&f).expect("a frame");
            assert_eq!((plain.csum, plain.gso), (CsumStatus::None, None));
            let at = 34 + if proto == 6 { 16 } else { 6 };
            let (src, dst) = ([10, 0, 2, 1].into(), [10, 0, 2, 2].into());
            let sum = csum::fold(csum::pseudo_v4(src, dst, proto, len + 20));
            f[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            let s = h.rx(&f).expect("a frame");
            assert_eq!(s.csum, CsumStatus::Partial { start: 34, offset: at as u16 - 34 });
            let gso = GsoInfo { kind: GsoType::TcpV4, size: 1410, hdr_len: 0 };
            assert_eq!(s.gso, many.then_some(gso), "{len}");
            for cut in 14..60.min(f.len()) {
                assert_eq!(h.rx(&f[..cut]).expect("a frame").csum, CsumStatus::None);
            }
        }
        assert_eq!(h.rx(&[0; 13]), Err(DropReason::Short));
    }
}
