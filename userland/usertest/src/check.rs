//! What every test uses: the runner's child handling, checks with errno in their message, small wrappers.
use std::ffi::CString;

/// One named test.
pub struct Test {
    pub name: &'static str,
    pub run: unsafe fn(),
}

/// What became of a test.
pub enum Outcome {
    Pass,
    Skip,
    Fail(String),
}

/// Exit status by which a test says that this machine cannot run it.
const SKIP_STATUS: i32 = 77;

/// Lists the functions of a module as its `TESTS`.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub const TESTS: &[$crate::check::Test] =
            &[$($crate::check::Test { name: stringify!($name), run: $name }),*];
    };
}

/// The value of a libc call that must not return -1.
macro_rules! ok {
    ($e:expr) => {{
        #[allow(clippy::unnecessary_cast)]
        let r = $e;
        if r as i64 == -1 {
            panic!("{}: {}", stringify!($e), std::io::Error::last_os_error());
        }
        r
    }};
}

/// A libc call that must return -1 with the errno named.
macro_rules! fails {
    ($e:expr, $errno:ident) => {{
        let r = $e as i64;
        let got = $crate::check::errno();
        assert!(
            r == -1 && got == libc::$errno,
            "{} = {r}, errno {got} ({}), expected {}",
            stringify!($e),
            std::io::Error::from_raw_os_error(got),
            stringify!($errno)
        );
    }};
}

/// The calling thread's errno.
pub fn errno() -> i32 {
    unsafe { *libc::__errno_location() }
}

/// Ends the test as skipped.
pub fn skip(why: &str) -> ! {
    println!("# skipped: {why}");
    std::process::exit(SKIP_STATUS)
}

/// A NUL-terminated string; the caller keeps it alive over the call.
pub fn c(s: &str) -> CString {
    CString::new(s).expect("no NUL in test strings")
}

/// Where scratch directories are made: the first writable one of the usual tmpfs places.
fn scratch_base() -> &'static str {
    let writable = |d: &&str| unsafe { libc::access(c(d).as_ptr(), libc::W_OK) == 0 };
    ["/tmp", "/dev/shm", "/run"].into_iter().find(writable).unwrap_or("/tmp")
}

/// Makes a fresh directory the current one.
pub fn enter_scratch() {
    let dir = format!("{}/usertest.{}", scratch_base(), std::process::id());
    let _ = std::fs::create_dir_all(&dir);
    let _ = std::env::set_current_dir(&dir);
}

/// Removes this process's scratch directory.
pub fn leave_scratch() {
    let _ = std::fs::remove_dir_all(format!("{}/usertest.{}", scratch_base(), std::process::id()));
}

/// Runs one test in a child of its own process group, with a time limit.
pub fn run_forked(t: &Test, limit_s: u64) -> Outcome {
    unsafe {
        let pid = libc::fork();
        if pid < 0 {
            return Outcome::Fail(format!("fork: {}", std::io::Error::last_os_error()));
        }
        if pid == 0 {
            libc::setpgid(0, 0);
            std::panic::set_hook(Box::new(|info| {
                println!("# {}", info.to_string().replace('\n', "\n# "));
                libc::_exit(101);
            }));
            enter_scratch();
            (t.run)();
            libc::_exit(0);
        }
        let mut waited_ms = 0u64;
        let mut step_ms = 1;
        let mut status = 0;
        loop {
            let r = libc::waitpid(pid, &mut status, libc::WNOHANG);
            if r == pid {
                break;
            }
            if r < 0 && errno() != libc::EINTR {
                return Outcome::Fail(format!("waitpid: {}", std::io::Error::last_os_error()));
            }
            if waited_ms > limit_s * 1000 {
                libc::kill(-pid, libc::SIGKILL);
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, &mut status, 0);
                return Outcome::Fail(format!("still running after {limit_s} s"));
            }
            let ts = libc::timespec { tv_sec: 0, tv_nsec: step_ms * 1_000_000 };
            if libc::nanosleep(&ts, std::ptr::null_mut()) < 0 && errno() == libc::ENOSYS {
                libc::waitpid(pid, &mut status, 0);
                break;
            }
            waited_ms += step_ms as u64;
            step_ms = (step_ms * 2).min(20);
        }
        libc::kill(-pid, libc::SIGKILL);
        let _ = std::fs::remove_dir_all(format!("{}/usertest.{pid}", scratch_base()));
        if libc::WIFEXITED(status) {
            match libc::WEXITSTATUS(status) {
                0 => Outcome::Pass,
                SKIP_STATUS => Outcome::Skip,
                s => Outcome::Fail(format!("exit status {s}")),
            }
        } else {
            Outcome::Fail(format!("killed by signal {}", libc::WTERMSIG(status)))
        }
    }
}

/// Forks; the child runs `f` and exits with what it returns.
pub unsafe fn child(f: impl FnOnce() -> i32) -> i32 {
    let pid = ok!(libc::fork());
    if pid == 0 {
        let code = f();
        libc::_exit(code);
    }
    pid
}

/// Waits for a child and returns its raw status.
pub unsafe fn wait_for(pid: i32) -> i32 {
    let mut status = 0;
    loop {
        let r = libc::waitpid(pid, &mut status, 0);
        if r == pid {
            return status;
        }
        assert!(
            r == -1 && errno() == libc::EINTR,
            "waitpid({pid}) = {r}: {}",
            std::io::Error::last_os_error()
        );
    }
}

/// The child must exit with `code`.
pub unsafe fn expect_exit(pid: i32, code: i32) {
    let s = wait_for(pid);
    assert!(libc::WIFEXITED(s) && libc::WEXITSTATUS(s) == code, "wait status {s:#x}, expected exit {code}");
}

/// The child must die of `sig`.
pub unsafe fn expect_killed(pid: i32, sig: i32) {
    let s = wait_for(pid);
    assert!(libc::WIFSIGNALED(s) && libc::WTERMSIG(s) == sig, "wait status {s:#x}, expected signal {sig}");
}

/// A pipe: (read end, write end).
pub unsafe fn pipe() -> (i32, i32) {
    let mut p = [0; 2];
    ok!(libc::pipe(p.as_mut_ptr()));
    (p[0], p[1])
}

/// Writes all of `b` in one call.
pub unsafe fn put(fd: i32, b: &[u8]) {
    let n = ok!(libc::write(fd, b.as_ptr().cast(), b.len()));
    assert_eq!(n as usize, b.len(), "short write");
}

/// One read of at most `n` bytes.
pub unsafe fn get(fd: i32, n: usize) -> Vec<u8> {
    let mut v = vec![0u8; n];
    let r = ok!(libc::read(fd, v.as_mut_ptr().cast(), n));
    v.truncate(r as usize);
    v
}

/// Monotonic time in milliseconds.
pub fn now_ms() -> i64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { ok!(libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts)) };
    ts.tv_sec * 1000 + ts.tv_nsec / 1_000_000
}

/// Sleeps without std.
pub fn sleep_ms(ms: i64) {
    let mut ts = libc::timespec { tv_sec: ms / 1000, tv_nsec: (ms % 1000) * 1_000_000 };
    while unsafe { libc::nanosleep(&ts, &mut ts) } < 0 && errno() == libc::EINTR {}
}

/// Anonymous private memory, read and write.
pub unsafe fn anon(len: usize) -> *mut u8 {
    map(len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
}

/// A new anonymous mapping at any address.
pub unsafe fn map(len: usize, prot: i32, flags: i32) -> *mut u8 {
    ok!(libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0)).cast()
}

/// Opens with mode 0644.
pub unsafe fn open(path: &str, flags: i32) -> i32 {
    let p = c(path);
    ok!(libc::open(p.as_ptr(), flags, 0o644))
}

/// Installs a handler; `flags` are `SA_*`.
pub unsafe fn handle(sig: i32, handler: usize, flags: i32) {
    let mut sa: libc::sigaction = std::mem::zeroed();
    sa.sa_sigaction = handler;
    sa.sa_flags = flags;
    ok!(libc::sigaction(sig, &sa, std::ptr::null_mut()));
}

/// Blocks (`SIG_BLOCK`), unblocks or sets one signal in this thread's mask.
pub unsafe fn mask(how: i32, sig: i32) {
    let mut s: libc::sigset_t = std::mem::zeroed();
    libc::sigemptyset(&mut s);
    libc::sigaddset(&mut s, sig);
    ok!(libc::sigprocmask(how, &s, std::ptr::null_mut()));
}
