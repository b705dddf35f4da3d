//! Threads that block every signal of the host through the stub's own sigreturn, so that no kick reaches them.
use crate::STUB;
use crate::frames::{RIP, UC_SIGMASK_AT, honest, put, reg};
use crate::run::{End, Tally, child, say};
use std::time::{Duration, Instant};

/// Where the stub has `mov eax, 15; syscall`; `None` where there is no stub (on a host).
fn host_sigreturn() -> Option<u64> {
    const CODE: [u8; 7] = [0xb8, 15, 0, 0, 0, 0x0f, 0x05];
    for page in (STUB..STUB + 0x4000).step_by(4096) {
        let there = child(Duration::from_secs(2), || unsafe {
            (page as *const u8).read_volatile();
        });
        if there != Some(End::Exit(0)) {
            continue;
        }
        let text = unsafe { std::slice::from_raw_parts(page as *const u8, 4096) };
        if let Some(at) = text.windows(CODE.len()).position(|w| w == CODE) {
            return Some(page + at as u64);
        }
    }
    None
}

/// Goes on in `then` with every signal of the host blocked.
unsafe fn hide(site: u64, then: extern "C" fn() -> !) -> ! {
    let f = honest();
    put(f, UC_SIGMASK_AT, u64::MAX);
    reg(f, RIP, then as *const () as u64);
    std::arch::asm!("mov rsp, {f}", "jmp {s}", f = in(reg) f.add(8), s = in(reg) site, options(noreturn));
}

extern "C" fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

extern "C" fn sleep_and_spin() -> ! {
    unsafe { libc::usleep(300_000) };
    spin()
}

extern "C" fn exit_and_spin() -> ! {
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    spin()
}

extern "C" fn fault() -> ! {
    unsafe { (8 as *mut u8).write_volatile(1) };
    spin()
}

extern "C" fn calls_and_spin() -> ! {
    for _ in 0..1000 {
        unsafe { libc::getppid() };
    }
    spin()
}

extern "C" fn nothing(_: i32) {}

/// `hide`.
pub fn run(_: &[String]) {
    let Some(site) = host_sigreturn() else {
        say("no stub here, nothing to hide behind");
        return;
    };
    let mut tally = Tally::default();
    let goals: [(&str, extern "C" fn() -> !); 5] = [
        ("a loop", spin),
        ("a call that a signal ends", sleep_and_spin),
        ("exit of the thread", exit_and_spin),
        ("a fault", fault),
        ("calls", calls_and_spin),
    ];
    for (what, then) in goals {
        for thread in [false, true] {
            for wait in [100, 1000] {
                let t = Instant::now();
                let e = child(Duration::from_millis(wait), || unsafe {
                    let mut sa: libc::sigaction = std::mem::zeroed();
                    sa.sa_sigaction = nothing as *const () as usize;
                    libc::sigaction(libc::SIGALRM, &sa, std::ptr::null_mut());
                    let tv = libc::timeval { tv_sec: 0, tv_usec: 50_000 };
                    let it = libc::itimerval { it_interval: tv, it_value: tv };
                    libc::setitimer(libc::ITIMER_REAL, &it, std::ptr::null_mut());
                    if thread {
                        std::thread::spawn(move || hide(site, then));
                        std::thread::sleep(Duration::from_millis(500));
                    } else {
                        hide(site, then);
                    }
                });
                tally.add(e);
                // Two seconds are what a kick may take; that it ends at all is what counts.
                if t.elapsed() > Duration::from_secs(6) {
                    say(&format!("{what}: {:.1} s until it was gone", t.elapsed().as_secs_f64()));
                }
            }
        }
    }
    tally.print("hidden");
}
