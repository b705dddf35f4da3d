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
        };
        if s.flags & SYN != 0 {
            s.options(&t[20..hlen]);
        }
        Some(s)
    }

    fn options(&mut self, mut o: &[u8]) {
        while let Some(&kind) = o.first() {
            match kind {
                0 => return,
                1 => o = &o[1..],
                _ => {
                    let Some(&len) = o.get(1) else { return };
                    let len = usize::from(len);
                    if len < 2 || len > o.len() {
                        return;
                    }
                    match (kind, &o[2..len]) {
                        (2, [a, b]) => self.mss = Some(u16::from_be_bytes([*a, *b])),
                        (3, [w]) => self.wscale = Some(*w),
                        _ => {}
                    }
                    o = &o[len..];
                }
            }
        }
    }

    /// Sequence space it takes.
    pub fn seq_len(&self) -> u32 {
        self.payload as u32 + u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0)
    }
}
