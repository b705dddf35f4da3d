//! Threads: clone with CLONE_VM/CLONE_THREAD, thread-local storage, exit, join, many at a time.
use crate::check::*;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};

tests![
    spawn_join,
    sixty_four_threads,
    tids_differ_pid_same,
    tls_is_private,
    mutex_counter,
    condvar_ping_pong,
    barrier_rounds,
    channel,
    many_short_threads,
    main_thread_exits_first,
    exit_group_status_from_thread,
    thread_panics_alone,
    fs_base_survives,
    gs_base,
    thread_names,
    task_directory,
    child_cleartid_wakes,
    affinity,
    sched_yield_ok,
    fork_from_thread,
    fds_are_shared,
    cwd_is_shared,
    robust_list,
    memory_shared_writes,
    blocked_thread_does_not_block_others,
    clone_flag_errors,
    rseq_or_not,
    clone3_fork,
];

unsafe fn spawn_join() {
    assert_eq!(std::thread::spawn(|| 41 + 1).join().unwrap(), 42);
}

unsafe fn sixty_four_threads() {
    let gate = Arc::new(Barrier::new(65));
    let sum = Arc::new(AtomicU64::new(0));
    let ts: Vec<_> = (0..64u64)
        .map(|i| {
            let (g, s) = (gate.clone(), sum.clone());
            std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
                // All 64 are alive at once before any leaves.
                g.wait();
                for k in 0..100 {
                    s.fetch_add(i * k, SeqCst);
                    if k % 10 == 0 {
                        std::thread::yield_now();
                    }
                }
                i
            })
        })
        .collect();
    gate.wait();
    for (i, t) in ts.into_iter().enumerate() {
        assert_eq!(t.expect("spawn").join().unwrap(), i as u64);
    }
    assert_eq!(sum.load(SeqCst), (0..64).sum::<u64>() * (0..100).sum::<u64>());
}

unsafe fn tids_differ_pid_same() {
    let pid = libc::getpid();
    let mut v: Vec<i64> = (0..16)
        .map(|_| {
            std::thread::spawn(move || {
                assert_eq!(libc::syscall(libc::SYS_getpid), i64::from(pid));
                sleep_ms(20);
                libc::syscall(libc::SYS_gettid)
            })
        })
        .collect::<Vec<_>>()
        .into_iter()
        .map(|t| t.join().unwrap())
        .collect();
    v.push(i64::from(pid));
    v.sort_unstable();
    v.dedup();
    assert_eq!(v.len(), 17);
}

thread_local!(static LOCAL: std::cell::Cell<u64> = const { std::cell::Cell::new(7) });

unsafe fn tls_is_private() {
    LOCAL.set(1);
    let ts: Vec<_> = (0..8)
        .map(|i| {
            std::thread::spawn(move || {
                assert_eq!(LOCAL.get(), 7);
                for _ in 0..200 {
                    LOCAL.set(i);
                    std::thread::yield_now();
                    assert_eq!(LOCAL.get(), i);
                }
            })
        })
        .collect();
    ts.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(LOCAL.get(), 1);
}

unsafe fn mutex_counter() {
    let m = Arc::new(Mutex::new(0u64));
    let ts: Vec<_> = (0..8)
        .map(|_| {
            let m = m.clone();
            std::thread::spawn(move || {
                for _ in 0..5000 {
                    *m.lock().unwrap() += 1;
                }
            })
        })
        .collect();
    ts.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(*m.lock().unwrap(), 40_000);
}

unsafe fn condvar_ping_pong() {
    let s = Arc::new((Mutex::new(0u32), Condvar::new()));
    let s2 = s.clone();
    let t = std::thread::spawn(move || {
        for i in 0..1000 {
            let mut g = s2.0.lock().unwrap();
            while *g != 2 * i + 1 {
                g = s2.1.wait(g).unwrap();
            }
            *g += 1;
            s2.1.notify_all();
        }
    });
    for i in 0..1000 {
        let mut g = s.0.lock().unwrap();
        while *g != 2 * i {
            g = s.1.wait(g).unwrap();
        }
        *g += 1;
        s.1.notify_all();
    }
    t.join().unwrap();
}

unsafe fn barrier_rounds() {
    let b = Arc::new(Barrier::new(6));
    let n = Arc::new(AtomicUsize::new(0));
    let ts: Vec<_> = (0..6)
        .map(|_| {
            let (b, n) = (b.clone(), n.clone());
            std::thread::spawn(move || {
                for round in 1..=50 {
                    n.fetch_add(1, SeqCst);
                    b.wait();
                    assert_eq!(n.load(SeqCst), round * 6);
                    b.wait();
                }
            })
        })
        .collect();
    ts.into_iter().for_each(|t| t.join().unwrap());
}

unsafe fn channel() {
    let (tx, rx) = mpsc::sync_channel(4);
    for t in 0..4u64 {
        let tx = tx.clone();
        std::thread::spawn(move || (0..1000).for_each(|i| tx.send(t * 1000 + i).unwrap()));
    }
    drop(tx);
    assert_eq!(rx.iter().sum::<u64>(), (0..4000).sum());
}

unsafe fn many_short_threads() {
    for i in 0..500 {
        assert_eq!(std::thread::spawn(move || i).join().unwrap(), i);
    }
}

unsafe fn main_thread_exits_first() {
    let p = child(|| {
        std::thread::spawn(|| {
            sleep_ms(50);
            libc::_exit(21);
        });
        libc::syscall(libc::SYS_exit, 5);
        0
    });
    expect_exit(p, 21);
}

unsafe fn exit_group_status_from_thread() {
    let p = child(|| {
        std::thread::spawn(|| libc::_exit(19));
        sleep_ms(10_000);
        0
    });
    expect_exit(p, 19);
}

unsafe fn thread_panics_alone() {
    // A thread that ends by its own exit(2) takes nobody along.
    let p = child(|| {
        let t = std::thread::Builder::new().spawn(|| {
            sleep_ms(5);
        });
        t.unwrap().join().unwrap();
        6
    });
    expect_exit(p, 6);
}

unsafe fn fs_base_survives() {
    let get = || {
        let mut v = 0u64;
        ok!(libc::syscall(libc::SYS_arch_prctl, 0x1003, &mut v)); // ARCH_GET_FS
        v
    };
    let a = get();
    assert_ne!(a, 0);
    for _ in 0..100 {
        let self_ptr: u64;
        std::arch::asm!("mov {}, fs:[0]", out(reg) self_ptr);
        assert_eq!(self_ptr, a, "the thread pointer points at itself");
        libc::sched_yield();
    }
    let p = child(|| i32::from(get() != a));
    expect_exit(p, 0);
    assert_ne!(std::thread::spawn(get).join().unwrap(), a);
    fails!(libc::syscall(libc::SYS_arch_prctl, 0x7777, 0), EINVAL);
    fails!(libc::syscall(libc::SYS_arch_prctl, 0x1002, 1u64 << 63), EPERM); // ARCH_SET_FS
}

unsafe fn gs_base() {
    let m = anon(4096).cast::<u64>();
    *m = 0xfeed;
    if libc::syscall(libc::SYS_arch_prctl, 0x1001, m) != 0 {
        skip("ARCH_SET_GS is not there");
    }
    for _ in 0..100 {
        let v: u64;
        std::arch::asm!("mov {}, gs:[0]", out(reg) v);
        assert_eq!(v, 0xfeed);
        sleep_ms(0);
        libc::sched_yield();
    }
    let mut v = 0u64;
    ok!(libc::syscall(libc::SYS_arch_prctl, 0x1004, &mut v));
    assert_eq!(v, m as u64);
    // Processes and threads begin with it, and their changes are their own.
    fn look(want: u64) -> bool {
        let v: u64;
        unsafe { std::arch::asm!("mov {}, gs:[0]", out(reg) v) };
        let mut base = 0u64;
        unsafe { libc::syscall(libc::SYS_arch_prctl, 0x1004, &mut base) };
        v == 0xfeed && base == want
    }
    let mine = m as u64;
    for _ in 0..20 {
        let p = child(|| {
            let inherited = look(mine);
            libc::syscall(libc::SYS_arch_prctl, 0x1001, 0);
            i32::from(!inherited)
        });
        expect_exit(p, 0);
        let t = std::thread::spawn(move || {
            let inherited = look(mine);
            unsafe { libc::syscall(libc::SYS_arch_prctl, 0x1001, 0) };
            inherited
        });
        assert!(t.join().unwrap());
        assert!(look(mine));
    }
}

unsafe fn thread_names() {
    let t = std::thread::spawn(|| {
        ok!(libc::prctl(libc::PR_SET_NAME, c"worker-of-a-long-name".as_ptr()));
        let mut b = [0u8; 16];
        ok!(libc::prctl(libc::PR_GET_NAME, b.as_mut_ptr()));
        b
    });
    assert_eq!(&t.join().unwrap(), b"worker-of-a-lon\0");
}

unsafe fn task_directory() {
    let gate = Arc::new(Barrier::new(5));
    let ts: Vec<_> = (0..4)
        .map(|_| {
            let g = gate.clone();
            std::thread::spawn(move || {
                g.wait();
                g.wait();
            })
        })
        .collect();
    gate.wait();
    let n = std::fs::read_dir("/proc/self/task").map(|d| d.count());
    gate.wait();
    ts.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(n.unwrap(), 5);
}

unsafe fn child_cleartid_wakes() {
    static TID: AtomicI32 = AtomicI32::new(-1);
    let stack = anon(65536);
    extern "C" fn body(_: *mut libc::c_void) -> i32 {
        sleep_ms(20);
        0
    }
    let flags = libc::CLONE_VM
        | libc::CLONE_THREAD
        | libc::CLONE_SIGHAND
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    let tid = ok!(libc::clone(
        body,
        stack.add(65536).cast(),
        flags,
        std::ptr::null_mut(),
        TID.as_ptr(),
        0usize,
        TID.as_ptr()
    ));
    assert!(TID.load(SeqCst) == tid || TID.load(SeqCst) == 0);
    let end = now_ms() + 5000;
    while TID.load(SeqCst) != 0 && now_ms() < end {
        let ts = libc::timespec { tv_sec: 1, tv_nsec: 0 };
        libc::syscall(libc::SYS_futex, TID.as_ptr(), libc::FUTEX_WAIT, tid, &ts, 0, 0);
    }
    assert_eq!(TID.load(SeqCst), 0);
}

unsafe fn affinity() {
    let mut s: libc::cpu_set_t = std::mem::zeroed();
    ok!(libc::sched_getaffinity(0, std::mem::size_of_val(&s), &mut s));
    let n = libc::CPU_COUNT(&s);
    assert!(n >= 1);
    let cpu = (0..1024).find(|c| libc::CPU_ISSET(*c, &s)).unwrap();
    let mut one: libc::cpu_set_t = std::mem::zeroed();
    libc::CPU_SET(cpu, &mut one);
    ok!(libc::sched_setaffinity(0, std::mem::size_of_val(&one), &one));
    assert_eq!(ok!(libc::sched_getcpu()) as usize, cpu);
    fails!(libc::sched_getaffinity(0, 1, &mut s), EINVAL);
    fails!(libc::sched_getaffinity(0x3fff_fff0, std::mem::size_of_val(&s), &mut s), ESRCH);
}

unsafe fn sched_yield_ok() {
    for _ in 0..1000 {
        ok!(libc::sched_yield());
    }
}

unsafe fn fork_from_thread() {
    let s = std::thread::spawn(|| {
        let p = child(|| {
            // Only the forking thread exists on the other side, and it is the leader.
            let alone = std::fs::read_dir("/proc/self/task").map(|d| d.count() == 1).unwrap_or(true);
            i32::from(!(alone && libc::syscall(libc::SYS_gettid) == libc::syscall(libc::SYS_getpid)))
        });
        wait_for(p)
    })
    .join()
    .unwrap();
    assert_eq!(s, 0);
    // Any thread may wait for a child of another.
    let p = child(|| 3);
    std::thread::spawn(move || expect_exit(p, 3)).join().unwrap();
}

unsafe fn fds_are_shared() {
    let (r, w) = std::thread::spawn(|| pipe()).join().unwrap();
    put(w, b"x");
    std::thread::spawn(move || ok!(libc::close(w))).join().unwrap();
    assert_eq!(get(r, 10), b"x");
    assert_eq!(get(r, 10), b"");
}

unsafe fn cwd_is_shared() {
    std::thread::spawn(|| std::env::set_current_dir("/").unwrap()).join().unwrap();
    assert_eq!(std::env::current_dir().unwrap().to_str(), Some("/"));
}

unsafe fn robust_list() {
    let mut head = 0u64;
    let mut len = 0u64;
    ok!(libc::syscall(libc::SYS_get_robust_list, 0, &mut head, &mut len));
    assert_eq!(len, 24);
    fails!(libc::syscall(libc::SYS_set_robust_list, head, 23), EINVAL);
}

unsafe fn memory_shared_writes() {
    let p = anon(64 * 4096) as usize;
    let ts: Vec<_> = (0..4)
        .map(|t| {
            std::thread::spawn(move || {
                for i in (t..64).step_by(4) {
                    ((p + i * 4096) as *mut u64).write_volatile(i as u64 + 1);
                }
            })
        })
        .collect();
    ts.into_iter().for_each(|t| t.join().unwrap());
    for i in 0..64 {
        assert_eq!(((p + i * 4096) as *const u64).read_volatile(), i as u64 + 1);
    }
}

unsafe fn blocked_thread_does_not_block_others() {
    let (r, w) = pipe();
    let t = std::thread::spawn(move || get(r, 1));
    let a = now_ms();
    for _ in 0..100 {
        libc::getppid();
    }
    assert!(now_ms() - a < 3000);
    put(w, b"y");
    assert_eq!(t.join().unwrap(), b"y");
}

unsafe fn clone_flag_errors() {
    let z = 0u64;
    for bad in [
        libc::CLONE_THREAD,
        libc::CLONE_SIGHAND,
        libc::CLONE_THREAD | libc::CLONE_SIGHAND,
        libc::CLONE_NEWNS | libc::CLONE_FS,
    ] {
        fails!(libc::syscall(libc::SYS_clone, bad as u64, z, z, z, z), EINVAL);
    }
}

unsafe fn rseq_or_not() {
    // glibc registers rseq at start and lives without it: a second registration must not be taken silently.
    let r = libc::syscall(libc::SYS_rseq, 0usize, 32, 0, 0);
    assert!(r == -1, "a null area is refused");
}

unsafe fn clone3_fork() {
    let mut a = [0u64; 8];
    a[4] = libc::SIGCHLD as u64;
    let r = libc::syscall(libc::SYS_clone3, a.as_ptr(), 64);
    if r == 0 {
        libc::_exit(12);
    }
    if r == -1 && errno() == libc::ENOSYS {
        skip("clone3 is not there");
    }
    expect_exit(ok!(r) as i32, 12);
    fails!(libc::syscall(libc::SYS_clone3, a.as_ptr(), 8), EINVAL);
}
