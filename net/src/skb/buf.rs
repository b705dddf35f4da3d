//! One frame in memory.

use super::meta::{CsumStatus, GsoInfo, PktType};
use super::pool::{Class, SkbPool};
use std::sync::Arc;

/// Bytes kept free in front of a frame that is to be sent: Ethernet, vnet header, tunnel headers.
pub const HEADROOM: usize = 192;

/// Memory of somebody else, for instance a slot of a receive ring; dropping it gives the memory back.
pub trait ForeignBuf: Send + Sync {
    /// The whole buffer.
    fn bytes(&self) -> &[u8];
    /// The whole buffer, writable.
    fn bytes_mut(&mut self) -> &mut [u8];
}

enum Store {
    Pooled { data: Vec<u8>, class: Class, pool: Arc<SkbPool> },
    Owned(Vec<u8>),
    Foreign(Box<dyn ForeignBuf>),
}

/// A frame: `len` bytes at `head` of a buffer, with room before and behind, and what is known about them.
pub struct Skb {
    store: Store,
    head: usize,
    len: usize,
    /// State of the transport checksum.
    pub csum: CsumStatus,
    /// Set if the frame stands for several.
    pub gso: Option<GsoInfo>,
    /// Device it came from or goes to (ifindex, 0 = none).
    pub dev: u32,
    /// Link-layer destination of a received frame.
    pub pkt_type: PktType,
    /// Routing mark.
    pub mark: u32,
}

impl Drop for Skb {
    fn drop(&mut self) {
        if let Store::Pooled { data, class, pool } = &mut self.store {
            pool.give_back(*class, std::mem::take(data));
        }
    }
}

impl Skb {
    fn new(store: Store, head: usize, len: usize) -> Self {
        Self { store, head, len, csum: CsumStatus::None, gso: None, dev: 0, pkt_type: PktType::Host, mark: 0 }
    }

    pub(super) fn pooled(data: Vec<u8>, class: Class, pool: Arc<SkbPool>) -> Self {
        Self::new(Store::Pooled { data, class, pool }, HEADROOM, 0)
    }

    /// A frame of `len` bytes at `head` of an own vector. Both are cut to what the vector holds.
    pub fn from_vec(data: Vec<u8>, head: usize, len: usize) -> Self {
        let head = head.min(data.len());
        let len = len.min(data.len() - head);
        Self::new(Store::Owned(data), head, len)
    }

    /// A frame of `len` bytes at `head` of a foreign buffer, which goes back to its owner when the frame is dropped.
    pub fn from_foreign(buf: Box<dyn ForeignBuf>, head: usize, len: usize) -> Self {
        let total = buf.bytes().len();
        let head = head.min(total);
        let len = len.min(total - head);
        Self::new(Store::Foreign(buf), head, len)
    }

    fn buffer(&self) -> &[u8] {
        match &self.store {
            Store::Pooled { data, .. } | Store::Owned(data) => data,
            Store::Foreign(f) => f.bytes(),
        }
    }

    fn buffer_mut(&mut self) -> &mut [u8] {
        match &mut self.store {
            Store::Pooled { data, .. } | Store::Owned(data) => data,
            Store::Foreign(f) => f.bytes_mut(),
        }
    }

    /// The frame's bytes.
    pub fn data(&self) -> &[u8] {
        self.buffer().get(self.head..self.head + self.len).unwrap_or(&[])
    }

    /// The frame's bytes, writable.
    pub fn data_mut(&mut self) -> &mut [u8] {
        let (head, end) = (self.head, self.head + self.len);
        self.buffer_mut().get_mut(head..end).unwrap_or(&mut [])
    }

    /// True if the memory belongs to somebody else, who may want it back soon.
    pub fn is_foreign(&self) -> bool {
        matches!(self.store, Store::Foreign(_))
    }

    /// Length of the frame in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if the frame has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Free bytes before the frame.
    pub fn headroom(&self) -> usize {
        self.head
    }

    /// Free bytes behind the frame.
    pub fn tailroom(&self) -> usize {
        self.buffer().len() - self.head - self.len
    }

    /// Grows the frame to the front by `n` bytes and returns them (they hold old data). Too little headroom copies
    /// the frame into a new buffer.
    pub fn push(&mut self, n: usize) -> &mut [u8] {
        if self.head < n {
            self.regrow(HEADROOM + n, 0);
        }
        self.head -= n;
        self.len += n;
        if let CsumStatus::Partial { start, .. } = &mut self.csum {
            *start = start.saturating_add(u16::try_from(n).unwrap_or(u16::MAX));
        }
        &mut self.data_mut()[..n]
    }

    /// Cuts up to `n` bytes from the front; returns how many were cut.
    pub fn pull(&mut self, n: usize) -> usize {
        let n = n.min(self.len);
        self.head += n;
        self.len -= n;
        if let CsumStatus::Partial { start, .. } = &mut self.csum {
            *start = start.saturating_sub(u16::try_from(n).unwrap_or(u16::MAX));
        }
        n
    }

    /// Grows the frame at the end by `n` bytes and returns them (they hold old data).
    pub fn put(&mut self, n: usize) -> &mut [u8] {
        if self.tailroom() < n {
            self.regrow(self.head, n);
        }
        let at = self.len;
        self.len += n;
        &mut self.data_mut()[at..]
    }

    /// Cuts the frame to at most `len` bytes.
    pub fn trim(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The rare way: a new own buffer with `head` bytes in front and `tail` behind.
    fn regrow(&mut self, head: usize, tail: usize) {
        let mut fresh = vec![0; head + self.len + tail];
        fresh[head..head + self.len].copy_from_slice(self.data());
        let old = std::mem::replace(&mut self.store, Store::Owned(fresh));
        if let Store::Pooled { data, class, pool } = old {
            pool.give_back(class, data);
        }
        self.head = head;
    }

    /// A copy in a buffer of `pool`, with everything that is known about the frame.
    pub fn copy(&self, pool: &Arc<SkbPool>) -> Self {
        let mut new = pool.copy_from(self.data());
        new.csum = self.csum;
        new.gso = self.gso;
        new.dev = self.dev;
        new.pkt_type = self.pkt_type;
        new.mark = self.mark;
        new
    }
}

impl std::fmt::Debug for Skb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Skb")
            .field("len", &self.len)
            .field("csum", &self.csum)
            .field("gso", &self.gso)
            .field("dev", &self.dev)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn push_pull_keep_the_checksum_place() {
        let pool = SkbPool::new();
        let mut s = pool.copy_from(b"payload");
        s.csum = CsumStatus::Partial { start: 3, offset: 16 };
        s.push(14).fill(0xee);
        assert_eq!(s.csum, CsumStatus::Partial { start: 17, offset: 16 });
        assert_eq!(s.pull(14), 14);
        assert_eq!((s.csum, s.data()), (CsumStatus::Partial { start: 3, offset: 16 }, &b"payload"[..]));
        s.push(1000).fill(1);
        assert_eq!(s.len(), 1007);
        assert_eq!(&s.data()[1000..], b"payload");
        s.put(4000).fill(2);
        assert_eq!((s.len(), s.data()[1006], s.data()[1007]), (5007, b'd', 2));
    }

    struct Slot(Vec<u8>, Arc<AtomicBool>);
    impl ForeignBuf for Slot {
        fn bytes(&self) -> &[u8] {
            &self.0
        }
        fn bytes_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }
    impl Drop for Slot {
        fn drop(&mut self) {
            self.1.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn foreign_memory_goes_back() {
        let gone = Arc::new(AtomicBool::new(false));
        let mut s = Skb::from_foreign(Box::new(Slot(vec![7; 100], Arc::clone(&gone))), 10, 50);
        assert_eq!((s.len(), s.headroom(), s.tailroom()), (50, 10, 40));
        s.push(20).fill(1);
        assert!(gone.load(Ordering::SeqCst), "regrown: the slot is free again");
        assert_eq!(s.len(), 70);
        let s = Skb::from_foreign(Box::new(Slot(vec![7; 10], Arc::clone(&gone))), 100, 100);
        assert!(s.is_empty());
    }
}
