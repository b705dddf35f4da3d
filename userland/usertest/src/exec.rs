//! execve, its environment and auxiliary vector, `#!`, posix_spawn, O_CLOEXEC, signal state over exec.
use crate::check::*;
use std::ffi::CString;
use std::process::Command;
use std::ptr::null;

tests![
    exec_self,
    exec_env_and_args,
    exec_enoent,
    exec_eacces,
    exec_enoexec,
    exec_script,
    exec_script_arg,
    cloexec_closes,
    posix_spawn_works,
    spawn_with_pipes,
    exec_resets_handlers_keeps_ignored,
    exec_keeps_mask,
    exec_from_thread,
    auxv,
    big_args,
    e2big,
    execveat_fd,
    exec_dynamic,
    exec_kills_threads,
    comm_after_exec,
];

/// What a re-executed usertest does: `usertest helper WHAT ARGS...`.
pub fn helper(args: &[String]) -> i32 {
    let arg = |i: usize| args.get(i).map(String::as_str).unwrap_or("");
    match arg(0) {
        "exit" => arg(1).parse().unwrap_or(99),
        "env" => i32::from(std::env::var("USERTEST_VALUE").as_deref() != Ok(arg(1))),
        "fd-closed" => i32::from(unsafe { libc::fcntl(arg(1).parse().unwrap_or(-1), libc::F_GETFD) } != -1),
        "echo" => {
            println!("{}", args[1..].join(" "));
            0
        }
        "cat" => std::io::copy(&mut std::io::stdin(), &mut std::io::stdout()).map(|_| 0).unwrap_or(1),
        "count" => (args.len() as i32 - 1) % 200,
        "signals" => unsafe {
            let mut sa: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGUSR1, std::ptr::null(), &mut sa);
            let usr1 = sa.sa_sigaction;
            libc::sigaction(libc::SIGUSR2, std::ptr::null(), &mut sa);
            let usr2 = sa.sa_sigaction;
            let mut m: libc::sigset_t = std::mem::zeroed();
            libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut m);
            let blocked = libc::sigismember(&m, libc::SIGHUP) == 1;
            i32::from(!(usr1 == libc::SIG_DFL && usr2 == libc::SIG_IGN && blocked))
        },
        "threads" => i32::from(std::fs::read_dir("/proc/self/task").map(|d| d.count()).unwrap_or(0) != 1),
        "comm" => {
            i32::from(std::fs::read_to_string("/proc/self/comm").unwrap_or_default().trim_end() != arg(1))
        }
        "ids" => crate::cred::helper_ids(&args[1..]),
        "umask" => i32::from(unsafe { libc::umask(0) } != arg(1).parse().unwrap_or(0)),
        "mxcsr" => crate::fpu::helper_mxcsr(),
        "sleep" => {
            sleep_ms(arg(1).parse().unwrap_or(0));
            0
        }
        _ => 98,
    }
}

/// The path of this program.
pub fn me() -> String {
    if let Ok(p) = std::env::current_exe() {
        return p.to_string_lossy().into_owned();
    }
    // A young kernel without /proc still says it in the auxiliary vector.
    let p = unsafe { std::ffi::CStr::from_ptr(libc::getauxval(libc::AT_EXECFN) as *const i8) };
    p.to_string_lossy().into_owned()
}

/// Replaces this process; returns only on failure.
pub unsafe fn execv(path: &str, args: &[&str]) -> i32 {
    let a: Vec<CString> = args.iter().map(|s| c(s)).collect();
    let mut p: Vec<_> = a.iter().map(|s| s.as_ptr()).collect();
    p.push(null());
    let path = c(path);
    libc::execv(path.as_ptr(), p.as_ptr())
}

unsafe fn exec_self() {
    let m = me();
    expect_exit(child(|| execv(&m, &["x", "helper", "exit", "23"])), 23);
}

unsafe fn exec_env_and_args() {
    let s = Command::new(me())
        .args(["helper", "env", "wörld"])
        .env_clear()
        .env("USERTEST_VALUE", "wörld")
        .status();
    assert!(s.expect("spawn").success());
}

unsafe fn exec_enoent() {
    fails!(execv("/nonexistent/file", &["x"]), ENOENT);
    fails!(execv("", &["x"]), ENOENT);
    std::fs::write("plain", "x").unwrap();
    fails!(execv("plain/x", &["x"]), ENOTDIR);
}

unsafe fn exec_eacces() {
    std::fs::write("noexec", "#!/bin/sh\n").unwrap();
    fails!(execv("./noexec", &["x"]), EACCES);
    fails!(execv("/tmp", &["x"]), EACCES);
}

unsafe fn write_exec(name: &str, text: &[u8]) {
    // A writer elsewhere would make exec say ETXTBSY: the file is closed before it is run.
    std::fs::write(name, text).unwrap();
    let n = c(name);
    ok!(libc::chmod(n.as_ptr(), 0o755));
}

unsafe fn exec_enoexec() {
    write_exec("junk", b"\x00\x01\x02 not a program");
    fails!(execv("./junk", &["x"]), ENOEXEC);
    write_exec("cut", b"\x7fELF\x02\x01\x01");
    fails!(execv("./cut", &["x"]), ENOEXEC);
    write_exec("badinterp", b"#!/nonexistent/interp\n");
    fails!(execv("./badinterp", &["x"]), ENOENT);
}

unsafe fn exec_script() {
    write_exec("s", format!("#!{}\nignored\n", me()).as_bytes());
    // argv = [interp, path, old argv[1..]]: "./s" is no command of ours, status 2.
    expect_exit(child(|| execv("./s", &["zero", "one"])), 2);
}

unsafe fn exec_script_arg() {
    write_exec("s", format!("#!{} helper\n", me()).as_bytes());
    // argv = [interp, "helper", "./s", "exit", "3"]: the helper sees "./s", unknown, 98.
    expect_exit(child(|| execv("./s", &["zero", "exit", "3"])), 98);
}

unsafe fn cloexec_closes() {
    let a = open("/dev/null", libc::O_RDONLY | libc::O_CLOEXEC);
    let b = open("/dev/null", libc::O_RDONLY);
    let m = me();
    expect_exit(child(|| execv(&m, &["x", "helper", "fd-closed", &a.to_string()])), 0);
    expect_exit(child(|| execv(&m, &["x", "helper", "fd-closed", &b.to_string()])), 1);
    ok!(libc::fcntl(b, libc::F_SETFD, libc::FD_CLOEXEC));
    expect_exit(child(|| execv(&m, &["x", "helper", "fd-closed", &b.to_string()])), 0);
}

unsafe fn posix_spawn_works() {
    let m = c(&me());
    let args = [c("x"), c("helper"), c("exit"), c("17")];
    let mut argv: Vec<*mut i8> = args.iter().map(|a| a.as_ptr() as *mut i8).collect();
    argv.push(std::ptr::null_mut());
    let mut pid = 0;
    let envp: [*mut i8; 1] = [std::ptr::null_mut()];
    let r = libc::posix_spawn(&mut pid, m.as_ptr(), null(), null(), argv.as_ptr(), envp.as_ptr());
    assert_eq!(r, 0);
    expect_exit(pid, 17);
    let nope = c("/nonexistent");
    let r = libc::posix_spawn(&mut pid, nope.as_ptr(), null(), null(), argv.as_ptr(), envp.as_ptr());
    assert_eq!(r, libc::ENOENT, "the child's failure reaches the parent through shared memory");
}

unsafe fn spawn_with_pipes() {
    use std::io::Write;
    let mut ch = Command::new(me())
        .args(["helper", "cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("spawn");
    ch.stdin.take().unwrap().write_all(b"through two pipes").unwrap();
    let out = ch.wait_with_output().unwrap();
    assert!(out.status.success());
    assert_eq!(out.stdout, b"through two pipes");
}

extern "C" fn nop(_: i32) {}

unsafe fn exec_resets_handlers_keeps_ignored() {
    exec_keeps_mask();
}

unsafe fn exec_keeps_mask() {
    let m = me();
    let p = child(|| {
        handle(libc::SIGUSR1, nop as *const () as usize, 0);
        libc::signal(libc::SIGUSR2, libc::SIG_IGN);
        mask(libc::SIG_BLOCK, libc::SIGHUP);
        execv(&m, &["x", "helper", "signals"])
    });
    expect_exit(p, 0);
}

unsafe fn exec_from_thread() {
    let m = me();
    let p = child(|| {
        std::thread::spawn(move || execv(&m, &["x", "helper", "exit", "31"]));
        sleep_ms(5000);
        1
    });
    expect_exit(p, 31);
}

unsafe fn auxv() {
    assert_eq!(libc::getauxval(libc::AT_PAGESZ), 4096);
    assert_eq!(libc::getauxval(libc::AT_UID), libc::getuid() as u64);
    assert_eq!(libc::getauxval(libc::AT_CLKTCK), 100);
    for key in [libc::AT_PHDR, libc::AT_ENTRY, libc::AT_RANDOM, libc::AT_EXECFN, libc::AT_PHNUM] {
        assert_ne!(libc::getauxval(key), 0, "auxv key {key}");
    }
    let plat = std::ffi::CStr::from_ptr(libc::getauxval(libc::AT_PLATFORM) as *const i8);
    assert_eq!(plat.to_bytes(), b"x86_64");
    let r = std::slice::from_raw_parts(libc::getauxval(libc::AT_RANDOM) as *const u8, 16);
    assert!(r.iter().any(|b| *b != 0), "16 random bytes");
}

unsafe fn big_args() {
    let long = "x".repeat(100_000);
    let mut v = vec!["helper", "count"];
    v.extend((0..9).map(|_| long.as_str()));
    assert_eq!(Command::new(me()).args(&v).status().unwrap().code(), Some(9));
}

unsafe fn e2big() {
    // One string above 128 KiB (MAX_ARG_STRLEN).
    let long = "x".repeat(200_000);
    fails!(execv(&me(), &["x", "helper", "exit", &long]), E2BIG);
}

unsafe fn execveat_fd() {
    let m = c(&me());
    let fd = ok!(libc::open(m.as_ptr(), libc::O_PATH | libc::O_CLOEXEC));
    let args = [c("x"), c("helper"), c("exit"), c("8")];
    let mut argv: Vec<_> = args.iter().map(|a| a.as_ptr()).collect();
    argv.push(null());
    let p = child(|| {
        libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), argv.as_ptr(), 0usize, libc::AT_EMPTY_PATH);
        99
    });
    expect_exit(p, 8);
}

unsafe fn exec_dynamic() {
    for path in ["/bin/true", "/usr/bin/true"] {
        if std::path::Path::new(path).exists() {
            expect_exit(child(|| execv(path, &["true"])), 0);
            return;
        }
    }
    skip("no /bin/true here");
}

unsafe fn exec_kills_threads() {
    let m = me();
    let p = child(|| {
        for _ in 0..8 {
            std::thread::spawn(|| {
                loop {
                    sleep_ms(1000);
                }
            });
        }
        execv(&m, &["x", "helper", "threads"])
    });
    expect_exit(p, 0);
}

unsafe fn comm_after_exec() {
    let m = me();
    ok!(libc::symlink(c(&m).as_ptr(), c"a_name_longer_than_15".as_ptr()));
    expect_exit(child(|| execv("./a_name_longer_than_15", &["x", "helper", "comm", "a_name_longer_t"])), 0);
}
