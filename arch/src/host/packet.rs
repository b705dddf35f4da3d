//! Packet sockets (packet(7)): Ethernet frames of an interface, each behind a virtio-net header where the host can.

use super::fd::HostFd;
use super::udp::{buffers, set_int};
use super::{from_rustix, last_errno};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::os::fd::AsRawFd;
use uapi::{Errno, Result};

const PACKET_ADD_MEMBERSHIP: i32 = 1;
const PACKET_MR_PROMISC: u16 = 1;
const PACKET_VNET_HDR: i32 = 15;
const PACKET_IGNORE_OUTGOING: i32 = 23;

/// Bytes that may wait to be received, with the host's bookkeeping.
const RECEIVE_BUFFER: i32 = 32 << 20;

/// All protocols, in both directions.
pub const ETH_P_ALL: u16 = 3;
/// `ARPHRD_ETHER` of [`LinkInfo::kind`].
pub const ARPHRD_ETHER: u16 = 1;

/// What the host says of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkInfo {
    /// Its number.
    pub index: u32,
    /// `ARPHRD_*`: 1 is Ethernet.
    pub kind: u16,
    /// Its link-layer address.
    pub mac: [u8; 6],
    /// Its MTU.
    pub mtu: u32,
    /// `IFF_UP`.
    pub up: bool,
    /// `IFF_RUNNING`: up with carrier.
    pub running: bool,
}

/// `struct ifreq`: a name and 24 bytes of answer.
#[repr(C, align(8))]
struct IfReq {
    name: [u8; 16],
    data: [u8; 24],
}

fn ifreq(fd: &HostFd, name: &str, request: u64) -> Result<[u8; 24]> {
    let mut req = IfReq { name: [0; 16], data: [0; 24] };
    let bytes = name.as_bytes();
    if bytes.len() > 15 || bytes.contains(&0) {
        return Err(Errno::ENODEV);
    }
    req.name[..bytes.len()].copy_from_slice(bytes);
    // SAFETY: the SIOCGIF calls read and write one struct ifreq of 40 bytes, which lives on this stack frame.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::c_ulong, &raw mut req) };
    if rc < 0 { Err(last_errno()) } else { Ok(req.data) }
}

fn any_socket() -> Result<HostFd> {
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    fd.map(HostFd::from).map_err(from_rustix)
}

/// Looks an interface up by name; `ENODEV` if there is none.
pub fn link(name: &str) -> Result<LinkInfo> {
    const SIOCGIFFLAGS: u64 = 0x8913;
    const SIOCGIFMTU: u64 = 0x8921;
    const SIOCGIFHWADDR: u64 = 0x8927;
    const SIOCGIFINDEX: u64 = 0x8933;
    let fd = any_socket()?;
    let word = |d: [u8; 24]| u32::from_ne_bytes([d[0], d[1], d[2], d[3]]);
    let index = word(ifreq(&fd, name, SIOCGIFINDEX)?);
    let hw = ifreq(&fd, name, SIOCGIFHWADDR)?;
    let flags = word(ifreq(&fd, name, SIOCGIFFLAGS)?);
    Ok(LinkInfo {
        index,
        kind: u16::from_ne_bytes([hw[0], hw[1]]),
        mac: [hw[2], hw[3], hw[4], hw[5], hw[6], hw[7]],
        mtu: word(ifreq(&fd, name, SIOCGIFMTU)?),
        up: flags & 0x1 != 0,
        running: flags & 0x40 != 0,
    })
}

/// A packet socket with big buffers that is bound to nothing and receives nothing yet. `EPERM`: no CAP_NET_RAW.
pub fn open() -> Result<HostFd> {
    let family = AddressFamily::PACKET;
    let fd = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, None);
    let fd = HostFd::from(fd.map_err(from_rustix)?);
    buffers(&fd);
    // Nobody waits for a packet socket: what does not fit is lost. A TCP window of super-frames should.
    let _ = set_int(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER);
    Ok(fd)
}

/// Binds to an interface: from now on frames come and go there.
pub fn bind(fd: &HostFd, ifindex: u32, protocol: u16) -> Result<()> {
    let addr = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: i32::try_from(ifindex).map_err(|_| Errno::ENODEV)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    let at = (&raw const addr).cast();
    // SAFETY: reads the address, which lives on this stack frame.
    let rc = unsafe { libc::bind(fd.as_raw_fd(), at, len) };
    if rc < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Puts a virtio-net header of ten bytes in front of each frame, in both directions.
pub fn set_vnet_hdr(fd: &HostFd) -> Result<()> {
    set_int(fd, libc::SOL_PACKET, PACKET_VNET_HDR, 1)
}

/// Frames that leave the host by the interface are not received (hosts since 4.20; `ENOPROTOOPT`).
pub fn ignore_outgoing(fd: &HostFd) -> Result<()> {
    set_int(fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
}

fn set_struct<T>(fd: &HostFd, level: i32, name: i32, value: &T) -> Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    let from = std::ptr::from_ref(value).cast();
    // SAFETY: reads size_of::<T>() bytes of a live object; whatever the structs given here point to lives as well.
    let rc = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, from, len) };
    if rc < 0 { Err(last_errno()) } else { Ok(()) }
}

/// The interface receives frames for every address for as long as the socket is open.
pub fn set_promiscuous(fd: &HostFd, ifindex: u32) -> Result<()> {
    let index = i32::try_from(ifindex).map_err(|_| Errno::ENODEV)?;
    let req =
        libc::packet_mreq { mr_ifindex: index, mr_type: PACKET_MR_PROMISC, mr_alen: 0, mr_address: [0; 8] };
    set_struct(fd, libc::SOL_PACKET, PACKET_ADD_MEMBERSHIP, &req)
}

/// One instruction of a classic BPF program (linux/filter.h): code, jumps, operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Insn {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if true.
    pub jt: u8,
    /// Instructions to skip if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Most instructions of a program (BPF_MAXINSNS).
pub const MAX_INSNS: usize = 4096;

/// `BPF_LD | BPF_W | BPF_ABS`: loads a big-endian word.
const LD_W: u16 = 0x20;
/// `BPF_LD | BPF_H | BPF_ABS`.
const LD_H: u16 = 0x28;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
const JEQ: u16 = 0x15;
/// `BPF_RET | BPF_K`.
const RET: u16 = 0x06;

/// The program that drops frames which come from `mac` and takes all others whole.
pub fn not_from(mac: [u8; 6]) -> [Insn; 6] {
    let high = u32::from_be_bytes([mac[0], mac[1], mac[2], mac[3]]);
    let low = u32::from(u16::from_be_bytes([mac[4], mac[5]]));
    let op = |code, jt, jf, k| Insn { code, jt, jf, k };
    [
        op(LD_W, 0, 0, 6),
        op(JEQ, 0, 3, high),
        op(LD_H, 0, 0, 10),
        op(JEQ, 0, 1, low),
        op(RET, 0, 0, 0),
        op(RET, 0, 0, 0x4_0000),
    ]
}

/// Attaches a program to the receiving side of a socket. `EINVAL`: it is not one, or too long.
pub fn attach_filter(fd: &HostFd, program: &[Insn]) -> Result<()> {
    if program.is_empty() || program.len() > MAX_INSNS {
        return Err(Errno::EINVAL);
    }
    let mut insns: Vec<libc::sock_filter> =
        program.iter().map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
    let len = program.len() as u16;
    let prog = libc::sock_fprog { len, filter: insns.as_mut_ptr() };
    set_struct(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &prog)
}

/// Removes the program of a socket; nothing if there is none.
pub fn detach_filter(fd: &HostFd) {
    let _ = set_int(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0);
}

/// A program in its binary form: eight bytes an instruction, as the host lays them out. `EINVAL` if the length is not
/// that of a program.
pub fn decode(bytes: &[u8]) -> Result<Vec<Insn>> {
    let (insns, rest) = bytes.as_chunks::<8>();
    if insns.is_empty() || insns.len() > MAX_INSNS || !rest.is_empty() {
        return Err(Errno::EINVAL);
    }
    let one = |b: &[u8; 8]| Insn {
        code: u16::from_ne_bytes([b[0], b[1]]),
        jt: b[2],
        jf: b[3],
        k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
    };
    Ok(insns.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_known() {
        let lo = link("lo").expect("lo");
        assert_eq!((lo.kind, lo.mac), (772, [0; 6]));
        assert!(lo.index > 0 && lo.mtu > 1000);
        assert_eq!(link("no-such-link"), Err(Errno::ENODEV));
        assert_eq!(link("a name that is too long"), Err(Errno::ENODEV));
    }

    #[test]
    fn programs_are_taken_apart() {
        assert_eq!(
            decode(&[6, 0, 0, 0, 0, 0, 4, 0]).expect("one"),
            [Insn { code: 6, jt: 0, jf: 0, k: 0x4_0000 }]
        );
        assert_eq!(decode(&[]), Err(Errno::EINVAL));
        assert_eq!(decode(&[0; 9]), Err(Errno::EINVAL));
        assert_eq!(decode(&vec![0; 8 * 4097]), Err(Errno::EINVAL));
    }
}
