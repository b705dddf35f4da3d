//! Readiness: poll, select, epoll (level, edge, one-shot, nested), eventfd.
use crate::check::*;
use std::ptr::{null, null_mut};

tests![
    poll_pipe,
    poll_timeout,
    poll_hup_err_nval,
    poll_negative_fd,
    poll_wakes,
    ppoll_mask,
    select_basic,
    select_errors,
    select_timeout_left,
    epoll_level,
    epoll_edge,
    epoll_oneshot,
    epoll_mod_del,
    epoll_errors,
    epoll_timeout,
    epoll_many,
    epoll_closed_fd_goes,
    epoll_dup_stays,
    epoll_nested,
    epoll_maxevents_round_robin,
    epoll_wakes_thread,
    epoll_edge_write,
    epoll_exclusive,
    epoll_pwait_mask,
    epoll_over_fork,
    eventfd_counts,
    eventfd_semaphore,
    eventfd_overflow,
    eventfd_blocks,
    epoll_eventfd_edge,
    regular_file_is_ready,
    epoll_regular_file_eperm,
];

unsafe fn poll1(fd: i32, events: i16, ms: i32) -> i16 {
    let mut p = libc::pollfd { fd, events, revents: 0 };
    let n = ok!(libc::poll(&mut p, 1, ms));
    assert_eq!(n, i32::from(p.revents != 0));
    p.revents
}

unsafe fn poll_pipe() {
    let (r, w) = pipe();
    assert_eq!(poll1(r, libc::POLLIN, 0), 0);
    assert_eq!(poll1(w, libc::POLLOUT, 0), libc::POLLOUT);
    put(w, b"x");
    assert_eq!(poll1(r, libc::POLLIN | libc::POLLOUT, 0), libc::POLLIN);
    ok!(libc::fcntl(w, libc::F_SETFL, libc::O_NONBLOCK));
    while libc::write(w, [0u8; 4096].as_ptr().cast(), 4096) > 0 {}
    assert_eq!(poll1(w, libc::POLLOUT, 0), 0, "a full pipe takes nothing");
}

unsafe fn poll_timeout() {
    let (r, _w) = pipe();
    let t0 = now_ms();
    assert_eq!(poll1(r, libc::POLLIN, 60), 0);
    assert!((59..2000).contains(&(now_ms() - t0)));
    let t0 = now_ms();
    assert_eq!(ok!(libc::poll(null_mut(), 0, 30)), 0);
    assert!(now_ms() - t0 >= 29);
}

unsafe fn poll_hup_err_nval() {
    let (r, w) = pipe();
    ok!(libc::close(w));
    assert_eq!(poll1(r, libc::POLLIN, 0), libc::POLLHUP);
    let (r, w) = pipe();
    ok!(libc::close(r));
    assert_eq!(poll1(w, libc::POLLOUT, 0) & libc::POLLERR, libc::POLLERR);
    assert_eq!(poll1(999, libc::POLLIN, 1000), libc::POLLNVAL);
}

unsafe fn poll_negative_fd() {
    assert_eq!(poll1(-1, libc::POLLIN, 5), 0, "ignored");
}

/// Writes to `w` after `ms` in a child.
unsafe fn later(ms: i64, w: i32) -> i32 {
    child(move || {
        sleep_ms(ms);
        put(w, b"x");
        0
    })
}

unsafe fn poll_wakes() {
    let (r, w) = pipe();
    let (r2, _w2) = pipe();
    let k = later(40, w);
    let mut p = [
        libc::pollfd { fd: r2, events: libc::POLLIN, revents: 9 },
        libc::pollfd { fd: r, events: libc::POLLIN, revents: 9 },
    ];
    assert_eq!(ok!(libc::poll(p.as_mut_ptr(), 2, 5000)), 1);
    assert_eq!((p[0].revents, p[1].revents), (0, libc::POLLIN));
    expect_exit(k, 0);
}

extern "C" fn nop(_: i32) {}

unsafe fn ppoll_mask() {
    handle(libc::SIGUSR1, nop as *const () as usize, libc::SA_RESTART);
    mask(libc::SIG_BLOCK, libc::SIGUSR1);
    ok!(libc::raise(libc::SIGUSR1));
    let s: libc::sigset_t = std::mem::zeroed();
    let ts = libc::timespec { tv_sec: 5, tv_nsec: 0 };
    fails!(libc::ppoll(null_mut(), 0, &ts, &s), EINTR);
    let ts = libc::timespec { tv_sec: 0, tv_nsec: -1 };
    fails!(libc::ppoll(null_mut(), 0, &ts, null()), EINVAL);
}

unsafe fn select_basic() {
    let (r, w) = pipe();
    let mut rs: libc::fd_set = std::mem::zeroed();
    let mut ws: libc::fd_set = std::mem::zeroed();
    libc::FD_SET(r, &mut rs);
    libc::FD_SET(w, &mut ws);
    assert_eq!(ok!(libc::select(w + 1, &mut rs, &mut ws, null_mut(), null_mut())), 1);
    assert!(!libc::FD_ISSET(r, &rs) && libc::FD_ISSET(w, &ws));
    put(w, b"x");
    libc::FD_SET(r, &mut rs);
    assert_eq!(ok!(libc::select(w + 1, &mut rs, &mut ws, null_mut(), null_mut())), 2);
}

unsafe fn select_errors() {
    let mut rs: libc::fd_set = std::mem::zeroed();
    libc::FD_SET(50, &mut rs);
    fails!(libc::select(51, &mut rs, null_mut(), null_mut(), null_mut()), EBADF);
    fails!(libc::select(-1, null_mut(), null_mut(), null_mut(), null_mut()), EINVAL);
    let mut tv = libc::timeval { tv_sec: -1, tv_usec: 0 };
    fails!(libc::select(0, null_mut(), null_mut(), null_mut(), &mut tv), EINVAL);
}

unsafe fn select_timeout_left() {
    let (r, w) = pipe();
    put(w, b"x");
    let mut rs: libc::fd_set = std::mem::zeroed();
    libc::FD_SET(r, &mut rs);
    let mut tv = libc::timeval { tv_sec: 9, tv_usec: 0 };
    assert_eq!(ok!(libc::select(r + 1, &mut rs, null_mut(), null_mut(), &mut tv)), 1);
    assert!((8..=9).contains(&tv.tv_sec), "Linux writes back what is left");
    let mut tv = libc::timeval { tv_sec: 0, tv_usec: 30_000 };
    assert_eq!(ok!(libc::select(0, null_mut(), null_mut(), null_mut(), &mut tv)), 0);
    assert_eq!((tv.tv_sec, tv.tv_usec), (0, 0));
}

pub unsafe fn ep() -> i32 {
    ok!(libc::epoll_create1(libc::EPOLL_CLOEXEC))
}

pub unsafe fn ctl(e: i32, op: i32, fd: i32, events: u32, data: u64) {
    let mut ev = libc::epoll_event { events, u64: data };
    ok!(libc::epoll_ctl(e, op, fd, &mut ev));
}

/// The events of one wait, as (events, data).
pub unsafe fn wait(e: i32, ms: i32) -> Vec<(u32, u64)> {
    let mut v: [libc::epoll_event; 32] = std::mem::zeroed();
    let n = ok!(libc::epoll_wait(e, v.as_mut_ptr(), 32, ms));
    v[..n as usize].iter().map(|x| (x.events, x.u64)).collect()
}

const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
const ET: u32 = libc::EPOLLET as u32;
const ADD: i32 = libc::EPOLL_CTL_ADD;

unsafe fn epoll_level() {
    let (r, w) = pipe();
    let e = ep();
    ctl(e, ADD, r, IN, 42);
    assert_eq!(wait(e, 0), []);
    put(w, b"xy");
    for _ in 0..3 {
        assert_eq!(wait(e, 100), [(IN, 42)], "as long as there is something");
    }
    get(r, 10);
    assert_eq!(wait(e, 0), []);
    ok!(libc::close(w));
    assert_eq!(wait(e, 0), [(libc::EPOLLHUP as u32, 42)]);
}

unsafe fn epoll_edge() {
    let (r, w) = pipe();
    let e = ep();
    ctl(e, ADD, r, IN | ET, 1);
    put(w, b"xy");
    assert_eq!(wait(e, 100), [(IN, 1)]);
    assert_eq!(wait(e, 0), [], "once");
    get(r, 1);
    assert_eq!(wait(e, 0), [], "a read is no news");
    put(w, b"z");
    assert_eq!(wait(e, 100), [(IN, 1)], "new data is");
    // What is there when it is added counts as news.
    let e2 = ep();
    ctl(e2, ADD, r, IN | ET, 2);
    assert_eq!(wait(e2, 0), [(IN, 2)]);
}

unsafe fn epoll_edge_write() {
    let (r, w) = pipe();
    ok!(libc::fcntl(w, libc::F_SETFL, libc::O_NONBLOCK));
    let e = ep();
    ctl(e, ADD, w, OUT | ET, 1);
    assert_eq!(wait(e, 0), [(OUT, 1)]);
    while libc::write(w, [0u8; 4096].as_ptr().cast(), 4096) > 0 {}
    assert_eq!(wait(e, 0), []);
    let mut all = 0;
    while all < 65536 {
        all += get(r, 65536).len();
    }
    assert_eq!(wait(e, 1000), [(OUT, 1)], "room again");
}

unsafe fn epoll_oneshot() {
    let (r, w) = pipe();
    let e = ep();
    ctl(e, ADD, r, IN | libc::EPOLLONESHOT as u32, 7);
    put(w, b"x");
    assert_eq!(wait(e, 100), [(IN, 7)]);
    put(w, b"x");
    assert_eq!(wait(e, 20), []);
    ctl(e, libc::EPOLL_CTL_MOD, r, IN | libc::EPOLLONESHOT as u32, 8);
    assert_eq!(wait(e, 100), [(IN, 8)]);
}

unsafe fn epoll_mod_del() {
    let (r, w) = pipe();
    let e = ep();
    ctl(e, ADD, w, OUT, 1);
    assert_eq!(wait(e, 0), [(OUT, 1)]);
    ctl(e, libc::EPOLL_CTL_MOD, w, IN, 2);
    assert_eq!(wait(e, 0), []);
    ctl(e, libc::EPOLL_CTL_MOD, w, OUT, 3);
    assert_eq!(wait(e, 0), [(OUT, 3)]);
    ok!(libc::epoll_ctl(e, libc::EPOLL_CTL_DEL, w, null_mut()));
    assert_eq!(wait(e, 0), []);
    ctl(e, ADD, r, IN, 4);
}

unsafe fn epoll_errors() {
    let (r, _w) = pipe();
    let e = ep();
    let mut ev = libc::epoll_event { events: IN, u64: 0 };
    ok!(libc::epoll_ctl(e, ADD, r, &mut ev));
    fails!(libc::epoll_ctl(e, ADD, r, &mut ev), EEXIST);
    fails!(libc::epoll_ctl(e, libc::EPOLL_CTL_MOD, 0x3fff, &mut ev), EBADF);
    fails!(libc::epoll_ctl(e, libc::EPOLL_CTL_DEL, _w, &mut ev), ENOENT);
    fails!(libc::epoll_ctl(e, ADD, e, &mut ev), EINVAL);
    fails!(libc::epoll_ctl(r, ADD, _w, &mut ev), EINVAL);
    fails!(libc::epoll_ctl(e, 9, _w, &mut ev), EINVAL);
    fails!(libc::epoll_wait(e, &mut ev, 0, 0), EINVAL);
    fails!(libc::epoll_wait(r, &mut ev, 1, 0), EINVAL);
    fails!(libc::epoll_create1(1), EINVAL);
    fails!(libc::syscall(libc::SYS_epoll_create, 0), EINVAL);
}

unsafe fn epoll_regular_file_eperm() {
    let e = ep();
    let f = open("a", libc::O_RDWR | libc::O_CREAT);
    let mut ev = libc::epoll_event { events: IN, u64: 0 };
    fails!(libc::epoll_ctl(e, ADD, f, &mut ev), EPERM);
}

unsafe fn regular_file_is_ready() {
    let f = open("a", libc::O_RDWR | libc::O_CREAT);
    assert_eq!(poll1(f, libc::POLLIN | libc::POLLOUT, 0), libc::POLLIN | libc::POLLOUT);
}

unsafe fn epoll_timeout() {
    let e = ep();
    let t0 = now_ms();
    assert_eq!(wait(e, 50), []);
    assert!((49..2000).contains(&(now_ms() - t0)));
}

unsafe fn epoll_many() {
    let e = ep();
    let ps: Vec<(i32, i32)> = (0..100).map(|_| pipe()).collect();
    for (i, (r, _)) in ps.iter().enumerate() {
        ctl(e, ADD, *r, IN, i as u64);
    }
    for i in [3, 50, 99] {
        put(ps[i].1, b"x");
    }
    let mut got: Vec<u64> = wait(e, 100).iter().map(|x| x.1).collect();
    got.sort_unstable();
    assert_eq!(got, [3, 50, 99]);
}

unsafe fn epoll_maxevents_round_robin() {
    let e = ep();
    let ps: Vec<(i32, i32)> = (0..6).map(|_| pipe()).collect();
    for (i, (r, w)) in ps.iter().enumerate() {
        ctl(e, ADD, *r, IN, i as u64);
        put(*w, b"x");
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..6 {
        let mut v: [libc::epoll_event; 2] = std::mem::zeroed();
        assert_eq!(ok!(libc::epoll_wait(e, v.as_mut_ptr(), 2, 100)), 2);
        seen.extend(v.iter().map(|x| x.u64));
    }
    assert_eq!(seen.len(), 6, "nobody starves behind those that are always ready");
}

unsafe fn epoll_closed_fd_goes() {
    let (r, w) = pipe();
    let e = ep();
    ctl(e, ADD, r, IN, 1);
    put(w, b"x");
    ok!(libc::close(r));
    assert_eq!(wait(e, 20), []);
}

unsafe fn epoll_dup_stays() {
    let (r, w) = pipe();
    let e = ep();
    ctl(e, ADD, r, IN, 1);
    let d = ok!(libc::dup(r));
    ok!(libc::close(r));
    put(w, b"x");
    assert_eq!(wait(e, 100), [(IN, 1)], "the open file counts, not the number");
    ok!(libc::close(d));
    assert_eq!(wait(e, 20), []);
}

unsafe fn epoll_nested() {
    let (r, w) = pipe();
    let (inner, outer) = (ep(), ep());
    ctl(inner, ADD, r, IN, 1);
    ctl(outer, ADD, inner, IN, 2);
    assert_eq!(wait(outer, 0), []);
    put(w, b"x");
    assert_eq!(wait(outer, 100), [(IN, 2)]);
    assert_eq!(poll1(inner, libc::POLLIN, 0), libc::POLLIN);
    let mut ev = libc::epoll_event { events: IN, u64: 0 };
    fails!(libc::epoll_ctl(inner, ADD, outer, &mut ev), ELOOP);
}

unsafe fn epoll_wakes_thread() {
    let (r, w) = pipe();
    let e = ep();
    let t = std::thread::spawn(move || wait(e, 5000));
    sleep_ms(30);
    // Added while the other one is asleep in the wait.
    ctl(e, ADD, r, IN, 5);
    put(w, b"x");
    assert_eq!(t.join().unwrap(), [(IN, 5)]);
}

unsafe fn epoll_exclusive() {
    let (r, w) = pipe();
    let e = ep();
    ctl(e, ADD, r, IN | libc::EPOLLEXCLUSIVE as u32, 1);
    put(w, b"x");
    assert_eq!(wait(e, 100), [(IN, 1)]);
    let mut ev = libc::epoll_event { events: IN, u64: 0 };
    fails!(libc::epoll_ctl(e, libc::EPOLL_CTL_MOD, r, &mut ev), EINVAL);
}

unsafe fn epoll_pwait_mask() {
    handle(libc::SIGUSR1, nop as *const () as usize, libc::SA_RESTART);
    mask(libc::SIG_BLOCK, libc::SIGUSR1);
    ok!(libc::raise(libc::SIGUSR1));
    let e = ep();
    let s: libc::sigset_t = std::mem::zeroed();
    let mut ev = libc::epoll_event { events: 0, u64: 0 };
    fails!(libc::epoll_pwait(e, &mut ev, 1, 5000, &s), EINTR);
}

unsafe fn epoll_over_fork() {
    let (r, w) = pipe();
    let e = ep();
    ctl(e, ADD, r, IN, 3);
    put(w, b"x");
    expect_exit(child(|| i32::from(wait(e, 100) != [(IN, 3)])), 0);
    assert_eq!(wait(e, 0), [(IN, 3)]);
}

unsafe fn ev_write(f: i32, v: u64) -> isize {
    libc::write(f, (&raw const v).cast(), 8)
}

unsafe fn ev_read(f: i32) -> u64 {
    u64::from_ne_bytes(get(f, 8).try_into().unwrap())
}

unsafe fn eventfd_counts() {
    let f = ok!(libc::eventfd(3, libc::EFD_NONBLOCK));
    assert_eq!(ok!(ev_write(f, 4)), 8);
    assert_eq!(ev_read(f), 7);
    let mut b = [0u8; 8];
    fails!(libc::read(f, b.as_mut_ptr().cast(), 8), EAGAIN);
    fails!(libc::read(f, b.as_mut_ptr().cast(), 7), EINVAL);
    fails!(libc::write(f, b.as_ptr().cast(), 4), EINVAL);
    fails!(libc::eventfd(0, 0x77), EINVAL);
}

unsafe fn eventfd_semaphore() {
    let f = ok!(libc::eventfd(2, libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK));
    assert_eq!((ev_read(f), ev_read(f)), (1, 1));
    let mut b = [0u8; 8];
    fails!(libc::read(f, b.as_mut_ptr().cast(), 8), EAGAIN);
}

unsafe fn eventfd_overflow() {
    let f = ok!(libc::eventfd(0, libc::EFD_NONBLOCK));
    ok!(ev_write(f, u64::MAX - 1));
    fails!(ev_write(f, 1), EAGAIN);
    fails!(ev_write(f, u64::MAX), EINVAL);
    assert_eq!(poll1(f, libc::POLLOUT | libc::POLLIN, 0), libc::POLLIN);
    assert_eq!(ev_read(f), u64::MAX - 1);
}

unsafe fn eventfd_blocks() {
    let f = ok!(libc::eventfd(0, 0));
    let t = std::thread::spawn(move || ev_read(f));
    sleep_ms(30);
    ok!(ev_write(f, 9));
    assert_eq!(t.join().unwrap(), 9);
}

unsafe fn epoll_eventfd_edge() {
    // What async runtimes use as their waker: each write wakes, without a read in between.
    let f = ok!(libc::eventfd(0, libc::EFD_NONBLOCK));
    let e = ep();
    ctl(e, ADD, f, IN | ET, 1);
    for _ in 0..5 {
        ok!(ev_write(f, 1));
        assert_eq!(wait(e, 1000), [(IN, 1)]);
        assert_eq!(wait(e, 0), []);
    }
}
