//! Numbers as C and the kernel's memparse() read them.

/// Reads an unsigned C integer (decimal, 0x, octal) from the front; gives it and what follows. `None` without a digit
/// or beyond 64 bits.
pub fn c_uint(text: &str) -> Option<(u64, &str)> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (radix, digits) = match hex {
        Some(h) if h.starts_with(|c: char| c.is_ascii_hexdigit()) => (16, h),
        _ if text.starts_with('0') => (8, text),
        _ => (10, text),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let value = u64::from_str_radix(digits.get(..end)?, radix).ok()?;
    Some((value, digits.get(end..)?))
}

/// A whole signed C integer.
pub fn c_int(text: &str) -> Option<i32> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(d) => (true, d),
        None => (false, text),
    };
    let (value, "") = c_uint(digits)? else { return None };
    let value = i64::try_from(value).ok()?;
    i32::try_from(if negative { -value } else { value }).ok()
}

/// A whole size with an optional suffix k, m, g, t, p or e of either case. `None` if it is not one or is beyond 64 bits.
pub fn size(text: &str) -> Option<u64> {
    let (value, suffix) = c_uint(text)?;
    let shift = match suffix {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        "p" | "P" => 50,
        "e" | "E" => 60,
        _ => return None,
    };
    value.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(c_uint("0x1fz"), Some((31, "z")));
        assert_eq!(c_uint("017"), Some((15, "")));
        assert_eq!(c_uint("0d"), Some((0, "d")));
        assert_eq!(c_uint("0x"), Some((0, "x")));
        assert_eq!(c_uint("99999999999999999999"), None);
        assert_eq!(c_uint("x"), None);
        assert_eq!(c_int("-1"), Some(-1));
        assert_eq!(c_int("--1"), None);
        assert_eq!(c_int("1a"), None);
        assert_eq!(size("0x40M"), Some(64 << 20));
        assert_eq!(size("64m"), Some(64 << 20));
        assert_eq!(size("67108864"), Some(64 << 20));
        assert_eq!(size("64MB"), None);
        assert_eq!(size("16E"), None);
        assert_eq!(size("M"), None);
    }
}
