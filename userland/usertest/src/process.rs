//! fork, vfork, clone, wait4, waitid, process groups and sessions.
use crate::check::*;
use std::ptr::null_mut;

tests![
    getpid_is_stable,
    fork_returns_twice,
    exit_status_8_bits,
    wait_status_signal,
    wait_any,
    wait_echild,
    wait_wnohang,
    waitid_exited,
    waitid_wnowait,
    wait_rusage,
    vfork_shares_memory,
    orphan_reparented,
    pgrp_wait,
    setsid_new_session,
    setpgid_rules,
    fork_many,
    fork_fd_offset_shared,
    wait_stopped_continued,
    kill_group,
    clone_parent_tid,
    exit_group_ends_all,
    ppid,
    fork_nested,
    sigchld_ignored_reaps,
    pidfd_basic,
];

unsafe fn getpid_is_stable() {
    let a = libc::getpid();
    assert!(a > 0);
    assert_eq!(a, libc::getpid());
    assert_eq!(a as i64, libc::syscall(libc::SYS_gettid), "the main thread's tid is the pid");
}

unsafe fn fork_returns_twice() {
    let me = libc::getpid();
    let p = child(|| i32::from(libc::getpid() == me || libc::getppid() != me));
    assert_ne!(p, me);
    expect_exit(p, 0);
}

unsafe fn exit_status_8_bits() {
    expect_exit(child(|| 0x1_2a), 0x2a);
}

unsafe fn wait_status_signal() {
    let p = child(|| {
        libc::raise(libc::SIGTERM);
        0
    });
    expect_killed(p, libc::SIGTERM);
}

unsafe fn wait_any() {
    let mut want: Vec<i32> = (0..5).map(|i| child(move || i)).collect();
    while !want.is_empty() {
        let mut s = 0;
        let p = ok!(libc::waitpid(-1, &mut s, 0));
        let i = want.iter().position(|x| *x == p).expect("a child of ours, once");
        want.remove(i);
    }
    fails!(libc::waitpid(-1, null_mut(), 0), ECHILD);
}

unsafe fn wait_echild() {
    fails!(libc::waitpid(-1, null_mut(), 0), ECHILD);
    fails!(libc::waitpid(1, null_mut(), libc::WNOHANG), ECHILD);
    fails!(libc::waitpid(-1, null_mut(), 0x4000), EINVAL);
}

unsafe fn wait_wnohang() {
    let (r, w) = pipe();
    let p = child(|| {
        libc::close(w);
        get(r, 1);
        3
    });
    assert_eq!(libc::waitpid(p, null_mut(), libc::WNOHANG), 0);
    ok!(libc::close(w));
    expect_exit(p, 3);
}

unsafe fn waitid_exited() {
    let p = child(|| 9);
    let mut si: libc::siginfo_t = std::mem::zeroed();
    ok!(libc::waitid(libc::P_PID, p as u32, &mut si, libc::WEXITED));
    assert_eq!((si.si_signo, si.si_code), (libc::SIGCHLD, libc::CLD_EXITED));
    assert_eq!((si.si_pid(), si.si_status()), (p, 9));
}

unsafe fn waitid_wnowait() {
    let p = child(|| {
        libc::raise(libc::SIGKILL);
        0
    });
    let mut si: libc::siginfo_t = std::mem::zeroed();
    ok!(libc::waitid(libc::P_ALL, 0, &mut si, libc::WEXITED | libc::WNOWAIT));
    assert_eq!((si.si_code, si.si_status()), (libc::CLD_KILLED, libc::SIGKILL));
    expect_killed(p, libc::SIGKILL);
    fails!(libc::waitid(libc::P_PID, p as u32, &mut si, libc::WEXITED), ECHILD);
}

unsafe fn wait_rusage() {
    let p = child(|| {
        let end = now_ms() + 30;
        while now_ms() < end {}
        0
    });
    let mut ru: libc::rusage = std::mem::zeroed();
    assert_eq!(ok!(libc::wait4(p, null_mut(), 0, &mut ru)), p);
    assert!(ru.ru_utime.tv_sec < 5 && ru.ru_stime.tv_sec < 5);
}

static mut SHARED: i32 = 0;

unsafe fn vfork_shares_memory() {
    // std cannot express vfork; the child only stores and leaves.
    let stack = anon(65536);
    extern "C" fn body(arg: *mut libc::c_void) -> i32 {
        unsafe { *arg.cast::<i32>() = 77 };
        5
    }
    let p = ok!(libc::clone(
        body,
        stack.add(65536).cast(),
        libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
        (&raw mut SHARED).cast(),
    ));
    assert_eq!(
        (&raw const SHARED).read_volatile(),
        77,
        "the child ran to its end before we went on, in our memory"
    );
    expect_exit(p, 5);
}

unsafe fn orphan_reparented() {
    let (r, w) = pipe();
    let p = child(|| {
        child(|| {
            let old = libc::getppid();
            put(w, b"a");
            let mut n = 0;
            while libc::getppid() == old && n < 500 {
                sleep_ms(5);
                n += 1;
            }
            put(w, if libc::getppid() == old { b"0" } else { b"1" });
            0
        });
        get(r, 1);
        0
    });
    expect_exit(p, 0);
    assert_eq!(get(r, 1), b"1", "an orphan gets a new parent");
}

unsafe fn pgrp_wait() {
    let p = child(|| {
        libc::setpgid(0, 0);
        4
    });
    libc::setpgid(p, p);
    let q = child(|| 6);
    let mut s = 0;
    assert_eq!(ok!(libc::waitpid(-p, &mut s, 0)), p);
    assert_eq!(libc::WEXITSTATUS(s), 4);
    assert_eq!(ok!(libc::waitpid(0, &mut s, 0)), q);
    assert_eq!(libc::WEXITSTATUS(s), 6);
}

unsafe fn setsid_new_session() {
    let p = child(|| {
        let me = libc::getpid();
        let s = libc::setsid();
        i32::from(!(s == me && libc::getsid(0) == me && libc::getpgrp() == me && libc::setsid() == -1))
    });
    expect_exit(p, 0);
}

unsafe fn setpgid_rules() {
    fails!(libc::setpgid(0, -1), EINVAL);
    fails!(libc::setpgid(0x3fff_fff0, 0), ESRCH);
    assert_eq!(libc::getpgid(0), libc::getpgrp());
    fails!(libc::getpgid(0x3fff_fff0), ESRCH);
    let p = child(|| {
        libc::setsid();
        // A session leader cannot move.
        i32::from(!(libc::setpgid(0, libc::getppid()) == -1 && errno() == libc::EPERM))
    });
    expect_exit(p, 0);
}

unsafe fn fork_many() {
    let ps: Vec<i32> = (0..60).map(|i| child(move || i)).collect();
    for (i, p) in ps.into_iter().enumerate() {
        expect_exit(p, i as i32);
    }
}

unsafe fn fork_fd_offset_shared() {
    let f = open("x", libc::O_RDWR | libc::O_CREAT);
    put(f, b"abcdef");
    ok!(libc::lseek(f, 0, libc::SEEK_SET));
    let p = child(|| i32::from(get(f, 3) != b"abc"));
    expect_exit(p, 0);
    assert_eq!(get(f, 3), b"def", "parent and child share the offset");
}

unsafe fn wait_stopped_continued() {
    let p = child(|| {
        loop {
            libc::pause();
        }
    });
    let mut s = 0;
    ok!(libc::kill(p, libc::SIGSTOP));
    assert_eq!(ok!(libc::waitpid(p, &mut s, libc::WUNTRACED)), p);
    assert!(libc::WIFSTOPPED(s) && libc::WSTOPSIG(s) == libc::SIGSTOP, "status {s:#x}");
    ok!(libc::kill(p, libc::SIGCONT));
    assert_eq!(ok!(libc::waitpid(p, &mut s, libc::WCONTINUED)), p);
    assert!(libc::WIFCONTINUED(s), "status {s:#x}");
    ok!(libc::kill(p, libc::SIGKILL));
    expect_killed(p, libc::SIGKILL);
}

unsafe fn kill_group() {
    let leader = child(|| {
        libc::setpgid(0, 0);
        loop {
            libc::pause();
        }
    });
    libc::setpgid(leader, leader);
    let other = child(|| {
        loop {
            libc::pause();
        }
    });
    ok!(libc::setpgid(other, leader));
    ok!(libc::kill(-leader, libc::SIGUSR1));
    expect_killed(leader, libc::SIGUSR1);
    expect_killed(other, libc::SIGUSR1);
    fails!(libc::kill(-leader, 0), ESRCH);
    fails!(libc::kill(libc::getpid(), 65), EINVAL);
}

unsafe fn clone_parent_tid() {
    let mut tid: i32 = 0;
    let flags = (libc::CLONE_PARENT_SETTID | libc::SIGCHLD) as u64;
    let r = ok!(libc::syscall(libc::SYS_clone, flags, 0u64, &mut tid, 0u64, 0u64));
    if r == 0 {
        libc::_exit(0);
    }
    assert_eq!(tid as i64, r);
    expect_exit(tid, 0);
}

unsafe fn exit_group_ends_all() {
    let p = child(|| {
        for _ in 0..4 {
            std::thread::spawn(|| {
                loop {
                    sleep_ms(1000);
                }
            });
        }
        // One thread spins in user mode: it must be stopped too.
        std::thread::spawn(|| {
            let mut x = 0u64;
            loop {
                x = std::hint::black_box(x + 1);
            }
        });
        sleep_ms(20);
        11
    });
    expect_exit(p, 11);
}

unsafe fn ppid() {
    let me = libc::getpid();
    expect_exit(child(|| i32::from(libc::getppid() != me)), 0);
}

unsafe fn fork_nested() {
    unsafe fn down(n: i32) -> i32 {
        if n == 0 {
            return 42;
        }
        let s = wait_for(child(|| down(n - 1)));
        libc::WEXITSTATUS(s)
    }
    assert_eq!(down(12), 42);
}

unsafe fn sigchld_ignored_reaps() {
    libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    let p = child(|| 0);
    // With SIGCHLD ignored children leave no zombie; wait returns when the last is gone.
    fails!(libc::waitpid(p, null_mut(), 0), ECHILD);
}

unsafe fn pidfd_basic() {
    let p = child(|| {
        loop {
            libc::pause();
        }
    });
    let fd = libc::syscall(libc::SYS_pidfd_open, p, 0) as i32;
    if fd < 0 && errno() == libc::ENOSYS {
        libc::kill(p, libc::SIGKILL);
        skip("pidfd_open is not there");
    }
    ok!(fd);
    ok!(libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, 0usize, 0));
    let mut pf = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    assert_eq!(ok!(libc::poll(&mut pf, 1, 5000)), 1);
    expect_killed(p, libc::SIGKILL);
}
