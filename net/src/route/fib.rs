//! Routes and the longest-prefix match.

use crate::dev::Dev;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use uapi::{Errno, Result};

/// A network: address and number of leading bits that count. Host bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Prefix {
    /// The network's address.
    pub addr: IpAddr,
    /// Leading bits that count.
    pub len: u8,
}

impl Prefix {
    /// The network that contains `addr`; `None` if there are not that many bits.
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        let addr = match addr {
            IpAddr::V4(a) if len <= 32 => IpAddr::V4(Ipv4Addr::from(u32::from(a) & mask4(len))),
            IpAddr::V6(a) if len <= 128 => IpAddr::V6(Ipv6Addr::from(u128::from(a) & mask6(len))),
            _ => return None,
        };
        Some(Self { addr, len })
    }

    /// True if `ip` is in the network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.addr, ip) {
            (IpAddr::V4(n), IpAddr::V4(a)) => u32::from(n) == u32::from(a) & mask4(self.len),
            (IpAddr::V6(n), IpAddr::V6(a)) => u128::from(n) == u128::from(a) & mask6(self.len),
            _ => false,
        }
    }
}

fn mask4(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

fn mask6(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

/// What a route does (`RTN_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RouteKind {
    /// To a neighbour or gateway.
    #[default]
    Unicast = 1,
    /// To ourselves.
    Local = 2,
    /// To everyone on the link.
    Broadcast = 3,
    /// To a group.
    Multicast = 5,
    /// Dropped in silence.
    Blackhole = 6,
    /// EHOSTUNREACH.
    Unreachable = 7,
    /// EACCES.
    Prohibit = 8,
}

/// A route as the guest configured it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FibEntry {
    /// Destination.
    pub dst: Prefix,
    /// Next hop; `None` = on link.
    pub gateway: Option<IpAddr>,
    /// Device, 0 for kinds that need none.
    pub oif: u32,
    /// Preferred source address.
    pub prefsrc: Option<IpAddr>,
    /// Priority; smaller wins.
    pub metric: u32,
    /// Table: 254 main.
    pub table: u32,
    /// Who made it (`RTPROT_*`): 2 kernel, 3 boot, 4 static.
    pub protocol: u8,
    /// `RT_SCOPE_*`: 0 universe, 253 link, 254 host.
    pub scope: u8,
    /// What it does.
    pub kind: RouteKind,
    /// MTU of the path if smaller than the device's; 0 = the device's.
    pub mtu: u32,
    /// `RTNH_F_ONLINK` and friends.
    pub flags: u32,
}

impl FibEntry {
    /// An on-link or gateway route in the main table.
    pub fn new(dst: Prefix, gateway: Option<IpAddr>, oif: u32) -> Self {
        Self {
            dst,
            gateway,
            oif,
            prefsrc: None,
            metric: 0,
            table: 254,
            protocol: 3,
            scope: if gateway.is_some() || dst.addr.is_ipv6() { 0 } else { 253 },
            kind: RouteKind::Unicast,
            mtu: 0,
            flags: 0,
        }
    }

    fn same_key(&self, o: &Self) -> bool {
        self.dst == o.dst && self.metric == o.metric && self.table == o.table
    }
}

/// The answer to "how does a packet get there".
#[derive(Clone)]
pub struct Route {
    /// Device to send on; `lo` for our own addresses.
    pub dev: Arc<Dev>,
    /// Next hop; `None` = the destination itself.
    pub gateway: Option<IpAddr>,
    /// Source address to use.
    pub src: IpAddr,
    /// Unicast, local, broadcast or multicast.
    pub kind: RouteKind,
    /// Largest IP packet.
    pub mtu: u32,
}

/// Most routes a guest may configure.
const MAX_ROUTES: usize = 65_536;

/// Routes, sorted by prefix length (longest first), then metric.
#[derive(Default)]
pub struct Fib {
    routes: Vec<FibEntry>,
}

impl Fib {
    /// Adds a route. `replace` takes the place of one with the same destination, metric and table; `exclusive` fails
    /// with EEXIST if there is one.
    pub fn insert(&mut self, e: FibEntry, replace: bool, exclusive: bool, append: bool) -> Result<()> {
        let v6 = e.dst.addr.is_ipv6();
        if let Some(i) = self.routes.iter().position(|r| r.same_key(&e)) {
            if replace {
                self.routes[i] = e;
                return Ok(());
            }
            // IPv6 lets several next hops of one destination stand side by side unless NLM_F_EXCL is given.
            if exclusive || self.routes.contains(&e) || !(append || v6) {
                return Err(Errno::EEXIST);
            }
        }
        if self.routes.len() >= MAX_ROUTES {
            return Err(Errno::ENOMEM);
        }
        let key = |r: &FibEntry| (std::cmp::Reverse(r.dst.len), r.metric);
        let at = self.routes.partition_point(|r| key(r) <= key(&e));
        self.routes.insert(at, e);
        Ok(())
    }

    /// Removes the first route for which `matches` holds.
    pub fn remove(&mut self, matches: impl Fn(&FibEntry) -> bool) -> Result<FibEntry> {
        let i = self.routes.iter().position(matches).ok_or(Errno::ESRCH)?;
        Ok(self.routes.remove(i))
    }

    /// Removes every route for which `matches` holds.
    pub fn purge(&mut self, matches: impl Fn(&FibEntry) -> bool) {
        self.routes.retain(|r| !matches(r));
    }

    /// The best route to `dst`, on `oif` if that is not 0.
    pub fn lookup(&self, dst: IpAddr, oif: u32) -> Option<&FibEntry> {
        self.routes.iter().find(|r| (oif == 0 || r.oif == oif) && r.dst.contains(dst))
    }

    /// All routes.
    pub fn iter(&self) -> impl Iterator<Item = &FibEntry> {
        self.routes.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(s: &str) -> Prefix {
        let (a, l) = s.split_once('/').unwrap();
        Prefix::new(a.parse().unwrap(), l.parse().unwrap()).unwrap()
    }

    #[test]
    fn longest_prefix_then_metric() {
        let mut f = Fib::default();
        let add = |f: &mut Fib, d: &str, oif: u32, metric: u32| {
            let mut e = FibEntry::new(p(d), None, oif);
            e.metric = metric;
            f.insert(e, false, true, false)
        };
        add(&mut f, "0.0.0.0/0", 1, 0).unwrap();
        add(&mut f, "10.0.0.0/8", 2, 10).unwrap();
        add(&mut f, "10.0.0.0/8", 3, 5).unwrap();
        add(&mut f, "10.1.0.0/16", 4, 100).unwrap();
        add(&mut f, "::/0", 5, 0).unwrap();
        assert_eq!(add(&mut f, "10.0.0.0/8", 9, 5), Err(Errno::EEXIST));
        let at = |f: &Fib, a: &str| f.lookup(a.parse().unwrap(), 0).map(|r| r.oif);
        assert_eq!(at(&f, "10.1.2.3"), Some(4));
        assert_eq!(at(&f, "10.2.2.3"), Some(3));
        assert_eq!(at(&f, "11.2.2.3"), Some(1));
        assert_eq!(at(&f, "fd00::1"), Some(5));
        assert_eq!(f.lookup("10.2.2.3".parse().unwrap(), 2).map(|r| r.oif), Some(2));
        f.remove(|r| r.oif == 3).unwrap();
        assert_eq!(at(&f, "10.2.2.3"), Some(2));
        f.purge(|r| r.dst.len == 0);
        assert_eq!(at(&f, "11.2.2.3"), None);
        assert!(Prefix::new("10.0.0.1".parse().unwrap(), 33).is_none());
    }
}
