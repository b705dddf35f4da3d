//! futex(2): what every lock of every program rests on.
use crate::check::*;

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};

const PRIVATE: i32 = libc::FUTEX_PRIVATE_FLAG;

tests![
    wait_value_differs,
    wait_timeout,
    wait_bitset_absolute,
    wake_nobody,
    wake_one_of_many,
    wake_count,
    bitset_selects,
    requeue_moves,
    cmp_requeue_differs,
    wake_op,
    shared_over_fork,
    shared_file_two_mappings,
    private_is_not_shared_key,
    errors,
    cow_private_after_fork,
    wait_zero_timeout,
    realtime_clock,
    waitv_or_enosys,
    lost_wakeup_race,
];

unsafe fn futex(
    word: *const u32,
    op: i32,
    val: u32,
    t: *const libc::timespec,
    word2: *const u32,
    val3: u32,
) -> i64 {
    libc::syscall(libc::SYS_futex, word, op, val, t, word2, val3)
}

unsafe fn wake(word: *const u32, op: i32, n: u32) -> i64 {
    futex(word, op, n, std::ptr::null(), std::ptr::null(), 0)
}

unsafe fn wait_value_differs() {
    let w = AtomicU32::new(5);
    fails!(futex(w.as_ptr(), libc::FUTEX_WAIT | PRIVATE, 4, std::ptr::null(), std::ptr::null(), 0), EAGAIN);
}

unsafe fn wait_timeout() {
    let w = AtomicU32::new(5);
    let ts = libc::timespec { tv_sec: 0, tv_nsec: 60_000_000 };
    let t0 = now_ms();
    fails!(futex(w.as_ptr(), libc::FUTEX_WAIT | PRIVATE, 5, &ts, std::ptr::null(), 0), ETIMEDOUT);
    assert!((59..2000).contains(&(now_ms() - t0)), "{} ms", now_ms() - t0);
}

unsafe fn wait_zero_timeout() {
    let w = AtomicU32::new(5);
    let ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    fails!(futex(w.as_ptr(), libc::FUTEX_WAIT, 5, &ts, std::ptr::null(), 0), ETIMEDOUT);
}

unsafe fn wait_bitset_absolute() {
    let w = AtomicU32::new(5);
    let mut ts: libc::timespec = std::mem::zeroed();
    ok!(libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts));
    let past = ts;
    ts.tv_nsec += 50_000_000;
    if ts.tv_nsec >= 1_000_000_000 {
        ts.tv_sec += 1;
        ts.tv_nsec -= 1_000_000_000;
    }
    let t0 = now_ms();
    fails!(futex(w.as_ptr(), libc::FUTEX_WAIT_BITSET | PRIVATE, 5, &ts, std::ptr::null(), !0), ETIMEDOUT);
    assert!(now_ms() - t0 >= 48);
    fails!(futex(w.as_ptr(), libc::FUTEX_WAIT_BITSET | PRIVATE, 5, &past, std::ptr::null(), !0), ETIMEDOUT);
}

unsafe fn realtime_clock() {
    let w = AtomicU32::new(5);
    let mut ts: libc::timespec = std::mem::zeroed();
    ok!(libc::clock_gettime(libc::CLOCK_REALTIME, &mut ts));
    let op = libc::FUTEX_WAIT_BITSET | PRIVATE | libc::FUTEX_CLOCK_REALTIME;
    fails!(futex(w.as_ptr(), op, 5, &ts, std::ptr::null(), !0), ETIMEDOUT);
}

unsafe fn wake_nobody() {
    let w = AtomicU32::new(0);
    assert_eq!(wake(w.as_ptr(), libc::FUTEX_WAKE | PRIVATE, 1), 0);
}

/// `n` threads that wait on `word` with `bits`; each adds one to `woken` when it goes on.
unsafe fn sleepers(n: usize, word: &'static AtomicU32, woken: &'static AtomicI32, bits: u32) {
    for _ in 0..n {
        std::thread::spawn(move || {
            let r = futex(
                word.as_ptr(),
                libc::FUTEX_WAIT_BITSET | PRIVATE,
                0,
                std::ptr::null(),
                std::ptr::null(),
                bits,
            );
            if r == 0 {
                woken.fetch_add(1, SeqCst);
            }
        });
    }
    sleep_ms(60);
}

fn until(woken: &AtomicI32, n: i32) {
    let end = now_ms() + 5000;
    while woken.load(SeqCst) < n && now_ms() < end {
        sleep_ms(1);
    }
    sleep_ms(20);
    assert_eq!(woken.load(SeqCst), n);
}

unsafe fn wake_one_of_many() {
    static W: AtomicU32 = AtomicU32::new(0);
    static N: AtomicI32 = AtomicI32::new(0);
    sleepers(4, &W, &N, !0);
    for i in 1..=4 {
        assert_eq!(wake(W.as_ptr(), libc::FUTEX_WAKE | PRIVATE, 1), 1);
        until(&N, i);
    }
    assert_eq!(wake(W.as_ptr(), libc::FUTEX_WAKE | PRIVATE, 1), 0);
}

unsafe fn wake_count() {
    static W: AtomicU32 = AtomicU32::new(0);
    static N: AtomicI32 = AtomicI32::new(0);
    sleepers(5, &W, &N, !0);
    assert_eq!(wake(W.as_ptr(), libc::FUTEX_WAKE | PRIVATE, 3), 3);
    until(&N, 3);
    assert_eq!(wake(W.as_ptr(), libc::FUTEX_WAKE | PRIVATE, i32::MAX as u32), 2);
    until(&N, 5);
}

unsafe fn bitset_selects() {
    static W: AtomicU32 = AtomicU32::new(0);
    static A: AtomicI32 = AtomicI32::new(0);
    static B: AtomicI32 = AtomicI32::new(0);
    sleepers(2, &W, &A, 1);
    sleepers(2, &W, &B, 2);
    let by = |bits| {
        futex(W.as_ptr(), libc::FUTEX_WAKE_BITSET | PRIVATE, 100, std::ptr::null(), std::ptr::null(), bits)
    };
    assert_eq!(by(4), 0);
    assert_eq!(by(2), 2);
    until(&B, 2);
    until(&A, 0);
    assert_eq!(by(3), 2);
    until(&A, 2);
    fails!(by(0), EINVAL);
}

unsafe fn requeue_moves() {
    static W: AtomicU32 = AtomicU32::new(0);
    static V: AtomicU32 = AtomicU32::new(0);
    static N: AtomicI32 = AtomicI32::new(0);
    sleepers(5, &W, &N, !0);
    // Wake one, move the rest.
    let r = futex(W.as_ptr(), libc::FUTEX_CMP_REQUEUE | PRIVATE, 1, 100 as *const _, V.as_ptr(), 0);
    assert_eq!(r, 5);
    until(&N, 1);
    assert_eq!(wake(W.as_ptr(), libc::FUTEX_WAKE | PRIVATE, 100), 0);
    assert_eq!(wake(V.as_ptr(), libc::FUTEX_WAKE | PRIVATE, 100), 4);
    until(&N, 5);
}

unsafe fn cmp_requeue_differs() {
    let (w, v) = (AtomicU32::new(1), AtomicU32::new(0));
    fails!(
        futex(w.as_ptr(), libc::FUTEX_CMP_REQUEUE | PRIVATE, 1, std::ptr::dangling(), v.as_ptr(), 0),
        EAGAIN
    );
}

unsafe fn wake_op() {
    static W: AtomicU32 = AtomicU32::new(0);
    static V: AtomicU32 = AtomicU32::new(0);
    static N: AtomicI32 = AtomicI32::new(0);
    static M: AtomicI32 = AtomicI32::new(0);
    sleepers(1, &W, &N, !0);
    sleepers(1, &V, &M, !0);
    V.store(3, SeqCst);
    // *V += 2; wake W; wake V if it was 3.
    let op = (1 << 28) | (2 << 12) | 3;
    let r = futex(W.as_ptr(), libc::FUTEX_WAKE_OP | PRIVATE, 1, std::ptr::dangling(), V.as_ptr(), op);
    if r == -1 && errno() == libc::ENOSYS {
        skip("FUTEX_WAKE_OP is not there");
    }
    assert_eq!((r, V.load(SeqCst)), (2, 5));
    until(&N, 1);
    until(&M, 1);
}

unsafe fn shared_over_fork() {
    let m =
        map(4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS).cast::<u32>();
    let p = child(|| {
        let ts = libc::timespec { tv_sec: 5, tv_nsec: 0 };
        i32::from(futex(m, libc::FUTEX_WAIT, 0, &ts, std::ptr::null(), 0) != 0)
    });
    let end = now_ms() + 4000;
    while wake(m, libc::FUTEX_WAKE, 1) != 1 && now_ms() < end {
        sleep_ms(5);
    }
    expect_exit(p, 0);
}

unsafe fn shared_file_two_mappings() {
    let f = open("shared", libc::O_RDWR | libc::O_CREAT);
    put(f, &[0; 4096]);
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let mapit = || libc::mmap(std::ptr::null_mut(), 4096, rw, libc::MAP_SHARED, f, 0);
    let a = mapit();
    if a == libc::MAP_FAILED {
        skip("no shared writable file mappings");
    }
    let b = ok!(mapit()) as usize;
    assert_ne!(a as usize, b);
    let t = std::thread::spawn(move || {
        let ts = libc::timespec { tv_sec: 5, tv_nsec: 0 };
        futex((b + 64) as *const u32, libc::FUTEX_WAIT, 0, &ts, std::ptr::null(), 0)
    });
    let end = now_ms() + 4000;
    while wake(a.cast::<u32>().add(16), libc::FUTEX_WAKE, 1) != 1 && now_ms() < end {
        sleep_ms(5);
    }
    assert_eq!(t.join().unwrap(), 0);
}

unsafe fn private_is_not_shared_key() {
    // Same address in parent and child after fork: private memory, two different words.
    let m = anon(4096).cast::<u32>();
    let p = child(|| {
        let ts = libc::timespec { tv_sec: 0, tv_nsec: 120_000_000 };
        let r = futex(m, libc::FUTEX_WAIT, 0, &ts, std::ptr::null(), 0);
        i32::from(!(r == -1 && errno() == libc::ETIMEDOUT))
    });
    sleep_ms(40);
    assert_eq!(wake(m, libc::FUTEX_WAKE, 1), 0);
    expect_exit(p, 0);
}

unsafe fn cow_private_after_fork() {
    // A waiter sleeps while the page under its word is copied: it must still be found.
    static W: AtomicU32 = AtomicU32::new(0);
    static N: AtomicI32 = AtomicI32::new(0);
    sleepers(1, &W, &N, !0);
    let p = child(|| {
        sleep_ms(20);
        0
    });
    W.store(1, SeqCst);
    assert_eq!(wake(W.as_ptr(), libc::FUTEX_WAKE | PRIVATE, 1), 1);
    until(&N, 1);
    expect_exit(p, 0);
}

unsafe fn errors() {
    let w = AtomicU32::new(0);
    let odd = (w.as_ptr() as usize + 1) as *const u32;
    fails!(wake(odd, libc::FUTEX_WAKE, 1), EINVAL);
    fails!(futex(8 as *const u32, libc::FUTEX_WAIT, 0, std::ptr::null(), std::ptr::null(), 0), EFAULT);
    fails!(futex(w.as_ptr(), 99, 0, std::ptr::null(), std::ptr::null(), 0), ENOSYS);
    let ts = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000_000 };
    fails!(futex(w.as_ptr(), libc::FUTEX_WAIT, 0, &ts, std::ptr::null(), 0), EINVAL);
    let ts = libc::timespec { tv_sec: -1, tv_nsec: 0 };
    fails!(futex(w.as_ptr(), libc::FUTEX_WAIT, 0, &ts, std::ptr::null(), 0), EINVAL);
    fails!(futex(w.as_ptr(), libc::FUTEX_WAIT, 0, 8 as *const _, std::ptr::null(), 0), EFAULT);
}

unsafe fn waitv_or_enosys() {
    let r = libc::syscall(libc::SYS_futex_waitv, 0usize, 0, 0, 0usize, 0);
    assert!(r == -1 && (errno() == libc::ENOSYS || errno() == libc::EINVAL), "errno {}", errno());
}

unsafe fn lost_wakeup_race() {
    // Two threads hand a word to and fro as fast as they can; a lost wake shows as a time limit.
    static W: AtomicU32 = AtomicU32::new(0);
    let side = |mine: u32, rounds: u32| {
        for _ in 0..rounds {
            while W.load(SeqCst) != mine {
                let ts = libc::timespec { tv_sec: 5, tv_nsec: 0 };
                let r = futex(W.as_ptr(), libc::FUTEX_WAIT | PRIVATE, 1 - mine, &ts, std::ptr::null(), 0);
                assert!(r == 0 || errno() != libc::ETIMEDOUT, "a wake was lost");
            }
            W.store(1 - mine, SeqCst);
            wake(W.as_ptr(), libc::FUTEX_WAKE | PRIVATE, 1);
        }
    };
    let t = std::thread::spawn(move || side(1, 5000));
    side(0, 5000);
    t.join().unwrap();
}
