//! `kibble-init`: the first guest process of the built-in initramfs, usable as init of any image too (also under UML).
//!
//! Mounts what is missing, brings `lo` up, then runs the script on `/dev/ubdb` if one is there, or shows a small prompt.
//! As any other process than PID 1 it is only the prompt (`kibble-init -c LINE` runs one line) and never powers off.
//! Files: `shell` (prompt, words, external programs), `files` (ls, cat, ps, ...), `net` (ip), `ping`.
//! A guest program speaks to the kernel through raw libc calls, so `unsafe` is its subject and not an exception.
#![allow(clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block, missing_docs)]

mod files;
mod net;
mod ping;
mod shell;

use std::ffi::CString;
use std::io::{Read, Write};

/// Most bytes taken from the script disk.
const SCRIPT_MAX: u64 = 4 << 20;

/// A NUL-terminated copy; a NUL inside cuts.
pub fn c(s: &str) -> CString {
    CString::new(s.split('\0').next().unwrap_or("")).unwrap_or_default()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let first = std::process::id() == 1;
    if first {
        set_up();
    }
    let status = match args.get(1).map(String::as_str) {
        Some("-c") => shell::lines(args.get(2).map_or("", String::as_str)),
        _ if first && script_disk() => run_script(),
        _ => shell::prompt(first),
    };
    if first {
        println!("kibble-exit-status: {status}");
        power(libc::RB_POWER_OFF);
    }
    std::process::exit(status);
}

/// Ends the machine; as an ordinary process only this process.
pub fn power(how: i32) -> ! {
    let _ = std::io::stdout().flush();
    if std::process::id() == 1 {
        unsafe {
            libc::sync();
            libc::reboot(how);
        }
        eprintln!("init: reboot: {}", std::io::Error::last_os_error());
    }
    std::process::exit(0)
}

/// Whether a directory is the root of a mount.
fn mounted(dir: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    let dev = |p: &str| std::fs::metadata(p).map(|m| m.dev()).ok();
    dev(dir) != dev("/")
}

fn mount(kind: &str, dir: &str, flags: u64) -> bool {
    if mounted(dir) {
        return true;
    }
    let _ = std::fs::create_dir_all(dir);
    let (k, d) = (c(kind), c(dir));
    let r = unsafe { libc::mount(k.as_ptr(), d.as_ptr(), k.as_ptr(), flags, std::ptr::null()) };
    if r < 0 {
        eprintln!("init: mount {kind} on {dir}: {}", std::io::Error::last_os_error());
    }
    r == 0
}

/// Device nodes by hand, where the kernel has no devtmpfs.
fn make_nodes() {
    if !mount("tmpfs", "/dev", libc::MS_NOSUID) {
        return;
    }
    let nodes = [
        ("console", 5, 1),
        ("tty", 5, 0),
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("urandom", 1, 9),
        ("kmsg", 1, 11),
    ];
    let disks = [("ubda", 98, 0), ("ubdb", 98, 16)];
    for (kind, list) in [(libc::S_IFCHR, nodes.as_slice()), (libc::S_IFBLK, disks.as_slice())] {
        for (name, major, minor) in list {
            let p = c(&format!("/dev/{name}"));
            unsafe { libc::mknod(p.as_ptr(), kind | 0o666, libc::makedev(*major, *minor)) };
        }
    }
}

fn set_up() {
    let noexec = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount("proc", "/proc", noexec);
    mount("sysfs", "/sys", noexec);
    if !mounted("/dev") {
        let _ = std::fs::create_dir_all("/dev");
        let r = unsafe {
            libc::mount(
                c"devtmpfs".as_ptr(),
                c"/dev".as_ptr(),
                c"devtmpfs".as_ptr(),
                libc::MS_NOSUID,
                std::ptr::null(),
            )
        };
        if r < 0 {
            make_nodes();
        }
    }
    if std::fs::create_dir_all("/dev/pts").is_ok() {
        mount("devpts", "/dev/pts", libc::MS_NOSUID | libc::MS_NOEXEC);
    }
    if std::fs::create_dir_all("/dev/shm").is_ok() {
        mount("tmpfs", "/dev/shm", libc::MS_NOSUID | libc::MS_NODEV);
    }
    mount("tmpfs", "/tmp", libc::MS_NOSUID | libc::MS_NODEV);
    mount("tmpfs", "/run", libc::MS_NOSUID | libc::MS_NODEV);
    console();
    for (key, value) in
        [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/root"), ("TERM", "linux"), ("LANG", "C.UTF-8")]
    {
        if std::env::var_os(key).is_none() {
            // SAFETY of set_var: there is one thread.
            unsafe { std::env::set_var(key, value) };
        }
    }
    if let Err(e) = net::set_up_down("lo", true) {
        eprintln!("init: lo: {e}");
    }
}

/// Descriptors 0 to 2 from the console where the kernel gave none, and the console as controlling terminal.
fn console() {
    unsafe {
        if libc::fcntl(0, libc::F_GETFD) < 0 {
            let fd = libc::open(c"/dev/console".as_ptr(), libc::O_RDWR);
            if fd >= 0 {
                for to in 0..3 {
                    libc::dup2(fd, to);
                }
                if fd > 2 {
                    libc::close(fd);
                }
            }
        }
        libc::setsid();
        libc::ioctl(0, libc::TIOCSCTTY, 0);
    }
}

/// Whether the second disk begins with `#!`.
fn script_disk() -> bool {
    let mut head = [0u8; 2];
    std::fs::File::open("/dev/ubdb").is_ok_and(|mut f| f.read_exact(&mut head).is_ok() && head == *b"#!")
}

/// Copies the script to /tmp/script and runs it with /bin/sh; its status (128 + number where a signal ended it).
fn run_script() -> i32 {
    let mut text = Vec::new();
    let read = std::fs::File::open("/dev/ubdb").and_then(|f| f.take(SCRIPT_MAX).read_to_end(&mut text));
    if let Err(e) = read {
        eprintln!("init: /dev/ubdb: {e}");
        return 126;
    }
    text.truncate(text.iter().position(|b| *b == 0).unwrap_or(text.len()));
    if let Err(e) = std::fs::write("/tmp/script", &text) {
        eprintln!("init: /tmp/script: {e}");
        return 126;
    }
    shell::external(&["/bin/sh".to_owned(), "/tmp/script".to_owned()])
}
