//! Jumps into every byte of the stub's text with several sets of registers.
use crate::run::{End, Tally, child, say};
use std::time::Duration;

extern "C" fn caught(sig: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // Out at once: what the registers are now is anybody's guess.
    unsafe { libc::_exit(100 + sig) };
}

unsafe fn handlers() {
    let len = 64 << 10;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let p = libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
    let ss = libc::stack_t { ss_sp: p, ss_flags: 0, ss_size: len };
    libc::sigaltstack(&ss, std::ptr::null_mut());
    let mut sa: libc::sigaction = std::mem::zeroed();
    sa.sa_sigaction = caught as *const () as usize;
    sa.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    for s in
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS, libc::SIGALRM]
    {
        libc::sigaction(s, &sa, std::ptr::null_mut());
    }
}

/// Jumps to `target` with the registers that the stub's code uses set to `fill`.
unsafe fn leap(target: u64, fill: u64) {
    std::arch::asm!(
        "mov rax, {f}", "mov rcx, {f}", "mov rdx, {f}", "mov rsi, {f}", "mov rdi, {f}", "mov r8, {f}", "mov r9, {f}",
        "mov r10, {f}", "mov r12, {f}", "mov r13, {f}", "mov r14, {f}", "mov r15, {f}", "jmp r11",
        f = in(reg) fill, in("r11") target,
        out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _, out("r10") _,
        out("r12") _, out("r13") _, out("r14") _, out("r15") _,
    );
}

fn one(target: u64, fill: u64) -> Option<End> {
    child(Duration::from_secs(2), || unsafe {
        handlers();
        // What loops in there is ended by the alarm; what sleeps for ever is killed from outside.
        let t = libc::timeval { tv_sec: 0, tv_usec: 200_000 };
        let it = libc::itimerval { it_interval: t, it_value: t };
        libc::setitimer(libc::ITIMER_REAL, &it, std::ptr::null_mut());
        leap(target, fill);
    })
}

/// Whether anything can be fetched at a page: a jump to an unmapped page gives SIGSEGV at once, as does a non-executable one, so
/// three probes stand for all bytes of a page on which they all do.
fn page_seems_empty(page: u64) -> bool {
    [0, 0x7ff, 0xff0].iter().all(|o| {
        matches!(one(page + o, 0), Some(End::Exit(e)) if e == 100 + libc::SIGSEGV)
            && unsafe { !readable(page + o) }
    })
}

/// Whether the kernel lets this process read the byte (the stub's text is mapped readable for it by the host).
unsafe fn readable(a: u64) -> bool {
    // A probe by the processor itself, since a kernel that guards its stub answers EFAULT for addresses that can be read.
    child(Duration::from_secs(2), || {
        handlers();
        (a as *const u8).read_volatile();
    }) == Some(End::Exit(0))
}

/// `jump [FROM TO]`.
pub fn run(args: &[String]) {
    let hex = |i: usize, default: u64| {
        args.get(i).map_or(default, |a| {
            u64::from_str_radix(a.trim_start_matches("0x"), 16).unwrap_or_else(|e| {
                eprintln!("hostile jump: {a:?}: expected an address in hex: {e}");
                std::process::exit(2)
            })
        })
    };
    let (from, to) = (hex(0, crate::STUB), hex(1, crate::STUB + 0x3000));
    let mut tally = Tally::default();
    let mut page = from & !0xfff;
    while page < to {
        if page_seems_empty(page) {
            say(&format!("{page:#x}: nothing there"));
            tally.add(Some(End::Exit(100 + libc::SIGSEGV)));
            page += 0x1000;
            continue;
        }
        say(&format!("{page:#x}: every byte"));
        for a in page.max(from)..(page + 0x1000).min(to) {
            // Zero, a descriptor-like number and a pointer into the stub in turn.
            let fill = [0, 1, crate::STUB + 0x12_0000, u64::MAX][(a % 4) as usize];
            tally.add(one(a, fill));
        }
        page += 0x1000;
    }
    tally.print("jumps");
}
