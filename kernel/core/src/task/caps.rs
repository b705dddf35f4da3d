//! capget(2) and capset(2).

use super::cred::cap;
use super::pid;
use super::task::Task;
use crate::syscall::UserPtr;
use crate::{Errno, Result};
use std::sync::Arc;

const VERSION_1: u32 = 0x1998_0330;
const VERSION_2: u32 = 0x2007_1026;
const VERSION_3: u32 = 0x2008_0522;

/// `{ version, pid }`; gives the number of 32-bit words a set has.
async fn header(cur: &Arc<Task>, ptr: UserPtr<[u32; 2]>) -> Result<(usize, i32)> {
    let [version, pid] = ptr.read(cur).await?;
    match version {
        VERSION_1 => Ok((1, pid.cast_signed())),
        VERSION_2 | VERSION_3 => Ok((2, pid.cast_signed())),
        _ => {
            ptr.write(cur, &[VERSION_3, pid]).await?;
            Err(Errno::EINVAL)
        }
    }
}

/// capget(2): effective, permitted, inheritable, 32 bits at a time.
pub async fn sys_capget(cur: &Arc<Task>, head: UserPtr<[u32; 2]>, data: UserPtr<[u32; 3]>) -> Result<u64> {
    let (words, pid) = match header(cur, head).await {
        // A null data pointer asks for the version alone.
        Err(Errno::EINVAL) if data.is_null() => return Ok(0),
        r => r?,
    };
    if pid < 0 {
        return Err(Errno::EINVAL);
    }
    let task = match pid {
        0 => Arc::clone(cur),
        _ => pid::find_task(pid.cast_unsigned()).ok_or(Errno::ESRCH)?,
    };
    let c = task.cred();
    #[allow(clippy::cast_possible_truncation)]
    for i in 0..words {
        let w = |v: u64| (v >> (32 * i)) as u32;
        data.add(i).write(cur, &[w(c.cap_effective), w(c.cap_permitted), w(c.cap_inheritable)]).await?;
    }
    Ok(0)
}

/// capset(2): only for the caller itself.
pub async fn sys_capset(cur: &Arc<Task>, head: UserPtr<[u32; 2]>, data: UserPtr<[u32; 3]>) -> Result<u64> {
    let (words, pid) = header(cur, head).await?;
    if pid != 0 && pid.cast_unsigned() != cur.tid() {
        return Err(Errno::EPERM);
    }
    let mut sets = [0u64; 3];
    for (i, w) in data.read_vec(cur, words).await?.into_iter().enumerate() {
        for (set, part) in sets.iter_mut().zip(w) {
            *set |= u64::from(part) << (32 * i);
        }
    }
    let [effective, permitted, inheritable] = sets.map(|s| s & super::cred::CAP_FULL);
    let old = cur.cred();
    let mut new = (*old).clone();
    if inheritable & !(old.cap_inheritable | old.cap_permitted) != 0 && !old.capable(cap::SETPCAP) {
        return Err(Errno::EPERM);
    }
    if inheritable & !(old.cap_inheritable | old.cap_bounding) != 0
        || permitted & !old.cap_permitted != 0
        || effective & !permitted != 0
    {
        return Err(Errno::EPERM);
    }
    new.cap_effective = effective;
    new.cap_permitted = permitted;
    new.cap_inheritable = inheritable;
    new.cap_ambient &= permitted & inheritable;
    cur.set_cred(new);
    Ok(0)
}
