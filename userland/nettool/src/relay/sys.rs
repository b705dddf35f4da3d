//! The calls of the relay: a tap with virtio-net headers, the tunnel's socket, batches in both directions.

use libc::{c_int, c_void, iovec, mmsghdr, sockaddr_in};
use std::io::{Error, Result};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Length of the header that the tap wants before each frame.
pub const VNET: usize = 10;
/// Room for one message of either side.
pub const ROOM: usize = 65536 + 256;
/// Messages of one call.
const BATCH: usize = 64;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
/// Partial checksums and TSO over IPv4.
const OFFLOADS: libc::c_ulong = 3;

fn check(r: impl TryInto<i64>) -> Result<usize> {
    let r = r.try_into().unwrap_or(-1);
    usize::try_from(r).map_err(|_| Error::last_os_error())
}

fn owned(fd: c_int) -> Result<OwnedFd> {
    check(fd)?;
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens an existing tap, without waiting.
pub fn tap(name: &str) -> Result<OwnedFd> {
    let fd = owned(unsafe { libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR | libc::O_NONBLOCK) })?;
    let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in req.ifr_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    req.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF, &raw mut req) })?;
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETOFFLOAD, OFFLOADS) })?;
    Ok(fd)
}

fn address(a: SocketAddrV4) -> sockaddr_in {
    let mut s: sockaddr_in = unsafe { std::mem::zeroed() };
    s.sin_family = libc::AF_INET as u16;
    s.sin_port = a.port().to_be();
    s.sin_addr.s_addr = u32::from(*a.ip()).to_be();
    s
}

/// The socket of the tunnel: UDP at a port, or an IP protocol.
pub fn socket(local: Ipv4Addr, port: Option<u16>, protocol: c_int) -> Result<OwnedFd> {
    let kind = if port.is_some() { libc::SOCK_DGRAM } else { libc::SOCK_RAW };
    let fd = owned(unsafe { libc::socket(libc::AF_INET, kind, protocol) })?;
    let set = |level, name, value: c_int| {
        let size = size_of::<c_int>() as libc::socklen_t;
        check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size) })
    };
    set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 16 << 20)?;
    set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 4 << 20)?;
    if port.is_some() {
        set(libc::SOL_UDP, libc::UDP_GRO, 1)?;
    }
    let at = address(SocketAddrV4::new(local, port.unwrap_or(0)));
    let size = size_of::<sockaddr_in>() as libc::socklen_t;
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const at).cast(), size) })?;
    Ok(fd)
}

/// Waits until one of two descriptors is readable; which.
pub fn wait(a: &OwnedFd, b: &OwnedFd) -> Result<(bool, bool)> {
    let one = |fd: &OwnedFd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut p = [one(a), one(b)];
    check(unsafe { libc::poll(p.as_mut_ptr(), 2, -1) })?;
    Ok((p[0].revents != 0, p[1].revents != 0))
}

/// One read; `None` if nothing is there.
pub fn read(fd: &OwnedFd, to: &mut [u8]) -> Result<Option<usize>> {
    match check(unsafe { libc::read(fd.as_raw_fd(), to.as_mut_ptr().cast(), to.len()) }) {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        r => r.map(Some),
    }
}

/// Part of a message: valid as long as what it was made of stays where it is.
pub fn part(b: &[u8]) -> iovec {
    iovec { iov_base: b.as_ptr().cast_mut().cast::<c_void>(), iov_len: b.len() }
}

/// One message to the tap. What it refuses is lost, as on a wire.
pub fn write(fd: &OwnedFd, parts: &[iovec]) {
    let _ = unsafe { libc::writev(fd.as_raw_fd(), parts.as_ptr(), parts.len() as c_int) };
}

/// A control message of one integer, aligned as the kernel wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control {
    len: usize,
    level: c_int,
    kind: c_int,
    value: [u8; 8],
}

/// Messages to send, each a row of parts.
#[derive(Default)]
pub struct Outbox {
    parts: Vec<iovec>,
    /// How many parts and the size of a segment, 0 for a single packet.
    messages: Vec<(usize, u16)>,
}

impl Outbox {
    /// A part of the message that is being made.
    pub fn part(&mut self, b: &[u8]) {
        self.parts.push(part(b));
    }

    /// Ends a message; `segment` bytes a packet, 0 for one packet.
    pub fn end(&mut self, parts: usize, segment: u16) {
        self.messages.push((parts, segment));
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Sends all. What the host refuses is lost, as on a wire.
    pub fn send(&mut self, fd: &OwnedFd, to: SocketAddrV4) {
        let mut to = address(to);
        let mut controls: Vec<Control> = self
            .messages
            .iter()
            .map(|m| {
                let [a, b] = m.1.to_ne_bytes();
                let value = [a, b, 0, 0, 0, 0, 0, 0];
                Control {
                    len: size_of::<Control>() - 6,
                    level: libc::SOL_UDP,
                    kind: libc::UDP_SEGMENT,
                    value,
                }
            })
            .collect();
        let mut at = self.parts.as_mut_ptr();
        let mut heads: Vec<mmsghdr> = Vec::with_capacity(self.messages.len());
        for ((n, segment), control) in self.messages.iter().zip(&mut controls) {
            let mut m: mmsghdr = unsafe { std::mem::zeroed() };
            m.msg_hdr.msg_name = (&raw mut to).cast();
            m.msg_hdr.msg_namelen = size_of::<sockaddr_in>() as u32;
            m.msg_hdr.msg_iov = at;
            m.msg_hdr.msg_iovlen = *n;
            if *segment > 0 {
                m.msg_hdr.msg_control = (&raw mut *control).cast();
                m.msg_hdr.msg_controllen = size_of::<Control>();
            }
            at = at.wrapping_add(*n);
            heads.push(m);
        }
        let mut left = heads.as_mut_slice();
        while !left.is_empty() {
            let n = unsafe { libc::sendmmsg(fd.as_raw_fd(), left.as_mut_ptr(), left.len() as u32, 0) };
            let gone = (n.max(1) as usize).min(left.len());
            left = &mut left[gone..];
        }
        self.parts.clear();
        self.messages.clear();
    }
}

/// Buffers for a batch of received messages.
pub struct Inbox {
    room: Vec<u8>,
    /// Length of each message and of its packets; what was received last.
    got: Vec<(usize, usize)>,
}

impl Inbox {
    /// Room for [`BATCH`] messages.
    pub fn new() -> Self {
        Self { room: vec![0; BATCH * ROOM], got: Vec::new() }
    }

    /// Receives what is there, at most a batch.
    pub fn receive(&mut self, fd: &OwnedFd) -> Result<()> {
        let empty = Control { len: 0, level: 0, kind: 0, value: [0; 8] };
        let mut controls = [empty; BATCH];
        let mut parts: Vec<iovec> = self.room.chunks_mut(ROOM).map(|b| part(b)).collect();
        let mut heads: [mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for ((m, p), c) in heads.iter_mut().zip(&mut parts).zip(&mut controls) {
            m.msg_hdr.msg_iov = p;
            m.msg_hdr.msg_iovlen = 1;
            m.msg_hdr.msg_control = (&raw mut *c).cast();
            m.msg_hdr.msg_controllen = size_of::<Control>();
        }
        let n = unsafe {
            let none = std::ptr::null_mut();
            libc::recvmmsg(fd.as_raw_fd(), heads.as_mut_ptr(), BATCH as u32, libc::MSG_DONTWAIT, none)
        };
        self.got.clear();
        let n = match check(n) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => 0,
            r => r?,
        };
        for (m, c) in heads.iter().zip(&controls).take(n) {
            let len = m.msg_len as usize;
            let gro = m.msg_hdr.msg_controllen > 0 && c.level == libc::SOL_UDP && c.kind == libc::UDP_GRO;
            let [a, b, ..] = c.value;
            let segment = if gro { usize::from(u16::from_ne_bytes([a, b])) } else { len };
            self.got.push((len, segment.max(1)));
        }
        Ok(())
    }

    /// The packets of the last batch in order.
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        self.room.chunks(ROOM).zip(&self.got).flat_map(|(b, (len, segment))| b[..*len].chunks(*segment))
    }
}
