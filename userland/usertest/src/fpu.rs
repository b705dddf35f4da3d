//! Vector and floating point state: over system calls, page faults, signals, fork and thread switches.
use crate::check::*;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

tests![
    ymm_over_syscalls,
    ymm_over_blocking_syscall,
    ymm_over_page_faults,
    ymm_over_signals,
    ymm_over_kicks,
    ymm_differs_per_thread,
    ymm_in_fork_child,
    mxcsr_and_x87_control,
    mxcsr_default_in_exec,
    handler_starts_clean_enough,
    frame_holds_state,
];

/// Pattern `seed` for register `i`.
fn lane(seed: u64, i: u64) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (i + 1).wrapping_mul(0x0101_0101_0101_0101)
}

fn need_avx() {
    if !std::is_x86_feature_detected!("avx") {
        skip("no AVX here");
    }
}

/// Loads all 16 ymm registers with a pattern, makes one system call, and compares: the count of wrong 8-byte lanes.
#[target_feature(enable = "avx")]
unsafe fn call_with_ymm(seed: u64, nr: i64, a: u64, b: u64, c: u64) -> usize {
    let mut want = [[0u64; 4]; 16];
    for (i, r) in want.iter_mut().enumerate() {
        for (j, l) in r.iter_mut().enumerate() {
            *l = lane(seed, (i * 4 + j) as u64);
        }
    }
    let mut got = [[0u64; 4]; 16];
    std::arch::asm!(
        "vmovdqu ymm0, [r12]", "vmovdqu ymm1, [r12+32]", "vmovdqu ymm2, [r12+64]", "vmovdqu ymm3, [r12+96]",
        "vmovdqu ymm4, [r12+128]", "vmovdqu ymm5, [r12+160]", "vmovdqu ymm6, [r12+192]", "vmovdqu ymm7, [r12+224]",
        "vmovdqu ymm8, [r12+256]", "vmovdqu ymm9, [r12+288]", "vmovdqu ymm10, [r12+320]", "vmovdqu ymm11, [r12+352]",
        "vmovdqu ymm12, [r12+384]", "vmovdqu ymm13, [r12+416]", "vmovdqu ymm14, [r12+448]", "vmovdqu ymm15, [r12+480]",
        "syscall",
        "vmovdqu [r13], ymm0", "vmovdqu [r13+32], ymm1", "vmovdqu [r13+64], ymm2", "vmovdqu [r13+96], ymm3",
        "vmovdqu [r13+128], ymm4", "vmovdqu [r13+160], ymm5", "vmovdqu [r13+192], ymm6", "vmovdqu [r13+224], ymm7",
        "vmovdqu [r13+256], ymm8", "vmovdqu [r13+288], ymm9", "vmovdqu [r13+320], ymm10", "vmovdqu [r13+352], ymm11",
        "vmovdqu [r13+384], ymm12", "vmovdqu [r13+416], ymm13", "vmovdqu [r13+448], ymm14", "vmovdqu [r13+480], ymm15",
        "vzeroupper",
        in("r12") want.as_ptr(), in("r13") got.as_mut_ptr(),
        inlateout("rax") nr => _, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") 0, in("r8") 0, in("r9") 0,
        out("rcx") _, out("r11") _,
        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
        out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
    );
    want.iter().flatten().zip(got.iter().flatten()).filter(|(w, g)| w != g).count()
}

unsafe fn ymm_over_syscalls() {
    need_avx();
    for i in 0..1000 {
        assert_eq!(call_with_ymm(i, libc::SYS_getppid, 0, 0, 0), 0);
        assert_eq!(call_with_ymm(i, libc::SYS_write, 1, 0, 0), 0);
        assert_eq!(call_with_ymm(i, 100_000, 0, 0, 0), 0, "an unknown call");
    }
}

unsafe fn ymm_over_blocking_syscall() {
    need_avx();
    let ts = libc::timespec { tv_sec: 0, tv_nsec: 3_000_000 };
    let p = child(|| {
        // Something else with other contents in the registers runs meanwhile.
        for i in 0..20_000 {
            if call_with_ymm(!i, libc::SYS_sched_yield, 0, 0, 0) != 0 {
                return 1;
            }
        }
        0
    });
    for i in 0..20 {
        assert_eq!(call_with_ymm(i, libc::SYS_nanosleep, &raw const ts as u64, 0, 0), 0);
    }
    expect_exit(p, 0);
}

/// Keeps a pattern in ymm4..ymm7 and touches `n` pages at `p`: the count of wrong lanes.
#[target_feature(enable = "avx")]
unsafe fn touch_with_ymm(seed: u64, p: *mut u8, n: usize) -> usize {
    let want: [u64; 16] = std::array::from_fn(|i| lane(seed, i as u64));
    let mut got = [0u64; 16];
    std::arch::asm!(
        "vmovdqu ymm4, [r12]", "vmovdqu ymm5, [r12+32]", "vmovdqu ymm6, [r12+64]", "vmovdqu ymm7, [r12+96]",
        "2:", "mov byte ptr [rdi], 1", "add rdi, 4096", "dec rcx", "jnz 2b",
        "vmovdqu [r13], ymm4", "vmovdqu [r13+32], ymm5", "vmovdqu [r13+64], ymm6", "vmovdqu [r13+96], ymm7", "vzeroupper",
        in("r12") want.as_ptr(), in("r13") got.as_mut_ptr(), inout("rdi") p => _, inout("rcx") n => _,
        out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
    );
    want.iter().zip(&got).filter(|(w, g)| w != g).count()
}

unsafe fn ymm_over_page_faults() {
    need_avx();
    for i in 0..8 {
        let p = anon(256 * 4096);
        assert_eq!(touch_with_ymm(i, p, 256), 0);
        libc::munmap(p.cast(), 256 * 4096);
    }
}

static COUNT: AtomicI32 = AtomicI32::new(0);

extern "C" fn clobber(_: i32) {
    unsafe {
        std::arch::asm!(
            "vpcmpeqd xmm0, xmm0, xmm0", "vinsertf128 ymm0, ymm0, xmm0, 1", "vmovaps ymm4, ymm0", "vmovaps ymm5, ymm0",
            "vmovaps ymm6, ymm0", "vmovaps ymm7, ymm0", "vmovaps ymm15, ymm0",
            out("xmm0") _, out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _, out("xmm15") _,
        );
    }
    COUNT.fetch_add(1, SeqCst);
}

unsafe fn ymm_over_signals() {
    need_avx();
    handle(libc::SIGUSR1, clobber as *const () as usize, 0);
    for i in 0..200 {
        let bad = call_with_ymm(i, libc::SYS_kill, libc::getpid() as u64, libc::SIGUSR1 as u64, 0);
        assert_eq!((bad, COUNT.load(SeqCst)), (0, i as i32 + 1));
    }
}

/// Spins with a pattern in registers until the handler has run `until` times.
#[target_feature(enable = "avx")]
unsafe fn spin_with_ymm(seed: u64, until: i32) -> usize {
    let want: [u64; 16] = std::array::from_fn(|i| lane(seed, i as u64));
    let mut got = [0u64; 16];
    std::arch::asm!(
        "vmovdqu ymm4, [r12]", "vmovdqu ymm5, [r12+32]", "vmovdqu ymm6, [r12+64]", "vmovdqu ymm7, [r12+96]",
        "2:", "cmp dword ptr [rdi], {until:e}", "jl 2b",
        "vmovdqu [r13], ymm4", "vmovdqu [r13+32], ymm5", "vmovdqu [r13+64], ymm6", "vmovdqu [r13+96], ymm7", "vzeroupper",
        in("r12") want.as_ptr(), in("r13") got.as_mut_ptr(), in("rdi") COUNT.as_ptr(), until = in(reg) until,
        out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
    );
    want.iter().zip(&got).filter(|(w, g)| w != g).count()
}

unsafe fn ymm_over_kicks() {
    need_avx();
    handle(libc::SIGUSR1, clobber as *const () as usize, 0);
    let parent = libc::getpid();
    let p = child(|| {
        loop {
            sleep_ms(1);
            if libc::kill(parent, libc::SIGUSR1) < 0 {
                return 0;
            }
        }
    });
    for i in 0..40 {
        assert_eq!(spin_with_ymm(i, COUNT.load(SeqCst) + 2), 0);
    }
    ok!(libc::kill(p, libc::SIGKILL));
    expect_killed(p, libc::SIGKILL);
}

unsafe fn ymm_differs_per_thread() {
    need_avx();
    let ts: Vec<_> = (0..8u64)
        .map(|t| {
            std::thread::spawn(move || {
                (0..2000)
                    .map(|i| call_with_ymm(t * 10_000 + i, libc::SYS_sched_yield, 0, 0, 0))
                    .sum::<usize>()
            })
        })
        .collect();
    for t in ts {
        assert_eq!(t.join().unwrap(), 0);
    }
}

unsafe fn ymm_in_fork_child() {
    need_avx();
    // Both sides return from the call with the registers of before.
    let me = libc::getpid();
    let bad = call_with_ymm(77, libc::SYS_fork, 0, 0, 0);
    if libc::syscall(libc::SYS_getpid) != i64::from(me) {
        libc::_exit(i32::from(bad != 0));
    }
    assert_eq!(bad, 0);
    let mut s = 0;
    ok!(libc::waitpid(-1, &mut s, 0));
    assert_eq!(s, 0, "the child's registers");
}

unsafe fn mxcsr() -> u32 {
    let mut v = 0u32;
    std::arch::asm!("stmxcsr [{}]", in(reg) &mut v);
    v
}

unsafe fn x87cw() -> u16 {
    let mut v = 0u16;
    std::arch::asm!("fnstcw [{}]", in(reg) &mut v);
    v
}

unsafe fn mxcsr_and_x87_control() {
    let (m, w) = (0x7f80u32, 0x0c7fu16);
    std::arch::asm!("ldmxcsr [{}]", "fldcw [{}]", in(reg) &m, in(reg) &w);
    libc::syscall(libc::SYS_getppid);
    sleep_ms(2);
    let here = (mxcsr() & !0x3f, x87cw());
    let p = child(|| i32::from((mxcsr() & !0x3f, x87cw()) != (m, w)));
    let (dm, dw) = (0x1f80u32, 0x037fu16);
    std::arch::asm!("ldmxcsr [{}]", "fldcw [{}]", in(reg) &dm, in(reg) &dw);
    assert_eq!(here, (m, w));
    expect_exit(p, 0);
}

unsafe fn mxcsr_default_in_exec() {
    let m = crate::exec::me();
    let p = child(|| {
        let m1 = 0x7f80u32;
        std::arch::asm!("ldmxcsr [{}]", in(reg) &m1);
        crate::exec::execv(&m, &["x", "helper", "mxcsr"])
    });
    expect_exit(p, 0);
}

/// `usertest helper mxcsr`: a fresh program starts with the ABI's defaults.
pub fn helper_mxcsr() -> i32 {
    unsafe { i32::from(mxcsr() & !0x3f != 0x1f80 || x87cw() != 0x37f) }
}

unsafe fn handler_starts_clean_enough() {
    static SEEN: AtomicI32 = AtomicI32::new(0);
    extern "C" fn h(_: i32) {
        // The System V ABI wants the direction flag clear on entry of a function.
        let f: u64;
        unsafe { std::arch::asm!("pushfq", "pop {}", out(reg) f) };
        SEEN.store(if f & 0x400 == 0 { 1 } else { 2 }, SeqCst);
    }
    handle(libc::SIGUSR1, h as *const () as usize, 0);
    std::arch::asm!("std", "syscall", "cld",
        inlateout("rax") libc::SYS_kill => _, in("rdi") libc::getpid(), in("rsi") libc::SIGUSR1, out("rcx") _, out("r11") _);
    assert_eq!(SEEN.load(SeqCst), 1);
}

extern "C" fn change_xmm(_: i32, _: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    unsafe {
        let fp = (*uc.cast::<libc::ucontext_t>()).uc_mcontext.fpregs;
        if !fp.is_null() {
            COUNT.store((*fp)._xmm[15].element[0] as i32, SeqCst);
            (*fp)._xmm[15].element[0] = 0x600d;
        }
    }
}

unsafe fn frame_holds_state() {
    handle(libc::SIGUSR1, change_xmm as *const () as usize, libc::SA_SIGINFO);
    let v: u64;
    std::arch::asm!("mov r12d, 0x1234", "movq xmm15, r12", "syscall", "movq r12, xmm15",
        inlateout("rax") libc::SYS_kill => _, in("rdi") libc::getpid(), in("rsi") libc::SIGUSR1,
        out("rcx") _, out("r11") _, out("r12") v, out("xmm15") _);
    assert_eq!(
        (COUNT.load(SeqCst), v),
        (0x1234, 0x600d),
        "the frame holds xmm15 and what the handler put there returns"
    );
}
