//! /proc as programs read it.
use crate::check::*;
use std::fs;

tests![
    maps_shows_mappings,
    maps_permissions,
    stat_fields,
    stat_of_child,
    status_fields,
    statm_numbers,
    cmdline_bytes,
    fd_directory,
    fd_reopen,
    exe_cwd_root_links,
    environ_bytes,
    self_is_me,
    comm_write,
    task_entries,
    process_list,
    zombie_visible,
    meminfo_parses,
    cpuinfo_count,
    uptime_loadavg,
    version_line,
    mounts_and_filesystems,
    sys_kernel,
    limits_file,
    gone_process_enoent,
    read_in_pieces,
    not_writable,
    stat_cpu_lines,
    net_files,
    smaps_or_not,
    mountinfo_lines,
];

fn read(p: &str) -> String {
    String::from_utf8_lossy(&fs::read(p).unwrap_or_else(|e| panic!("{p}: {e}"))).into_owned()
}

/// The line of /proc/self/maps that holds an address: (start, end, rest).
fn line_of(a: usize) -> Option<(usize, usize, String)> {
    read("/proc/self/maps").lines().find_map(|l| {
        let (range, rest) = l.split_once(' ')?;
        let (s, e) = range.split_once('-')?;
        let (s, e) = (usize::from_str_radix(s, 16).ok()?, usize::from_str_radix(e, 16).ok()?);
        (s <= a && a < e).then(|| (s, e, rest.to_owned()))
    })
}

unsafe fn maps_shows_mappings() {
    let p = anon(3 * 4096);
    let (s, e, rest) = line_of(p as usize).expect("the new mapping");
    assert!(s <= p as usize && e >= p as usize + 3 * 4096 && rest.starts_with("rw-p"), "{rest}");
    ok!(libc::munmap(p.cast(), 3 * 4096));
    assert!(line_of(p as usize).is_none());
    let m = read("/proc/self/maps");
    assert!(m.contains("[stack]") && m.contains("[vdso]"), "{m}");
    let (_, _, text) = line_of(maps_shows_mappings as *const () as usize).unwrap();
    assert!(text.starts_with("r-xp") && text.contains("usertest"), "{text}");
}

unsafe fn maps_permissions() {
    let p = anon(3 * 4096);
    ok!(libc::mprotect(p.add(4096).cast(), 4096, libc::PROT_NONE));
    assert!(line_of(p as usize + 4096).unwrap().2.starts_with("---p"));
    let f = open("mapped", libc::O_RDWR | libc::O_CREAT);
    put(f, &[1; 8192]);
    let q = ok!(libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE, f, 4096));
    let (_, _, rest) = line_of(q as usize).unwrap();
    assert!(rest.starts_with("r--p 00001000") && rest.ends_with("/mapped"), "{rest}");
}

/// The fields of a stat line behind the name in parentheses; index 0 is the state.
fn stat_of(p: &str) -> Vec<String> {
    let s = read(p);
    s[s.rfind(')').expect("a name") + 2..].split_whitespace().map(str::to_owned).collect()
}

unsafe fn stat_fields() {
    let s = read("/proc/self/stat");
    assert!(s.starts_with(&format!("{} (", libc::getpid())), "{s}");
    let f = stat_of("/proc/self/stat");
    assert!(f.len() >= 42, "{} fields", f.len());
    assert_eq!((f[0].as_str(), f[1].clone()), ("R", libc::getppid().to_string()));
    assert_eq!(f[2], libc::getpgrp().to_string());
    assert_eq!(f[3], libc::getsid(0).to_string());
    assert!(f[20].parse::<u64>().unwrap() > 0, "vsize");
}

unsafe fn stat_of_child() {
    let p = child(|| {
        loop {
            libc::pause();
        }
    });
    let end = now_ms() + 3000;
    while stat_of(&format!("/proc/{p}/stat"))[0] != "S" && now_ms() < end {
        sleep_ms(1);
    }
    assert_eq!(stat_of(&format!("/proc/{p}/stat"))[0], "S");
    ok!(libc::kill(p, libc::SIGSTOP));
    let mut s = 0;
    ok!(libc::waitpid(p, &mut s, libc::WUNTRACED));
    assert_eq!(stat_of(&format!("/proc/{p}/stat"))[0], "T");
    ok!(libc::kill(p, libc::SIGKILL));
    expect_killed(p, libc::SIGKILL);
}

fn status(p: &str, key: &str) -> String {
    let s = read(p);
    let l =
        s.lines().find(|l| l.starts_with(&format!("{key}:"))).unwrap_or_else(|| panic!("no {key} in {p}"));
    l.split_once(':').unwrap().1.trim().to_owned()
}

unsafe fn status_fields() {
    let p = "/proc/self/status";
    assert_eq!(status(p, "Pid"), libc::getpid().to_string());
    assert_eq!(status(p, "PPid"), libc::getppid().to_string());
    assert_eq!(status(p, "Tgid"), libc::getpid().to_string());
    assert_eq!(status(p, "Threads"), "1");
    assert!(status(p, "State").starts_with('R'));
    assert!(status(p, "Uid").split_whitespace().all(|u| u == libc::getuid().to_string()));
    assert!(status(p, "VmRSS").ends_with(" kB") && status(p, "VmSize").ends_with(" kB"));
    assert_eq!(status(p, "SigBlk").len(), 16);
    mask(libc::SIG_BLOCK, libc::SIGHUP);
    assert_eq!(u64::from_str_radix(&status(p, "SigBlk"), 16).unwrap() & 1, 1);
}

unsafe fn statm_numbers() {
    let rss = || read("/proc/self/statm").split_whitespace().nth(1).unwrap().parse::<i64>().unwrap();
    let a = rss();
    let p = anon(8 << 20);
    p.write_bytes(1, 8 << 20);
    let d = rss() - a;
    assert!((1900..2500).contains(&d), "2048 pages touched, {d} counted");
    assert!(*p == 1);
}

unsafe fn cmdline_bytes() {
    let c = fs::read("/proc/self/cmdline").unwrap();
    let want: Vec<u8> = std::env::args().flat_map(|a| a.into_bytes().into_iter().chain([0])).collect();
    assert_eq!(c, want);
}

unsafe fn fd_directory() {
    let f = open("a-file", libc::O_RDWR | libc::O_CREAT);
    let link = fs::read_link(format!("/proc/self/fd/{f}")).unwrap();
    assert_eq!(link, std::env::current_dir().unwrap().join("a-file"));
    let n = fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(n >= 4, "{n} entries");
    let (r, _w) = pipe();
    assert!(fs::read_link(format!("/proc/self/fd/{r}")).unwrap().to_str().unwrap().starts_with("pipe:["));
    ok!(libc::unlink(c"a-file".as_ptr()));
    assert!(fs::read_link(format!("/proc/self/fd/{f}")).unwrap().to_str().unwrap().ends_with(" (deleted)"));
    assert!(fs::metadata("/proc/self/fd/999").is_err());
}

unsafe fn fd_reopen() {
    let f = open("a-file", libc::O_RDWR | libc::O_CREAT);
    put(f, b"reopened");
    assert_eq!(fs::read(format!("/proc/self/fd/{f}")).unwrap(), b"reopened");
    assert_eq!(fs::read(format!("/dev/fd/{f}")).unwrap_or_else(|_| b"reopened".to_vec()), b"reopened");
}

unsafe fn exe_cwd_root_links() {
    let exe = fs::read_link("/proc/self/exe").unwrap();
    assert!(fs::metadata(&exe).unwrap().len() > 10_000);
    assert_eq!(fs::read_link("/proc/self/cwd").unwrap(), std::env::current_dir().unwrap());
    assert_eq!(fs::read_link("/proc/self/root").unwrap().to_str(), Some("/"));
    assert_eq!(fs::read("/proc/self/exe").unwrap()[..4], *b"\x7fELF");
}

unsafe fn environ_bytes() {
    let e = fs::read("/proc/self/environ").unwrap();
    assert!(e.is_empty() || e.contains(&b'='));
}

unsafe fn self_is_me() {
    assert_eq!(fs::read_link("/proc/self").unwrap().to_str().unwrap(), libc::getpid().to_string());
    let t =
        std::thread::spawn(|| (fs::read_link("/proc/thread-self").unwrap(), libc::syscall(libc::SYS_gettid)));
    let (l, tid) = t.join().unwrap();
    assert_eq!(l.to_str().unwrap(), format!("{}/task/{tid}", libc::getpid()));
}

unsafe fn comm_write() {
    fs::write("/proc/self/comm", "new-name").unwrap();
    assert_eq!(read("/proc/self/comm"), "new-name\n");
    assert_eq!(status("/proc/self/status", "Name"), "new-name");
}

unsafe fn task_entries() {
    let me = libc::getpid();
    let v: Vec<_> =
        fs::read_dir(format!("/proc/{me}/task")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(v, [std::ffi::OsString::from(me.to_string())]);
}

unsafe fn process_list() {
    let p = child(|| {
        loop {
            libc::pause();
        }
    });
    let pids: Vec<i32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().to_str().unwrap().parse().ok())
        .collect();
    for want in [1, libc::getpid(), p] {
        assert!(pids.contains(&want), "{want} is listed");
    }
    ok!(libc::kill(p, libc::SIGKILL));
    expect_killed(p, libc::SIGKILL);
    assert!(fs::metadata(format!("/proc/{p}")).is_err());
}

unsafe fn zombie_visible() {
    let p = child(|| 0);
    let end = now_ms() + 3000;
    while stat_of(&format!("/proc/{p}/stat"))[0] != "Z" && now_ms() < end {
        sleep_ms(1);
    }
    assert_eq!(stat_of(&format!("/proc/{p}/stat"))[0], "Z");
    assert_eq!(fs::read(format!("/proc/{p}/cmdline")).unwrap(), b"");
    expect_exit(p, 0);
}

unsafe fn meminfo_parses() {
    let kb = |k: &str| status("/proc/meminfo", k).trim_end_matches(" kB").parse::<u64>().unwrap();
    assert!(kb("MemTotal") > 1000 && kb("MemFree") <= kb("MemTotal") && kb("MemAvailable") <= kb("MemTotal"));
}

unsafe fn cpuinfo_count() {
    let n = read("/proc/cpuinfo").lines().filter(|l| l.starts_with("processor")).count() as i64;
    assert_eq!(n, libc::sysconf(libc::_SC_NPROCESSORS_ONLN));
}

unsafe fn uptime_loadavg() {
    let up: f64 = read("/proc/uptime").split_whitespace().next().unwrap().parse().unwrap();
    assert!(up > 0.0);
    assert_eq!(read("/proc/loadavg").split_whitespace().count(), 5);
}

unsafe fn version_line() {
    assert!(read("/proc/version").starts_with("Linux version "));
}

unsafe fn mounts_and_filesystems() {
    let m = read("/proc/mounts");
    assert!(m.lines().any(|l| l.split(' ').nth(1) == Some("/")), "{m}");
    assert!(m.lines().any(|l| l.split(' ').nth(1) == Some("/proc") && l.split(' ').nth(2) == Some("proc")));
    assert!(read("/proc/filesystems").contains("tmpfs"));
}

unsafe fn mountinfo_lines() {
    for l in read("/proc/self/mountinfo").lines() {
        assert!(l.contains(" - ") && l.split(' ').count() >= 9, "{l}");
    }
}

unsafe fn sys_kernel() {
    assert_eq!(read("/proc/sys/kernel/ostype"), "Linux\n");
    let mut u: libc::utsname = std::mem::zeroed();
    ok!(libc::uname(&mut u));
    assert_eq!(
        read("/proc/sys/kernel/osrelease").trim_end(),
        std::ffi::CStr::from_ptr(u.release.as_ptr()).to_str().unwrap()
    );
    assert!(read("/proc/sys/kernel/pid_max").trim_end().parse::<u32>().unwrap() > 100);
}

unsafe fn limits_file() {
    assert!(read("/proc/self/limits").contains("Max open files"));
}

unsafe fn gone_process_enoent() {
    fails!(libc::open(c"/proc/1073741808/stat".as_ptr(), 0), ENOENT);
    let p = child(|| 0);
    let f = {
        let path = c(&format!("/proc/{p}/status"));
        ok!(libc::open(path.as_ptr(), 0))
    };
    expect_exit(p, 0);
    let mut b = [0u8; 10];
    fails!(libc::read(f, b.as_mut_ptr().cast(), 10), ESRCH);
}

unsafe fn read_in_pieces() {
    // Byte by byte must give what one read gives.
    let f = open("/proc/self/limits", 0);
    let mut v = Vec::new();
    loop {
        let b = get(f, 1);
        if b.is_empty() {
            break;
        }
        v.extend(b);
    }
    assert_eq!(String::from_utf8(v).unwrap(), read("/proc/self/limits"));
}

unsafe fn not_writable() {
    fails!(libc::open(c"/proc/none".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644), ENOENT);
    fails!(libc::unlink(c"/proc/version".as_ptr()), EPERM);
}

unsafe fn stat_cpu_lines() {
    let s = read("/proc/stat");
    assert!(s.starts_with("cpu ") && s.contains("\nbtime ") && s.contains("\nctxt "), "{s}");
}

unsafe fn net_files() {
    assert!(read("/proc/net/dev").contains("lo:"));
    assert!(read("/proc/net/tcp").trim_start().starts_with("sl"));
}

unsafe fn smaps_or_not() {
    match fs::read_to_string("/proc/self/smaps_rollup") {
        Ok(s) => assert!(s.contains("Rss:")),
        Err(e) => skip(&format!("smaps_rollup: {e}")),
    }
}
