//! Bitsets of the family: a mask and values, as words or as a list of bits with names.

use crate::Errno;
use crate::socket::netlink::attr::{self, Attr, Nack};
use net::rtnl::Msg;

const NOMASK: u16 = 1;
const SIZE: u16 = 2;
const BITS: u16 = 3;
const VALUE: u16 = 4;
const MASK: u16 = 5;
const BIT_INDEX: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;
/// NLA_F_NESTED.
const NESTED: u16 = 0x8000;

/// What a bitset says, of at most 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Bits it speaks of.
    pub mask: u64,
    /// Their values.
    pub value: u64,
}

/// A bitset to be written.
pub struct Bitset<'a> {
    /// Bits in all; those from 64 on are zero.
    pub size: u32,
    /// Values.
    pub value: u64,
    /// Bits that count; `None`: a mere list.
    pub mask: Option<u64>,
    /// Names of the bits, for the long form.
    pub names: &'a [&'a str],
}

fn words(v: u64, size: u32) -> Vec<u8> {
    let n = (size.div_ceil(32) * 4) as usize;
    let mut b = v.to_ne_bytes().to_vec();
    b.resize(n.max(8), 0);
    b.truncate(n);
    b
}

impl Bitset<'_> {
    /// Writes it as attribute `kind`.
    pub fn put(&self, m: &mut Msg, kind: u16, compact: bool) {
        m.nest(kind | NESTED, |m| {
            if self.mask.is_none() {
                m.attr(NOMASK, &[]);
            }
            m.attr_u32(SIZE, self.size);
            if compact {
                m.attr(VALUE, &words(self.value, self.size));
                if let Some(mask) = self.mask {
                    m.attr(MASK, &words(mask, self.size));
                }
                return;
            }
            m.nest(BITS | NESTED, |m| {
                for i in (0..self.size.min(64)).filter(|i| self.mask.unwrap_or(self.value) & (1 << i) != 0) {
                    m.nest(1 | NESTED, |m| {
                        m.attr_u32(BIT_INDEX, i);
                        if let Some(n) = self.names.get(i as usize).filter(|n| !n.is_empty()) {
                            m.attr_str(BIT_NAME, n);
                        }
                        if self.mask.is_some() && self.value & (1 << i) != 0 {
                            m.attr(BIT_VALUE, &[]);
                        }
                    });
                }
            });
        });
    }
}

fn bits_of(a: &Attr<'_>, size: u32) -> Result<u64, Nack> {
    let v = a.value();
    if !v.len().is_multiple_of(4) || v.len() > 64 {
        return Err(Nack::invalid("bitmap size mismatch", a));
    }
    let mut b = [0u8; 8];
    let n = v.len().min(8);
    b[..n].copy_from_slice(&v[..n]);
    let bits = u64::from_ne_bytes(b);
    let beyond = size < 64 && bits >> size != 0;
    if beyond || v.get(8..).is_some_and(|r| r.iter().any(|x| *x != 0)) {
        return Err(Nack::invalid("unexpected bit set", a));
    }
    Ok(bits)
}

/// Reads a bitset of `names.len()` bits, at most 64.
pub fn parse(a: &Attr<'_>, names: &[&str]) -> Result<Wish, Nack> {
    let size = u32::try_from(names.len().min(64)).unwrap_or(64);
    let all = u64::MAX >> (64 - size.max(1));
    let attrs = a.nested()?;
    let list = attr::find(&attrs, NOMASK).is_some();
    let Some(bits) = attr::find(&attrs, BITS) else {
        let value = attr::find(&attrs, VALUE).ok_or_else(|| Nack::invalid("bitset without values", a))?;
        if attr::find(&attrs, SIZE).is_none() {
            return Err(Nack::invalid("missing size in compact bitset", a));
        }
        let mask = attr::find(&attrs, MASK);
        let value = bits_of(&value, size)?;
        return match mask {
            Some(m) if list => Err(Nack::invalid("mask not allowed in list bitset", &m)),
            Some(m) => {
                let mask = bits_of(&m, size)?;
                Ok(Wish { mask, value: value & mask })
            }
            None if list => Ok(Wish { mask: all, value }),
            None => Err(Nack::invalid("missing mask in compact bitset", a)),
        };
    };
    if let Some(x) = attrs.iter().find(|x| matches!(x.kind, VALUE | MASK)) {
        return Err(Nack::invalid("value only allowed in compact bitset", x));
    }
    let mut w = Wish { mask: if list { all } else { 0 }, value: 0 };
    for bit in bits.nested()? {
        if bit.kind != 1 {
            return Err(Nack::invalid("only ETHTOOL_A_BITSET_BITS_BIT allowed", &bit));
        }
        let parts = bit.nested()?;
        let i = if let Some(x) = attr::find(&parts, BIT_INDEX) {
            let i = x.number()?;
            if i >= size {
                return Err(Nack { errno: Errno::EOPNOTSUPP, text: "bit index too high", at: x.at });
            }
            i
        } else if let Some(x) = attr::find(&parts, BIT_NAME) {
            let name = x.text()?;
            let at = names.iter().position(|n| !n.is_empty() && *n == name);
            let none = Nack { errno: Errno::EOPNOTSUPP, text: "bit name not found", at: x.at };
            at.and_then(|i| u32::try_from(i).ok()).filter(|i| *i < size).ok_or(none)?
        } else {
            return Err(Nack::invalid("neither bit index nor name specified", &bit));
        };
        w.mask |= 1 << i;
        if list || attr::find(&parts, BIT_VALUE).is_some() {
            w.value |= 1 << i;
        }
    }
    Ok(w)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["a", "b", "c"];

    fn round(b: &Bitset<'_>, compact: bool) -> Result<Wish, Nack> {
        let mut m = Msg::new(0, 0, 0, 0);
        b.put(&mut m, 7, compact);
        let m = m.finish();
        let attrs = attr::parse(&m, 16, m.len()).expect("well formed");
        parse(&attrs[0], &NAMES)
    }

    #[test]
    fn both_forms_are_read_back() {
        for compact in [false, true] {
            let b = Bitset { size: 3, value: 0b100, mask: Some(0b110), names: &NAMES };
            assert_eq!(round(&b, compact), Ok(Wish { mask: 0b110, value: 0b100 }));
            let b = Bitset { size: 3, value: 0b101, mask: None, names: &NAMES };
            assert_eq!(round(&b, compact), Ok(Wish { mask: 0b111, value: 0b101 }));
        }
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let b = Bitset { size: 9, value: 0b1_0000_0000, mask: None, names: &NAMES };
        assert_eq!(round(&b, true).map_err(|e| e.text), Err("unexpected bit set"));
        assert_eq!(round(&b, false).map_err(|e| e.text), Err("bit index too high"));
        let mut m = Msg::new(0, 0, 0, 0);
        m.nest(1, |m| m.nest(BITS, |m| m.nest(1, |m| m.attr_str(BIT_NAME, "nosuch"))));
        let m = m.finish();
        let a = attr::parse(&m, 16, m.len()).expect("well formed");
        assert_eq!(
            parse(&a[0], &NAMES),
            Err(Nack { errno: Errno::EOPNOTSUPP, text: "bit name not found", at: 28 })
        );
    }
}
