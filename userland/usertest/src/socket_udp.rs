//! UDP over loopback, errors that all sockets share, interfaces by ioctl and netlink.
use crate::check::*;
use crate::socket::{SIN, any4, opt, poll1, recv, sin, sock};
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::null_mut;
use std::time::Duration;

tests![
    udp_send_recv,
    udp_connected,
    udp_truncates,
    udp_boundaries,
    udp_msg_peek,
    udp_v6,
    udp_errors,
    udp_nonblocking,
    udp_refused_reports,
    udp_big_datagram,
    socket_errors,
    bind_errors,
    getsockopt_errors,
    so_error_clears,
    sendmmsg_recvmmsg,
    interface_ioctls,
    netlink_getlink
];

fn udp() -> UdpSocket {
    let s = UdpSocket::bind(any4()).unwrap();
    s.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    s
}

unsafe fn udp_send_recv() {
    let (a, b) = (udp(), udp());
    a.send_to(b"hello", b.local_addr().unwrap()).unwrap();
    let mut v = [0; 100];
    assert_eq!(b.recv_from(&mut v).unwrap(), (5, a.local_addr().unwrap()));
    assert_eq!(&v[..5], b"hello");
    a.send_to(b"", b.local_addr().unwrap()).unwrap();
    assert_eq!(b.recv_from(&mut v).unwrap().0, 0, "an empty datagram is one too");
}

unsafe fn udp_connected() {
    let (a, b, c) = (udp(), udp(), udp());
    a.connect(b.local_addr().unwrap()).unwrap();
    b.connect(a.local_addr().unwrap()).unwrap();
    a.send(b"x").unwrap();
    let mut v = [0; 10];
    assert_eq!(b.recv(&mut v).unwrap(), 1);
    c.send_to(b"stranger", b.local_addr().unwrap()).unwrap();
    assert_eq!(poll1(b.as_raw_fd(), libc::POLLIN, 50), 0, "a connected socket hears its peer alone");
    // Connecting to AF_UNSPEC takes the peer away.
    let u = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
    ok!(libc::connect(a.as_raw_fd(), &u, 16));
    fails!(libc::send(a.as_raw_fd(), b"x".as_ptr().cast(), 1, 0), EDESTADDRREQ);
}

unsafe fn udp_truncates() {
    let (a, b) = (udp(), udp());
    a.send_to(&[7; 100], b.local_addr().unwrap()).unwrap();
    assert_eq!(recv(b.as_raw_fd(), 10, libc::MSG_PEEK), [7; 10]);
    let mut v = [0u8; 10];
    let n = ok!(libc::recv(b.as_raw_fd(), v.as_mut_ptr().cast(), 10, libc::MSG_TRUNC));
    assert_eq!(n, 100, "MSG_TRUNC asks for the true length");
    assert_eq!(poll1(b.as_raw_fd(), libc::POLLIN, 0), 0, "the rest is gone");
}

unsafe fn udp_boundaries() {
    let (a, b) = (udp(), udp());
    for i in 1..=50usize {
        a.send_to(&vec![i as u8; i * 10], b.local_addr().unwrap()).unwrap();
    }
    let mut v = [0; 2000];
    for i in 1..=50usize {
        let n = b.recv(&mut v).unwrap();
        assert!(n == i * 10 && v[..n].iter().all(|x| *x == i as u8));
    }
}

unsafe fn udp_msg_peek() {
    let (a, b) = (udp(), udp());
    a.send_to(b"peek", b.local_addr().unwrap()).unwrap();
    let mut v = [0; 10];
    assert_eq!(b.peek(&mut v).unwrap(), 4);
    assert_eq!(b.recv(&mut v).unwrap(), 4);
}

unsafe fn udp_v6() {
    let Ok(a) = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) else { skip("no ::1 here") };
    let b = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    b.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    a.send_to(b"six", b.local_addr().unwrap()).unwrap();
    let mut v = [0; 10];
    assert_eq!(b.recv_from(&mut v).unwrap(), (3, a.local_addr().unwrap()));
}

unsafe fn udp_errors() {
    let s = udp();
    fails!(libc::send(s.as_raw_fd(), b"x".as_ptr().cast(), 1, 0), EDESTADDRREQ);
    let big = vec![0u8; 66_000];
    let a = sin(Ipv4Addr::LOCALHOST, 9);
    let to = |len| libc::sendto(s.as_raw_fd(), big.as_ptr().cast(), len, 0, (&raw const a).cast(), SIN);
    fails!(to(66_000), EMSGSIZE);
    fails!(to(65_508), EMSGSIZE);
    fails!(libc::listen(s.as_raw_fd(), 1), EOPNOTSUPP);
    fails!(libc::accept(s.as_raw_fd(), null_mut(), null_mut()), EOPNOTSUPP);
}

unsafe fn udp_nonblocking() {
    let s = udp();
    s.set_nonblocking(true).unwrap();
    let mut b = 0u8;
    fails!(libc::recv(s.as_raw_fd(), (&raw mut b).cast(), 1, 0), EAGAIN);
}

unsafe fn udp_refused_reports() {
    let s = udp();
    let dead = udp().local_addr().unwrap();
    s.connect(dead).unwrap();
    s.send(b"x").unwrap();
    assert_eq!(s.recv(&mut [0; 4]).unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
}

unsafe fn udp_big_datagram() {
    let (a, b) = (udp(), udp());
    let data: Vec<u8> = (0..60_000).map(|i| (i * 3) as u8).collect();
    a.send_to(&data, b.local_addr().unwrap()).unwrap();
    let mut v = vec![0; 65_536];
    let n = b.recv(&mut v).unwrap();
    assert!(v[..n] == data, "{n} bytes");
}

unsafe fn socket_errors() {
    fails!(libc::socket(999, libc::SOCK_STREAM, 0), EAFNOSUPPORT);
    fails!(libc::socket(libc::AF_INET, 99, 0), EINVAL);
    fails!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_UDP), EPROTONOSUPPORT);
    fails!(libc::socket(libc::AF_INET, libc::SOCK_SEQPACKET, 0), ESOCKTNOSUPPORT);
    fails!(libc::listen(0x3fff, 1), EBADF);
    let (r, _w) = pipe();
    fails!(libc::listen(r, 1), ENOTSOCK);
    let mut b = 0u8;
    fails!(libc::recv(r, (&raw mut b).cast(), 1, 0), ENOTSOCK);
}

unsafe fn bind_errors() {
    let s = sock(libc::AF_INET, libc::SOCK_STREAM);
    let foreign = sin(Ipv4Addr::new(192, 0, 2, 77), 0);
    fails!(libc::bind(s, (&raw const foreign).cast(), SIN), EADDRNOTAVAIL);
    let mut a = sin(Ipv4Addr::LOCALHOST, 0);
    fails!(libc::bind(s, (&raw const a).cast(), 4), EINVAL);
    ok!(libc::bind(s, (&raw const a).cast(), SIN));
    fails!(libc::bind(s, (&raw const a).cast(), SIN), EINVAL);
    a.sin_family = libc::AF_INET6 as u16;
    let t = sock(libc::AF_INET, libc::SOCK_STREAM);
    fails!(libc::bind(t, (&raw const a).cast(), SIN), EAFNOSUPPORT);
    fails!(libc::connect(t, (&raw const a).cast(), SIN), EAFNOSUPPORT);
}

unsafe fn getsockopt_errors() {
    let s = sock(libc::AF_INET, libc::SOCK_STREAM);
    let mut v = 0i32;
    let mut l = 4;
    fails!(libc::getsockopt(s, libc::SOL_SOCKET, 9999, (&raw mut v).cast(), &mut l), ENOPROTOOPT);
    fails!(libc::setsockopt(s, libc::SOL_SOCKET, 9999, (&raw const v).cast(), 4), ENOPROTOOPT);
    fails!(libc::setsockopt(s, libc::SOL_SOCKET, libc::SO_REUSEADDR, (&raw const v).cast(), 1), EINVAL);
}

unsafe fn so_error_clears() {
    let s = sock(libc::AF_INET, libc::SOCK_DGRAM);
    let a = sin(Ipv4Addr::LOCALHOST, udp().local_addr().unwrap().port());
    ok!(libc::connect(s, (&raw const a).cast(), SIN));
    ok!(libc::send(s, b"x".as_ptr().cast(), 1, 0));
    let ev = poll1(s, libc::POLLIN, 2000);
    assert_ne!(ev & libc::POLLERR, 0);
    assert_eq!(opt(s, libc::SOL_SOCKET, libc::SO_ERROR), libc::ECONNREFUSED);
    assert_eq!(opt(s, libc::SOL_SOCKET, libc::SO_ERROR), 0);
}

unsafe fn sendmmsg_recvmmsg() {
    let (a, b) = (udp(), udp());
    a.connect(b.local_addr().unwrap()).unwrap();
    let data = [b"aa", b"bb", b"cc"];
    let mut io = data.map(|d| libc::iovec { iov_base: d.as_ptr() as *mut _, iov_len: 2 });
    let mut m: [libc::mmsghdr; 3] = std::mem::zeroed();
    for i in 0..3 {
        m[i].msg_hdr.msg_iov = &mut io[i];
        m[i].msg_hdr.msg_iovlen = 1;
    }
    let r = libc::sendmmsg(a.as_raw_fd(), m.as_mut_ptr(), 3, 0);
    if r < 0 && errno() == libc::ENOSYS {
        skip("sendmmsg is not there");
    }
    assert_eq!(r, 3);
    let mut got = [[0u8; 4]; 4];
    let mut io: Vec<_> =
        got.iter_mut().map(|g| libc::iovec { iov_base: g.as_mut_ptr().cast(), iov_len: 4 }).collect();
    let mut m: [libc::mmsghdr; 4] = std::mem::zeroed();
    for i in 0..4 {
        m[i].msg_hdr.msg_iov = &mut io[i];
        m[i].msg_hdr.msg_iovlen = 1;
    }
    poll1(b.as_raw_fd(), libc::POLLIN, 2000);
    assert_eq!(ok!(libc::recvmmsg(b.as_raw_fd(), m.as_mut_ptr(), 4, libc::MSG_DONTWAIT, null_mut())), 3);
    assert_eq!((m[0].msg_len, m[2].msg_len), (2, 2));
    assert_eq!(&std::hint::black_box(&got)[1][..2], b"bb");
}

unsafe fn interface_ioctls() {
    let s = sock(libc::AF_INET, libc::SOCK_DGRAM);
    let mut r: libc::ifreq = std::mem::zeroed();
    r.ifr_name[..2].copy_from_slice(&[b'l' as i8, b'o' as i8]);
    ok!(libc::ioctl(s, libc::SIOCGIFFLAGS, &mut r));
    let flags = i32::from(r.ifr_ifru.ifru_flags);
    assert_eq!(flags & (libc::IFF_LOOPBACK | libc::IFF_UP), libc::IFF_LOOPBACK | libc::IFF_UP);
    ok!(libc::ioctl(s, libc::SIOCGIFINDEX, &mut r));
    assert_eq!(r.ifr_ifru.ifru_ifindex, 1);
    ok!(libc::ioctl(s, libc::SIOCGIFADDR, &mut r));
    r.ifr_name[..2].copy_from_slice(&[b'n' as i8, b'o' as i8]);
    fails!(libc::ioctl(s, libc::SIOCGIFFLAGS, &mut r), ENODEV);
}

unsafe fn netlink_getlink() {
    let s = sock(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC);
    // RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, an ifinfomsg of zeroes.
    let mut q = [0u8; 32];
    q[0] = 32;
    q[4..6].copy_from_slice(&18u16.to_ne_bytes());
    q[6..8].copy_from_slice(&0x301u16.to_ne_bytes());
    q[8] = 7;
    put(s, &q);
    let (mut lo, mut done) = (false, false);
    while !done {
        assert_ne!(poll1(s, libc::POLLIN, 3000), 0, "an answer");
        let m = get(s, 32768);
        let mut at = 0;
        while at + 16 <= m.len() {
            let len = u32::from_ne_bytes(m[at..at + 4].try_into().unwrap()) as usize;
            let kind = u16::from_ne_bytes(m[at + 4..at + 6].try_into().unwrap());
            assert!(len >= 16 && at + len <= m.len(), "message length {len}");
            assert_eq!(m[at + 8], 7, "our sequence number");
            done |= kind == 3;
            lo |= kind == 16 && m[at + 32..at + len].windows(3).any(|w| w == b"lo\0");
            at += (len + 3) & !3;
        }
    }
    assert!(lo);
    drop(std::fs::File::from_raw_fd(s));
}
