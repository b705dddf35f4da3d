//! Clocks, sleeps and timers.
use crate::check::*;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

tests![
    clocks_advance,
    vdso_agrees_with_syscall,
    clock_errors,
    clock_getres_sane,
    nanosleep_length,
    nanosleep_errors,
    clock_nanosleep_absolute,
    cpu_clocks,
    gettimeofday_time,
    timerfd_oneshot,
    timerfd_interval,
    timerfd_absolute,
    timerfd_settime_resets,
    timerfd_errors,
    itimer_real,
    itimer_virtual,
    itimer_prof_or_not,
    alarm_replaces,
    posix_timer,
    posix_timer_thread_id,
    times_and_rusage,
    short_sleeps_are_short,
    many_sleepers,
    itimer_survives_exec,
];

unsafe fn now(clock: i32) -> i64 {
    let mut t: libc::timespec = std::mem::zeroed();
    ok!(libc::clock_gettime(clock, &mut t));
    assert!((0..1_000_000_000).contains(&t.tv_nsec));
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

unsafe fn now_raw(clock: i32) -> i64 {
    let mut t: libc::timespec = std::mem::zeroed();
    ok!(libc::syscall(libc::SYS_clock_gettime, clock, &mut t));
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

const CLOCKS: [i32; 6] = [
    libc::CLOCK_REALTIME,
    libc::CLOCK_MONOTONIC,
    libc::CLOCK_MONOTONIC_RAW,
    libc::CLOCK_BOOTTIME,
    libc::CLOCK_REALTIME_COARSE,
    libc::CLOCK_MONOTONIC_COARSE,
];

unsafe fn clocks_advance() {
    for c in CLOCKS {
        let a = now(c);
        sleep_ms(15);
        let d = now(c) - a;
        assert!((5_000_000..3_000_000_000).contains(&d), "clock {c}: {d} ns over 15 ms");
    }
    let mut last = now(libc::CLOCK_MONOTONIC);
    for _ in 0..10_000 {
        let t = now(libc::CLOCK_MONOTONIC);
        assert!(t >= last);
        last = t;
    }
}

unsafe fn vdso_agrees_with_syscall() {
    for c in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME] {
        let (a, b, d) = (now(c), now_raw(c), now(c));
        assert!(a <= b + 1_000_000 && b <= d + 1_000_000 && d - a < 1_000_000_000, "clock {c}: {a} {b} {d}");
    }
}

unsafe fn clock_errors() {
    let mut t: libc::timespec = std::mem::zeroed();
    fails!(libc::clock_gettime(99, &mut t), EINVAL);
    t.tv_nsec = 2_000_000_000;
    fails!(libc::clock_settime(libc::CLOCK_REALTIME, &t), EINVAL);
    t.tv_nsec = 0;
    fails!(libc::clock_settime(libc::CLOCK_MONOTONIC, &t), EINVAL);
}

unsafe fn clock_getres_sane() {
    let mut t: libc::timespec = std::mem::zeroed();
    ok!(libc::clock_getres(libc::CLOCK_MONOTONIC, &mut t));
    assert!(t.tv_sec == 0 && t.tv_nsec >= 1 && t.tv_nsec <= 10_000_000);
    ok!(libc::clock_getres(libc::CLOCK_REALTIME, null_mut()));
}

unsafe fn nanosleep_length() {
    for ms in [1, 10, 50] {
        let a = now(libc::CLOCK_MONOTONIC);
        sleep_ms(ms);
        let d = now(libc::CLOCK_MONOTONIC) - a;
        assert!(d >= ms * 1_000_000 && d < ms * 1_000_000 + 1_000_000_000, "{ms} ms took {d} ns");
    }
}

unsafe fn short_sleeps_are_short() {
    // No tick: 100 us must not become 4 ms. The best of some counts (other load on this machine).
    let best = (0..20)
        .map(|_| {
            let a = now(libc::CLOCK_MONOTONIC);
            let t = libc::timespec { tv_sec: 0, tv_nsec: 100_000 };
            libc::nanosleep(&t, null_mut());
            now(libc::CLOCK_MONOTONIC) - a
        })
        .min()
        .unwrap();
    assert!((100_000..3_000_000).contains(&best), "{best} ns");
}

unsafe fn nanosleep_errors() {
    let t = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
    fails!(libc::nanosleep(&t, null_mut()), EINVAL);
    let t = libc::timespec { tv_sec: -1, tv_nsec: 0 };
    fails!(libc::nanosleep(&t, null_mut()), EINVAL);
    let t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    ok!(libc::nanosleep(&t, null_mut()));
    assert_eq!(libc::clock_nanosleep(99, 0, &t, null_mut()), libc::EINVAL);
}

unsafe fn clock_nanosleep_absolute() {
    for c in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME] {
        let end = now(c) + 40_000_000;
        let t = libc::timespec { tv_sec: end / 1_000_000_000, tv_nsec: end % 1_000_000_000 };
        assert_eq!(libc::clock_nanosleep(c, libc::TIMER_ABSTIME, &t, null_mut()), 0);
        assert!(now(c) >= end);
        let a = now(libc::CLOCK_MONOTONIC);
        assert_eq!(libc::clock_nanosleep(c, libc::TIMER_ABSTIME, &t, null_mut()), 0, "in the past: at once");
        assert!(now(libc::CLOCK_MONOTONIC) - a < 1_000_000_000);
    }
}

fn burn(ms: i64) {
    let end = now_ms() + ms;
    while now_ms() < end {
        std::hint::spin_loop();
    }
}

unsafe fn cpu_clocks() {
    let (p0, t0) = (now(libc::CLOCK_PROCESS_CPUTIME_ID), now(libc::CLOCK_THREAD_CPUTIME_ID));
    burn(100);
    let (p1, t1) = (now(libc::CLOCK_PROCESS_CPUTIME_ID), now(libc::CLOCK_THREAD_CPUTIME_ID));
    // Other load may take most of the 100 ms.
    assert!(p1 - p0 > 5_000_000 && p1 - p0 < 1_000_000_000, "process {} ns", p1 - p0);
    assert!(t1 - t0 > 5_000_000, "thread {} ns", t1 - t0);
    sleep_ms(100);
    assert!(now(libc::CLOCK_THREAD_CPUTIME_ID) - t1 < 60_000_000, "sleeping costs nothing");
}

unsafe fn gettimeofday_time() {
    let mut tv: libc::timeval = std::mem::zeroed();
    ok!(libc::gettimeofday(&mut tv, null_mut()));
    let t = libc::time(null_mut());
    assert!((tv.tv_sec - t).abs() <= 1 && (0..1_000_000).contains(&tv.tv_usec));
    assert!(t > 1_600_000_000, "the wall clock is set");
    let mut tv2: libc::timeval = std::mem::zeroed();
    ok!(libc::syscall(libc::SYS_gettimeofday, &mut tv2, 0usize));
    assert!((tv2.tv_sec - tv.tv_sec).abs() <= 1);
}

fn spec(value_ms: i64, interval_ms: i64) -> libc::itimerspec {
    let ts = |ms: i64| libc::timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
    libc::itimerspec { it_interval: ts(interval_ms), it_value: ts(value_ms) }
}

unsafe fn expirations(f: i32) -> u64 {
    u64::from_ne_bytes(get(f, 8).try_into().unwrap())
}

unsafe fn timerfd_oneshot() {
    let f = ok!(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC));
    let mut b = [0u8; 8];
    fails!(libc::read(f, b.as_mut_ptr().cast(), 8), EAGAIN);
    ok!(libc::timerfd_settime(f, 0, &spec(40, 0), null_mut()));
    let mut cur: libc::itimerspec = std::mem::zeroed();
    ok!(libc::timerfd_gettime(f, &mut cur));
    assert!(cur.it_value.tv_sec == 0 && cur.it_value.tv_nsec > 0 && cur.it_value.tv_nsec <= 40_000_000);
    let mut p = libc::pollfd { fd: f, events: libc::POLLIN, revents: 0 };
    let a = now_ms();
    assert_eq!(ok!(libc::poll(&mut p, 1, 5000)), 1);
    assert!(now_ms() - a >= 30);
    assert_eq!(expirations(f), 1);
    fails!(libc::read(f, b.as_mut_ptr().cast(), 8), EAGAIN);
    ok!(libc::timerfd_gettime(f, &mut cur));
    assert_eq!((cur.it_value.tv_sec, cur.it_value.tv_nsec), (0, 0));
}

unsafe fn timerfd_interval() {
    let f = ok!(libc::timerfd_create(libc::CLOCK_MONOTONIC, 0));
    ok!(libc::timerfd_settime(f, 0, &spec(10, 10), null_mut()));
    assert!(expirations(f) >= 1, "a blocking read waits");
    sleep_ms(60);
    assert!(expirations(f) >= 4, "missed ones are counted");
    ok!(libc::timerfd_settime(f, 0, &spec(0, 0), null_mut()));
    let mut p = libc::pollfd { fd: f, events: libc::POLLIN, revents: 0 };
    assert_eq!(ok!(libc::poll(&mut p, 1, 30)), 0, "disarmed");
}

unsafe fn timerfd_absolute() {
    let f = ok!(libc::timerfd_create(libc::CLOCK_REALTIME, 0));
    let end = now(libc::CLOCK_REALTIME) + 30_000_000;
    let mut s = spec(0, 0);
    s.it_value = libc::timespec { tv_sec: end / 1_000_000_000, tv_nsec: end % 1_000_000_000 };
    ok!(libc::timerfd_settime(f, libc::TFD_TIMER_ABSTIME, &s, null_mut()));
    assert_eq!(expirations(f), 1);
    assert!(now(libc::CLOCK_REALTIME) >= end);
}

unsafe fn timerfd_settime_resets() {
    let f = ok!(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK));
    ok!(libc::timerfd_settime(f, 0, &spec(5, 0), null_mut()));
    sleep_ms(20);
    let mut old: libc::itimerspec = std::mem::zeroed();
    ok!(libc::timerfd_settime(f, 0, &spec(10_000, 3), &mut old));
    let mut b = [0u8; 8];
    fails!(libc::read(f, b.as_mut_ptr().cast(), 8), EAGAIN);
}

unsafe fn timerfd_errors() {
    fails!(libc::timerfd_create(99, 0), EINVAL);
    fails!(libc::timerfd_create(1, 0x77), EINVAL);
    let f = ok!(libc::timerfd_create(libc::CLOCK_MONOTONIC, 0));
    let mut s = spec(0, 0);
    s.it_value.tv_nsec = -1;
    fails!(libc::timerfd_settime(f, 0, &s, null_mut()), EINVAL);
    fails!(libc::timerfd_settime(0, 0, &spec(1, 0), null_mut()), EINVAL);
    fails!(libc::timerfd_settime(999, 0, &spec(1, 0), null_mut()), EBADF);
    let mut b = 0u32;
    fails!(libc::read(f, (&raw mut b).cast(), 4), EINVAL);
}

static COUNT: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(_: i32) {
    COUNT.fetch_add(1, SeqCst);
}

unsafe fn itimer(which: i32, ms: i64) -> i32 {
    let tv = libc::timeval { tv_sec: ms / 1000, tv_usec: ms % 1000 * 1000 };
    libc::setitimer(which as _, &libc::itimerval { it_interval: tv, it_value: tv }, null_mut())
}

unsafe fn itimer_real() {
    handle(libc::SIGALRM, count as *const () as usize, libc::SA_RESTART);
    ok!(itimer(0, 10));
    let mut cur: libc::itimerval = std::mem::zeroed();
    ok!(libc::getitimer(libc::ITIMER_REAL, &mut cur));
    assert_eq!(cur.it_interval.tv_usec, 10_000);
    let end = now_ms() + 5000;
    while COUNT.load(SeqCst) < 5 && now_ms() < end {
        sleep_ms(100);
    }
    assert!(COUNT.load(SeqCst) >= 5);
    ok!(itimer(0, 0));
    let n = COUNT.load(SeqCst);
    sleep_ms(50);
    assert_eq!(COUNT.load(SeqCst), n);
    // Not inherited.
    ok!(itimer(0, 10_000));
    expect_exit(
        child(|| {
            let mut cur: libc::itimerval = std::mem::zeroed();
            ok!(libc::getitimer(libc::ITIMER_REAL, &mut cur));
            i32::from(cur.it_value.tv_sec != 0)
        }),
        0,
    );
}

unsafe fn itimer_virtual() {
    handle(libc::SIGVTALRM, count as *const () as usize, 0);
    if itimer(1, 10) < 0 {
        skip("ITIMER_VIRTUAL is not there");
    }
    let end = now_ms() + 5000;
    while COUNT.load(SeqCst) < 2 && now_ms() < end {
        std::hint::spin_loop();
    }
    assert!(COUNT.load(SeqCst) >= 2);
}

unsafe fn itimer_prof_or_not() {
    handle(libc::SIGPROF, count as *const () as usize, 0);
    if itimer(2, 10) < 0 {
        skip("ITIMER_PROF is not there");
    }
    let end = now_ms() + 5000;
    while COUNT.load(SeqCst) < 2 && now_ms() < end {
        std::hint::spin_loop();
    }
    assert!(COUNT.load(SeqCst) >= 2);
}

unsafe fn alarm_replaces() {
    assert_eq!(libc::alarm(100), 0);
    assert!((99..=100).contains(&libc::alarm(50)));
    assert!((49..=50).contains(&libc::alarm(0)));
    assert_eq!(libc::alarm(0), 0);
    let p = child(|| {
        ok!(itimer(0, 20));
        sleep_ms(10_000);
        0
    });
    expect_killed(p, libc::SIGALRM);
}

unsafe fn posix_timer() {
    handle(libc::SIGUSR1, count as *const () as usize, libc::SA_RESTART);
    let mut ev: libc::sigevent = std::mem::zeroed();
    ev.sigev_notify = libc::SIGEV_SIGNAL;
    ev.sigev_signo = libc::SIGUSR1;
    let mut id: libc::timer_t = null_mut();
    if libc::timer_create(libc::CLOCK_MONOTONIC, &mut ev, &mut id) < 0 {
        assert!([libc::ENOSYS, libc::EINVAL].contains(&errno()));
        skip("timer_create is not there");
    }
    ok!(libc::timer_settime(id, 0, &spec(10, 10), null_mut()));
    let end = now_ms() + 5000;
    while COUNT.load(SeqCst) < 3 && now_ms() < end {
        sleep_ms(5);
    }
    assert!(COUNT.load(SeqCst) >= 3);
    ok!(libc::timer_delete(id));
    fails!(libc::syscall(libc::SYS_timer_delete, 12345), EINVAL);
}

unsafe fn posix_timer_thread_id() {
    handle(libc::SIGUSR1, count as *const () as usize, libc::SA_RESTART);
    let mut ev: libc::sigevent = std::mem::zeroed();
    ev.sigev_notify = libc::SIGEV_THREAD_ID;
    ev.sigev_signo = libc::SIGUSR1;
    ev.sigev_notify_thread_id = libc::syscall(libc::SYS_gettid) as i32;
    let mut id = 0i32;
    if libc::syscall(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, &mut ev, &mut id) < 0 {
        skip("timer_create is not there");
    }
    ok!(libc::syscall(libc::SYS_timer_settime, id, 0, &spec(10, 0), 0usize));
    let end = now_ms() + 5000;
    while COUNT.load(SeqCst) < 1 && now_ms() < end {
        sleep_ms(5);
    }
    assert_eq!(COUNT.load(SeqCst), 1);
}

unsafe fn times_and_rusage() {
    let mut t: libc::tms = std::mem::zeroed();
    let a = ok!(libc::times(&mut t));
    expect_exit(
        child(|| {
            burn(150);
            0
        }),
        0,
    );
    let b = ok!(libc::times(&mut t));
    assert!(b - a >= 10, "clock ticks of 10 ms");
    let mut r: libc::rusage = std::mem::zeroed();
    ok!(libc::getrusage(libc::RUSAGE_CHILDREN, &mut r));
    let us = (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1_000_000 + r.ru_utime.tv_usec + r.ru_stime.tv_usec;
    assert!(us > 5_000, "children: {us} us");
    ok!(libc::getrusage(libc::RUSAGE_SELF, &mut r));
    fails!(libc::syscall(libc::SYS_getrusage, 7, &mut r), EINVAL);
}

unsafe fn many_sleepers() {
    let ts: Vec<_> = (0..32)
        .map(|i| {
            std::thread::spawn(move || {
                let a = now_ms();
                sleep_ms(20 + i);
                now_ms() - a >= 19 + i
            })
        })
        .collect();
    assert!(ts.into_iter().all(|t| t.join().unwrap()));
}

unsafe fn itimer_survives_exec() {
    let m = crate::exec::me();
    let p = child(|| {
        ok!(itimer(0, 60));
        crate::exec::execv(&m, &["x", "helper", "sleep", "5000"])
    });
    expect_killed(p, libc::SIGALRM);
}
