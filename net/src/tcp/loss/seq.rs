//! Comparison of sequence numbers, which wrap (RFC 9293 section 3.4).

/// `a` comes before `b`.
pub fn lt(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// `a` comes before `b` or is it.
pub fn le(a: u32, b: u32) -> bool {
    !lt(b, a)
}

/// The later one.
pub fn max(a: u32, b: u32) -> u32 {
    if lt(a, b) { b } else { a }
}

/// The earlier one.
pub fn min(a: u32, b: u32) -> u32 {
    if lt(a, b) { a } else { b }
}
