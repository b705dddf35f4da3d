//! Signals: handlers, masks, pending sets, siginfo, restart, default actions.
use crate::check::*;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

tests![
    handler_runs,
    handler_sees_siginfo,
    mask_defers,
    pending_reports,
    ignore,
    default_actions,
    kill_zero_probes,
    sigreturn_restores_registers,
    handler_mask_blocks_self,
    nodefer,
    resethand,
    restart_read,
    no_restart_eintr,
    nanosleep_interrupted,
    pause_returns,
    sigsuspend,
    standard_signals_do_not_queue,
    realtime_signals_queue,
    sigqueue_value,
    kill_stop_not_catchable,
    sigchld_info,
    raise_in_handler,
    sigtimedwait,
    sigtimedwait_timeout,
    sigaction_returns_old,
    signal_wakes_futex_thread,
    tgkill_directs,
    process_signal_any_thread,
    sigprocmask_errors,
    handler_on_spinning_code,
    alarm_fires,
];

static COUNT: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static PID: AtomicI32 = AtomicI32::new(0);
static VALUE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: i32) {
    COUNT.fetch_add(1, SeqCst);
}

extern "C" fn info(_: i32, si: *mut libc::siginfo_t, _: *mut libc::c_void) {
    unsafe {
        COUNT.fetch_add(1, SeqCst);
        CODE.store((*si).si_code, SeqCst);
        PID.store((*si).si_pid(), SeqCst);
        VALUE.store((*si).si_value().sival_ptr as usize, SeqCst);
    }
}

fn n() -> i32 {
    COUNT.load(SeqCst)
}

unsafe fn on(sig: i32, flags: i32) {
    handle(sig, count as *const () as usize, flags);
}

unsafe fn handler_runs() {
    on(libc::SIGUSR1, 0);
    for i in 1..=100 {
        ok!(libc::raise(libc::SIGUSR1));
        assert_eq!(n(), i, "delivered before raise returns");
    }
}

unsafe fn handler_sees_siginfo() {
    handle(libc::SIGUSR1, info as *const () as usize, libc::SA_SIGINFO);
    ok!(libc::kill(libc::getpid(), libc::SIGUSR1));
    assert_eq!((CODE.load(SeqCst), PID.load(SeqCst)), (libc::SI_USER, libc::getpid()));
    ok!(libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::getpid(), libc::SIGUSR1));
    assert_eq!(CODE.load(SeqCst), libc::SI_TKILL);
}

unsafe fn mask_defers() {
    on(libc::SIGUSR1, 0);
    mask(libc::SIG_BLOCK, libc::SIGUSR1);
    ok!(libc::raise(libc::SIGUSR1));
    assert_eq!(n(), 0);
    mask(libc::SIG_UNBLOCK, libc::SIGUSR1);
    assert_eq!(n(), 1, "delivered when unblocked");
}

unsafe fn pending_reports() {
    mask(libc::SIG_BLOCK, libc::SIGUSR2);
    let mut s: libc::sigset_t = std::mem::zeroed();
    ok!(libc::sigpending(&mut s));
    assert_eq!(libc::sigismember(&s, libc::SIGUSR2), 0);
    ok!(libc::raise(libc::SIGUSR2));
    ok!(libc::sigpending(&mut s));
    assert_eq!(libc::sigismember(&s, libc::SIGUSR2), 1);
    libc::signal(libc::SIGUSR2, libc::SIG_IGN);
    ok!(libc::sigpending(&mut s));
    assert_eq!(libc::sigismember(&s, libc::SIGUSR2), 0, "ignoring drops what is pending");
}

unsafe fn ignore() {
    libc::signal(libc::SIGTERM, libc::SIG_IGN);
    ok!(libc::raise(libc::SIGTERM));
}

unsafe fn default_actions() {
    let kills = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGILL,
        libc::SIGABRT,
        libc::SIGFPE,
        libc::SIGKILL,
        libc::SIGSEGV,
        libc::SIGPIPE,
        libc::SIGALRM,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGBUS,
        libc::SIGSYS,
        libc::SIGTRAP,
        34,
        64,
    ];
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    libc::setrlimit(libc::RLIMIT_CORE, &no_core);
    for s in kills {
        let p = child(|| {
            libc::signal(s, libc::SIG_DFL);
            libc::kill(libc::getpid(), s);
            0
        });
        expect_killed(p, s);
    }
    for s in [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH] {
        let p = child(|| {
            libc::signal(s, libc::SIG_DFL);
            libc::kill(libc::getpid(), s);
            7
        });
        expect_exit(p, 7);
    }
}

unsafe fn kill_zero_probes() {
    ok!(libc::kill(libc::getpid(), 0));
    fails!(libc::kill(0x3fff_fff0, 0), ESRCH);
    fails!(libc::kill(libc::getpid(), -1), EINVAL);
    fails!(libc::syscall(libc::SYS_tgkill, libc::getpid(), 0x3fff_fff0, 0), ESRCH);
}

unsafe fn sigreturn_restores_registers() {
    on(libc::SIGUSR1, 0);
    let (a, b, cc, d): (u64, u64, u64, u64);
    let pid = libc::getpid();
    // rbx is reserved by the compiler; r12..r15 and the arithmetic flags stand for the rest.
    let carry: u8;
    std::arch::asm!(
        "mov r12, 0x1111111111111111", "mov r13, 0x2222222222222222", "mov r14, 0x3333333333333333", "mov r15, 0x4444444444444444",
        "stc", "syscall", "setc {c}",
        c = out(reg_byte) carry,
        inlateout("rax") libc::SYS_kill => _, in("rdi") pid, in("rsi") libc::SIGUSR1,
        out("r12") a, out("r13") b, out("r14") cc, out("r15") d, out("rcx") _, out("r11") _,
    );
    assert_eq!(n(), 1);
    assert_eq!(
        (a, b, cc, d),
        (0x1111111111111111, 0x2222222222222222, 0x3333333333333333, 0x4444444444444444)
    );
    assert_eq!(carry, 1, "flags survive");
}

static DEPTH: AtomicI32 = AtomicI32::new(0);
static MAXDEPTH: AtomicI32 = AtomicI32::new(0);

extern "C" fn nesting(sig: i32) {
    let d = DEPTH.fetch_add(1, SeqCst) + 1;
    MAXDEPTH.fetch_max(d, SeqCst);
    if COUNT.fetch_add(1, SeqCst) < 3 {
        unsafe { libc::raise(sig) };
    }
    DEPTH.fetch_sub(1, SeqCst);
}

unsafe fn handler_mask_blocks_self() {
    handle(libc::SIGUSR1, nesting as *const () as usize, 0);
    ok!(libc::raise(libc::SIGUSR1));
    assert_eq!((MAXDEPTH.load(SeqCst), n()), (1, 4), "one after the other, not nested");
}

unsafe fn nodefer() {
    handle(libc::SIGUSR1, nesting as *const () as usize, libc::SA_NODEFER);
    ok!(libc::raise(libc::SIGUSR1));
    assert_eq!((MAXDEPTH.load(SeqCst), n()), (4, 4));
}

unsafe fn resethand() {
    on(libc::SIGUSR1, libc::SA_RESETHAND);
    ok!(libc::raise(libc::SIGUSR1));
    let mut sa: libc::sigaction = std::mem::zeroed();
    ok!(libc::sigaction(libc::SIGUSR1, null(), &mut sa));
    assert_eq!((n(), sa.sa_sigaction), (1, libc::SIG_DFL));
}

unsafe fn signal_then_write(sig: i32, w: i32) -> i32 {
    let parent = libc::getpid();
    child(move || {
        sleep_ms(30);
        libc::kill(parent, sig);
        sleep_ms(30);
        put(w, b"k");
        0
    })
}

unsafe fn restart_read() {
    on(libc::SIGUSR1, libc::SA_RESTART);
    let (r, w) = pipe();
    let p = signal_then_write(libc::SIGUSR1, w);
    assert_eq!(get(r, 1), b"k");
    assert_eq!(n(), 1);
    expect_exit(p, 0);
}

unsafe fn no_restart_eintr() {
    on(libc::SIGUSR1, 0);
    let (r, w) = pipe();
    let p = signal_then_write(libc::SIGUSR1, w);
    let mut b = 0u8;
    fails!(libc::read(r, (&raw mut b).cast(), 1), EINTR);
    expect_exit(p, 0);
}

unsafe fn nanosleep_interrupted() {
    on(libc::SIGUSR1, libc::SA_RESTART);
    let (_r, w) = pipe();
    let p = signal_then_write(libc::SIGUSR1, w);
    let ts = libc::timespec { tv_sec: 10, tv_nsec: 0 };
    let mut left = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    fails!(libc::nanosleep(&ts, &mut left), EINTR);
    assert!(left.tv_sec == 9, "what was left: {} s", left.tv_sec);
    expect_exit(p, 0);
}

/// One SIGALRM from the interval timer.
unsafe fn alarm_ms(ms: i64) {
    let zero = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let it = libc::itimerval { it_interval: zero, it_value: libc::timeval { tv_sec: 0, tv_usec: ms * 1000 } };
    ok!(libc::setitimer(libc::ITIMER_REAL, &it, null_mut()));
}

unsafe fn pause_returns() {
    on(libc::SIGALRM, 0);
    alarm_ms(20);
    fails!(libc::pause(), EINTR);
    assert_eq!(n(), 1);
}

unsafe fn sigsuspend() {
    on(libc::SIGUSR1, 0);
    mask(libc::SIG_BLOCK, libc::SIGUSR1);
    ok!(libc::raise(libc::SIGUSR1));
    let mut s: libc::sigset_t = std::mem::zeroed();
    libc::sigemptyset(&mut s);
    fails!(libc::sigsuspend(&s), EINTR);
    assert_eq!(n(), 1);
    ok!(libc::sigprocmask(libc::SIG_BLOCK, null(), &mut s));
    assert_eq!(libc::sigismember(&s, libc::SIGUSR1), 1, "the old mask is back");
}

unsafe fn standard_signals_do_not_queue() {
    on(libc::SIGUSR1, 0);
    mask(libc::SIG_BLOCK, libc::SIGUSR1);
    for _ in 0..5 {
        ok!(libc::kill(libc::getpid(), libc::SIGUSR1));
    }
    mask(libc::SIG_UNBLOCK, libc::SIGUSR1);
    assert_eq!(n(), 1);
}

unsafe fn realtime_signals_queue() {
    on(40, 0);
    mask(libc::SIG_BLOCK, 40);
    for _ in 0..5 {
        ok!(libc::kill(libc::getpid(), 40));
    }
    mask(libc::SIG_UNBLOCK, 40);
    assert_eq!(n(), 5);
}

unsafe fn sigqueue_value() {
    handle(41, info as *const () as usize, libc::SA_SIGINFO);
    ok!(libc::sigqueue(libc::getpid(), 41, libc::sigval { sival_ptr: 0x1234_5678 as *mut _ }));
    assert_eq!((CODE.load(SeqCst), VALUE.load(SeqCst)), (libc::SI_QUEUE, 0x1234_5678));
}

unsafe fn kill_stop_not_catchable() {
    for s in [libc::SIGKILL, libc::SIGSTOP] {
        let mut sa: libc::sigaction = std::mem::zeroed();
        sa.sa_sigaction = count as *const () as usize;
        fails!(libc::sigaction(s, &sa, null_mut()), EINVAL);
    }
    let mut sa: libc::sigaction = std::mem::zeroed();
    fails!(libc::syscall(libc::SYS_rt_sigaction, 65, 0usize, &mut sa, 8), EINVAL);
    fails!(libc::syscall(libc::SYS_rt_sigaction, 10, 0usize, &mut sa, 4), EINVAL);
    // Blocking them is accepted and has no effect.
    let mut all: libc::sigset_t = std::mem::zeroed();
    libc::sigfillset(&mut all);
    let p = child(|| {
        libc::sigprocmask(libc::SIG_SETMASK, &all, null_mut());
        libc::kill(libc::getpid(), libc::SIGKILL);
        0
    });
    expect_killed(p, libc::SIGKILL);
}

static STATUS: AtomicI32 = AtomicI32::new(-1);

extern "C" fn chld(_: i32, si: *mut libc::siginfo_t, _: *mut libc::c_void) {
    unsafe {
        PID.store((*si).si_pid(), SeqCst);
        STATUS.store((*si).si_status(), SeqCst);
        CODE.store((*si).si_code, SeqCst);
    }
}

unsafe fn sigchld_info() {
    handle(libc::SIGCHLD, chld as *const () as usize, libc::SA_SIGINFO | libc::SA_RESTART);
    let p = child(|| 33);
    expect_exit(p, 33);
    let end = now_ms() + 2000;
    while PID.load(SeqCst) == 0 && now_ms() < end {
        sleep_ms(1);
    }
    assert_eq!((PID.load(SeqCst), STATUS.load(SeqCst), CODE.load(SeqCst)), (p, 33, libc::CLD_EXITED));
}

extern "C" fn raise_other(_: i32) {
    unsafe { libc::raise(libc::SIGUSR2) };
    COUNT.fetch_add(10, SeqCst);
}

unsafe fn raise_in_handler() {
    on(libc::SIGUSR2, 0);
    handle(libc::SIGUSR1, raise_other as *const () as usize, 0);
    ok!(libc::raise(libc::SIGUSR1));
    assert_eq!(n(), 11);
}

unsafe fn set_of(sig: i32) -> libc::sigset_t {
    let mut s: libc::sigset_t = std::mem::zeroed();
    libc::sigemptyset(&mut s);
    libc::sigaddset(&mut s, sig);
    s
}

unsafe fn sigtimedwait() {
    mask(libc::SIG_BLOCK, libc::SIGUSR1);
    let s = set_of(libc::SIGUSR1);
    ok!(libc::kill(libc::getpid(), libc::SIGUSR1));
    let mut si: libc::siginfo_t = std::mem::zeroed();
    assert_eq!(ok!(libc::sigwaitinfo(&s, &mut si)), libc::SIGUSR1);
    assert_eq!(si.si_pid(), libc::getpid());
    let (_r, w) = pipe();
    let p = signal_then_write(libc::SIGUSR1, w);
    assert_eq!(ok!(libc::sigwaitinfo(&s, &mut si)), libc::SIGUSR1);
    assert_eq!(si.si_pid(), p);
    expect_exit(p, 0);
}

unsafe fn sigtimedwait_timeout() {
    mask(libc::SIG_BLOCK, libc::SIGUSR1);
    let s = set_of(libc::SIGUSR1);
    let t0 = now_ms();
    let ts = libc::timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    fails!(libc::sigtimedwait(&s, null_mut(), &ts), EAGAIN);
    assert!(now_ms() - t0 >= 49);
}

unsafe fn sigaction_returns_old() {
    on(libc::SIGUSR1, libc::SA_RESTART);
    let mut sa: libc::sigaction = std::mem::zeroed();
    ok!(libc::sigaction(libc::SIGUSR1, null(), &mut sa));
    assert_eq!(sa.sa_sigaction, count as *const () as usize);
    assert_ne!(sa.sa_flags & libc::SA_RESTART, 0);
}

unsafe fn signal_wakes_futex_thread() {
    on(libc::SIGUSR1, 0);
    static WORD: AtomicI32 = AtomicI32::new(0);
    static TID: AtomicI32 = AtomicI32::new(0);
    let t = std::thread::spawn(|| {
        TID.store(libc::syscall(libc::SYS_gettid) as i32, SeqCst);
        let r = libc::syscall(
            libc::SYS_futex,
            WORD.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            0,
            0usize,
        );
        (r, errno())
    });
    while TID.load(SeqCst) == 0 {
        sleep_ms(1);
    }
    sleep_ms(30);
    ok!(libc::syscall(libc::SYS_tgkill, libc::getpid(), TID.load(SeqCst), libc::SIGUSR1));
    assert_eq!(t.join().unwrap(), (-1, libc::EINTR));
}

unsafe fn tgkill_directs() {
    static WHO: AtomicI32 = AtomicI32::new(0);
    static TID: AtomicI32 = AtomicI32::new(0);
    extern "C" fn who(_: i32) {
        WHO.store(unsafe { libc::syscall(libc::SYS_gettid) } as i32, SeqCst);
    }
    handle(libc::SIGUSR1, who as *const () as usize, 0);
    std::thread::spawn(|| {
        TID.store(libc::syscall(libc::SYS_gettid) as i32, SeqCst);
        sleep_ms(100_000);
    });
    while TID.load(SeqCst) == 0 {
        sleep_ms(1);
    }
    ok!(libc::syscall(libc::SYS_tgkill, libc::getpid(), TID.load(SeqCst), libc::SIGUSR1));
    let end = now_ms() + 3000;
    while WHO.load(SeqCst) == 0 && now_ms() < end {
        sleep_ms(1);
    }
    assert_eq!(WHO.load(SeqCst), TID.load(SeqCst));
}

unsafe fn process_signal_any_thread() {
    // Blocked in the main thread: another one takes it.
    on(libc::SIGUSR1, 0);
    std::thread::spawn(|| {
        loop {
            sleep_ms(1000);
        }
    });
    sleep_ms(20);
    mask(libc::SIG_BLOCK, libc::SIGUSR1);
    ok!(libc::kill(libc::getpid(), libc::SIGUSR1));
    let end = now_ms() + 3000;
    while n() == 0 && now_ms() < end {
        sleep_ms(1);
    }
    assert_eq!(n(), 1);
}

unsafe fn sigprocmask_errors() {
    let mut s = 0u64;
    fails!(libc::syscall(libc::SYS_rt_sigprocmask, 7, &mut s, 0usize, 8), EINVAL);
    fails!(libc::syscall(libc::SYS_rt_sigprocmask, 0, &mut s, 0usize, 7), EINVAL);
}

unsafe fn handler_on_spinning_code() {
    // No system call in sight: the thread must be kicked out of user mode.
    on(libc::SIGUSR1, 0);
    let parent = libc::getpid();
    let p = child(|| {
        for _ in 0..20 {
            sleep_ms(3);
            libc::kill(parent, libc::SIGUSR1);
        }
        0
    });
    let mut x = 1u64;
    while n() < 3 {
        x = std::hint::black_box(x.wrapping_mul(3) + 1);
    }
    expect_exit(p, 0);
}

unsafe fn alarm_fires() {
    on(libc::SIGALRM, 0);
    let it = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 10_000 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: 10_000 },
    };
    ok!(libc::setitimer(libc::ITIMER_REAL, &it, null_mut()));
    let end = now_ms() + 3000;
    while n() < 3 && now_ms() < end {
        std::hint::spin_loop();
    }
    assert!(n() >= 3);
}
