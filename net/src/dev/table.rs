//! Registered devices: index, name, state, addresses.

use super::netdevice::{DevStats, NetDevice};
use super::txq::TxQueue;
use crate::gro::Gro;
use bitflags::bitflags;
use klib::sync::{Mutex, RwLock};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use uapi::{Errno, Result};

bitflags! {
    /// `IFF_*` of linux/if.h.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct IfFlags: u32 {
        /// Administratively up.
        const UP = 0x1;
        /// Has broadcast.
        const BROADCAST = 0x2;
        /// Is a loopback net.
        const LOOPBACK = 0x8;
        /// Is a point-to-point link.
        const POINTOPOINT = 0x10;
        /// Operationally up (RFC 2863).
        const RUNNING = 0x40;
        /// No ARP.
        const NOARP = 0x80;
        /// Receives all frames.
        const PROMISC = 0x100;
        /// Receives all multicast frames.
        const ALLMULTI = 0x200;
        /// Supports multicast.
        const MULTICAST = 0x1000;
        /// The driver signals carrier.
        const LOWER_UP = 0x1_0000;
    }
}

/// An address of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IfAddr {
    /// The address.
    pub addr: IpAddr,
    /// Bits of its network.
    pub prefix: u8,
    /// Broadcast address (IPv4).
    pub broadcast: Option<Ipv4Addr>,
    /// The other end of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// `RT_SCOPE_*` of rtnetlink.h: 0 universe, 253 link, 254 host.
    pub scope: u8,
    /// `IFA_F_*`: 0x80 permanent.
    pub flags: u32,
    /// Label (IPv4), usually the device's name.
    pub label: String,
    /// Preferred and valid lifetime in seconds; `u32::MAX` = forever.
    pub lifetime: (u32, u32),
    /// The network's route was not wanted (`noprefixroute`).
    pub no_prefix_route: bool,
}

impl IfAddr {
    /// An address as `ip addr add ADDR/PREFIX dev NAME` makes it.
    pub fn new(addr: IpAddr, prefix: u8) -> Self {
        let scope = match addr {
            a if a.is_loopback() => 254,
            IpAddr::V6(a) if is_link_local(&a) => 253,
            _ => 0,
        };
        Self {
            addr,
            prefix,
            broadcast: None,
            peer: None,
            scope,
            flags: 0x80,
            label: String::new(),
            lifetime: (u32::MAX, u32::MAX),
            no_prefix_route: false,
        }
    }

    /// The subnet's broadcast address, if it has one.
    pub fn directed_broadcast(&self) -> Option<Ipv4Addr> {
        match (self.broadcast, self.addr) {
            (Some(b), _) => Some(b),
            (None, IpAddr::V4(a)) if self.prefix < 31 && !a.is_loopback() => {
                let mask = if self.prefix == 0 { 0 } else { u32::MAX << (32 - u32::from(self.prefix)) };
                Some(Ipv4Addr::from(u32::from(a) | !mask))
            }
            _ => None,
        }
    }
}

/// True for fe80::/10.
pub fn is_link_local(a: &std::net::Ipv6Addr) -> bool {
    a.segments()[0] & 0xffc0 == 0xfe80
}

/// A registered device.
pub struct Dev {
    /// Its number, from 1; `lo` is 1.
    pub ifindex: u32,
    name: RwLock<Arc<str>>,
    /// The driver.
    pub drv: Arc<dyn NetDevice>,
    flags: AtomicU32,
    /// Its addresses.
    pub addrs: RwLock<Vec<IfAddr>>,
    /// Frames on their way out.
    pub txq: TxQueue,
    /// Frames of it being merged.
    pub gro: Mutex<Gro>,
    /// Frames the stack dropped on the way in.
    pub rx_dropped: AtomicU64,
    /// Carrier as it was told last.
    carrier: AtomicBool,
    carrier_changes: AtomicU32,
    /// Features that somebody wished for, of those that can be switched.
    pub(super) wanted: AtomicU32,
    /// Features of the stack's own that are on.
    pub(super) soft: AtomicU32,
    /// One wish at a time.
    pub(super) feature_lock: Mutex<()>,
    /// Multicast groups joined, with counts.
    pub groups: Mutex<Vec<(IpAddr, u32)>>,
    is_loopback: bool,
}

impl Dev {
    /// Its name.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.name.read())
    }

    /// True for `lo`.
    pub fn is_loopback(&self) -> bool {
        self.is_loopback
    }

    /// True if it was set up.
    pub fn is_up(&self) -> bool {
        self.flags.load(Ordering::Acquire) & IfFlags::UP.bits() != 0
    }

    /// `IFF_*` as SIOCGIFFLAGS and rtnetlink show them.
    pub fn flags(&self) -> IfFlags {
        let mut f = IfFlags::from_bits_truncate(self.flags.load(Ordering::Acquire));
        if f.contains(IfFlags::UP) && self.drv.carrier() {
            f |= IfFlags::RUNNING | IfFlags::LOWER_UP;
        }
        f
    }

    /// Times the carrier came or went.
    pub fn carrier_changes(&self) -> u32 {
        self.carrier_changes.load(Ordering::Relaxed)
    }

    /// Looks at the carrier; says how it is if it has come or gone since the last look.
    pub(crate) fn carrier_changed(&self) -> Option<bool> {
        let now = self.drv.carrier();
        let changed = self.carrier.swap(now, Ordering::AcqRel) != now;
        if changed {
            self.carrier_changes.fetch_add(1, Ordering::Relaxed);
        }
        changed.then_some(now)
    }

    pub(crate) fn set_flag(&self, flag: IfFlags, on: bool) -> bool {
        let old = if on {
            self.flags.fetch_or(flag.bits(), Ordering::AcqRel)
        } else {
            self.flags.fetch_and(!flag.bits(), Ordering::AcqRel)
        };
        (old & flag.bits() != 0) != on
    }

    /// Counters: the driver's and the stack's.
    pub fn stats(&self) -> DevStats {
        let mut s = self.drv.stats();
        s.rx_dropped += self.rx_dropped.load(Ordering::Relaxed);
        s.tx_dropped += self.txq.dropped();
        s
    }

    /// Its first link-local IPv6 address.
    pub fn link_local(&self) -> Option<std::net::Ipv6Addr> {
        self.addrs.read().iter().find_map(|a| match a.addr {
            IpAddr::V6(v6) if is_link_local(&v6) => Some(v6),
            _ => None,
        })
    }
}

/// All devices of a namespace.
#[derive(Default)]
pub struct DevTable {
    devs: RwLock<Vec<Arc<Dev>>>,
    next: AtomicU32,
}

impl DevTable {
    /// Registers a driver and names the device.
    pub fn register(&self, drv: Arc<dyn NetDevice>) -> Result<Arc<Dev>> {
        let mut devs = self.devs.write();
        let kind = drv.kind().to_owned();
        let is_loopback = kind == "lo";
        let name = if is_loopback {
            kind
        } else {
            let taken = |n: u32| {
                let want = format!("{kind}{n}");
                devs.iter().any(|d| *d.name() == *want)
            };
            let unit = match drv.unit() {
                Some(u) if taken(u) => return Err(Errno::EEXIST),
                Some(u) => u,
                None => (0..=u32::MAX).find(|n| !taken(*n)).ok_or(Errno::ENFILE)?,
            };
            format!("{kind}{unit}")
        };
        let dev = self.make(name, is_loopback, drv);
        devs.push(Arc::clone(&dev));
        Ok(dev)
    }

    fn make(&self, name: String, is_loopback: bool, drv: Arc<dyn NetDevice>) -> Arc<Dev> {
        let ifindex = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let carrier = drv.carrier();
        let (wanted, soft) = super::features::initial(&*drv);
        let flags = if is_loopback { IfFlags::LOOPBACK } else { IfFlags::BROADCAST | IfFlags::MULTICAST };
        Arc::new(Dev {
            ifindex,
            name: RwLock::new(name.into()),
            drv,
            flags: AtomicU32::new(flags.bits()),
            addrs: RwLock::default(),
            txq: TxQueue::default(),
            gro: Mutex::default(),
            rx_dropped: AtomicU64::new(0),
            carrier: AtomicBool::new(carrier),
            carrier_changes: AtomicU32::new(0),
            wanted,
            soft,
            feature_lock: Mutex::new(()),
            groups: Mutex::default(),
            is_loopback,
        })
    }

    /// Registers `lo`, the first device of every namespace.
    pub(crate) fn register_loopback(&self, drv: Arc<dyn NetDevice>) -> Arc<Dev> {
        let dev = self.make("lo".to_owned(), true, drv);
        self.devs.write().push(Arc::clone(&dev));
        dev
    }

    /// Renames a device that is down.
    pub fn rename(&self, dev: &Dev, name: &str) -> Result<()> {
        if name.is_empty() || name.len() > 15 || name == "." || name == ".." {
            return Err(Errno::EINVAL);
        }
        if name.bytes().any(|b| b == b'/' || b == b':' || b.is_ascii_whitespace()) {
            return Err(Errno::EINVAL);
        }
        let devs = self.devs.write();
        if devs.iter().any(|d| d.ifindex != dev.ifindex && *d.name() == *name) {
            return Err(Errno::EEXIST);
        }
        *dev.name.write() = name.into();
        Ok(())
    }

    /// The device with this number.
    pub fn get(&self, ifindex: u32) -> Option<Arc<Dev>> {
        let devs = self.devs.read();
        // Numbers are given in order and devices never leave, so the place is known.
        let i = usize::try_from(ifindex.checked_sub(1)?).ok()?;
        match devs.get(i) {
            Some(d) if d.ifindex == ifindex => Some(Arc::clone(d)),
            _ => devs.iter().find(|d| d.ifindex == ifindex).cloned(),
        }
    }

    /// The device with this name.
    pub fn by_name(&self, name: &str) -> Option<Arc<Dev>> {
        self.devs.read().iter().find(|d| *d.name() == *name).cloned()
    }

    /// All devices in the order of their numbers.
    pub fn all(&self) -> Vec<Arc<Dev>> {
        self.devs.read().clone()
    }
}
