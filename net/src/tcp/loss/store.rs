//! Copies of unacknowledged bytes, kept only while something has to be sent again.

use std::collections::VecDeque;

/// A run of bytes of the stream that starts at a sequence number.
#[derive(Default, Debug)]
pub struct Store {
    on: bool,
    base: u32,
    data: VecDeque<u8>,
}

impl Store {
    /// Starts to collect at `seq`.
    pub fn begin(&mut self, seq: u32) {
        self.on = true;
        self.base = seq;
        self.data.clear();
    }

    /// Throws everything away.
    pub fn end(&mut self) {
        self.on = false;
        self.data = VecDeque::new();
    }

    /// True while it collects.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// The sequence number behind what is held.
    pub fn next(&self) -> u32 {
        self.base.wrapping_add(self.data.len() as u32)
    }

    /// Takes bytes that begin at `seq`: what lies behind the end of the run and joins it is kept.
    pub fn put(&mut self, seq: u32, bytes: &[u8]) {
        if !self.on {
            return;
        }
        let skip = self.next().wrapping_sub(seq) as usize;
        if let Some(fresh) = bytes.get(skip..) {
            self.data.extend(fresh);
        }
    }

    /// Forgets what lies before `seq`.
    pub fn acked(&mut self, seq: u32) {
        let n = seq.wrapping_sub(self.base);
        if self.on && (n as i32) > 0 {
            let n = (n as usize).min(self.data.len());
            self.data.drain(..n);
            self.base = seq;
        }
    }

    /// True if all of `[start, end)` is held.
    pub fn covers(&self, start: u32, end: u32) -> bool {
        let at = start.wrapping_sub(self.base) as usize;
        let len = end.wrapping_sub(start) as usize;
        self.on && at <= self.data.len() && len <= self.data.len() - at
    }

    /// Copies bytes from `seq` on to `out`; false if they are not all held.
    pub fn copy(&self, seq: u32, out: &mut [u8]) -> bool {
        if !self.covers(seq, seq.wrapping_add(out.len() as u32)) {
            return false;
        }
        let at = seq.wrapping_sub(self.base) as usize;
        let (a, b) = self.data.as_slices();
        let first = a.get(at..).unwrap_or(&[]);
        let n = first.len().min(out.len());
        out[..n].copy_from_slice(&first[..n]);
        let at = at.saturating_sub(a.len());
        let rest = out.len() - n;
        if let Some(second) = b.get(at..at + rest) {
            out[n..].copy_from_slice(second);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_a_run_across_the_wrap() {
        let mut s = Store::default();
        s.put(5, b"ignored");
        assert!(!s.covers(5, 6));
        let base = u32::MAX - 2;
        s.begin(base);
        s.put(base, b"abcdef");
        s.put(base.wrapping_add(3), b"defghi");
        s.put(base.wrapping_add(20), b"gap");
        assert_eq!(s.next(), base.wrapping_add(9));
        let mut out = [0; 4];
        assert!(s.copy(base.wrapping_add(4), &mut out));
        assert_eq!(&out, b"efgh");
        s.acked(base.wrapping_add(6));
        assert!(!s.copy(base.wrapping_add(5), &mut out) && s.covers(base.wrapping_add(6), s.next()));
        s.put(s.next(), b"0123456789");
        let mut out = [0; 13];
        assert!(s.copy(base.wrapping_add(6), &mut out));
        assert_eq!(&out, b"ghi0123456789");
    }
}
