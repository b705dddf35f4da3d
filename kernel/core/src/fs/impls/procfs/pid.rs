//! /proc/PID, /proc/PID/task/TID, and their fd directories.

use super::super::pseudo::{self, Text, TextInode};
use super::{NET, status};
use crate::fs::file::File;
use crate::fs::inode::{Answer, DirSink, Inode, InodeOps, S_IFDIR, S_IFLNK, S_IFREG};
use crate::fs::path::Path;
use crate::fs::super_block::SuperBlock;
use crate::task::{Task, pid as pids};
use crate::{Errno, Result};
use std::sync::Arc;

const CAP_SYS_PTRACE: u32 = 19;

/// A decimal number without a leading zero.
pub fn parse(name: &[u8]) -> Option<u32> {
    if name.first() == Some(&b'0') || !name.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// Inode number of a process's directory.
pub fn dir_ino(n: u32) -> u64 {
    u64::from(n) << 16 | 1 << 50
}

/// Whom a directory shows: a process, or one of its threads.
#[derive(Clone, Copy)]
pub struct Who {
    tid: u32,
    /// The thread alone, not its process.
    pub thread: bool,
}

impl Who {
    /// The task, as long as it can be looked at (zombies can). For a process its leader.
    pub fn task(self) -> Result<Arc<Task>> {
        if let Some(t) = pids::find_task(self.tid) {
            return Ok(t);
        }
        if self.thread {
            return Err(Errno::ESRCH);
        }
        pids::find_group(self.tid).and_then(|g| g.leader()).ok_or(Errno::ESRCH)
    }
}

/// May `cur` look into `t`: its memory map, environment, descriptors (ptrace(2), PTRACE_MODE_READ).
fn may_look(cur: &Task, t: &Task) -> Result<()> {
    if std::ptr::eq(Arc::as_ptr(&cur.group), Arc::as_ptr(&t.group)) {
        return Ok(());
    }
    let (a, b) = (cur.cred(), t.cred());
    let same = [b.uid, b.euid, b.suid].iter().all(|&u| u == a.fsuid)
        && [b.gid, b.egid, b.sgid].iter().all(|&g| g == a.fsgid);
    if same || a.capable(CAP_SYS_PTRACE) { Ok(()) } else { Err(Errno::EACCES) }
}

fn owner(t: &Task) -> (u32, u32) {
    let c = t.cred();
    (c.euid, c.egid)
}

/// /proc/N.
pub fn process_dir(sb: &Arc<SuperBlock>, n: u32) -> Result<Arc<Inode>> {
    dir(sb, Who { tid: n, thread: false }, dir_ino(n)).map_err(|_| Errno::ENOENT)
}

fn dir(sb: &Arc<SuperBlock>, who: Who, ino: u64) -> Result<Arc<Inode>> {
    let t = who.task()?;
    Ok(pseudo::inode(sb, ino, S_IFDIR | 0o555, owner(&t), Box::new(PidDir(who))))
}

/// Names in a process's directory: name, type and mode.
const NAMES: &[(&str, u32)] = &[
    ("attr", S_IFDIR | 0o555),
    ("auxv", S_IFREG | 0o400),
    ("cgroup", S_IFREG | 0o444),
    ("cmdline", S_IFREG | 0o444),
    ("comm", S_IFREG | 0o644),
    ("coredump_filter", S_IFREG | 0o644),
    ("cwd", S_IFLNK | 0o777),
    ("environ", S_IFREG | 0o400),
    ("exe", S_IFLNK | 0o777),
    ("fd", S_IFDIR | 0o500),
    ("fdinfo", S_IFDIR | 0o555),
    ("io", S_IFREG | 0o400),
    ("limits", S_IFREG | 0o444),
    ("maps", S_IFREG | 0o444),
    ("mountinfo", S_IFREG | 0o444),
    ("mounts", S_IFREG | 0o444),
    ("net", S_IFDIR | 0o555),
    ("oom_adj", S_IFREG | 0o644),
    ("oom_score", S_IFREG | 0o444),
    ("oom_score_adj", S_IFREG | 0o644),
    ("personality", S_IFREG | 0o400),
    ("root", S_IFLNK | 0o777),
    ("schedstat", S_IFREG | 0o444),
    ("smaps", S_IFREG | 0o444),
    ("smaps_rollup", S_IFREG | 0o444),
    ("stat", S_IFREG | 0o444),
    ("statm", S_IFREG | 0o444),
    ("status", S_IFREG | 0o444),
    ("task", S_IFDIR | 0o555),
    ("wchan", S_IFREG | 0o444),
];

struct PidDir(Who);

impl PidDir {
    fn text(&self, name: &str, mode: u32) -> Option<Text> {
        let who = self.0;
        let plain = |f: fn(&Arc<Task>, bool) -> String| {
            Text::new(move |_| Ok(f(&who.task()?, who.thread).into_bytes()))
        };
        let guarded = |f: fn(&Arc<Task>) -> String| {
            Text::new(move |cur| {
                let t = who.task()?;
                may_look(cur, &t)?;
                Ok(f(&t).into_bytes())
            })
        };
        let t = match name {
            "stat" => plain(status::stat),
            "statm" => plain(|t, _| status::statm(t)),
            "status" => plain(|t, _| status::status(t)),
            "limits" => plain(|t, _| status::limits(t)),
            "io" => plain(|_, _| status::io()),
            "oom_score" => plain(|_, _| "0\n".into()),
            "personality" => plain(|t, _| {
                format!("{:08x}\n", t.group.personality.load(std::sync::atomic::Ordering::Relaxed))
            }),
            "schedstat" => plain(|t, _| format!("{} 0 0\n", t.rusage().utime_ns + t.rusage().stime_ns)),
            "wchan" => plain(|_, _| "0".into()),
            "cgroup" => plain(|_, _| "0::/\n".into()),
            "maps" => guarded(|t| status::maps(t, false)),
            "smaps" => guarded(|t| status::maps(t, true)),
            "smaps_rollup" => guarded(status::smaps_rollup),
            "mounts" => plain(|t, _| crate::fs::mount::show_mounts(&t.fs())),
            "mountinfo" => plain(|t, _| crate::fs::mount::show_mountinfo(&t.fs())),
            "auxv" => Text::new(move |cur| {
                let t = who.task()?;
                may_look(cur, &t)?;
                Ok(t.try_mm().map(|m| m.layout.lock().auxv.clone()).unwrap_or_default())
            }),
            "cmdline" => Text::later(move |_| Box::pin(status::cmdline(who))),
            "environ" => Text::later(move |cur| {
                Box::pin(async move {
                    let t = who.task()?;
                    may_look(&cur, &t)?;
                    status::environ(&t).await
                })
            }),
            "comm" => Text::new(move |_| {
                let mut c = who.task()?.comm_bytes();
                c.push(b'\n');
                Ok(c)
            })
            .writable(move |cur, bytes| {
                let t = who.task()?;
                if !Arc::ptr_eq(&t.group, &cur.group) {
                    return Err(Errno::EINVAL);
                }
                t.set_comm(bytes.strip_suffix(b"\n").unwrap_or(bytes));
                Ok(())
            }),
            "coredump_filter" => plain(|_, _| "00000033\n".into()).writable(|_, _| Ok(())),
            "oom_score_adj" => plain(|t, _| format!("{}\n", status::oom_adj(t)))
                .writable(move |cur, b| status::set_oom_adj(cur, &*who.task()?, b)),
            "oom_adj" => {
                plain(|t, _| format!("{}\n", status::oom_adj(t) * 17 / 1000)).writable(|_, _| Ok(()))
            }
            _ => return None,
        };
        Some(t.mode(mode & 0o777))
    }
}

impl InodeOps for PidDir {
    fn lookup<'a>(&'a self, dir: &'a Arc<Inode>, name: &'a [u8]) -> Answer<'a, Arc<Inode>> {
        Answer::Now((|| {
            let t = self.0.task().map_err(|_| Errno::ENOENT)?;
            let index = NAMES.iter().position(|(n, _)| n.as_bytes() == name).ok_or(Errno::ENOENT)?;
            let (name, mode) = NAMES[index];
            if self.0.thread && name == "task" {
                return Err(Errno::ENOENT);
            }
            let ino = dir.ino + 1 + index as u64;
            let who = self.0;
            let ops: Box<dyn InodeOps> = match name {
                "fd" => Box::new(FdDir { who, info: false }),
                "fdinfo" => Box::new(FdDir { who, info: true }),
                "task" => Box::new(TaskDir(who)),
                "net" => return NET.inode(""),
                "attr" => Box::new(EmptyDir),
                "cwd" => Box::new(Magic { who, what: What::Cwd }),
                "root" => Box::new(Magic { who, what: What::Root }),
                "exe" => Box::new(Magic { who, what: What::Exe }),
                _ => Box::new(TextInode(self.text(name, mode).ok_or(Errno::ENOENT)?)),
            };
            Ok(pseudo::inode(&dir.sb, ino, mode, owner(&t), ops))
        })())
    }

    fn readdir<'a>(&'a self, dir: &'a Arc<Inode>, pos: u64, sink: &'a mut DirSink<'a>) -> Answer<'a, ()> {
        if self.0.task().is_err() {
            return Answer::Now(Err(Errno::ENOENT));
        }
        let names: Vec<_> = NAMES
            .iter()
            .enumerate()
            .filter(|(_, (n, _))| !(self.0.thread && *n == "task"))
            .map(|(i, (n, m))| (n.as_bytes().to_vec(), dir.ino + 1 + i as u64, m & crate::fs::inode::S_IFMT))
            .collect();
        pseudo::list(&names, pos, sink);
        Answer::Now(Ok(()))
    }

    fn cacheable(&self, _name: &[u8]) -> bool {
        false
    }
}

struct EmptyDir;

impl InodeOps for EmptyDir {
    fn lookup<'a>(&'a self, _dir: &'a Arc<Inode>, _name: &'a [u8]) -> Answer<'a, Arc<Inode>> {
        Answer::Now(Err(Errno::ENOENT))
    }

    fn readdir<'a>(&'a self, _dir: &'a Arc<Inode>, _pos: u64, _sink: &'a mut DirSink<'a>) -> Answer<'a, ()> {
        Answer::Now(Ok(()))
    }
}

enum What {
    Cwd,
    Root,
    Exe,
    Fd(i32),
}

/// A link to a place rather than to a name.
struct Magic {
    who: Who,
    what: What,
}

fn open_file(t: &Task, fd: i32) -> Result<Arc<File>> {
    t.files().get(fd).map_err(|_| Errno::ENOENT)
}

impl InodeOps for Magic {
    fn magic_link(&self, _inode: &Arc<Inode>, cur: &Arc<Task>) -> Option<Result<Path>> {
        Some((|| {
            let t = self.who.task().map_err(|_| Errno::ENOENT)?;
            may_look(cur, &t)?;
            let mm = t.try_mm();
            match self.what {
                // A zombie is nowhere.
                _ if mm.is_none() => Err(Errno::ENOENT),
                What::Cwd => Ok(t.fs().cwd()),
                What::Root => Ok(t.fs().root()),
                What::Exe => {
                    let exe = mm.and_then(|m| m.layout.lock().exe.clone()).ok_or(Errno::ENOENT)?;
                    exe.path.clone().ok_or(Errno::ENOENT)
                }
                What::Fd(fd) => open_file(&t, fd)?.path.clone().ok_or(Errno::ENOENT),
            }
        })())
    }
}

struct FdDir {
    who: Who,
    info: bool,
}

impl InodeOps for FdDir {
    fn lookup<'a>(&'a self, dir: &'a Arc<Inode>, name: &'a [u8]) -> Answer<'a, Arc<Inode>> {
        Answer::Now((|| {
            let n = if name == b"0" { 0 } else { parse(name).ok_or(Errno::ENOENT)? };
            let fd = i32::try_from(n).map_err(|_| Errno::ENOENT)?;
            let t = self.who.task().map_err(|_| Errno::ENOENT)?;
            let f = open_file(&t, fd)?;
            let who = self.who;
            let ino = (dir.ino << 20) + u64::from(n) + 1;
            if self.info {
                let text = Text::new(move |cur| {
                    let t = who.task()?;
                    may_look(cur, &t)?;
                    Ok(status::fdinfo(&t, fd, &*open_file(&t, fd)?).into_bytes())
                });
                let ops = Box::new(TextInode(text));
                return Ok(pseudo::inode(&dir.sb, ino, S_IFREG | 0o444, owner(&t), ops));
            }
            let mut mode = S_IFLNK;
            if f.readable() {
                mode |= 0o500;
            }
            if f.writable() {
                mode |= 0o300;
            }
            let ops = Box::new(Magic { who, what: What::Fd(fd) });
            Ok(pseudo::inode(&dir.sb, ino, mode, owner(&t), ops))
        })())
    }

    fn readdir<'a>(&'a self, dir: &'a Arc<Inode>, pos: u64, sink: &'a mut DirSink<'a>) -> Answer<'a, ()> {
        Answer::Now((|| {
            let t = self.who.task().map_err(|_| Errno::ENOENT)?;
            let kind = if self.info { S_IFREG } else { S_IFLNK };
            for n in t.files().numbers() {
                let at = u64::try_from(n).unwrap_or(0) + 2;
                if at < pos {
                    continue;
                }
                let name = n.to_string();
                let e = crate::fs::inode::DirEnt {
                    name: name.as_bytes(),
                    ino: (dir.ino << 20) + at - 1,
                    kind,
                    next: at + 1,
                };
                if !sink(&e) {
                    break;
                }
            }
            Ok(())
        })())
    }

    fn cacheable(&self, _name: &[u8]) -> bool {
        false
    }
}

struct TaskDir(Who);

impl InodeOps for TaskDir {
    fn lookup<'a>(&'a self, dir: &'a Arc<Inode>, name: &'a [u8]) -> Answer<'a, Arc<Inode>> {
        Answer::Now((|| {
            let n = parse(name).ok_or(Errno::ENOENT)?;
            let group = Arc::clone(&self.0.task().map_err(|_| Errno::ENOENT)?.group);
            let t = pids::find_task(n).ok_or(Errno::ENOENT)?;
            if !Arc::ptr_eq(&t.group, &group) {
                return Err(Errno::ENOENT);
            }
            self::dir(&dir.sb, Who { tid: n, thread: true }, dir_ino(n) | 1 << 51)
        })())
    }

    fn readdir<'a>(&'a self, _dir: &'a Arc<Inode>, pos: u64, sink: &'a mut DirSink<'a>) -> Answer<'a, ()> {
        Answer::Now((|| {
            let group = Arc::clone(&self.0.task().map_err(|_| Errno::ENOENT)?.group);
            let mut tids: Vec<u32> = group.threads().iter().map(|t| t.tid()).collect();
            tids.sort_unstable();
            for n in tids {
                let at = u64::from(n) + 2;
                if at < pos {
                    continue;
                }
                let name = n.to_string();
                let e = crate::fs::inode::DirEnt {
                    name: name.as_bytes(),
                    ino: dir_ino(n) | 1 << 51,
                    kind: S_IFDIR,
                    next: at + 1,
                };
                if !sink(&e) {
                    break;
                }
            }
            Ok(())
        })())
    }

    fn cacheable(&self, _name: &[u8]) -> bool {
        false
    }
}
