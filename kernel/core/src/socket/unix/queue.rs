//! Messages that wait in a unix socket, and what their senders are charged for them.

use super::name::Name;
use super::scm::Rights;
use crate::fs::poll;
use crate::socket::common::BUF_DEFAULT;
use crate::socket::msg::Ucred;
use klib::waitqueue::WaitQueue;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a message costs beside its bytes, so that empty ones are not free.
const OVERHEAD: usize = 512;

/// Memory of messages that a socket has sent and nobody has read yet.
pub struct Wmem {
    used: AtomicUsize,
    limit: AtomicUsize,
    wq: WaitQueue,
}

impl Wmem {
    /// Wakes `wq` when room appears.
    pub fn new(wq: WaitQueue) -> Self {
        Self { used: AtomicUsize::new(0), limit: AtomicUsize::new(BUF_DEFAULT), wq }
    }

    /// Bytes charged.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// SO_SNDBUF.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes SO_SNDBUF.
    pub fn set_limit(&self, n: usize) {
        self.limit.store(n, Ordering::Relaxed);
    }

    /// There is so much room that waking a writer is worth it.
    pub fn writable(&self) -> bool {
        self.used() * 4 <= self.limit()
    }

    /// One more message may be sent.
    pub fn has_room(&self) -> bool {
        self.used() < self.limit()
    }
}

/// A charge that ends with the message.
struct Charge {
    wmem: Arc<Wmem>,
    n: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.wmem.used.fetch_sub(self.n, Ordering::AcqRel);
        if self.wmem.writable() {
            self.wmem.wq.wake(poll::OUT);
        }
    }
}

/// One message, or one piece of a stream.
pub struct Item {
    data: Vec<u8>,
    at: usize,
    /// Who sent it.
    pub cred: Ucred,
    /// Files that go with it.
    pub rights: Option<Rights>,
    /// Name of the sender's socket.
    pub from: Option<Arc<Name>>,
    _charge: Charge,
}

impl Item {
    /// A message charged to `wmem`.
    pub fn new(
        data: Vec<u8>,
        cred: Ucred,
        rights: Option<Rights>,
        from: Option<Arc<Name>>,
        wmem: &Arc<Wmem>,
    ) -> Self {
        let n = data.len() + OVERHEAD;
        wmem.used.fetch_add(n, Ordering::AcqRel);
        Self { data, at: 0, cred, rights, from, _charge: Charge { wmem: Arc::clone(wmem), n } }
    }

    /// Bytes not read yet.
    pub fn left(&self) -> &[u8] {
        self.data.get(self.at..).unwrap_or(&[])
    }
}

/// A receive queue. Items are never dropped while it is locked: their drop wakes and closes.
#[derive(Default)]
pub struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
}

impl Queue {
    /// Adds a message at the end.
    pub fn push(&mut self, item: Item) {
        self.bytes += item.left().len();
        self.items.push_back(item);
    }

    /// The next message.
    pub fn front(&self) -> Option<&Item> {
        self.items.front()
    }

    /// The next message, to take its rights.
    pub fn front_mut(&mut self) -> Option<&mut Item> {
        self.items.front_mut()
    }

    /// All messages, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Item> {
        self.items.iter()
    }

    /// Takes `n` bytes from the front message; gives it out if nothing of it is left.
    pub fn consume(&mut self, n: usize) -> Option<Item> {
        let front = self.items.front_mut()?;
        let n = n.min(front.left().len());
        front.at += n;
        self.bytes -= n;
        if front.left().is_empty() { self.items.pop_front() } else { None }
    }

    /// Takes the front message out.
    pub fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.left().len();
        Some(item)
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of all messages.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes everything out.
    pub fn take_all(&mut self) -> VecDeque<Item> {
        self.bytes = 0;
        std::mem::take(&mut self.items)
    }
}
