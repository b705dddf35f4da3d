//! Anonymous memory: mmap, munmap, mprotect, mremap, madvise, brk, and the signals of bad accesses.
use crate::check::*;
use std::ptr::{null_mut, read_volatile, write_volatile};

const PAGE: usize = 4096;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const ANON: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

tests![
    anon_is_zero,
    mmap_fixed_replaces,
    mmap_fixed_noreplace,
    mmap_errors,
    munmap_middle,
    munmap_errors,
    mprotect_read_only,
    mprotect_none_then_back,
    mprotect_unmapped_enomem,
    mprotect_splits,
    mremap_grow_in_place_or_move,
    mremap_shrink,
    mremap_fixed,
    mremap_errors,
    madvise_dontneed_zeroes,
    madvise_errors,
    brk_grow_shrink,
    brk_via_malloc,
    segv_maperr,
    segv_accerr,
    segv_write_readonly_text,
    segv_null_default_kills,
    non_canonical,
    many_mappings,
    sparse_touch,
    mincore_mapped,
    shared_anon_over_fork,
    exec_of_anonymous_code,
    stack_grows,
    guard_page,
    mlock_ok,
    prot_none_reserve_huge,
    msync_anon,
    large_fill,
];

unsafe fn anon_is_zero() {
    let p = anon(16 * PAGE);
    for i in 0..16 * PAGE {
        assert_eq!(*p.add(i), 0);
    }
    for i in 0..16 {
        *p.add(i * PAGE) = i as u8;
    }
    for i in 0..16 {
        assert_eq!(read_volatile(p.add(i * PAGE)), i as u8);
    }
}

unsafe fn mmap_fixed_replaces() {
    let p = anon(4 * PAGE);
    p.write_bytes(1, 4 * PAGE);
    let q = ok!(libc::mmap(p.add(PAGE).cast(), PAGE, RW, ANON | libc::MAP_FIXED, -1, 0));
    assert_eq!(q.cast::<u8>(), p.add(PAGE));
    assert_eq!((*p, *p.add(PAGE), *p.add(2 * PAGE)), (1, 0, 1));
}

unsafe fn mmap_fixed_noreplace() {
    let p = anon(PAGE);
    fails!(libc::mmap(p.cast(), PAGE, RW, ANON | libc::MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
    ok!(libc::munmap(p.cast(), PAGE));
    assert_eq!(ok!(libc::mmap(p.cast(), PAGE, RW, ANON | libc::MAP_FIXED_NOREPLACE, -1, 0)).cast(), p);
}

unsafe fn mmap_errors() {
    fails!(libc::mmap(null_mut(), 0, RW, ANON, -1, 0), EINVAL);
    fails!(libc::mmap(std::ptr::dangling_mut(), PAGE, RW, ANON | libc::MAP_FIXED, -1, 0), EINVAL);
    fails!(libc::mmap(null_mut(), PAGE, RW, libc::MAP_PRIVATE, -1, 0), EBADF);
    fails!(libc::mmap(null_mut(), PAGE, RW, libc::MAP_ANONYMOUS, -1, 0), EINVAL);
    fails!(libc::mmap(null_mut(), 1 << 47, RW, ANON, -1, 0), ENOMEM);
    fails!(libc::syscall(libc::SYS_mmap, 0, PAGE, RW, libc::MAP_PRIVATE, 0, 1), EINVAL);
    fails!(
        libc::mmap(((1usize << 47) - PAGE) as *mut _, 2 * PAGE, RW, ANON | libc::MAP_FIXED, -1, 0),
        ENOMEM
    );
}

unsafe fn munmap_middle() {
    let p = anon(3 * PAGE);
    p.write_bytes(9, 3 * PAGE);
    ok!(libc::munmap(p.add(PAGE).cast(), PAGE));
    assert_eq!((*p, *p.add(2 * PAGE)), (9, 9));
    assert_faults(|| {
        read_volatile(p.add(PAGE));
    });
    // A hole is no error.
    ok!(libc::munmap(p.cast(), 3 * PAGE));
    ok!(libc::munmap(p.cast(), 3 * PAGE));
}

unsafe fn munmap_errors() {
    let p = anon(PAGE);
    fails!(libc::munmap(p.cast(), 0), EINVAL);
    fails!(libc::munmap(p.add(1).cast(), PAGE), EINVAL);
    fails!(libc::munmap(p.cast(), usize::MAX & !(PAGE - 1)), EINVAL);
}

/// `f` in a child must die of SIGSEGV.
unsafe fn assert_faults(f: impl FnOnce()) {
    let p = child(|| {
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        f();
        0
    });
    expect_killed(p, libc::SIGSEGV);
}

unsafe fn mprotect_read_only() {
    let p = anon(2 * PAGE);
    *p = 5;
    ok!(libc::mprotect(p.cast(), PAGE, libc::PROT_READ));
    assert_eq!(read_volatile(p), 5);
    *p.add(PAGE) = 1;
    assert_faults(|| write_volatile(p, 6));
    ok!(libc::mprotect(p.cast(), PAGE, RW));
    *p = 7;
    assert_eq!(read_volatile(p), 7);
}

unsafe fn mprotect_none_then_back() {
    let p = anon(PAGE);
    *p = 5;
    ok!(libc::mprotect(p.cast(), PAGE, libc::PROT_NONE));
    assert_faults(|| {
        read_volatile(p);
    });
    ok!(libc::mprotect(p.cast(), PAGE, libc::PROT_READ));
    assert_eq!(read_volatile(p), 5, "contents survive PROT_NONE");
}

unsafe fn mprotect_unmapped_enomem() {
    let p = anon(2 * PAGE);
    ok!(libc::munmap(p.add(PAGE).cast(), PAGE));
    fails!(libc::mprotect(p.cast(), 2 * PAGE, libc::PROT_READ), ENOMEM);
    fails!(libc::mprotect(p.add(1).cast(), PAGE, libc::PROT_READ), EINVAL);
    fails!(libc::mprotect(p.cast(), PAGE, 0x40), EINVAL);
    ok!(libc::mprotect(p.cast(), 0, libc::PROT_READ));
}

unsafe fn mprotect_splits() {
    let n = 64;
    let p = anon(n * PAGE);
    p.write_bytes(3, n * PAGE);
    for i in (0..n).step_by(2) {
        ok!(libc::mprotect(p.add(i * PAGE).cast(), PAGE, libc::PROT_READ));
    }
    for i in (1..n).step_by(2) {
        *p.add(i * PAGE) = 4;
    }
    assert_faults(|| write_volatile(p.add(2 * PAGE), 1));
    ok!(libc::mprotect(p.cast(), n * PAGE, RW));
    for i in 0..n {
        assert_eq!(*p.add(i * PAGE), if i % 2 == 0 { 3 } else { 4 });
        *p.add(i * PAGE) = 8;
    }
}

unsafe fn mremap_grow_in_place_or_move() {
    let p = anon(2 * PAGE);
    p.write_bytes(6, 2 * PAGE);
    let q: *mut u8 = ok!(libc::mremap(p.cast(), 2 * PAGE, 300 * PAGE, libc::MREMAP_MAYMOVE)).cast();
    assert_eq!((*q, *q.add(2 * PAGE - 1), *q.add(2 * PAGE), *q.add(300 * PAGE - 1)), (6, 6, 0, 0));
    q.write_bytes(1, 300 * PAGE);
}

unsafe fn mremap_shrink() {
    let p = anon(4 * PAGE);
    p.write_bytes(6, 4 * PAGE);
    assert_eq!(ok!(libc::mremap(p.cast(), 4 * PAGE, PAGE, 0)).cast(), p);
    assert_eq!(*p, 6);
    assert_faults(|| {
        read_volatile(p.add(PAGE));
    });
}

unsafe fn mremap_fixed() {
    let p = anon(2 * PAGE);
    p.write_bytes(2, 2 * PAGE);
    let to = anon(2 * PAGE);
    let q = ok!(libc::mremap(p.cast(), 2 * PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to));
    assert_eq!(q.cast::<u8>(), to);
    assert_eq!((*to, *to.add(PAGE)), (2, 2));
    assert_faults(|| {
        read_volatile(p);
    });
}

unsafe fn mremap_errors() {
    let p = anon(2 * PAGE);
    fails!(libc::mremap(p.add(1).cast(), PAGE, PAGE, 0), EINVAL);
    fails!(libc::mremap(p.cast(), PAGE, 0, 0), EINVAL);
    ok!(libc::munmap(p.cast(), 2 * PAGE));
    fails!(libc::mremap(p.cast(), PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE), EFAULT);
    // A neighbour in the way and no permission to move.
    let p = anon(3 * PAGE);
    ok!(libc::mprotect(p.add(PAGE).cast(), 2 * PAGE, libc::PROT_READ));
    fails!(libc::mremap(p.cast(), PAGE, 2 * PAGE, 0), ENOMEM);
}

unsafe fn madvise_dontneed_zeroes() {
    let p = anon(4 * PAGE);
    p.write_bytes(7, 4 * PAGE);
    ok!(libc::madvise(p.add(PAGE).cast(), 2 * PAGE, libc::MADV_DONTNEED));
    assert_eq!((*p, *p.add(PAGE), *p.add(2 * PAGE), *p.add(3 * PAGE)), (7, 0, 0, 7));
    *p.add(PAGE) = 1;
    assert_eq!(*p.add(PAGE), 1);
}

unsafe fn madvise_errors() {
    let p = anon(2 * PAGE);
    ok!(libc::madvise(p.cast(), PAGE, libc::MADV_NORMAL));
    ok!(libc::madvise(p.cast(), PAGE, libc::MADV_WILLNEED));
    fails!(libc::madvise(p.add(1).cast(), PAGE, libc::MADV_DONTNEED), EINVAL);
    fails!(libc::madvise(p.cast(), PAGE, 0x7777), EINVAL);
    ok!(libc::munmap(p.add(PAGE).cast(), PAGE));
    fails!(libc::madvise(p.cast(), 2 * PAGE, libc::MADV_DONTNEED), ENOMEM);
}

unsafe fn brk_grow_shrink() {
    let b0 = libc::syscall(libc::SYS_brk, 0usize) as usize;
    assert_ne!(b0, 0);
    let want = b0 + 10 * PAGE + 123;
    assert_eq!(libc::syscall(libc::SYS_brk, want) as usize, want);
    let p = (b0 + PAGE) as *mut u8;
    assert_eq!(read_volatile(p), 0);
    write_volatile(p, 3);
    assert_eq!(libc::syscall(libc::SYS_brk, b0) as usize, b0);
    assert_eq!(libc::syscall(libc::SYS_brk, want) as usize, want);
    assert_eq!(
        read_volatile(((b0 + 2 * PAGE) & !(PAGE - 1)) as *mut u8),
        0,
        "given back and taken again is zero"
    );
    assert_eq!(libc::syscall(libc::SYS_brk, 1usize) as usize, want, "a refused brk answers the present one");
    libc::syscall(libc::SYS_brk, b0);
}

unsafe fn brk_via_malloc() {
    let mut v: Vec<Vec<u8>> = Vec::new();
    for i in 0..2000 {
        v.push(vec![i as u8; 100 + (i * 37) % 5000]);
    }
    for (i, b) in v.iter().enumerate() {
        assert!(b.iter().all(|x| *x == i as u8));
    }
}

static mut SEEN: (i32, i32, usize) = (0, 0, 0);

extern "C" fn on_fault(sig: i32, si: *mut libc::siginfo_t, _uc: *mut libc::c_void) {
    unsafe {
        SEEN = (sig, (*si).si_code, (*si).si_addr() as usize);
        libc::_exit(if SEEN == WANT { 0 } else { print_seen() });
    }
}

static mut WANT: (i32, i32, usize) = (0, 0, 0);

unsafe fn print_seen() -> i32 {
    println!("# fault {:x?}, expected {:x?}", (&raw const SEEN).read(), (&raw const WANT).read());
    1
}

unsafe fn expect_fault(sig: i32, code: i32, addr: usize, f: impl FnOnce()) {
    let p = child(|| {
        WANT = (sig, code, addr);
        handle(sig, on_fault as *const () as usize, libc::SA_SIGINFO);
        f();
        2
    });
    expect_exit(p, 0);
}

unsafe fn segv_maperr() {
    let p = anon(PAGE);
    ok!(libc::munmap(p.cast(), PAGE));
    let a = p as usize + 0x123;
    expect_fault(libc::SIGSEGV, 1, a, || {
        read_volatile(a as *const u8);
    });
    expect_fault(libc::SIGSEGV, 1, 8, || write_volatile(8 as *mut u8, 1));
}

unsafe fn segv_accerr() {
    let p = map(PAGE, libc::PROT_READ, ANON);
    expect_fault(libc::SIGSEGV, 2, p as usize, || write_volatile(p, 1));
    // No execute permission: the address is where the jump went.
    let q = anon(PAGE);
    *q = 0xc3;
    expect_fault(libc::SIGSEGV, 2, q as usize, || {
        let f: extern "C" fn() = std::mem::transmute(q);
        f();
    });
}

unsafe fn segv_write_readonly_text() {
    let a = segv_write_readonly_text as *const () as usize;
    expect_fault(libc::SIGSEGV, 2, a, || write_volatile(a as *mut u8, 1));
}

unsafe fn segv_null_default_kills() {
    assert_faults(|| {
        read_volatile(4 as *const u8);
    });
    // Ignoring a fault does not help: the kernel kills anyway.
    let p = child(|| {
        libc::signal(libc::SIGSEGV, libc::SIG_IGN);
        read_volatile(4 as *const u8);
        0
    });
    expect_killed(p, libc::SIGSEGV);
}

unsafe fn non_canonical() {
    let p = child(|| {
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        read_volatile(0x8000_0000_0000_0000u64 as *const u8);
        0
    });
    expect_killed(p, libc::SIGSEGV);
    assert_faults(|| {
        read_volatile(0x7fff_ffff_f000u64 as *const u8);
    });
}

unsafe fn many_mappings() {
    // Neighbours with different protection cannot merge.
    let n = 2000;
    let p = anon(n * PAGE);
    for i in (0..n).step_by(2) {
        ok!(libc::mprotect(p.add(i * PAGE).cast(), PAGE, libc::PROT_READ));
    }
    for i in (1..n).step_by(2) {
        *p.add(i * PAGE) = i as u8;
    }
    for i in 0..n {
        assert_eq!(read_volatile(p.add(i * PAGE)), if i % 2 == 1 { i as u8 } else { 0 });
    }
    ok!(libc::munmap(p.cast(), n * PAGE));
}

unsafe fn sparse_touch() {
    // 8 GiB of address space, 64 pages of it used.
    let len = 8usize << 30;
    let p = map(len, RW, ANON | libc::MAP_NORESERVE);
    for i in 0..64 {
        *p.add(i * (len / 64)) = i as u8 + 1;
    }
    for i in 0..64 {
        assert_eq!(*p.add(i * (len / 64)), i as u8 + 1);
    }
    ok!(libc::munmap(p.cast(), len));
}

unsafe fn mincore_mapped() {
    let p = anon(2 * PAGE);
    *p = 1;
    let mut v = [0u8; 2];
    ok!(libc::mincore(p.cast(), 2 * PAGE, v.as_mut_ptr()));
    assert_eq!(v[0] & 1, 1);
    ok!(libc::munmap(p.cast(), 2 * PAGE));
    fails!(libc::mincore(p.cast(), PAGE, v.as_mut_ptr()), ENOMEM);
}

unsafe fn shared_anon_over_fork() {
    let p = map(PAGE, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    let k = child(|| {
        write_volatile(p, 99);
        0
    });
    expect_exit(k, 0);
    assert_eq!(read_volatile(p), 99);
}

unsafe fn exec_of_anonymous_code() {
    let p = anon(PAGE);
    // mov eax, 42; ret
    p.copy_from_nonoverlapping([0xb8u8, 42, 0, 0, 0, 0xc3].as_ptr(), 6);
    ok!(libc::mprotect(p.cast(), PAGE, libc::PROT_READ | libc::PROT_EXEC));
    let f: extern "C" fn() -> i32 = std::mem::transmute(p);
    assert_eq!(f(), 42);
    ok!(libc::mprotect(p.cast(), PAGE, RW));
    *p.add(1) = 43;
    ok!(libc::mprotect(p.cast(), PAGE, libc::PROT_READ | libc::PROT_EXEC));
    assert_eq!(f(), 43);
}

unsafe fn stack_grows() {
    fn deep(n: u32) -> u32 {
        let a = std::hint::black_box([n; 256]);
        if n == 0 { a[0] } else { deep(n - 1) + a[255] - n }
    }
    // About 4 MiB of the main thread's 8.
    assert_eq!(deep(3500), 0);
}

unsafe fn guard_page() {
    let p = anon(3 * PAGE);
    ok!(libc::mprotect(p.add(PAGE).cast(), PAGE, libc::PROT_NONE));
    expect_fault(libc::SIGSEGV, 2, p as usize + PAGE, || write_volatile(p.add(PAGE), 1));
    *p.add(2 * PAGE) = 1;
}

unsafe fn mlock_ok() {
    let p = anon(PAGE);
    ok!(libc::mlock(p.cast(), PAGE));
    ok!(libc::munlock(p.cast(), PAGE));
}

unsafe fn prot_none_reserve_huge() {
    // What Go, the JVM and sanitizers do: reserve much, commit a little.
    let len = 64usize << 30;
    let p = map(len, libc::PROT_NONE, ANON | libc::MAP_NORESERVE);
    ok!(libc::mprotect(p.add(len / 2).cast(), 16 * PAGE, RW));
    *p.add(len / 2) = 1;
    ok!(libc::munmap(p.cast(), len));
}

unsafe fn msync_anon() {
    let p = anon(PAGE);
    ok!(libc::msync(p.cast(), PAGE, libc::MS_SYNC));
    fails!(libc::msync(p.cast(), PAGE, libc::MS_SYNC | libc::MS_ASYNC), EINVAL);
    ok!(libc::munmap(p.cast(), PAGE));
    fails!(libc::msync(p.cast(), PAGE, libc::MS_SYNC), ENOMEM);
}

unsafe fn large_fill() {
    let len = 32 << 20;
    let p = anon(len).cast::<u64>();
    for i in 0..len / 8 {
        *p.add(i) = i as u64 * 0x9e37_79b9;
    }
    for i in 0..len / 8 {
        assert_eq!(*p.add(i), i as u64 * 0x9e37_79b9);
    }
    ok!(libc::munmap(p.cast(), len));
}
