//! Attacks on what a stub needs to live: descriptors, thread ids, mappings, filters, and the bounds of everything.
use crate::run::{End, Tally, child, say};
use crate::{BLOCKS, STUB};
use std::time::Duration;

/// `closefds`: closes everything, opens on top of it, and still works.
pub fn close_all(_: &[String]) {
    let mut tally = Tally::default();
    tally.add(child(Duration::from_secs(20), || unsafe {
        for f in 0..4096 {
            libc::close(f);
        }
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        // New ones on the same numbers, moved over each other.
        for _ in 0..50 {
            libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        }
        for f in 0..64 {
            libc::dup2(f % 7, f);
        }
        let p = libc::mmap(std::ptr::null_mut(), 1 << 20, 3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
            .cast::<u8>();
        for i in 0..256 {
            p.add(i * 4096).write_volatile(1);
        }
        let t = std::thread::spawn(|| 7);
        let pid = libc::fork();
        if pid == 0 {
            libc::_exit(9);
        }
        let mut s = 0;
        let fine = t.join().is_ok_and(|v| v == 7)
            && libc::waitpid(pid, &mut s, 0) == pid
            && libc::WEXITSTATUS(s) == 9;
        libc::_exit(if fine { 0 } else { 5 });
    }));
    tally.print("closers");
}

/// `killtids`: every thread id there may be, by tgkill with the own group id and with the number as the group.
///
/// `kill` is tried with signal 0 alone: as root on a host it would reach others.
pub fn kill_tids(_: &[String]) {
    let mut tally = Tally::default();
    for sig in [libc::SIGUSR1, libc::SIGKILL, libc::SIGSTOP, 32, 40, 33, 64] {
        tally.add(child(Duration::from_secs(5), || unsafe {
            libc::setsid();
            let me = libc::getpid();
            let helper = std::thread::spawn(|| std::thread::sleep(Duration::from_secs(100)));
            for tid in 1..65536 {
                if tid != me || sig != libc::SIGSTOP {
                    libc::syscall(libc::SYS_tgkill, me, tid, if tid == me { 0 } else { sig });
                }
                libc::syscall(libc::SYS_tgkill, tid, tid, 0);
                libc::kill(tid, 0);
            }
            drop(helper);
            // A stop signal to the helper stops the whole group; the time limit outside then is the expected end.
        }));
    }
    tally.print("killers");
}

/// `mapover`: the stub's own addresses as targets of every memory call.
pub fn map_over(_: &[String]) {
    let mut tally = Tally::default();
    let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let places = [
        STUB,
        STUB + 0x1000,
        STUB + 0x12_0000,
        STUB + 0x13_0000,
        STUB + 0x20_0000,
        BLOCKS,
        BLOCKS + 0x7000,
        0x7fff_ffff_e000,
    ];
    for a in places {
        for len in [0x1000usize, 0x8000, 0x1_0000, 1 << 28] {
            for what in 0..9 {
                // At these addresses the host's Linux has room: a mapping there is harmless there and must be refused by Kibble.
                tally.add(child(Duration::from_secs(5), || unsafe {
                    let p = a as *mut libc::c_void;
                    match what {
                        0 => drop(libc::mmap(p, len, 3, anon | libc::MAP_FIXED | libc::MAP_NORESERVE, -1, 0)),
                        1 => drop(libc::mmap(p, len, 5, anon | libc::MAP_FIXED_NOREPLACE, -1, 0)),
                        2 => drop(libc::munmap(p, len)),
                        3 => drop(libc::mprotect(p, len, 7)),
                        4 => drop(libc::madvise(p, len, libc::MADV_DONTNEED)),
                        5 => {
                            let q = libc::mmap(std::ptr::null_mut(), 0x8000, 3, anon, -1, 0);
                            libc::mremap(
                                q,
                                0x8000,
                                len.min(0x8000),
                                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                                p,
                            );
                        }
                        6 => drop(libc::mremap(p, len, len * 2, libc::MREMAP_MAYMOVE)),
                        7 => drop(libc::syscall(libc::SYS_brk, a + len as u64)),
                        _ => drop(libc::syscall(libc::SYS_remap_file_pages, a, len, 0, 0, 0)),
                    }
                    // Still able to live?
                    libc::getppid();
                    let q = libc::mmap(std::ptr::null_mut(), 4096, 3, anon, -1, 0).cast::<u8>();
                    q.write_volatile(1);
                }));
            }
        }
    }
    // Everything that can be unmapped at once, from code that needs a stack no more.
    tally.add(child(Duration::from_secs(5), || unsafe {
        std::arch::asm!("syscall", "mov edi, 0", "mov eax, 60", "syscall",
            inlateout("rax") libc::SYS_munmap => _, in("rdi") 0, in("rsi") 0x7fff_ffff_f000u64, out("rcx") _, out("r11") _);
    }));
    tally.print("mappers");
}

/// `filters`: filters of the guest's own, tracing of itself and relatives, dumpable and death signals.
pub fn filters(_: &[String]) {
    let mut tally = Tally::default();
    // One instruction: return a value, for allow, errno, trap, notify, kill thread and kill process.
    for ret in [0x7fff_0000u32, 0x0005_0001, 0x0003_0000, 0x7fc0_0000, 0, 0x8000_0000, 0xffff_ffff] {
        for flags in [0u64, 1, 8, 0x3f] {
            tally.add(child(Duration::from_secs(3), || unsafe {
                libc::alarm(1);
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                let insn = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: ret }];
                let prog = libc::sock_fprog { len: 1, filter: insn.as_ptr().cast_mut() };
                libc::syscall(libc::SYS_seccomp, 1, flags, &prog);
                libc::getppid();
            }));
        }
    }
    for op in [0u64, 16, 0x4200, 0x4206, 3, 12, 24, u64::MAX] {
        tally.add(child(Duration::from_secs(3), || unsafe {
            libc::alarm(1);
            for pid in [0, libc::getpid(), libc::getppid(), 1] {
                // The parent is another hostile process, which an attach would leave stopped; PID 1 is only asked for what changes nothing.
                if (pid != 1 && op != 16) || op == 3 {
                    libc::syscall(libc::SYS_ptrace, op, pid, 8, 8);
                }
            }
        }));
    }
    for op in 0..80 {
        tally.add(child(Duration::from_secs(3), || unsafe {
            libc::alarm(1);
            for a in [0u64, 1, 2, 8, STUB, u64::MAX] {
                libc::syscall(libc::SYS_prctl, op, a, a, a, a);
            }
        }));
    }
    tally.print("filters");
}

/// `exhaust`: takes of everything until it is refused, within bounds that a host survives.
pub fn exhaust(_: &[String]) {
    let mut tally = Tally::default();
    tally.add(child(Duration::from_secs(30), || unsafe {
        let mut n = 0;
        while n < 100_000 && libc::eventfd(0, 0) >= 0 {
            n += 1;
        }
        say(&format!("{n} descriptors"));
    }));
    tally.add(child(Duration::from_secs(30), || unsafe {
        // Pages with alternating rights cannot be merged: each is a mapping.
        let mut n = 0;
        while n < 20_000 {
            let p = libc::mmap(
                std::ptr::null_mut(),
                4096,
                1 + 2 * (n & 1),
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if p == libc::MAP_FAILED {
                break;
            }
            n += 1;
        }
        say(&format!("{n} mappings"));
    }));
    tally.add(child(Duration::from_secs(30), || {
        let mut n = 0;
        while n < 500 {
            let t = std::thread::Builder::new()
                .stack_size(32768)
                .spawn(|| std::thread::sleep(Duration::from_secs(20)));
            if t.is_err() {
                break;
            }
            n += 1;
        }
        say(&format!("{n} threads"));
        // All of them go at once.
        unsafe { libc::_exit(0) };
    }));
    tally.add(child(Duration::from_secs(30), || unsafe {
        libc::setsid();
        let mut pids = Vec::new();
        while pids.len() < 200 {
            match libc::fork() {
                0 => {
                    libc::pause();
                    libc::_exit(0)
                }
                -1 => break,
                pid => pids.push(pid),
            }
        }
        say(&format!("{} processes", pids.len()));
        for p in pids {
            libc::kill(p, libc::SIGKILL);
            libc::waitpid(p, std::ptr::null_mut(), 0);
        }
    }));
    // Fills pipes and sockets that nobody reads.
    let e = child(Duration::from_secs(30), || unsafe {
        let mut total = 0u64;
        for _ in 0..200 {
            let mut s = [0; 2];
            if libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0, s.as_mut_ptr()) < 0
            {
                break;
            }
            loop {
                let r = libc::write(s[0], [0u8; 16384].as_ptr().cast(), 16384);
                if r <= 0 || total > 64 << 20 {
                    break;
                }
                total += r as u64;
            }
        }
        say(&format!("{} KiB in sockets", total >> 10));
    });
    tally.add(e);
    if e == Some(End::Hung) {
        say("the sockets never refused");
    }
    tally.print("hoarders");
}
