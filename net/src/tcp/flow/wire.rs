//! Small surgery on packets that are an IP header, a TCP header and payload: options, windows, cutting, building.

use crate::csum;
use crate::skb::Skb;
use klib::ktime::Ktime;

use super::super::segment::each_option;

/// Timestamps of a connection (RFC 7323): milliseconds from a random start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamps {
    offset: u32,
    /// What the peer's next stamp must not be older than (TS.Recent), and when it came.
    recent: Option<(u32, Ktime)>,
}

/// A stamp older than this says nothing (RFC 7323 section 5.5).
const STALE_SECS: u64 = 24 * 86_400;

impl Stamps {
    pub(super) fn new(offset: u32) -> Self {
        Self { offset, recent: None }
    }

    /// TSval now.
    pub(super) fn value(&self, now: Ktime) -> u32 {
        ((now.as_ns() / 1_000_000) as u32).wrapping_add(self.offset)
    }

    /// TSecr.
    pub(super) fn echo(&self) -> u32 {
        self.recent.map_or(0, |r| r.0)
    }

    /// Age of an echoed stamp of ours; `None` if it cannot be one.
    pub(super) fn age(&self, echo: u32, now: Ktime) -> Option<std::time::Duration> {
        let ms = self.value(now).wrapping_sub(echo);
        (echo != 0 && ms < 1 << 24).then(|| std::time::Duration::from_millis(u64::from(ms)))
    }

    /// True if a segment with this stamp is a stray from long ago (PAWS).
    pub(super) fn is_old(&self, val: u32, now: Ktime) -> bool {
        self.recent
            .is_some_and(|(r, at)| (val.wrapping_sub(r) as i32) < 0 && now.since(at).as_secs() < STALE_SECS)
    }

    /// A stamp of a segment that does not lie behind what was acknowledged.
    pub(super) fn set(&mut self, val: u32, now: Ktime) {
        self.recent = Some((val, now));
    }
}

/// The timestamp option with its two fillers.
pub(super) fn ts_option(val: u32, echo: u32) -> [u8; 12] {
    let mut o = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    o[4..8].copy_from_slice(&val.to_be_bytes());
    o[8..].copy_from_slice(&echo.to_be_bytes());
    o
}

/// Puts the timestamp option into the place that a data segment has for it.
pub(super) fn stamp(skb: &mut Skb, l4: usize, hlen: usize, val: u32, echo: u32) {
    if hlen == 32
        && let Some(o) = skb.data_mut().get_mut(l4 + 20..l4 + 32)
    {
        o.copy_from_slice(&ts_option(val, echo));
    }
}

fn option_at(skb: &Skb, l4: usize, hlen: usize, wanted: u8) -> Option<usize> {
    let mut found = None;
    each_option(skb.data().get(l4 + 20..l4 + hlen)?, |kind, at, _| {
        if kind == wanted {
            found = Some(l4 + 20 + at);
        }
    });
    found
}

/// Writes the stamps of a SYN, whose options stand in some order.
pub(super) fn stamp_syn(skb: &mut Skb, l4: usize, hlen: usize, val: u32, echo: u32) {
    if let Some(at) = option_at(skb, l4, hlen, 8)
        && let Some(o) = skb.data_mut().get_mut(at..at + 8)
    {
        o.copy_from_slice(&ts_option(val, echo)[4..]);
    }
}

/// Makes fillers of an option without body.
pub(super) fn blank_option(skb: &mut Skb, l4: usize, hlen: usize, kind: u8) {
    if let Some(at) = option_at(skb, l4, hlen, kind)
        && let Some(o) = skb.data_mut().get_mut(at - 2..at)
    {
        o.fill(1);
    }
}

/// Writes the IP length of a packet that is `len` bytes long, and the IPv4 checksum.
fn set_len(d: &mut [u8], l4: usize) {
    let len = d.len();
    if l4 == 20 {
        d[2..4].copy_from_slice(&u16::try_from(len).unwrap_or(0).to_be_bytes());
        d[10..12].fill(0);
        let c = csum::checksum(&d[..20], 0);
        d[10..12].copy_from_slice(&c.to_be_bytes());
    } else {
        d[4..6].copy_from_slice(&u16::try_from(len - l4).unwrap_or(0).to_be_bytes());
    }
}

/// Gives a segment without payload these options (a multiple of four bytes).
pub(super) fn set_options(skb: &mut Skb, l4: usize, hlen: usize, options: &[u8]) {
    if skb.len() != l4 + hlen {
        return;
    }
    skb.trim(l4 + 20);
    skb.put(options.len()).copy_from_slice(options);
    let d = skb.data_mut();
    d[l4 + 12] = (((20 + options.len()) / 4) << 4) as u8;
    set_len(d, l4);
}

/// Cuts `n` bytes of payload off the front of a segment.
pub(super) fn cut_front(skb: &mut Skb, l4: usize, hlen: usize, n: u32) -> bool {
    let cut = n as usize;
    if skb.len() < hlen + cut {
        return false;
    }
    let d = skb.data_mut();
    d.copy_within(..hlen, cut);
    skb.pull(cut);
    let d = skb.data_mut();
    let seq = u32::from_be_bytes([d[l4 + 4], d[l4 + 5], d[l4 + 6], d[l4 + 7]]).wrapping_add(n);
    d[l4 + 4..l4 + 8].copy_from_slice(&seq.to_be_bytes());
    set_len(d, l4);
    true
}

/// A header for `len` bytes of payload: IP and TCP as in `pattern`, with these fields. The checksum is left to `Partial`.
pub(super) fn build(d: &mut [u8], pattern: &[u8], options: &[u8], seq: u32, flags: u8) {
    let l4 = pattern.len() - 20;
    d[..l4 + 20].copy_from_slice(pattern);
    d[l4 + 20..l4 + 20 + options.len()].copy_from_slice(options);
    d[l4 + 4..l4 + 8].copy_from_slice(&seq.to_be_bytes());
    d[l4 + 12] = (((20 + options.len()) / 4) << 4) as u8;
    d[l4 + 13] = flags;
    set_len(d, l4);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skb::SkbPool;

    #[test]
    fn cut_and_options_keep_the_header_right() {
        let pool = SkbPool::new();
        let mut s = pool.alloc(2000);
        let d = s.put(20 + 20 + 100);
        d.fill(0);
        d[0] = 0x45;
        d[32] = 0x50;
        for (i, b) in d[40..].iter_mut().enumerate() {
            *b = i as u8;
        }
        assert!(cut_front(&mut s, 20, 40, 30));
        assert_eq!((s.len(), s.data()[40], s.data()[3], s.data()[27]), (110, 30, 110, 30));
        assert_eq!(csum::checksum(&s.data()[..20], 0), 0);
        assert!(!cut_front(&mut s, 20, 40, 71));
        s.trim(40);
        set_options(&mut s, 20, 20, &ts_option(1, 2));
        assert_eq!((s.len(), s.data()[32]), (52, 0x80));
        assert_eq!(option_at(&s, 20, 32, 8), Some(44));
        let mut st = Stamps::new(u32::MAX - 5);
        let t = |ms: u64| Ktime(ms * 1_000_000);
        assert_eq!(st.value(t(10)), 4);
        assert_eq!(st.age(st.value(t(10)), t(35)), Some(std::time::Duration::from_millis(25)));
        assert_eq!(st.age(100, t(10)), None);
        st.set(5, t(1));
        assert!(st.is_old(4, t(2)) && !st.is_old(6, t(2)) && !st.is_old(4, t(STALE_SECS * 1000 + 2)));
    }
}
