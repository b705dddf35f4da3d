//! Builtins on files and processes: ls, cat, ps, dmesg, mount, uname.
use crate::c;
use std::fs;
use std::io::{Error, Result, Write};
use std::os::unix::fs::MetadataExt;

fn check(r: i32) -> Result<()> {
    if r < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn mode_text(m: u32) -> String {
    let kind = match m & libc::S_IFMT {
        libc::S_IFDIR => 'd',
        libc::S_IFLNK => 'l',
        libc::S_IFCHR => 'c',
        libc::S_IFBLK => 'b',
        libc::S_IFIFO => 'p',
        libc::S_IFSOCK => 's',
        _ => '-',
    };
    let bits = (0..9).rev().zip("rwxrwxrwx".chars()).map(|(i, ch)| if m >> i & 1 == 1 { ch } else { '-' });
    std::iter::once(kind).chain(bits).collect()
}

fn show(path: &std::path::Path, name: &str, long: bool) -> Result<()> {
    if !long {
        println!("{name}");
        return Ok(());
    }
    let m = fs::symlink_metadata(path)?;
    let size = if m.mode() & libc::S_IFMT == libc::S_IFCHR || m.mode() & libc::S_IFMT == libc::S_IFBLK {
        format!("{},{}", libc::major(m.rdev()), libc::minor(m.rdev()))
    } else {
        m.len().to_string()
    };
    let to = fs::read_link(path).map_or(String::new(), |t| format!(" -> {}", t.display()));
    println!("{} {:3} {:5} {:5} {:>10} {name}{to}", mode_text(m.mode()), m.nlink(), m.uid(), m.gid(), size);
    Ok(())
}

/// `ls [-l] [PATH...]`.
pub fn ls(args: &[String]) -> Result<()> {
    let long = args.iter().any(|a| a.starts_with('-') && a.contains('l'));
    let all = args.iter().any(|a| a.starts_with('-') && a.contains('a'));
    let mut paths: Vec<&str> = args.iter().filter(|a| !a.starts_with('-')).map(String::as_str).collect();
    if paths.is_empty() {
        paths.push(".");
    }
    for p in paths {
        let named = |e: Error| Error::other(format!("{p}: {e}"));
        if !fs::metadata(p).is_ok_and(|m| m.is_dir()) {
            show(p.as_ref(), p, long).and_then(|()| fs::symlink_metadata(p).map(drop)).map_err(named)?;
            continue;
        }
        let mut names: Vec<_> = fs::read_dir(p).map_err(named)?.collect::<Result<Vec<_>>>().map_err(named)?;
        names.sort_by_key(fs::DirEntry::file_name);
        for e in names {
            let name = e.file_name().to_string_lossy().into_owned();
            if all || !name.starts_with('.') {
                show(&e.path(), &name, long).or_else(|e| writeln!(std::io::stderr(), "ls: {name}: {e}"))?;
            }
        }
    }
    Ok(())
}

/// `cat FILE...`, without a file the input.
pub fn cat(args: &[String]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.is_empty() {
        std::io::copy(&mut std::io::stdin().lock(), &mut out)?;
    }
    for a in args {
        let mut f = fs::File::open(a).map_err(|e| Error::other(format!("{a}: {e}")))?;
        std::io::copy(&mut f, &mut out)?;
    }
    out.flush()
}

/// `ps`: pid, parent, state, resident KiB, threads, command.
pub fn ps() -> Result<()> {
    println!("  PID  PPID S    RSS  THR COMMAND");
    let mut pids: Vec<u32> =
        fs::read_dir("/proc")?.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    for pid in pids {
        // A process may end between the list and the look.
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let field = |k: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(k));
            line.and_then(|l| l.split_whitespace().next()).unwrap_or("-")
        };
        let cmd = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let cmd = String::from_utf8_lossy(&cmd).trim_end_matches('\0').replace('\0', " ");
        let cmd = if cmd.is_empty() { format!("[{}]", field("Name:")) } else { cmd };
        println!(
            "{pid:5} {:>5} {} {:>6} {:>4} {cmd}",
            field("PPid:"),
            field("State:"),
            field("VmRSS:"),
            field("Threads:")
        );
    }
    Ok(())
}

/// `dmesg`: the kernel's log, through syslog(2).
pub fn dmesg() -> Result<()> {
    let size = unsafe { libc::klogctl(10, std::ptr::null_mut(), 0) };
    check(size)?;
    let mut b = vec![0u8; size as usize + 1];
    let n = unsafe { libc::klogctl(3, b.as_mut_ptr().cast(), size) };
    check(n)?;
    b.truncate(n as usize);
    std::io::stdout().write_all(&b)
}

/// `mount [-t TYPE] [-o ro] SOURCE DIR`; without arguments what is mounted.
pub fn mount(args: &[String]) -> Result<()> {
    let (mut kind, mut flags, mut rest) = ("ext4", 0, Vec::new());
    let mut it = args.iter();
    while let Some(a) = it.next() {
        match a.as_str() {
            "-t" => kind = it.next().map_or(kind, String::as_str),
            "-o" => {
                for o in it.next().map_or("", String::as_str).split(',') {
                    flags |= match o {
                        "ro" => libc::MS_RDONLY,
                        "bind" => libc::MS_BIND,
                        "remount" => libc::MS_REMOUNT,
                        "nosuid" => libc::MS_NOSUID,
                        "" | "rw" => 0,
                        o => {
                            return Err(Error::other(format!(
                                "option {o:?}: expected ro, rw, bind, remount or nosuid"
                            )));
                        }
                    };
                }
            }
            a => rest.push(a),
        }
    }
    match rest.as_slice() {
        [] => cat(&["/proc/mounts".to_owned()]),
        [source, dir] => {
            let (s, d, k) = (c(source), c(dir), c(kind));
            check(unsafe { libc::mount(s.as_ptr(), d.as_ptr(), k.as_ptr(), flags, std::ptr::null()) })
        }
        _ => Err(Error::other("expected SOURCE DIR")),
    }
}

/// `umount DIR`.
pub fn umount(args: &[String]) -> Result<()> {
    args.iter().try_for_each(|a| check(unsafe { libc::umount(c(a).as_ptr()) }))
}

/// `uname`: all of it.
pub fn uname() -> Result<()> {
    let mut u: libc::utsname = unsafe { std::mem::zeroed() };
    check(unsafe { libc::uname(&mut u) })?;
    let text = |f: &[libc::c_char]| {
        f.iter().take_while(|b| **b != 0).map(|b| char::from(b.to_ne_bytes()[0])).collect::<String>()
    };
    let all = [&u.sysname, &u.nodename, &u.release, &u.version, &u.machine].map(|f| text(f));
    println!("{}", all.join(" "));
    Ok(())
}
