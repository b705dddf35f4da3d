//! What all kinds of sockets share: family, flags, and the bytes of setsockopt(2) and getsockopt(2).
//!
//! Key types: [`SockBase`], [`BaseOpts`], [`Family`]. `common` decodes SOL_SOCKET, SOL_IP and SOL_IPV6; `tcp` and `dgram` add
//! what belongs to a protocol. Lock order: the options' lock is a leaf.

mod common;
pub(crate) mod dgram;
mod tcp;

use crate::diag::Owner;
use crate::netns::Net;
use klib::sync::Mutex;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;
use uapi::{Errno, Result};

/// Address family of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
}

/// shutdown(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shutdown {
    /// SHUT_RD.
    Read,
    /// SHUT_WR.
    Write,
    /// SHUT_RDWR.
    Both,
}

/// Options of SOL_SOCKET, SOL_IP and SOL_IPV6.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct BaseOpts {
    pub reuseaddr: bool,
    pub reuseport: bool,
    pub broadcast: bool,
    pub keepalive: bool,
    pub oobinline: bool,
    pub dontroute: bool,
    pub v6only: bool,
    pub timestamp: bool,
    pub timestampns: bool,
    /// As set by the guest (not doubled); 0 = default.
    pub rcvbuf: usize,
    pub sndbuf: usize,
    pub rcvlowat: u32,
    pub priority: u32,
    pub mark: u32,
    pub oif: u32,
    /// SO_LINGER seconds.
    pub linger: Option<u16>,
    pub rcvtimeo: Option<Duration>,
    pub sndtimeo: Option<Duration>,
    pub ttl: u8,
    pub tos: u8,
    pub hops: u8,
    pub tclass: u8,
    pub recvttl: bool,
    pub recvtos: bool,
    pub pktinfo: bool,
    pub recverr: bool,
    pub freebind: bool,
    pub transparent: bool,
    pub mtu_discover: u8,
    pub hdrincl: bool,
    pub mc_ttl: u8,
    pub mc_loop: bool,
    pub mc_if: u32,
    pub recvpktinfo6: bool,
    pub recvhops: bool,
    pub recvtclass: bool,
    pub recverr6: bool,
    pub checksum_at: i32,
    pub icmp_filter: u32,
    pub icmp6_filter: [u32; 8],
    pub gro: bool,
    pub gso_size: u16,
    pub no_check: bool,
}

impl Default for BaseOpts {
    fn default() -> Self {
        Self {
            reuseaddr: false,
            reuseport: false,
            broadcast: false,
            keepalive: false,
            oobinline: false,
            dontroute: false,
            v6only: false,
            timestamp: false,
            timestampns: false,
            rcvbuf: 0,
            sndbuf: 0,
            rcvlowat: 1,
            priority: 0,
            mark: 0,
            oif: 0,
            linger: None,
            rcvtimeo: None,
            sndtimeo: None,
            ttl: 0,
            tos: 0,
            hops: 0,
            tclass: 0,
            recvttl: false,
            recvtos: false,
            pktinfo: false,
            recverr: false,
            freebind: false,
            transparent: false,
            mtu_discover: 1,
            hdrincl: false,
            mc_ttl: 1,
            mc_loop: true,
            mc_if: 0,
            recvpktinfo6: false,
            recvhops: false,
            recvtclass: false,
            recverr6: false,
            checksum_at: -1,
            icmp_filter: 0,
            icmp6_filter: [0; 8],
            gro: false,
            gso_size: 0,
            no_check: false,
        }
    }
}

/// The part of a socket that does not depend on its protocol.
pub struct SockBase {
    /// Its family.
    pub family: Family,
    /// Unique number: names its bindings, and is SO_COOKIE.
    pub id: u64,
    opts: Mutex<BaseOpts>,
    owner: Mutex<Owner>,
}

/// The device a link-local address is meant for, 0 = not said.
pub(crate) fn scope(a: &SocketAddr) -> u32 {
    match a {
        SocketAddr::V6(v) => v.scope_id(),
        SocketAddr::V4(_) => 0,
    }
}

impl SockBase {
    pub(crate) fn new(net: &Net, family: Family) -> Self {
        let v6only = family == Family::V6 && net.sysctl.flag("ipv6/bindv6only");
        let id = net.next_ino();
        Self {
            family,
            id,
            opts: Mutex::new(BaseOpts { v6only, ..BaseOpts::default() }),
            owner: Mutex::new(Owner { cookie: id, ..Owner::default() }),
        }
    }

    /// Who holds the socket.
    pub fn owner(&self) -> Owner {
        *self.owner.lock()
    }

    /// The socket has become an open file with this inode, of this user.
    pub fn set_owner(&self, ino: u64, uid: u32) {
        *self.owner.lock() = Owner { ino, uid, cookie: self.id };
    }

    /// A copy of the options.
    pub fn opts(&self) -> BaseOpts {
        *self.opts.lock()
    }

    pub(crate) fn change<R>(&self, f: impl FnOnce(&mut BaseOpts) -> R) -> R {
        f(&mut self.opts.lock())
    }

    pub(crate) fn inherit(&self, from: &Self) {
        let o = from.opts();
        self.change(|m| *m = o);
    }

    pub(crate) fn v6only(&self) -> bool {
        self.opts.lock().v6only
    }

    pub(crate) fn reuseaddr(&self) -> bool {
        self.opts.lock().reuseaddr
    }

    pub(crate) fn reuseport(&self) -> bool {
        self.opts.lock().reuseport
    }

    /// A guest's address in the form the stack uses: v4-mapped becomes IPv4. EAFNOSUPPORT for a family the socket
    /// does not speak, ENETUNREACH for IPv4 through an IPv6-only socket (EINVAL when binding).
    pub(crate) fn normalize(&self, a: SocketAddr, binding: bool) -> Result<SocketAddr> {
        match (self.family, a) {
            (Family::V4, SocketAddr::V4(_)) => Ok(a),
            (Family::V4, SocketAddr::V6(_)) => Err(Errno::EAFNOSUPPORT),
            (Family::V6, SocketAddr::V4(_)) => Err(if binding { Errno::EINVAL } else { Errno::EAFNOSUPPORT }),
            (Family::V6, SocketAddr::V6(v)) => match v.ip().to_ipv4_mapped() {
                Some(_) if self.v6only() => Err(if binding { Errno::EINVAL } else { Errno::ENETUNREACH }),
                Some(v4) => Ok(SocketAddr::new(IpAddr::V4(v4), v.port())),
                None => Ok(SocketAddr::V6(SocketAddrV6::new(*v.ip(), v.port(), 0, v.scope_id()))),
            },
        }
    }

    /// The unspecified address of the family.
    pub(crate) fn any(&self) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// SOL_SOCKET.
pub const SOL_SOCKET: i32 = 1;
/// SOL_IP.
pub const SOL_IP: i32 = 0;
/// SOL_TCP.
pub const SOL_TCP: i32 = 6;
/// SOL_UDP.
pub const SOL_UDP: i32 = 17;
/// SOL_IPV6.
pub const SOL_IPV6: i32 = 41;
/// SOL_ICMPV6.
pub const SOL_ICMPV6: i32 = 58;
/// SOL_RAW.
pub const SOL_RAW: i32 = 255;

/// An int option value; EINVAL if too short. SOL_IP also takes one byte, as Linux does.
fn int(v: &[u8]) -> Result<i32> {
    Ok(i32::from_ne_bytes(v.get(..4).ok_or(Errno::EINVAL)?.try_into().map_err(|_| Errno::EINVAL)?))
}

fn int_or_byte(v: &[u8]) -> Result<i32> {
    match v {
        [b, ..] if v.len() < 4 => Ok(i32::from(*b)),
        _ => int(v),
    }
}

fn reply(v: i32) -> Vec<u8> {
    v.to_ne_bytes().to_vec()
}
