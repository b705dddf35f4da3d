//! `struct sockaddr` as bytes, and its forms (sockaddr(3type)).

use crate::syscall::UserPtr;
use crate::task::Task;
use crate::{Errno, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;
use uapi::raw::net as c;

/// Size of `struct sockaddr_storage`: no address is longer.
pub const MAX_ADDR: usize = 128;

/// An address as a guest gives it or is given it.
#[derive(Clone, Copy)]
pub struct SockAddr {
    bytes: [u8; MAX_ADDR],
    len: usize,
}

impl Default for SockAddr {
    fn default() -> Self {
        Self { bytes: [0; MAX_ADDR], len: 0 }
    }
}

impl std::fmt::Debug for SockAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x?}", self.bytes())
    }
}

fn put(out: &mut [u8; MAX_ADDR], at: usize, bytes: &[u8]) {
    if let Some(room) = out.get_mut(at..at + bytes.len()) {
        room.copy_from_slice(bytes);
    }
}

impl SockAddr {
    /// From raw bytes; `EINVAL` if there are more than an address can have.
    pub fn from_bytes(raw: &[u8]) -> Result<Self> {
        if raw.len() > MAX_ADDR {
            return Err(Errno::EINVAL);
        }
        let mut a = Self { len: raw.len(), ..Self::default() };
        put(&mut a.bytes, 0, raw);
        Ok(a)
    }

    /// Reads an address argument of a system call.
    pub async fn import(cur: &Arc<Task>, ptr: u64, len: i32) -> Result<Self> {
        let len = usize::try_from(len).ok().filter(|&n| n <= MAX_ADDR).ok_or(Errno::EINVAL)?;
        let mut a = Self { len, ..Self::default() };
        cur.mm().copy_from_user(ptr, &mut a.bytes[..len]).await?;
        Ok(a)
    }

    /// Writes the address to a guest buffer whose room is at `len_ptr`, and the true length to `len_ptr`.
    pub async fn export(&self, cur: &Arc<Task>, ptr: u64, len_ptr: UserPtr<i32>) -> Result<()> {
        if ptr == 0 {
            return Ok(());
        }
        let room = usize::try_from(len_ptr.read(cur).await?).map_err(|_| Errno::EINVAL)?;
        cur.mm().copy_to_user(ptr, &self.bytes()[..room.min(self.len)]).await?;
        len_ptr.write(cur, &i32::try_from(self.len).unwrap_or(0)).await
    }

    /// The bytes, family first.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// Bytes in it; 0 means "no address".
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there is no address.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `sa_family`; AF_UNSPEC if too short to have one.
    pub fn family(&self) -> u32 {
        if self.len < 2 {
            return c::AF_UNSPEC;
        }
        u32::from(u16::from_ne_bytes([self.bytes[0], self.bytes[1]]))
    }

    /// `struct sockaddr_in` or `sockaddr_in6`.
    pub fn from_inet(a: &SocketAddr) -> Self {
        let mut s = Self::default();
        match a {
            SocketAddr::V4(v4) => {
                put(&mut s.bytes, 0, &(c::AF_INET as u16).to_ne_bytes());
                put(&mut s.bytes, 2, &v4.port().to_be_bytes());
                put(&mut s.bytes, 4, &v4.ip().octets());
                s.len = 16;
            }
            SocketAddr::V6(v6) => {
                put(&mut s.bytes, 0, &(c::AF_INET6 as u16).to_ne_bytes());
                put(&mut s.bytes, 2, &v6.port().to_be_bytes());
                put(&mut s.bytes, 4, &v6.flowinfo().to_be_bytes());
                put(&mut s.bytes, 8, &v6.ip().octets());
                put(&mut s.bytes, 24, &v6.scope_id().to_ne_bytes());
                s.len = 28;
            }
        }
        s
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        if let Some(b) = self.bytes.get(at..at + N) {
            out.copy_from_slice(b);
        }
        out
    }

    /// The internet address in it. `EINVAL` if too short, `EAFNOSUPPORT` for other families.
    pub fn to_inet(&self) -> Result<SocketAddr> {
        let port = u16::from_be_bytes(self.array(2));
        match self.family() {
            c::AF_INET if self.len >= 16 => {
                let ip = Ipv4Addr::from(self.array::<4>(4));
                Ok(SocketAddr::V4(SocketAddrV4::new(ip, port)))
            }
            // SIN6_LEN_RFC2133: the scope id came later.
            c::AF_INET6 if self.len >= 24 => {
                let ip = Ipv6Addr::from(self.array::<16>(8));
                let scope = u32::from_ne_bytes(self.array(24));
                let flow = u32::from_be_bytes(self.array(4));
                Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)))
            }
            c::AF_INET | c::AF_INET6 => Err(Errno::EINVAL),
            _ if self.len < 2 => Err(Errno::EINVAL),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// `struct sockaddr_nl`: port id and groups.
    pub fn to_netlink(&self) -> Result<(u32, u32)> {
        if self.len < 12 || self.family() != c::AF_NETLINK {
            return Err(Errno::EINVAL);
        }
        Ok((u32::from_ne_bytes(self.array(4)), u32::from_ne_bytes(self.array(8))))
    }

    /// `struct sockaddr_nl` with this port id and these groups.
    pub fn from_netlink(port: u32, groups: u32) -> Self {
        let mut s = Self { len: 12, ..Self::default() };
        put(&mut s.bytes, 0, &(c::AF_NETLINK as u16).to_ne_bytes());
        put(&mut s.bytes, 4, &port.to_ne_bytes());
        put(&mut s.bytes, 8, &groups.to_ne_bytes());
        s
    }

    /// `struct sockaddr_un` with this `sun_path` (as it is, NUL bytes and all).
    pub fn from_unix(path: &[u8]) -> Self {
        let path = &path[..path.len().min(108 + 1)];
        let mut s = Self { len: 2 + path.len(), ..Self::default() };
        put(&mut s.bytes, 0, &(c::AF_UNIX as u16).to_ne_bytes());
        put(&mut s.bytes, 2, path);
        s
    }
}

/// True if the address belongs to the v4-mapped part of IPv6.
pub fn unmap(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inet_addresses_go_both_ways() {
        for text in ["10.1.2.3:80", "[fe80::1%3]:443", "[::1]:1"] {
            let a: SocketAddr = text.parse().expect("address");
            assert_eq!(SockAddr::from_inet(&a).to_inet(), Ok(a));
        }
        assert_eq!(SockAddr::from_bytes(&[2, 0, 0, 80]).and_then(|a| a.to_inet()), Err(Errno::EINVAL));
        assert_eq!(SockAddr::from_bytes(&[9, 0, 0, 80]).and_then(|a| a.to_inet()), Err(Errno::EAFNOSUPPORT));
        assert_eq!(SockAddr::from_netlink(7, 3).to_netlink(), Ok((7, 3)));
    }
}
