//! Robust futexes: what a thread still holds when it dies is marked and handed on (get_robust_list(2)).

use super::op::wake;
use crate::syscall::UserPtr;
use crate::task::{Task, pid};
use crate::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uapi::raw::general as c;

/// Bytes of `struct robust_list_head`: list, offset, pending entry.
const HEAD_SIZE: usize = 24;
/// Entries looked at; a list in a circle ends here (Linux: ROBUST_LIST_LIMIT).
const LIMIT: usize = 2048;

/// set_robust_list(2).
pub fn sys_set_robust_list(cur: &Arc<Task>, head: u64, len: usize) -> Result<u64> {
    if len != HEAD_SIZE {
        return Err(Errno::EINVAL);
    }
    cur.robust_list.store(head, Ordering::SeqCst);
    Ok(0)
}

/// get_robust_list(2).
pub async fn sys_get_robust_list(
    cur: &Arc<Task>,
    tid: i32,
    head: UserPtr<u64>,
    len: UserPtr<u64>,
) -> Result<u64> {
    let task = match tid {
        0 => Arc::clone(cur),
        _ => pid::find_task(tid.cast_unsigned()).ok_or(Errno::ESRCH)?,
    };
    let (me, it) = (cur.cred(), task.cred());
    if !Arc::ptr_eq(&task.group, &cur.group)
        && me.euid != it.uid
        && !me.capable(crate::task::cred::cap::SYS_PTRACE)
    {
        return Err(Errno::EPERM);
    }
    len.write(cur, &(HEAD_SIZE as u64)).await?;
    head.write(cur, &task.robust_list.load(Ordering::SeqCst)).await?;
    Ok(0)
}

/// Marks what the ending thread holds as FUTEX_OWNER_DIED and wakes a waiter of each. The list is the guest's: it may
/// be anything, so it is read word by word and a fault ends the walk.
pub async fn exit_robust_list(cur: &Arc<Task>) {
    let head = cur.robust_list.swap(0, Ordering::SeqCst);
    if head == 0 {
        return;
    }
    let _ = walk(cur, head).await;
}

async fn walk(cur: &Arc<Task>, head: u64) -> Result<()> {
    let mm = cur.mm();
    // Bit 0 of an entry marks a priority inheritance futex.
    let [first, offset, pending]: [u64; 3] = mm.read_obj(head).await?;
    let mut at = first;
    for _ in 0..LIMIT {
        let entry = at & !1;
        if entry == head {
            break;
        }
        // The next entry first: handing the lock on lets another thread change this one.
        let next = mm.read_obj::<u64>(entry).await;
        if entry != pending & !1 {
            handle(cur, entry.wrapping_add(offset), at & 1 != 0, false).await?;
        }
        at = next?;
        executor::yield_now().await;
    }
    if pending & !1 != 0 {
        handle(cur, (pending & !1).wrapping_add(offset), pending & 1 != 0, true).await?;
    }
    Ok(())
}

async fn handle(cur: &Arc<Task>, word: u64, pi: bool, pending: bool) -> Result<()> {
    if !word.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let mm = cur.mm();
    for _ in 0..1 << 16 {
        let found = match mm.try_load_u32(word) {
            Err(Errno::EFAULT) => {
                mm.fault_in(word, 4, true).await?;
                continue;
            }
            r => r?,
        };
        // Unlocked by its owner just before the end: a waiter may have missed the wake.
        if pending && !pi && found & c::FUTEX_TID_MASK == 0 {
            let _ = wake(cur, word, true, 1, u32::MAX);
            return Ok(());
        }
        if found & c::FUTEX_TID_MASK != cur.tid() {
            return Ok(());
        }
        let dead = (found & c::FUTEX_WAITERS) | c::FUTEX_OWNER_DIED;
        match mm.try_cmpxchg_u32(word, found, dead) {
            Err(Errno::EFAULT) => mm.fault_in(word, 4, true).await?,
            Err(e) => return Err(e),
            Ok(Err(_)) => {}
            Ok(Ok(_)) => {
                if !pi && found & c::FUTEX_WAITERS != 0 {
                    let _ = wake(cur, word, true, 1, u32::MAX);
                }
                return Ok(());
            }
        }
    }
    Ok(())
}
