//! TCP over loopback, IPv4 and IPv6.
use crate::check::*;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::time::Duration;

tests![
    tcp_echo,
    tcp_echo_v6,
    tcp_bulk_checksum,
    tcp_shutdown_half,
    tcp_connect_refused,
    tcp_nonblocking_connect,
    tcp_nonblocking_refused,
    tcp_accept_nonblocking,
    tcp_reset_on_unread_close,
    tcp_epipe,
    tcp_peek_and_trunc,
    tcp_waitall,
    tcp_names,
    tcp_options,
    tcp_addr_in_use,
    tcp_reuseaddr,
    tcp_backlog_many,
    tcp_epoll_edges,
    tcp_rcvtimeo,
    tcp_linger_reset,
    tcp_linger_waits,
    tcp_accept4_flags,
    tcp_fionread,
    tcp_not_connected,
    tcp_sendmsg_recvmsg,
    tcp_over_fork,
    tcp_ephemeral_ports,
    tcp_info,
    dual_stack
];

pub fn any4() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn pair() -> (TcpStream, TcpStream) {
    let l = TcpListener::bind(any4()).expect("bind 127.0.0.1");
    let a = TcpStream::connect(l.local_addr().unwrap()).expect("connect");
    let b = l.accept().expect("accept").0;
    (a, b)
}

pub unsafe fn poll1(fd: i32, events: i16, ms: i32) -> i16 {
    let mut p = libc::pollfd { fd, events, revents: 0 };
    ok!(libc::poll(&mut p, 1, ms));
    p.revents
}

pub unsafe fn sock(family: i32, kind: i32) -> i32 {
    ok!(libc::socket(family, kind, 0))
}

pub unsafe fn sin(addr: Ipv4Addr, port: u16) -> libc::sockaddr_in {
    let mut a: libc::sockaddr_in = std::mem::zeroed();
    a.sin_family = libc::AF_INET as u16;
    a.sin_port = port.to_be();
    a.sin_addr.s_addr = u32::from(addr).to_be();
    a
}

pub const SIN: u32 = size_of::<libc::sockaddr_in>() as u32;

pub unsafe fn opt(fd: i32, level: i32, name: i32) -> i32 {
    let mut v = 0i32;
    let mut l = 4u32;
    ok!(libc::getsockopt(fd, level, name, (&raw mut v).cast(), &mut l));
    v
}

unsafe fn setopt(fd: i32, level: i32, name: i32, v: i32) {
    ok!(libc::setsockopt(fd, level, name, (&raw const v).cast(), 4));
}

fn echo(l: TcpListener) {
    let addr = l.local_addr().unwrap();
    let t = std::thread::spawn(move || {
        let (mut s, _) = l.accept().unwrap();
        let mut b = [0u8; 1000];
        loop {
            let n = s.read(&mut b).unwrap();
            if n == 0 {
                return;
            }
            s.write_all(&b[..n]).unwrap();
        }
    });
    let mut c = TcpStream::connect(addr).unwrap();
    for i in 0..200u32 {
        c.write_all(&i.to_le_bytes()).unwrap();
        let mut b = [0u8; 4];
        c.read_exact(&mut b).unwrap();
        assert_eq!(u32::from_le_bytes(b), i);
    }
    drop(c);
    t.join().unwrap();
}

unsafe fn tcp_echo() {
    echo(TcpListener::bind(any4()).unwrap());
}

unsafe fn tcp_echo_v6() {
    match TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(l) => echo(l),
        Err(e) => skip(&format!("no ::1 here: {e}")),
    }
}

unsafe fn tcp_bulk_checksum() {
    let (mut a, mut b) = pair();
    const LEN: usize = 8 << 20;
    let byte = |i: usize| (i.wrapping_mul(31) >> 3) as u8;
    let t = std::thread::spawn(move || {
        let data: Vec<u8> = (0..LEN).map(byte).collect();
        // Odd sizes, so that segments, writes and buffers never line up.
        for c in data.chunks(77_777) {
            a.write_all(c).unwrap();
        }
    });
    let mut at = 0;
    let mut buf = vec![0u8; 33_333];
    loop {
        let n = b.read(&mut buf).unwrap();
        if n == 0 {
            break;
        }
        for (i, x) in buf[..n].iter().enumerate() {
            assert_eq!(*x, byte(at + i), "at {}", at + i);
        }
        at += n;
    }
    assert_eq!(at, LEN);
    t.join().unwrap();
}

unsafe fn tcp_shutdown_half() {
    let (mut a, mut b) = pair();
    a.write_all(b"question").unwrap();
    a.shutdown(std::net::Shutdown::Write).unwrap();
    let mut s = String::new();
    b.read_to_string(&mut s).unwrap();
    assert_eq!(s, "question");
    b.write_all(b"answer").unwrap();
    drop(b);
    s.clear();
    a.read_to_string(&mut s).unwrap();
    assert_eq!(s, "answer", "the other direction stayed open");
    let (a, _b) = pair();
    ok!(libc::shutdown(a.as_raw_fd(), libc::SHUT_RD));
    assert_eq!((&a).read(&mut [0; 4]).unwrap(), 0);
}

/// A port on which nobody listens.
fn dead_port() -> u16 {
    TcpListener::bind(any4()).unwrap().local_addr().unwrap().port()
}

unsafe fn tcp_connect_refused() {
    let s = sock(libc::AF_INET, libc::SOCK_STREAM);
    let a = sin(Ipv4Addr::LOCALHOST, dead_port());
    fails!(libc::connect(s, (&raw const a).cast(), SIN), ECONNREFUSED);
}

unsafe fn tcp_nonblocking_connect() {
    let l = TcpListener::bind(any4()).unwrap();
    let s = sock(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    let a = sin(Ipv4Addr::LOCALHOST, l.local_addr().unwrap().port());
    let r = libc::connect(s, (&raw const a).cast(), SIN);
    assert!(r == 0 || errno() == libc::EINPROGRESS, "errno {}", errno());
    assert_eq!(poll1(s, libc::POLLOUT, 5000), libc::POLLOUT);
    assert_eq!(opt(s, libc::SOL_SOCKET, libc::SO_ERROR), 0);
    // The first call after completion may say 0, the next must say so.
    libc::connect(s, (&raw const a).cast(), SIN);
    fails!(libc::connect(s, (&raw const a).cast(), SIN), EISCONN);
    let _peer = l.accept().unwrap();
    let mut b = 0u8;
    fails!(libc::read(s, (&raw mut b).cast(), 1), EAGAIN);
}

unsafe fn tcp_nonblocking_refused() {
    let s = sock(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    let a = sin(Ipv4Addr::LOCALHOST, dead_port());
    let r = libc::connect(s, (&raw const a).cast(), SIN);
    if r == -1 && errno() == libc::EINPROGRESS {
        let ev = poll1(s, libc::POLLOUT, 5000);
        assert_ne!(ev & (libc::POLLERR | libc::POLLHUP), 0, "{ev:#x}");
        assert_eq!(opt(s, libc::SOL_SOCKET, libc::SO_ERROR), libc::ECONNREFUSED);
    } else {
        assert_eq!((r, errno()), (-1, libc::ECONNREFUSED));
    }
}

unsafe fn tcp_accept_nonblocking() {
    let l = TcpListener::bind(any4()).unwrap();
    l.set_nonblocking(true).unwrap();
    fails!(libc::accept(l.as_raw_fd(), null_mut(), null_mut()), EAGAIN);
    assert_eq!(poll1(l.as_raw_fd(), libc::POLLIN, 0), 0);
    let _c = TcpStream::connect(l.local_addr().unwrap()).unwrap();
    assert_eq!(poll1(l.as_raw_fd(), libc::POLLIN, 5000), libc::POLLIN);
    let fd = ok!(libc::accept(l.as_raw_fd(), null_mut(), null_mut()));
    assert_eq!(ok!(libc::fcntl(fd, libc::F_GETFL)) & libc::O_NONBLOCK, 0, "not inherited on Linux");
}

unsafe fn tcp_reset_on_unread_close() {
    let (a, mut b) = pair();
    b.write_all(b"never read").unwrap();
    poll1(a.as_raw_fd(), libc::POLLIN, 5000);
    drop(a);
    let ev = poll1(b.as_raw_fd(), libc::POLLIN, 5000);
    assert_ne!(ev & (libc::POLLERR | libc::POLLHUP | libc::POLLIN), 0);
    assert_eq!(b.read(&mut [0; 4]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
}

unsafe fn tcp_epipe() {
    libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    let (a, _b) = pair();
    a.shutdown(std::net::Shutdown::Write).unwrap();
    fails!(libc::write(a.as_raw_fd(), b"x".as_ptr().cast(), 1), EPIPE);
    libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    fails!(libc::send(a.as_raw_fd(), b"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL), EPIPE);
    let fd = a.as_raw_fd();
    expect_killed(
        child(|| {
            libc::write(fd, b"x".as_ptr().cast(), 1);
            0
        }),
        libc::SIGPIPE,
    );
}

pub unsafe fn recv(fd: i32, n: usize, flags: i32) -> Vec<u8> {
    let mut v = vec![0u8; n];
    let r = ok!(libc::recv(fd, v.as_mut_ptr().cast(), n, flags));
    v.truncate(r as usize);
    v
}

unsafe fn tcp_peek_and_trunc() {
    let (mut a, b) = pair();
    a.write_all(b"abcdef").unwrap();
    assert_eq!(recv(b.as_raw_fd(), 3, libc::MSG_PEEK), b"abc");
    assert_eq!(recv(b.as_raw_fd(), 3, libc::MSG_PEEK), b"abc");
    assert_eq!(recv(b.as_raw_fd(), 6, libc::MSG_WAITALL), b"abcdef");
    let mut c = 0u8;
    fails!(libc::recv(b.as_raw_fd(), (&raw mut c).cast(), 1, libc::MSG_DONTWAIT), EAGAIN);
}

unsafe fn tcp_waitall() {
    let (mut a, b) = pair();
    let t = std::thread::spawn(move || {
        for _ in 0..10 {
            a.write_all(b"0123456789").unwrap();
            sleep_ms(3);
        }
    });
    assert_eq!(recv(b.as_raw_fd(), 100, libc::MSG_WAITALL).len(), 100);
    t.join().unwrap();
}

unsafe fn tcp_names() {
    let (a, b) = pair();
    assert_eq!(a.local_addr().unwrap(), b.peer_addr().unwrap());
    assert_eq!(a.peer_addr().unwrap(), b.local_addr().unwrap());
    assert_eq!(a.local_addr().unwrap().ip(), Ipv4Addr::LOCALHOST);
    let s = sock(libc::AF_INET, libc::SOCK_STREAM);
    let mut n: libc::sockaddr_in = std::mem::zeroed();
    let mut l = SIN;
    fails!(libc::getpeername(s, (&raw mut n).cast(), &mut l), ENOTCONN);
    ok!(libc::getsockname(s, (&raw mut n).cast(), &mut l));
    assert_eq!((n.sin_family, n.sin_port, l), (libc::AF_INET as u16, 0, SIN));
    // A buffer that is too short is cut, the length says what it would have been.
    let mut short = [0xffu8; 4];
    let mut l = 2;
    ok!(libc::getsockname(a.as_raw_fd(), short.as_mut_ptr().cast(), &mut l));
    assert_eq!((l, short[2]), (SIN, 0xff));
}

unsafe fn tcp_options() {
    let (a, _b) = pair();
    let f = a.as_raw_fd();
    for v in [1, 0] {
        setopt(f, libc::IPPROTO_TCP, libc::TCP_NODELAY, v);
        assert_eq!(opt(f, libc::IPPROTO_TCP, libc::TCP_NODELAY), v);
        setopt(f, libc::SOL_SOCKET, libc::SO_KEEPALIVE, v);
        assert_eq!(opt(f, libc::SOL_SOCKET, libc::SO_KEEPALIVE), v);
    }
    assert_eq!(opt(f, libc::SOL_SOCKET, libc::SO_TYPE), libc::SOCK_STREAM);
    assert_eq!(opt(f, libc::SOL_SOCKET, libc::SO_DOMAIN), libc::AF_INET);
    assert_eq!(opt(f, libc::SOL_SOCKET, libc::SO_PROTOCOL), libc::IPPROTO_TCP);
    assert_eq!(opt(f, libc::SOL_SOCKET, libc::SO_ACCEPTCONN), 0);
    setopt(f, libc::SOL_SOCKET, libc::SO_RCVBUF, 50_000);
    assert_eq!(opt(f, libc::SOL_SOCKET, libc::SO_RCVBUF), 100_000, "Linux doubles it");
    assert!(opt(f, libc::SOL_SOCKET, libc::SO_SNDBUF) > 1000);
    assert!(opt(f, libc::IPPROTO_TCP, libc::TCP_MAXSEG) >= 500);
}

unsafe fn tcp_addr_in_use() {
    let l = TcpListener::bind(any4()).unwrap();
    assert_eq!(
        TcpListener::bind(l.local_addr().unwrap()).unwrap_err().raw_os_error(),
        Some(libc::EADDRINUSE)
    );
}

unsafe fn tcp_reuseaddr() {
    // The server side closed first and is in TIME-WAIT: SO_REUSEADDR (std sets it) lets the next one listen.
    let l = TcpListener::bind(any4()).unwrap();
    let addr = l.local_addr().unwrap();
    let mut c = TcpStream::connect(addr).unwrap();
    drop(l.accept().unwrap());
    assert_eq!(c.read(&mut [0; 1]).unwrap(), 0);
    drop(c);
    drop(l);
    TcpListener::bind(addr).expect("bind again");
}

unsafe fn tcp_backlog_many() {
    let l = TcpListener::bind(any4()).unwrap();
    let addr = l.local_addr().unwrap();
    let cs: Vec<TcpStream> =
        (0..60).map(|_| TcpStream::connect(addr).expect("connect before accept")).collect();
    let mut ports: Vec<u16> = (0..60).map(|_| l.accept().unwrap().1.port()).collect();
    let mut want: Vec<u16> = cs.iter().map(|c| c.local_addr().unwrap().port()).collect();
    ports.sort_unstable();
    want.sort_unstable();
    assert_eq!(ports, want);
}

unsafe fn tcp_epoll_edges() {
    use crate::poll::{ctl, ep, wait};
    let (a, mut b) = pair();
    a.set_nonblocking(true).unwrap();
    let e = ep();
    let all = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
    ctl(e, libc::EPOLL_CTL_ADD, a.as_raw_fd(), all, 1);
    assert_eq!(wait(e, 1000), [(libc::EPOLLOUT as u32, 1)]);
    assert_eq!(wait(e, 0), []);
    b.write_all(b"x").unwrap();
    assert_eq!(wait(e, 5000), [((libc::EPOLLIN | libc::EPOLLOUT) as u32, 1)]);
    drop(b);
    let ev = wait(e, 5000);
    assert!(ev.len() == 1 && ev[0].0 & libc::EPOLLRDHUP as u32 != 0, "{ev:?}");
}

unsafe fn tcp_rcvtimeo() {
    let (mut a, _b) = pair();
    a.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let t0 = now_ms();
    assert_eq!(a.read(&mut [0; 1]).unwrap_err().raw_os_error(), Some(libc::EAGAIN));
    assert!((45..3000).contains(&(now_ms() - t0)));
}

unsafe fn tcp_linger_reset() {
    let (a, mut b) = pair();
    let l = libc::linger { l_onoff: 1, l_linger: 0 };
    ok!(libc::setsockopt(a.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const l).cast(), 8));
    drop(a);
    assert_eq!(b.read(&mut [0; 1]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
}

/// Writes to `a` until nothing more goes in, sets SO_LINGER and gives how many milliseconds its close takes.
unsafe fn lingering_close(mut a: TcpStream, secs: i32) -> i64 {
    a.set_nonblocking(true).unwrap();
    while a.write(&[7; 65536]).is_ok() {}
    let l = libc::linger { l_onoff: i32::from(secs > 0), l_linger: secs };
    ok!(libc::setsockopt(a.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const l).cast(), 8));
    let t0 = now_ms();
    drop(a);
    now_ms() - t0
}

unsafe fn tcp_linger_waits() {
    let (a, _b) = pair();
    let off = lingering_close(a, 0);
    assert!(off < 500, "without SO_LINGER close took {off} ms");
    // Nobody reads: the time runs out.
    let (a, _b) = pair();
    let out = lingering_close(a, 1);
    assert!((900..5000).contains(&out), "a second of SO_LINGER took {out} ms");
    // Somebody reads later: until then.
    let (a, mut b) = pair();
    let reader = std::thread::spawn(move || {
        sleep_ms(300);
        std::io::copy(&mut b, &mut std::io::sink()).unwrap()
    });
    let took = lingering_close(a, 30);
    assert!((200..10000).contains(&took), "close took {took} ms");
    assert!(reader.join().unwrap() > 65536);
    // Another descriptor of the socket: nothing to wait for yet.
    let (a, _b) = pair();
    let other = a.try_clone().unwrap();
    let first = lingering_close(a, 1);
    assert!(first < 500, "close of one of two descriptors took {first} ms");
    drop(other);
}

unsafe fn tcp_accept4_flags() {
    let l = TcpListener::bind(any4()).unwrap();
    let _c = TcpStream::connect(l.local_addr().unwrap()).unwrap();
    let mut a: libc::sockaddr_in = std::mem::zeroed();
    let mut n = SIN;
    let f = ok!(libc::accept4(
        l.as_raw_fd(),
        (&raw mut a).cast(),
        &mut n,
        libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC
    ));
    assert_ne!(ok!(libc::fcntl(f, libc::F_GETFL)) & libc::O_NONBLOCK, 0);
    assert_eq!(ok!(libc::fcntl(f, libc::F_GETFD)), libc::FD_CLOEXEC);
    assert_eq!(a.sin_port.to_be(), _c.local_addr().unwrap().port());
    fails!(libc::accept4(l.as_raw_fd(), null_mut(), null_mut(), 0x7), EINVAL);
    fails!(libc::accept(_c.as_raw_fd(), null_mut(), null_mut()), EINVAL);
}

unsafe fn tcp_fionread() {
    let (mut a, b) = pair();
    a.write_all(&[1; 300]).unwrap();
    poll1(b.as_raw_fd(), libc::POLLIN, 5000);
    let mut n = 0i32;
    ok!(libc::ioctl(b.as_raw_fd(), libc::FIONREAD, &mut n));
    assert_eq!(n, 300);
}

unsafe fn tcp_not_connected() {
    let s = sock(libc::AF_INET, libc::SOCK_STREAM);
    let mut b = 0u8;
    fails!(libc::recv(s, (&raw mut b).cast(), 1, 0), ENOTCONN);
    fails!(libc::send(s, (&raw const b).cast(), 1, libc::MSG_NOSIGNAL), EPIPE);
    fails!(libc::shutdown(s, libc::SHUT_WR), ENOTCONN);
    fails!(libc::shutdown(s, 9), EINVAL);
}

unsafe fn tcp_sendmsg_recvmsg() {
    let (a, b) = pair();
    let parts = [b"one".as_slice(), b"", b"three"];
    let mut io = parts.map(|p| libc::iovec { iov_base: p.as_ptr() as *mut _, iov_len: p.len() });
    let mut m: libc::msghdr = std::mem::zeroed();
    m.msg_iov = io.as_mut_ptr();
    m.msg_iovlen = 3;
    assert_eq!(ok!(libc::sendmsg(a.as_raw_fd(), &m, 0)), 8);
    assert_eq!(recv(b.as_raw_fd(), 8, libc::MSG_WAITALL), b"onethree");
    m.msg_iovlen = 2000;
    fails!(libc::sendmsg(a.as_raw_fd(), &m, 0), EMSGSIZE);
}

unsafe fn tcp_over_fork() {
    let l = TcpListener::bind(any4()).unwrap();
    let addr = l.local_addr().unwrap();
    let ks: Vec<i32> = (0..4)
        .map(|_| {
            child(|| {
                // Pre-forked servers share one queue.
                let (mut s, _) = l.accept().unwrap();
                s.write_all(b"hi").unwrap();
                0
            })
        })
        .collect();
    for _ in 0..4 {
        let mut s = String::new();
        TcpStream::connect(addr).unwrap().read_to_string(&mut s).unwrap();
        assert_eq!(s, "hi");
    }
    ks.into_iter().for_each(|k| expect_exit(k, 0));
}

unsafe fn tcp_ephemeral_ports() {
    let mut ports = std::collections::BTreeSet::new();
    let ls: Vec<TcpListener> = (0..100).map(|_| TcpListener::bind(any4()).unwrap()).collect();
    for l in &ls {
        let p = l.local_addr().unwrap().port();
        assert!(p >= 1024 && ports.insert(p));
    }
}

unsafe fn tcp_info() {
    let (a, _b) = pair();
    let mut v = [0u8; 104];
    let mut l = 104;
    ok!(libc::getsockopt(a.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, v.as_mut_ptr().cast(), &mut l));
    assert_eq!(v[0], 1, "established");
}

unsafe fn dual_stack() {
    let Ok(l) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) else { skip("no IPv6 here") };
    let port = l.local_addr().unwrap().port();
    let _c = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("an IPv4 client at an IPv6 listener");
    let (_s, peer) = l.accept().unwrap();
    match peer {
        SocketAddr::V6(p) => assert_eq!(p.ip().to_ipv4_mapped(), Some(Ipv4Addr::LOCALHOST)),
        SocketAddr::V4(p) => panic!("{p} on an AF_INET6 socket"),
    }
}
