//! Resource limits: getrlimit(2), setrlimit(2), prlimit64(2).

use super::cred::cap;
use super::pid;
use super::task::Task;
use crate::syscall::UserPtr;
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

/// Sets (if `new`) and gives the limit of `task`'s process.
fn prlimit(cur: &Arc<Task>, task: &Arc<Task>, resource: u32, new: Option<[u64; 2]>) -> Result<(u64, u64)> {
    let i = resource as usize;
    let may_raise = cur.cred().capable(cap::SYS_RESOURCE);
    let mut limits = task.group.limits.lock();
    let slot = limits.get_mut(i).ok_or(Errno::EINVAL)?;
    let old = *slot;
    if let Some([soft, hard]) = new {
        if soft > hard {
            return Err(Errno::EINVAL);
        }
        if resource == c::RLIMIT_NOFILE && hard > crate::fs::fdtable::NR_OPEN as u64 {
            return Err(Errno::EPERM);
        }
        if hard > old.1 && !may_raise {
            return Err(Errno::EPERM);
        }
        *slot = (soft, hard);
    }
    Ok(old)
}

/// prlimit64(2).
pub async fn sys_prlimit64(
    cur: &Arc<Task>,
    target: i32,
    resource: u32,
    new: UserPtr<[u64; 2]>,
    old: UserPtr<[u64; 2]>,
) -> Result<u64> {
    if resource >= c::RLIM_NLIMITS {
        return Err(Errno::EINVAL);
    }
    let new = new.read_opt(cur).await?;
    let task = match target {
        0 => Arc::clone(cur),
        _ => pid::find_task(target.cast_unsigned()).ok_or(Errno::ESRCH)?,
    };
    if !Arc::ptr_eq(&task.group, &cur.group) {
        let (me, it) = (cur.cred(), task.cred());
        let same = [it.uid, it.euid, it.suid].iter().all(|&u| u == me.uid)
            && [it.gid, it.egid, it.sgid].iter().all(|&g| g == me.gid);
        if !same && !me.capable(cap::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
    }
    let was = prlimit(cur, &task, resource, new)?;
    old.write_opt(cur, &[was.0, was.1]).await?;
    Ok(0)
}

/// getrlimit(2).
pub async fn sys_getrlimit(cur: &Arc<Task>, resource: u32, out: UserPtr<[u64; 2]>) -> Result<u64> {
    let (soft, hard) = prlimit(cur, cur, resource, None)?;
    out.write(cur, &[soft, hard]).await?;
    Ok(0)
}

/// setrlimit(2).
pub async fn sys_setrlimit(cur: &Arc<Task>, resource: u32, new: UserPtr<[u64; 2]>) -> Result<u64> {
    let new = new.read(cur).await?;
    prlimit(cur, cur, resource, Some(new))?;
    Ok(0)
}
