//! Hashes of names for htree directories. The numbers on disk depend on every detail here, signedness included.

/// `DX_HASH_*` as stored; the unsigned variants are +3 and chosen by a superblock flag.
pub(crate) const DX_HASH_LEGACY: u8 = 0;
pub(crate) const DX_HASH_HALF_MD4: u8 = 1;
pub(crate) const DX_HASH_TEA: u8 = 2;

/// `EXT4_HTREE_EOF_32BIT`, which no hash may be.
const HTREE_EOF: u32 = 0x7fff_ffff;

fn char_value(c: u8, unsigned: bool) -> u32 {
    if unsigned { u32::from(c) } else { c as i8 as u32 }
}

/// The classic hash of the first htree code.
fn legacy(name: &[u8], unsigned: bool) -> u32 {
    let (mut hash0, mut hash1) = (0x12a3_fe2du32, 0x37ab_e8f9u32);
    for &c in name {
        let mixed = hash0 ^ char_value(c, unsigned).wrapping_mul(7_152_373);
        let mut hash = hash1.wrapping_add(mixed);
        if hash & 0x8000_0000 != 0 {
            hash = hash.wrapping_sub(0x7fff_ffff);
        }
        hash1 = hash0;
        hash0 = hash;
    }
    hash0 << 1
}

/// Packs up to `N * 4` bytes of the rest of a name into words, padded with its length.
fn words<const N: usize>(rest: &[u8], unsigned: bool) -> [u32; N] {
    let len = rest.len() as u32;
    let pad = len | len << 8;
    let pad = pad | pad << 16;
    let mut out = [pad; N];
    for (word, chunk) in out.iter_mut().zip(rest.chunks(4)) {
        *word = chunk.iter().fold(pad, |v, &c| char_value(c, unsigned).wrapping_add(v << 8));
    }
    out
}

fn half_md4(buf: &mut [u32; 4], x: &[u32; 8]) {
    const K2: u32 = 0x5a82_7999;
    const K3: u32 = 0x6ed9_eba1;
    let f = |x: u32, y: u32, z: u32| z ^ (x & (y ^ z));
    let g = |x: u32, y: u32, z: u32| (x & y).wrapping_add((x ^ y) & z);
    let h = |x: u32, y: u32, z: u32| x ^ y ^ z;
    let mut s = *buf;
    let mut round = |func: &dyn Fn(u32, u32, u32) -> u32, k: u32, order: [usize; 8], shifts: [u32; 4]| {
        for (i, &w) in order.iter().enumerate() {
            let [a, b, c, d] = s;
            let sum = a.wrapping_add(func(b, c, d)).wrapping_add(x[w]).wrapping_add(k);
            // The registers move on by one each step: what was d is the next to be written.
            s = [d, sum.rotate_left(shifts[i % 4]), b, c];
        }
    };
    round(&f, 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]);
    round(&g, K2, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]);
    round(&h, K3, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]);
    for (b, v) in buf.iter_mut().zip(s) {
        *b = b.wrapping_add(v);
    }
}

fn tea(buf: &mut [u32; 4], x: &[u32; 4]) {
    let [mut b0, mut b1, ..] = *buf;
    let mut sum = 0u32;
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        b0 = b0
            .wrapping_add((b1 << 4).wrapping_add(x[0]) ^ b1.wrapping_add(sum) ^ (b1 >> 5).wrapping_add(x[1]));
        b1 = b1
            .wrapping_add((b0 << 4).wrapping_add(x[2]) ^ b0.wrapping_add(sum) ^ (b0 >> 5).wrapping_add(x[3]));
    }
    buf[0] = buf[0].wrapping_add(b0);
    buf[1] = buf[1].wrapping_add(b1);
}

/// The major hash of a name, or nothing for a hash that is not known.
pub(crate) fn dx_hash(name: &[u8], version: u8, unsigned: bool, seed: &[u32; 4]) -> Option<u32> {
    let mut buf = if *seed == [0; 4] { [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476] } else { *seed };
    let mut rest = name;
    let hash = match version {
        DX_HASH_LEGACY => legacy(name, unsigned),
        DX_HASH_HALF_MD4 => {
            while !rest.is_empty() {
                half_md4(&mut buf, &words::<8>(rest, unsigned));
                rest = rest.get(32..).unwrap_or(&[]);
            }
            buf[1]
        }
        DX_HASH_TEA => {
            while !rest.is_empty() {
                tea(&mut buf, &words::<4>(rest, unsigned));
                rest = rest.get(16..).unwrap_or(&[]);
            }
            buf[0]
        }
        _ => return None,
    } & !1;
    Some(if hash == HTREE_EOF << 1 { (HTREE_EOF - 1) << 1 } else { hash })
}
