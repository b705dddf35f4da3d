//! UDP sockets of tunnels (udp(7), ip(7), ipv6(7)): bound, sending by name, datagrams in trains (UDP_SEGMENT, UDP_GRO).

use super::fd::HostFd;
use super::{from_rustix, last_errno};
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use uapi::{Errno, Result};

/// UDP_GRO (linux/udp.h).
const UDP_GRO: i32 = 104;
/// UDP_SEGMENT (linux/udp.h).
const UDP_SEGMENT: i32 = 103;
/// Bytes that a tunnel's socket may hold in each direction: some super-frames of 64 KiB with their overhead.
const BUFFER: i32 = 4 << 20;

/// Outer IP header of what a socket sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IpOptions {
    /// Hop limit; absent: the host's default.
    pub ttl: Option<u8>,
    /// TOS or traffic class; absent: 0.
    pub tos: Option<u8>,
    /// Don't fragment: always (`true`), never (`false`); absent: by path MTU discovery, and packets above it in fragments.
    pub df: Option<bool>,
}

/// The step at which a socket could not be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketStep {
    /// socket(2).
    Open,
    /// setsockopt(2).
    Option,
    /// bind(2) to the source address.
    Bind,
    /// connect(2) to the destination.
    Connect,
}

/// Why a socket could not be had.
pub type SocketError = (SocketStep, Errno);

pub(super) fn set_int(fd: &HostFd, level: i32, name: i32, value: i32) -> Result<()> {
    let len = size_of::<i32>() as libc::socklen_t;
    let from = (&raw const value).cast();
    // SAFETY: reads one int, which lives on this stack frame.
    let rc = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, from, len) };
    if rc < 0 { Err(last_errno()) } else { Ok(()) }
}

fn get_int(fd: &HostFd, level: i32, name: i32) -> Result<i32> {
    let (mut value, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
    let (to, size) = ((&raw mut value).cast(), &raw mut len);
    // SAFETY: writes at most one int, and its length, both on this stack frame.
    let rc = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, to, size) };
    if rc < 0 { Err(last_errno()) } else { Ok(value) }
}

/// Big buffers: by force where we may, else as large as the host allows.
pub(super) fn buffers(fd: &HostFd) {
    for (force, plain) in [(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF), (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)] {
        if set_int(fd, libc::SOL_SOCKET, force, BUFFER).is_err() {
            let _ = set_int(fd, libc::SOL_SOCKET, plain, BUFFER);
        }
    }
}

pub(super) fn ip_options(fd: &HostFd, v6: bool, how: IpOptions) -> Result<()> {
    let (level, ttl, tos, discover) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, libc::IPV6_TCLASS, libc::IPV6_MTU_DISCOVER)
    } else {
        (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_TOS, libc::IP_MTU_DISCOVER)
    };
    if let Some(v) = how.ttl {
        set_int(fd, level, ttl, i32::from(v))?;
    }
    if let Some(v) = how.tos {
        set_int(fd, level, tos, i32::from(v))?;
    }
    // The numbers are the same for both families: DONT 0, WANT 1, DO 2.
    set_int(fd, level, discover, how.df.map_or(1, |df| if df { 2 } else { 0 }))
}

pub(super) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET }
}

pub(super) fn open_socket(
    src: SocketAddr,
    ty: SocketType,
    proto: Option<rustix::net::Protocol>,
    how: IpOptions,
) -> core::result::Result<HostFd, SocketError> {
    let fd = rustix::net::socket_with(family(src.ip()), ty, SocketFlags::CLOEXEC, proto);
    let fd = HostFd::from(fd.map_err(|e| (SocketStep::Open, from_rustix(e)))?);
    if src.is_ipv6() && ty == SocketType::DGRAM {
        set_int(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1).map_err(|e| (SocketStep::Option, e))?;
    }
    ip_options(&fd, src.is_ipv6(), how).map_err(|e| (SocketStep::Option, e))?;
    rustix::net::bind(&fd, &src).map_err(|e| (SocketStep::Bind, from_rustix(e)))?;
    Ok(fd)
}

/// A UDP socket bound to `src` (port 0: any free one), not connected. With `gro` the host may hand over several
/// datagrams at once.
pub fn open(src: SocketAddr, how: IpOptions, gro: bool) -> core::result::Result<HostFd, SocketError> {
    let fd = open_socket(src, SocketType::DGRAM, None, how)?;
    buffers(&fd);
    if gro {
        // Hosts since 5.0 know it; without it datagrams come one by one.
        let _ = set_gro(&fd, true);
    }
    Ok(fd)
}

/// A UDP socket that only sends: what comes to it waits in a buffer that is as small as the host makes it.
pub fn open_sender(src: SocketAddr, how: IpOptions) -> core::result::Result<HostFd, SocketError> {
    let fd = open(src, how, false)?;
    let _ = set_int(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 0);
    Ok(fd)
}

/// UDP_GRO on or off. `ENOPROTOOPT` on a host without it.
pub fn set_gro(fd: &HostFd, on: bool) -> Result<()> {
    set_int(fd, libc::SOL_UDP, UDP_GRO, i32::from(on))
}

/// True if the host cuts trains of datagrams for a UDP socket (UDP_SEGMENT, hosts since 4.18).
pub fn can_segment(fd: &HostFd) -> bool {
    get_int(fd, libc::SOL_UDP, UDP_SEGMENT).is_ok()
}

/// The address a socket is bound to; `EAFNOSUPPORT` if it is not one of IP.
pub fn local_addr(fd: &HostFd) -> Result<SocketAddr> {
    let any: SocketAddrAny = rustix::net::getsockname(fd).map_err(from_rustix)?;
    SocketAddr::try_from(any).map_err(from_rustix)
}

/// The MTU of the path from `src` to `dst` as the host knows it now (ip(7) IP_MTU): that of the interface, or less if ICMP
/// said so. Looked up afresh each time.
pub fn path_mtu(mut src: SocketAddr, mut dst: SocketAddr) -> Result<u32> {
    let fd = rustix::net::socket_with(family(dst.ip()), SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    let fd = HostFd::from(fd.map_err(from_rustix)?);
    src.set_port(0);
    rustix::net::bind(&fd, &src).map_err(from_rustix)?;
    // The port does not matter: nothing is sent.
    dst.set_port(9);
    rustix::net::connect(&fd, &dst).map_err(from_rustix)?;
    let mtu = if dst.is_ipv6() {
        get_int(&fd, libc::IPPROTO_IPV6, libc::IPV6_MTU)
    } else {
        get_int(&fd, libc::IPPROTO_IP, libc::IP_MTU)
    }?;
    u32::try_from(mtu).map_err(|_| Errno::EINVAL)
}

/// `addr` as `struct sockaddr_in` or `sockaddr_in6`, for sendmsg(2) `msg_name`.
pub fn sockaddr(addr: SocketAddr) -> Vec<u8> {
    match addr {
        SocketAddr::V4(a) => {
            let mut b = (libc::AF_INET as u16).to_ne_bytes().to_vec();
            b.extend(a.port().to_be_bytes());
            b.extend(a.ip().octets());
            b.extend([0; 8]);
            b
        }
        SocketAddr::V6(a) => {
            let mut b = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
            b.extend(a.port().to_be_bytes());
            b.extend(a.flowinfo().to_be_bytes());
            b.extend(a.ip().octets());
            b.extend(a.scope_id().to_ne_bytes());
            b
        }
    }
}

/// The address of a host name, or an address in text (getaddrinfo(3)), of one family, with this port. `ENXIO` if there is
/// no such host, `EAFNOSUPPORT` if it has no address of the family. May wait for a name server: before boot only.
pub fn resolve(name: &str, port: u16, v6: bool) -> Result<SocketAddr> {
    use std::net::ToSocketAddrs;
    let mut all = (name, port).to_socket_addrs().map_err(|_| Errno::ENXIO)?;
    all.find(|a| a.is_ipv6() == v6).ok_or(Errno::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn names_are_as_the_host_has_them() {
        let v4 = sockaddr("10.0.0.1:4789".parse().expect("address"));
        assert_eq!(v4, [2, 0, 0x12, 0xb5, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        let v6 = sockaddr("[fd00::1]:4789".parse().expect("address"));
        assert_eq!((v6.len(), &v6[..4], v6[8], v6[23]), (28, &[10, 0, 0x12, 0xb5][..], 0xfd, 1));
    }

    #[test]
    fn sockets_of_both_families() {
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let how = IpOptions { ttl: Some(9), tos: Some(0x10), df: Some(true) };
            let fd = match open(SocketAddr::new(ip, 0), how, true) {
                Ok(fd) => fd,
                Err((SocketStep::Bind, Errno::EADDRNOTAVAIL)) => continue,
                Err(e) => panic!("{ip}: {e:?}"),
            };
            let here = local_addr(&fd).expect("address");
            assert!(here.ip() == ip && here.port() > 0);
            let taken = open(here, how, false).expect_err("taken");
            assert_eq!(taken, (SocketStep::Bind, Errno::EADDRINUSE));
            open_sender(SocketAddr::new(ip, 0), how).expect("sender");
            assert!(path_mtu(here, here).expect("mtu") >= 1280);
        }
        let nowhere: SocketAddr = "203.0.113.7:0".parse().expect("address");
        let e = open(nowhere, IpOptions::default(), false).expect_err("not ours");
        assert_eq!(e, (SocketStep::Bind, Errno::EADDRNOTAVAIL));
        assert_eq!(resolve("10.1.2.3", 7, false), Ok((Ipv4Addr::new(10, 1, 2, 3), 7).into()));
        assert_eq!(resolve("10.1.2.3", 7, true), Err(Errno::EAFNOSUPPORT));
    }
}
