//! TIME-WAIT in a few words a connection instead of a whole socket (RFC 9293 section 3.6.1).

use super::ehash::{FlowKey, Keyed};
use klib::ktime::Ktime;
use klib::sync::Mutex;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// How long a closed connection is remembered (Linux: TCP_TIMEWAIT_LEN).
pub const TIMEWAIT: Duration = Duration::from_secs(60);
/// Most remembered connections (Linux: tcp_max_tw_buckets); the oldest go first.
const MAX_TIMEWAIT: usize = 16_384;

/// What is left of a connection.
#[derive(Clone, Copy, Debug)]
pub struct TwEntry {
    /// Next sequence number of ours.
    pub snd_nxt: u32,
    /// Next sequence number of theirs (their FIN counted).
    pub rcv_nxt: u32,
    /// When it may be forgotten.
    pub expires: Ktime,
}

struct Inner {
    map: HashMap<FlowKey, TwEntry, Keyed>,
    /// In the order of entry, which is the order of expiry; entries that were renewed appear again.
    order: VecDeque<(Ktime, FlowKey)>,
}

/// All connections in TIME-WAIT.
pub struct TimeWait {
    inner: Mutex<Inner>,
}

impl TimeWait {
    /// An empty table.
    pub fn new(key: Keyed) -> Self {
        Self { inner: Mutex::new(Inner { map: HashMap::with_hasher(key), order: VecDeque::new() }) }
    }

    /// Remembers a connection; returns those forgotten to make room.
    pub fn insert(&self, key: FlowKey, snd_nxt: u32, rcv_nxt: u32, now: Ktime) -> Vec<FlowKey> {
        let mut i = self.inner.lock();
        let expires = now + TIMEWAIT;
        i.map.insert(key, TwEntry { snd_nxt, rcv_nxt, expires });
        i.order.push_back((expires, key));
        let mut gone = Vec::new();
        while i.map.len() > MAX_TIMEWAIT || i.order.len() > 2 * MAX_TIMEWAIT {
            let Some((at, k)) = i.order.pop_front() else { break };
            if i.map.get(&k).is_some_and(|e| e.expires == at) {
                i.map.remove(&k);
                gone.push(k);
            }
        }
        gone
    }

    /// What is remembered of this tuple.
    pub fn get(&self, key: &FlowKey) -> Option<TwEntry> {
        self.inner.lock().map.get(key).copied()
    }

    /// Forgets a tuple; true if it was there.
    pub fn remove(&self, key: &FlowKey) -> bool {
        self.inner.lock().map.remove(key).is_some()
    }

    /// Forgets what is due; returns it, and when to come again.
    pub fn expire(&self, now: Ktime) -> (Vec<FlowKey>, Option<Ktime>) {
        let mut i = self.inner.lock();
        let mut gone = Vec::new();
        while let Some(&(at, k)) = i.order.front() {
            if at > now {
                return (gone, Some(at));
            }
            i.order.pop_front();
            if i.map.get(&k).is_some_and(|e| e.expires <= now) {
                i.map.remove(&k);
                gone.push(k);
            }
        }
        (gone, None)
    }

    /// Number of remembered connections.
    pub fn len(&self) -> usize {
        self.inner.lock().map.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    pub fn all(&self) -> Vec<(FlowKey, TwEntry)> {
        self.inner.lock().map.iter().map(|(k, e)| (*k, *e)).collect()
    }
}
