//! Ethernet framing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of an Ethernet header.
pub const ETH_HLEN: usize = 14;
/// IPv4.
pub const ETH_P_IP: u16 = 0x0800;
/// ARP.
pub const ETH_P_ARP: u16 = 0x0806;
/// IPv6.
pub const ETH_P_IPV6: u16 = 0x86dd;
/// Everyone.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// A link-layer address.
pub type Mac = [u8; 6];

/// Destination, source and type of a frame.
pub fn parse(frame: &[u8]) -> Option<(Mac, Mac, u16)> {
    let h = frame.get(..ETH_HLEN)?;
    Some((h[..6].try_into().ok()?, h[6..12].try_into().ok()?, u16::from_be_bytes([h[12], h[13]])))
}

/// Writes a header into the first 14 bytes of `out` (which the caller has made room for).
pub fn write(out: &mut [u8], dst: Mac, src: Mac, proto: u16) {
    if let Some(h) = out.get_mut(..ETH_HLEN) {
        h[..6].copy_from_slice(&dst);
        h[6..12].copy_from_slice(&src);
        h[12..].copy_from_slice(&proto.to_be_bytes());
    }
}

/// True for group addresses (broadcast included).
pub fn is_multicast(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

/// True if the address can belong to a device.
pub fn is_valid(mac: Mac) -> bool {
    !is_multicast(mac) && mac != [0; 6]
}

/// Where multicast IP packets go (RFC 1112 section 6.4, RFC 2464 section 7).
pub fn multicast_mac(ip: IpAddr) -> Mac {
    match ip {
        IpAddr::V4(a) => {
            let o = Ipv4Addr::octets(&a);
            [0x01, 0x00, 0x5e, o[1] & 0x7f, o[2], o[3]]
        }
        IpAddr::V6(a) => {
            let o = Ipv6Addr::octets(&a);
            [0x33, 0x33, o[12], o[13], o[14], o[15]]
        }
    }
}
