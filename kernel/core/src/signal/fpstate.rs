//! The floating point image in a signal frame: written from a known-good image, read back as hostile input.
//!
//! Layout (arch/x86/include/uapi/asm/sigcontext.h, Intel SDM 13.4): 512 legacy bytes, of which the last 48 hold the
//! software part `_fpx_sw_bytes`; a header of 64 bytes; the components; then a second magic number.

/// Bytes of the legacy area.
const LEGACY: usize = 512;
/// Offset of `_fpx_sw_bytes`: magic1, extended_size, xfeatures (u64), xstate_size.
const SW: usize = 464;
/// Offset of the XSAVE header: XSTATE_BV, XCOMP_BV, zeros.
const HEADER: usize = 512;
const HEADER_END: usize = 576;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
/// What x87 and SSE registers hold after a reset.
const FCW_INIT: u16 = 0x37f;
const MXCSR_INIT: u32 = 0x1f80;

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    b.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

fn put(b: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(d) = b.get_mut(at..at + bytes.len()) {
        d.copy_from_slice(bytes);
    }
}

/// Size and features of the extended part of a known-good image; `None` if it is a legacy image.
fn extended(good: &[u8]) -> Option<(usize, u64)> {
    if u32_at(good, SW)? != MAGIC1 {
        return None;
    }
    let size = u32_at(good, SW + 16)? as usize;
    let features = u64_at(good, SW + 8)?;
    (size >= HEADER_END && size <= good.len()).then_some((size, features))
}

/// Bytes that a frame needs for this image.
pub fn frame_size(good: &[u8]) -> usize {
    match extended(good) {
        Some((size, _)) => size + 4,
        None => good.len().min(LEGACY),
    }
}

/// The bytes of the frame: the image with both magic numbers in place. Empty if there is no image.
pub fn to_frame(good: &[u8]) -> Vec<u8> {
    match extended(good) {
        Some((size, _)) => {
            let mut out = good[..size].to_vec();
            #[allow(clippy::cast_possible_truncation)]
            put(&mut out, SW + 4, &(size as u32 + 4).to_ne_bytes());
            out.extend_from_slice(&MAGIC2.to_ne_bytes());
            out
        }
        None => good[..good.len().min(LEGACY)].to_vec(),
    }
}

/// Puts the registers into the state that a new program starts with, keeping the image's shape.
pub fn reset(good: &mut [u8]) {
    let sw = good.get(SW..LEGACY).map(<[u8]>::to_vec);
    let mask = u32_at(good, MXCSR_MASK);
    let end = extended(good).map_or(LEGACY, |(size, _)| size).min(good.len());
    good[..end].fill(0);
    put(good, 0, &FCW_INIT.to_ne_bytes());
    put(good, MXCSR, &MXCSR_INIT.to_ne_bytes());
    put(good, MXCSR_MASK, &mask.unwrap_or(0).to_ne_bytes());
    if let Some(sw) = sw {
        put(good, SW, &sw);
    }
}

/// Takes the registers out of `user` (what the guest left in its frame, as many bytes as it could be read) into
/// `good`, which keeps its own shape: sizes, magic numbers and header stay the host's. A frame without valid extended
/// part gives the legacy registers only. `false` if not even those are there.
pub fn from_frame(good: &mut [u8], user: &[u8]) -> bool {
    if good.len() < LEGACY {
        return true;
    }
    if user.len() < LEGACY {
        return false;
    }
    let ext = extended(good);
    let mask = match u32_at(good, MXCSR_MASK) {
        Some(0) | None => 0xffbf,
        Some(m) => m,
    };
    let user_ext = ext.is_some_and(|(size, _)| {
        u32_at(user, SW) == Some(MAGIC1)
            && u32_at(user, SW + 16).is_some_and(|s| s as usize == size)
            && u32_at(user, size) == Some(MAGIC2)
    });
    reset(good);
    // x87 and SSE registers; the software part and MXCSR_MASK stay.
    put(good, 0, &user[..MXCSR_MASK]);
    put(good, MXCSR_MASK + 4, &user[MXCSR_MASK + 4..SW]);
    let mxcsr = u32_at(user, MXCSR).unwrap_or(MXCSR_INIT) & mask;
    put(good, MXCSR, &mxcsr.to_ne_bytes());
    if let Some((size, features)) = ext {
        const X87_SSE: u64 = 3;
        let bv = if user_ext {
            put(good, HEADER_END, &user[HEADER_END..size]);
            u64_at(user, HEADER).unwrap_or(0) & features
        } else {
            X87_SSE & features
        };
        put(good, HEADER, &bv.to_ne_bytes());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Vec<u8> {
        let mut b = vec![0u8; 832 + 4];
        put(&mut b, SW, &MAGIC1.to_ne_bytes());
        put(&mut b, SW + 4, &836u32.to_ne_bytes());
        put(&mut b, SW + 8, &7u64.to_ne_bytes());
        put(&mut b, SW + 16, &832u32.to_ne_bytes());
        put(&mut b, MXCSR_MASK, &0xffffu32.to_ne_bytes());
        put(&mut b, 832, &MAGIC2.to_ne_bytes());
        b
    }

    #[test]
    fn frame_round_trips() {
        let mut a = image();
        put(&mut a, HEADER, &7u64.to_ne_bytes());
        a[160] = 0xaa;
        a[600] = 0xbb;
        let f = to_frame(&a);
        assert_eq!(f.len(), frame_size(&a));
        let mut back = image();
        assert!(from_frame(&mut back, &f));
        assert_eq!(back, a);
    }

    #[test]
    fn hostile_frames_keep_the_hosts_shape() {
        let good = image();
        let mut f = to_frame(&good);
        put(&mut f, SW + 16, &0xffff_ffffu32.to_ne_bytes());
        put(&mut f, HEADER, &u64::MAX.to_ne_bytes());
        put(&mut f, HEADER + 8, &u64::MAX.to_ne_bytes());
        put(&mut f, MXCSR, &u32::MAX.to_ne_bytes());
        let mut back = image();
        assert!(from_frame(&mut back, &f));
        assert_eq!(u32_at(&back, SW + 16), Some(832));
        assert_eq!(u64_at(&back, HEADER), Some(3));
        assert_eq!(u64_at(&back, HEADER + 8), Some(0));
        assert_eq!(u32_at(&back, MXCSR), Some(0xffff));
        // With the right size the mask of features still holds.
        put(&mut f, SW + 16, &832u32.to_ne_bytes());
        assert!(from_frame(&mut back, &f));
        assert_eq!(u64_at(&back, HEADER), Some(7));
        assert_eq!(u64_at(&back, HEADER + 8), Some(0));
        assert!(!from_frame(&mut back, &f[..100]));
    }
}
