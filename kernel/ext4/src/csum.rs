//! Checksums: crc32c as ext4 and JBD2 use it (no inversion at the end), crc16 of `uninit_bg`, crc32 of old journals.

/// Continues `crc` over `data`. ext4 keeps the register itself, the crate its complement.
pub(crate) fn crc32c(crc: u32, data: &[u8]) -> u32 {
    !crc32c::crc32c_append(!crc, data)
}

/// Continues `crc` over `data` with the `n` bytes at `off` taken as zeros (where the checksum itself is stored).
pub(crate) fn crc32c_with_hole(crc: u32, data: &[u8], off: usize, n: usize) -> u32 {
    const ZEROS: [u8; 8] = [0; 8];
    let end = off.saturating_add(n).min(data.len());
    let crc = crc32c(crc, data.get(..off).unwrap_or(data));
    let crc = crc32c(crc, ZEROS.get(..n).unwrap_or(&ZEROS));
    crc32c(crc, data.get(end..).unwrap_or(&[]))
}

/// CRC-16 (polynomial 0xa001 reflected), of group descriptors under `uninit_bg`.
pub(crate) fn crc16(mut crc: u16, data: &[u8]) -> u16 {
    for &b in data {
        crc ^= u16::from(b);
        for _ in 0..8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0xa001 } else { crc >> 1 };
        }
    }
    crc
}

const CRC32_BE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut i = 0;
    while i < 256 {
        let mut c = (i as u32) << 24;
        let mut k = 0;
        while k < 8 {
            c = if c & 0x8000_0000 != 0 { c << 1 ^ 0x04c1_1db7 } else { c << 1 };
            k += 1;
        }
        table[i] = c;
        i += 1;
    }
    table
};

/// CRC-32, most significant bit first, of journals with the compatible `checksum` feature.
pub(crate) fn crc32_be(mut crc: u32, data: &[u8]) -> u32 {
    for &b in data {
        let i = (crc >> 24) as u8 ^ b;
        crc = crc << 8 ^ CRC32_BE[usize::from(i)];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // Check values of the CRC catalogue for "123456789".
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(crc16(0xffff, b"123456789"), 0x4b37);
        assert_eq!(!crc32_be(!0, b"123456789"), 0xfc89_1918);
        assert_eq!(crc32c_with_hole(!0, b"1234xx789", 4, 2), crc32c(!0, b"1234\0\x00789"));
    }
}
