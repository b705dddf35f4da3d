//! Raw IP sockets of tunnels (raw(7)): one IP protocol, the payload of packets; they take CAP_NET_RAW.

use super::fd::HostFd;
use super::from_rustix;
use super::udp::{IpOptions, SocketError, SocketStep, buffers, open_socket};
use rustix::net::{Protocol, SocketType};
use std::net::SocketAddr;

/// GRE (RFC 2784).
pub const IPPROTO_GRE: u8 = 47;
/// L2TPv3 over IP (RFC 3931).
pub const IPPROTO_L2TP: u8 = 115;

/// A socket for packets of `proto` between `src` and `dst`, whose ports must be 0. What it receives begins with
/// the IP header on IPv4, and with the payload on IPv6. Packets of other hosts do not come to it.
/// `EPERM` at the first step: no CAP_NET_RAW.
pub fn open(
    src: SocketAddr,
    dst: SocketAddr,
    proto: u8,
    how: IpOptions,
) -> core::result::Result<HostFd, SocketError> {
    let proto = core::num::NonZeroU32::new(u32::from(proto)).map(Protocol::from_raw);
    let fd = open_socket(src, SocketType::RAW, proto, how)?;
    buffers(&fd);
    rustix::net::connect(&fd, &dst).map_err(|e| (SocketStep::Connect, from_rustix(e)))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uapi::Errno;

    #[test]
    fn packets_of_both_families() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let ip: SocketAddr = ip.parse().expect("address");
            let a = match open(ip, ip, 253, IpOptions::default()) {
                Ok(a) => a,
                Err((SocketStep::Open, Errno::EPERM)) => return println!("skipped: no CAP_NET_RAW"),
                Err((SocketStep::Bind, Errno::EADDRNOTAVAIL)) => continue,
                Err(e) => panic!("{ip}: {e:?}"),
            };
            if a.send_now(b"payload") != Ok(7) {
                println!("skipped: the loopback interface is down");
                continue;
            }
            assert!(a.poll_wait(1, 2000).is_ok_and(|e| e & 1 != 0), "{ip}: waited for the packet");
            let mut buf = [0; 100];
            let n = a.recv_now(&mut buf).expect("received");
            let head = if ip.is_ipv4() { 20 } else { 0 };
            assert_eq!(&buf[head..n], b"payload", "{ip}");
        }
    }
}
