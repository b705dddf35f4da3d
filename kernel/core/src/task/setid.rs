//! User and group ids: setuid(2), setresuid(2), setgroups(2) and their families, with what they do to capabilities.

use super::cred::{Cred, cap};
use super::task::Task;
use crate::syscall::UserPtr;
use crate::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// "Leave it as it is" in the set*id calls.
const KEEP: u32 = u32::MAX;

/// getuid(2).
pub fn sys_getuid(cur: &Arc<Task>) -> Result<u64> {
    Ok(u64::from(cur.cred().uid))
}

/// geteuid(2).
pub fn sys_geteuid(cur: &Arc<Task>) -> Result<u64> {
    Ok(u64::from(cur.cred().euid))
}

/// getgid(2).
pub fn sys_getgid(cur: &Arc<Task>) -> Result<u64> {
    Ok(u64::from(cur.cred().gid))
}

/// getegid(2).
pub fn sys_getegid(cur: &Arc<Task>) -> Result<u64> {
    Ok(u64::from(cur.cred().egid))
}

/// getresuid(2).
pub async fn sys_getresuid(
    cur: &Arc<Task>,
    r: UserPtr<u32>,
    e: UserPtr<u32>,
    s: UserPtr<u32>,
) -> Result<u64> {
    let c = cur.cred();
    r.write(cur, &c.uid).await?;
    e.write(cur, &c.euid).await?;
    s.write(cur, &c.suid).await?;
    Ok(0)
}

/// getresgid(2).
pub async fn sys_getresgid(
    cur: &Arc<Task>,
    r: UserPtr<u32>,
    e: UserPtr<u32>,
    s: UserPtr<u32>,
) -> Result<u64> {
    let c = cur.cred();
    r.write(cur, &c.gid).await?;
    e.write(cur, &c.egid).await?;
    s.write(cur, &c.sgid).await?;
    Ok(0)
}

/// What a change of user ids does to capabilities (capabilities(7), "Effect of user ID changes").
fn fix_caps(old: &Cred, new: &mut Cred) {
    let was_root = old.uid == 0 || old.euid == 0 || old.suid == 0;
    let is_root = new.uid == 0 || new.euid == 0 || new.suid == 0;
    if was_root && !is_root && !old.keep_caps {
        new.cap_permitted = 0;
        new.cap_effective = 0;
        new.cap_ambient = 0;
    } else if was_root && !is_root {
        new.cap_ambient = 0;
    }
    if old.euid == 0 && new.euid != 0 {
        new.cap_effective = 0;
    } else if old.euid != 0 && new.euid == 0 {
        new.cap_effective = new.cap_permitted;
    }
}

/// The file system user id has changed on its own or with the effective one.
fn fix_fs_caps(old_fsuid: u32, new: &mut Cred) {
    if old_fsuid == 0 && new.fsuid != 0 {
        new.cap_effective &= !cap::FS_SET;
    } else if old_fsuid != 0 && new.fsuid == 0 {
        new.cap_effective |= new.cap_permitted & cap::FS_SET;
    }
}

fn commit(cur: &Arc<Task>, old: &Cred, mut new: Cred) {
    fix_caps(old, &mut new);
    if old.euid != new.euid || old.egid != new.egid || old.fsuid != new.fsuid || old.fsgid != new.fsgid {
        cur.group.dumpable.store(0, Ordering::Relaxed);
        cur.pdeath_signal.store(0, Ordering::Relaxed);
    }
    cur.set_cred(new);
}

/// setuid(2).
pub fn sys_setuid(cur: &Arc<Task>, uid: u32) -> Result<u64> {
    if uid == KEEP {
        return Err(Errno::EINVAL);
    }
    let old = cur.cred();
    let mut new = (*old).clone();
    if old.capable(cap::SETUID) {
        new.uid = uid;
        new.suid = uid;
    } else if uid != old.uid && uid != old.suid {
        return Err(Errno::EPERM);
    }
    new.euid = uid;
    new.fsuid = uid;
    commit(cur, &old, new);
    Ok(0)
}

/// setgid(2).
pub fn sys_setgid(cur: &Arc<Task>, gid: u32) -> Result<u64> {
    if gid == KEEP {
        return Err(Errno::EINVAL);
    }
    let old = cur.cred();
    let mut new = (*old).clone();
    if old.capable(cap::SETGID) {
        new.gid = gid;
        new.sgid = gid;
    } else if gid != old.gid && gid != old.sgid {
        return Err(Errno::EPERM);
    }
    new.egid = gid;
    new.fsgid = gid;
    commit(cur, &old, new);
    Ok(0)
}

/// setreuid(2).
pub fn sys_setreuid(cur: &Arc<Task>, r: u32, e: u32) -> Result<u64> {
    let old = cur.cred();
    let mut new = (*old).clone();
    let free = old.capable(cap::SETUID);
    if r != KEEP {
        if !free && r != old.uid && r != old.euid {
            return Err(Errno::EPERM);
        }
        new.uid = r;
    }
    if e != KEEP {
        if !free && ![old.uid, old.euid, old.suid].contains(&e) {
            return Err(Errno::EPERM);
        }
        new.euid = e;
    }
    if r != KEEP || e != KEEP && e != old.uid {
        new.suid = new.euid;
    }
    new.fsuid = new.euid;
    commit(cur, &old, new);
    Ok(0)
}

/// setregid(2).
pub fn sys_setregid(cur: &Arc<Task>, r: u32, e: u32) -> Result<u64> {
    let old = cur.cred();
    let mut new = (*old).clone();
    let free = old.capable(cap::SETGID);
    if r != KEEP {
        if !free && r != old.gid && r != old.egid {
            return Err(Errno::EPERM);
        }
        new.gid = r;
    }
    if e != KEEP {
        if !free && ![old.gid, old.egid, old.sgid].contains(&e) {
            return Err(Errno::EPERM);
        }
        new.egid = e;
    }
    if r != KEEP || e != KEEP && e != old.gid {
        new.sgid = new.egid;
    }
    new.fsgid = new.egid;
    commit(cur, &old, new);
    Ok(0)
}

/// setresuid(2).
pub fn sys_setresuid(cur: &Arc<Task>, r: u32, e: u32, s: u32) -> Result<u64> {
    let old = cur.cred();
    let have = [old.uid, old.euid, old.suid];
    if !old.capable(cap::SETUID) && [r, e, s].iter().any(|&x| x != KEEP && !have.contains(&x)) {
        return Err(Errno::EPERM);
    }
    let mut new = (*old).clone();
    for (slot, v) in [(&mut new.uid, r), (&mut new.euid, e), (&mut new.suid, s)] {
        if v != KEEP {
            *slot = v;
        }
    }
    new.fsuid = new.euid;
    commit(cur, &old, new);
    Ok(0)
}

/// setresgid(2).
pub fn sys_setresgid(cur: &Arc<Task>, r: u32, e: u32, s: u32) -> Result<u64> {
    let old = cur.cred();
    let have = [old.gid, old.egid, old.sgid];
    if !old.capable(cap::SETGID) && [r, e, s].iter().any(|&x| x != KEEP && !have.contains(&x)) {
        return Err(Errno::EPERM);
    }
    let mut new = (*old).clone();
    for (slot, v) in [(&mut new.gid, r), (&mut new.egid, e), (&mut new.sgid, s)] {
        if v != KEEP {
            *slot = v;
        }
    }
    new.fsgid = new.egid;
    commit(cur, &old, new);
    Ok(0)
}

/// setfsuid(2): gives the old id, whether it changed or not.
pub fn sys_setfsuid(cur: &Arc<Task>, uid: u32) -> Result<u64> {
    let old = cur.cred();
    let ok = [old.uid, old.euid, old.suid, old.fsuid].contains(&uid) || old.capable(cap::SETUID);
    if ok && uid != KEEP && uid != old.fsuid {
        let mut new = (*old).clone();
        new.fsuid = uid;
        fix_fs_caps(old.fsuid, &mut new);
        cur.set_cred(new);
    }
    Ok(u64::from(old.fsuid))
}

/// setfsgid(2).
pub fn sys_setfsgid(cur: &Arc<Task>, gid: u32) -> Result<u64> {
    let old = cur.cred();
    let ok = [old.gid, old.egid, old.sgid, old.fsgid].contains(&gid) || old.capable(cap::SETGID);
    if ok && gid != KEEP && gid != old.fsgid {
        let mut new = (*old).clone();
        new.fsgid = gid;
        cur.set_cred(new);
    }
    Ok(u64::from(old.fsgid))
}

/// getgroups(2).
pub async fn sys_getgroups(cur: &Arc<Task>, n: i32, list: UserPtr<u32>) -> Result<u64> {
    let n = usize::try_from(n).map_err(|_| Errno::EINVAL)?;
    let cred = cur.cred();
    if n != 0 {
        if cred.groups.len() > n {
            return Err(Errno::EINVAL);
        }
        cur.mm().copy_to_user(list.addr(), uapi::pod::bytes_of_slice(&cred.groups)).await?;
    }
    Ok(cred.groups.len() as u64)
}

/// setgroups(2).
pub async fn sys_setgroups(cur: &Arc<Task>, n: usize, list: UserPtr<u32>) -> Result<u64> {
    const NGROUPS_MAX: usize = 65536;
    if !cur.cred().capable(cap::SETGID) {
        return Err(Errno::EPERM);
    }
    if n > NGROUPS_MAX {
        return Err(Errno::EINVAL);
    }
    let mut groups = list.read_vec(cur, n).await?;
    groups.sort_unstable();
    let mut new = (*cur.cred()).clone();
    new.groups = groups;
    cur.set_cred(new);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_root_drops_capabilities() {
        let old = Cred::root();
        let mut new = Cred { uid: 5, euid: 5, suid: 5, ..old.clone() };
        fix_caps(&old, &mut new);
        assert_eq!((new.cap_permitted, new.cap_effective), (0, 0));
        let old = Cred { keep_caps: true, ..Cred::root() };
        let mut new = Cred { uid: 5, euid: 5, suid: 5, ..old.clone() };
        fix_caps(&old, &mut new);
        assert_eq!(new.cap_effective, 0);
        assert_ne!(new.cap_permitted, 0);
        // Effective id only: permitted stays, effective goes and comes back.
        let old = Cred::root();
        let mut new = Cred { euid: 5, ..old.clone() };
        fix_caps(&old, &mut new);
        assert_eq!((new.cap_effective, new.cap_permitted), (0, old.cap_permitted));
        let back = new.clone();
        let mut again = Cred { euid: 0, ..new };
        fix_caps(&back, &mut again);
        assert_eq!(again.cap_effective, again.cap_permitted);
    }
}
