//! Mappings of files: private, shared, their end inside a page, SIGBUS behind it, memfd.
use crate::check::*;
use std::ptr::{null_mut, read_volatile, write_volatile};

const PAGE: usize = 4096;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

tests![
    private_reads_file,
    private_write_stays_private,
    shared_write_reaches_file,
    shared_seen_by_read,
    eof_in_page_is_zero,
    sigbus_behind_eof,
    map_offset,
    file_closed_mapping_stays,
    unlinked_mapping_stays,
    map_needs_rights,
    memfd_shared_over_fork,
    write_seen_in_mapping,
    truncate_under_mapping,
    map_own_executable,
    two_mappings_one_file,
    private_read_then_file_write,
];

unsafe fn file(name: &str, bytes: &[u8]) -> i32 {
    let f = open(name, libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC);
    put(f, bytes);
    f
}

unsafe fn mapf(fd: i32, len: usize, prot: i32, flags: i32, off: i64) -> *mut u8 {
    ok!(libc::mmap(null_mut(), len, prot, flags, fd, off)).cast()
}

unsafe fn private_reads_file() {
    let v: Vec<u8> = (0..3 * PAGE).map(|i| (i * 7 % 255) as u8).collect();
    let f = file("m", &v);
    let p = mapf(f, 3 * PAGE, libc::PROT_READ, libc::MAP_PRIVATE, 0);
    assert_eq!(std::slice::from_raw_parts(p, 3 * PAGE), &v[..]);
}

unsafe fn private_write_stays_private() {
    let f = file("m", &[1; PAGE]);
    let p = mapf(f, PAGE, RW, libc::MAP_PRIVATE, 0);
    let q = mapf(f, PAGE, RW, libc::MAP_PRIVATE, 0);
    *p = 9;
    assert_eq!(read_volatile(q), 1);
    let mut b = 0u8;
    ok!(libc::pread(f, (&raw mut b).cast(), 1, 0));
    assert_eq!(b, 1);
}

unsafe fn shared_write_reaches_file() {
    let f = file("m", &[1; PAGE]);
    let p = mapf(f, PAGE, RW, libc::MAP_SHARED, 0);
    write_volatile(p.add(10), 9);
    ok!(libc::msync(p.cast(), PAGE, libc::MS_SYNC));
    ok!(libc::munmap(p.cast(), PAGE));
    assert_eq!(std::fs::read("m").unwrap()[10], 9);
}

unsafe fn shared_seen_by_read() {
    let f = file("m", &[1; PAGE]);
    let p = mapf(f, PAGE, RW, libc::MAP_SHARED, 0);
    write_volatile(p, 200);
    let mut b = 0u8;
    ok!(libc::pread(f, (&raw mut b).cast(), 1, 0));
    assert_eq!(b, 200, "one page cache for mappings and read()");
}

unsafe fn eof_in_page_is_zero() {
    let f = file("m", &[5; 100]);
    let p = mapf(f, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, 0);
    let s = std::slice::from_raw_parts(p, PAGE);
    assert!(s[..100].iter().all(|b| *b == 5) && s[100..].iter().all(|b| *b == 0));
}

extern "C" fn on_bus(_: i32, si: *mut libc::siginfo_t, _: *mut libc::c_void) {
    unsafe {
        libc::_exit(if (*si).si_code == 2 { (((*si).si_addr() as usize) & (PAGE - 1)) as i32 } else { 250 })
    }
}

unsafe fn sigbus_behind_eof() {
    let f = file("m", &[5; 100]);
    let p = mapf(f, 2 * PAGE, libc::PROT_READ, libc::MAP_SHARED, 0);
    assert_eq!(read_volatile(p), 5);
    let k = child(|| {
        handle(libc::SIGBUS, on_bus as *const () as usize, libc::SA_SIGINFO);
        read_volatile(p.add(PAGE + 33));
        251
    });
    expect_exit(k, 33);
    let k = child(|| {
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
        read_volatile(p.add(PAGE));
        251
    });
    expect_killed(k, libc::SIGBUS);
    // The kernel's own copy from there fails and does not kill.
    fails!(libc::write(f, p.add(PAGE).cast(), 10), EFAULT);
}

unsafe fn map_offset() {
    let mut v = vec![0u8; 20 * PAGE];
    v[17 * PAGE] = 17;
    let f = file("m", &v);
    let p = mapf(f, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, 17 * PAGE as i64);
    assert_eq!(read_volatile(p), 17);
    fails!(libc::mmap(null_mut(), PAGE, libc::PROT_READ, libc::MAP_PRIVATE, f, 100), EINVAL);
}

unsafe fn file_closed_mapping_stays() {
    let f = file("m", &[3; PAGE]);
    let p = mapf(f, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, 0);
    ok!(libc::close(f));
    assert_eq!(read_volatile(p), 3);
}

unsafe fn unlinked_mapping_stays() {
    let f = file("m", &[3; PAGE]);
    let p = mapf(f, PAGE, libc::PROT_READ, libc::MAP_SHARED, 0);
    ok!(libc::close(f));
    ok!(libc::unlink(c"m".as_ptr()));
    assert_eq!(read_volatile(p), 3);
}

unsafe fn map_needs_rights() {
    file("m", &[3; PAGE]);
    let r = open("m", libc::O_RDONLY);
    fails!(libc::mmap(null_mut(), PAGE, RW, libc::MAP_SHARED, r, 0), EACCES);
    mapf(r, PAGE, RW, libc::MAP_PRIVATE, 0);
    let w = open("m", libc::O_WRONLY);
    fails!(libc::mmap(null_mut(), PAGE, libc::PROT_READ, libc::MAP_PRIVATE, w, 0), EACCES);
    let (p, _q) = pipe();
    fails!(libc::mmap(null_mut(), PAGE, libc::PROT_READ, libc::MAP_PRIVATE, p, 0), ENODEV);
    let s = mapf(r, PAGE, libc::PROT_READ, libc::MAP_SHARED, 0);
    fails!(libc::mprotect(s.cast(), PAGE, RW), EACCES);
}

unsafe fn memfd_shared_over_fork() {
    let fd = ok!(libc::memfd_create(c"t".as_ptr(), libc::MFD_CLOEXEC));
    ok!(libc::ftruncate(fd, 2 * PAGE as i64));
    let p = mapf(fd, 2 * PAGE, RW, libc::MAP_SHARED, 0);
    let k = child(|| {
        write_volatile(p.add(PAGE), 7);
        put(fd, b"Z");
        0
    });
    expect_exit(k, 0);
    assert_eq!((read_volatile(p), read_volatile(p.add(PAGE))), (b'Z', 7));
}

unsafe fn write_seen_in_mapping() {
    let f = file("m", &[1; PAGE]);
    let p = mapf(f, PAGE, libc::PROT_READ, libc::MAP_SHARED, 0);
    assert_eq!(read_volatile(p), 1);
    ok!(libc::pwrite(f, b"A".as_ptr().cast(), 1, 0));
    assert_eq!(read_volatile(p), b'A');
}

unsafe fn truncate_under_mapping() {
    let f = file("m", &[1; 2 * PAGE]);
    let p = mapf(f, 2 * PAGE, libc::PROT_READ, libc::MAP_SHARED, 0);
    assert_eq!(read_volatile(p.add(PAGE)), 1);
    ok!(libc::ftruncate(f, 10));
    assert_eq!(
        (read_volatile(p.add(9)), read_volatile(p.add(10))),
        (1, 0),
        "the cut tail of the page is zero"
    );
    let k = child(|| {
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
        read_volatile(p.add(PAGE));
        0
    });
    expect_killed(k, libc::SIGBUS);
    ok!(libc::ftruncate(f, 2 * PAGE as i64));
    assert_eq!(read_volatile(p.add(PAGE)), 0, "grown again it reads zero");
}

unsafe fn map_own_executable() {
    let f = open("/proc/self/exe", libc::O_RDONLY);
    let p = mapf(f, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, 0);
    assert_eq!(std::slice::from_raw_parts(p, 4), b"\x7fELF");
    let w = c("/proc/self/exe");
    let e = libc::open(w.as_ptr(), libc::O_RDWR);
    assert!(
        e == -1 && (errno() == libc::ETXTBSY || errno() == libc::EROFS || errno() == libc::EACCES),
        "errno {}",
        errno()
    );
}

unsafe fn two_mappings_one_file() {
    let f = file("m", &[0; PAGE]);
    let p = mapf(f, PAGE, RW, libc::MAP_SHARED, 0);
    let q = mapf(f, PAGE, RW, libc::MAP_SHARED, 0);
    for i in 0..PAGE {
        write_volatile(p.add(i), i as u8);
        assert_eq!(read_volatile(q.add(i)), i as u8);
    }
}

unsafe fn private_read_then_file_write() {
    let f = file("m", &[1; 2 * PAGE]);
    let p = mapf(f, 2 * PAGE, RW, libc::MAP_PRIVATE, 0);
    *p = 50;
    ok!(libc::pwrite(f, [2u8; 2 * PAGE].as_ptr().cast(), 2 * PAGE, 0));
    assert_eq!(read_volatile(p), 50, "a page of our own is not touched by the file");
    assert_eq!(read_volatile(p.add(1)), 1);
}
