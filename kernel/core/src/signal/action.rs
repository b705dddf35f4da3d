//! What a process does on a signal (sigaction(2)).

use super::sigset::{NSIG, SigSet, valid_signal};
use crate::syscall::UserPtr;
use crate::task::Task;
use crate::{Errno, Result};
use parking_lot::Mutex;
use std::sync::Arc;
use uapi::raw::general as c;

/// The default action.
pub const SIG_DFL: u64 = 0;
/// The signal is ignored.
pub const SIG_IGN: u64 = 1;

/// Action of one signal: the kernel's `struct sigaction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigAction {
    /// `SIG_DFL`, `SIG_IGN` or the address of the handler.
    pub handler: u64,
    /// SA_* flags.
    pub flags: u64,
    /// Where the handler returns to (SA_RESTORER).
    pub restorer: u64,
    /// Blocked while the handler runs.
    pub mask: SigSet,
}

impl SigAction {
    /// True if a flag (SA_*) is set.
    pub fn has(&self, flag: u32) -> bool {
        self.flags & u64::from(flag) != 0
    }

    /// True if `sig` with this action has no effect: ignored, or default where the default is to ignore.
    pub fn ignores(&self, sig: i32) -> bool {
        self.handler == SIG_IGN || self.handler == SIG_DFL && SigSet::IGNORED.has(sig)
    }

    /// True if a handler is installed.
    pub fn handled(&self) -> bool {
        self.handler > SIG_IGN
    }
}

/// The actions of a process; tasks share them with CLONE_SIGHAND.
pub struct SigHand {
    actions: Mutex<[SigAction; NSIG as usize]>,
}

impl Default for SigHand {
    fn default() -> Self {
        Self { actions: Mutex::new([SigAction::default(); NSIG as usize]) }
    }
}

impl SigHand {
    /// The action of a signal.
    pub fn get(&self, sig: i32) -> SigAction {
        let i = usize::try_from(sig - 1).unwrap_or(usize::MAX);
        self.actions.lock().get(i).copied().unwrap_or_default()
    }

    /// Replaces the action of a signal; gives the old one.
    pub fn set(&self, sig: i32, new: SigAction) -> SigAction {
        let i = usize::try_from(sig - 1).unwrap_or(usize::MAX);
        self.actions.lock().get_mut(i).map(|a| std::mem::replace(a, new)).unwrap_or_default()
    }

    /// A copy for fork(2).
    pub fn duplicate(&self) -> Arc<Self> {
        Arc::new(Self { actions: Mutex::new(*self.actions.lock()) })
    }

    /// For execve(2) and CLONE_CLEAR_SIGHAND: handlers become the default, ignored signals stay ignored.
    pub fn for_exec(&self) -> Arc<Self> {
        let mut a = *self.actions.lock();
        for x in &mut a {
            let handler = if x.handler == SIG_IGN { SIG_IGN } else { SIG_DFL };
            *x = SigAction { handler, ..SigAction::default() };
        }
        Arc::new(Self { actions: Mutex::new(a) })
    }

    /// Signals that are ignored and signals that are handled (/proc/PID/status SigIgn, SigCgt).
    pub fn ignored_and_caught(&self) -> (SigSet, SigSet) {
        let (mut ign, mut cgt) = (SigSet::EMPTY, SigSet::EMPTY);
        for (sig, a) in (1..).zip(self.actions.lock().iter()) {
            match a.handler {
                SIG_DFL => {}
                SIG_IGN => ign.add(sig),
                _ => cgt.add(sig),
            }
        }
        (ign, cgt)
    }
}

/// Flags that Linux on x86-64 knows; others are cleared, so that a program can probe for them (sigaction(2)).
const SA_KNOWN: u32 = c::SA_NOCLDSTOP
    | c::SA_NOCLDWAIT
    | c::SA_SIGINFO
    | c::SA_ONSTACK
    | c::SA_RESTART
    | c::SA_NODEFER
    | c::SA_RESETHAND
    | c::SA_EXPOSE_TAGBITS
    | c::SA_RESTORER;

/// rt_sigaction(2).
pub async fn sys_rt_sigaction(
    cur: &Arc<Task>,
    sig: i32,
    new: UserPtr<[u64; 4]>,
    old: UserPtr<[u64; 4]>,
    sigsetsize: usize,
) -> Result<u64> {
    if sigsetsize != 8 {
        return Err(Errno::EINVAL);
    }
    let new = new.read_opt(cur).await?;
    if !valid_signal(sig) || new.is_some() && SigSet::KERNEL_ONLY.has(sig) {
        return Err(Errno::EINVAL);
    }
    let was = match new {
        None => cur.sighand().get(sig),
        Some([handler, flags, restorer, mask]) => {
            let action = SigAction {
                handler,
                flags: flags & u64::from(SA_KNOWN),
                restorer,
                mask: SigSet(mask).blockable(),
            };
            let was = cur.sighand().set(sig, action);
            if action.ignores(sig) {
                super::discard_pending(&cur.group, SigSet::of(sig));
            }
            was
        }
    };
    old.write_opt(cur, &[was.handler, was.flags, was.restorer, was.mask.0]).await?;
    Ok(0)
}
