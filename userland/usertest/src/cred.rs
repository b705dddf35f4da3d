//! Identity and limits: uids and gids, prctl, uname, rlimits, priorities, sessions without a terminal.
use crate::check::*;
use std::ptr::{null, null_mut};

tests![
    ids_agree,
    drop_uid_for_good,
    saved_uid_returns,
    setresuid_errors,
    groups_set_get,
    ids_over_fork_and_threads,
    raw_setuid_is_per_thread,
    setuid_program,
    uname_fields,
    rlimit_get_set,
    rlimit_errors,
    rlimit_nproc_or_stack,
    prctl_name_pdeathsig,
    prctl_errors,
    no_new_privs,
    capabilities_read,
    priorities,
    sched_policies,
    sysinfo_sane,
    getcpu_call,
    hostname_matches,
    umask_over_exec,
    personality_call,
    sid_pgid_of_child,
    setpgid_after_exec_eacces,
    getgroups_size,
];

fn root() {
    if unsafe { libc::getuid() } != 0 {
        skip("needs root");
    }
}

unsafe fn ids_agree() {
    let (mut r, mut e, mut s) = (0, 0, 0);
    ok!(libc::getresuid(&mut r, &mut e, &mut s));
    assert_eq!((r, e), (libc::getuid(), libc::geteuid()));
    ok!(libc::getresgid(&mut r, &mut e, &mut s));
    assert_eq!((r, e), (libc::getgid(), libc::getegid()));
}

unsafe fn drop_uid_for_good() {
    root();
    let p = child(|| {
        ok!(libc::setgid(1234));
        ok!(libc::setuid(1234));
        assert_eq!((libc::getuid(), libc::geteuid(), libc::getgid()), (1234, 1234, 1234));
        fails!(libc::setuid(0), EPERM);
        fails!(libc::seteuid(0), EPERM);
        fails!(libc::setgid(0), EPERM);
        fails!(libc::setgroups(0, null()), EPERM);
        0
    });
    expect_exit(p, 0);
}

unsafe fn saved_uid_returns() {
    root();
    let p = child(|| {
        ok!(libc::seteuid(1234));
        assert_eq!((libc::getuid(), libc::geteuid()), (0, 1234));
        ok!(libc::seteuid(0));
        ok!(libc::setresuid(1, 2, 3));
        ok!(libc::seteuid(3));
        ok!(libc::setreuid(3, 1));
        let (mut r, mut e, mut s) = (0, 0, 0);
        ok!(libc::getresuid(&mut r, &mut e, &mut s));
        assert_eq!((r, e, s), (3, 1, 1));
        0
    });
    expect_exit(p, 0);
}

unsafe fn setresuid_errors() {
    root();
    let p = child(|| {
        ok!(libc::setresuid(10, 20, 30));
        fails!(libc::setresuid(10, 40, 30), EPERM);
        ok!(libc::setresuid(u32::MAX, 30, u32::MAX));
        assert_eq!((libc::getuid(), libc::geteuid()), (10, 30));
        0
    });
    expect_exit(p, 0);
}

unsafe fn groups_set_get() {
    root();
    let g = [5, 7, 9];
    ok!(libc::setgroups(3, g.as_ptr()));
    let mut got = [0; 8];
    assert_eq!(ok!(libc::getgroups(8, got.as_mut_ptr())), 3);
    assert_eq!(&got[..3], &g);
    expect_exit(child(|| i32::from(libc::getgroups(0, null_mut()) != 3)), 0);
    fails!(libc::setgroups(70_000, g.as_ptr()), EINVAL);
}

unsafe fn getgroups_size() {
    let n = ok!(libc::getgroups(0, null_mut()));
    if n > 0 {
        let mut g = [0; 1];
        if n > 1 {
            fails!(libc::getgroups(1, g.as_mut_ptr()), EINVAL);
        }
    }
    fails!(libc::getgroups(-1, null_mut()), EINVAL);
}

unsafe fn ids_over_fork_and_threads() {
    root();
    let p = child(|| {
        let t = std::thread::spawn(|| {
            sleep_ms(60);
            libc::getuid()
        });
        sleep_ms(10);
        // The C library makes setuid act on all threads (with signals of its own).
        ok!(libc::setuid(77));
        assert_eq!(t.join().unwrap(), 77);
        wait_for(child(|| i32::from(libc::getuid() != 77)))
    });
    expect_exit(p, 0);
}

unsafe fn raw_setuid_is_per_thread() {
    root();
    let p = child(|| {
        let t = std::thread::spawn(|| {
            ok!(libc::syscall(libc::SYS_setresuid, 88, 88, 88));
            libc::syscall(libc::SYS_getuid)
        });
        assert_eq!(t.join().unwrap(), 88);
        libc::getuid() as i32
    });
    expect_exit(p, 0);
}

unsafe fn setuid_program() {
    root();
    let me = crate::exec::me();
    std::fs::copy(&me, "suid").unwrap();
    ok!(libc::chown(c"suid".as_ptr(), 1234, 4321));
    ok!(libc::chmod(c"suid".as_ptr(), 0o6755));
    ok!(libc::chmod(c".".as_ptr(), 0o755));
    let mut s: libc::statvfs = std::mem::zeroed();
    ok!(libc::statvfs(c".".as_ptr(), &mut s));
    if s.f_flag & libc::ST_NOSUID != 0 {
        skip("mounted nosuid");
    }
    let p = child(|| crate::exec::execv("./suid", &["x", "helper", "ids", "0", "1234", "0", "4321"]));
    expect_exit(p, 0);
    let p = child(|| {
        ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        crate::exec::execv("./suid", &["x", "helper", "ids", "0", "0", "0", "0"])
    });
    expect_exit(p, 0);
}

/// `usertest helper ids RUID EUID RGID EGID`.
pub fn helper_ids(args: &[String]) -> i32 {
    let want: Vec<u32> = args.iter().filter_map(|a| a.parse().ok()).collect();
    let got = unsafe {
        assert_eq!(libc::getauxval(libc::AT_EUID), u64::from(libc::geteuid()));
        [libc::getuid(), libc::geteuid(), libc::getgid(), libc::getegid()]
    };
    i32::from(want != got)
}

unsafe fn uname_fields() {
    let mut u: libc::utsname = std::mem::zeroed();
    ok!(libc::uname(&mut u));
    let s = |f: &[i8]| std::ffi::CStr::from_ptr(f.as_ptr()).to_str().unwrap().to_owned();
    assert_eq!((s(&u.sysname), s(&u.machine)), ("Linux".into(), "x86_64".into()));
    let major: u32 = s(&u.release).split('.').next().unwrap().parse().unwrap();
    assert!(major >= 4, "glibc refuses old kernels: {}", s(&u.release));
    println!("# {} {} {}", s(&u.nodename), s(&u.release), s(&u.version));
}

unsafe fn hostname_matches() {
    let mut b = [0i8; 65];
    ok!(libc::gethostname(b.as_mut_ptr(), 65));
    let mut u: libc::utsname = std::mem::zeroed();
    ok!(libc::uname(&mut u));
    assert_eq!(std::ffi::CStr::from_ptr(b.as_ptr()), std::ffi::CStr::from_ptr(u.nodename.as_ptr()));
}

unsafe fn rlimit_get_set() {
    let mut l: libc::rlimit = std::mem::zeroed();
    for r in 0..16 {
        ok!(libc::getrlimit(r, &mut l));
        assert!(l.rlim_cur <= l.rlim_max, "limit {r}");
    }
    ok!(libc::getrlimit(libc::RLIMIT_CORE, &mut l));
    let half = libc::rlimit { rlim_cur: 0, rlim_max: l.rlim_max };
    ok!(libc::setrlimit(libc::RLIMIT_CORE, &half));
    ok!(libc::getrlimit(libc::RLIMIT_CORE, &mut l));
    assert_eq!(l.rlim_cur, 0);
    expect_exit(
        child(|| {
            let mut l: libc::rlimit = std::mem::zeroed();
            ok!(libc::prlimit(0, libc::RLIMIT_CORE, null(), &mut l));
            l.rlim_cur as i32
        }),
        0,
    );
}

unsafe fn rlimit_errors() {
    let mut l: libc::rlimit = std::mem::zeroed();
    fails!(libc::getrlimit(16, &mut l), EINVAL);
    let odd = libc::rlimit { rlim_cur: 2, rlim_max: 1 };
    fails!(libc::setrlimit(libc::RLIMIT_CORE, &odd), EINVAL);
    fails!(libc::prlimit(0x3fff_fff0, libc::RLIMIT_CORE, null(), &mut l), ESRCH);
    if libc::getuid() == 0 {
        expect_exit(
            child(|| {
                let low = libc::rlimit { rlim_cur: 10, rlim_max: 10 };
                ok!(libc::setrlimit(libc::RLIMIT_CORE, &low));
                ok!(libc::setresuid(1234, 1234, 1234));
                let high = libc::rlimit { rlim_cur: 10, rlim_max: 20 };
                fails!(libc::setrlimit(libc::RLIMIT_CORE, &high), EPERM);
                0
            }),
            0,
        );
    }
}

unsafe fn rlimit_nproc_or_stack() {
    let mut l: libc::rlimit = std::mem::zeroed();
    ok!(libc::getrlimit(libc::RLIMIT_STACK, &mut l));
    assert!(l.rlim_cur >= 1 << 20);
    ok!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut l));
    assert!(l.rlim_cur >= 256);
}

unsafe fn prctl_name_pdeathsig() {
    let mut b = [0u8; 16];
    ok!(libc::prctl(libc::PR_SET_NAME, c"renamed".as_ptr()));
    ok!(libc::prctl(libc::PR_GET_NAME, b.as_mut_ptr()));
    assert_eq!(&b[..8], b"renamed\0");
    let (r, w) = pipe();
    let p = child(|| {
        child(|| {
            ok!(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL));
            put(w, b"r");
            sleep_ms(10_000);
            put(w, b"survived");
            0
        });
        libc::close(w);
        get(r, 1);
        0
    });
    expect_exit(p, 0);
    ok!(libc::close(w));
    assert_eq!(get(r, 10), b"", "the grandchild died with its parent");
}

unsafe fn prctl_errors() {
    fails!(libc::prctl(0x7777_7777, 0, 0, 0, 0), EINVAL);
    fails!(libc::prctl(libc::PR_SET_PDEATHSIG, 999, 0, 0, 0), EINVAL);
    fails!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 2, 0, 0, 0), EINVAL);
}

unsafe fn no_new_privs() {
    assert!(ok!(libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)) <= 1);
    expect_exit(
        child(|| {
            ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
            let s = wait_for(child(|| libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)));
            libc::WEXITSTATUS(s) - 1
        }),
        0,
    );
}

unsafe fn capabilities_read() {
    let mut h = [0x2008_0522u32, 0];
    let mut d = [0u32; 6];
    ok!(libc::syscall(libc::SYS_capget, h.as_mut_ptr(), d.as_mut_ptr()));
    if libc::getuid() == 0 {
        assert_ne!(d[0], 0, "root has effective capabilities");
    }
    h[0] = 0x1234;
    fails!(libc::syscall(libc::SYS_capget, h.as_mut_ptr(), d.as_mut_ptr()), EINVAL);
    assert_eq!(h[0], 0x2008_0522, "the version that the kernel likes");
}

unsafe fn priorities() {
    let p = child(|| {
        ok!(libc::setpriority(libc::PRIO_PROCESS, 0, 5));
        let a = libc::getpriority(libc::PRIO_PROCESS, 0);
        ok!(libc::nice(2));
        i32::from((a, libc::getpriority(libc::PRIO_PROCESS, 0)) != (5, 7))
    });
    expect_exit(p, 0);
    fails!(libc::setpriority(9, 0, 0), EINVAL);
}

unsafe fn sched_policies() {
    assert_eq!(ok!(libc::sched_getscheduler(0)), libc::SCHED_OTHER);
    let mut p: libc::sched_param = std::mem::zeroed();
    ok!(libc::sched_getparam(0, &mut p));
    assert_eq!(p.sched_priority, 0);
    ok!(libc::sched_setscheduler(0, libc::SCHED_OTHER, &p));
    p.sched_priority = 5;
    fails!(libc::sched_setscheduler(0, libc::SCHED_OTHER, &p), EINVAL);
    assert_eq!(ok!(libc::sched_get_priority_max(libc::SCHED_FIFO)), 99);
}

unsafe fn sysinfo_sane() {
    let mut i: libc::sysinfo = std::mem::zeroed();
    ok!(libc::sysinfo(&mut i));
    assert!(i.totalram > 0 && i.freeram <= i.totalram && i.mem_unit >= 1 && i.procs >= 1);
}

unsafe fn getcpu_call() {
    let (mut cpu, mut node) = (99_999u32, 99_999u32);
    ok!(libc::syscall(libc::SYS_getcpu, &mut cpu, &mut node, 0usize));
    assert!(cpu < 4096 && node < 4096);
}

unsafe fn umask_over_exec() {
    let m = crate::exec::me();
    let p = child(|| {
        libc::umask(0o123);
        crate::exec::execv(&m, &["x", "helper", "umask", "83"])
    });
    expect_exit(p, 0);
}

unsafe fn personality_call() {
    let p = libc::personality(0xffff_ffff);
    assert!(p >= 0);
    assert_eq!(libc::personality(p as u64), p);
}

unsafe fn sid_pgid_of_child() {
    let p = child(|| {
        loop {
            libc::pause();
        }
    });
    assert_eq!((ok!(libc::getsid(p)), ok!(libc::getpgid(p))), (libc::getsid(0), libc::getpgrp()));
    ok!(libc::setpgid(p, 0));
    assert_eq!(ok!(libc::getpgid(p)), p);
    ok!(libc::kill(-p, libc::SIGKILL));
    expect_killed(p, libc::SIGKILL);
}

unsafe fn setpgid_after_exec_eacces() {
    let m = crate::exec::me();
    let (r, w) = pipe();
    ok!(libc::fcntl(w, libc::F_SETFD, libc::FD_CLOEXEC));
    let p = child(|| crate::exec::execv(&m, &["x", "helper", "sleep", "5000"]));
    ok!(libc::close(w));
    get(r, 1);
    fails!(libc::setpgid(p, p), EACCES);
    ok!(libc::kill(p, libc::SIGKILL));
    expect_killed(p, libc::SIGKILL);
}
