//! Scheduling calls: policies, priorities, affinity (sched(7)).
//!
//! Policies and priorities are kept and reported; guest threads are scheduled by the host, which is not told of them.

use super::cred::cap;
use super::pid;
use super::task::Task;
use crate::syscall::UserPtr;
use crate::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use uapi::raw::general as c;

const PRIO_SHIFT: u32 = 8;
const POLICY_MASK: u32 = 0xff;

fn target(cur: &Arc<Task>, id: i32) -> Result<Arc<Task>> {
    match id {
        0 => Ok(Arc::clone(cur)),
        i32::MIN..0 => Err(Errno::EINVAL),
        _ => pid::find_task(id.cast_unsigned()).ok_or(Errno::ESRCH),
    }
}

fn may_change(cur: &Task, task: &Task) -> Result<()> {
    let (me, it) = (cur.cred(), task.cred());
    if me.euid == it.uid || me.euid == it.euid || me.capable(cap::SYS_NICE) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

fn real_time(policy: u32) -> bool {
    policy == c::SCHED_FIFO || policy == c::SCHED_RR
}

/// sched_get_priority_max(2).
pub fn sys_sched_get_priority_max(_cur: &Arc<Task>, policy: u32) -> Result<u64> {
    match policy {
        c::SCHED_FIFO | c::SCHED_RR => Ok(99),
        c::SCHED_NORMAL | c::SCHED_BATCH | c::SCHED_IDLE | c::SCHED_DEADLINE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// sched_get_priority_min(2).
pub fn sys_sched_get_priority_min(cur: &Arc<Task>, policy: u32) -> Result<u64> {
    sys_sched_get_priority_max(cur, policy).map(|max| u64::from(max > 0))
}

/// sched_getscheduler(2).
pub fn sys_sched_getscheduler(cur: &Arc<Task>, id: i32) -> Result<u64> {
    let p = target(cur, id)?.policy.load(Relaxed);
    Ok(u64::from(p & (POLICY_MASK | c::SCHED_RESET_ON_FORK)))
}

fn set_policy(cur: &Arc<Task>, task: &Task, policy: u32, prio: u32) -> Result<()> {
    let kind = policy & !c::SCHED_RESET_ON_FORK;
    match kind {
        c::SCHED_FIFO | c::SCHED_RR if (1..=99).contains(&prio) => {}
        c::SCHED_NORMAL | c::SCHED_BATCH | c::SCHED_IDLE if prio == 0 => {}
        _ => return Err(Errno::EINVAL),
    }
    may_change(cur, task)?;
    let limit = task.group.rlimit(c::RLIMIT_RTPRIO).0;
    if real_time(kind) && u64::from(prio) > limit && !cur.cred().capable(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    task.policy.store(policy | prio << PRIO_SHIFT, Relaxed);
    Ok(())
}

/// sched_setscheduler(2).
pub async fn sys_sched_setscheduler(
    cur: &Arc<Task>,
    id: i32,
    policy: u32,
    param: UserPtr<i32>,
) -> Result<u64> {
    if param.is_null() {
        return Err(Errno::EINVAL);
    }
    let prio = u32::try_from(param.read(cur).await?).map_err(|_| Errno::EINVAL)?;
    let task = target(cur, id)?;
    set_policy(cur, &task, policy, prio)?;
    Ok(0)
}

/// sched_setparam(2).
pub async fn sys_sched_setparam(cur: &Arc<Task>, id: i32, param: UserPtr<i32>) -> Result<u64> {
    if param.is_null() {
        return Err(Errno::EINVAL);
    }
    let prio = u32::try_from(param.read(cur).await?).map_err(|_| Errno::EINVAL)?;
    let task = target(cur, id)?;
    let policy = task.policy.load(Relaxed) & (POLICY_MASK | c::SCHED_RESET_ON_FORK);
    set_policy(cur, &task, policy, prio)?;
    Ok(0)
}

/// sched_getparam(2).
pub async fn sys_sched_getparam(cur: &Arc<Task>, id: i32, param: UserPtr<i32>) -> Result<u64> {
    if param.is_null() {
        return Err(Errno::EINVAL);
    }
    let prio = target(cur, id)?.policy.load(Relaxed) >> PRIO_SHIFT & 0xff;
    param.write(cur, &prio.cast_signed()).await?;
    Ok(0)
}

/// sched_getattr(2): the 48 bytes of the first version.
pub async fn sys_sched_getattr(
    cur: &Arc<Task>,
    id: i32,
    out: UserPtr<u8>,
    size: u32,
    flags: u32,
) -> Result<u64> {
    const SIZE: usize = 48;
    if out.is_null() || !(48..=4096).contains(&size) || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let task = target(cur, id)?;
    let p = task.policy.load(Relaxed);
    let mut b = [0u8; SIZE];
    b[0..4].copy_from_slice(&48u32.to_ne_bytes());
    b[4..8].copy_from_slice(&(p & POLICY_MASK).to_ne_bytes());
    b[8..16].copy_from_slice(&u64::from(p & c::SCHED_RESET_ON_FORK != 0).to_ne_bytes());
    b[16..20].copy_from_slice(&task.nice.load(Relaxed).to_ne_bytes());
    b[20..24].copy_from_slice(&(p >> PRIO_SHIFT & 0xff).to_ne_bytes());
    cur.mm().copy_to_user(out.addr(), &b).await?;
    Ok(0)
}

/// sched_setattr(2); deadline scheduling is not there (`EINVAL`).
pub async fn sys_sched_setattr(cur: &Arc<Task>, id: i32, attr: UserPtr<[u8; 48]>, flags: u32) -> Result<u64> {
    if attr.is_null() || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let b = attr.read(cur).await?;
    let w = |at: usize| u32::from_ne_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    if w(0) != 0 && w(0) < 48 {
        return Err(Errno::E2BIG);
    }
    let task = target(cur, id)?;
    let reset = if w(8) & c::SCHED_FLAG_RESET_ON_FORK != 0 { c::SCHED_RESET_ON_FORK } else { 0 };
    set_policy(cur, &task, w(4) | reset, w(20))?;
    if !real_time(w(4)) {
        set_nice(cur, &task, w(16).cast_signed())?;
    }
    Ok(0)
}

/// sched_rr_get_interval(2): 100 ms for SCHED_RR as on Linux, else nothing that would bind the host.
pub async fn sys_sched_rr_get_interval(cur: &Arc<Task>, id: i32, out: UserPtr<[i64; 2]>) -> Result<u64> {
    let rr = target(cur, id)?.policy.load(Relaxed) & POLICY_MASK == c::SCHED_RR;
    out.write(cur, &[0, if rr { 100_000_000 } else { 0 }]).await?;
    Ok(0)
}

/// CPUs that exist, as a mask.
fn cpu_mask() -> u64 {
    match executor::nr_cpus() {
        n if n >= 64 => u64::MAX,
        n => (1 << n.max(1)) - 1,
    }
}

/// sched_getaffinity(2): gives the bytes written.
pub async fn sys_sched_getaffinity(cur: &Arc<Task>, id: i32, len: usize, mask: UserPtr<u64>) -> Result<u64> {
    if len < 8 || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let m = target(cur, id)?.affinity.load(Relaxed) & cpu_mask();
    mask.write(cur, &m).await?;
    Ok(8)
}

/// sched_setaffinity(2): the caller moves at once, another task when it is placed next.
pub async fn sys_sched_setaffinity(cur: &Arc<Task>, id: i32, len: usize, mask: UserPtr<u8>) -> Result<u64> {
    let mut b = [0u8; 8];
    let n = len.min(8);
    cur.mm().copy_from_user(mask.addr(), &mut b[..n]).await?;
    let m = u64::from_ne_bytes(b) & cpu_mask();
    let task = target(cur, id)?;
    may_change(cur, &task)?;
    if m == 0 {
        return Err(Errno::EINVAL);
    }
    task.affinity.store(m, Relaxed);
    let here = cur.cpu.load(Relaxed);
    if Arc::ptr_eq(&task, cur) && (here >= 64 || m & (1 << here) == 0) {
        move_to(cur, m.trailing_zeros()).await;
    }
    Ok(0)
}

/// Moves the calling task to another CPU, its host thread along with it.
async fn move_to(cur: &Arc<Task>, cpu: u32) {
    executor::migrate_to(cpu as usize).await;
    cur.cpu.store(cpu, Relaxed);
    let tid = cur.host_tid.load(Relaxed).cast_signed();
    if let Some(core) = executor::host_cpu(cpu as usize)
        && tid != 0
    {
        // Where the host does not let us pin, the pair is slower and nothing else.
        arch::host::thread::pin_thread_to(tid, core).ok();
    }
}

/// getcpu(2).
pub async fn sys_getcpu(cur: &Arc<Task>, cpu: UserPtr<u32>, node: UserPtr<u32>) -> Result<u64> {
    cpu.write_opt(cur, &cur.cpu.load(Relaxed)).await?;
    node.write_opt(cur, &0).await?;
    Ok(0)
}

fn set_nice(cur: &Arc<Task>, task: &Task, nice: i32) -> Result<()> {
    let nice = nice.clamp(-20, 19);
    may_change(cur, task)?;
    // RLIMIT_NICE counts from 20 down to -19 (getrlimit(2)).
    let floor = 20 - i32::try_from(task.group.rlimit(c::RLIMIT_NICE).0.min(40)).unwrap_or(40);
    if nice < task.nice.load(Relaxed) && nice < floor && !cur.cred().capable(cap::SYS_NICE) {
        return Err(Errno::EACCES);
    }
    task.nice.store(nice, Relaxed);
    Ok(())
}

/// The tasks that `which` and `who` of getpriority(2) mean.
fn prio_targets(cur: &Arc<Task>, which: u32, who: i32) -> Result<Vec<Arc<Task>>> {
    let id = who.cast_unsigned();
    let found: Vec<Arc<Task>> = match which {
        c::PRIO_PROCESS => target(cur, who).map_err(|_| Errno::ESRCH).map(|t| vec![t])?,
        c::PRIO_PGRP => {
            let pgrp = if who == 0 { cur.group.pgrp() } else { id };
            pid::read().pgrp(pgrp).iter().flat_map(|g| g.threads()).collect()
        }
        c::PRIO_USER => {
            let uid = if who == 0 { cur.cred().uid } else { id };
            pid::read().tasks().filter(|t| t.cred().uid == uid).cloned().collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if found.is_empty() { Err(Errno::ESRCH) } else { Ok(found) }
}

/// getpriority(2): the kernel's value is 20 - nice, the highest of all that are meant.
pub fn sys_getpriority(cur: &Arc<Task>, which: u32, who: i32) -> Result<u64> {
    let found = prio_targets(cur, which, who)?;
    let best = found.iter().map(|t| 20 - t.nice.load(Relaxed)).max().unwrap_or(20);
    Ok(u64::from(best.unsigned_abs()))
}

/// setpriority(2).
pub fn sys_setpriority(cur: &Arc<Task>, which: u32, who: i32, nice: i32) -> Result<u64> {
    for t in prio_targets(cur, which, who)? {
        set_nice(cur, &t, nice)?;
    }
    Ok(0)
}
