//! Ethernet over L2TPv3 (RFC 3931, RFC 4719), static sessions without the default sublayer (a Linux peer says
//! `l2spec_type none`). Over UDP a word with flags and version stands in front; then session, cookie, and the word that
//! User-Mode Linux and QEMU call the counter.

use super::{Sequence, Writer, be16, be32, be64};
use crate::vector::header::{DropReason, Header, Outgoing, Stripped};

/// A data message of version 3 (RFC 3931, 4.1.2.1).
const UDP_WORD: u32 = 0x0003_0000;
/// Bits of it that are looked at: T (control message) and the version.
const UDP_MASK: u16 = 0x800f;

/// How the messages of a session look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct L2tpv3Config {
    /// Over UDP; else over IP protocol 115.
    pub udp: bool,
    /// Session expected.
    pub rx_session: u32,
    /// Session sent.
    pub tx_session: u32,
    /// Cookies: (expected, sent).
    pub cookie: Option<(u64, u64)>,
    /// Cookies of 64 bits; else the lower 32.
    pub cookie64: bool,
    /// There is a counter. That of received messages is not looked at.
    pub counter: bool,
    /// The counter is always 0.
    pub pin_counter: bool,
    /// Bytes between the header and the frame (QEMU's `offset`), zero when sent, not looked at when received.
    pub offset: u8,
}

/// Header of an L2TPv3 session.
#[derive(Debug)]
pub struct L2tpv3 {
    cfg: L2tpv3Config,
    counter: Sequence,
}

impl L2tpv3 {
    /// A session that has sent nothing yet.
    pub fn new(cfg: L2tpv3Config) -> Self {
        Self { cfg, counter: Sequence::new(cfg.pin_counter) }
    }

    fn cookie_len(&self) -> usize {
        match (self.cfg.cookie, self.cfg.cookie64) {
            (None, _) => 0,
            (Some(_), false) => 4,
            (Some(_), true) => 8,
        }
    }
}

impl Header for L2tpv3 {
    fn rx(&self, msg: &[u8]) -> Result<Stripped, DropReason> {
        let c = &self.cfg;
        let mut at = 0;
        if c.udp {
            if be16(msg, 0)? & UDP_MASK != (UDP_WORD >> 16) as u16 {
                return Err(DropReason::Header);
            }
            at += 4;
        }
        if be32(msg, at)? != c.rx_session {
            return Err(DropReason::Key);
        }
        at += 4;
        if let Some((want, _)) = c.cookie {
            let same = if c.cookie64 {
                be64(msg, at)? == want
            } else {
                u64::from(be32(msg, at)?) == want & 0xffff_ffff
            };
            if !same {
                return Err(DropReason::Cookie);
            }
            at += self.cookie_len();
        }
        if c.counter {
            at += 4;
        }
        Stripped::plain(msg, at + usize::from(c.offset))
    }

    fn tx_len(&self) -> usize {
        let c = &self.cfg;
        let words = usize::from(c.udp) + 1 + usize::from(c.counter);
        4 * words + self.cookie_len() + usize::from(c.offset)
    }

    fn tx(&self, out: &mut [u8], _frame: Outgoing<'_>) {
        let c = &self.cfg;
        let mut w = Writer(out);
        if c.udp {
            w.put(&UDP_WORD.to_be_bytes());
        }
        w.put(&c.tx_session.to_be_bytes());
        match c.cookie {
            Some((_, cookie)) if c.cookie64 => w.put(&cookie.to_be_bytes()),
            Some((_, cookie)) => w.put(&(cookie as u32).to_be_bytes()),
            None => {}
        }
        if c.counter {
            w.put(&self.counter.next().to_be_bytes());
        }
        w.0.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{frame, head, hex, inner, wire};
    use super::*;

    #[test]
    fn layouts() {
        let udp = L2tpv3Config {
            udp: true,
            tx_session: 0x22,
            cookie: Some((0, 0x1122_3344_5566_7788)),
            cookie64: true,
            counter: true,
            ..L2tpv3Config::default()
        };
        let s = L2tpv3::new(udp);
        assert_eq!(head(&s), hex("00030000 00000022 1122334455667788 00000001"));
        assert_eq!(head(&s), hex("00030000 00000022 1122334455667788 00000002"));
        let ip = L2tpv3Config {
            tx_session: 0x66,
            cookie: Some((0, 0x88)),
            counter: true,
            ..L2tpv3Config::default()
        };
        assert_eq!(head(&L2tpv3::new(ip)), hex("00000066 00000088 00000001"));
        assert_eq!(
            head(&L2tpv3::new(L2tpv3Config { pin_counter: true, ..ip })),
            hex("00000066 00000088 00000000")
        );
        let least = L2tpv3Config { tx_session: 0xffff_ffff, ..L2tpv3Config::default() };
        assert_eq!(head(&L2tpv3::new(least)), hex("ffffffff"));
        assert_eq!(
            head(&L2tpv3::new(L2tpv3Config { udp: true, offset: 6, ..least })),
            hex("00030000 ffffffff 000000000000")
        );
    }

    #[test]
    fn what_is_sent_is_understood_and_nothing_else() {
        let f = frame(64);
        for udp in [false, true] {
            for cookie64 in [false, true] {
                let ours = L2tpv3Config {
                    udp,
                    rx_session: 0x11,
                    tx_session: 0x22,
                    cookie: Some((0xaa_0000_0001, 0xbb_0000_0002)),
                    cookie64,
                    counter: true,
                    ..L2tpv3Config::default()
                };
                let peer = L2tpv3Config {
                    rx_session: 0x22,
                    tx_session: 0x11,
                    cookie: Some((0xbb_0000_0002, 0xaa_0000_0001)),
                    ..ours
                };
                let w = wire(&L2tpv3::new(peer), &f);
                let ours = L2tpv3::new(ours);
                assert_eq!(inner(&ours, &w), Ok(&f[..]));
                let session = if udp { 7 } else { 3 };
                for (at, why) in [(session, DropReason::Key), (session + 4, DropReason::Cookie)] {
                    let mut bad = w.clone();
                    bad[at] ^= 1;
                    assert_eq!(inner(&ours, &bad), Err(why));
                }
                let head = ours.tx_len();
                for cut in 0..head + 14 {
                    assert_eq!(inner(&ours, &w[..cut]), Err(DropReason::Short), "{cut}");
                }
                assert_eq!(inner(&ours, &w[..head + 14]), Ok(&f[..14]));
            }
        }
        let s = L2tpv3::new(L2tpv3Config { udp: true, ..L2tpv3Config::default() });
        for (word, ok) in [("0003", true), ("8003", false), ("0002", false), ("4003", true)] {
            let w = hex(&format!("{word}0000 00000000 00112233445566778899aabbccdd"));
            assert_eq!(inner(&s, &w).is_ok(), ok, "{word}");
        }
    }
}
