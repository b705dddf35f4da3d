//! The virtio-net header in front of each frame (linux/virtio_net.h, the legacy form of ten bytes, little-endian here).

use super::header::{DropReason, ETH_HLEN, Header, Outgoing, Stripped};
use net::{CsumStatus, GsoInfo, GsoType};

/// Bytes of the header.
pub const VNET_HDR_LEN: usize = 10;
const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What a received header says of its frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RxMeta {
    /// State of the checksum.
    pub csum: CsumStatus,
    /// Set for a super-frame.
    pub gso: Option<GsoInfo>,
}

fn u16_at(h: &[u8], at: usize) -> Option<u16> {
    h.get(at..)?.first_chunk::<2>().map(|b| u16::from_le_bytes(*b))
}

/// Reads the header of a received message and checks it against the frame behind it. `None`: they do not fit, the frame
/// is to be dropped.
pub fn parse(msg: &[u8]) -> Option<RxMeta> {
    let frame = msg.get(VNET_HDR_LEN..).filter(|f| f.len() >= ETH_HLEN)?;
    let (flags, gso) = (*msg.first()?, *msg.get(1)?);
    let csum = if flags & F_NEEDS_CSUM != 0 {
        let (start, offset) = (u16_at(msg, 6)?, u16_at(msg, 8)?);
        let at = usize::from(start) + usize::from(offset);
        if usize::from(start) < ETH_HLEN || at + 2 > frame.len() {
            return None;
        }
        CsumStatus::Partial { start, offset }
    } else if flags & F_DATA_VALID != 0 {
        CsumStatus::Unnecessary
    } else {
        CsumStatus::None
    };
    let kind = match gso & !GSO_ECN {
        GSO_NONE => return Some(RxMeta { csum, gso: None }),
        GSO_TCPV4 => GsoType::TcpV4,
        GSO_TCPV6 => GsoType::TcpV6,
        GSO_UDP_L4 => GsoType::Udp,
        _ => return None,
    };
    let proto = frame.get(12..).and_then(|b| b.first_chunk::<2>()).map(|b| u16::from_be_bytes(*b))?;
    let fits = match kind {
        GsoType::TcpV4 => proto == 0x0800,
        GsoType::TcpV6 => proto == 0x86dd,
        GsoType::Udp => proto == 0x0800 || proto == 0x86dd,
    };
    let size = u16_at(msg, 4).filter(|&s| s > 0)?;
    fits.then_some(RxMeta { csum, gso: Some(GsoInfo { kind, size, hdr_len: 0 }) })
}

/// Frames behind virtio-net headers.
pub struct Vnet;

impl Header for Vnet {
    fn rx(&self, msg: &[u8]) -> Result<Stripped, DropReason> {
        let meta = parse(msg).ok_or(DropReason::Vnet)?;
        let len = msg.len() - VNET_HDR_LEN;
        Ok(Stripped { at: VNET_HDR_LEN, len, csum: meta.csum, gso: meta.gso })
    }

    fn tx_len(&self) -> usize {
        VNET_HDR_LEN
    }

    fn tx(&self, out: &mut [u8], frame: Outgoing<'_>) {
        out.copy_from_slice(&build(frame));
    }
}

/// The header for a frame to be sent, which begins with its Ethernet header.
pub fn build(skb: Outgoing<'_>) -> [u8; VNET_HDR_LEN] {
    let mut h = [0u8; VNET_HDR_LEN];
    let CsumStatus::Partial { start, offset } = skb.csum else { return h };
    h[0] = F_NEEDS_CSUM;
    h[6..8].copy_from_slice(&start.to_le_bytes());
    h[8..10].copy_from_slice(&offset.to_le_bytes());
    let Some(gso) = skb.gso else { return h };
    h[1] = match gso.kind {
        GsoType::TcpV4 => GSO_TCPV4,
        GsoType::TcpV6 => GSO_TCPV6,
        GsoType::Udp => GSO_UDP_L4,
    };
    let l4 = usize::from(start);
    let hdr_len = match gso.kind {
        _ if gso.hdr_len > 0 => usize::from(gso.hdr_len) + ETH_HLEN,
        GsoType::Udp => l4 + 8,
        // Data offset of the TCP header, in words.
        _ => l4 + skb.frame.get(l4 + 12).map_or(20, |b| usize::from(b >> 4) * 4),
    };
    h[2..4].copy_from_slice(&u16::try_from(hdr_len).unwrap_or(0).to_le_bytes());
    h[4..6].copy_from_slice(&gso.size.to_le_bytes());
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    fn msg(head: [u8; 10], proto: u16, len: usize) -> Vec<u8> {
        let mut m = head.to_vec();
        m.resize(10 + len, 0);
        if len >= 14 {
            m[22..24].copy_from_slice(&proto.to_be_bytes());
        }
        m
    }

    #[test]
    fn good_headers_are_understood() {
        let tso = msg([1, 1, 66, 0, 0xb4, 5, 34, 0, 16, 0], 0x0800, 3000);
        let m = parse(&tso).expect("fits");
        assert_eq!(m.csum, CsumStatus::Partial { start: 34, offset: 16 });
        assert_eq!(m.gso, Some(GsoInfo { kind: GsoType::TcpV4, size: 1460, hdr_len: 0 }));
        let plain = parse(&msg([2, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0x0806, 60)).expect("fits");
        assert_eq!((plain.csum, plain.gso), (CsumStatus::Unnecessary, None));
    }

    #[test]
    fn headers_that_do_not_fit_are_refused() {
        let frame = |h| parse(&msg(h, 0x0800, 60));
        assert_eq!(frame([1, 0, 0, 0, 0, 0, 50, 0, 9, 0]), None, "checksum behind the end");
        assert_eq!(frame([1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), None, "overflow");
        assert_eq!(frame([1, 0, 0, 0, 0, 0, 4, 0, 2, 0]), None, "inside the Ethernet header");
        assert_eq!(frame([0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None, "segments of no bytes");
        assert_eq!(frame([0, 4, 0, 0, 1, 0, 0, 0, 0, 0]), None, "wrong protocol");
        assert_eq!(frame([0, 3, 0, 0, 1, 0, 0, 0, 0, 0]), None, "unknown kind");
        assert_eq!(parse(&[0; 23]), None, "no frame");
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn sent_headers_say_what_the_frame_says() {
        let mut frame = vec![0; 3000];
        frame[46] = 0x80;
        let mut skb = Outgoing { frame: &frame, csum: CsumStatus::None, gso: None };
        assert_eq!(build(skb), [0; 10]);
        skb.csum = CsumStatus::Partial { start: 34, offset: 16 };
        assert_eq!(build(skb), [1, 0, 0, 0, 0, 0, 34, 0, 16, 0]);
        skb.gso = Some(GsoInfo { kind: GsoType::TcpV4, size: 1448, hdr_len: 0 });
        assert_eq!(build(skb), [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0]);
        skb.gso = Some(GsoInfo { kind: GsoType::TcpV6, size: 1448, hdr_len: 72 });
        assert_eq!(build(skb)[1..4], [4, 86, 0]);
    }
}
