//! Where packet buffers come from: two sizes, recycled, bounded, from any CPU.

use super::buf::{HEADROOM, Skb};
use klib::sync::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a small buffer, headroom included: an MTU frame.
pub const SMALL_LEN: usize = 2048;
/// Bytes of a large buffer, headroom included: a 64 KiB super-frame.
pub const LARGE_LEN: usize = 66 * 1024;

const MAX_SMALL: usize = 4096;
const MAX_LARGE: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Small,
    Large,
}

/// A bounded store of free buffers. Buffers beyond the bound are freed; buffers of other sizes are never kept.
#[derive(Default)]
pub struct SkbPool {
    small: Mutex<Vec<Vec<u8>>>,
    large: Mutex<Vec<Vec<u8>>>,
    allocated: AtomicUsize,
}

impl SkbPool {
    /// An empty pool.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// An empty frame with [`HEADROOM`] bytes in front and room for at least `len` bytes.
    pub fn alloc(self: &Arc<Self>, len: usize) -> Skb {
        let need = HEADROOM + len;
        let (class, size) = if need <= SMALL_LEN {
            (Class::Small, SMALL_LEN)
        } else if need <= LARGE_LEN {
            (Class::Large, LARGE_LEN)
        } else {
            return Skb::from_vec(vec![0; need], HEADROOM, 0);
        };
        let recycled = self.list(class).lock().pop();
        let data = recycled.unwrap_or_else(|| {
            self.allocated.fetch_add(1, Ordering::Relaxed);
            vec![0; size]
        });
        Skb::pooled(data, class, Arc::clone(self))
    }

    /// A frame that holds a copy of `bytes`.
    pub fn copy_from(self: &Arc<Self>, bytes: &[u8]) -> Skb {
        let mut skb = self.alloc(bytes.len());
        skb.put(bytes.len()).copy_from_slice(bytes);
        skb
    }

    /// Buffers allocated since the start (recycled ones are not counted again).
    pub fn allocated(&self) -> usize {
        self.allocated.load(Ordering::Relaxed)
    }

    fn list(&self, class: Class) -> &Mutex<Vec<Vec<u8>>> {
        match class {
            Class::Small => &self.small,
            Class::Large => &self.large,
        }
    }

    pub(super) fn give_back(&self, class: Class, data: Vec<u8>) {
        let max = match class {
            Class::Small => MAX_SMALL,
            Class::Large => MAX_LARGE,
        };
        let mut list = self.list(class).lock();
        if list.len() < max {
            list.push(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_recycled_and_sized() {
        let pool = SkbPool::new();
        drop(pool.alloc(1500));
        drop(pool.alloc(100));
        assert_eq!(pool.allocated(), 1);
        let big = pool.alloc(65_550);
        assert!(big.tailroom() >= 65_550);
        drop(big);
        drop(pool.alloc(3000));
        assert_eq!(pool.allocated(), 2);
    }
}
