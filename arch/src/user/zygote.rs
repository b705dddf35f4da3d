//! The zygote: the one process that makes stubs. It is split off before the kernel starts threads or touches guest
//! memory, drops what it does not need, becomes the stub image and from then on runs lists of host calls that the
//! kernel writes.

use super::ctl::Ctl;
use super::image::Image;
use super::layout::*;
use crate::host::{fd::HostFd, last_errno};
use std::os::fd::AsRawFd;
use uapi::Result;

/// Forks the zygote. Must be called while the process has one thread (what fork leaves of others is undefined), on
/// the thread that lives as long as the process: the zygote dies with the thread that made it.
pub(super) fn spawn(image_fd: &HostFd, ctl: &Ctl, mem: &HostFd, doorbell: &HostFd) -> Result<i32> {
    let parent = std::process::id();
    let fds = [doorbell.as_raw_fd(), mem.as_raw_fd(), ctl.fd().as_raw_fd(), image_fd.as_raw_fd()];
    // SAFETY: single-threaded by contract; the child makes only the host calls of `child` and execs or exits.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(last_errno()),
        0 => child(fds, parent),
        _ => Ok(pid),
    }
}

fn child(fds: [i32; 4], parent: u32) -> ! {
    const HIGH: i32 = 100;
    let argv = [c"kibble-stub".as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null::<libc::c_char>()];
    // SAFETY: this child has one thread and calls only raw host calls on descriptors and memory of its own; every
    // pointer is to a local that outlives its call. All in one block because each line depends on the one before
    // having been made in this very order.
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() as u32 != parent {
            libc::_exit(1);
        }
        libc::setsid();
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        // No core files of guests: with a limit of 1 byte the host does not start a program that takes them either.
        libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 1, rlim_max: 1 });
        drop_capabilities();
        for (i, fd) in fds.iter().enumerate() {
            if libc::dup2(*fd, HIGH + i as i32) < 0 {
                libc::_exit(2);
            }
        }
        for i in 0..3 {
            libc::dup2(HIGH + i, i);
        }
        libc::dup3(HIGH + 3, 3, libc::O_CLOEXEC);
        libc::syscall(libc::SYS_close_range, 4, u32::MAX, 0);
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        libc::syscall(libc::SYS_execveat, 3, c"".as_ptr(), argv.as_ptr(), envp.as_ptr(), libc::AT_EMPTY_PATH);
        libc::_exit(3)
    }
}

/// Empties all capability sets of the calling thread (ambient and bounding matter no more with no_new_privs).
fn drop_capabilities() {
    // struct __user_cap_header_struct (version 3, this thread) and two empty data structs.
    let header: [u32; 2] = [0x2008_0522, 0];
    let data = [0u32; 6];
    // SAFETY: both point to live locals of the sizes that version 3 has.
    unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
}

/// `struct kernel_sigaction` with the stub's handler: siginfo, own stack, restart, everything blocked meanwhile.
pub(super) fn sigaction(image: &Image) -> [u64; 4] {
    const SA_RESTORER: u64 = 0x0400_0000;
    let flags = libc::SA_SIGINFO as u64 | libc::SA_ONSTACK as u64 | libc::SA_RESTART as u64 | SA_RESTORER;
    [image.handler, flags, image.handler, u64::MAX]
}

/// Signals that the stub's handler takes: traps of the filter, faults, exceptions, the kick.
pub(super) const HANDLED: [i32; 7] =
    [libc::SIGSYS, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, SIG_KICK];
