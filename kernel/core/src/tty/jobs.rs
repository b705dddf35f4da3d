//! Controlling terminals and job control (credentials(7), setsid(2), tcsetpgrp(3)).

use super::Tty;
use crate::fs::hooks::send_group;
use crate::fs::perm::cap;
use crate::signal::jobctl::is_orphaned_pgrp;
use crate::task::session::ControllingTty;
use crate::task::{Task, pid};
use crate::{Errno, Result};
use std::any::Any;
use std::sync::Arc;
use uapi::raw::general as c;

/// The controlling terminal of a task's session.
pub fn current_tty(cur: &Task) -> Option<Arc<Tty>> {
    let any: Arc<dyn Any + Send + Sync> = cur.group.session().ctty()?;
    any.downcast::<Tty>().ok()
}

fn is_current(cur: &Task, tty: &Tty) -> bool {
    current_tty(cur).is_some_and(|t| std::ptr::eq(&*t, tty))
}

/// Makes `tty` the controlling terminal of the session that `cur` leads, if it leads one without a terminal and the
/// terminal is free. With `steal`, a terminal of another session is taken away from it.
pub fn set_controlling(cur: &Task, tty: &Arc<Tty>, steal: bool) -> Result<()> {
    let session = cur.group.session();
    if session.sid != cur.tgid() {
        return Err(Errno::EPERM);
    }
    if is_current(cur, tty) {
        return Ok(());
    }
    if session.ctty().is_some() {
        return Err(Errno::EPERM);
    }
    // The pid table comes before the terminal in the lock order.
    let holder = tty.inner.lock().session;
    let held = holder != 0 && holder != session.sid && pid::read().has_session(holder);
    if held && !(steal && cur.cred().capable(cap::SYS_ADMIN)) {
        return Err(Errno::EPERM);
    }
    let pgrp = cur.group.pgrp();
    {
        let mut i = tty.inner.lock();
        i.session = session.sid;
        i.pgrp = pgrp;
    }
    let dynamic: Arc<dyn ControllingTty> = Arc::clone(tty) as Arc<dyn ControllingTty>;
    session.set_ctty(Some(dynamic));
    Ok(())
}

/// TIOCNOTTY: gives the controlling terminal up. A session leader gives it up for all.
pub fn give_up(cur: &Task, tty: &Arc<Tty>) -> Result<()> {
    if !is_current(cur, tty) {
        return Err(Errno::ENOTTY);
    }
    let session = cur.group.session();
    if session.sid == cur.tgid() {
        session.set_ctty(None);
        let pgrp = tty.foreground_pgrp();
        tty.disassociate();
        if pgrp != 0 {
            send_group(pgrp, c::SIGHUP);
            send_group(pgrp, c::SIGCONT);
        }
    }
    Ok(())
}

/// A task of a background group touches its terminal: sends `sig` (SIGTTIN, SIGTTOU) to its group, or says that the
/// access may go on (`Ok`) or never will (`EIO`).
pub fn check_background(cur: &Task, tty: &Tty, sig: u32) -> Result<()> {
    let (fg, session) = {
        let i = tty.inner.lock();
        (i.pgrp, i.session)
    };
    let pgrp = cur.group.pgrp();
    if session == 0 || fg == 0 || fg == pgrp || !is_current(cur, tty) {
        return Ok(());
    }
    let n = sig.cast_signed();
    let blocked = cur.signals.blocked().has(n);
    let ignored = cur.sighand.lock().get(n).ignores(n);
    if blocked || ignored {
        return if sig == c::SIGTTIN { Err(Errno::EIO) } else { Ok(()) };
    }
    if is_orphaned_pgrp(&pid::read(), pgrp, None) {
        return Err(Errno::EIO);
    }
    send_group(pgrp, sig);
    Err(Errno::ERESTARTSYS)
}

/// tcsetpgrp(3).
pub fn set_pgrp(cur: &Task, tty: &Tty, pgrp: i32) -> Result<()> {
    if !is_current(cur, tty) {
        return Err(Errno::ENOTTY);
    }
    let pgrp = u32::try_from(pgrp).map_err(|_| Errno::EINVAL)?;
    check_background(cur, tty, c::SIGTTOU)?;
    let sid = cur.group.session().sid;
    let table = pid::read();
    let first = table.pgrp(pgrp).first().ok_or(Errno::ESRCH)?;
    if first.session().sid != sid {
        return Err(Errno::EPERM);
    }
    drop(table);
    tty.inner.lock().pgrp = pgrp;
    Ok(())
}
