//! Listening sockets: connections that are coming up, and those that wait to be accepted.

use super::conn::Conn;
use super::opts::TcpOpts;
use crate::diag::Owner;
use crate::netns::Net;
use klib::sync::{Mutex, RwLock};
use klib::waitqueue::WaitQueue;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

#[derive(Default)]
struct Queues {
    /// Connections whose handshake is under way.
    syn: usize,
    /// Connections ready for accept(2).
    ready: VecDeque<Arc<Conn>>,
    closed: bool,
}

/// A listening socket.
pub struct Listener {
    /// Where it listens; the address may be unspecified.
    pub local: SocketAddr,
    /// With `::`: IPv6 only.
    pub v6only: bool,
    /// Device it is bound to, 0 = any.
    pub oif: u32,
    backlog: Mutex<usize>,
    queues: Mutex<Queues>,
    /// What accepted sockets inherit.
    pub opts: TcpOpts,
    /// Who holds it.
    pub owner: Mutex<Owner>,
    /// Woken when a connection is ready.
    pub wq: WaitQueue,
}

impl Listener {
    /// A listener that is not in the table yet.
    pub fn new(
        local: SocketAddr,
        v6only: bool,
        oif: u32,
        backlog: usize,
        opts: TcpOpts,
        wq: WaitQueue,
    ) -> Arc<Self> {
        Arc::new(Self {
            local,
            v6only,
            oif,
            backlog: Mutex::new(backlog),
            queues: Mutex::default(),
            opts,
            owner: Mutex::default(),
            wq,
        })
    }

    /// listen(2) again: only the backlog changes.
    pub fn set_backlog(&self, n: usize) {
        *self.backlog.lock() = n;
    }

    /// The backlog.
    pub fn backlog(&self) -> usize {
        *self.backlog.lock()
    }

    /// How well it fits a destination; `None` = not at all.
    fn score(&self, dst: IpAddr, ifindex: u32) -> Option<u8> {
        if self.oif != 0 && self.oif != ifindex {
            return None;
        }
        let dev = u8::from(self.oif != 0);
        match self.local.ip() {
            a if a == dst => Some(4 + dev),
            IpAddr::V4(a) if a.is_unspecified() && dst.is_ipv4() => Some(2 + dev),
            IpAddr::V6(a) if a.is_unspecified() && dst.is_ipv6() => Some(2 + dev),
            IpAddr::V6(a) if a.is_unspecified() && !self.v6only => Some(dev),
            _ => None,
        }
    }

    /// Room for one more handshake? Counts it if so.
    pub(crate) fn begin_syn(&self) -> bool {
        let backlog = self.backlog();
        let mut q = self.queues.lock();
        if q.closed || q.ready.len() > backlog || q.syn >= backlog.max(8) {
            return false;
        }
        q.syn += 1;
        true
    }

    /// A handshake ended without a connection.
    pub(crate) fn syn_failed(&self) {
        let mut q = self.queues.lock();
        q.syn = q.syn.saturating_sub(1);
    }

    /// A handshake is complete. False if nobody will accept the connection; it must be reset then.
    pub(crate) fn complete(&self, conn: &Arc<Conn>) -> bool {
        let mut q = self.queues.lock();
        q.syn = q.syn.saturating_sub(1);
        if q.closed {
            return false;
        }
        q.ready.push_back(Arc::clone(conn));
        true
    }

    /// The next connection.
    pub fn accept(&self) -> Option<Arc<Conn>> {
        self.queues.lock().ready.pop_front()
    }

    /// Connections ready for accept(2).
    pub fn ready(&self) -> usize {
        self.queues.lock().ready.len()
    }

    /// No more connections; returns those nobody accepted.
    pub fn close(&self) -> Vec<Arc<Conn>> {
        let mut q = self.queues.lock();
        q.closed = true;
        q.ready.drain(..).collect()
    }
}

/// All listeners by port.
#[derive(Default)]
pub struct ListenTable {
    ports: RwLock<HashMap<u16, Vec<Arc<Listener>>>>,
}

impl ListenTable {
    /// Enters a listener.
    pub fn insert(&self, l: &Arc<Listener>) {
        self.ports.write().entry(l.local.port()).or_default().push(Arc::clone(l));
    }

    /// Takes a listener out.
    pub fn remove(&self, l: &Arc<Listener>) {
        let mut ports = self.ports.write();
        if let Some(v) = ports.get_mut(&l.local.port()) {
            v.retain(|x| !Arc::ptr_eq(x, l));
            if v.is_empty() {
                ports.remove(&l.local.port());
            }
        }
    }

    /// The best listener for a connection to `dst`; `hash` spreads over SO_REUSEPORT groups.
    pub fn lookup(&self, dst: IpAddr, port: u16, ifindex: u32, hash: u64) -> Option<Arc<Listener>> {
        let ports = self.ports.read();
        let v = ports.get(&port)?;
        let best = v.iter().filter_map(|l| l.score(dst, ifindex)).max()?;
        let mut group = v.iter().filter(|l| l.score(dst, ifindex) == Some(best));
        let n = group.clone().count() as u64;
        group.nth((hash % n.max(1)) as usize).map(Arc::clone)
    }

    /// All listeners.
    pub fn all(&self) -> Vec<Arc<Listener>> {
        self.ports.read().values().flatten().cloned().collect()
    }
}

/// Resets connections that nobody will accept.
pub(crate) fn reset_all(net: &Net, conns: Vec<Arc<Conn>>) {
    for c in conns {
        c.abort(net);
    }
}
