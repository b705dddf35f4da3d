//! The internet checksum (RFC 1071) and its incremental change (RFC 1624).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Adds up `data` as big-endian 16-bit words, an odd last byte padded with zero, onto `acc`. Fold with [`fold`].
///
/// The sum is computed in native order over 32-bit words, which is the same sum with its bytes swapped (RFC 1071
/// section 2B); the loop is written so that it becomes vector code.
pub fn sum(data: &[u8], acc: u32) -> u32 {
    let mut lanes = [0u64; 8];
    let mut blocks = data.chunks_exact(32);
    for b in &mut blocks {
        for (lane, w) in lanes.iter_mut().zip(b.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([w[0], w[1], w[2], w[3]]));
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let mut words = blocks.remainder().chunks_exact(2);
    for w in &mut words {
        total += u64::from(u16::from_ne_bytes([w[0], w[1]]));
    }
    if let [last] = words.remainder() {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    let native = fold64(total);
    acc + u32::from(u16::from_be_bytes(native.to_ne_bytes()))
}

fn fold64(mut s: u64) -> u16 {
    while s > 0xffff {
        s = (s & 0xffff) + (s >> 16);
    }
    s as u16
}

/// Folds a sum into 16 bits (not complemented).
pub fn fold(mut s: u32) -> u16 {
    while s > 0xffff {
        s = (s & 0xffff) + (s >> 16);
    }
    s as u16
}

/// The checksum field's value for `data` on top of `acc`.
pub fn checksum(data: &[u8], acc: u32) -> u16 {
    !fold(sum(data, acc))
}

/// Sum of the IPv4 pseudo header.
pub fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, len: usize) -> u32 {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    sum(&src.octets(), sum(&dst.octets(), u32::from(proto))) + (len >> 16) + (len & 0xffff)
}

/// Sum of the IPv6 pseudo header.
pub fn pseudo_v6(src: &Ipv6Addr, dst: &Ipv6Addr, proto: u8, len: usize) -> u32 {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    sum(&src.octets(), sum(&dst.octets(), u32::from(proto))) + (len >> 16) + (len & 0xffff)
}

/// Sum of the pseudo header of either version; zero if the versions differ.
pub fn pseudo(src: IpAddr, dst: IpAddr, proto: u8, len: usize) -> u32 {
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => pseudo_v4(s, d, proto, len),
        (IpAddr::V6(s), IpAddr::V6(d)) => pseudo_v6(&s, &d, proto, len),
        _ => 0,
    }
}

/// A checksum field after one 16-bit word it covers went from `old` to `new` (RFC 1624, equation 3).
pub fn update(field: u16, old: u16, new: u16) -> u16 {
    !fold(u32::from(!field) + u32::from(!old) + u32::from(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(data: &[u8]) -> u16 {
        let mut s = 0u32;
        for c in data.chunks(2) {
            s += u32::from(c[0]) << 8 | c.get(1).copied().map_or(0, u32::from);
            s = (s & 0xffff) + (s >> 16);
        }
        !(s as u16)
    }

    #[test]
    fn agrees_with_the_plain_definition() {
        let mut x = 1u32;
        let data: Vec<u8> = (0..70_000)
            .map(|_| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (x >> 24) as u8
            })
            .collect();
        for len in (0..200).chain([1460, 1461, 65_535, 70_000]) {
            assert_eq!(checksum(&data[..len], 0), naive(&data[..len]), "len {len}");
        }
        let ff = vec![0xff; 65_535];
        assert_eq!(checksum(&ff, 0), naive(&ff));
    }

    #[test]
    fn rfc1071_example_and_update() {
        let d = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&d, 0)), 0xddf2);
        let before = checksum(&d, 0);
        let mut e = d;
        e[2] = 0x12;
        assert_eq!(update(before, 0xf203, 0x1203), checksum(&e, 0));
    }
}
