//! Bad pointers and odd arguments to every call: an errno, never a crash of the program or of the kernel.
use crate::check::*;

tests![
    efault_table,
    every_call_bad_pointers,
    every_call_kernel_addresses,
    every_call_end_of_mapping,
    unknown_numbers,
    partial_copies,
    string_at_end_of_page,
    iovec_mixed,
    read_only_target,
    unmapped_stack_signal,
];

/// In the first page, a hole, above the guest's half, not canonical, in the kernel's half.
const BAD: [u64; 5] = [8, 0x3000_0000_0000 - 8, 0x7fff_ffff_f000, 0x8000_0000_0000_0000, u64::MAX - 7];

/// Argument kinds of the table: `P` the bad pointer, others as numbers.
const P: u64 = 0x7e57_0000_0000_0001;

/// Calls that must say EFAULT when the pointer is bad, with otherwise valid arguments. `FD` stands for a pipe's read end with data,
/// `WR` for its write end, `SK` for a connected socket, `EP`, `DIR` and
/// `TFD` for an epoll, a directory and a timer descriptor.
const FD: u64 = P + 1;
const WR: u64 = P + 2;
const SK: u64 = P + 3;
const EP: u64 = P + 4;
const DIR: u64 = P + 5;
const TFD: u64 = P + 6;
/// A bad pointer of four-byte alignment.
const P4: u64 = P + 7;

#[rustfmt::skip]
const TABLE: &[(i64, [u64; 6])] = &[
    (libc::SYS_read, [FD, P, 4, 0, 0, 0]),
    (libc::SYS_write, [WR, P, 4, 0, 0, 0]),
    (libc::SYS_readv, [FD, P, 1, 0, 0, 0]),
    (libc::SYS_writev, [WR, P, 1, 0, 0, 0]),
    (libc::SYS_open, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_openat, [-100i64 as u64, P, 0, 0, 0, 0]),
    (libc::SYS_stat, [P, P, 0, 0, 0, 0]),
    (libc::SYS_fstat, [FD, P, 0, 0, 0, 0]),
    (libc::SYS_lstat, [P, P, 0, 0, 0, 0]),
    (libc::SYS_statx, [-100i64 as u64, P, 0, 0x7ff, P, 0]),
    (libc::SYS_access, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_pipe, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_pipe2, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_poll, [P, 1, 0, 0, 0, 0]),
    (libc::SYS_select, [10, P, 0, 0, 0, 0]),
    (libc::SYS_rt_sigaction, [10, P, 0, 8, 0, 0]),
    (libc::SYS_rt_sigaction, [10, 0, P, 8, 0, 0]),
    (libc::SYS_rt_sigprocmask, [0, P, 0, 8, 0, 0]),
    (libc::SYS_rt_sigprocmask, [0, 0, P, 8, 0, 0]),
    (libc::SYS_rt_sigpending, [P, 8, 0, 0, 0, 0]),
    (libc::SYS_rt_sigtimedwait, [P, 0, 0, 8, 0, 0]),
    (libc::SYS_rt_sigsuspend, [P, 8, 0, 0, 0, 0]),
    (libc::SYS_sigaltstack, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_sigaltstack, [0, P, 0, 0, 0, 0]),
    (libc::SYS_nanosleep, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_clock_nanosleep, [1, 0, P, 0, 0, 0]),
    (libc::SYS_clock_gettime, [1, P, 0, 0, 0, 0]),
    (libc::SYS_clock_getres, [1, P, 0, 0, 0, 0]),
    (libc::SYS_gettimeofday, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_time, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_getitimer, [0, P, 0, 0, 0, 0]),
    (libc::SYS_setitimer, [0, P, 0, 0, 0, 0]),
    (libc::SYS_uname, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_getcwd, [P, 4096, 0, 0, 0, 0]),
    (libc::SYS_chdir, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_rename, [P, P, 0, 0, 0, 0]),
    (libc::SYS_mkdir, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_rmdir, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_link, [P, P, 0, 0, 0, 0]),
    (libc::SYS_unlink, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_symlink, [P, P, 0, 0, 0, 0]),
    (libc::SYS_readlink, [P, P, 10, 0, 0, 0]),
    (libc::SYS_chmod, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_truncate, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_statfs, [P, P, 0, 0, 0, 0]),
    (libc::SYS_getrlimit, [7, P, 0, 0, 0, 0]),
    (libc::SYS_setrlimit, [7, P, 0, 0, 0, 0]),
    (libc::SYS_prlimit64, [0, 7, 0, P, 0, 0]),
    (libc::SYS_getrusage, [0, P, 0, 0, 0, 0]),
    (libc::SYS_sysinfo, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_times, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_getresuid, [P, P, P, 0, 0, 0]),
    (libc::SYS_capget, [P, P, 0, 0, 0, 0]),
    (libc::SYS_futex, [P4, 0, 0, 0, 0, 0]),
    (libc::SYS_sched_getaffinity, [0, 128, P, 0, 0, 0]),
    (libc::SYS_sched_setaffinity, [0, 128, P, 0, 0, 0]),
    (libc::SYS_getdents64, [DIR, P, 4096, 0, 0, 0]),
    (libc::SYS_epoll_ctl, [EP, 1, FD, P, 0, 0]),
    (libc::SYS_socketpair, [1, 1, 0, P, 0, 0]),
    (libc::SYS_bind, [SK, P, 16, 0, 0, 0]),
    (libc::SYS_connect, [SK, P, 16, 0, 0, 0]),
    (libc::SYS_sendto, [SK, P, 4, 0, 0, 0]),
    (libc::SYS_recvfrom, [SK, P, 4, 0x40, 0, 0]),
    (libc::SYS_sendmsg, [SK, P, 0, 0, 0, 0]),
    (libc::SYS_recvmsg, [SK, P, 0x40, 0, 0, 0]),
    (libc::SYS_getsockname, [SK, P, P, 0, 0, 0]),
    (libc::SYS_setsockopt, [SK, 1, 2, P, 4, 0]),
    (libc::SYS_getsockopt, [SK, 1, 2, P, P, 0]),
    (libc::SYS_getrandom, [P, 4, 0, 0, 0, 0]),
    (libc::SYS_execve, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_set_robust_list, [P, 24, 0, 0, 0, 0]),
    (libc::SYS_memfd_create, [P, 0, 0, 0, 0, 0]),
    (libc::SYS_timerfd_settime, [TFD, 0, P, 0, 0, 0]),
    (libc::SYS_prctl, [15, P, 0, 0, 0, 0]),
    (libc::SYS_ioctl, [FD, 0x541b, P, 0, 0, 0]),
    (libc::SYS_utimensat, [-100i64 as u64, P, 0, 0, 0, 0]),
];

unsafe fn call(nr: i64, a: [u64; 6]) -> i64 {
    let r = libc::syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if r == -1 { -i64::from(errno()) } else { r }
}

unsafe fn efault_table() {
    let (r, w) = pipe();
    put(w, b"some data for the reads");
    let mut s = [0; 2];
    ok!(libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, s.as_mut_ptr()));
    put(s[1], b"some data for the reads");
    let e = ok!(libc::epoll_create1(0));
    let d = open(".", libc::O_DIRECTORY);
    let t = ok!(libc::timerfd_create(libc::CLOCK_MONOTONIC, 0));
    let mut wrong = Vec::new();
    for &(nr, args) in TABLE {
        for bad in BAD {
            let a = args.map(|v| match v {
                P => bad,
                P4 => bad & !3,
                FD => r as u64,
                WR => w as u64,
                SK => s[0] as u64,
                EP => e as u64,
                DIR => d as u64,
                TFD => t as u64,
                v => v,
            });
            let got = call(nr, a);
            // set_robust_list only keeps the address; a path of a bad pointer is EFAULT, an address of a socket too.
            if got != -i64::from(libc::EFAULT) && nr != libc::SYS_set_robust_list {
                wrong.push(format!("call {nr} with {bad:#x}: {got}"));
            }
        }
    }
    ok!(libc::syscall(libc::SYS_set_robust_list, 0, 24));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Calls that end, replace, stop or duplicate the caller, reach beyond it, or change the machine.
#[rustfmt::skip]
const LEFT_OUT: &[i64] = &[
    libc::SYS_exit, libc::SYS_exit_group, libc::SYS_fork, libc::SYS_vfork, libc::SYS_clone, libc::SYS_clone3, libc::SYS_pause,
    libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo, libc::SYS_reboot,
    libc::SYS_rt_sigreturn, libc::SYS_sync, libc::SYS_syncfs, libc::SYS_kexec_load, libc::SYS_kexec_file_load, libc::SYS_init_module,
    libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_adjtimex,
    libc::SYS_clock_adjtime, libc::SYS_vhangup, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct,
    libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_quotactl,
    libc::SYS_quotactl_fd, libc::SYS_ptrace, libc::SYS_seccomp, libc::SYS_ioprio_set, libc::SYS_setpriority, libc::SYS_syslog,
    libc::SYS_arch_prctl, libc::SYS_bpf, libc::SYS_munmap, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_close_range,
    libc::SYS_process_mrelease, libc::SYS_process_madvise, libc::SYS_unshare, libc::SYS_setns, libc::SYS_prlimit64, libc::SYS_close,
    libc::SYS_dup2, libc::SYS_dup3, libc::SYS_mlockall, libc::SYS_vmsplice, libc::SYS_modify_ldt, libc::SYS_set_tid_address,
    libc::SYS_rseq, libc::SYS_pidfd_send_signal, libc::SYS_msgget, libc::SYS_semget, libc::SYS_shmget, libc::SYS_msgrcv,
];

/// Calls that may wait for ever if their arguments happen to be good.
const MAY_SLEEP: &[i64] = &[
    libc::SYS_rt_sigtimedwait,
    libc::SYS_futex_waitv,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_semtimedop,
];

/// Every call with arguments from `values` in all places, in children by the dozen. Only survival counts.
unsafe fn sweep(values: &[u64]) {
    for base in (0..470i64).step_by(10) {
        let p = child(|| {
            // Whatever a call does to the descriptors or limits of this child is nobody else's matter.
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            libc::alarm(10);
            // Numbers are cut to 32 bits where a descriptor is wanted: 0 must be nobody's file, and no device, whose mode
            // or owner a call could change for everyone.
            ok!(libc::dup2(open("swept", libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC), 0));
            ok!(libc::unlink(c"swept".as_ptr()));
            for nr in base..base + 10 {
                if LEFT_OUT.contains(&nr) || MAY_SLEEP.contains(&nr) || (335..424).contains(&nr) {
                    continue;
                }
                for v in values {
                    // All arguments bad, then a small first argument (a descriptor that is none) with bad pointers.
                    call(nr, [*v; 6]);
                    call(nr, [900, *v, *v, *v, *v, *v]);
                    call(nr, [*v, 1, *v, 1, *v, 1]);
                    call(nr, [*v, *v, 0x1_0000_0000, u64::MAX, 1 << 63, 7]);
                }
            }
            0
        });
        let s = wait_for(p);
        assert!(s == 0, "calls {base}..{}: wait status {s:#x}", base + 10);
    }
}

unsafe fn every_call_bad_pointers() {
    sweep(&[8, 0x3000_0000_0000 - 8, 0xdead_beef]);
}

unsafe fn every_call_kernel_addresses() {
    // The last but one lies where Kibble's stubs have their text.
    sweep(&[0x7fff_ffff_f000, 0x8000_0000_0000_0000, 0xffff_8880_0000_0000, 0x7ff0_0000_0000, u64::MAX - 7]);
}

unsafe fn every_call_end_of_mapping() {
    let p = anon(3 * 4096);
    ok!(libc::munmap(p.add(8192).cast(), 4096));
    sweep(&[p as u64 + 8190]);
}

unsafe fn unknown_numbers() {
    for nr in [340i64, 400, 423, 600, 1000, 0x3fff, i64::from(u32::MAX), -1, 0x1_0000_0000 + 600] {
        // x32 numbers (bit 30) are left to the hostile programs: what they answer depends on how the host was built.
        assert_eq!(call(nr, [0; 6]), -i64::from(libc::ENOSYS), "call {nr:#x}");
    }
}

/// Two pages, the second not there; the address `back` bytes before the hole.
unsafe fn before_hole(back: usize) -> *mut u8 {
    let p = anon(2 * 4096);
    ok!(libc::munmap(p.add(4096).cast(), 4096));
    p.add(4096 - back)
}

unsafe fn partial_copies() {
    let (r, w) = pipe();
    put(w, &[7; 100]);
    let p = before_hole(10);
    // A read that runs into the hole gives what fitted, or EFAULT without losing data (Linux: EFAULT for pipes after a partial page).
    let n = libc::read(r, p.cast(), 100);
    assert!(n == 10 || (n == -1 && errno() == libc::EFAULT), "{n}");
    let f = open("f", libc::O_RDWR | libc::O_CREAT);
    let n = libc::write(f, p.cast(), 100);
    assert!(n == 10 || (n == -1 && errno() == libc::EFAULT), "{n}");
    ok!(libc::lseek(f, 0, libc::SEEK_SET));
    ok!(libc::ftruncate(f, 100));
    let n = libc::read(f, p.cast(), 100);
    assert!(n == 10 || (n == -1 && errno() == libc::EFAULT), "{n}");
    // A structure that is half there is EFAULT.
    fails!(libc::syscall(libc::SYS_uname, p), EFAULT);
    fails!(libc::syscall(libc::SYS_clock_gettime, 1, p), EFAULT);
}

unsafe fn string_at_end_of_page() {
    let p = before_hole(2);
    p.copy_from_nonoverlapping(c".".as_ptr().cast(), 2);
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::syscall(libc::SYS_stat, p, &mut st));
    *p.add(1) = b'x';
    fails!(libc::syscall(libc::SYS_stat, p, &mut st), EFAULT);
}

unsafe fn iovec_mixed() {
    let f = open("f", libc::O_RDWR | libc::O_CREAT);
    let good = [1u8; 8];
    let v = [
        libc::iovec { iov_base: good.as_ptr() as *mut _, iov_len: 8 },
        libc::iovec { iov_base: 8 as *mut _, iov_len: 8 },
    ];
    let n = libc::writev(f, v.as_ptr(), 2);
    assert!(n == 8 || (n == -1 && errno() == libc::EFAULT), "{n}");
    let v = [libc::iovec { iov_base: good.as_ptr() as *mut _, iov_len: usize::MAX }];
    fails!(libc::writev(f, v.as_ptr(), 1), EINVAL);
    let v = [libc::iovec { iov_base: 8 as *mut _, iov_len: 0 }];
    assert_eq!(ok!(libc::writev(f, v.as_ptr(), 1)), 0, "nothing at a bad address is nothing");
}

unsafe fn read_only_target() {
    let p = map(4096, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let z = open("/dev/zero", 0);
    fails!(libc::read(z, p.cast(), 10), EFAULT);
    fails!(libc::syscall(libc::SYS_uname, p), EFAULT);
    let mut t = 0u64;
    // The kernel may not write where the program may not: text.
    fails!(libc::read(z, read_only_target as *const () as usize as *mut _, 10), EFAULT);
    ok!(libc::read(z, (&raw mut t).cast(), 8));
    let n = map(4096, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let f = open("f", libc::O_RDWR | libc::O_CREAT);
    fails!(libc::write(f, n.cast(), 10), EFAULT);
}

unsafe fn unmapped_stack_signal() {
    // A signal with a stack pointer that leads nowhere: the process dies, nothing else.
    extern "C" fn h(_: i32) {}
    for sp in [8u64, 0x3000_0000_0000, 0x7ff0_0000_2000, 0x8000_0000_0000_0000, u64::MAX - 15] {
        let p = child(|| {
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            handle(libc::SIGUSR1, h as *const () as usize, 0);
            std::arch::asm!(
                "mov r15, rsp", "mov rsp, {sp}", "syscall", "mov rsp, r15",
                sp = in(reg) sp, inlateout("rax") libc::SYS_kill => _, in("rdi") libc::getpid(), in("rsi") libc::SIGUSR1,
                out("rcx") _, out("r11") _, out("r15") _,
            );
            0
        });
        let s = wait_for(p);
        assert!(libc::WIFSIGNALED(s) && libc::WTERMSIG(s) == libc::SIGSEGV, "sp {sp:#x}: wait status {s:#x}");
    }
}
