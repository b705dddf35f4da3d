//! The TCP header.

/// No more data.
pub const FIN: u8 = 0x01;
/// Synchronise.
pub const SYN: u8 = 0x02;
/// Reset.
pub const RST: u8 = 0x04;
/// Push.
pub const PSH: u8 = 0x08;
/// The acknowledgement field counts.
pub const ACK: u8 = 0x10;

/// What a header says.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags.
    pub flags: u8,
    /// Window as it stands, not scaled.
    pub window: u16,
    /// Bytes of the header with options.
    pub hlen: usize,
    /// Bytes of payload.
    pub payload: usize,
    /// MSS option (SYN only).
    pub mss: Option<u16>,
    /// Window scale option (SYN only).
    pub wscale: Option<u8>,
    /// Where in the TCP header its value stands.
    pub wscale_at: usize,
    /// SACK permitted (SYN only).
    pub sack_ok: bool,
}

/// Options that any segment may have.
#[derive(Clone, Copy, Debug, Default)]
pub struct SegOpts {
    /// TSval and TSecr.
    pub ts: Option<(u32, u32)>,
    sacks: [(u32, u32); 4],
    n: usize,
}

fn word(b: &[u8]) -> u32 {
    b.get(..4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// Calls `f` with kind, place of the body and body of each option.
pub fn each_option(opts: &[u8], mut f: impl FnMut(u8, usize, &[u8])) {
    let mut at = 0;
    while let Some(&kind) = opts.get(at) {
        match kind {
            0 => return,
            1 => at += 1,
            _ => {
                let len = usize::from(opts.get(at + 1).copied().unwrap_or(0));
                let Some(body) = opts.get(at + 2..at + len) else { return };
                if len < 2 {
                    return;
                }
                f(kind, at + 2, body);
                at += len;
            }
        }
    }
}

impl SegOpts {
    /// Reads the options (the bytes behind the fixed header).
    pub fn parse(opts: &[u8]) -> Self {
        let mut o = Self::default();
        // The usual layout first: two fillers and a timestamp.
        if let [1, 1, 8, 10, ts @ ..] = opts
            && ts.len() == 8
        {
            o.ts = Some((word(ts), word(&ts[4..])));
            return o;
        }
        each_option(opts, |kind, _, body| match (kind, body.len()) {
            (8, 8) => o.ts = Some((word(body), word(&body[4..]))),
            (5, 8 | 16 | 24 | 32) => {
                o.n = 0;
                for b in body.chunks_exact(8) {
                    o.sacks[o.n] = (word(b), word(&b[4..]));
                    o.n += 1;
                }
            }
            _ => {}
        });
        o
    }

    /// The SACK blocks.
    pub fn sacks(&self) -> &[(u32, u32)] {
        &self.sacks[..self.n]
    }
}

impl Segment {
    /// Reads the header at `l4` of a packet that ends where `data` ends.
    pub fn parse(data: &[u8], l4: usize) -> Option<Self> {
        let t = data.get(l4..)?;
        let h = t.get(..20)?;
        let hlen = usize::from(h[12] >> 4) * 4;
        if hlen < 20 || hlen > t.len() {
            return None;
        }
        let mut s = Self {
            sport: u16::from_be_bytes([h[0], h[1]]),
            dport: u16::from_be_bytes([h[2], h[3]]),
            seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
            ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
            flags: h[13],
            window: u16::from_be_bytes([h[14], h[15]]),
            hlen,
            payload: t.len() - hlen,
            mss: None,
            wscale: None,
            wscale_at: 0,
            sack_ok: false,
        };
        if s.flags & SYN != 0 {
            s.options(&t[20..hlen]);
        }
        Some(s)
    }

    fn options(&mut self, opts: &[u8]) {
        each_option(opts, |kind, at, body| match (kind, body) {
            (2, [a, b]) => self.mss = Some(u16::from_be_bytes([*a, *b])),
            (3, [w]) => (self.wscale, self.wscale_at) = (Some(*w), 20 + at),
            (4, []) => self.sack_ok = true,
            _ => {}
        });
    }

    /// Sequence space it takes.
    pub fn seq_len(&self) -> u32 {
        self.payload as u32 + u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_in_any_order_and_hostile_ones() {
        let mut o = vec![1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0, 7];
        assert_eq!(SegOpts::parse(&o).ts, Some((5, 7)));
        o.extend_from_slice(&[1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]);
        let p = SegOpts::parse(&o);
        assert_eq!((p.ts, p.sacks()), (Some((5, 7)), &[(1, 2), (3, 4)][..]));
        for bad in [&[5, 0][..], &[5, 1], &[5], &[8, 10, 1], &[5, 11, 0], &[2, 255, 3]] {
            let p = SegOpts::parse(bad);
            assert!(p.ts.is_none() && p.sacks().is_empty());
        }
    }
}
