//! Does this host lend what the trap needs? A child tries it, since filters cannot be taken off again.

use super::filter;
use crate::host::{fd::HostFd, last_errno};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use uapi::Errno;

const SET_MODE_FILTER: libc::c_long = 1;
const GET_NOTIF_SIZES: libc::c_long = 3;
/// SECCOMP_FILTER_FLAG_NEW_LISTENER.
const NEW_LISTENER: libc::c_long = 1 << 3;
/// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19).
const WAIT_KILLABLE_RECV: libc::c_long = 1 << 5;
/// What the child says if only the newer flag is missing, or no_new_privs.
const NO_KILLABLE: u8 = 255;
const NO_PRIVS: u8 = 254;

/// Tries seccomp listeners and the taking of descriptors from a child. The process must have one thread. `Err` is one
/// line for the user, saying what to allow.
pub fn probe() -> core::result::Result<(), String> {
    let mut sizes = [0u16; 3];
    // SAFETY: the call writes a struct of three u16 to a live local of that size.
    if unsafe { libc::syscall(libc::SYS_seccomp, GET_NOTIF_SIZES, 0, sizes.as_mut_ptr()) } < 0 {
        let e = last_errno();
        return Err(format!(
            "seccomp user notification is not available (SECCOMP_GET_NOTIF_SIZES: {}); allow seccomp(2) in the \
             container's seccomp profile, or use a host kernel with CONFIG_SECCOMP_FILTER",
            e.text()
        ));
    }
    let fail = |what: &str, e: Errno| format!("cannot try seccomp listeners ({what}: {})", e.text());
    let (rx, tx) = crate::host::fd::pipe(false).map_err(|e| fail("pipe", e))?;
    // SAFETY: the process has one thread by contract; the child makes only the host calls of `child` and never returns.
    let pid = match unsafe { libc::fork() } {
        -1 => return Err(fail("fork", last_errno())),
        0 => child(tx.as_raw_fd()),
        pid => pid,
    };
    let tx_number = tx.as_raw_fd();
    drop(tx);
    let mut word = [0u8];
    let said = rx.read(&mut word);
    let taken = if said == Ok(1) && word == [0] { take_from(pid, tx_number) } else { Ok(()) };
    // SAFETY: a signal to our own child, which nobody has waited for.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    // SAFETY: waits for that child; the status is not asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    match (said, word) {
        (Ok(1), [0]) => taken.map_err(|e| {
            format!(
                "descriptors of child processes cannot be taken (pidfd_getfd: {}); allow pidfd_open and pidfd_getfd in \
                 the container's seccomp profile, and check sysctl kernel.yama.ptrace_scope (0 or 1)",
                e.text()
            )
        }),
        (Ok(1), [NO_KILLABLE]) => {
            Err("seccomp listeners of this host lack WAIT_KILLABLE_RECV: Linux 6.1 or newer is needed".into())
        }
        (Ok(1), [NO_PRIVS]) => Err("prctl(PR_SET_NO_NEW_PRIVS) is refused; allow it in the container's profile".into()),
        (Ok(1), [e]) => Err(refused(Errno::from_raw(i32::from(e)))),
        _ => Err("the host ends processes that ask for a seccomp listener; allow seccomp(2) in the container's seccomp \
                  profile"
            .into()),
    }
}

fn refused(e: Errno) -> String {
    let hint = match e {
        Errno::EBUSY => {
            "a container manager has a listener of its own on us; start the container with a seccomp profile that does \
             not notify (SCMP_ACT_NOTIFY)"
        }
        Errno::EPERM | Errno::EACCES | Errno::ENOSYS => "allow seccomp(2) in the container's seccomp profile",
        _ => "Linux 6.1 or newer with CONFIG_SECCOMP_FILTER is needed",
    };
    format!("a seccomp listener is refused ({}); {hint}", e.text())
}

/// Takes a descriptor from the child as listeners are taken from stubs.
fn take_from(pid: i32, number: i32) -> uapi::Result<()> {
    // SAFETY: integers only; a new descriptor is returned.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let pidfd = owned(pidfd)?;
    // SAFETY: integers only; a new descriptor is returned.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    owned(fd).map(drop)
}

fn owned(fd: libc::c_long) -> uapi::Result<HostFd> {
    let number = i32::try_from(fd).ok().filter(|&n| n >= 0).ok_or_else(last_errno)?;
    // SAFETY: the host has just made this number for us.
    Ok(HostFd::from(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Asks for a listener, says how that went in one byte, and waits to be killed.
fn child(tx: i32) -> ! {
    let prog = filter::allow_all();
    // struct sock_fprog: a length and a pointer, as libc has it.
    let fprog = libc::sock_fprog { len: prog.len() as u16, filter: prog.as_ptr().cast_mut().cast() };
    let listen = |flags: libc::c_long| {
        // SAFETY: the program is a live local and is only read.
        unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const fprog) }
    };
    // SAFETY: dies with its parent; integers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    // SAFETY: integers only.
    let word = if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } < 0 {
        NO_PRIVS
    } else if listen(NEW_LISTENER | WAIT_KILLABLE_RECV) >= 0 {
        0
    } else {
        let e = last_errno();
        if e == Errno::EINVAL && listen(NEW_LISTENER) >= 0 {
            NO_KILLABLE
        } else {
            u8::try_from(e as u16).unwrap_or(Errno::EIO as u8)
        }
    };
    // SAFETY: one byte of a live local.
    unsafe { libc::write(tx, (&raw const word).cast(), 1) };
    loop {
        // SAFETY: sleeps until a signal comes.
        unsafe { libc::pause() };
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_host_lends_listeners() {
        super::probe().expect("seccomp listeners and pidfd_getfd");
    }
}
