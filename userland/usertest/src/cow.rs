//! Copy on write after fork: neither side sees the other's stores, in any order, over many generations.
use crate::check::*;
use std::ptr::{read_volatile, write_volatile};

const PAGE: usize = 4096;

tests![
    child_write_invisible,
    parent_write_invisible,
    kernel_write_breaks_cow,
    grandchildren,
    half_of_a_run,
    stack_and_heap,
    fork_after_mprotect,
    many_children_same_page,
    big_parent,
    read_only_stays_shared,
    write_while_child_reads,
    cow_in_threads,
    fork_then_munmap_parent,
    wipe_on_dontfork,
];

unsafe fn child_write_invisible() {
    let p = anon(8 * PAGE);
    p.write_bytes(1, 8 * PAGE);
    let k = child(|| {
        p.write_bytes(2, 8 * PAGE);
        i32::from(read_volatile(p.add(5 * PAGE)) != 2)
    });
    expect_exit(k, 0);
    for i in 0..8 * PAGE {
        assert_eq!(read_volatile(p.add(i)), 1);
    }
}

unsafe fn parent_write_invisible() {
    let p = anon(8 * PAGE);
    p.write_bytes(1, 8 * PAGE);
    let (r, w) = pipe();
    let k = child(|| {
        get(r, 1);
        i32::from((0..8 * PAGE).any(|i| read_volatile(p.add(i)) != 1))
    });
    p.write_bytes(2, 8 * PAGE);
    put(w, b"x");
    expect_exit(k, 0);
}

unsafe fn kernel_write_breaks_cow() {
    // The store is made by the kernel (read(2) into a shared page), not by the program.
    let p = anon(PAGE);
    *p = b'o';
    let (r, w) = pipe();
    put(w, b"n");
    let k = child(|| {
        ok!(libc::read(r, p.cast(), 1));
        i32::from(read_volatile(p) != b'n')
    });
    expect_exit(k, 0);
    assert_eq!(read_volatile(p), b'o');
}

unsafe fn grandchildren() {
    let p = anon(PAGE);
    *p = 0;
    unsafe fn down(p: *mut u8, n: u8) -> i32 {
        if n == 8 {
            return 0;
        }
        write_volatile(p, n);
        let s = wait_for(child(|| down(p, n + 1)));
        i32::from(s != 0 || read_volatile(p) != n)
    }
    assert_eq!(down(p, 1), 0);
}

unsafe fn half_of_a_run() {
    // Runs of many pages are one host mapping; a write to one page must not take its neighbours along.
    let n = 64;
    let p = anon(n * PAGE);
    for i in 0..n {
        *p.add(i * PAGE) = i as u8;
    }
    let k = child(|| {
        for i in (0..n).step_by(3) {
            write_volatile(p.add(i * PAGE), 200);
        }
        i32::from((0..n).any(|i| read_volatile(p.add(i * PAGE)) != if i % 3 == 0 { 200 } else { i as u8 }))
    });
    for i in (1..n).step_by(3) {
        write_volatile(p.add(i * PAGE), 100);
    }
    expect_exit(k, 0);
    for i in 0..n {
        assert_eq!(read_volatile(p.add(i * PAGE)), if i % 3 == 1 { 100 } else { i as u8 });
    }
}

unsafe fn stack_and_heap() {
    let mut on_stack = [1u8; 1000];
    let mut on_heap = vec![1u8; 100_000];
    let k = child(|| {
        on_stack.fill(2);
        on_heap.fill(2);
        0
    });
    expect_exit(k, 0);
    assert!(std::hint::black_box(&on_stack).iter().all(|b| *b == 1));
    assert!(std::hint::black_box(&on_heap).iter().all(|b| *b == 1));
}

unsafe fn fork_after_mprotect() {
    let p = anon(2 * PAGE);
    p.write_bytes(1, 2 * PAGE);
    ok!(libc::mprotect(p.cast(), PAGE, libc::PROT_READ));
    let k = child(|| {
        libc::mprotect(p.cast(), PAGE, libc::PROT_READ | libc::PROT_WRITE);
        p.write_bytes(2, 2 * PAGE);
        0
    });
    expect_exit(k, 0);
    assert_eq!((read_volatile(p), read_volatile(p.add(PAGE))), (1, 1));
}

unsafe fn many_children_same_page() {
    let p = anon(PAGE);
    *p = 1;
    let (r, w) = pipe();
    let ks: Vec<i32> = (0..20u8)
        .map(|i| {
            child(move || {
                get(r, 1);
                write_volatile(p, i);
                i32::from(read_volatile(p) != i)
            })
        })
        .collect();
    put(w, &[0; 20]);
    ks.into_iter().for_each(|k| expect_exit(k, 0));
    assert_eq!(read_volatile(p), 1);
}

unsafe fn big_parent() {
    let len = 48 << 20;
    let p = anon(len);
    for i in (0..len).step_by(PAGE) {
        *p.add(i) = (i / PAGE) as u8;
    }
    for round in 0..3 {
        let k = child(|| {
            for i in (0..len).step_by(PAGE * 16) {
                write_volatile(p.add(i), !((i / PAGE) as u8));
            }
            i32::from((0..len).step_by(PAGE).any(|i| {
                let was = (i / PAGE) as u8;
                read_volatile(p.add(i)) != if i % (PAGE * 16) == 0 { !was } else { was }
            }))
        });
        expect_exit(k, 0);
        for i in (0..len).step_by(PAGE) {
            assert_eq!(read_volatile(p.add(i)), (i / PAGE) as u8, "round {round}");
        }
    }
    ok!(libc::munmap(p.cast(), len));
}

unsafe fn read_only_stays_shared() {
    let p = anon(PAGE);
    *p = 4;
    ok!(libc::mprotect(p.cast(), PAGE, libc::PROT_READ));
    let k = child(|| i32::from(read_volatile(p) != 4));
    expect_exit(k, 0);
}

unsafe fn write_while_child_reads() {
    let p = anon(16 * PAGE);
    p.write_bytes(7, 16 * PAGE);
    let k = child(|| {
        for _ in 0..200 {
            if (0..16).any(|i| read_volatile(p.add(i * PAGE)) != 7) {
                return 1;
            }
        }
        0
    });
    for n in 0..200u32 {
        for i in 0..16 {
            write_volatile(p.add(i * PAGE), n as u8);
        }
    }
    expect_exit(k, 0);
}

unsafe fn cow_in_threads() {
    // Threads store while the process forks: each store is in exactly one of the two copies of history.
    use std::sync::atomic::{AtomicBool, Ordering};
    static STOP: AtomicBool = AtomicBool::new(false);
    let p = anon(4 * PAGE) as usize;
    let ts: Vec<_> = (0..4)
        .map(|i| {
            std::thread::spawn(move || {
                let a = (p + i * PAGE) as *mut u64;
                let mut n = 0u64;
                while !STOP.load(Ordering::Relaxed) {
                    n += 1;
                    write_volatile(a, n);
                    assert_eq!(read_volatile(a), n, "a store was lost in a fork");
                }
            })
        })
        .collect();
    for _ in 0..30 {
        let k = child(|| {
            let a: Vec<u64> = (0..4).map(|i| read_volatile((p + i * PAGE) as *const u64)).collect();
            let b: Vec<u64> = (0..4).map(|i| read_volatile((p + i * PAGE) as *const u64)).collect();
            i32::from(a != b)
        });
        expect_exit(k, 0);
    }
    STOP.store(true, Ordering::Relaxed);
    for t in ts {
        t.join().expect("thread");
    }
}

unsafe fn fork_then_munmap_parent() {
    let p = anon(4 * PAGE);
    p.write_bytes(3, 4 * PAGE);
    let (r, w) = pipe();
    let k = child(|| {
        get(r, 1);
        i32::from((0..4 * PAGE).any(|i| read_volatile(p.add(i)) != 3))
    });
    ok!(libc::munmap(p.cast(), 4 * PAGE));
    // New memory must not land in frames that the child still sees.
    let q = anon(64 * PAGE);
    q.write_bytes(9, 64 * PAGE);
    put(w, b"x");
    expect_exit(k, 0);
}

unsafe fn wipe_on_dontfork() {
    let p = anon(2 * PAGE);
    p.write_bytes(3, 2 * PAGE);
    if libc::madvise(p.cast(), PAGE, libc::MADV_DONTFORK) < 0 {
        skip("MADV_DONTFORK is not there");
    }
    ok!(libc::madvise(p.add(PAGE).cast(), PAGE, libc::MADV_WIPEONFORK));
    let k = child(|| {
        if read_volatile(p.add(PAGE)) != 0 {
            return 3;
        }
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        read_volatile(p);
        0
    });
    expect_killed(k, libc::SIGSEGV);
}
