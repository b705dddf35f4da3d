//! Pipes: order, ends, atomicity, flags, readiness.
use crate::check::*;

tests![
    write_then_read,
    eof_when_writers_gone,
    sigpipe_and_epipe,
    nonblocking_eagain,
    blocking_across_fork,
    capacity_64k,
    pipe2_flags,
    large_transfer,
    writev_readv,
    atomic_small_writes,
    fionread,
    lseek_espipe,
    splice_like_shell_pipeline,
    pipe_size_fcntl,
    zero_length,
];

unsafe fn write_then_read() {
    let (r, w) = pipe();
    put(w, b"hello");
    put(w, b" world");
    assert_eq!(get(r, 100), b"hello world");
}

unsafe fn eof_when_writers_gone() {
    let (r, w) = pipe();
    let w2 = ok!(libc::dup(w));
    put(w, b"x");
    ok!(libc::close(w));
    assert_eq!(get(r, 10), b"x");
    ok!(libc::close(w2));
    assert_eq!(get(r, 10), b"");
}

unsafe fn sigpipe_and_epipe() {
    let p = child(|| {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let (r, w) = pipe();
        libc::close(r);
        libc::write(w, b"x".as_ptr().cast(), 1);
        0
    });
    expect_killed(p, libc::SIGPIPE);
    libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    let (r, w) = pipe();
    ok!(libc::close(r));
    fails!(libc::write(w, b"x".as_ptr().cast(), 1), EPIPE);
}

unsafe fn nonblocking_eagain() {
    let (r, w) = pipe();
    ok!(libc::fcntl(r, libc::F_SETFL, libc::O_NONBLOCK));
    let mut b = [0u8; 1];
    fails!(libc::read(r, b.as_mut_ptr().cast(), 1), EAGAIN);
    ok!(libc::fcntl(w, libc::F_SETFL, libc::O_NONBLOCK));
    let chunk = [0u8; 4096];
    let mut total = 0;
    loop {
        let n = libc::write(w, chunk.as_ptr().cast(), chunk.len());
        if n < 0 {
            assert_eq!(errno(), libc::EAGAIN);
            break;
        }
        total += n;
    }
    assert_eq!(total, 65536);
}

unsafe fn blocking_across_fork() {
    let (r, w) = pipe();
    let p = child(|| {
        sleep_ms(30);
        put(w, b"late");
        0
    });
    assert_eq!(get(r, 10), b"late");
    expect_exit(p, 0);
}

unsafe fn capacity_64k() {
    let (r, w) = pipe();
    put(w, &vec![7u8; 65536]);
    let mut pf = libc::pollfd { fd: w, events: libc::POLLOUT, revents: 0 };
    assert_eq!(ok!(libc::poll(&mut pf, 1, 0)), 0, "a full pipe is not writable");
    assert_eq!(get(r, 65536).len(), 65536);
    assert_eq!(ok!(libc::poll(&mut pf, 1, 0)), 1);
}

unsafe fn pipe2_flags() {
    let mut p = [0; 2];
    ok!(libc::pipe2(p.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK));
    for fd in p {
        assert_eq!(ok!(libc::fcntl(fd, libc::F_GETFD)) & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        assert_ne!(ok!(libc::fcntl(fd, libc::F_GETFL)) & libc::O_NONBLOCK, 0);
    }
    fails!(libc::pipe2(p.as_mut_ptr(), 0x10), EINVAL);
}

unsafe fn large_transfer() {
    let (r, w) = pipe();
    let total = 4 << 20;
    let p = child(|| {
        libc::close(r);
        let b: Vec<u8> = (0..100_003u32).map(|i| (i % 251) as u8).collect();
        let mut left = total;
        while left > 0 {
            let n = ok!(libc::write(w, b.as_ptr().cast(), b.len().min(left))) as usize;
            assert_eq!(n, b.len().min(left), "a blocking write is whole");
            left -= n;
        }
        0
    });
    ok!(libc::close(w));
    let mut pos = 0usize;
    loop {
        let v = get(r, 70_000);
        if v.is_empty() {
            break;
        }
        for x in v {
            assert_eq!(x, ((pos % 100_003) % 251) as u8, "at byte {pos}");
            pos += 1;
        }
    }
    assert_eq!(pos, total);
    expect_exit(p, 0);
}

unsafe fn writev_readv() {
    let (r, w) = pipe();
    let io = |b: &mut [u8]| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() };
    let (mut a, mut b) = (*b"one", *b"three");
    assert_eq!(ok!(libc::writev(w, [io(&mut a), io(&mut []), io(&mut b)].as_ptr(), 3)), 8);
    let (mut x, mut y) = ([0u8; 2], [0u8; 10]);
    assert_eq!(ok!(libc::readv(r, [io(&mut x), io(&mut y)].as_ptr(), 2)), 8);
    assert_eq!((&x[..], &y[..6]), (&b"on"[..], &b"ethree"[..]));
    fails!(libc::writev(w, [io(&mut a)].as_ptr(), 2000), EINVAL);
}

unsafe fn atomic_small_writes() {
    let (r, w) = pipe();
    let ps: Vec<i32> = (0..4u8)
        .map(|i| {
            child(move || {
                for _ in 0..200 {
                    put(w, &[i + 1; 1000]);
                }
                0
            })
        })
        .collect();
    ok!(libc::close(w));
    let mut all = Vec::new();
    loop {
        let v = get(r, 65536);
        if v.is_empty() {
            break;
        }
        all.extend(v);
    }
    assert_eq!(all.len(), 800_000);
    for c in all.chunks(1000) {
        assert!(c.iter().all(|x| *x == c[0]), "writes up to PIPE_BUF do not mix");
    }
    ps.into_iter().for_each(|p| expect_exit(p, 0));
}

unsafe fn fionread() {
    let (r, w) = pipe();
    put(w, b"12345");
    let mut n = 0i32;
    ok!(libc::ioctl(r, libc::FIONREAD, &mut n));
    assert_eq!(n, 5);
}

unsafe fn lseek_espipe() {
    let (r, _w) = pipe();
    fails!(libc::lseek(r, 0, libc::SEEK_CUR), ESPIPE);
    let mut b = 0u8;
    fails!(libc::pread(r, (&raw mut b).cast(), 1, 0), ESPIPE);
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(r, &mut st));
    assert_eq!(st.st_mode & libc::S_IFMT, libc::S_IFIFO);
}

unsafe fn splice_like_shell_pipeline() {
    // a | b | c, as a shell makes it: dup2 onto 0 and 1, everything else closed.
    let (r1, w1) = pipe();
    let (r2, w2) = pipe();
    let a = child(|| {
        libc::dup2(w1, 1);
        [r1, w1, r2, w2].iter().for_each(|f| assert_eq!(libc::close(*f), 0));
        put(1, b"pipeline");
        0
    });
    let b = child(|| {
        libc::dup2(r1, 0);
        libc::dup2(w2, 1);
        [r1, w1, r2, w2].iter().for_each(|f| assert_eq!(libc::close(*f), 0));
        let v = get(0, 100);
        put(1, &v.iter().map(u8::to_ascii_uppercase).collect::<Vec<_>>());
        0
    });
    ok!(libc::close(w1));
    ok!(libc::close(w2));
    assert_eq!(get(r2, 100), b"PIPELINE");
    assert_eq!(get(r2, 100), b"");
    expect_exit(a, 0);
    expect_exit(b, 0);
}

unsafe fn pipe_size_fcntl() {
    let (r, _w) = pipe();
    assert_eq!(ok!(libc::fcntl(r, libc::F_GETPIPE_SZ)), 65536);
    let n = libc::fcntl(r, libc::F_SETPIPE_SZ, 8192);
    if n >= 0 {
        assert_eq!(n, 8192);
        assert_eq!(ok!(libc::fcntl(r, libc::F_GETPIPE_SZ)), 8192);
    }
}

unsafe fn zero_length() {
    let (r, w) = pipe();
    assert_eq!(ok!(libc::write(w, std::ptr::null(), 0)), 0);
    put(w, b"z");
    assert_eq!(get(r, 0), b"");
    assert_eq!(get(r, 5), b"z");
}
