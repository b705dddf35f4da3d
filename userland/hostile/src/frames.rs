//! Forged signal frames, and alternate stacks that lead nowhere.
use crate::run::{Tally, child};
use crate::{BLOCK_LEN, BLOCKS, STUB};
use std::time::Duration;

/// Bytes of a forged frame, with room for vector state behind the context.
const FRAME: usize = 8192;
/// Offset in `struct rt_sigframe` of the context: behind the return address.
const UC: usize = 8;
/// Offsets in `struct ucontext` (<asm/ucontext.h>, <asm/sigcontext.h>).
const UC_MCONTEXT: usize = 40;
const UC_SIGMASK: usize = 296;
/// Offset in the frame of the mask to come back to.
pub const UC_SIGMASK_AT: usize = UC + UC_SIGMASK;
/// Words of `struct sigcontext`: r8.. , rdi 8, rsi 9, rbp 10, rbx 11, rdx 12, rax 13, rcx 14, rsp 15, rip 16, eflags 17, cs 18, fpstate 23.
const RSP: usize = 15;
pub const RIP: usize = 16;
const EFLAGS: usize = 17;
const SEGMENTS: usize = 18;
const FPSTATE: usize = 23;

fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

pub unsafe fn put(frame: *mut u8, offset: usize, value: u64) {
    frame.add(offset).cast::<u64>().write_unaligned(value);
}

pub unsafe fn reg(frame: *mut u8, word: usize, value: u64) {
    put(frame, UC + UC_MCONTEXT + word * 8, value);
}

extern "C" fn landed() -> ! {
    unsafe { libc::_exit(42) }
}

/// rt_sigreturn with the stack pointer where the kernel expects it: behind the return address.
unsafe fn sigreturn(frame: *mut u8) -> ! {
    std::arch::asm!("mov rsp, {f}", "mov eax, 15", "syscall", "ud2", f = in(reg) frame.add(8), options(noreturn));
}

/// A frame that would be valid: goes on in `landed` on a stack of its own with nothing blocked.
pub unsafe fn honest() -> *mut u8 {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let p = libc::mmap(std::ptr::null_mut(), 1 << 20, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        .cast::<u8>();
    let frame = p.add(64 << 10);
    reg(frame, RSP, p as u64 + (512 << 10) + 8);
    reg(frame, RIP, landed as *const () as u64);
    reg(frame, EFLAGS, 0x202);
    reg(frame, SEGMENTS, 0x002b_0000_0000_0033);
    frame
}

const ADDRESSES: [u64; 12] = [
    0,
    8,
    0x1000,
    STUB,
    STUB + 0x80,
    STUB + 0x12_0000,
    BLOCKS + BLOCK_LEN - 8,
    0x7fff_ffff_f000,
    0x8000_0000_0000_0000,
    0xffff_8000_0000_0000,
    0xffff_ffff_ff60_0000,
    u64::MAX,
];

/// `sigreturn`.
pub fn run(_: &[String]) {
    let mut tally = Tally::default();
    let limit = Duration::from_secs(3);
    let mut go = |change: &dyn Fn(*mut u8)| {
        tally.add(child(limit, || unsafe {
            libc::alarm(1);
            let f = honest();
            change(f);
            sigreturn(f)
        }));
    };
    go(&|_| {});
    unsafe {
        for a in ADDRESSES {
            go(&|f| reg(f, RIP, a));
            go(&|f| reg(f, RSP, a));
            go(&|f| reg(f, FPSTATE, a));
            go(&|f| put(f, UC + 8, a)); // uc_link
            go(&|f| put(f, UC + 16, a)); // the alternate stack
        }
        for mask in [u64::MAX, 1 << 8, 1 << 39, 1 << 30, 0xffff_ffff_0000_0000] {
            // All blocked, then a loop: the kick must still come through, and the kill.
            go(&|f| put(f, UC + UC_SIGMASK, mask));
            tally_spin(mask, &mut |e| say_end(mask, e));
        }
        for segs in [0u64, u64::MAX, 0x23, 0x10, 0x2b_0000_0000_0010, 0x33, 0x7, 0xfff8_fff8_fff8_fff8] {
            go(&|f| reg(f, SEGMENTS, segs));
        }
        for flags in [0u64, u64::MAX, 0x100, 0x3000, 0x2_0000, 0x4_0000, 0x20_0000, 0x400] {
            go(&|f| reg(f, EFLAGS, flags));
        }
        // Vector state with hostile headers: legacy area, magic numbers, sizes and feature bits that lie.
        let mut seed = 0x1234_5678_9abc_def1u64;
        for i in 0..60 {
            let (a, b, size, bits) =
                (random(&mut seed), random(&mut seed), random(&mut seed), random(&mut seed));
            go(&|f| {
                let fp = f.add(4096 - (f as usize % 64));
                reg(f, FPSTATE, fp as u64 + (if i % 7 == 0 { 4 } else { 0 }));
                put(fp, 24, if i % 3 == 0 { u64::MAX } else { 0x1f80 }); // mxcsr and its mask
                put(fp, 464, 0x4650_5853 | (size << 32)); // magic1, extended size
                put(fp, 472, bits);
                put(fp, 480, [576, 832, 2696, size & 0xffff][i % 4]);
                put(fp, 512, a); // header: xstate_bv, xcomp_bv
                put(fp, 520, if i % 2 == 0 { 0 } else { b });
                put(f, UC, 1); // UC_FP_XSTATE
            });
        }
        // Whole frames of noise, and frames half over the edge of memory.
        for i in 0..150u64 {
            go(&|f| {
                let mut s = 0x9e37_79b9_7f4a_7c15 ^ (i + 1);
                for w in 0..FRAME / 8 {
                    put(f, w * 8, random(&mut s));
                }
            });
        }
        for a in ADDRESSES {
            tally.add(child(limit, || sigreturn(a as *mut u8)));
        }
    }
    tally.print("forged frames");
}

fn say_end(mask: u64, e: Option<crate::run::End>) {
    if e == Some(crate::run::End::Exit(0)) {
        crate::run::say(&format!("mask {mask:#x}: a spinning thread ended by itself"));
    }
}

extern "C" fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// Comes back from a frame with everything blocked into a loop without calls: SIGKILL from outside must end it.
unsafe fn tally_spin(mask: u64, report: &mut dyn FnMut(Option<crate::run::End>)) {
    report(child(Duration::from_millis(200), || {
        let f = honest();
        reg(f, RIP, spin as *const () as u64);
        put(f, UC + UC_SIGMASK, mask);
        sigreturn(f)
    }));
}

extern "C" fn nest(sig: i32) {
    unsafe { libc::raise(sig) };
}

/// `altstack`.
pub fn altstacks(_: &[String]) {
    let mut tally = Tally::default();
    let limit = Duration::from_secs(3);
    for a in ADDRESSES {
        for size in [2048usize, 0x8000, 1 << 30, usize::MAX / 2] {
            tally.add(child(limit, || unsafe {
                let ss = libc::stack_t { ss_sp: a as *mut _, ss_flags: 0, ss_size: size };
                libc::sigaltstack(&ss, std::ptr::null_mut());
                let mut sa: libc::sigaction = std::mem::zeroed();
                sa.sa_sigaction = nest as *const () as usize;
                sa.sa_flags = libc::SA_ONSTACK | libc::SA_NODEFER;
                for s in [libc::SIGUSR1, libc::SIGSEGV, libc::SIGBUS] {
                    libc::sigaction(s, &sa, std::ptr::null_mut());
                }
                libc::raise(libc::SIGUSR1);
            }));
        }
        // Without an alternate stack, and the stack pointer itself led astray; then a fault, then a call.
        for action in 0..2 {
            tally.add(child(limit, || unsafe {
                let mut sa: libc::sigaction = std::mem::zeroed();
                sa.sa_sigaction = nest as *const () as usize;
                libc::sigaction(libc::SIGSEGV, &sa, std::ptr::null_mut());
                libc::sigaction(libc::SIGUSR1, &sa, std::ptr::null_mut());
                let me = libc::getpid();
                if action == 0 {
                    std::arch::asm!("mov rsp, {a}", "mov qword ptr [8], 1", a = in(reg) a);
                } else {
                    std::arch::asm!("mov rsp, {a}", "mov eax, 62", "mov esi, 10", "syscall", "ud2", a = in(reg) a, in("edi") me);
                }
            }));
        }
    }
    tally.print("stacks");
}
