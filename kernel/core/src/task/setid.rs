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

/// The ids of one kind, user or group.
#[derive(Clone, Copy)]
struct Ids {
    real: u32,
    effective: u32,
    saved: u32,
    fs: u32,
}

/// Of which ids a call speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    Group,
}

impl Kind {
    /// The capability that lets a task take any id.
    fn cap(self) -> u32 {
        match self {
            Self::User => cap::SETUID,
            Self::Group => cap::SETGID,
        }
    }

    fn of(self, c: &Cred) -> Ids {
        match self {
            Self::User => Ids { real: c.uid, effective: c.euid, saved: c.suid, fs: c.fsuid },
            Self::Group => Ids { real: c.gid, effective: c.egid, saved: c.sgid, fs: c.fsgid },
        }
    }

    fn put(self, c: &mut Cred, i: Ids) {
        match self {
            Self::User => (c.uid, c.euid, c.suid, c.fsuid) = (i.real, i.effective, i.saved, i.fs),
            Self::Group => (c.gid, c.egid, c.sgid, c.fsgid) = (i.real, i.effective, i.saved, i.fs),
        }
    }
}

async fn getres(
    cur: &Arc<Task>,
    kind: Kind,
    r: UserPtr<u32>,
    e: UserPtr<u32>,
    s: UserPtr<u32>,
) -> Result<u64> {
    let ids = kind.of(&cur.cred());
    r.write(cur, &ids.real).await?;
    e.write(cur, &ids.effective).await?;
    s.write(cur, &ids.saved).await?;
    Ok(0)
}

/// getresuid(2).
pub async fn sys_getresuid(
    cur: &Arc<Task>,
    r: UserPtr<u32>,
    e: UserPtr<u32>,
    s: UserPtr<u32>,
) -> Result<u64> {
    getres(cur, Kind::User, r, e, s).await
}

/// getresgid(2).
pub async fn sys_getresgid(
    cur: &Arc<Task>,
    r: UserPtr<u32>,
    e: UserPtr<u32>,
    s: UserPtr<u32>,
) -> Result<u64> {
    getres(cur, Kind::Group, r, e, s).await
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

/// Changes ids by `change`, which is told whether the task may take any.
fn change(cur: &Arc<Task>, kind: Kind, change: impl FnOnce(&mut Ids, bool) -> Result<()>) -> Result<u64> {
    let old = cur.cred();
    let mut ids = kind.of(&old);
    change(&mut ids, old.capable(kind.cap()))?;
    let mut new = (*old).clone();
    kind.put(&mut new, ids);
    commit(cur, &old, new);
    Ok(0)
}

fn set(cur: &Arc<Task>, kind: Kind, id: u32) -> Result<u64> {
    if id == KEEP {
        return Err(Errno::EINVAL);
    }
    change(cur, kind, |ids, free| {
        if free {
            ids.real = id;
            ids.saved = id;
        } else if id != ids.real && id != ids.saved {
            return Err(Errno::EPERM);
        }
        ids.effective = id;
        ids.fs = id;
        Ok(())
    })
}

/// setuid(2).
pub fn sys_setuid(cur: &Arc<Task>, uid: u32) -> Result<u64> {
    set(cur, Kind::User, uid)
}

/// setgid(2).
pub fn sys_setgid(cur: &Arc<Task>, gid: u32) -> Result<u64> {
    set(cur, Kind::Group, gid)
}

fn setre(cur: &Arc<Task>, kind: Kind, r: u32, e: u32) -> Result<u64> {
    change(cur, kind, |ids, free| {
        let old = *ids;
        if r != KEEP {
            if !free && r != old.real && r != old.effective {
                return Err(Errno::EPERM);
            }
            ids.real = r;
        }
        if e != KEEP {
            if !free && ![old.real, old.effective, old.saved].contains(&e) {
                return Err(Errno::EPERM);
            }
            ids.effective = e;
        }
        if r != KEEP || e != KEEP && e != old.real {
            ids.saved = ids.effective;
        }
        ids.fs = ids.effective;
        Ok(())
    })
}

/// setreuid(2).
pub fn sys_setreuid(cur: &Arc<Task>, r: u32, e: u32) -> Result<u64> {
    setre(cur, Kind::User, r, e)
}

/// setregid(2).
pub fn sys_setregid(cur: &Arc<Task>, r: u32, e: u32) -> Result<u64> {
    setre(cur, Kind::Group, r, e)
}

fn setres(cur: &Arc<Task>, kind: Kind, r: u32, e: u32, s: u32) -> Result<u64> {
    change(cur, kind, |ids, free| {
        let have = [ids.real, ids.effective, ids.saved];
        if !free && [r, e, s].iter().any(|&x| x != KEEP && !have.contains(&x)) {
            return Err(Errno::EPERM);
        }
        for (slot, v) in [(&mut ids.real, r), (&mut ids.effective, e), (&mut ids.saved, s)] {
            if v != KEEP {
                *slot = v;
            }
        }
        ids.fs = ids.effective;
        Ok(())
    })
}

/// setresuid(2).
pub fn sys_setresuid(cur: &Arc<Task>, r: u32, e: u32, s: u32) -> Result<u64> {
    setres(cur, Kind::User, r, e, s)
}

/// setresgid(2).
pub fn sys_setresgid(cur: &Arc<Task>, r: u32, e: u32, s: u32) -> Result<u64> {
    setres(cur, Kind::Group, r, e, s)
}

fn setfs(cur: &Arc<Task>, kind: Kind, id: u32) -> Result<u64> {
    let old = cur.cred();
    let ids = kind.of(&old);
    let ok = [ids.real, ids.effective, ids.saved, ids.fs].contains(&id) || old.capable(kind.cap());
    if ok && id != KEEP && id != ids.fs {
        let mut new = (*old).clone();
        kind.put(&mut new, Ids { fs: id, ..ids });
        if kind == Kind::User {
            fix_fs_caps(ids.fs, &mut new);
        }
        cur.set_cred(new);
    }
    Ok(u64::from(ids.fs))
}

/// setfsuid(2): gives the old id, whether it changed or not.
pub fn sys_setfsuid(cur: &Arc<Task>, uid: u32) -> Result<u64> {
    setfs(cur, Kind::User, uid)
}

/// setfsgid(2).
pub fn sys_setfsgid(cur: &Arc<Task>, gid: u32) -> Result<u64> {
    setfs(cur, Kind::Group, gid)
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
