//! The ifreq ioctls (netdevice(7), linux/sockios.h), for programs older than rtnetlink.

use super::table::{Dev, IfAddr, IfFlags};
use crate::netns::Net;
use crate::route::{FibEntry, Prefix};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use uapi::{Errno, Result};

const IFNAMSIZ: usize = 16;
const AF_INET: u16 = 2;

fn ifr_name(b: &[u8]) -> Result<&str> {
    let n = b.get(..IFNAMSIZ).ok_or(Errno::EFAULT)?;
    let n = n.split(|c| *c == 0).next().unwrap_or(&[]);
    // An alias (eth0:1) names the device.
    std::str::from_utf8(n).map(|s| s.split(':').next().unwrap_or(s)).map_err(|_| Errno::ENODEV)
}

fn put(b: &mut [u8], at: usize, v: &[u8]) -> Result<()> {
    b.get_mut(at..at + v.len()).ok_or(Errno::EFAULT)?.copy_from_slice(v);
    Ok(())
}

fn int(b: &[u8]) -> Result<i32> {
    Ok(i32::from_ne_bytes(b.get(16..20).ok_or(Errno::EFAULT)?.try_into().map_err(|_| Errno::EFAULT)?))
}

fn sockaddr_in(a: Ipv4Addr) -> [u8; 16] {
    let mut s = [0; 16];
    s[..2].copy_from_slice(&AF_INET.to_ne_bytes());
    s[4..8].copy_from_slice(&a.octets());
    s
}

fn read_in(b: &[u8], at: usize) -> Result<Ipv4Addr> {
    let s = b.get(at..at + 8).ok_or(Errno::EFAULT)?;
    if u16::from_ne_bytes([s[0], s[1]]) != AF_INET {
        return Err(Errno::EINVAL);
    }
    Ok(Ipv4Addr::new(s[4], s[5], s[6], s[7]))
}

fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0))
}

fn first_v4(d: &Dev) -> Option<(IfAddr, Ipv4Addr)> {
    d.addrs.read().iter().find_map(|a| match a.addr {
        IpAddr::V4(v) => Some((a.clone(), v)),
        IpAddr::V6(_) => None,
    })
}

impl Net {
    /// The get and set commands SIOCGIF and SIOCSIF on a 40-byte `ifreq`, in place. `admin`: CAP_NET_ADMIN. ENOTTY for commands that are not of this kind.
    pub fn ifioctl(&self, cmd: u32, ifr: &mut [u8], admin: bool) -> Result<()> {
        if ifr.len() < 40 {
            return Err(Errno::EFAULT);
        }
        // SIOCGIFNAME goes from number to name.
        if cmd == 0x8910 {
            let i = u32::try_from(int(ifr)?).map_err(|_| Errno::ENODEV)?;
            let name = self.devs.get(i).ok_or(Errno::ENODEV)?.name();
            ifr[..IFNAMSIZ].fill(0);
            return put(ifr, 0, name.as_bytes());
        }
        if !(0x8910..=0x8943).contains(&cmd) {
            return Err(Errno::ENOTTY);
        }
        let dev = self.devs.by_name(ifr_name(ifr)?).ok_or(Errno::ENODEV)?;
        if matches!(cmd, 0x8914 | 0x8916 | 0x8918 | 0x891a | 0x891c | 0x8922 | 0x8923 | 0x8924 | 0x8943) {
            if !admin {
                return Err(Errno::EPERM);
            }
            return self.if_set(cmd, ifr, &dev);
        }
        let addr = || first_v4(&dev).ok_or(Errno::EADDRNOTAVAIL);
        match cmd {
            // SIOCGIFFLAGS: sixteen bits.
            0x8913 => put(ifr, 16, &(dev.flags().bits() as u16).to_ne_bytes()),
            0x8915 => {
                let (_, v4) = addr()?;
                put(ifr, 16, &sockaddr_in(v4))
            }
            0x8917 => {
                let (a, v4) = addr()?;
                let peer = if let Some(IpAddr::V4(p)) = a.peer { p } else { v4 };
                put(ifr, 16, &sockaddr_in(peer))
            }
            0x8919 => {
                put(ifr, 16, &sockaddr_in(addr()?.0.directed_broadcast().unwrap_or(Ipv4Addr::UNSPECIFIED)))
            }
            0x891b => put(ifr, 16, &sockaddr_in(mask(addr()?.0.prefix))),
            0x891d => put(ifr, 16, &0i32.to_ne_bytes()),
            0x8921 => put(ifr, 16, &dev.drv.mtu().to_ne_bytes()),
            // SIOCGIFHWADDR
            0x8927 => {
                ifr[16..32].fill(0);
                put(ifr, 16, &dev.drv.arp_type().to_ne_bytes())?;
                put(ifr, 18, &dev.drv.mac())
            }
            0x8933 => put(ifr, 16, &dev.ifindex.to_ne_bytes()),
            0x8942 => put(ifr, 16, &dev.drv.tx_queue_len().to_ne_bytes()),
            // SIOCGIFMAP
            0x8970 => put(ifr, 16, &[0; 24]),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn if_set(&self, cmd: u32, ifr: &[u8], dev: &Arc<Dev>) -> Result<()> {
        match cmd {
            // SIOCSIFFLAGS
            0x8914 => {
                let f = u32::from(u16::from_ne_bytes([ifr[16], ifr[17]]));
                for bit in [IfFlags::PROMISC, IfFlags::ALLMULTI, IfFlags::NOARP] {
                    dev.set_flag(bit, f & bit.bits() != 0);
                }
                self.set_link_up(dev.ifindex, f & IfFlags::UP.bits() != 0)
            }
            // SIOCSIFADDR: replaces the first address, with the netmask of its class.
            0x8916 => {
                let a = read_in(ifr, 16)?;
                if let Some((old, v4)) = first_v4(dev) {
                    self.addr_del(dev.ifindex, IpAddr::V4(v4), Some(old.prefix))?;
                }
                if a.is_unspecified() {
                    return Ok(());
                }
                let prefix = match a.octets()[0] {
                    0..=127 => 8,
                    128..=191 => 16,
                    _ => 24,
                };
                self.addr_add(dev.ifindex, with_broadcast(a, prefix))?;
                self.set_link_up(dev.ifindex, true)
            }
            // SIOCSIFNETMASK
            0x891c => {
                let m = u32::from(read_in(ifr, 16)?);
                let prefix = m.leading_ones() as u8;
                if m != u32::from(mask(prefix)) {
                    return Err(Errno::EINVAL);
                }
                let (old, v4) = first_v4(dev).ok_or(Errno::EADDRNOTAVAIL)?;
                self.addr_del(dev.ifindex, IpAddr::V4(v4), Some(old.prefix))?;
                self.addr_add(dev.ifindex, with_broadcast(v4, prefix))
            }
            // SIOCSIFBRDADDR
            0x891a => {
                let b = read_in(ifr, 16)?;
                {
                    let mut addrs = dev.addrs.write();
                    let a = addrs.iter_mut().find(|a| a.addr.is_ipv4()).ok_or(Errno::EADDRNOTAVAIL)?;
                    a.broadcast = Some(b);
                }
                self.rebuild_local();
                Ok(())
            }
            // SIOCSIFMTU
            0x8922 => self.set_mtu(dev, u32::try_from(int(ifr)?).map_err(|_| Errno::EINVAL)?),
            // SIOCSIFHWADDR
            0x8924 => {
                let mac: [u8; 6] = ifr[18..24].try_into().map_err(|_| Errno::EINVAL)?;
                self.set_mac(dev, mac)
            }
            // SIOCSIFNAME
            0x8923 => {
                if dev.is_up() {
                    return Err(Errno::EBUSY);
                }
                let n = ifr[16..32].split(|c| *c == 0).next().unwrap_or(&[]);
                self.devs.rename(dev, std::str::from_utf8(n).map_err(|_| Errno::EINVAL)?)
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// SIOCGIFCONF: one 40-byte `ifreq` for each IPv4 address.
    pub fn ifconf(&self) -> Vec<u8> {
        let mut v = Vec::new();
        for d in self.devs.all() {
            for a in d.addrs.read().iter() {
                if let IpAddr::V4(v4) = a.addr {
                    let mut r = [0u8; 40];
                    let n = a.label.as_bytes();
                    let n = &n[..n.len().min(IFNAMSIZ - 1)];
                    r[..n.len()].copy_from_slice(n);
                    r[16..32].copy_from_slice(&sockaddr_in(v4));
                    v.extend_from_slice(&r);
                }
            }
        }
        v
    }

    /// SIOCADDRT, SIOCDELRT: a 120-byte `rtentry` whose `rt_dev` string the caller has read.
    pub fn rtioctl(&self, add: bool, rt: &[u8], rt_dev: Option<&str>) -> Result<()> {
        let dst = read_in(rt, 8)?;
        let genmask = read_in(rt, 40).unwrap_or(Ipv4Addr::UNSPECIFIED);
        let flags =
            u16::from_ne_bytes([*rt.get(56).ok_or(Errno::EFAULT)?, *rt.get(57).ok_or(Errno::EFAULT)?]);
        // RTF_HOST, RTF_GATEWAY
        let len = if flags & 4 != 0 { 32 } else { u32::from(genmask).leading_ones() as u8 };
        let prefix = Prefix::new(IpAddr::V4(dst), len).ok_or(Errno::EINVAL)?;
        let gw = if flags & 2 != 0 { Some(IpAddr::V4(read_in(rt, 24)?)) } else { None };
        let mut oif = match rt_dev {
            Some(n) => self.devs.by_name(n).ok_or(Errno::ENODEV)?.ifindex,
            None => 0,
        };
        let r = if add {
            if oif == 0 {
                let hop = gw.ok_or(Errno::ENODEV)?;
                let fib = self.fib.read();
                oif = fib.lookup(hop, 0).filter(|r| r.gateway.is_none()).ok_or(Errno::ENETUNREACH)?.oif;
            }
            self.fib.write().insert(FibEntry::new(prefix, gw, oif), false, true, false)
        } else {
            let fits = |r: &FibEntry| {
                r.dst == prefix && (gw.is_none() || r.gateway == gw) && (oif == 0 || r.oif == oif)
            };
            self.fib.write().remove(fits).map(drop)
        };
        self.bump_routes();
        r
    }
}

fn with_broadcast(a: Ipv4Addr, prefix: u8) -> IfAddr {
    let mut x = IfAddr::new(IpAddr::V4(a), prefix);
    x.broadcast = x.directed_broadcast();
    x
}
