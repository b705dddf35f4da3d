//! `ip`: interfaces, addresses and routes through the classic ioctls (netdevice(7), ipv6(7), rtnetlink is not needed).
use crate::c;
use std::io::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A descriptor that closes itself.
struct Socket(i32);

impl Socket {
    fn new(family: i32) -> Result<Socket> {
        match unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) } {
            -1 => Err(Error::last_os_error()),
            fd => Ok(Socket(fd)),
        }
    }

    fn ioctl<T>(&self, nr: u64, arg: &mut T) -> Result<()> {
        let r = unsafe { libc::ioctl(self.0, nr as _, std::ptr::from_mut(arg)) };
        if r < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        unsafe { libc::close(self.0) };
    }
}

fn request(name: &str) -> libc::ifreq {
    let mut r: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, b) in r.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([b]);
    }
    r
}

fn sockaddr(a: Ipv4Addr) -> libc::sockaddr {
    let mut s: libc::sockaddr = unsafe { std::mem::zeroed() };
    s.sa_family = libc::AF_INET as u16;
    for (to, b) in s.sa_data[2..6].iter_mut().zip(a.octets()) {
        *to = libc::c_char::from_ne_bytes([b]);
    }
    s
}

fn address(s: &libc::sockaddr) -> Ipv4Addr {
    let b = |i: usize| s.sa_data[i].to_ne_bytes()[0];
    Ipv4Addr::new(b(2), b(3), b(4), b(5))
}

/// Sets IFF_UP or takes it away.
pub fn set_up_down(name: &str, up: bool) -> Result<()> {
    let s = Socket::new(libc::AF_INET)?;
    let mut r = request(name);
    s.ioctl(libc::SIOCGIFFLAGS, &mut r)?;
    let flags = unsafe { r.ifr_ifru.ifru_flags };
    let bit = libc::IFF_UP as i16;
    r.ifr_ifru.ifru_flags = if up { flags | bit } else { flags & !bit };
    s.ioctl(libc::SIOCSIFFLAGS, &mut r)
}

/// Names of the interfaces by index; gaps are allowed.
fn names(s: &Socket) -> Vec<(i32, String)> {
    let one = |i: i32| {
        let mut r = request("");
        r.ifr_ifru.ifru_ifindex = i;
        s.ioctl(libc::SIOCGIFNAME, &mut r).ok()?;
        let n: String =
            r.ifr_name.iter().take_while(|b| **b != 0).map(|b| char::from(b.to_ne_bytes()[0])).collect();
        Some((i, n))
    };
    (1..256).filter_map(one).collect()
}

/// IPv6 addresses of an interface, from /proc/net/if_inet6.
fn v6(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let line = |l: &str| {
        let f: Vec<&str> = l.split_whitespace().collect();
        let [addr, _, prefix, _, _, dev] = f.as_slice() else { return None };
        let addr = u128::from_str_radix(addr, 16).ok().filter(|_| *dev == name)?;
        Some(format!("{}/{}", Ipv6Addr::from(addr), u8::from_str_radix(prefix, 16).ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn show(brief: bool, addresses: bool) -> Result<()> {
    let s = Socket::new(libc::AF_INET)?;
    for (index, name) in names(&s) {
        let get = |nr: u64| {
            let mut r = request(&name);
            s.ioctl(nr, &mut r).map(|()| r)
        };
        let flags = i32::from(get(libc::SIOCGIFFLAGS).map_or(0, |r| unsafe { r.ifr_ifru.ifru_flags }));
        let state = if flags & libc::IFF_UP == 0 { "DOWN" } else { "UP" };
        let mtu = get(libc::SIOCGIFMTU).map_or(0, |r| unsafe { r.ifr_ifru.ifru_mtu });
        let mac = get(libc::SIOCGIFHWADDR).map_or(String::new(), |r| {
            let d = unsafe { r.ifr_ifru.ifru_hwaddr.sa_data };
            d[..6].iter().map(|b| format!("{:02x}", b.to_ne_bytes()[0])).collect::<Vec<_>>().join(":")
        });
        let mut all = Vec::new();
        if let Ok(r) = get(libc::SIOCGIFADDR) {
            let mask = get(libc::SIOCGIFNETMASK)
                .map_or(Ipv4Addr::BROADCAST, |r| address(unsafe { &r.ifr_ifru.ifru_netmask }));
            let a = address(unsafe { &r.ifr_ifru.ifru_addr });
            all.push(format!("{a}/{}", u32::from(mask).leading_ones()));
        }
        all.extend(v6(&name));
        match (brief, addresses) {
            (true, true) => println!("{name:<16} {state:<14} {}", all.join(" ")),
            (true, false) => println!("{name:<16} {state:<14} {mac}"),
            (false, _) => {
                println!("{index}: {name}: <{state}> mtu {mtu}\n    link {mac}");
                if addresses {
                    all.iter().for_each(|a| println!("    inet {a}"));
                }
            }
        }
    }
    Ok(())
}

/// `struct in6_ifreq` of <linux/ipv6.h>.
#[repr(C)]
struct In6Ifreq {
    addr: [u8; 16],
    prefix: u32,
    index: i32,
}

/// `struct in6_rtmsg` of <linux/ipv6_route.h>.
#[repr(C)]
#[derive(Default)]
struct In6Rtmsg {
    dst: [u8; 16],
    src: [u8; 16],
    gateway: [u8; 16],
    kind: u32,
    dst_len: u16,
    src_len: u16,
    metric: u32,
    info: u64,
    flags: u32,
    index: i32,
}

fn index_of(s: &Socket, dev: &str) -> Result<i32> {
    let mut r = request(dev);
    s.ioctl(libc::SIOCGIFINDEX, &mut r)?;
    Ok(unsafe { r.ifr_ifru.ifru_ifindex })
}

fn add_address(text: &str, dev: &str) -> Result<()> {
    let (addr, prefix) = text.split_once('/').unwrap_or((text, ""));
    let bad = || Error::other(format!("address {text:?}: expected ADDRESS/PREFIX"));
    let addr: IpAddr = addr.parse().map_err(|_| bad())?;
    let most = if addr.is_ipv4() { 32 } else { 128 };
    let prefix: u32 = if prefix.is_empty() { most } else { prefix.parse().map_err(|_| bad())? };
    if prefix > most {
        return Err(bad());
    }
    match addr {
        IpAddr::V4(a) => {
            let s = Socket::new(libc::AF_INET)?;
            let mut r = request(dev);
            r.ifr_ifru.ifru_addr = sockaddr(a);
            s.ioctl(libc::SIOCSIFADDR, &mut r)?;
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            r.ifr_ifru.ifru_netmask = sockaddr(Ipv4Addr::from(mask));
            s.ioctl(libc::SIOCSIFNETMASK, &mut r)
        }
        IpAddr::V6(a) => {
            let s = Socket::new(libc::AF_INET6)?;
            let index = index_of(&s, dev)?;
            s.ioctl(libc::SIOCSIFADDR, &mut In6Ifreq { addr: a.octets(), prefix, index })
        }
    }
}

fn add_default(gateway: &str, dev: Option<&str>) -> Result<()> {
    let bad = || Error::other(format!("gateway {gateway:?}: expected an address"));
    match gateway.parse().map_err(|_| bad())? {
        IpAddr::V4(g) => {
            let s = Socket::new(libc::AF_INET)?;
            let mut r: libc::rtentry = unsafe { std::mem::zeroed() };
            r.rt_dst = sockaddr(Ipv4Addr::UNSPECIFIED);
            r.rt_genmask = sockaddr(Ipv4Addr::UNSPECIFIED);
            r.rt_gateway = sockaddr(g);
            r.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
            let name = dev.map(c);
            r.rt_dev = name.as_ref().map_or(std::ptr::null_mut(), |n| n.as_ptr().cast_mut());
            s.ioctl(libc::SIOCADDRT, &mut r)
        }
        IpAddr::V6(g) => {
            let s = Socket::new(libc::AF_INET6)?;
            let index = dev.map_or(Ok(0), |d| index_of(&s, d))?;
            let flags = u32::from(libc::RTF_UP | libc::RTF_GATEWAY);
            s.ioctl(
                libc::SIOCADDRT,
                &mut In6Rtmsg { gateway: g.octets(), flags, metric: 1, index, ..Default::default() },
            )
        }
    }
}

/// Routes from /proc/net/route (addresses there are in network order, read as little endian).
fn routes() -> Result<()> {
    for l in std::fs::read_to_string("/proc/net/route")?.lines().skip(1) {
        let f: Vec<&str> = l.split_whitespace().collect();
        let (Some(dev), Some(dst), Some(gw), Some(mask)) = (f.first(), f.get(1), f.get(2), f.get(7)) else {
            continue;
        };
        let ip = |t: &str| Ipv4Addr::from(u32::from_str_radix(t, 16).unwrap_or(0).swap_bytes());
        let to = match u32::from(ip(mask)).leading_ones() {
            0 => "default".to_owned(),
            n => format!("{}/{n}", ip(dst)),
        };
        let via = if ip(gw).is_unspecified() { String::new() } else { format!(" via {}", ip(gw)) };
        println!("{to}{via} dev {dev}");
    }
    Ok(())
}

/// The `ip` command.
pub fn ip(args: &[String]) -> Result<()> {
    let brief = args.iter().any(|a| a == "-br");
    let w: Vec<&str> = args.iter().map(String::as_str).filter(|a| !a.starts_with('-')).collect();
    match w.as_slice() {
        [] | ["addr" | "a" | "address"] | ["addr" | "a" | "address", "show", ..] => show(brief, true),
        ["link" | "l"] | ["link" | "l", "show", ..] => show(brief, false),
        ["addr" | "a", "add", a, "dev", d] => add_address(a, d),
        ["link" | "l", "set", d, "up"] | ["link" | "l", "set", "dev", d, "up"] => set_up_down(d, true),
        ["link" | "l", "set", d, "down"] | ["link" | "l", "set", "dev", d, "down"] => set_up_down(d, false),
        ["route" | "r"] | ["route" | "r", "show", ..] => routes(),
        ["route" | "r", "add", "default", "via", g] => add_default(g, None),
        ["route" | "r", "add", "default", "via", g, "dev", d] => add_default(g, Some(d)),
        _ => Err(Error::other("expected addr, link or route (help tells the forms)")),
    }
}
