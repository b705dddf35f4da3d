//! Process, group and session numbers: getpid(2), setpgid(2), setsid(2) and their families.

use super::pid;
use super::session::Session;
use super::task::Task;
use super::thread_group::ThreadGroup;
use crate::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// getpid(2).
pub fn sys_getpid(cur: &Arc<Task>) -> Result<u64> {
    Ok(u64::from(cur.tgid()))
}

/// getppid(2).
pub fn sys_getppid(cur: &Arc<Task>) -> Result<u64> {
    Ok(u64::from(cur.group.ppid()))
}

/// gettid(2).
pub fn sys_gettid(cur: &Arc<Task>) -> Result<u64> {
    Ok(u64::from(cur.tid()))
}

/// set_tid_address(2).
pub fn sys_set_tid_address(cur: &Arc<Task>, addr: u64) -> Result<u64> {
    cur.clear_child_tid.store(addr, Ordering::SeqCst);
    Ok(u64::from(cur.tid()))
}

/// The process of an id argument, 0 meaning the caller.
pub(super) fn group_arg(cur: &Arc<Task>, id: i32) -> Result<Arc<ThreadGroup>> {
    if id == 0 {
        return Ok(Arc::clone(&cur.group));
    }
    pid::find_group(u32::try_from(id).map_err(|_| Errno::ESRCH)?).ok_or(Errno::ESRCH)
}

/// getpgid(2).
pub fn sys_getpgid(cur: &Arc<Task>, id: i32) -> Result<u64> {
    Ok(u64::from(group_arg(cur, id)?.pgrp()))
}

/// getpgrp(2).
pub fn sys_getpgrp(cur: &Arc<Task>) -> Result<u64> {
    Ok(u64::from(cur.group.pgrp()))
}

/// getsid(2).
pub fn sys_getsid(cur: &Arc<Task>, id: i32) -> Result<u64> {
    Ok(u64::from(group_arg(cur, id)?.session().sid))
}

/// setpgid(2).
pub fn sys_setpgid(cur: &Arc<Task>, id: i32, pgid: i32) -> Result<u64> {
    let pgid = u32::try_from(pgid).map_err(|_| Errno::EINVAL)?;
    let id = if id == 0 { cur.tgid() } else { u32::try_from(id).map_err(|_| Errno::ESRCH)? };
    let pgid = if pgid == 0 { id } else { pgid };
    let mut table = pid::write();
    let group = table.group(id).ok_or(Errno::ESRCH)?;
    let my_session = cur.group.session().sid;
    let session = group.session().sid;
    if !Arc::ptr_eq(&group, &cur.group) {
        let child = group.parent().is_some_and(|p| Arc::ptr_eq(&p, &cur.group));
        if !child {
            return Err(Errno::ESRCH);
        }
        if session != my_session {
            return Err(Errno::EPERM);
        }
        if group.inner.lock().did_exec {
            return Err(Errno::EACCES);
        }
    }
    // A session leader stays in its group; the new group is one of the same session.
    if session == group.tgid {
        return Err(Errno::EPERM);
    }
    if pgid != id && !table.pgrp(pgid).iter().any(|g| g.session().sid == my_session) {
        return Err(Errno::EPERM);
    }
    table.move_pgrp(&group, pgid);
    Ok(0)
}

/// setsid(2).
pub fn sys_setsid(cur: &Arc<Task>) -> Result<u64> {
    let id = cur.tgid();
    let mut table = pid::write();
    if cur.group.session().sid == id || !table.pgrp(id).is_empty() {
        return Err(Errno::EPERM);
    }
    table.move_session(&cur.group, Session::new(id));
    table.move_pgrp(&cur.group, id);
    Ok(u64::from(id))
}

/// pidfd_open(2).
pub fn sys_pidfd_open(cur: &Arc<Task>, id: i32, flags: u32) -> Result<u64> {
    const PIDFD_NONBLOCK: u32 = uapi::raw::general::O_NONBLOCK;
    if flags & !PIDFD_NONBLOCK != 0 {
        return Err(Errno::EINVAL);
    }
    let id = u32::try_from(id).ok().filter(|&i| i > 0).ok_or(Errno::EINVAL)?;
    let group = match pid::find_group(id) {
        Some(g) => g,
        // A thread that is not a leader.
        None if pid::find_task(id).is_some() => return Err(Errno::EINVAL),
        None => return Err(Errno::ESRCH),
    };
    let file = super::pidfd::open(group, flags);
    let fd = cur.files().install(file, true, 0, cur.nofile_limit())?;
    Ok(u64::from(fd.cast_unsigned()))
}
