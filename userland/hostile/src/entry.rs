//! Other ways into a kernel than `syscall` with an ordinary number.
use crate::run::{End, Tally, child, say};
use crate::{BLOCKS, STUB};
use std::time::Duration;

fn go(tally: &mut Tally, what: &str, f: impl FnOnce()) {
    let e = child(Duration::from_secs(3), || {
        unsafe { libc::alarm(1) };
        f();
    });
    if e == Some(End::Hung) {
        say(&format!("{what}: had to be killed"));
    }
    tally.add(e);
}

/// `entry`.
pub fn run(_: &[String]) {
    let mut tally = Tally::default();
    unsafe {
        // Numbers of 32-bit Linux: getpid, exit, write, mmap2, execve, sigreturn, clone, and noise.
        for nr in [20u32, 1, 4, 192, 11, 119, 120, 173, 2, 190, 0, 9999, u32::MAX] {
            go(&mut tally, "int 0x80", || {
                std::arch::asm!("push rbx", "mov ebx, 8", "int 0x80", "pop rbx",
                    inlateout("eax") nr => _, in("ecx") 8, in("edx") 8, in("esi") 8, in("edi") 8,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _);
            });
        }
        for nr in 0..600i64 {
            // Exit, fork and kill families apart (same numbers with bit 30), which would work where x32 is built in.
            let skip = [56, 57, 58, 60, 62, 200, 231, 234, 129, 169, 101, 512, 513, 520, 521, 522, 524, 297];
            if nr % 7 == 0 && !skip.contains(&nr) {
                go(&mut tally, "x32", || {
                    libc::syscall(0x4000_0000 | nr, 8, 8, 8, 8, 8, 8);
                });
            }
        }
        go(&mut tally, "sysenter", || std::arch::asm!("sysenter", options(noreturn)));
        for nr in [0u64, 96, 201, 309, 1 << 40, u64::MAX] {
            // syscall with the upper half of rax set, and from a misaligned, empty or stub-owned stack.
            go(&mut tally, "wide number", || {
                std::arch::asm!("syscall", inlateout("rax") nr => _, in("rdi") 8, in("rsi") 8,
                in("rdx") 8, out("rcx") _, out("r11") _)
            });
            for sp in [0u64, STUB, BLOCKS + 0x7000, u64::MAX] {
                go(&mut tally, "stack", || {
                    std::arch::asm!("mov rsp, {sp}", "syscall", "ud2", sp = in(reg) sp,
                    inlateout("rax") nr => _, in("rdi") 8, in("rsi") 8, in("rdx") 8, out("rcx") _, out("r11") _)
                });
            }
        }
        // The vsyscall page: its three entries, the middle of one, data behind them.
        for off in [0u64, 0x400, 0x800, 0x401, 0xc00, 0xfff] {
            go(&mut tally, "vsyscall", || {
                std::arch::asm!("call {f}", f = in(reg) 0xffff_ffff_ff60_0000u64 + off, in("rdi") 0,
                in("rsi") 0, clobber_abi("C"))
            });
        }
        for op in [
            0x1001u64,
            0x1002,
            0x1003,
            0x1004,
            0x1011,
            0x1012,
            0x1021,
            0x1022,
            0x1023,
            0x2001,
            0x2003,
            0x4001,
            0x5001,
            0,
            u64::MAX,
        ] {
            for a in [0u64, 8, STUB, BLOCKS, 0x7fff_ffff_f000, 0x8000_0000_0000_0000, u64::MAX] {
                go(&mut tally, "arch_prctl", || {
                    // After ARCH_SET_FS the C library is gone from under us: straight out.
                    std::arch::asm!("syscall", "mov edi, 0", "mov eax, 60", "syscall", inlateout("rax") 158u64 => _, in("rdi") op,
                        in("rsi") a, out("rcx") _, out("r11") _);
                });
            }
        }
        // Segment registers and instructions that touch the thread pointer or the machine.
        for what in 0..9 {
            go(&mut tally, "instruction", || match what {
                0 => std::arch::asm!("mov fs, {0:x}", "mov rax, fs:[0]", in(reg) 0x2b, out("rax") _),
                1 => std::arch::asm!("mov gs, {0:x}", "mov rax, gs:[0]", in(reg) 0x3, out("rax") _),
                2 => std::arch::asm!("mov ss, {0:x}", in(reg) 0),
                3 => std::arch::asm!("wrfsbase {0}", "mov rax, fs:[0]", in(reg) BLOCKS, out("rax") _),
                4 => std::arch::asm!("rdmsr", in("ecx") 0xc000_0082u32, out("eax") _, out("edx") _),
                5 => std::arch::asm!("hlt"),
                6 => std::arch::asm!("in al, dx", in("dx") 0x80u16, out("al") _),
                7 => std::arch::asm!("int 3", ".byte 0xf1"),
                _ => std::arch::asm!("push 0x23", "push 0", "retfq"),
            });
        }
    }
    tally.print("entries");
}
