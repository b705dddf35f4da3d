//! pidfd_open(2) and what can be done with such a descriptor.

use super::pid;
use super::task::Task;
use super::thread_group::ThreadGroup;
use crate::fs::file::{File, FileOps};
use crate::fs::poll::{self, PollTable};
use crate::signal::SigInfo;
use crate::signal::kill::{kill_group, read_siginfo};
use crate::signal::sigset::valid_signal;
use crate::syscall::UserPtr;
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

/// A process as a file: readable when it has ended.
pub struct PidFd {
    group: Arc<ThreadGroup>,
}

impl PidFd {
    /// For a process.
    pub fn new(group: Arc<ThreadGroup>) -> Arc<Self> {
        Arc::new(Self { group })
    }

    /// The process.
    pub fn group(&self) -> &Arc<ThreadGroup> {
        &self.group
    }
}

impl FileOps for PidFd {
    fn poll(&self, _file: &File, table: &mut PollTable) -> u32 {
        table.register(&self.group.exit_wait, poll::IN);
        if self.group.is_zombie() { poll::IN } else { 0 }
    }
}

/// An open file for a process (pidfd_open(2), CLONE_PIDFD); `flags`: O_NONBLOCK or 0.
pub fn open(group: Arc<ThreadGroup>, flags: u32) -> Arc<File> {
    crate::fs::anon::anon_file("[pidfd]", PidFd::new(group), c::O_RDWR | flags)
}

/// The process behind a pidfd, or `EBADF`.
fn target(cur: &Arc<Task>, fd: i32) -> Result<Arc<ThreadGroup>> {
    let file = cur.files().get(fd)?;
    let p = file.ops_as::<PidFd>().ok_or(Errno::EBADF)?;
    Ok(Arc::clone(&p.group))
}

/// pidfd_send_signal(2).
pub async fn sys_pidfd_send_signal(
    cur: &Arc<Task>,
    fd: i32,
    sig: i32,
    info: UserPtr<[u8; 128]>,
    flags: u32,
) -> Result<u64> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let group = target(cur, fd)?;
    if sig != 0 && !valid_signal(sig) {
        return Err(Errno::EINVAL);
    }
    let info = if info.is_null() {
        SigInfo::user(sig, c::SI_USER as i32, cur.tgid(), cur.cred().uid)
    } else {
        let raw = info.read(cur).await?;
        if i32::from_ne_bytes([raw[0], raw[1], raw[2], raw[3]]) != sig {
            return Err(Errno::EINVAL);
        }
        read_siginfo(cur, sig, info, Arc::ptr_eq(&group, &cur.group)).await?
    };
    if pid::find_group(group.tgid).is_none_or(|g| !Arc::ptr_eq(&g, &group)) {
        return Err(Errno::ESRCH);
    }
    kill_group(cur, &group, info).map(|()| 0)
}

/// pidfd_getfd(2).
pub fn sys_pidfd_getfd(cur: &Arc<Task>, pidfd: i32, fd: i32, flags: u32) -> Result<u64> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let group = target(cur, pidfd)?;
    let task = group.leader().filter(|_| !group.is_zombie()).ok_or(Errno::ESRCH)?;
    let (me, it) = (cur.cred(), task.cred());
    let same = [it.uid, it.euid, it.suid].iter().all(|&u| u == me.fsuid)
        && [it.gid, it.egid, it.sgid].iter().all(|&g| g == me.fsgid);
    if !same && !me.capable(super::cred::cap::SYS_PTRACE) {
        return Err(Errno::EPERM);
    }
    let file = task.files().get(fd)?;
    let new = cur.files().install(file, true, 0, cur.nofile_limit())?;
    Ok(u64::from(new.cast_unsigned()))
}
