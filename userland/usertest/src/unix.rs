//! Unix domain sockets: stream, datagram, packets, names, descriptors and credentials in messages.
use crate::check::*;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::ptr::null_mut;

tests![
    socketpair_stream,
    socketpair_dgram_boundaries,
    socketpair_seqpacket,
    path_listen_connect,
    abstract_name,
    connect_errors,
    bind_creates_inode,
    shutdown_halves,
    close_gives_eof_and_epipe,
    pass_fd,
    pass_fd_then_close,
    pass_many_fds,
    pass_fd_over_fork_exec_socket,
    pass_errors,
    cmsg_truncated,
    credentials,
    peercred,
    nonblocking_full,
    large_transfer,
    dgram_unconnected_send,
    dgram_names,
    poll_hup,
    backlog_full,
    recvmsg_cloexec,
    unread_fds_are_closed,
    passing_a_socket_in_itself,
];

unsafe fn socketpair(kind: i32) -> (i32, i32) {
    let mut s = [0; 2];
    ok!(libc::socketpair(libc::AF_UNIX, kind, 0, s.as_mut_ptr()));
    (s[0], s[1])
}

unsafe fn socketpair_stream() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    put(a, b"ab");
    put(a, b"cd");
    assert_eq!(get(b, 10), b"abcd");
    put(b, b"back");
    assert_eq!(get(a, 10), b"back");
    let mut s = [0; 2];
    fails!(libc::socketpair(libc::AF_INET, libc::SOCK_STREAM, 0, s.as_mut_ptr()), EOPNOTSUPP);
}

unsafe fn socketpair_dgram_boundaries() {
    let (a, b) = socketpair(libc::SOCK_DGRAM);
    put(a, b"one");
    put(a, b"");
    put(a, b"three");
    assert_eq!(get(b, 2), b"on", "the rest of a datagram is lost");
    assert_eq!(get(b, 10), b"");
    assert_eq!(get(b, 10), b"three");
}

unsafe fn socketpair_seqpacket() {
    let (a, b) = socketpair(libc::SOCK_SEQPACKET);
    put(a, b"one");
    put(a, b"two");
    assert_eq!(get(b, 10), b"one");
    assert_eq!(get(b, 10), b"two");
    ok!(libc::close(a));
    assert_eq!(get(b, 10), b"");
}

unsafe fn path_listen_connect() {
    let l = UnixListener::bind("sock").unwrap();
    let t = std::thread::spawn(move || {
        let (mut s, _) = l.accept().unwrap();
        let mut v = String::new();
        s.read_to_string(&mut v).unwrap();
        v
    });
    let mut c = UnixStream::connect("sock").unwrap();
    assert_eq!(c.peer_addr().unwrap().as_pathname().unwrap().to_str(), Some("sock"));
    c.write_all(b"over a path").unwrap();
    drop(c);
    assert_eq!(t.join().unwrap(), "over a path");
}

unsafe fn abstract_name() {
    let mut a: libc::sockaddr_un = std::mem::zeroed();
    a.sun_family = libc::AF_UNIX as u16;
    let name = format!("\0usertest-{}", libc::getpid());
    for (i, b) in name.bytes().enumerate() {
        a.sun_path[i] = b as i8;
    }
    let len = 2 + name.len() as u32;
    let l = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    ok!(libc::bind(l, (&raw const a).cast(), len));
    ok!(libc::listen(l, 5));
    let c = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    ok!(libc::connect(c, (&raw const a).cast(), len));
    let s = ok!(libc::accept(l, null_mut(), null_mut()));
    put(c, b"x");
    assert_eq!(get(s, 5), b"x");
    let l2 = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    fails!(libc::bind(l2, (&raw const a).cast(), len), EADDRINUSE);
    ok!(libc::close(l));
    ok!(libc::bind(l2, (&raw const a).cast(), len));
}

unsafe fn connect_errors() {
    let e = |p: &str| UnixStream::connect(p).unwrap_err().raw_os_error();
    assert_eq!(e("none"), Some(libc::ENOENT));
    std::fs::write("file", "").unwrap();
    assert_eq!(e("file"), Some(libc::ECONNREFUSED));
    drop(UnixListener::bind("dead").unwrap());
    assert_eq!(e("dead"), Some(libc::ECONNREFUSED));
    let _d = UnixDatagram::bind("dgram").unwrap();
    assert_eq!(e("dgram"), Some(libc::EPROTOTYPE));
}

unsafe fn bind_creates_inode() {
    let _l = UnixListener::bind("sock").unwrap();
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::stat(c"sock".as_ptr(), &mut st));
    assert_eq!(st.st_mode & libc::S_IFMT, libc::S_IFSOCK);
    assert_eq!(UnixListener::bind("sock").unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
    fails!(libc::open(c"sock".as_ptr(), libc::O_RDWR), ENXIO);
}

unsafe fn shutdown_halves() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    put(a, b"last");
    ok!(libc::shutdown(a, libc::SHUT_WR));
    assert_eq!(get(b, 10), b"last");
    assert_eq!(get(b, 10), b"");
    put(b, b"still");
    assert_eq!(get(a, 10), b"still");
    libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    fails!(libc::write(a, b"x".as_ptr().cast(), 1), EPIPE);
}

unsafe fn close_gives_eof_and_epipe() {
    libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    let (a, b) = socketpair(libc::SOCK_STREAM);
    ok!(libc::close(a));
    assert_eq!(get(b, 10), b"");
    fails!(libc::write(b, b"x".as_ptr().cast(), 1), EPIPE);
}

/// Sends `data` with descriptors; the raw result.
unsafe fn send_fds(s: i32, data: &[u8], fds: &[i32]) -> isize {
    let mut io = libc::iovec { iov_base: data.as_ptr() as *mut _, iov_len: data.len() };
    let mut buf = [0u64; 160];
    let mut m: libc::msghdr = std::mem::zeroed();
    m.msg_iov = &mut io;
    m.msg_iovlen = 1;
    m.msg_control = buf.as_mut_ptr().cast();
    m.msg_controllen = libc::CMSG_SPACE(4 * fds.len() as u32) as usize;
    let c = libc::CMSG_FIRSTHDR(&m);
    (*c).cmsg_level = libc::SOL_SOCKET;
    (*c).cmsg_type = libc::SCM_RIGHTS;
    (*c).cmsg_len = libc::CMSG_LEN(4 * fds.len() as u32) as usize;
    for (i, f) in fds.iter().enumerate() {
        libc::CMSG_DATA(c).cast::<i32>().add(i).write_unaligned(*f);
    }
    libc::sendmsg(s, &m, 0)
}

/// Receives data, descriptors and message flags with room for `room` descriptors.
unsafe fn recv_fds(s: i32, room: u32, flags: i32) -> (Vec<u8>, Vec<i32>, i32) {
    let mut data = [0u8; 64];
    let mut io = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: 64 };
    let mut buf = [0u64; 160];
    let mut m: libc::msghdr = std::mem::zeroed();
    m.msg_iov = &mut io;
    m.msg_iovlen = 1;
    m.msg_control = buf.as_mut_ptr().cast();
    m.msg_controllen = if room == 0 { 0 } else { libc::CMSG_SPACE(4 * room) as usize };
    let n = ok!(libc::recvmsg(s, &mut m, flags));
    let mut fds = Vec::new();
    let c = libc::CMSG_FIRSTHDR(&m);
    if !c.is_null() && (*c).cmsg_type == libc::SCM_RIGHTS {
        let k = ((*c).cmsg_len - libc::CMSG_LEN(0) as usize) / 4;
        fds.extend((0..k).map(|i| libc::CMSG_DATA(c).cast::<i32>().add(i).read_unaligned()));
    }
    (data[..n as usize].to_vec(), fds, m.msg_flags)
}

unsafe fn pass_fd() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    std::fs::write("f", "contents").unwrap();
    let f = open("f", libc::O_RDONLY);
    assert_eq!(send_fds(a, b"x", &[f]), 1);
    let (d, fds, _) = recv_fds(b, 4, 0);
    assert_eq!((d.as_slice(), fds.len()), (&b"x"[..], 1));
    assert_ne!(fds[0], f);
    assert_eq!(get(fds[0], 4), b"cont");
    assert_eq!(get(f, 10), b"ents", "one open file, one offset");
}

unsafe fn pass_fd_then_close() {
    let (a, b) = socketpair(libc::SOCK_DGRAM);
    let (r, w) = pipe();
    assert_eq!(send_fds(a, b"x", &[w]), 1);
    ok!(libc::close(w));
    let (_, fds, _) = recv_fds(b, 1, 0);
    put(fds[0], b"through");
    ok!(libc::close(fds[0]));
    assert_eq!(get(r, 20), b"through");
    assert_eq!(get(r, 20), b"");
}

unsafe fn pass_many_fds() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    let fds = [0; 253];
    assert_eq!(send_fds(a, b"x", &fds), 1);
    assert_eq!(recv_fds(b, 253, 0).1.len(), 253);
    fails!(send_fds(a, b"x", &[0; 254]), EINVAL);
}

unsafe fn pass_fd_over_fork_exec_socket() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    let k = child(|| {
        let f = open("made-by-child", libc::O_RDWR | libc::O_CREAT);
        put(f, b"hello parent");
        i32::from(send_fds(a, b"f", &[f]) != 1)
    });
    let (_, fds, _) = recv_fds(b, 1, 0);
    expect_exit(k, 0);
    ok!(libc::lseek(fds[0], 0, libc::SEEK_SET));
    assert_eq!(get(fds[0], 20), b"hello parent");
}

unsafe fn pass_errors() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    fails!(send_fds(a, b"x", &[999]), EBADF);
    ok!(libc::fcntl(b, libc::F_SETFL, libc::O_NONBLOCK));
    let mut c = 0u8;
    fails!(libc::read(b, (&raw mut c).cast(), 1), EAGAIN);
}

unsafe fn cmsg_truncated() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    let (r, w) = pipe();
    assert_eq!(send_fds(a, b"x", &[w, w, w]), 1);
    ok!(libc::close(w));
    let (d, fds, flags) = recv_fds(b, 0, 0);
    assert_eq!((d.as_slice(), fds.len()), (&b"x"[..], 0));
    assert_ne!(flags & libc::MSG_CTRUNC, 0);
    assert_eq!(get(r, 1), b"", "what had no room was closed");
}

unsafe fn recvmsg_cloexec() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    send_fds(a, b"x", &[0]);
    let (_, fds, _) = recv_fds(b, 1, libc::MSG_CMSG_CLOEXEC);
    assert_eq!(ok!(libc::fcntl(fds[0], libc::F_GETFD)), libc::FD_CLOEXEC);
}

unsafe fn unread_fds_are_closed() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    let (r, w) = pipe();
    send_fds(a, b"x", &[w]);
    for f in [w, a, b] {
        ok!(libc::close(f));
    }
    assert_eq!(get(r, 1), b"");
}

unsafe fn passing_a_socket_in_itself() {
    // Sockets in flight that only hold each other must not live for ever; here it is enough that nothing breaks.
    for _ in 0..200 {
        let (a, b) = socketpair(libc::SOCK_STREAM);
        assert_eq!(send_fds(a, b"x", &[a, b]), 1);
        ok!(libc::close(a));
        ok!(libc::close(b));
    }
}

unsafe fn credentials() {
    let (a, b) = socketpair(libc::SOCK_DGRAM);
    let one = 1i32;
    ok!(libc::setsockopt(b, libc::SOL_SOCKET, libc::SO_PASSCRED, (&raw const one).cast(), 4));
    let k = child(|| {
        put(a, b"who am I");
        0
    });
    let mut data = [0u8; 64];
    let mut io = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: 64 };
    let mut buf = [0u64; 16];
    let mut m: libc::msghdr = std::mem::zeroed();
    m.msg_iov = &mut io;
    m.msg_iovlen = 1;
    m.msg_control = buf.as_mut_ptr().cast();
    m.msg_controllen = 128;
    assert_eq!(ok!(libc::recvmsg(b, &mut m, 0)), 8);
    let c = libc::CMSG_FIRSTHDR(&m);
    assert!(!c.is_null() && (*c).cmsg_type == libc::SCM_CREDENTIALS);
    let u = libc::CMSG_DATA(c).cast::<libc::ucred>().read_unaligned();
    assert_eq!((u.pid, u.uid, u.gid), (k, libc::getuid(), libc::getgid()));
    expect_exit(k, 0);
}

unsafe fn peercred() {
    let l = UnixListener::bind("sock").unwrap();
    let c = UnixStream::connect("sock").unwrap();
    let (s, _) = l.accept().unwrap();
    for f in [c.as_raw_fd(), s.as_raw_fd()] {
        let mut u: libc::ucred = std::mem::zeroed();
        let mut n = 12;
        ok!(libc::getsockopt(f, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut u).cast(), &mut n));
        assert_eq!((u.pid, u.uid), (libc::getpid(), libc::getuid()));
    }
}

unsafe fn nonblocking_full() {
    let (a, b) = socketpair(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    let mut n = 0usize;
    loop {
        let r = libc::write(a, [0u8; 4096].as_ptr().cast(), 4096);
        if r < 0 {
            assert_eq!(errno(), libc::EAGAIN);
            break;
        }
        n += r as usize;
        assert!(n < 64 << 20, "a bound");
    }
    let mut p = libc::pollfd { fd: a, events: libc::POLLOUT, revents: 0 };
    assert_eq!(ok!(libc::poll(&mut p, 1, 0)), 0);
    let mut got = 0;
    while got < n {
        got += get(b, 65536).len();
    }
    assert_eq!(ok!(libc::poll(&mut p, 1, 1000)), 1);
}

unsafe fn large_transfer() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    let k = child(|| {
        libc::close(b);
        let data: Vec<u8> = (0..1 << 20).map(|i| (i >> 4) as u8).collect();
        let mut at = 0;
        while at < data.len() {
            at += ok!(libc::write(a, data.as_ptr().add(at).cast(), data.len() - at)) as usize;
        }
        0
    });
    ok!(libc::close(a));
    let mut at = 0usize;
    loop {
        let v = get(b, 10_000);
        if v.is_empty() {
            break;
        }
        assert!(v.iter().enumerate().all(|(i, x)| *x == ((at + i) >> 4) as u8));
        at += v.len();
    }
    assert_eq!(at, 1 << 20);
    expect_exit(k, 0);
}

unsafe fn dgram_unconnected_send() {
    let b = UnixDatagram::bind("b").unwrap();
    let a = UnixDatagram::unbound().unwrap();
    a.send_to(b"x", "b").unwrap();
    let mut v = [0; 10];
    let (n, from) = b.recv_from(&mut v).unwrap();
    assert!(n == 1 && from.is_unnamed());
    fails!(libc::send(a.as_raw_fd(), b"x".as_ptr().cast(), 1, 0), ENOTCONN);
    assert_eq!(a.send_to(b"x", "none").unwrap_err().raw_os_error(), Some(libc::ENOENT));
}

unsafe fn dgram_names() {
    let (a, b) = (UnixDatagram::bind("a").unwrap(), UnixDatagram::bind("b").unwrap());
    a.send_to(b"x", "b").unwrap();
    let mut v = [0; 10];
    let (_, from) = b.recv_from(&mut v).unwrap();
    assert_eq!(from.as_pathname().unwrap().to_str(), Some("a"));
}

unsafe fn poll_hup() {
    let (a, b) = socketpair(libc::SOCK_STREAM);
    ok!(libc::close(a));
    let mut p = libc::pollfd { fd: b, events: libc::POLLIN | libc::POLLRDHUP, revents: 0 };
    assert_eq!(ok!(libc::poll(&mut p, 1, 1000)), 1);
    assert_eq!(p.revents, libc::POLLIN | libc::POLLHUP | libc::POLLRDHUP);
}

unsafe fn backlog_full() {
    let l = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    let mut a: libc::sockaddr_un = std::mem::zeroed();
    a.sun_family = libc::AF_UNIX as u16;
    a.sun_path[0] = b'q' as i8;
    ok!(libc::bind(l, (&raw const a).cast(), 4));
    ok!(libc::listen(l, 1));
    let mut n = 0;
    loop {
        let c = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0));
        if libc::connect(c, (&raw const a).cast(), 4) < 0 {
            assert_eq!(errno(), libc::EAGAIN);
            break;
        }
        n += 1;
        assert!(n < 100, "a backlog of 1 ends somewhere");
    }
    assert!(n >= 1);
}
