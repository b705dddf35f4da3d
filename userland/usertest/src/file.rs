//! Regular files on tmpfs, descriptors, offsets, flags, locks, and the memory devices.
use crate::check::*;
use std::ptr::null_mut;

tests![
    create_write_read,
    lseek_all,
    lseek_errors,
    append,
    truncate_grow_shrink,
    sparse_hole_is_zero,
    pread_pwrite,
    readv_writev,
    o_excl,
    o_trunc,
    open_errors,
    dup_shares_offset,
    dup2_dup3,
    fcntl_dupfd,
    fcntl_getfl_setfl,
    close_errors,
    lowest_descriptor,
    emfile,
    cloexec_flag,
    close_range_call,
    ftruncate_rights,
    access_modes,
    umask_applies,
    chmod_stat,
    utimens,
    fsync_ok,
    sendfile_copies,
    copy_file_range_or_not,
    fallocate_or_not,
    memfd,
    memfd_seals,
    flock_conflict,
    posix_locks,
    dev_null_zero_full,
    dev_urandom,
    getrandom_call,
    statfs_tmpfs,
    big_file,
    rlimit_fsize,
    fadvise,
    o_path,
    o_directory_nofollow,
    seek_data_hole,
    unlinked_stays,
    fd_passes_fork,
];

const RW: i32 = libc::O_RDWR | libc::O_CREAT;

unsafe fn at(fd: i32) -> i64 {
    ok!(libc::lseek(fd, 0, libc::SEEK_CUR))
}

unsafe fn create_write_read() {
    let f = open("a", RW);
    put(f, b"hello");
    assert_eq!(get(f, 10), b"");
    ok!(libc::lseek(f, 0, libc::SEEK_SET));
    assert_eq!(get(f, 3), b"hel");
    assert_eq!(get(f, 10), b"lo");
    assert_eq!(std::fs::read("a").unwrap(), b"hello");
}

unsafe fn lseek_all() {
    let f = open("a", RW);
    put(f, b"0123456789");
    assert_eq!(ok!(libc::lseek(f, -3, libc::SEEK_END)), 7);
    assert_eq!(get(f, 1), b"7");
    assert_eq!(ok!(libc::lseek(f, -4, libc::SEEK_CUR)), 4);
    assert_eq!(get(f, 1), b"4");
    assert_eq!(ok!(libc::lseek(f, 100, libc::SEEK_SET)), 100);
    assert_eq!(get(f, 1), b"", "behind the end");
    put(f, b"x");
    assert_eq!(std::fs::metadata("a").unwrap().len(), 101);
}

unsafe fn lseek_errors() {
    let f = open("a", RW);
    fails!(libc::lseek(f, -1, libc::SEEK_SET), EINVAL);
    fails!(libc::lseek(f, 0, 9), EINVAL);
    fails!(libc::lseek(999, 0, 0), EBADF);
}

unsafe fn append() {
    std::fs::write("a", "12345").unwrap();
    let f = open("a", libc::O_RDWR | libc::O_APPEND);
    put(f, b"6");
    ok!(libc::lseek(f, 0, libc::SEEK_SET));
    put(f, b"7");
    assert_eq!(at(f), 7);
    assert_eq!(std::fs::read("a").unwrap(), b"1234567");
}

unsafe fn truncate_grow_shrink() {
    let f = open("a", RW);
    put(f, &[7; 10_000]);
    ok!(libc::ftruncate(f, 5_000));
    ok!(libc::ftruncate(f, 9_000));
    let d = std::fs::read("a").unwrap();
    assert_eq!(d.len(), 9_000);
    assert!(
        d[..5_000].iter().all(|b| *b == 7) && d[5_000..].iter().all(|b| *b == 0),
        "what was cut off is zero"
    );
    ok!(libc::truncate(c"a".as_ptr(), 1));
    assert_eq!(std::fs::read("a").unwrap(), [7]);
    fails!(libc::ftruncate(f, -1), EINVAL);
    fails!(libc::truncate(c"none".as_ptr(), 1), ENOENT);
}

unsafe fn sparse_hole_is_zero() {
    let f = open("a", RW);
    ok!(libc::lseek(f, 1 << 20, libc::SEEK_SET));
    put(f, b"end");
    let d = std::fs::read("a").unwrap();
    assert_eq!(d.len(), (1 << 20) + 3);
    assert!(d[..1 << 20].iter().all(|b| *b == 0));
}

unsafe fn pread_pwrite() {
    let f = open("a", RW);
    assert_eq!(ok!(libc::pwrite(f, b"abcdef".as_ptr().cast(), 6, 10)), 6);
    assert_eq!(at(f), 0);
    let mut b = [0u8; 8];
    assert_eq!(ok!(libc::pread(f, b.as_mut_ptr().cast(), 8, 12)), 4);
    assert_eq!((&b[..4], at(f)), (&b"cdef"[..], 0));
    fails!(libc::pread(f, b.as_mut_ptr().cast(), 8, -1), EINVAL);
    assert_eq!(ok!(libc::pread(f, b.as_mut_ptr().cast(), 8, 1000)), 0);
}

unsafe fn readv_writev() {
    let f = open("a", RW);
    let io = |s: &[u8]| libc::iovec { iov_base: s.as_ptr() as *mut _, iov_len: s.len() };
    let v = [io(b"one"), io(b""), io(b"three")];
    assert_eq!(ok!(libc::writev(f, v.as_ptr(), 3)), 8);
    let (a, b) = ([0u8; 4], [0u8; 10]);
    ok!(libc::lseek(f, 0, 0));
    let v = [io(&a), io(&b)];
    assert_eq!(ok!(libc::readv(f, v.as_ptr(), 2)), 8);
    assert_eq!((std::hint::black_box(&a), &std::hint::black_box(&b)[..4]), (b"onet", &b"hree"[..]));
    fails!(libc::writev(f, v.as_ptr(), -1), EINVAL);
    fails!(libc::writev(f, v.as_ptr(), 5000), EINVAL);
    assert_eq!(ok!(libc::writev(f, v.as_ptr(), 0)), 0);
}

unsafe fn o_excl() {
    open("a", RW | libc::O_EXCL);
    fails!(libc::open(c"a".as_ptr(), RW | libc::O_EXCL, 0o644), EEXIST);
    ok!(libc::symlink(c"nowhere".as_ptr(), c"l".as_ptr()));
    fails!(libc::open(c"l".as_ptr(), RW | libc::O_EXCL, 0o644), EEXIST);
}

unsafe fn o_trunc() {
    std::fs::write("a", "12345").unwrap();
    open("a", libc::O_WRONLY | libc::O_TRUNC);
    assert_eq!(std::fs::metadata("a").unwrap().len(), 0);
}

unsafe fn open_errors() {
    fails!(libc::open(c"none".as_ptr(), 0), ENOENT);
    fails!(libc::open(c"none/x".as_ptr(), RW, 0o644), ENOENT);
    fails!(libc::open(c"".as_ptr(), 0), ENOENT);
    std::fs::write("f", "").unwrap();
    fails!(libc::open(c"f/x".as_ptr(), 0), ENOTDIR);
    fails!(libc::open(c"f/".as_ptr(), 0), ENOTDIR);
    fails!(libc::open(c".".as_ptr(), libc::O_WRONLY), EISDIR);
    fails!(libc::open(c"f".as_ptr(), libc::O_DIRECTORY), ENOTDIR);
    fails!(libc::open(c(&"n".repeat(300)).as_ptr(), 0), ENAMETOOLONG);
    fails!(libc::open(c(&"n/".repeat(3000)).as_ptr(), 0), ENAMETOOLONG);
    fails!(libc::openat(999, c"x".as_ptr(), 0), EBADF);
    let f = open("f", libc::O_RDONLY);
    fails!(libc::openat(f, c"x".as_ptr(), 0), ENOTDIR);
    fails!(libc::write(f, b"x".as_ptr().cast(), 1), EBADF);
    let w = open("f", libc::O_WRONLY);
    let mut b = 0u8;
    fails!(libc::read(w, (&raw mut b).cast(), 1), EBADF);
    let d = open(".", libc::O_RDONLY);
    fails!(libc::read(d, (&raw mut b).cast(), 1), EISDIR);
}

unsafe fn dup_shares_offset() {
    let f = open("a", RW);
    let g = ok!(libc::dup(f));
    put(f, b"abc");
    put(g, b"def");
    assert_eq!((at(f), at(g)), (6, 6));
    let other = open("a", libc::O_RDONLY);
    assert_eq!(at(other), 0, "another open has its own");
}

unsafe fn dup2_dup3() {
    let f = open("a", RW);
    assert_eq!(ok!(libc::dup2(f, 77)), 77);
    assert_eq!(ok!(libc::dup2(f, f)), f);
    assert_eq!(ok!(libc::dup3(f, 78, libc::O_CLOEXEC)), 78);
    assert_eq!(ok!(libc::fcntl(78, libc::F_GETFD)), libc::FD_CLOEXEC);
    assert_eq!(ok!(libc::fcntl(77, libc::F_GETFD)), 0);
    fails!(libc::dup3(f, f, 0), EINVAL);
    fails!(libc::dup2(999, 5), EBADF);
    fails!(libc::dup2(f, -1), EBADF);
    fails!(libc::dup(999), EBADF);
    // Onto a descriptor that is open: that one is closed first.
    let (r, w) = pipe();
    ok!(libc::dup2(f, w));
    assert_eq!(get(r, 1), b"");
}

unsafe fn fcntl_dupfd() {
    let f = open("a", RW);
    assert!(ok!(libc::fcntl(f, libc::F_DUPFD, 50)) >= 50);
    let g = ok!(libc::fcntl(f, libc::F_DUPFD_CLOEXEC, 60));
    assert!(g >= 60);
    assert_eq!(ok!(libc::fcntl(g, libc::F_GETFD)), libc::FD_CLOEXEC);
    fails!(libc::fcntl(f, libc::F_DUPFD, -1), EINVAL);
    fails!(libc::fcntl(f, 9999), EINVAL);
}

unsafe fn fcntl_getfl_setfl() {
    let f = open("a", RW | libc::O_APPEND);
    let fl = ok!(libc::fcntl(f, libc::F_GETFL));
    assert_eq!(fl & (libc::O_ACCMODE | libc::O_APPEND | libc::O_CREAT), libc::O_RDWR | libc::O_APPEND);
    ok!(libc::fcntl(f, libc::F_SETFL, libc::O_NONBLOCK));
    let fl = ok!(libc::fcntl(f, libc::F_GETFL));
    assert_eq!(fl & (libc::O_ACCMODE | libc::O_APPEND | libc::O_NONBLOCK), libc::O_RDWR | libc::O_NONBLOCK);
}

unsafe fn close_errors() {
    let f = open("a", RW);
    ok!(libc::close(f));
    fails!(libc::close(f), EBADF);
    fails!(libc::close(-1), EBADF);
    fails!(libc::close(i32::MAX), EBADF);
}

unsafe fn lowest_descriptor() {
    let a = open("/dev/null", 0);
    let b = open("/dev/null", 0);
    ok!(libc::close(a));
    assert_eq!(open("/dev/null", 0), a);
    ok!(libc::close(b));
}

unsafe fn emfile() {
    let l = libc::rlimit { rlim_cur: 40, rlim_max: 40 };
    ok!(libc::setrlimit(libc::RLIMIT_NOFILE, &l));
    let mut n = 0;
    while libc::open(c"/dev/null".as_ptr(), 0) >= 0 && n < 100 {
        n += 1;
    }
    assert_eq!(errno(), libc::EMFILE);
    fails!(libc::dup(0), EMFILE);
    fails!(libc::dup2(0, 40), EBADF);
    let mut p = [0; 2];
    fails!(libc::pipe(p.as_mut_ptr()), EMFILE);
}

unsafe fn cloexec_flag() {
    let f = open("a", RW | libc::O_CLOEXEC);
    assert_eq!(ok!(libc::fcntl(f, libc::F_GETFD)), libc::FD_CLOEXEC);
    ok!(libc::fcntl(f, libc::F_SETFD, 0));
    assert_eq!(ok!(libc::fcntl(f, libc::F_GETFD)), 0);
}

unsafe fn close_range_call() {
    for i in 100..110 {
        ok!(libc::dup2(0, i));
    }
    if libc::syscall(libc::SYS_close_range, 100, 104, 0) < 0 && errno() == libc::ENOSYS {
        skip("close_range is not there");
    }
    fails!(libc::fcntl(104, libc::F_GETFD), EBADF);
    ok!(libc::fcntl(105, libc::F_GETFD));
    ok!(libc::syscall(libc::SYS_close_range, 105, u32::MAX, 4)); // CLOSE_RANGE_CLOEXEC
    assert_eq!(ok!(libc::fcntl(109, libc::F_GETFD)), libc::FD_CLOEXEC);
    fails!(libc::syscall(libc::SYS_close_range, 5, 4, 0), EINVAL);
}

unsafe fn ftruncate_rights() {
    std::fs::write("a", "x").unwrap();
    let f = open("a", libc::O_RDONLY);
    fails!(libc::ftruncate(f, 0), EINVAL);
    let (r, _w) = pipe();
    fails!(libc::ftruncate(r, 0), EINVAL);
}

unsafe fn access_modes() {
    std::fs::write("a", "x").unwrap();
    ok!(libc::access(c"a".as_ptr(), libc::R_OK | libc::W_OK));
    fails!(libc::access(c"a".as_ptr(), libc::X_OK), EACCES);
    fails!(libc::access(c"b".as_ptr(), libc::F_OK), ENOENT);
    fails!(libc::access(c"a".as_ptr(), 0x10), EINVAL);
}

unsafe fn umask_applies() {
    let old = libc::umask(0o027);
    ok!(libc::open(c"a".as_ptr(), RW, 0o666));
    ok!(libc::mkdir(c"d".as_ptr(), 0o777));
    assert_eq!(libc::umask(old), 0o027);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata("a").unwrap().permissions().mode(), 0o100640);
    assert_eq!(std::fs::metadata("d").unwrap().permissions().mode(), 0o040750);
}

unsafe fn chmod_stat() {
    let f = open("a", RW);
    ok!(libc::chmod(c"a".as_ptr(), 0o4751));
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(f, &mut st));
    assert_eq!(st.st_mode, libc::S_IFREG | 0o4751);
    ok!(libc::fchmod(f, 0o600));
    ok!(libc::stat(c"a".as_ptr(), &mut st));
    assert_eq!((st.st_mode & 0o7777, st.st_nlink, st.st_size), (0o600, 1, 0));
    if libc::getuid() == 0 {
        ok!(libc::chown(c"a".as_ptr(), 12, 34));
        ok!(libc::stat(c"a".as_ptr(), &mut st));
        assert_eq!((st.st_uid, st.st_gid), (12, 34));
    }
}

unsafe fn utimens() {
    let f = open("a", RW);
    let t = [libc::timespec { tv_sec: 1000, tv_nsec: 5 }, libc::timespec { tv_sec: 2000, tv_nsec: 7 }];
    ok!(libc::futimens(f, t.as_ptr()));
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(f, &mut st));
    assert_eq!((st.st_atime, st.st_mtime, st.st_mtime_nsec), (1000, 2000, 7));
    put(f, b"x");
    ok!(libc::fstat(f, &mut st));
    assert!(st.st_mtime > 1_600_000_000, "a write sets the time");
}

unsafe fn fsync_ok() {
    let f = open("a", RW);
    put(f, b"x");
    ok!(libc::fsync(f));
    ok!(libc::fdatasync(f));
    fails!(libc::fsync(999), EBADF);
    let (r, _w) = pipe();
    fails!(libc::fsync(r), EINVAL);
}

unsafe fn sendfile_copies() {
    std::fs::write("a", vec![b'z'; 100_000]).unwrap();
    let (i, o) = (open("a", 0), open("b", RW));
    let mut off = 10i64;
    let mut left = 99_990usize;
    while left > 0 {
        let n = libc::sendfile(o, i, &mut off, left);
        if n < 0 && errno() == libc::ENOSYS {
            skip("sendfile is not there");
        }
        assert!(n > 0);
        left -= n as usize;
    }
    assert_eq!((off, at(i)), (100_000, 0));
    assert_eq!(std::fs::metadata("b").unwrap().len(), 99_990);
}

unsafe fn copy_file_range_or_not() {
    std::fs::write("a", vec![b'z'; 10_000]).unwrap();
    let (i, o) = (open("a", 0), open("b", RW));
    let n = libc::copy_file_range(i, null_mut(), o, null_mut(), 20_000, 0);
    if n < 0 {
        assert!([libc::ENOSYS, libc::EOPNOTSUPP, libc::EXDEV].contains(&errno()), "errno {}", errno());
        skip("copy_file_range is not there");
    }
    assert_eq!((n, std::fs::metadata("b").unwrap().len()), (10_000, 10_000));
}

unsafe fn fallocate_or_not() {
    let f = open("a", RW);
    if libc::fallocate(f, 0, 0, 10_000) < 0 {
        assert!([libc::EOPNOTSUPP, libc::ENOSYS].contains(&errno()), "errno {}", errno());
        skip("fallocate is not there");
    }
    assert_eq!(std::fs::metadata("a").unwrap().len(), 10_000);
    fails!(libc::fallocate(f, 0, 0, 0), EINVAL);
}

unsafe fn memfd() {
    let f = ok!(libc::memfd_create(c"m".as_ptr(), libc::MFD_CLOEXEC));
    put(f, b"in memory");
    ok!(libc::lseek(f, 0, 0));
    assert_eq!(get(f, 20), b"in memory");
    fails!(libc::memfd_create(c"m".as_ptr(), 0x8000), EINVAL);
}

unsafe fn memfd_seals() {
    let f = ok!(libc::memfd_create(c"m".as_ptr(), libc::MFD_ALLOW_SEALING));
    put(f, b"abc");
    if libc::fcntl(f, libc::F_ADD_SEALS, libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK) < 0 {
        skip("no seals here");
    }
    fails!(libc::write(f, b"x".as_ptr().cast(), 1), EPERM);
    fails!(libc::ftruncate(f, 1), EPERM);
    assert_eq!(ok!(libc::fcntl(f, libc::F_GET_SEALS)), libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK);
}

unsafe fn flock_conflict() {
    let f = open("a", RW);
    let g = open("a", RW);
    if libc::flock(f, libc::LOCK_EX) < 0 && errno() == libc::ENOSYS {
        skip("flock is not there");
    }
    fails!(libc::flock(g, libc::LOCK_EX | libc::LOCK_NB), EAGAIN);
    ok!(libc::flock(f, libc::LOCK_SH));
    ok!(libc::flock(g, libc::LOCK_SH | libc::LOCK_NB));
    ok!(libc::close(f));
    ok!(libc::flock(g, libc::LOCK_EX | libc::LOCK_NB));
}

unsafe fn posix_locks() {
    let f = open("a", RW);
    put(f, &[0; 100]);
    let mut l: libc::flock = std::mem::zeroed();
    l.l_type = libc::F_WRLCK as i16;
    l.l_len = 10;
    if libc::fcntl(f, libc::F_SETLK, &l) < 0 {
        assert!([libc::ENOSYS, libc::EINVAL, libc::ENOLCK].contains(&errno()));
        skip("no record locks here");
    }
    let p = child(|| {
        let mut l: libc::flock = std::mem::zeroed();
        l.l_type = libc::F_WRLCK as i16;
        l.l_start = 5;
        l.l_len = 1;
        fails!(libc::fcntl(f, libc::F_SETLK, &l), EAGAIN);
        ok!(libc::fcntl(f, libc::F_GETLK, &mut l));
        assert_eq!((l.l_pid, l.l_start, l.l_len), (libc::getppid(), 0, 10));
        l = std::mem::zeroed();
        l.l_type = libc::F_WRLCK as i16;
        l.l_start = 10;
        ok!(libc::fcntl(f, libc::F_SETLK, &l));
        0
    });
    expect_exit(p, 0);
}

unsafe fn dev_null_zero_full() {
    let n = open("/dev/null", libc::O_RDWR);
    put(n, b"gone");
    assert_eq!(get(n, 10), b"");
    let z = open("/dev/zero", libc::O_RDWR);
    assert_eq!(get(z, 5000), vec![0; 5000]);
    if let Ok(f) = std::fs::OpenOptions::new().write(true).open("/dev/full") {
        use std::os::fd::AsRawFd;
        fails!(libc::write(f.as_raw_fd(), b"x".as_ptr().cast(), 1), ENOSPC);
    }
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(n, &mut st));
    assert_eq!(
        (st.st_mode & libc::S_IFMT, libc::major(st.st_rdev), libc::minor(st.st_rdev)),
        (libc::S_IFCHR, 1, 3)
    );
}

unsafe fn dev_urandom() {
    let u = open("/dev/urandom", 0);
    let (a, b) = (get(u, 32), get(u, 32));
    assert!(a.len() == 32 && a != b);
}

unsafe fn getrandom_call() {
    let (mut a, mut b) = ([0u8; 100], [0u8; 100]);
    assert_eq!(ok!(libc::getrandom(a.as_mut_ptr().cast(), 100, 0)), 100);
    assert_eq!(ok!(libc::getrandom(b.as_mut_ptr().cast(), 100, libc::GRND_NONBLOCK)), 100);
    assert_ne!(a, b);
    fails!(libc::getrandom(a.as_mut_ptr().cast(), 1, 0x80), EINVAL);
}

unsafe fn statfs_tmpfs() {
    let mut s: libc::statfs = std::mem::zeroed();
    ok!(libc::statfs(c".".as_ptr(), &mut s));
    assert!(s.f_bsize >= 512 && s.f_namelen == 255);
    let f = open("a", RW);
    ok!(libc::fstatfs(f, &mut s));
    ok!(libc::statfs(c"/proc".as_ptr(), &mut s));
    assert_eq!(s.f_type, 0x9fa0);
}

unsafe fn big_file() {
    let f = open("a", RW);
    let chunk: Vec<u8> = (0..1 << 16).map(|i| (i * 7) as u8).collect();
    for _ in 0..256 {
        put(f, &chunk);
    }
    ok!(libc::lseek(f, 0, 0));
    for _ in 0..256 {
        assert!(get(f, 1 << 16) == chunk);
    }
    assert_eq!(get(f, 1), b"");
}

unsafe fn rlimit_fsize() {
    let p = child(|| {
        let l = libc::rlimit { rlim_cur: 1000, rlim_max: 1000 };
        ok!(libc::setrlimit(libc::RLIMIT_FSIZE, &l));
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let f = open("a", RW);
        assert_eq!(ok!(libc::write(f, [0u8; 2000].as_ptr().cast(), 2000)), 1000, "cut at the limit");
        fails!(libc::write(f, b"x".as_ptr().cast(), 1), EFBIG);
        libc::signal(libc::SIGXFSZ, libc::SIG_DFL);
        libc::write(f, b"x".as_ptr().cast(), 1);
        0
    });
    expect_killed(p, libc::SIGXFSZ);
}

unsafe fn fadvise() {
    let f = open("a", RW);
    assert_eq!(libc::posix_fadvise(f, 0, 0, libc::POSIX_FADV_SEQUENTIAL), 0);
    assert_eq!(libc::posix_fadvise(f, 0, 0, 77), libc::EINVAL);
    let (r, _w) = pipe();
    assert_eq!(libc::posix_fadvise(r, 0, 0, libc::POSIX_FADV_SEQUENTIAL), libc::ESPIPE);
}

unsafe fn o_path() {
    std::fs::write("a", "x").unwrap();
    let f = open("a", libc::O_PATH);
    let mut b = 0u8;
    fails!(libc::read(f, (&raw mut b).cast(), 1), EBADF);
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(f, &mut st));
    assert_eq!(st.st_size, 1);
}

unsafe fn o_directory_nofollow() {
    ok!(libc::mkdir(c"d".as_ptr(), 0o755));
    ok!(libc::symlink(c"d".as_ptr(), c"l".as_ptr()));
    ok!(libc::open(c"l".as_ptr(), libc::O_DIRECTORY));
    fails!(libc::open(c"l".as_ptr(), libc::O_NOFOLLOW), ELOOP);
    fails!(libc::open(c"l".as_ptr(), libc::O_NOFOLLOW | libc::O_DIRECTORY), ENOTDIR);
}

unsafe fn seek_data_hole() {
    let f = open("a", RW);
    put(f, b"data");
    let r = libc::lseek(f, 0, libc::SEEK_HOLE);
    if r < 0 {
        assert_eq!(errno(), libc::EINVAL);
        skip("no SEEK_HOLE here");
    }
    assert!(r >= 4 || r == 4);
    assert_eq!(ok!(libc::lseek(f, 0, libc::SEEK_DATA)), 0);
    fails!(libc::lseek(f, 100, libc::SEEK_DATA), ENXIO);
}

unsafe fn unlinked_stays() {
    let f = open("a", RW);
    put(f, b"still here");
    ok!(libc::unlink(c"a".as_ptr()));
    fails!(libc::open(c"a".as_ptr(), 0), ENOENT);
    ok!(libc::lseek(f, 0, 0));
    assert_eq!(get(f, 20), b"still here");
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(f, &mut st));
    assert_eq!(st.st_nlink, 0);
}

unsafe fn fd_passes_fork() {
    let f = open("a", RW);
    expect_exit(
        child(|| {
            put(f, b"child");
            ok!(libc::close(f));
            0
        }),
        0,
    );
    assert_eq!(at(f), 5);
    put(f, b"!");
    assert_eq!(std::fs::read("a").unwrap(), b"child!");
}
