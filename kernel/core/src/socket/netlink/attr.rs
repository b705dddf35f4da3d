//! Attributes of a request, with the places where they lie, and refusals that name the place (extended acknowledgements).

use crate::Errno;

/// Bytes of an attribute's header.
const NLA_HDRLEN: usize = 4;
/// Bits of a type that say "nested" and "network byte order".
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Why a request is refused: the errno, and what NETLINK_EXT_ACK shows besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The errno.
    pub errno: Errno,
    /// What is wrong.
    pub text: &'static str,
    /// Offset of the attribute that is wrong in the message; 0 = none.
    pub at: usize,
}

impl From<Errno> for Nack {
    fn from(errno: Errno) -> Self {
        Self { errno, text: "", at: 0 }
    }
}

impl Nack {
    /// EINVAL because of an attribute.
    pub fn invalid(text: &'static str, a: &Attr<'_>) -> Self {
        Self { errno: Errno::EINVAL, text, at: a.at }
    }
}

/// One attribute.
#[derive(Clone, Copy)]
pub struct Attr<'a> {
    /// Its type.
    pub kind: u16,
    /// Where it begins in the message.
    pub at: usize,
    msg: &'a [u8],
    len: usize,
}

impl<'a> Attr<'a> {
    /// What it holds.
    pub fn value(&self) -> &'a [u8] {
        self.msg.get(self.at + NLA_HDRLEN..self.at + self.len).unwrap_or(&[])
    }

    /// Its number, of one to four bytes as the attribute is long.
    pub fn number(&self) -> Result<u32, Nack> {
        match *self.value() {
            [a] => Ok(a.into()),
            [a, b] => Ok(u16::from_ne_bytes([a, b]).into()),
            [a, b, c, d] => Ok(u32::from_ne_bytes([a, b, c, d])),
            _ => Err(Nack { errno: Errno::ERANGE, text: "invalid attribute length", at: self.at }),
        }
    }

    /// Its string up to the NUL.
    pub fn text(&self) -> Result<&'a str, Nack> {
        let v = self.value().split(|b| *b == 0).next().unwrap_or(&[]);
        std::str::from_utf8(v).map_err(|_| Nack::invalid("invalid string", self))
    }

    /// The attributes in it.
    pub fn nested(&self) -> Result<Vec<Attr<'a>>, Nack> {
        parse(self.msg, self.at + NLA_HDRLEN, self.at + self.len)
    }
}

/// Reads the attributes in `msg[from..to]`. EINVAL if one is cut off. There are at most `(to - from) / 4`.
pub fn parse(msg: &[u8], from: usize, to: usize) -> Result<Vec<Attr<'_>>, Nack> {
    let mut v = Vec::new();
    let mut at = from;
    while let Some(head) = msg.get(at..to.min(msg.len())).and_then(|r| r.first_chunk::<NLA_HDRLEN>()) {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        if len < NLA_HDRLEN || at + len > to {
            return Err(Nack { errno: Errno::EINVAL, text: "malformed attribute", at });
        }
        let kind = u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE_MASK;
        v.push(Attr { kind, at, msg, len });
        at += len.next_multiple_of(4);
    }
    Ok(v)
}

/// The last attribute of a type.
pub fn find<'a>(attrs: &[Attr<'a>], kind: u16) -> Option<Attr<'a>> {
    attrs.iter().rev().find(|a| a.kind == kind).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_keep_their_places_and_broken_ones_are_refused() {
        let msg = [0, 0, 5, 0, 1, 0, 7, 0, 0, 0, 8, 0, 2, 0x80, 1, 2, 3, 4];
        let v = parse(&msg, 2, msg.len()).expect("well formed");
        assert_eq!((v[0].kind, v[0].at, v[0].number()), (1, 2, Ok(7)));
        assert_eq!((v[1].kind, v[1].at, v[1].value()), (2, 10, &[1, 2, 3, 4][..]));
        for n in 0..msg.len() {
            let _ = parse(&msg[..n], 2, msg.len());
            let _ = parse(&msg, n, msg.len()).map(|v| v.iter().for_each(|a| drop(a.nested())));
        }
        assert!(parse(&[3, 0, 0, 0], 0, 4).is_err(), "shorter than its header");
        assert!(parse(&[9, 0, 0, 0, 1], 0, 5).is_err(), "longer than the message");
        assert!(find(&v, 3).is_none());
    }
}
