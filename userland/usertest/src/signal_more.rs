//! Signals where the machine shows: alternate stacks, hardware faults, permission, stop and continue, restarts, signalfd.
use crate::check::*;
use std::ptr::{null, null_mut, read_volatile};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

tests![
    altstack_used,
    altstack_errors,
    altstack_reports_onstack,
    altstack_overflow_survived,
    sa_mask_applies,
    segv_siginfo_and_resume,
    fpe_siginfo,
    ill_siginfo,
    trap_siginfo,
    fault_while_blocked_kills,
    fault_while_ignored_kills,
    kill_permission,
    stop_and_continue,
    stop_reports_sigchld,
    cont_clears_stop,
    restart_wait4,
    restart_accept,
    restart_futex_and_write,
    epipe_signal,
    rt_order_by_number,
    signalfd_reads,
    siglongjmp_style_exit,
    handler_changes_context,
    nested_different_signals,
    thread_directed_stays,
    sigreturn_restores_mask,
    sig_in_fork_child_pending_cleared,
];

// `si_code` values of <asm-generic/siginfo.h> that the libc crate lacks.
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const FPE_INTDIV: i32 = 1;
const ILL_ILLOPN: i32 = 2;

static COUNT: AtomicI32 = AtomicI32::new(0);
static ADDR: AtomicUsize = AtomicUsize::new(0);
static SP: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(_: i32) {
    COUNT.fetch_add(1, SeqCst);
}

fn n() -> i32 {
    COUNT.load(SeqCst)
}

unsafe fn altstack(len: usize) -> *mut u8 {
    let p = anon(len);
    let ss = libc::stack_t { ss_sp: p.cast(), ss_flags: 0, ss_size: len };
    ok!(libc::sigaltstack(&ss, null_mut()));
    p
}

extern "C" fn where_am_i(_: i32) {
    let x = 0u8;
    SP.store(&raw const x as usize, SeqCst);
    COUNT.fetch_add(1, SeqCst);
}

unsafe fn altstack_used() {
    let p = altstack(65536) as usize;
    handle(libc::SIGUSR1, where_am_i as *const () as usize, libc::SA_ONSTACK);
    ok!(libc::raise(libc::SIGUSR1));
    assert!((p..p + 65536).contains(&SP.load(SeqCst)), "on the alternate stack");
    handle(libc::SIGUSR1, where_am_i as *const () as usize, 0);
    ok!(libc::raise(libc::SIGUSR1));
    assert!(!(p..p + 65536).contains(&SP.load(SeqCst)), "without SA_ONSTACK on the ordinary one");
}

unsafe fn altstack_errors() {
    let p = anon(65536);
    let mut ss = libc::stack_t { ss_sp: p.cast(), ss_flags: 0, ss_size: 1024 };
    fails!(libc::sigaltstack(&ss, null_mut()), ENOMEM);
    ss.ss_size = 65536;
    ss.ss_flags = 0x70;
    fails!(libc::sigaltstack(&ss, null_mut()), EINVAL);
    ss.ss_flags = libc::SS_DISABLE;
    ok!(libc::sigaltstack(&ss, null_mut()));
    let mut old: libc::stack_t = std::mem::zeroed();
    ok!(libc::sigaltstack(null(), &mut old));
    assert_eq!(old.ss_flags, libc::SS_DISABLE);
}

extern "C" fn on_stack(_: i32) {
    unsafe {
        let mut old: libc::stack_t = std::mem::zeroed();
        libc::sigaltstack(null(), &mut old);
        CODE.store(old.ss_flags, SeqCst);
        let new = libc::stack_t { ss_sp: old.ss_sp, ss_flags: 0, ss_size: old.ss_size };
        let r = libc::sigaltstack(&new, null_mut());
        COUNT.store(if r == -1 { errno() } else { 0 }, SeqCst);
    }
}

unsafe fn altstack_reports_onstack() {
    altstack(65536);
    handle(libc::SIGUSR1, on_stack as *const () as usize, libc::SA_ONSTACK);
    ok!(libc::raise(libc::SIGUSR1));
    assert_eq!((CODE.load(SeqCst), n()), (libc::SS_ONSTACK, libc::EPERM));
}

extern "C" fn leave(_: i32, si: *mut libc::siginfo_t, _: *mut libc::c_void) {
    unsafe {
        libc::_exit(if (*si).si_code == SEGV_MAPERR || (*si).si_code == SEGV_ACCERR { 44 } else { 45 })
    };
}

#[inline(never)]
#[allow(unconditional_recursion)]
fn endless(n: u64) -> u64 {
    let a = [n; 64];
    std::hint::black_box(&a);
    endless(n + 1) + std::hint::black_box(a)[(n % 64) as usize]
}

unsafe fn altstack_overflow_survived() {
    let p = child(|| {
        let l = libc::rlimit { rlim_cur: 1 << 20, rlim_max: libc::RLIM_INFINITY };
        libc::setrlimit(libc::RLIMIT_STACK, &l);
        altstack(65536);
        handle(libc::SIGSEGV, leave as *const () as usize, libc::SA_ONSTACK | libc::SA_SIGINFO);
        endless(0) as i32
    });
    expect_exit(p, 44);
    // Without an alternate stack the frame cannot be written: the signal kills although it is handled.
    let p = child(|| {
        let l = libc::rlimit { rlim_cur: 1 << 20, rlim_max: libc::RLIM_INFINITY };
        libc::setrlimit(libc::RLIMIT_STACK, &l);
        let ss = libc::stack_t { ss_sp: null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        libc::sigaltstack(&ss, null_mut());
        handle(libc::SIGSEGV, leave as *const () as usize, libc::SA_SIGINFO);
        endless(0) as i32
    });
    expect_killed(p, libc::SIGSEGV);
}

extern "C" fn raise2(_: i32) {
    unsafe { libc::raise(libc::SIGUSR2) };
    CODE.store(n(), SeqCst);
}

unsafe fn sa_mask_applies() {
    handle(libc::SIGUSR2, count as *const () as usize, 0);
    let mut sa: libc::sigaction = std::mem::zeroed();
    sa.sa_sigaction = raise2 as *const () as usize;
    libc::sigaddset(&mut sa.sa_mask, libc::SIGUSR2);
    ok!(libc::sigaction(libc::SIGUSR1, &sa, null_mut()));
    ok!(libc::raise(libc::SIGUSR1));
    assert_eq!((CODE.load(SeqCst), n()), (0, 1), "held back inside the handler, delivered after it");
}

extern "C" fn open_page(_: i32, si: *mut libc::siginfo_t, _: *mut libc::c_void) {
    unsafe {
        let a = (*si).si_addr() as usize;
        ADDR.store(a, SeqCst);
        CODE.store((*si).si_code, SeqCst);
        COUNT.fetch_add(1, SeqCst);
        libc::mprotect((a & !4095) as *mut _, 4096, libc::PROT_READ | libc::PROT_WRITE);
    }
}

unsafe fn segv_siginfo_and_resume() {
    let p = map(32 * 4096, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    handle(libc::SIGSEGV, open_page as *const () as usize, libc::SA_SIGINFO);
    for i in 0..32 {
        let a = p.add(i * 4096 + 100 + i);
        a.write_volatile(i as u8);
        assert_eq!((ADDR.load(SeqCst), CODE.load(SeqCst), n()), (a as usize, SEGV_ACCERR, i as i32 + 1));
        assert_eq!(read_volatile(a), i as u8, "the store was done again after the handler");
    }
}

/// Runs `f` in a child with `sig` handled: the handler checks number and code and skips out with status 50.
unsafe fn fault(sig: i32, code: i32, f: impl FnOnce()) {
    static WANT: AtomicI32 = AtomicI32::new(0);
    extern "C" fn h(_: i32, si: *mut libc::siginfo_t, _: *mut libc::c_void) {
        unsafe { libc::_exit(if (*si).si_code == WANT.load(SeqCst) { 50 } else { (*si).si_code & 0x7f }) };
    }
    WANT.store(code, SeqCst);
    let p = child(|| {
        handle(sig, h as *const () as usize, libc::SA_SIGINFO);
        f();
        1
    });
    expect_exit(p, 50);
    let p = child(|| {
        libc::signal(sig, libc::SIG_DFL);
        f2(sig);
        1
    });
    expect_killed(p, sig);
}

unsafe fn f2(sig: i32) {
    match sig {
        libc::SIGFPE => divide(),
        libc::SIGILL => std::arch::asm!("ud2"),
        _ => std::arch::asm!("int3"),
    }
}

unsafe fn divide() {
    std::arch::asm!("xor edx, edx", "mov eax, 1", "xor ecx, ecx", "div ecx", out("eax") _, out("ecx") _, out("edx") _);
}

unsafe fn fpe_siginfo() {
    fault(libc::SIGFPE, FPE_INTDIV, || divide());
}

unsafe fn ill_siginfo() {
    fault(libc::SIGILL, ILL_ILLOPN, || std::arch::asm!("ud2"));
}

unsafe fn trap_siginfo() {
    fault(libc::SIGTRAP, libc::SI_KERNEL, || std::arch::asm!("int3"));
}

unsafe fn fault_while_blocked_kills() {
    let p = child(|| {
        handle(libc::SIGSEGV, leave as *const () as usize, libc::SA_SIGINFO);
        mask(libc::SIG_BLOCK, libc::SIGSEGV);
        read_volatile(8 as *const u8);
        0
    });
    expect_killed(p, libc::SIGSEGV);
}

unsafe fn fault_while_ignored_kills() {
    let p = child(|| {
        libc::signal(libc::SIGSEGV, libc::SIG_IGN);
        read_volatile(8 as *const u8);
        0
    });
    expect_killed(p, libc::SIGSEGV);
}

unsafe fn kill_permission() {
    if libc::getuid() != 0 {
        skip("needs root");
    }
    let victim = child(|| {
        loop {
            libc::pause();
        }
    });
    let p = child(move || {
        ok!(libc::setresuid(1234, 1234, 1234));
        fails!(libc::kill(victim, libc::SIGTERM), EPERM);
        fails!(libc::kill(victim, 0), EPERM);
        0
    });
    expect_exit(p, 0);
    ok!(libc::kill(victim, libc::SIGTERM));
    expect_killed(victim, libc::SIGTERM);
}

unsafe fn stop_and_continue() {
    let m =
        map(4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS).cast::<u64>();
    // The child spins without system calls: stopping has to take the processor away from it.
    let p = child(|| {
        loop {
            m.write_volatile(read_volatile(m) + 1);
        }
    });
    while read_volatile(m) == 0 {
        sleep_ms(1);
    }
    let mut s = 0;
    ok!(libc::kill(p, libc::SIGSTOP));
    assert_eq!(ok!(libc::waitpid(p, &mut s, libc::WUNTRACED)), p);
    assert!(libc::WIFSTOPPED(s));
    let a = read_volatile(m);
    sleep_ms(50);
    assert_eq!(read_volatile(m), a, "a stopped process does not run");
    ok!(libc::kill(p, libc::SIGCONT));
    let end = now_ms() + 5000;
    while read_volatile(m) == a && now_ms() < end {
        sleep_ms(1);
    }
    assert_ne!(read_volatile(m), a, "it goes on");
    ok!(libc::kill(p, libc::SIGSTOP));
    ok!(libc::kill(p, libc::SIGKILL));
    expect_killed(p, libc::SIGKILL);
}

extern "C" fn chld(_: i32, si: *mut libc::siginfo_t, _: *mut libc::c_void) {
    unsafe { CODE.store((*si).si_code, SeqCst) };
}

unsafe fn stop_reports_sigchld() {
    handle(libc::SIGCHLD, chld as *const () as usize, libc::SA_SIGINFO);
    let p = child(|| {
        loop {
            libc::pause();
        }
    });
    for (sig, code) in [
        (libc::SIGSTOP, libc::CLD_STOPPED),
        (libc::SIGCONT, libc::CLD_CONTINUED),
        (libc::SIGKILL, libc::CLD_KILLED),
    ] {
        ok!(libc::kill(p, sig));
        let end = now_ms() + 5000;
        while CODE.load(SeqCst) != code && now_ms() < end {
            sleep_ms(1);
        }
        assert_eq!(CODE.load(SeqCst), code);
    }
    expect_killed(p, libc::SIGKILL);
}

unsafe fn cont_clears_stop() {
    let p = child(|| {
        mask(libc::SIG_BLOCK, libc::SIGTSTP);
        libc::raise(libc::SIGTSTP);
        // A stop signal that is pending goes when a SIGCONT comes.
        libc::raise(libc::SIGCONT);
        let mut s: libc::sigset_t = std::mem::zeroed();
        ok!(libc::sigpending(&mut s));
        libc::sigismember(&s, libc::SIGTSTP)
    });
    expect_exit(p, 0);
}

unsafe fn signal_me_after(ms: i64, sig: i32) -> i32 {
    let parent = libc::getpid();
    child(move || {
        sleep_ms(ms);
        libc::kill(parent, sig);
        0
    })
}

unsafe fn restart_wait4() {
    handle(libc::SIGUSR1, count as *const () as usize, libc::SA_RESTART);
    let slow = child(|| {
        sleep_ms(100);
        9
    });
    let k = signal_me_after(30, libc::SIGUSR1);
    let mut s = 0;
    assert_eq!(ok!(libc::waitpid(slow, &mut s, 0)), slow);
    assert_eq!((libc::WEXITSTATUS(s), n()), (9, 1));
    expect_exit(k, 0);
}

unsafe fn restart_accept() {
    let s = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    let mut a: libc::sockaddr_un = std::mem::zeroed();
    a.sun_family = libc::AF_UNIX as u16;
    a.sun_path[..2].copy_from_slice(&[b's' as i8, 0]);
    ok!(libc::bind(s, (&raw const a).cast(), 4));
    ok!(libc::listen(s, 1));
    handle(libc::SIGUSR1, count as *const () as usize, libc::SA_RESTART);
    let parent = libc::getpid();
    let k = child(|| {
        sleep_ms(30);
        libc::kill(parent, libc::SIGUSR1);
        sleep_ms(30);
        let s = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
        ok!(libc::connect(s, (&raw const a).cast(), 4));
        0
    });
    ok!(libc::accept(s, null_mut(), null_mut()));
    assert_eq!(n(), 1);
    expect_exit(k, 0);
    handle(libc::SIGUSR1, count as *const () as usize, 0);
    let k = signal_me_after(30, libc::SIGUSR1);
    fails!(libc::accept(s, null_mut(), null_mut()), EINTR);
    expect_exit(k, 0);
}

unsafe fn restart_futex_and_write() {
    handle(libc::SIGUSR1, count as *const () as usize, libc::SA_RESTART);
    let (r, w) = pipe();
    put(w, &[0; 65536]);
    let parent = libc::getpid();
    let k = child(|| {
        sleep_ms(30);
        libc::kill(parent, libc::SIGUSR1);
        sleep_ms(30);
        get(r, 65536);
        sleep_ms(30);
        0
    });
    put(w, b"after the room came");
    assert_eq!(n(), 1);
    expect_exit(k, 0);
}

unsafe fn epipe_signal() {
    let (r, w) = pipe();
    ok!(libc::close(r));
    handle(libc::SIGPIPE, count as *const () as usize, 0);
    fails!(libc::write(w, b"x".as_ptr().cast(), 1), EPIPE);
    assert_eq!(n(), 1);
}

unsafe fn rt_order_by_number() {
    static ORDER: [AtomicI32; 4] = [const { AtomicI32::new(0) }; 4];
    extern "C" fn h(s: i32) {
        ORDER[COUNT.fetch_add(1, SeqCst) as usize % 4].store(s, SeqCst);
    }
    let mut all: libc::sigset_t = std::mem::zeroed();
    for s in [50, 45, 48, 47] {
        let mut sa: libc::sigaction = std::mem::zeroed();
        sa.sa_sigaction = h as *const () as usize;
        libc::sigfillset(&mut sa.sa_mask);
        ok!(libc::sigaction(s, &sa, null_mut()));
        libc::sigaddset(&mut all, s);
    }
    ok!(libc::sigprocmask(libc::SIG_BLOCK, &all, null_mut()));
    for s in [50, 45, 48, 47] {
        ok!(libc::kill(libc::getpid(), s));
    }
    ok!(libc::sigprocmask(libc::SIG_UNBLOCK, &all, null_mut()));
    assert_eq!(n(), 4);
    // With the other signals masked in the handler each is delivered when the one before has returned: lowest first.
    assert_eq!(ORDER.each_ref().map(|o| o.load(SeqCst)), [45, 47, 48, 50]);
}

unsafe fn signalfd_reads() {
    let mut s: libc::sigset_t = std::mem::zeroed();
    libc::sigaddset(&mut s, libc::SIGUSR1);
    ok!(libc::sigprocmask(libc::SIG_BLOCK, &s, null_mut()));
    let fd = libc::signalfd(-1, &s, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
    if fd < 0 && errno() == libc::ENOSYS {
        skip("signalfd is not there");
    }
    ok!(fd);
    let mut b = [0u8; 128];
    fails!(libc::read(fd, b.as_mut_ptr().cast(), 128), EAGAIN);
    ok!(libc::kill(libc::getpid(), libc::SIGUSR1));
    let mut pf = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    assert_eq!(ok!(libc::poll(&mut pf, 1, 1000)), 1);
    assert_eq!(get(fd, 128).len(), 128);
    ok!(libc::kill(libc::getpid(), libc::SIGUSR1));
    let b = get(fd, 256);
    assert_eq!(b.len(), 128);
    assert_eq!(u32::from_ne_bytes(b[0..4].try_into().unwrap()), libc::SIGUSR1 as u32);
    assert_eq!(u32::from_ne_bytes(b[12..16].try_into().unwrap()), libc::getpid() as u32);
}

unsafe fn siglongjmp_style_exit() {
    // Runtimes leave handlers without sigreturn; here a thread of its own does, and the process goes on.
    extern "C" fn h(_: i32) {
        COUNT.fetch_add(1, SeqCst);
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
    handle(libc::SIGUSR1, h as *const () as usize, 0);
    for i in 0..8 {
        let stack = anon(65536);
        extern "C" fn body(_: *mut libc::c_void) -> i32 {
            unsafe {
                libc::syscall(
                    libc::SYS_tgkill,
                    libc::getpid(),
                    libc::syscall(libc::SYS_gettid),
                    libc::SIGUSR1,
                )
            };
            libc::SIGUSR1
        }
        let flags =
            libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_FS | libc::CLONE_FILES;
        ok!(libc::clone(body, stack.add(65536).cast(), flags, null_mut()));
        let end = now_ms() + 5000;
        while n() <= i && now_ms() < end {
            sleep_ms(1);
        }
        assert_eq!(n(), i + 1);
    }
}

extern "C" fn skip_load(_: i32, _: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    unsafe {
        let uc = uc.cast::<libc::ucontext_t>();
        // `mov al, [rdi]` is two bytes long; rax becomes a value that the load would not have given.
        (*uc).uc_mcontext.gregs[libc::REG_RIP as usize] += 2;
        (*uc).uc_mcontext.gregs[libc::REG_RAX as usize] = 0x5a;
        ADDR.store((*uc).uc_mcontext.gregs[libc::REG_CR2 as usize] as usize, SeqCst);
        CODE.store((*uc).uc_mcontext.gregs[libc::REG_TRAPNO as usize] as i32, SeqCst);
    }
}

unsafe fn handler_changes_context() {
    handle(libc::SIGSEGV, skip_load as *const () as usize, libc::SA_SIGINFO);
    let v: u64;
    std::arch::asm!("mov al, [rdi]", in("rdi") 0x1234usize, inlateout("rax") 0u64 => v);
    assert_eq!((v, ADDR.load(SeqCst), CODE.load(SeqCst)), (0x5a, 0x1234, 14));
}

unsafe fn nested_different_signals() {
    static DEPTH: AtomicI32 = AtomicI32::new(0);
    extern "C" fn h(s: i32) {
        DEPTH.fetch_max(s - 40, SeqCst);
        if s < 55 {
            unsafe { libc::raise(s + 1) };
        }
        COUNT.fetch_add(1, SeqCst);
    }
    for s in 40..=55 {
        handle(s, h as *const () as usize, 0);
    }
    ok!(libc::raise(40));
    assert_eq!((n(), DEPTH.load(SeqCst)), (16, 15));
}

unsafe fn thread_directed_stays() {
    // Directed at a thread that blocks it: nobody else may take it.
    handle(libc::SIGUSR1, count as *const () as usize, 0);
    mask(libc::SIG_BLOCK, libc::SIGUSR1);
    let tid = libc::syscall(libc::SYS_gettid);
    let t = std::thread::spawn(move || {
        mask(libc::SIG_UNBLOCK, libc::SIGUSR1);
        ok!(libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGUSR1));
        sleep_ms(50);
        n()
    });
    assert_eq!(t.join().unwrap(), 0);
    mask(libc::SIG_UNBLOCK, libc::SIGUSR1);
    assert_eq!(n(), 1);
}

extern "C" fn block_usr2_in_context(_: i32, _: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    unsafe { libc::sigaddset(&mut (*uc.cast::<libc::ucontext_t>()).uc_sigmask, libc::SIGUSR2) };
}

unsafe fn sigreturn_restores_mask() {
    handle(libc::SIGUSR1, block_usr2_in_context as *const () as usize, libc::SA_SIGINFO);
    ok!(libc::raise(libc::SIGUSR1));
    let mut s: libc::sigset_t = std::mem::zeroed();
    ok!(libc::sigprocmask(libc::SIG_BLOCK, null(), &mut s));
    assert_eq!(libc::sigismember(&s, libc::SIGUSR2), 1, "the mask of the frame is what counts");
    assert_eq!(libc::sigismember(&s, libc::SIGUSR1), 0);
}

unsafe fn sig_in_fork_child_pending_cleared() {
    mask(libc::SIG_BLOCK, libc::SIGUSR1);
    ok!(libc::raise(libc::SIGUSR1));
    let p = child(|| {
        let mut s: libc::sigset_t = std::mem::zeroed();
        ok!(libc::sigpending(&mut s));
        libc::sigismember(&s, libc::SIGUSR1)
    });
    expect_exit(p, 0);
}
