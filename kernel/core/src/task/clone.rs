//! clone(2), fork(2), vfork(2), clone3(2): the part that makes host threads and processes.

use super::copy::{CloneArgs, check_flags, copy_task};
use super::pidfd::PidFd;
use super::task::Task;
use super::{run, sched};
use crate::mm::fault::Access;
use crate::mm::space;
use crate::syscall::SyscallArgs;
use crate::{Errno, Result};
use arch::user::{GUEST_END, UserRegs, UserThread};
use std::sync::Arc;
use uapi::nr;
use uapi::raw::general as c;

/// Everything that the four calls can say.
#[derive(Default, Debug)]
struct Request {
    flags: u64,
    exit_signal: u32,
    /// Stack pointer of the child, 0: the parent's.
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    pidfd: u64,
    tls: u64,
}

const fn f(flag: u32) -> u64 {
    flag as u64
}

/// Runs one of the calls for `cur`, whose registers are `regs`.
pub async fn clone_call(
    cur: &Arc<Task>,
    call: &SyscallArgs,
    regs: &UserRegs,
    user: &UserThread,
) -> Result<u64> {
    let a = call.args;
    let req = match u32::try_from(call.nr).unwrap_or(u32::MAX) {
        nr::__NR_fork => Request { exit_signal: c::SIGCHLD, ..Request::default() },
        nr::__NR_vfork => {
            Request { flags: f(c::CLONE_VM | c::CLONE_VFORK), exit_signal: c::SIGCHLD, ..Request::default() }
        }
        nr::__NR_clone => {
            // The high half of the register carries no flags of clone(2).
            let flags = a[0] & 0xffff_ff00;
            Request {
                flags,
                exit_signal: (a[0] & 0xff) as u32,
                stack: a[1],
                parent_tid: a[2],
                child_tid: a[3],
                // One pointer serves both; they exclude each other.
                pidfd: if flags & f(c::CLONE_PIDFD) != 0 { a[2] } else { 0 },
                tls: a[4],
            }
        }
        nr::__NR_clone3 => clone3_request(cur, a[0], a[1]).await?,
        _ => return Err(Errno::ENOSYS),
    };
    do_clone(cur, req, regs, user).await
}

/// Reads struct clone_args (clone(2)).
async fn clone3_request(cur: &Arc<Task>, addr: u64, size: u64) -> Result<Request> {
    const FIRST_VERSION: u64 = 64;
    if size < FIRST_VERSION {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let mut raw = [0u8; 4096];
    let raw = &mut raw[..size as usize];
    cur.mm().copy_from_user(addr, raw).await?;
    let word = |i: usize| {
        raw.get(i * 8..i * 8 + 8)
            .map_or(0, |b| u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
    };
    // set_tid needs namespaces of process ids, cgroup needs cgroups.
    if raw.get(88..).is_some_and(|rest| rest.iter().any(|&b| b != 0)) {
        return Err(Errno::E2BIG);
    }
    let [flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls] =
        std::array::from_fn(word);
    if word(8) != 0 || word(9) != 0 || flags & f(c::CLONE_DETACHED) != 0 || flags & 0xff != 0 {
        return Err(Errno::EINVAL);
    }
    if (stack == 0) != (stack_size == 0) || exit_signal > 64 {
        return Err(Errno::EINVAL);
    }
    let stack = stack.checked_add(stack_size).filter(|&s| s <= GUEST_END).ok_or(Errno::EINVAL)?;
    if flags & f(c::CLONE_THREAD | c::CLONE_PARENT) != 0 && exit_signal != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(Request { flags, exit_signal: exit_signal as u32, stack, parent_tid, child_tid, pidfd, tls })
}

async fn do_clone(cur: &Arc<Task>, req: Request, regs: &UserRegs, user: &UserThread) -> Result<u64> {
    let args = CloneArgs { flags: req.flags, exit_signal: req.exit_signal, child_tid: req.child_tid };
    check_flags(cur, &args)?;
    let has = |b: u32| req.flags & f(b) != 0;
    if has(c::CLONE_SETTLS) && req.tls >= GUEST_END {
        return Err(Errno::EPERM);
    }
    let (mm, thread) = if has(c::CLONE_VM) {
        let mm = cur.mm();
        let thread = mm.space.new_thread().await?;
        (mm, thread)
    } else {
        let ready = space::take().await?;
        let mm = cur.mm().fork(ready.space, regs.rsp).await?;
        mm.expect(regs.rip, Access::Exec);
        (mm, ready.thread)
    };
    let mut child_regs = UserRegs { rax: 0, ..*regs };
    if req.stack != 0 {
        child_regs.rsp = req.stack;
    }
    if has(c::CLONE_SETTLS) {
        child_regs.fs_base = req.tls;
    }
    let made = make(cur, args, &req, &mm).await;
    let (new, vfork) = match made {
        Ok(m) => m,
        Err(e) => {
            if has(c::CLONE_VM) {
                mm.space.park(thread);
            }
            return Err(e);
        }
    };
    let tid = new.tid();
    let cpu = sched::place(cur);
    run::start(new, thread, child_regs, user.fpu(), cpu);
    drop(mm);
    if let Some(done) = vfork {
        // A fatal signal ends the wait; the child goes on by itself.
        done.wait_killable(cur).await.ok();
    }
    Ok(u64::from(tid))
}

type Made = (Arc<Task>, Option<Arc<super::completion::Completion>>);

async fn make(cur: &Arc<Task>, args: CloneArgs, req: &Request, mm: &Arc<crate::mm::Mm>) -> Result<Made> {
    let has = |b: u32| req.flags & f(b) != 0;
    let new = copy_task(cur, args, Arc::clone(mm))?;
    let tid = new.tid();
    if has(c::CLONE_PARENT_SETTID) {
        cur.mm().copy_to_user(req.parent_tid, &tid.to_ne_bytes()).await?;
    }
    let pidfd = if has(c::CLONE_PIDFD) {
        if has(c::CLONE_THREAD) {
            return Err(Errno::EINVAL);
        }
        let ops = PidFd::new(Arc::clone(&new.task().group));
        let file = crate::fs::anon::anon_file("[pidfd]", ops, c::O_RDWR);
        let fd = cur.files().install(file, true, 0, cur.nofile_limit())?;
        if let Err(e) = cur.mm().copy_to_user(req.pidfd, &fd.to_ne_bytes()).await {
            cur.files().remove(fd).ok();
            return Err(e);
        }
        Some(fd)
    } else {
        None
    };
    let vfork = new.vfork();
    match new.start() {
        Ok(task) => Ok((task, vfork)),
        Err(e) => {
            if let Some(fd) = pidfd {
                cur.files().remove(fd).ok();
            }
            Err(e)
        }
    }
}
