//! Host threads: names, CPUs, timer slack.

use super::from_rustix;
use uapi::Result;

/// Host CPUs that this process may use, ascending.
pub fn allowed_cpus() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|&c| set.is_set(c)).collect(),
        Err(_) => vec![0],
    }
}

/// Binds the calling thread to one host CPU.
pub fn pin_to(cpu: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).map_err(from_rustix)
}

/// Binds another thread of this host (by tid) to one host CPU.
pub fn pin_thread_to(tid: i32, cpu: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    let pid = rustix::thread::Pid::from_raw(tid).ok_or(uapi::Errno::ESRCH)?;
    rustix::thread::sched_setaffinity(Some(pid), &set).map_err(from_rustix)
}

/// Asks for timers as exact as the host can (prctl(2) PR_SET_TIMERSLACK, default 50 us).
pub fn exact_timers() {
    // SAFETY: PR_SET_TIMERSLACK takes a number and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1usize, 0usize, 0usize, 0usize) };
}

/// Gives up restartable sequences (rseq(2)), which the C library asks for in every thread and we do not use: the host
/// writes their words each time it gives the thread a core, and a CPU sleeps and wakes with every system call of a guest.
pub fn leave_rseq() {
    const UNREGISTER: usize = 1;
    const SIGNATURE: usize = 0x5305_3053;
    unsafe extern "C" {
        /// Where the C library's rseq area is, counted from the thread pointer (glibc 2.35).
        static __rseq_offset: isize;
        static __rseq_size: u32;
    }
    let thread: usize;
    // SAFETY: the first word of a thread's control block on x86-64 is its own address (ELF TLS, variant II).
    unsafe { std::arch::asm!("mov {}, fs:0", out(reg) thread, options(nostack, readonly, preserves_flags)) };
    // SAFETY: written once, by the C library before main.
    let offset = unsafe { __rseq_offset };
    // SAFETY: as above.
    let size = unsafe { __rseq_size } as usize;
    // Registered with 32 bytes, whatever part of them the library says is in use.
    for len in [size.max(32), 32] {
        // SAFETY: names this thread's own area; if it is not what was registered, the host refuses.
        unsafe {
            libc::syscall(libc::SYS_rseq, thread.wrapping_add_signed(offset), len, UNREGISTER, SIGNATURE)
        };
    }
}

/// Thread id of the calling thread (gettid(2)).
pub fn gettid() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Kernel release of the host as (major, minor).
pub fn host_release() -> (u32, u32) {
    let u = rustix::system::uname();
    let text = u.release().to_string_lossy().into_owned();
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|p| p.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}
