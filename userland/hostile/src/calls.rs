//! Bad pointers to every call in the table.
use crate::run::{Tally, child};
use crate::{BLOCKS, STUB};
use std::time::Duration;

/// Calls that would end or leave the child, or reach beyond it into the machine that runs this (the host, when tested there).
#[rustfmt::skip]
const LEFT_OUT: &[i64] = &[
    libc::SYS_exit, libc::SYS_exit_group, libc::SYS_fork, libc::SYS_vfork, libc::SYS_clone, libc::SYS_clone3, libc::SYS_kill,
    libc::SYS_tkill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo, libc::SYS_pidfd_send_signal,
    libc::SYS_reboot, libc::SYS_sync, libc::SYS_syncfs, libc::SYS_kexec_load, libc::SYS_kexec_file_load, libc::SYS_init_module,
    libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_adjtimex,
    libc::SYS_clock_adjtime, libc::SYS_vhangup, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct,
    libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_quotactl,
    libc::SYS_quotactl_fd, libc::SYS_ptrace, libc::SYS_ioprio_set, libc::SYS_setpriority, libc::SYS_syslog, libc::SYS_msgget,
    libc::SYS_semget, libc::SYS_shmget, libc::SYS_msgctl, libc::SYS_semctl, libc::SYS_shmctl, libc::SYS_process_mrelease,
    libc::SYS_process_madvise, libc::SYS_mlockall, libc::SYS_sched_setscheduler, libc::SYS_sched_setattr, libc::SYS_sched_setparam,
    libc::SYS_prlimit64, libc::SYS_seccomp, libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key, libc::SYS_bpf,
];

const VALUES: [u64; 14] = [
    0,
    1,
    8,
    0xfff,
    0x7fff_ffff,
    0xffff_ffff,
    0x1234_5678_9abc,
    STUB,
    STUB + 0x12_0000,
    BLOCKS + 0x7ff8,
    0x7fff_ffff_eff8,
    0x8000_0000_0000_0000,
    0xffff_ffff_ff60_0000,
    u64::MAX,
];

unsafe fn all_of(nr: i64, seed: u64) {
    let mut s = seed | 1;
    let mut pick = || {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        VALUES[(s >> 33) as usize % VALUES.len()]
    };
    for v in VALUES {
        libc::syscall(nr, v, v, v, v, v, v);
    }
    for _ in 0..60 {
        libc::syscall(nr, pick(), pick(), pick(), pick(), pick(), pick());
    }
}

/// `calls`: every number in a child of its own with two threads; those that sleep are ended by an alarm.
pub fn run(_: &[String]) {
    let mut tally = Tally::default();
    for nr in (0..=470).filter(|n| !LEFT_OUT.contains(n)) {
        tally.add(child(Duration::from_secs(4), || unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // Descriptors of this process are worth nothing; paths are bad pointers or the empty string at most.
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            for f in 0..3 {
                libc::dup2(null, f);
            }
            libc::chdir(c"/proc/self".as_ptr());
            let t = libc::timeval { tv_sec: 0, tv_usec: 100_000 };
            let it = libc::itimerval { it_interval: t, it_value: t };
            libc::setitimer(libc::ITIMER_REAL, &it, std::ptr::null_mut());
            std::thread::spawn(move || all_of(nr, 99 + nr as u64));
            all_of(nr, nr as u64);
        }));
    }
    tally.print("calls");
}
