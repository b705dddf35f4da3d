//! execve(2), execveat(2).
//!
//! A program gets a fresh address space in a fresh host process. Until the new program is completely there the old
//! one stays as it is, so that every error finds it alive.

use super::exit::{de_thread, exec_reset, mm_release};
use super::task::Task;
use crate::fs::file::File;
use crate::fs::mount::ms;
use crate::loader::{self, Program};
use crate::mm::Mm;
use crate::mm::space;
use crate::syscall::SyscallArgs;
use crate::task::Cred;
use crate::task::cred::CAP_FULL;
use crate::{Errno, Result};
use arch::user::{UserRegs, UserThread};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uapi::nr;
use uapi::raw::general as c;

/// What a successful exec leaves to the run loop.
pub struct Exec {
    /// The thread of a fresh host process, to be started with [`regs`](Self::regs); `None`: the program runs on in
    /// the host process and thread that the task has.
    pub thread: Option<UserThread>,
    /// First registers.
    pub regs: UserRegs,
    /// The address space that the task has left.
    pub old: Option<Arc<Mm>>,
}

/// Longest argument or environment string (MAX_ARG_STRLEN).
const MAX_ARG: usize = 131_072;
/// Most bytes of all of them: a quarter of the stack limit, at least this.
const MIN_ARGS: usize = 131_072;

/// Runs one of the calls.
pub async fn exec_call(cur: &Arc<Task>, call: &SyscallArgs) -> Result<Exec> {
    let a = call.args;
    let at = u32::try_from(call.nr) == Ok(nr::__NR_execveat);
    let (dirfd, path, argv, envp, flags) = if at {
        (a[0] as u32 as i32, a[1], a[2], a[3], a[4] as u32)
    } else {
        (c::AT_FDCWD, a[0], a[1], a[2], 0)
    };
    if flags & !(c::AT_EMPTY_PATH | c::AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let mm = cur.mm();
    let name = mm.read_cstr(path, 4096).await?;
    let limit = (cur.group.rlimit(c::RLIMIT_STACK).0 / 4).clamp(MIN_ARGS as u64, 6 << 20) as usize;
    let mut room = limit;
    let argv = read_strings(&mm, argv, &mut room).await?;
    let envp = read_strings(&mm, envp, &mut room).await?;
    drop(mm);
    exec(cur, dirfd, &name, flags, argv, envp).await
}

async fn read_strings(mm: &Arc<Mm>, addr: u64, room: &mut usize) -> Result<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    if addr == 0 {
        return Ok(out);
    }
    loop {
        let p: u64 = mm.read_obj(addr.wrapping_add(out.len() as u64 * 8)).await?;
        if p == 0 {
            return Ok(out);
        }
        let s = mm
            .read_cstr(p, MAX_ARG)
            .await
            .map_err(|e| if e == Errno::ENAMETOOLONG { Errno::E2BIG } else { e })?;
        *room = room.checked_sub(s.len() + 1 + 8).ok_or(Errno::E2BIG)?;
        out.push(s);
    }
}

/// Loads a program for `cur` in place of what it runs.
pub async fn exec(
    cur: &Arc<Task>,
    dirfd: i32,
    name: &[u8],
    flags: u32,
    mut argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
) -> Result<Exec> {
    if argv.is_empty() {
        // As Linux since 5.18: programs may rely on argv[0].
        argv.push(Vec::new());
    }
    let file = crate::fs::open::open_exec(cur, dirfd, name, flags).await?;
    let found = loader::script::resolve(cur, file, name.to_vec(), argv).await?;
    let before = cur.cred();
    let cred = exec_cred(&before, &found.file);
    // What a host thread stands on (signal frame, mask, alternate stack) was the old program's to forge. That gains it
    // nothing unless the new program may do more than it could.
    let raised = cred.euid != before.euid
        || cred.egid != before.egid
        || cred.cap_permitted & !before.cap_permitted != 0;
    // Alone in its address space (no threads, no vfork parent), a task keeps its host process: emptying it is much
    // cheaper than making one. Two owners: the task and this variable.
    let old = cur.mm();
    let alone = !raised
        && Arc::strong_count(&old) == 2
        && cur.group.nr_threads() == 1
        && cur.host_pid.load(Ordering::SeqCst) != 0;
    let (mm, thread) = if alone {
        (Mm::new_beside(&old), None)
    } else {
        let ready = space::take().await?;
        (Mm::new(ready.space), Some(ready.thread))
    };
    let program = Program { file: Arc::clone(&found.file), name: found.name.clone(), argv: found.argv, envp };
    let regs = loader::load(cur, &mm, &program, &cred).await?;
    // The point of no return: from here on errors end the process.
    de_thread(cur).await.map_err(|_| {
        super::exit::thread_exit(cur, c::SIGKILL as i32);
        Errno::EAGAIN
    })?;
    mm_release(cur).await;
    if thread.is_none() {
        mm.take_over(&old);
    }
    // These go to the stub together with the emptying of it, or with the first fault.
    mm.expect_program(regs.rip, regs.rsp);
    if thread.is_none() {
        mm.settle(&old).await;
    }
    drop(old);
    let old = cur.replace_mm(Some(mm));
    let comm = found.name.rsplit(|&b| b == b'/').next().unwrap_or_default().to_vec();
    if cred.uid != cred.euid || cred.gid != cred.egid {
        cur.group.dumpable.store(0, Ordering::Relaxed);
    }
    cur.set_cred(cred);
    exec_reset(cur, &comm);
    Ok(Exec { thread, regs, old })
}

/// Credentials after exec (capabilities(7)): set-user-ID and set-group-ID bits count unless the mount or
/// no_new_privs forbids it; root gets all of the bounding set.
fn exec_cred(old: &Cred, file: &File) -> Cred {
    let mut new = old.clone();
    let (mode, uid, gid) = file.inode.owner_mode();
    let nosuid = file.path.as_ref().is_some_and(|p| p.mnt.flags() & ms::NOSUID != 0);
    if !nosuid && !old.no_new_privs {
        if mode & 0o4000 != 0 {
            new.euid = uid;
        }
        if mode & 0o2010 == 0o2010 {
            new.egid = gid;
        }
    }
    (new.suid, new.fsuid) = (new.euid, new.euid);
    (new.sgid, new.fsgid) = (new.egid, new.egid);
    if new.euid == 0 || new.uid == 0 {
        new.cap_permitted = new.cap_bounding & CAP_FULL;
        new.cap_effective = if new.euid == 0 { new.cap_permitted } else { 0 };
        new.cap_ambient = 0;
    } else {
        new.cap_permitted = new.cap_ambient;
        new.cap_effective = new.cap_ambient;
    }
    new
}
