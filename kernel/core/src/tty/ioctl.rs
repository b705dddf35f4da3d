//! ioctl_tty(2).

use super::termios::{Raw, Raw2};
use super::{Back, Tty, jobs};
use crate::fs::poll;
use crate::syscall::UserPtr;
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;
use uapi::raw::ioctl as i;

/// Terminal ioctls of both sides of a pair; `master`: it came from the master.
pub async fn ioctl(cur: &Arc<Task>, tty: &Arc<Tty>, cmd: u32, arg: u64, master: bool) -> Result<u64> {
    match cmd {
        i::TCGETS => {
            let t = tty.inner.lock().ld.termios.to_raw();
            UserPtr::<Raw>::new(arg).write(cur, &t).await?;
        }
        i::TCGETS2 => {
            let t = tty.inner.lock().ld.termios.to_raw2();
            UserPtr::<Raw2>::new(arg).write(cur, &t).await?;
        }
        i::TCSETS | i::TCSETSW | i::TCSETSF => {
            let raw = UserPtr::<Raw>::new(arg).read(cur).await?;
            set(cur, tty, &raw, cmd - i::TCSETS, master).await?;
        }
        i::TCSETS2 | i::TCSETSW2 | i::TCSETSF2 => {
            let raw = UserPtr::<Raw2>::new(arg).read(cur).await?;
            set(cur, tty, &raw, cmd - i::TCSETS2, master).await?;
        }
        i::TIOCGWINSZ => {
            let w = tty.inner.lock().winsize;
            UserPtr::<[u16; 4]>::new(arg).write(cur, &w).await?;
        }
        i::TIOCSWINSZ => {
            let w = UserPtr::<[u16; 4]>::new(arg).read(cur).await?;
            tty.set_winsize(w);
        }
        i::TIOCGPGRP => {
            if !master && jobs::current_tty(cur).is_none_or(|t| !Arc::ptr_eq(&t, tty)) {
                return Err(Errno::ENOTTY);
            }
            let pgrp = tty.inner.lock().pgrp;
            UserPtr::<u32>::new(arg).write(cur, &pgrp).await?;
        }
        i::TIOCSPGRP => {
            let pgrp = UserPtr::<i32>::new(arg).read(cur).await?;
            jobs::set_pgrp(cur, tty, pgrp)?;
        }
        i::TIOCGSID => {
            if !master && jobs::current_tty(cur).is_none_or(|t| !Arc::ptr_eq(&t, tty)) {
                return Err(Errno::ENOTTY);
            }
            let sid = tty.inner.lock().session;
            if sid == 0 {
                return Err(Errno::ENOTTY);
            }
            UserPtr::<u32>::new(arg).write(cur, &sid).await?;
        }
        i::TIOCSCTTY => jobs::set_controlling(cur, tty, arg == 1)?,
        i::TIOCNOTTY => jobs::give_up(cur, tty)?,
        i::FIONREAD => {
            let n = {
                let inner = tty.inner.lock();
                if master { inner.out.len() } else { inner.ld.available() }
            };
            UserPtr::<i32>::new(arg).write(cur, &i32::try_from(n).unwrap_or(i32::MAX)).await?;
        }
        i::TIOCOUTQ => {
            let n = tty.inner.lock().out.len();
            UserPtr::<i32>::new(arg).write(cur, &i32::try_from(n).unwrap_or(i32::MAX)).await?;
        }
        i::TCFLSH => {
            {
                let mut inner = tty.inner.lock();
                if matches!(arg, 0 | 2) {
                    inner.ld.flush_input();
                }
                if matches!(arg, 1 | 2) {
                    inner.out.clear();
                }
            }
            if arg > 2 {
                return Err(Errno::EINVAL);
            }
            tty.unthrottle();
            tty.wait.wake(poll::OUT);
        }
        i::TCSBRK | i::TCSBRKP => drain(cur, tty).await?,
        i::TCXONC => {
            let mut inner = tty.inner.lock();
            match arg {
                0 => inner.ld.stopped = true,
                1 => {
                    inner.ld.stopped = false;
                    tty.push_out(&mut inner);
                }
                2 | 3 => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        i::TIOCEXCL => tty.inner.lock().exclusive = true,
        i::TIOCNXCL => tty.inner.lock().exclusive = false,
        i::TIOCGETD => UserPtr::<i32>::new(arg).write(cur, &0).await?,
        i::TIOCSETD => {
            if UserPtr::<i32>::new(arg).read(cur).await? != 0 {
                return Err(Errno::EINVAL);
            }
        }
        i::TIOCMGET => UserPtr::<i32>::new(arg).write(cur, &0).await?,
        i::TIOCMSET | i::TIOCMBIS | i::TIOCMBIC => {}
        // Pushing input into a terminal is refused, as with dev.tty.legacy_tiocsti=0.
        i::TIOCSTI => return Err(Errno::EIO),
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}

/// Settings; `how`: 0 now, 1 after output has drained, 2 also without what waits to be read.
async fn set(cur: &Arc<Task>, tty: &Arc<Tty>, raw: &[u8], how: u32, master: bool) -> Result<()> {
    if !master {
        jobs::check_background(cur, tty, c::SIGTTOU)?;
    }
    if how >= 1 {
        drain(cur, tty).await?;
    }
    {
        let mut inner = tty.inner.lock();
        if how == 2 {
            inner.ld.flush_input();
        }
        let new = inner.ld.termios.from_raw(raw);
        inner.ld.set_termios(new);
        tty.push_out(&mut inner);
    }
    tty.unthrottle();
    tty.wait.wake(poll::IN | poll::OUT);
    Ok(())
}

/// Waits until the host has taken all output. A master takes its time: nothing is waited for there.
async fn drain(cur: &Arc<Task>, tty: &Arc<Tty>) -> Result<()> {
    if matches!(tty.back, Back::Pty) {
        return Ok(());
    }
    cur.wait_event(None, |table| {
        table.register(&tty.wait, poll::OUT);
        let mut inner = tty.inner.lock();
        tty.push_out(&mut inner);
        (inner.out.is_empty() || inner.hung_up || inner.ld.stopped).then_some(())
    })
    .await
}
