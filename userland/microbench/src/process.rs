//! Processes, threads, pipes and signals.

use crate::{memory, per_op};
use std::ffi::CString;
use std::sync::atomic::{AtomicU32, Ordering};

fn wait(pid: libc::pid_t) -> bool {
    let mut status = 0;
    // SAFETY: `status` is a live local.
    let got = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    got == pid && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

fn fork_exec(path: &CString, arg: &CString) -> bool {
    let argv = [path.as_ptr(), arg.as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null()];
    // SAFETY: this program has one thread; the child only execs or exits.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: all pointers are to live, terminated data.
        unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        // SAFETY: ends the child.
        unsafe { libc::_exit(9) };
    }
    pid > 0 && wait(pid)
}

fn text(s: &str) -> CString {
    CString::new(s).expect("no NUL inside")
}

/// This program, which is static; `exit` makes it end at once.
fn myself() -> CString {
    let argv0 = std::env::args().next().unwrap_or_default();
    let found = std::env::current_exe().ok().map(|p| p.to_string_lossy().into_owned());
    let path = found
        .filter(|p| std::path::Path::new(p).exists())
        .unwrap_or_else(|| if argv0.contains('/') { argv0 } else { format!("/usr/bin/{argv0}") });
    text(&path)
}

pub fn fork_exec_static() -> Option<f64> {
    let (path, arg) = (myself(), text("exit"));
    per_op(|| fork_exec(&path, &arg))
}

pub fn fork_exec_dynamic() -> Option<f64> {
    let (path, arg) = (text("/bin/true"), text("exit"));
    per_op(|| fork_exec(&path, &arg))
}

pub fn fork_exec_200mib() -> Option<f64> {
    let _held = memory::hold(200 << 20)?;
    fork_exec_static()
}

pub fn fork_exit() -> Option<f64> {
    per_op(|| {
        // SAFETY: one thread; the child exits at once.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) };
        }
        pid > 0 && wait(pid)
    })
}

pub fn spawn_exec() -> Option<f64> {
    let (path, arg) = (myself(), text("exit"));
    per_op(|| {
        let argv = [path.as_ptr().cast_mut(), arg.as_ptr().cast_mut(), std::ptr::null_mut()];
        let envp = [std::ptr::null_mut()];
        let mut pid = 0;
        // SAFETY: all pointers are to live, terminated data.
        let r = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                path.as_ptr(),
                std::ptr::null(),
                std::ptr::null(),
                argv.as_ptr(),
                envp.as_ptr(),
            )
        };
        r == 0 && wait(pid)
    })
}

pub fn thread_create_join() -> Option<f64> {
    per_op(|| std::thread::spawn(|| ()).join().is_ok())
}

fn pipe() -> Option<[i32; 2]> {
    let mut p = [0; 2];
    // SAFETY: `p` has room for the two descriptors.
    (unsafe { libc::pipe(p.as_mut_ptr()) } == 0).then_some(p)
}

fn put(fd: i32) -> bool {
    // SAFETY: one byte of a static.
    unsafe { libc::write(fd, b"x".as_ptr().cast(), 1) == 1 }
}

fn get(fd: i32) -> bool {
    let mut b = 0u8;
    // SAFETY: one byte of a live local.
    unsafe { libc::read(fd, (&raw mut b).cast(), 1) == 1 }
}

fn close(fd: i32) {
    // SAFETY: a descriptor of ours that nothing uses any more.
    unsafe { libc::close(fd) };
}

/// A byte there and back between two processes.
pub fn pipe_pingpong() -> Option<f64> {
    let (to, from) = (pipe()?, pipe()?);
    // SAFETY: one thread; the child uses only raw calls and exits.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        close(to[1]);
        while get(to[0]) && put(from[1]) {}
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    close(to[0]);
    close(from[1]);
    let r = per_op(|| put(to[1]) && get(from[0]));
    close(to[1]);
    close(from[0]);
    (pid > 0 && wait(pid)).then_some(r).flatten()
}

static CAUGHT: AtomicU32 = AtomicU32::new(0);

extern "C" fn catch(_: i32) {
    CAUGHT.fetch_add(1, Ordering::Relaxed);
}

/// A signal to oneself, its handler and the return.
pub fn signal_self() -> Option<f64> {
    // SAFETY: the handler only counts.
    unsafe { libc::signal(libc::SIGUSR1, catch as *const () as usize) };
    // SAFETY: raises in this thread.
    per_op(|| unsafe { libc::raise(libc::SIGUSR1) } == 0).filter(|_| CAUGHT.load(Ordering::Relaxed) > 0)
}
