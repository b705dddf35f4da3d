//! `ethtool -t`: frames are given their headers and taken out of them again, and super-frames are cut, in memory. Nothing
//! leaves by the transport; a tunnel with sequence numbers leaves out those that the test used.

use super::header::{DropReason, ETH_HLEN, Header, Outgoing};
use super::transport::{Framing, Transport};
use net::gso::Cut;
use net::{CsumStatus, GsoInfo, GsoType, Skb};

/// Names of the tests, as they are shown.
pub const NAMES: [&str; 4] = [
    "Encapsulation  (on/offline)",
    "Checksum       (on/offline)",
    "Segmentation   (on/offline)",
    "Link           (on/offline)",
];

/// Sizes of frames that are looped.
const SIZES: [usize; 4] = [60, 512, 1514, 9014];

/// A TCP segment over IPv4 with `payload` bytes behind its 54 bytes of headers.
fn tcp_frame(payload: usize) -> Vec<u8> {
    let mut f = vec![0u8; 54 + payload];
    f[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    f[12..14].copy_from_slice(&[8, 0]);
    let total = u16::try_from(40 + payload).unwrap_or(u16::MAX);
    f[14] = 0x45;
    f[16..18].copy_from_slice(&total.to_be_bytes());
    f[22..24].copy_from_slice(&[64, 6]);
    f[26..34].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
    let sum: u32 = f[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    f[24..26].copy_from_slice(&sum.to_be_bytes());
    f[46] = 0x50;
    for (i, b) in f[54..].iter_mut().enumerate() {
        *b = i as u8;
    }
    f
}

/// What a header makes of its own message, which may need the IPv4 header that a host puts in front of raw packets.
fn take_off(h: &dyn Header, msg: &[u8], frame: &[u8], csum: CsumStatus) -> bool {
    match h.rx(msg) {
        Ok(s) => msg.get(s.at..s.at + s.len) == Some(frame) && (csum == CsumStatus::None || s.csum == csum),
        // Ours carries what the peer expects, which is not what we expect of the peer.
        Err(DropReason::Key | DropReason::Cookie) => msg.ends_with(frame),
        Err(_) => false,
    }
}

fn looped(h: &dyn Header, frame: &[u8], csum: CsumStatus) -> bool {
    let mut msg = vec![0u8; h.tx_len()];
    h.tx(&mut msg, Outgoing { frame, csum, gso: None });
    msg.extend_from_slice(frame);
    if take_off(h, &msg, frame, csum) {
        return true;
    }
    let mut outer = vec![0u8; 20];
    outer[0] = 0x45;
    outer.extend_from_slice(&msg);
    take_off(h, &outer, frame, csum)
}

/// Numbers of failures of the first three tests.
pub fn run(transport: &dyn Transport, has_csum: bool) -> [u64; 3] {
    let (mut encap, mut csum) = (0, 0);
    let partial = CsumStatus::Partial { start: 34, offset: 16 };
    if transport.framing() == Framing::Messages {
        for end in transport.lanes().into_iter().filter_map(|l| l.tx) {
            for size in SIZES {
                let frame = tcp_frame(size - ETH_HLEN - 40);
                encap += u64::from(!looped(&*end.header, &frame, CsumStatus::None));
                csum += u64::from(has_csum && !looped(&*end.header, &frame, partial));
            }
        }
    }
    [encap, csum, segmentation()]
}

/// Cuts a super-frame as transports without segmentation need it: all bytes are there, in order.
fn segmentation() -> u64 {
    const SIZE: usize = 1448;
    const PAYLOAD: usize = 20 * SIZE + 100;
    let frame = tcp_frame(PAYLOAD);
    let mut skb = Skb::from_vec(frame.clone(), 0, frame.len());
    skb.csum = CsumStatus::Partial { start: 34, offset: 16 };
    skb.gso = Some(GsoInfo { kind: GsoType::TcpV4, size: SIZE as u16, hdr_len: 40 });
    let Some(cut) = Cut::new(&skb) else { return 1 };
    let mut got = Vec::new();
    for i in 0..cut.count() {
        let mut seg = vec![0u8; cut.len(i)];
        if !cut.write(i, &mut seg) {
            return 1;
        }
        got.extend_from_slice(seg.get(54..).unwrap_or(&[]));
    }
    u64::from(cut.count() != 21 || Some(&got[..]) != frame.get(54..))
}

#[cfg(test)]
mod tests {
    use super::super::encap::{Gre, GreConfig, OverIpv4, Vxlan};
    use super::super::header::Bare;
    use super::super::vnet_hdr::Vnet;
    use super::*;

    #[test]
    fn every_kind_of_header_gives_back_what_it_got() {
        let gre = || Gre::new(GreConfig { sequence: true, ..GreConfig::default() });
        let all: [&dyn Header; 5] = [&Bare, &Vnet, &gre(), &OverIpv4(gre()), &Vxlan { rx_vni: 1, tx_vni: 2 }];
        for (i, h) in all.into_iter().enumerate() {
            for size in SIZES {
                assert!(looped(h, &tcp_frame(size - 54), CsumStatus::None), "header {i}, {size} bytes");
            }
        }
        let partial = CsumStatus::Partial { start: 34, offset: 16 };
        assert!(looped(&Vnet, &tcp_frame(100), partial));
        assert_eq!(segmentation(), 0);
    }

    #[test]
    fn a_header_that_loses_bytes_is_found() {
        struct Bad;
        impl Header for Bad {
            fn rx(&self, msg: &[u8]) -> Result<super::super::header::Stripped, DropReason> {
                super::super::header::Stripped::plain(msg, 5)
            }
            fn tx_len(&self) -> usize {
                4
            }
            fn tx(&self, _out: &mut [u8], _frame: Outgoing<'_>) {}
        }
        assert!(!looped(&Bad, &tcp_frame(100), CsumStatus::None));
    }
}
