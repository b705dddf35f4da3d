//! Local ports: who has bound what, conflicts, ephemeral choice (ip(7), socket(7): SO_REUSEADDR, SO_REUSEPORT).

use super::ehash::FlowKey;
use crate::netns::Net;
use klib::sync::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use uapi::{Errno, Result};

/// What a socket is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Address; unspecified = all of its family.
    pub addr: IpAddr,
    /// With `::`: IPv6 only, else both families.
    pub v6only: bool,
    /// SO_REUSEADDR was set.
    pub reuseaddr: bool,
    /// SO_REUSEPORT was set.
    pub reuseport: bool,
    /// The socket listens (TCP).
    pub listening: bool,
    /// Bound to a device (SO_BINDTODEVICE), 0 = any.
    pub oif: u32,
    /// Port chosen for a connect: other connects may share it, the 4-tuple decides.
    pub auto: bool,
}

impl Binding {
    /// A plain binding.
    pub fn new(addr: IpAddr) -> Self {
        Self {
            addr,
            v6only: false,
            reuseaddr: false,
            reuseport: false,
            listening: false,
            oif: 0,
            auto: false,
        }
    }

    fn overlaps(&self, o: &Self) -> bool {
        if self.oif != 0 && o.oif != 0 && self.oif != o.oif {
            return false;
        }
        let wide = |b: &Self| b.addr.is_ipv6() && b.addr.is_unspecified() && !b.v6only;
        if wide(self) || wide(o) {
            return true;
        }
        self.addr.is_ipv4() == o.addr.is_ipv4()
            && (self.addr.is_unspecified() || o.addr.is_unspecified() || self.addr == o.addr)
    }

    /// True if the two cannot stand side by side. `datagram`: SO_REUSEADDR on both suffices whoever receives.
    fn conflicts(&self, o: &Self, datagram: bool) -> bool {
        if !self.overlaps(o) || (self.auto && o.auto) {
            return false;
        }
        if self.reuseport && o.reuseport {
            return false;
        }
        !(self.reuseaddr && o.reuseaddr && (datagram || !(self.listening || o.listening)))
    }
}

#[derive(Default)]
struct Bucket {
    bound: Vec<(u64, Binding)>,
    /// Connections (and closed ones in TIME-WAIT) that use the port without a binding of their own.
    users: u32,
}

/// The ports of one protocol.
pub struct PortTable {
    ports: Mutex<HashMap<u16, Bucket>>,
    datagram: bool,
}

impl PortTable {
    /// An empty table; `datagram` for UDP's rules.
    pub fn new(datagram: bool) -> Self {
        Self { ports: Mutex::default(), datagram }
    }

    /// Binds `port` for the socket `id`.
    pub fn bind(&self, port: u16, id: u64, b: Binding) -> Result<()> {
        let mut ports = self.ports.lock();
        let bucket = ports.entry(port).or_default();
        let taken = bucket.bound.iter().any(|(i, o)| *i != id && b.conflicts(o, self.datagram));
        if taken || (bucket.users > 0 && !b.reuseaddr && !b.auto && bucket.bound.is_empty()) {
            return Err(Errno::EADDRINUSE);
        }
        bucket.bound.retain(|(i, _)| *i != id);
        bucket.bound.push((id, b));
        Ok(())
    }

    /// Binds a free port of `range`, beginning at a place that `seed` chooses. `fits` may refuse a port.
    pub fn bind_any(
        &self,
        id: u64,
        b: Binding,
        range: (u16, u16),
        seed: u32,
        fits: impl Fn(u16) -> bool,
    ) -> Result<u16> {
        let (lo, hi) = (u32::from(range.0), u32::from(range.1.max(range.0)));
        let n = hi - lo + 1;
        for i in 0..n {
            let port = (lo + (seed.wrapping_add(i)) % n) as u16;
            if port == 0 || !fits(port) {
                continue;
            }
            let mut ports = self.ports.lock();
            let bucket = ports.entry(port).or_default();
            // An ephemeral port is shared by connects only; reuse flags do not make others' ports eligible.
            let strict = Binding { reuseaddr: false, reuseport: false, ..b };
            let taken = bucket.bound.iter().any(|(_, o)| strict.conflicts(o, self.datagram));
            if !taken && (b.auto || bucket.users == 0) {
                bucket.bound.push((id, b));
                return Ok(port);
            }
        }
        Err(if b.auto { Errno::EADDRNOTAVAIL } else { Errno::EADDRINUSE })
    }

    /// The socket begins to listen: checks again under the stricter rule.
    pub fn set_listening(&self, port: u16, id: u64) -> Result<()> {
        let mut ports = self.ports.lock();
        let bucket = ports.entry(port).or_default();
        let Some(mut mine) = bucket.bound.iter().find(|(i, _)| *i == id).map(|(_, b)| *b) else {
            return Err(Errno::EINVAL);
        };
        mine.listening = true;
        let clash = |o: &Binding| o.listening && mine.conflicts(o, false);
        if bucket.bound.iter().any(|(i, o)| *i != id && clash(o)) {
            return Err(Errno::EADDRINUSE);
        }
        for (i, b) in &mut bucket.bound {
            if *i == id {
                b.listening = true;
            }
        }
        Ok(())
    }

    /// Gives a binding back.
    pub fn release(&self, port: u16, id: u64) {
        let mut ports = self.ports.lock();
        if let Some(b) = ports.get_mut(&port) {
            b.bound.retain(|(i, _)| *i != id);
            if b.bound.is_empty() && b.users == 0 {
                ports.remove(&port);
            }
        }
    }

    /// A connection begins (`+1`) or ends (`-1`) to use the port.
    pub fn use_port(&self, port: u16, begin: bool) {
        let mut ports = self.ports.lock();
        if begin {
            ports.entry(port).or_default().users += 1;
        } else if let Some(b) = ports.get_mut(&port) {
            b.users = b.users.saturating_sub(1);
            if b.bound.is_empty() && b.users == 0 {
                ports.remove(&port);
            }
        }
    }
}

/// Ports that a connect tries which others take from under it.
pub const PORT_TRIES: usize = 64;

impl Net {
    /// Binds a port for a connect from `laddr` to `remote`, by the socket `id`.
    pub(super) fn connect_port(&self, id: u64, b: Binding, laddr: IpAddr, remote: SocketAddr) -> Result<u16> {
        let tcp = &self.tcp;
        // RFC 6056: the walk begins at a place that depends on the other end, and goes on where the last one ended.
        let hash = tcp.hash.hash(&(laddr, remote));
        let (range, seed) = (self.sysctl.port_range(), tcp.port_walk.seed(hash));
        let port = tcp.ports.bind_any(id, b, range, seed, |p| {
            let key = FlowKey { laddr, lport: p, raddr: remote.ip(), rport: remote.port() };
            !tcp.ehash.contains(&key) && tcp.timewait.get(&key).is_none()
        })?;
        tcp.port_walk.took(hash, seed, range, port, self.random_u32());
        Ok(port)
    }
}

/// How far connects to groups of destinations have walked through the ephemeral ports (RFC 6056, algorithm 4): the
/// next one does not begin among those just used, which TIME-WAIT holds.
pub struct PortWalk([AtomicU32; 256]);

impl Default for PortWalk {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }
}

impl PortWalk {
    fn walked(&self, hash: u64) -> &AtomicU32 {
        &self.0[(hash >> 32) as usize % self.0.len()]
    }

    /// Where a walk to the destination with this keyed hash begins: the seed of [`PortTable::bind_any`].
    pub fn seed(&self, hash: u64) -> u32 {
        (hash as u32).wrapping_add(self.walked(hash).load(Ordering::Relaxed))
    }

    /// The walk that began at `seed` ended at `port`. `noise` keeps the next one unknown outside.
    pub fn took(&self, hash: u64, seed: u32, range: (u16, u16), port: u16, noise: u32) {
        let count = u32::from(range.1.saturating_sub(range.0)) + 1;
        let steps = (u32::from(port.saturating_sub(range.0)) + count - seed % count) % count;
        self.walked(hash).fetch_add(steps + 1 + (noise & 7), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b(a: &str) -> Binding {
        Binding::new(a.parse().unwrap())
    }

    #[test]
    fn conflicts_follow_linux() {
        let t = PortTable::new(false);
        t.bind(80, 1, b("0.0.0.0")).unwrap();
        assert_eq!(t.bind(80, 2, b("10.0.0.1")), Err(Errno::EADDRINUSE));
        assert_eq!(t.bind(80, 2, b("::")), Err(Errno::EADDRINUSE));
        t.bind(80, 2, Binding { v6only: true, ..b("::") }).unwrap();
        t.release(80, 1);
        let re = |a: &str| Binding { reuseaddr: true, ..b(a) };
        t.bind(81, 1, re("0.0.0.0")).unwrap();
        t.bind(81, 2, re("0.0.0.0")).unwrap();
        t.set_listening(81, 1).unwrap();
        assert_eq!(t.set_listening(81, 2), Err(Errno::EADDRINUSE));
        let rp = |a: &str| Binding { reuseport: true, ..b(a) };
        t.bind(82, 1, rp("::")).unwrap();
        t.set_listening(82, 1).unwrap();
        t.bind(82, 2, rp("::")).unwrap();
        t.set_listening(82, 2).unwrap();
        t.use_port(83, true);
        assert_eq!(t.bind(83, 1, b("0.0.0.0")), Err(Errno::EADDRINUSE));
        t.bind(83, 1, re("0.0.0.0")).unwrap();
        assert_eq!(t.bind_any(9, b("0.0.0.0"), (80, 82), 5, |_| true), Ok(80));
        assert_eq!(t.bind_any(10, b("0.0.0.0"), (80, 82), 5, |_| true), Err(Errno::EADDRINUSE));
    }
}
