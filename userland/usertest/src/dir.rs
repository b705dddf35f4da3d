//! Names: directories, links, renames, path walks, getdents64, stat and statx.
use crate::check::*;
use std::fs;

tests![
    mkdir_rmdir,
    mkdir_errors,
    rmdir_errors,
    readdir_sees_all,
    getdents_raw,
    getdents_small_buffer,
    readdir_many,
    readdir_while_deleting,
    rename_file,
    rename_over,
    rename_dir,
    rename_errors,
    renameat2_flags,
    link_counts,
    link_errors,
    symlink_read,
    symlink_loop,
    symlink_walk,
    unlink_errors,
    unlinkat_dir,
    chdir_getcwd,
    fchdir_call,
    getcwd_small,
    dotdot_walk,
    removed_cwd,
    statx_call,
    stat_kinds,
    lstat_follows_not,
    fstatat_empty_path,
    fifo,
    openat_relative,
    o_tmpfile,
    dir_nlink,
    permission_denied,
    sticky_directory,
    chroot_confines,
    inode_numbers_stable,
    access_root,
];

fn names(d: &str) -> Vec<String> {
    let mut v: Vec<String> =
        fs::read_dir(d).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    v.sort();
    v
}

unsafe fn st(path: &str) -> libc::stat {
    let mut s: libc::stat = std::mem::zeroed();
    ok!(libc::stat(c(path).as_ptr(), &mut s));
    s
}

unsafe fn mkdir_rmdir() {
    ok!(libc::mkdir(c"d".as_ptr(), 0o755));
    assert_eq!(st("d").st_mode & libc::S_IFMT, libc::S_IFDIR);
    ok!(libc::mkdir(c"d/e/".as_ptr(), 0o755));
    assert_eq!(names("d"), ["e"]);
    ok!(libc::rmdir(c"d/e".as_ptr()));
    ok!(libc::rmdir(c"d".as_ptr()));
    fails!(libc::rmdir(c"d".as_ptr()), ENOENT);
}

unsafe fn mkdir_errors() {
    fails!(libc::mkdir(c".".as_ptr(), 0o755), EEXIST);
    fails!(libc::mkdir(c"/".as_ptr(), 0o755), EEXIST);
    fails!(libc::mkdir(c"a/b".as_ptr(), 0o755), ENOENT);
    fs::write("f", "").unwrap();
    fails!(libc::mkdir(c"f".as_ptr(), 0o755), EEXIST);
    fails!(libc::mkdir(c"f/x".as_ptr(), 0o755), ENOTDIR);
    fails!(libc::mkdir(c"".as_ptr(), 0o755), ENOENT);
}

unsafe fn rmdir_errors() {
    fs::create_dir_all("d/e").unwrap();
    fs::write("f", "").unwrap();
    fails!(libc::rmdir(c"d".as_ptr()), ENOTEMPTY);
    fails!(libc::rmdir(c"f".as_ptr()), ENOTDIR);
    fails!(libc::rmdir(c"d/e/.".as_ptr()), EINVAL);
    fails!(libc::rmdir(c"d/e/..".as_ptr()), ENOTEMPTY);
}

unsafe fn readdir_sees_all() {
    fs::create_dir("d").unwrap();
    assert!(names("d").is_empty());
    for n in ["a", "b", "with space", "ünïcode", ".hidden"] {
        fs::write(format!("d/{n}"), "").unwrap();
    }
    assert_eq!(names("d"), [".hidden", "a", "b", "with space", "ünïcode"]);
}

unsafe fn getdents_raw() {
    fs::create_dir_all("d/sub").unwrap();
    fs::write("d/file", "").unwrap();
    ok!(libc::symlink(c"x".as_ptr(), c"d/link".as_ptr()));
    let fd = open("d", libc::O_RDONLY | libc::O_DIRECTORY);
    let mut buf = [0u8; 4096];
    let n = ok!(libc::syscall(libc::SYS_getdents64, fd, buf.as_mut_ptr(), 4096)) as usize;
    let mut at = 0;
    let mut seen = Vec::new();
    while at < n {
        let len = u16::from_ne_bytes([buf[at + 16], buf[at + 17]]) as usize;
        assert!(len >= 24 && len.is_multiple_of(8) && at + len <= n, "record length {len}");
        let name = std::ffi::CStr::from_bytes_until_nul(&buf[at + 19..at + len])
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        assert_ne!(u64::from_ne_bytes(buf[at..at + 8].try_into().unwrap()), 0, "inode number");
        seen.push((name, buf[at + 18]));
        at += len;
    }
    seen.sort();
    let want = [
        (".", libc::DT_DIR),
        ("..", libc::DT_DIR),
        ("file", libc::DT_REG),
        ("link", libc::DT_LNK),
        ("sub", libc::DT_DIR),
    ];
    assert_eq!(seen, want.map(|(n, t)| (n.to_owned(), t)));
    assert_eq!(ok!(libc::syscall(libc::SYS_getdents64, fd, buf.as_mut_ptr(), 4096)), 0);
    ok!(libc::lseek(fd, 0, libc::SEEK_SET));
    assert_eq!(ok!(libc::syscall(libc::SYS_getdents64, fd, buf.as_mut_ptr(), 4096)) as usize, n, "rewound");
}

unsafe fn getdents_small_buffer() {
    let fd = open(".", libc::O_RDONLY | libc::O_DIRECTORY);
    let mut buf = [0u8; 16];
    fails!(libc::syscall(libc::SYS_getdents64, fd, buf.as_mut_ptr(), 16), EINVAL);
    fs::write("f", "").unwrap();
    let f = open("f", 0);
    fails!(libc::syscall(libc::SYS_getdents64, f, buf.as_mut_ptr(), 16), ENOTDIR);
}

unsafe fn readdir_many() {
    fs::create_dir("d").unwrap();
    for i in 0..2000 {
        fs::write(format!("d/file-with-a-name-{i}"), "").unwrap();
    }
    let v = names("d");
    assert_eq!(v.len(), 2000);
    let mut w = v.clone();
    w.dedup();
    assert_eq!(w.len(), 2000, "each name once");
}

unsafe fn readdir_while_deleting() {
    fs::create_dir("d").unwrap();
    for i in 0..500 {
        fs::write(format!("d/{i}"), "").unwrap();
    }
    let mut n = 0;
    for e in fs::read_dir("d").unwrap() {
        fs::remove_file(e.unwrap().path()).unwrap();
        n += 1;
    }
    assert_eq!(n, 500, "what is deleted behind the reader hides nothing before it");
    assert!(names("d").is_empty());
}

unsafe fn rename_file() {
    fs::write("a", "x").unwrap();
    ok!(libc::rename(c"a".as_ptr(), c"b".as_ptr()));
    assert_eq!(names("."), ["b"]);
    assert_eq!(fs::read("b").unwrap(), b"x");
}

unsafe fn rename_over() {
    fs::write("a", "new").unwrap();
    fs::write("b", "old").unwrap();
    let old = open("b", libc::O_RDONLY);
    ok!(libc::rename(c"a".as_ptr(), c"b".as_ptr()));
    assert_eq!(fs::read("b").unwrap(), b"new");
    assert_eq!(get(old, 10), b"old", "the replaced file lives while it is open");
    ok!(libc::link(c"b".as_ptr(), c"c".as_ptr()));
    ok!(libc::rename(c"b".as_ptr(), c"c".as_ptr()));
    assert_eq!(names("."), ["b", "c"], "two names of one inode: nothing happens");
}

unsafe fn rename_dir() {
    fs::create_dir_all("d/e").unwrap();
    fs::write("d/e/f", "x").unwrap();
    fs::create_dir("empty").unwrap();
    ok!(libc::rename(c"d".as_ptr(), c"empty".as_ptr()));
    assert_eq!(fs::read("empty/e/f").unwrap(), b"x");
    ok!(libc::rename(c"empty/e".as_ptr(), c"top".as_ptr()));
    assert_eq!(st("top/..").st_ino, st(".").st_ino, "its parent is the new one");
    assert_eq!(st("empty").st_nlink, st("top").st_nlink);
}

unsafe fn rename_errors() {
    fs::create_dir_all("d/e").unwrap();
    fs::write("f", "").unwrap();
    fails!(libc::rename(c"none".as_ptr(), c"x".as_ptr()), ENOENT);
    fails!(libc::rename(c"d".as_ptr(), c"d/e/x".as_ptr()), EINVAL);
    fails!(libc::rename(c"f".as_ptr(), c"d".as_ptr()), EISDIR);
    fails!(libc::rename(c"d".as_ptr(), c"f".as_ptr()), ENOTDIR);
    fs::create_dir_all("g/h").unwrap();
    fails!(libc::rename(c"d".as_ptr(), c"g".as_ptr()), ENOTEMPTY);
    fails!(libc::rename(c".".as_ptr(), c"x".as_ptr()), EBUSY);
    fails!(libc::rename(c"f".as_ptr(), c"none/x".as_ptr()), ENOENT);
}

unsafe fn renameat2_flags() {
    fs::write("a", "a").unwrap();
    fs::write("b", "b").unwrap();
    let rn = |flags: u32| {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            c"a".as_ptr(),
            libc::AT_FDCWD,
            c"b".as_ptr(),
            flags,
        )
    };
    if rn(1) < 0 && [libc::ENOSYS, libc::EINVAL].contains(&errno()) {
        skip("renameat2 flags are not there");
    }
    fails!(rn(1), EEXIST); // RENAME_NOREPLACE
    ok!(rn(2)); // RENAME_EXCHANGE
    assert_eq!((fs::read("a").unwrap(), fs::read("b").unwrap()), (b"b".to_vec(), b"a".to_vec()));
    fails!(rn(3), EINVAL);
}

unsafe fn link_counts() {
    fs::write("a", "x").unwrap();
    ok!(libc::link(c"a".as_ptr(), c"b".as_ptr()));
    assert_eq!((st("a").st_nlink, st("a").st_ino), (2, st("b").st_ino));
    fs::write("b", "through b").unwrap();
    assert_eq!(fs::read("a").unwrap(), b"through b");
    ok!(libc::unlink(c"a".as_ptr()));
    assert_eq!(st("b").st_nlink, 1);
}

unsafe fn link_errors() {
    fs::write("a", "x").unwrap();
    fs::create_dir("d").unwrap();
    fails!(libc::link(c"a".as_ptr(), c"d".as_ptr()), EEXIST);
    fails!(libc::link(c"d".as_ptr(), c"e".as_ptr()), EPERM);
    fails!(libc::link(c"none".as_ptr(), c"e".as_ptr()), ENOENT);
    fails!(libc::link(c"/proc/version".as_ptr(), c"e".as_ptr()), EXDEV);
}

unsafe fn symlink_read() {
    ok!(libc::symlink(c"some/target".as_ptr(), c"l".as_ptr()));
    assert_eq!(fs::read_link("l").unwrap().to_str(), Some("some/target"));
    let mut b = [0u8; 4];
    assert_eq!(ok!(libc::readlink(c"l".as_ptr(), b.as_mut_ptr().cast(), 4)), 4, "cut without an error");
    assert_eq!(&b, b"some");
    fs::write("f", "").unwrap();
    fails!(libc::readlink(c"f".as_ptr(), b.as_mut_ptr().cast(), 4), EINVAL);
    fails!(libc::symlink(c"x".as_ptr(), c"f".as_ptr()), EEXIST);
    fails!(libc::symlink(c"".as_ptr(), c"g".as_ptr()), ENOENT);
    let mut s: libc::stat = std::mem::zeroed();
    ok!(libc::lstat(c"l".as_ptr(), &mut s));
    assert_eq!((s.st_mode & libc::S_IFMT, s.st_size), (libc::S_IFLNK, 11));
}

unsafe fn symlink_loop() {
    ok!(libc::symlink(c"b".as_ptr(), c"a".as_ptr()));
    ok!(libc::symlink(c"a".as_ptr(), c"b".as_ptr()));
    fails!(libc::open(c"a".as_ptr(), 0), ELOOP);
    // 40 links in a row are one too many for the walk.
    fs::write("l0", "end").unwrap();
    for i in 1..=45 {
        ok!(libc::symlink(c(&format!("l{}", i - 1)).as_ptr(), c(&format!("l{i}")).as_ptr()));
    }
    assert_eq!(fs::read("l40").unwrap(), b"end");
    fails!(libc::open(c"l41".as_ptr(), 0), ELOOP);
}

unsafe fn symlink_walk() {
    fs::create_dir_all("d/e").unwrap();
    fs::write("d/e/f", "deep").unwrap();
    ok!(libc::symlink(c"../d/e".as_ptr(), c"d/back".as_ptr()));
    ok!(libc::symlink(c"d/back".as_ptr(), c"l".as_ptr()));
    assert_eq!(fs::read("l/f").unwrap(), b"deep");
    assert_eq!(fs::read("l/../e/f").unwrap(), b"deep", ".. after a link is the target's parent");
    let abs = format!("{}/d/e/f", std::env::current_dir().unwrap().display());
    ok!(libc::symlink(c(&abs).as_ptr(), c"abs".as_ptr()));
    assert_eq!(fs::read("abs").unwrap(), b"deep");
    ok!(libc::symlink(c"made-through-link".as_ptr(), c"dangling".as_ptr()));
    fs::write("dangling", "x").unwrap();
    assert_eq!(fs::read("made-through-link").unwrap(), b"x");
}

unsafe fn unlink_errors() {
    fs::create_dir("d").unwrap();
    fails!(libc::unlink(c"d".as_ptr()), EISDIR);
    fails!(libc::unlink(c"none".as_ptr()), ENOENT);
    fs::write("f", "").unwrap();
    fails!(libc::unlink(c"f/".as_ptr()), ENOTDIR);
    ok!(libc::symlink(c"f".as_ptr(), c"l".as_ptr()));
    ok!(libc::unlink(c"l".as_ptr()));
    assert!(fs::metadata("f").is_ok(), "the link goes, not its target");
}

unsafe fn unlinkat_dir() {
    fs::create_dir("d").unwrap();
    fs::write("d/f", "").unwrap();
    let d = open("d", libc::O_DIRECTORY);
    ok!(libc::unlinkat(d, c"f".as_ptr(), 0));
    ok!(libc::unlinkat(libc::AT_FDCWD, c"d".as_ptr(), libc::AT_REMOVEDIR));
    fails!(libc::unlinkat(libc::AT_FDCWD, c"d".as_ptr(), 0x1), EINVAL);
}

unsafe fn chdir_getcwd() {
    fs::create_dir_all("d/e").unwrap();
    let base = std::env::current_dir().unwrap();
    ok!(libc::chdir(c"d/e".as_ptr()));
    assert_eq!(std::env::current_dir().unwrap(), base.join("d/e"));
    ok!(libc::chdir(c"../..".as_ptr()));
    assert_eq!(std::env::current_dir().unwrap(), base);
    fails!(libc::chdir(c"none".as_ptr()), ENOENT);
    fs::write("f", "").unwrap();
    fails!(libc::chdir(c"f".as_ptr()), ENOTDIR);
    ok!(libc::chdir(c"/".as_ptr()));
    assert_eq!(std::env::current_dir().unwrap().to_str(), Some("/"));
}

unsafe fn fchdir_call() {
    fs::create_dir("d").unwrap();
    let back = open(".", libc::O_DIRECTORY);
    let base = std::env::current_dir().unwrap();
    ok!(libc::chdir(c"d".as_ptr()));
    ok!(libc::fchdir(back));
    assert_eq!(std::env::current_dir().unwrap(), base);
    let (r, _w) = pipe();
    fails!(libc::fchdir(r), ENOTDIR);
}

unsafe fn getcwd_small() {
    let mut b = [0u8; 2];
    fails!(libc::syscall(libc::SYS_getcwd, b.as_mut_ptr(), 2), ERANGE);
    ok!(libc::chdir(c"/".as_ptr()));
    assert_eq!(ok!(libc::syscall(libc::SYS_getcwd, b.as_mut_ptr(), 2)), 2, "length with the NUL");
}

unsafe fn dotdot_walk() {
    fs::create_dir_all("a/b/c").unwrap();
    fs::write("x", "top").unwrap();
    assert_eq!(fs::read("a/b/c/../../../x").unwrap(), b"top");
    assert_eq!(fs::read(".//a/./../x").unwrap(), b"top");
    assert_eq!(st("/../../..").st_ino, st("/").st_ino);
    fails!(libc::open(c"a/none/../../x".as_ptr(), 0), ENOENT);
    fails!(libc::open(c"x/..".as_ptr(), 0), ENOTDIR);
}

unsafe fn removed_cwd() {
    ok!(libc::mkdir(c"d".as_ptr(), 0o755));
    ok!(libc::chdir(c"d".as_ptr()));
    ok!(libc::rmdir(c"../d".as_ptr()));
    let mut b = [0u8; 4096];
    fails!(libc::syscall(libc::SYS_getcwd, b.as_mut_ptr(), 4096), ENOENT);
    fails!(libc::open(c"x".as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o644), ENOENT);
}

unsafe fn statx_call() {
    fs::write("a", "12345").unwrap();
    let mut x: libc::statx = std::mem::zeroed();
    ok!(libc::statx(libc::AT_FDCWD, c"a".as_ptr(), 0, libc::STATX_BASIC_STATS, &mut x));
    assert_eq!(x.stx_mask & libc::STATX_BASIC_STATS, libc::STATX_BASIC_STATS);
    let s = st("a");
    assert_eq!((x.stx_size, x.stx_ino, u32::from(x.stx_mode), x.stx_nlink), (5, s.st_ino, s.st_mode, 1));
    assert_eq!((libc::major(s.st_dev), libc::minor(s.st_dev)), (x.stx_dev_major, x.stx_dev_minor));
    assert_eq!(x.stx_mtime.tv_sec, s.st_mtime);
    fails!(libc::statx(libc::AT_FDCWD, c"none".as_ptr(), 0, libc::STATX_ALL, &mut x), ENOENT);
    fails!(libc::statx(libc::AT_FDCWD, c"a".as_ptr(), 0x10_0000, libc::STATX_ALL, &mut x), EINVAL);
    let f = open("a", 0);
    ok!(libc::statx(f, c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_ALL, &mut x));
    assert_eq!(x.stx_size, 5);
}

unsafe fn stat_kinds() {
    assert_eq!(st("/").st_mode & libc::S_IFMT, libc::S_IFDIR);
    assert_eq!(st("/dev/null").st_mode & libc::S_IFMT, libc::S_IFCHR);
    let (r, _w) = pipe();
    let mut s: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(r, &mut s));
    assert_eq!(s.st_mode & libc::S_IFMT, libc::S_IFIFO);
    let k = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    ok!(libc::fstat(k, &mut s));
    assert_eq!(s.st_mode & libc::S_IFMT, libc::S_IFSOCK);
}

unsafe fn lstat_follows_not() {
    ok!(libc::symlink(c"none".as_ptr(), c"l".as_ptr()));
    let mut s: libc::stat = std::mem::zeroed();
    ok!(libc::lstat(c"l".as_ptr(), &mut s));
    fails!(libc::stat(c"l".as_ptr(), &mut s), ENOENT);
}

unsafe fn fstatat_empty_path() {
    fs::write("a", "123").unwrap();
    let f = open("a", 0);
    let mut s: libc::stat = std::mem::zeroed();
    ok!(libc::fstatat(f, c"".as_ptr(), &mut s, libc::AT_EMPTY_PATH));
    assert_eq!(s.st_size, 3);
    fails!(libc::fstatat(f, c"".as_ptr(), &mut s, 0), ENOENT);
}

unsafe fn fifo() {
    if libc::mkfifo(c"p".as_ptr(), 0o644) < 0 {
        skip("no FIFOs on this file system");
    }
    assert_eq!(st("p").st_mode & libc::S_IFMT, libc::S_IFIFO);
    fails!(libc::open(c"p".as_ptr(), libc::O_WRONLY | libc::O_NONBLOCK), ENXIO);
    let k = child(|| {
        put(open("p", libc::O_WRONLY), b"through the fifo");
        0
    });
    let r = open("p", libc::O_RDONLY);
    assert_eq!(get(r, 100), b"through the fifo");
    expect_exit(k, 0);
    assert_eq!(get(r, 100), b"");
}

unsafe fn openat_relative() {
    fs::create_dir_all("d/e").unwrap();
    let d = open("d", libc::O_PATH | libc::O_DIRECTORY);
    let f = ok!(libc::openat(d, c"e/f".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o600));
    put(f, b"x");
    assert_eq!(fs::read("d/e/f").unwrap(), b"x");
    ok!(libc::openat(999, c"/dev/null".as_ptr(), 0));
    ok!(libc::mkdirat(d, c"g".as_ptr(), 0o755));
    ok!(libc::renameat(d, c"g".as_ptr(), libc::AT_FDCWD, c"moved".as_ptr()));
    assert_eq!(names("d"), ["e"]);
}

unsafe fn o_tmpfile() {
    let f = libc::open(c".".as_ptr(), libc::O_TMPFILE | libc::O_RDWR, 0o600);
    if f < 0 {
        assert!([libc::EOPNOTSUPP, libc::EISDIR, libc::EINVAL].contains(&errno()), "errno {}", errno());
        skip("no O_TMPFILE here");
    }
    put(f, b"nameless");
    assert!(names(".").is_empty());
}

unsafe fn dir_nlink() {
    fs::create_dir("d").unwrap();
    let before = st("d").st_nlink;
    fs::create_dir("d/e").unwrap();
    let after = st("d").st_nlink;
    // Some file systems always say 1.
    assert!(before == 1 || (before, after) == (2, 3), "{before} then {after}");
}

unsafe fn permission_denied() {
    if libc::getuid() != 0 {
        skip("needs root");
    }
    fs::create_dir("d").unwrap();
    fs::write("d/secret", "x").unwrap();
    ok!(libc::chmod(c"d/secret".as_ptr(), 0o600));
    fs::create_dir("closed").unwrap();
    fs::write("closed/f", "x").unwrap();
    ok!(libc::chmod(c"closed".as_ptr(), 0o700));
    let p = child(|| {
        ok!(libc::setresgid(1234, 1234, 1234));
        ok!(libc::setresuid(1234, 1234, 1234));
        fails!(libc::open(c"d/secret".as_ptr(), 0), EACCES);
        fails!(libc::open(c"closed/f".as_ptr(), 0), EACCES);
        fails!(libc::open(c"d/new".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644), EACCES);
        fails!(libc::unlink(c"d/secret".as_ptr()), EACCES);
        fails!(libc::chmod(c"d/secret".as_ptr(), 0o666), EPERM);
        fails!(libc::chown(c"d/secret".as_ptr(), 1234, 1234), EPERM);
        fails!(libc::access(c"d/secret".as_ptr(), libc::R_OK), EACCES);
        0
    });
    expect_exit(p, 0);
}

unsafe fn sticky_directory() {
    if libc::getuid() != 0 {
        skip("needs root");
    }
    fs::create_dir("t").unwrap();
    ok!(libc::chmod(c"t".as_ptr(), 0o1777));
    fs::write("t/roots", "").unwrap();
    ok!(libc::chmod(c"t/roots".as_ptr(), 0o666));
    let p = child(|| {
        ok!(libc::setresuid(1234, 1234, 1234));
        fails!(libc::unlink(c"t/roots".as_ptr()), EPERM);
        fs::write("t/mine", "").unwrap();
        ok!(libc::unlink(c"t/mine".as_ptr()));
        0
    });
    expect_exit(p, 0);
}

unsafe fn chroot_confines() {
    if libc::getuid() != 0 {
        skip("needs root");
    }
    fs::create_dir("root").unwrap();
    fs::write("root/inside", "x").unwrap();
    let p = child(|| {
        ok!(libc::chroot(c"root".as_ptr()));
        ok!(libc::chdir(c"/".as_ptr()));
        i32::from(names("/../..") != ["inside"])
    });
    expect_exit(p, 0);
}

unsafe fn inode_numbers_stable() {
    fs::write("a", "").unwrap();
    let i = st("a").st_ino;
    fs::write("b", "").unwrap();
    assert_ne!(st("b").st_ino, i);
    ok!(libc::rename(c"a".as_ptr(), c"c".as_ptr()));
    assert_eq!(st("c").st_ino, i);
}

unsafe fn access_root() {
    for d in ["/", "/proc", "/dev"] {
        ok!(libc::access(c(d).as_ptr(), libc::R_OK | libc::X_OK));
    }
}
