//! TCP over IPv4 in Ethernet frames: a super-frame cut into segments, segments put together again. Bytes only, no calls.

/// Length of an Ethernet header.
const ETH: usize = 14;
/// Where TCP begins: only IP headers without options are touched.
pub const TCP: usize = ETH + 20;
/// Longest headers: Ethernet, IP, TCP with all options.
pub const MAX_HEADER: usize = TCP + 60;
/// Most payload of a super-frame, so that IP can still say its length.
const MAX_PAYLOAD: usize = 65535 - 20 - 60;
/// Most segments of one, so that a single write takes them.
const MAX_SEGMENTS: usize = 512;

const FIN: u8 = 1;
const PSH: u8 = 8;
const ACK: u8 = 16;
const CWR: u8 = 128;

/// A sum of 16-bit words in the order of this machine, not yet folded (RFC 1071).
pub fn sum(data: &[u8]) -> u64 {
    let (words, rest) = data.as_chunks::<4>();
    let mut tail = [0; 4];
    tail[..rest.len()].copy_from_slice(rest);
    words.iter().map(|w| u64::from(u32::from_ne_bytes(*w))).sum::<u64>() + u64::from(u32::from_ne_bytes(tail))
}

/// The sum in 16 bits, as it stands in a packet, without the complement.
pub fn fold(mut s: u64) -> [u8; 2] {
    while s > 0xffff {
        s = (s & 0xffff) + (s >> 16);
    }
    (s as u16).to_ne_bytes()
}

fn complement(b: [u8; 2]) -> [u8; 2] {
    [!b[0], !b[1]]
}

fn be16(b: &[u8], at: usize) -> usize {
    usize::from(b[at]) << 8 | usize::from(b[at + 1])
}

fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// Length of the headers of a TCP frame that can be cut or merged; `None` for any other.
pub fn headers(f: &[u8]) -> Option<usize> {
    if f.len() < TCP + 20 || f[12..15] != [8, 0, 0x45] || f[23] != 6 || f[20] & 0x3f != 0 || f[21] != 0 {
        return None;
    }
    let len = TCP + usize::from(f[46] >> 4) * 4;
    let whole = ETH + be16(f, 16);
    (len >= TCP + 20 && len <= whole && whole <= f.len()).then_some(len)
}

/// Writes lengths and the sum of the IP header; the pseudo-header's sum for a TCP part of `tcp` bytes comes back.
fn finish_ip(h: &mut [u8], tcp: usize) -> u64 {
    h[16..18].copy_from_slice(&((20 + tcp) as u16).to_be_bytes());
    h[24..26].fill(0);
    let s = complement(fold(sum(&h[ETH..TCP])));
    h[24..26].copy_from_slice(&s);
    let mut pseudo = [0; 12];
    pseudo[..8].copy_from_slice(&h[26..34]);
    pseudo[9] = 6;
    pseudo[10..].copy_from_slice(&(tcp as u16).to_be_bytes());
    sum(&pseudo)
}

/// Makes segment `i` of a super-frame: its headers go to `h`, its payload comes back as a range of `frame`. `len` is what [`headers`]
/// said, `mss` the payload of a segment. `None` behind the last one.
pub fn cut(frame: &[u8], len: usize, mss: usize, i: usize, h: &mut [u8]) -> Option<std::ops::Range<usize>> {
    let from = len + i * mss;
    if from >= frame.len() || mss == 0 {
        return None;
    }
    let to = frame.len().min(from + mss);
    let h = &mut h[..len];
    h.copy_from_slice(&frame[..len]);
    let id = (be16(frame, 18) as u16).wrapping_add(i as u16);
    h[18..20].copy_from_slice(&id.to_be_bytes());
    let seq = be32(frame, TCP + 4).wrapping_add((i * mss) as u32);
    h[TCP + 4..TCP + 8].copy_from_slice(&seq.to_be_bytes());
    if to < frame.len() {
        h[TCP + 13] &= !(FIN | PSH);
    }
    if i > 0 {
        h[TCP + 13] &= !CWR;
    }
    let pseudo = finish_ip(h, len - TCP + to - from);
    h[TCP + 16..TCP + 18].fill(0);
    let s = complement(fold(pseudo + sum(&h[TCP..]) + sum(&frame[from..to])));
    h[TCP + 16..TCP + 18].copy_from_slice(&s);
    Some(from..to)
}

/// Segments that follow one another, on their way to become one super-frame.
pub struct Run {
    head: [u8; MAX_HEADER],
    len: usize,
    /// Payload of all segments but the last.
    pub mss: usize,
    payload: usize,
    /// Segments so far.
    pub count: usize,
    closed: bool,
}

impl Run {
    /// Begins with a frame, if it can be merged at all; with the range of its payload.
    pub fn begin(f: &[u8]) -> Option<(Self, std::ops::Range<usize>)> {
        let len = headers(f)?;
        let end = ETH + be16(f, 16);
        if end == len || f[TCP + 13] & !(ACK | PSH) != 0 {
            return None;
        }
        let mut head = [0; MAX_HEADER];
        head[..len].copy_from_slice(&f[..len]);
        let mss = end - len;
        let closed = f[TCP + 13] & PSH != 0;
        Some((Self { head, len, mss, payload: mss, count: 1, closed }, len..end))
    }

    /// Takes the next frame if it continues this one.
    pub fn push(&mut self, f: &[u8]) -> Option<std::ops::Range<usize>> {
        let (next, range) = Self::begin(f)?;
        let h = &self.head;
        let same = !self.closed
            && self.count < MAX_SEGMENTS
            && next.len == self.len
            && next.mss <= self.mss
            && self.payload + next.mss <= MAX_PAYLOAD
            && h[..16] == f[..16]
            && h[22..24] == f[22..24]
            && h[26..TCP + 4] == f[26..TCP + 4]
            && be32(h, TCP + 4).wrapping_add(self.payload as u32) == be32(f, TCP + 4)
            && h[TCP + 8..TCP + 13] == f[TCP + 8..TCP + 13]
            && h[TCP + 20..self.len] == f[TCP + 20..self.len];
        if !same {
            return None;
        }
        self.head[TCP + 13] |= f[TCP + 13];
        // The window of the last one is the newest.
        self.head[TCP + 14..TCP + 16].copy_from_slice(&f[TCP + 14..TCP + 16]);
        self.payload += next.mss;
        self.count += 1;
        self.closed = next.closed || next.mss < self.mss;
        Some(range)
    }

    /// The headers of the whole, with the pseudo-header's sum where the checksum belongs.
    pub fn finish(&mut self) -> &[u8] {
        let h = &mut self.head[..self.len];
        let pseudo = fold(finish_ip(h, self.len - TCP + self.payload));
        h[TCP + 16..TCP + 18].copy_from_slice(&pseudo);
        h
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_HEADER, Run, TCP, cut, fold, headers, sum};

    fn frame(payload: usize) -> Vec<u8> {
        let mut f = vec![0x02; 12];
        f.extend([8, 0, 0x45, 0]);
        f.extend(((40 + 12 + payload) as u16).to_be_bytes());
        f.extend([0xff, 0xff, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 1, 10, 0, 2, 2]);
        f.extend([0, 80, 0x99, 0x99, 0xff, 0xff, 0xff, 0, 1, 2, 3, 4, 0x80, 0x18, 1, 0, 0, 0, 0, 0]);
        f.extend([1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
        f.extend((0..payload).map(|i| (i * 7 % 251) as u8));
        f
    }

    #[test]
    fn what_is_cut_can_be_merged() {
        let whole = frame(10_000);
        let len = headers(&whole).unwrap();
        assert_eq!(len, TCP + 32);
        let mut run: Option<Run> = None;
        let mut payload = Vec::new();
        for i in 0.. {
            let mut h = [0; MAX_HEADER];
            let Some(r) = cut(&whole, len, 1448, i, &mut h) else { break };
            let seg = [&h[..len], &whole[r]].concat();
            // A right checksum makes the whole sum up to all ones, header and pseudo-header included.
            assert_eq!(fold(sum(&seg[14..34])), [0xff, 0xff]);
            let tcp = (seg.len() - TCP) as u16;
            let pseudo = [&seg[26..34], &[0, 6], &tcp.to_be_bytes()].concat();
            assert_eq!(fold(sum(&pseudo) + sum(&seg[TCP..])), [0xff, 0xff]);
            let r = match &mut run {
                None => {
                    let (new, r) = Run::begin(&seg).unwrap();
                    run = Some(new);
                    r
                }
                Some(run) => run.push(&seg).unwrap(),
            };
            payload.extend_from_slice(&seg[r]);
        }
        let mut run = run.unwrap();
        assert_eq!((run.count, run.mss), (7, 1448));
        assert_eq!(payload, whole[len..]);
        let head = run.finish();
        assert_eq!(head[..18], whole[..18]);
        assert_eq!(head[TCP..TCP + 16], whole[TCP..TCP + 16]);
        assert!(Run::begin(&whole).unwrap().0.push(&whole).is_none(), "closed by PSH");
    }
}
