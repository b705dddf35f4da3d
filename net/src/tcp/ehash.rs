//! Connections by 4-tuple, keyed so that nobody outside can aim at one bucket.

use super::conn::Conn;
use klib::sync::RwLock;
use siphasher::sip::SipHasher13;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The two ends of a connection, ours first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowKey {
    /// Our address.
    pub laddr: IpAddr,
    /// Our port.
    pub lport: u16,
    /// Their address.
    pub raddr: IpAddr,
    /// Their port.
    pub rport: u16,
}

impl FlowKey {
    /// Our end.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.laddr, self.lport)
    }
    /// Their end.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.raddr, self.rport)
    }
}

/// SipHash with a secret key.
#[derive(Clone, Copy)]
pub struct Keyed(pub u64, pub u64);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

impl Keyed {
    /// The hash of one value.
    pub fn hash(&self, v: &impl Hash) -> u64 {
        self.hash_one(v)
    }
}

const SHARDS: usize = 32;

type Shard = RwLock<HashMap<FlowKey, Arc<Conn>, Keyed>>;

/// All connections of a namespace that are not in TIME-WAIT.
pub struct InetHash {
    shards: Vec<Shard>,
    key: Keyed,
}

impl InetHash {
    /// An empty table under a secret key.
    pub fn new(key: Keyed) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::new(HashMap::with_hasher(key))).collect();
        // The shard is chosen by another hash than the place in it.
        Self { shards, key: Keyed(key.1, key.0) }
    }

    fn shard(&self, k: &FlowKey) -> &Shard {
        let i = usize::from(k.rport ^ k.lport.rotate_left(3)) ^ (self.key.0 as usize);
        &self.shards[i % SHARDS]
    }

    /// The connection with this tuple.
    pub fn get(&self, k: &FlowKey) -> Option<Arc<Conn>> {
        self.shard(k).read().get(k).cloned()
    }

    /// True if the tuple is taken.
    pub fn contains(&self, k: &FlowKey) -> bool {
        self.shard(k).read().contains_key(k)
    }

    /// Enters a connection; false if its tuple is taken.
    pub fn insert(&self, conn: &Arc<Conn>) -> bool {
        let mut m = self.shard(&conn.key).write();
        if m.contains_key(&conn.key) {
            return false;
        }
        m.insert(conn.key, Arc::clone(conn));
        true
    }

    /// Takes a connection out.
    pub fn remove(&self, k: &FlowKey) -> Option<Arc<Conn>> {
        self.shard(k).write().remove(k)
    }

    /// All connections.
    pub fn all(&self) -> Vec<Arc<Conn>> {
        self.shards.iter().flat_map(|s| s.read().values().cloned().collect::<Vec<_>>()).collect()
    }
}
