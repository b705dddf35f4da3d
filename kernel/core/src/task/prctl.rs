//! prctl(2), as far as programs need it; what is not there is `EINVAL`, as for a number Linux does not know.

use super::cred::{CAP_FULL, Cred, cap};
use super::task::Task;
use crate::signal::sigset::valid_signal;
use crate::syscall::UserPtr;
use crate::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use uapi::raw::prctl as p;

fn flag(v: u64) -> Result<bool> {
    match v {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Errno::EINVAL),
    }
}

fn zero(args: &[u64]) -> Result<()> {
    if args.iter().all(|&a| a == 0) { Ok(()) } else { Err(Errno::EINVAL) }
}

fn change(cur: &Arc<Task>, f: impl FnOnce(&mut Cred)) {
    let mut new = (*cur.cred()).clone();
    f(&mut new);
    cur.set_cred(new);
}

fn capability(n: u64) -> Result<u64> {
    if n <= u64::from(cap::LAST) { Ok(1 << n) } else { Err(Errno::EINVAL) }
}

/// prctl(2).
pub async fn sys_prctl(cur: &Arc<Task>, option: u32, a2: u64, a3: u64, a4: u64, a5: u64) -> Result<u64> {
    let group = &cur.group;
    match option {
        p::PR_SET_NAME => {
            let mut name = UserPtr::<u8>::new(a2).read_cstr(cur, 16).await;
            if matches!(name, Err(Errno::ENAMETOOLONG)) {
                name = UserPtr::<u8>::new(a2).read_vec(cur, 15).await;
            }
            cur.set_comm(&name?);
            Ok(0)
        }
        p::PR_GET_NAME => {
            let comm = *cur.comm.lock();
            UserPtr::<[u8; 16]>::new(a2).write(cur, &comm).await?;
            Ok(0)
        }
        p::PR_SET_PDEATHSIG => {
            let sig = i32::try_from(a2).map_err(|_| Errno::EINVAL)?;
            if sig != 0 && !valid_signal(sig) {
                return Err(Errno::EINVAL);
            }
            cur.pdeath_signal.store(sig, Ordering::Relaxed);
            Ok(0)
        }
        p::PR_GET_PDEATHSIG => {
            let sig = cur.pdeath_signal.load(Ordering::Relaxed);
            UserPtr::<i32>::new(a2).write(cur, &sig).await?;
            Ok(0)
        }
        p::PR_SET_DUMPABLE => {
            let on = flag(a2)?;
            group.dumpable.store(i32::from(on), Ordering::Relaxed);
            Ok(0)
        }
        p::PR_GET_DUMPABLE => Ok(u64::from(group.dumpable.load(Ordering::Relaxed).unsigned_abs())),
        p::PR_SET_KEEPCAPS => {
            let on = flag(a2)?;
            change(cur, |c| c.keep_caps = on);
            Ok(0)
        }
        p::PR_GET_KEEPCAPS => Ok(u64::from(cur.cred().keep_caps)),
        p::PR_SET_NO_NEW_PRIVS => {
            zero(&[a3, a4, a5])?;
            if a2 != 1 {
                return Err(Errno::EINVAL);
            }
            change(cur, |c| c.no_new_privs = true);
            Ok(0)
        }
        p::PR_GET_NO_NEW_PRIVS => {
            zero(&[a2, a3, a4, a5])?;
            Ok(u64::from(cur.cred().no_new_privs))
        }
        p::PR_CAPBSET_READ => {
            let bit = capability(a2)?;
            Ok(u64::from(cur.cred().cap_bounding & bit != 0))
        }
        p::PR_CAPBSET_DROP => {
            if !cur.cred().capable(cap::SETPCAP) {
                return Err(Errno::EPERM);
            }
            let bit = capability(a2)?;
            change(cur, |c| c.cap_bounding &= !bit);
            Ok(0)
        }
        p::PR_CAP_AMBIENT => ambient(cur, a2, a3),
        p::PR_GET_SECUREBITS => Ok(u64::from(cur.cred().securebits)),
        p::PR_SET_SECUREBITS => {
            if !cur.cred().capable(cap::SETPCAP) {
                return Err(Errno::EPERM);
            }
            let bits = u32::try_from(a2).ok().filter(|b| b & !0xff == 0).ok_or(Errno::EPERM)?;
            change(cur, |c| {
                c.securebits = bits;
                c.keep_caps = bits & 0x10 != 0;
            });
            Ok(0)
        }
        p::PR_SET_CHILD_SUBREAPER => {
            group.inner.lock().child_subreaper = a2 != 0;
            Ok(0)
        }
        p::PR_GET_CHILD_SUBREAPER => {
            let on = group.inner.lock().child_subreaper;
            UserPtr::<i32>::new(a2).write(cur, &i32::from(on)).await?;
            Ok(0)
        }
        p::PR_SET_TIMERSLACK => {
            let ns = if a2 == 0 { 50_000 } else { a2 };
            cur.timer_slack_ns.store(ns, Ordering::Relaxed);
            Ok(0)
        }
        p::PR_GET_TIMERSLACK => Ok(cur.timer_slack_ns.load(Ordering::Relaxed)),
        p::PR_GET_TID_ADDRESS => {
            let word = cur.clear_child_tid.load(Ordering::Relaxed);
            UserPtr::<u64>::new(a2).write(cur, &word).await?;
            Ok(0)
        }
        p::PR_GET_TIMING => Ok(0),
        p::PR_SET_TIMING if a2 == 0 => Ok(0),
        p::PR_GET_SECCOMP => Ok(0),
        _ => {
            warn_once(option);
            Err(Errno::EINVAL)
        }
    }
}

fn warn_once(option: u32) {
    static SEEN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    if let Some(w) = SEEN.get(option as usize / 64) {
        let bit = 1u64 << (option % 64);
        if w.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            log::warn!(target: "task", "prctl option {option} is not there yet: EINVAL");
        }
    }
}

fn ambient(cur: &Arc<Task>, what: u64, which: u64) -> Result<u64> {
    let cred = cur.cred();
    if what == u64::from(p::PR_CAP_AMBIENT_CLEAR_ALL) {
        zero(&[which])?;
        change(cur, |c| c.cap_ambient = 0);
        return Ok(0);
    }
    let bit = capability(which)? & CAP_FULL;
    match u32::try_from(what).map_err(|_| Errno::EINVAL)? {
        p::PR_CAP_AMBIENT_IS_SET => Ok(u64::from(cred.cap_ambient & bit != 0)),
        p::PR_CAP_AMBIENT_RAISE => {
            if cred.cap_permitted & cred.cap_inheritable & bit == 0 {
                return Err(Errno::EPERM);
            }
            change(cur, |c| c.cap_ambient |= bit);
            Ok(0)
        }
        p::PR_CAP_AMBIENT_LOWER => {
            change(cur, |c| c.cap_ambient &= !bit);
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}
