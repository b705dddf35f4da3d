//! kill(2) and its family: who may signal whom.

use super::sigset::valid_signal;
use super::{SigInfo, send_group, send_task};
use crate::syscall::UserPtr;
use crate::task::cred::cap;
use crate::task::{Cred, Pid, Task, ThreadGroup, pid};
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

fn cred_of(group: &ThreadGroup) -> Option<Arc<Cred>> {
    group.leader().map(|t| t.cred())
}

/// `EPERM` unless `cur` may send `sig` to `group`.
pub fn may_signal(cur: &Task, group: &Arc<ThreadGroup>, sig: i32) -> Result<()> {
    if Arc::ptr_eq(&cur.group, group) {
        return Ok(());
    }
    let me = cur.cred();
    let Some(it) = cred_of(group) else { return Ok(()) };
    if me.euid == it.suid || me.euid == it.uid || me.uid == it.suid || me.uid == it.uid {
        return Ok(());
    }
    if me.capable(cap::KILL) {
        return Ok(());
    }
    if sig == c::SIGCONT as i32 && cur.group.session().sid == group.session().sid {
        return Ok(());
    }
    Err(Errno::EPERM)
}

fn check_sig(sig: i32) -> Result<()> {
    if sig == 0 || valid_signal(sig) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Sends to a process after the permission check; signal 0 only checks.
pub(crate) fn kill_group(cur: &Task, group: &Arc<ThreadGroup>, info: SigInfo) -> Result<()> {
    may_signal(cur, group, info.signo)?;
    if info.signo == 0 { Ok(()) } else { send_group(group, info) }
}

fn kill_many(cur: &Task, groups: &[Arc<ThreadGroup>], info: SigInfo) -> Result<u64> {
    let mut worst = Errno::ESRCH;
    let mut done = false;
    for g in groups {
        match kill_group(cur, g, info) {
            Ok(()) => done = true,
            Err(e) => worst = e,
        }
    }
    if done { Ok(0) } else { Err(worst) }
}

/// kill(2).
pub fn sys_kill(cur: &Arc<Task>, target: i32, sig: i32) -> Result<u64> {
    check_sig(sig)?;
    let info = SigInfo::user(sig, c::SI_USER as i32, cur.tgid(), cur.cred().uid);
    match target {
        1.. => {
            let g = find_process(target.cast_unsigned())?;
            kill_group(cur, &g, info).map(|()| 0)
        }
        -1 => {
            let all: Vec<_> =
                pid::all_groups().into_iter().filter(|g| g.tgid > 1 && !Arc::ptr_eq(g, &cur.group)).collect();
            kill_many(cur, &all, info)
        }
        i32::MIN => Err(Errno::ESRCH),
        _ => {
            let pgrp = if target == 0 { cur.group.pgrp() } else { target.unsigned_abs() };
            let members = pid::read().pgrp(pgrp).to_vec();
            kill_many(cur, &members, info)
        }
    }
}

/// kill(2) takes a thread's id for its process, as Linux does.
fn find_process(id: Pid) -> Result<Arc<ThreadGroup>> {
    let t = pid::read();
    t.group(id).or_else(|| t.task(id).map(|t| Arc::clone(&t.group))).ok_or(Errno::ESRCH)
}

fn kill_thread(cur: &Task, tgid: Option<i32>, tid: i32, info: SigInfo) -> Result<u64> {
    if tid <= 0 || tgid.is_some_and(|g| g <= 0) {
        return Err(Errno::EINVAL);
    }
    check_sig(info.signo)?;
    let t = pid::find_task(tid.cast_unsigned()).ok_or(Errno::ESRCH)?;
    if tgid.is_some_and(|g| g.cast_unsigned() != t.tgid()) {
        return Err(Errno::ESRCH);
    }
    may_signal(cur, &t.group, info.signo)?;
    if info.signo != 0 {
        send_task(&t, info)?;
    }
    Ok(0)
}

/// tkill(2).
pub fn sys_tkill(cur: &Arc<Task>, tid: i32, sig: i32) -> Result<u64> {
    kill_thread(cur, None, tid, SigInfo::user(sig, c::SI_TKILL, cur.tgid(), cur.cred().uid))
}

/// tgkill(2).
pub fn sys_tgkill(cur: &Arc<Task>, tgid: i32, tid: i32, sig: i32) -> Result<u64> {
    kill_thread(cur, Some(tgid), tid, SigInfo::user(sig, c::SI_TKILL, cur.tgid(), cur.cred().uid))
}

/// Reads a siginfo that a process made itself. `EPERM` for codes that only the kernel (or tkill) uses when it goes to
/// another process.
pub(crate) async fn read_siginfo(
    cur: &Arc<Task>,
    sig: i32,
    ptr: UserPtr<[u8; 128]>,
    own: bool,
) -> Result<SigInfo> {
    let info = SigInfo::from_bytes(sig, &ptr.read(cur).await?);
    if (info.code >= 0 || info.code == c::SI_TKILL) && !own {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

/// rt_sigqueueinfo(2).
pub async fn sys_rt_sigqueueinfo(
    cur: &Arc<Task>,
    tgid: i32,
    sig: i32,
    info: UserPtr<[u8; 128]>,
) -> Result<u64> {
    let own = tgid == cur.tgid().cast_signed();
    let info = read_siginfo(cur, sig, info, own).await?;
    check_sig(sig)?;
    let g = u32::try_from(tgid).ok().filter(|&p| p > 0).ok_or(Errno::ESRCH).and_then(find_process)?;
    kill_group(cur, &g, info).map(|()| 0)
}

/// rt_tgsigqueueinfo(2).
pub async fn sys_rt_tgsigqueueinfo(
    cur: &Arc<Task>,
    tgid: i32,
    tid: i32,
    sig: i32,
    info: UserPtr<[u8; 128]>,
) -> Result<u64> {
    let own = tid == cur.tid().cast_signed();
    let info = read_siginfo(cur, sig, info, own).await?;
    kill_thread(cur, Some(tgid), tid, info)
}
