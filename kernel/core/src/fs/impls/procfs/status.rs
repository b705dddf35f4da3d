//! Texts of the files in a process's directory (proc_pid_stat(5) and its neighbours).

use super::pid::Who;
use crate::fs::file::File;
use crate::mm::Mm;
use crate::task::Task;
use crate::{Errno, Result};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use uapi::raw::general as c;

/// Nanoseconds of a clock tick (USER_HZ 100).
const TICK: u64 = 10_000_000;

fn state(t: &Task) -> char {
    if t.group.is_zombie() { 'Z' } else { t.state_char() }
}

/// Signal sets: pending of the thread, pending of the process, blocked, ignored, caught.
fn signals(t: &Task) -> [u64; 5] {
    let own = t.signals.pending().0;
    let all = t.all_pending().0;
    let (ign, cgt) = t.sighand.lock().ignored_and_caught();
    [own, all & !own, t.signals.blocked().0, ign.0, cgt.0]
}

/// /proc/PID/stat.
pub fn stat(t: &Arc<Task>, thread: bool) -> String {
    let g = &t.group;
    let mm = t.try_mm();
    let layout = mm.as_ref().map(|m| m.layout.lock().clone()).unwrap_or_default();
    let usage = if thread { t.rusage() } else { g.rusage() };
    let children = g.inner.lock().children_usage;
    let session = g.session();
    let (tty, fg) = session.ctty().map_or((0, -1), |x| (x.dev(), i64::from(x.foreground_pgrp())));
    let sig = signals(t);
    let (vsize, rss) = mm.as_ref().map_or((0, 0), |m| (m.total_pages() * 4096, m.resident_pages()));
    let (rss_limit, _) = g.rlimit(c::RLIMIT_RSS);
    let nice = t.nice.load(Relaxed);
    let heap = mm.as_ref().map_or(0, |m| m.heap().0);
    let policy = t.policy.load(Relaxed);
    let exit_signal = g.inner.lock().exit_signal;
    let mut s = format!("{} (", t.tid());
    s += &String::from_utf8_lossy(&t.comm_bytes());
    write!(
        s,
        ") {} {} {} {} {tty} {fg} {} {} {} {} {} {} {} {} {} {} {nice} {} 0 {} {vsize} {rss} {rss_limit}",
        state(t),
        g.ppid(),
        g.pgrp(),
        session.sid,
        0x0040_0000,
        usage.minflt,
        children.minflt,
        usage.majflt,
        children.majflt,
        usage.utime_ns / TICK,
        usage.stime_ns / TICK,
        children.utime_ns / TICK,
        children.stime_ns / TICK,
        20 + nice,
        g.nr_threads(),
        crate::time::since_boot_ns(t.start_time) / TICK,
    )
    .ok();
    writeln!(
        s,
        " {} {} {} 0 0 {} {} {} {} 0 0 0 {exit_signal} {} {} {} 0 0 0 {} {} {heap} {} {} {} {} {}",
        layout.code.0,
        layout.code.1,
        layout.stack,
        (sig[0] | sig[1]) & 0x7fff_ffff,
        sig[2] & 0x7fff_ffff,
        sig[3] & 0x7fff_ffff,
        sig[4] & 0x7fff_ffff,
        t.cpu.load(Relaxed),
        policy >> 8,
        policy & 0xff,
        layout.data.0,
        layout.data.1,
        layout.args.0,
        layout.args.1,
        layout.env.0,
        layout.env.1,
        t.exit_status.load(Relaxed),
    )
    .ok();
    s
}

/// /proc/PID/statm.
pub fn statm(t: &Task) -> String {
    let Some(mm) = t.try_mm() else { return "0 0 0 0 0 0 0\n".into() };
    let (size, rss) = (mm.total_pages(), mm.resident_pages());
    let code = { mm.layout.lock().code };
    let shared: u64 = mm.maps().iter().filter(|m| m.file.is_some()).map(|m| m.resident).sum();
    let text = code.1.saturating_sub(code.0).div_ceil(4096);
    format!("{size} {rss} {} {text} 0 {} 0\n", shared.min(rss), size.saturating_sub(text))
}

/// /proc/PID/status.
pub fn status(t: &Task) -> String {
    let g = &t.group;
    let cred = t.cred();
    let st = state(t);
    let long = match st {
        'R' => "running",
        'S' => "sleeping",
        'D' => "disk sleep",
        'T' => "stopped",
        't' => "tracing stop",
        'Z' => "zombie",
        _ => "dead",
    };
    let mut s = String::new();
    let name = t.comm_bytes();
    writeln!(s, "Name:\t{}", String::from_utf8_lossy(&name).replace('\\', "\\\\").replace('\n', "\\n")).ok();
    writeln!(s, "Umask:\t{:04o}", t.fs().umask()).ok();
    writeln!(s, "State:\t{st} ({long})").ok();
    writeln!(s, "Tgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\nTracerPid:\t0", t.tgid(), t.tid(), g.ppid()).ok();
    writeln!(s, "Uid:\t{}\t{}\t{}\t{}", cred.uid, cred.euid, cred.suid, cred.fsuid).ok();
    writeln!(s, "Gid:\t{}\t{}\t{}\t{}", cred.gid, cred.egid, cred.sgid, cred.fsgid).ok();
    writeln!(s, "FDSize:\t{}", t.files().numbers().len().next_multiple_of(64).max(64)).ok();
    s += "Groups:\t";
    for gid in &cred.groups {
        write!(s, "{gid} ").ok();
    }
    writeln!(
        s,
        "\nNStgid:\t{}\nNSpid:\t{}\nNSpgid:\t{}\nNSsid:\t{}",
        t.tgid(),
        t.tid(),
        g.pgrp(),
        g.session().sid
    )
    .ok();
    if let Some(mm) = t.try_mm() {
        vm_lines(&mut s, &mm, g.maxrss_kib.load(Relaxed));
    }
    writeln!(s, "Threads:\t{}", g.nr_threads()).ok();
    let sig = signals(t);
    let all: u32 = (sig[0].count_ones()) + (sig[1].count_ones());
    writeln!(s, "SigQ:\t{all}/{}", g.rlimit(c::RLIMIT_SIGPENDING).0).ok();
    for (name, v) in ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"].iter().zip(sig) {
        writeln!(s, "{name}:\t{v:016x}").ok();
    }
    for (name, v) in [
        ("CapInh", cred.cap_inheritable),
        ("CapPrm", cred.cap_permitted),
        ("CapEff", cred.cap_effective),
        ("CapBnd", cred.cap_bounding),
        ("CapAmb", cred.cap_ambient),
    ] {
        writeln!(s, "{name}:\t{v:016x}").ok();
    }
    writeln!(s, "NoNewPrivs:\t{}\nSeccomp:\t0\nSeccomp_filters:\t0", u8::from(cred.no_new_privs)).ok();
    let cpus = executor::nr_cpus().clamp(1, 64);
    let all = u64::MAX >> (64 - cpus);
    let mask = t.affinity.load(Relaxed) & all;
    writeln!(s, "Cpus_allowed:\t{mask:x}\nCpus_allowed_list:\t{}", cpu_list(mask)).ok();
    s += "Mems_allowed:\t1\nMems_allowed_list:\t0\n";
    let u = t.rusage();
    writeln!(s, "voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}", u.nvcsw, u.nivcsw).ok();
    s
}

fn vm_lines(s: &mut String, mm: &Mm, maxrss_kib: u64) {
    let maps = mm.maps();
    let kib = |pages: u64| pages * 4;
    let (size, rss) = (kib(mm.total_pages()), kib(mm.resident_pages()));
    let file: u64 = kib(maps.iter().filter(|m| m.file.is_some()).map(|m| m.resident).sum());
    let of =
        |name: &str| maps.iter().filter(|m| m.name == name).map(|m| (m.end - m.start) / 1024).sum::<u64>();
    let stack = of("[stack]");
    let code = { mm.layout.lock().code };
    let exe = code.1.saturating_sub(code.0) / 1024;
    let lib: u64 = maps
        .iter()
        .filter(|m| m.file.is_some() && m.prot & c::PROT_EXEC != 0)
        .map(|m| (m.end - m.start) / 1024)
        .sum::<u64>()
        .saturating_sub(exe);
    for (name, v) in [
        ("VmPeak", size),
        ("VmSize", size),
        ("VmLck", 0),
        ("VmPin", 0),
        ("VmHWM", rss.max(maxrss_kib)),
        ("VmRSS", rss),
        ("RssAnon", rss.saturating_sub(file)),
        ("RssFile", file.min(rss)),
        ("RssShmem", 0),
        ("VmData", size.saturating_sub(stack + exe + lib)),
        ("VmStk", stack),
        ("VmExe", exe),
        ("VmLib", lib),
        ("VmPTE", 4),
        ("VmSwap", 0),
    ] {
        writeln!(s, "{name}:\t{v:8} kB").ok();
    }
}

/// CPUs of a mask as `0-3,5`.
pub fn cpu_list(mask: u64) -> String {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < 64 {
        if mask >> at & 1 == 0 {
            at += 1;
            continue;
        }
        let first = at;
        while at < 64 && mask >> at & 1 != 0 {
            at += 1;
        }
        parts.push(if at - 1 == first { first.to_string() } else { format!("{first}-{}", at - 1) });
    }
    parts.join(",")
}

/// /proc/PID/maps, and with `smaps` the lines of /proc/PID/smaps.
pub fn maps(t: &Task, smaps: bool) -> String {
    let Some(mm) = t.try_mm() else { return String::new() };
    let root = t.fs().root();
    let mut s = String::new();
    for m in mm.maps() {
        let bit = |b: u32, ch: char| if m.prot & b != 0 { ch } else { '-' };
        let (dev, ino) = m.file.as_ref().map_or((0, 0), |f| (f.inode.sb.dev, f.inode.ino));
        let mut line = format!(
            "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {ino} ",
            m.start,
            m.end,
            bit(c::PROT_READ, 'r'),
            bit(c::PROT_WRITE, 'w'),
            bit(c::PROT_EXEC, 'x'),
            if m.shared { 's' } else { 'p' },
            m.offset,
            crate::fs::inode::major(dev),
            crate::fs::inode::minor(dev),
        );
        let name = match &m.file {
            Some(f) => f
                .path
                .as_ref()
                .map(|p| String::from_utf8_lossy(&p.display(&root).0).replace('\n', "\\012"))
                .unwrap_or_default(),
            None => m.name.to_owned(),
        };
        if !name.is_empty() {
            while line.len() < 73 {
                line.push(' ');
            }
            line += &name;
        }
        s += &line;
        s.push('\n');
        if smaps {
            let (size, rss) = ((m.end - m.start) / 1024, m.resident * 4);
            let anon = if m.file.is_none() { rss } else { 0 };
            write!(s, "Size: {size:18} kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n").ok();
            write!(s, "Rss: {rss:19} kB\nPss: {rss:19} kB\nShared_Clean: {:10} kB\n", rss - anon).ok();
            write!(
                s,
                "Shared_Dirty:          0 kB\nPrivate_Clean:         0 kB\nPrivate_Dirty: {anon:9} kB\n"
            )
            .ok();
            write!(s, "Referenced: {rss:12} kB\nAnonymous: {anon:13} kB\nSwap:                  0 kB\n").ok();
            s += "VmFlags: rd mr mw me\n";
        }
    }
    s
}

/// /proc/PID/smaps_rollup.
pub fn smaps_rollup(t: &Arc<Task>) -> String {
    let Some(mm) = t.try_mm() else { return String::new() };
    let maps = mm.maps();
    let (Some(first), Some(last)) = (maps.first(), maps.last()) else { return String::new() };
    let rss = mm.resident_pages() * 4;
    let anon: u64 = maps.iter().filter(|m| m.file.is_none()).map(|m| m.resident * 4).sum();
    let file = rss.saturating_sub(anon);
    let mut s = format!("{:08x}-{:08x} ---p 00000000 00:00 0 [rollup]\n", first.start, last.end);
    for (k, v) in [
        ("Rss", rss),
        ("Pss", rss),
        ("Shared_Clean", file),
        ("Private_Dirty", anon),
        ("Anonymous", anon),
        ("Swap", 0),
    ] {
        writeln!(s, "{:16}{v:8} kB", format!("{k}:")).ok();
    }
    s
}

/// Reads a range of a process's memory, at most 2 MiB.
async fn memory(t: &Task, (from, to): (u64, u64)) -> Result<Vec<u8>> {
    let Some(mm) = t.try_mm() else { return Ok(Vec::new()) };
    let n = usize::try_from(to.saturating_sub(from)).unwrap_or(0).min(2 << 20);
    let mut buf = vec![0; n];
    mm.copy_from_user(from, &mut buf).await.map_err(|_| Errno::EIO)?;
    Ok(buf)
}

/// /proc/PID/cmdline; a program that wrote over the end of its arguments (setproctitle) is shown up to its NUL.
pub async fn cmdline(who: Who) -> Result<Vec<u8>> {
    let t = who.task()?;
    let Some(mm) = t.try_mm() else { return Ok(Vec::new()) };
    let (args, env) = {
        let l = mm.layout.lock();
        (l.args, l.env)
    };
    let mut text = memory(&t, args).await?;
    if text.last().is_some_and(|&b| b != 0) {
        text.extend(memory(&t, (args.1, env.1.max(args.1))).await?);
        let end = text.iter().position(|&b| b == 0).map_or(text.len(), |i| i + 1);
        text.truncate(end);
    }
    Ok(text)
}

/// /proc/PID/environ.
pub async fn environ(t: &Task) -> Result<Vec<u8>> {
    let range = t.try_mm().map_or((0, 0), |m| m.layout.lock().env);
    memory(t, range).await
}

/// /proc/PID/limits.
pub fn limits(t: &Task) -> String {
    const ROWS: &[(&str, u32, &str)] = &[
        ("Max cpu time", c::RLIMIT_CPU, "seconds"),
        ("Max file size", c::RLIMIT_FSIZE, "bytes"),
        ("Max data size", c::RLIMIT_DATA, "bytes"),
        ("Max stack size", c::RLIMIT_STACK, "bytes"),
        ("Max core file size", c::RLIMIT_CORE, "bytes"),
        ("Max resident set", c::RLIMIT_RSS, "bytes"),
        ("Max processes", c::RLIMIT_NPROC, "processes"),
        ("Max open files", c::RLIMIT_NOFILE, "files"),
        ("Max locked memory", c::RLIMIT_MEMLOCK, "bytes"),
        ("Max address space", c::RLIMIT_AS, "bytes"),
        ("Max file locks", c::RLIMIT_LOCKS, "locks"),
        ("Max pending signals", c::RLIMIT_SIGPENDING, "signals"),
        ("Max msgqueue size", c::RLIMIT_MSGQUEUE, "bytes"),
        ("Max nice priority", c::RLIMIT_NICE, ""),
        ("Max realtime priority", c::RLIMIT_RTPRIO, ""),
        ("Max realtime timeout", c::RLIMIT_RTTIME, "us"),
    ];
    let show = |v: u64| if v == u64::MAX { "unlimited".to_owned() } else { v.to_string() };
    let mut s = format!("{:25} {:20} {:20} {:10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for (name, which, unit) in ROWS {
        let (soft, hard) = t.group.rlimit(*which);
        writeln!(s, "{name:25} {:20} {:20} {unit:10}", show(soft), show(hard)).ok();
    }
    s
}

/// /proc/PID/io. DIFFERS: nothing is counted.
pub fn io() -> String {
    ["rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes"]
        .iter()
        .map(|n| format!("{n}: 0\n"))
        .collect()
}

/// /proc/PID/fdinfo/N.
pub fn fdinfo(t: &Task, fd: i32, f: &File) -> String {
    let cloexec = if t.files().cloexec(fd).unwrap_or(false) { c::O_CLOEXEC } else { 0 };
    let mnt = f.path.as_ref().map_or(0, |p| p.mnt.id);
    format!(
        "pos:\t{}\nflags:\t{:#010o}\nmnt_id:\t{mnt}\nino:\t{}\n{}",
        f.pos(),
        f.flags() | cloexec,
        f.inode.ino,
        f.ops.show_fdinfo(f)
    )
    .replace("0o", "0")
}

/// oom_score_adj.
pub fn oom_adj(t: &Task) -> i32 {
    t.group.oom_score_adj.load(Relaxed)
}

/// Writing oom_score_adj; below the present value only with CAP_SYS_RESOURCE.
pub fn set_oom_adj(cur: &Task, t: &Task, bytes: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    let v: i32 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
    if !(-1000..=1000).contains(&v) {
        return Err(Errno::EINVAL);
    }
    if v < oom_adj(t) && !cur.cred().capable(crate::fs::perm::cap::SYS_RESOURCE) {
        return Err(Errno::EACCES);
    }
    t.group.oom_score_adj.store(v, Relaxed);
    Ok(())
}
