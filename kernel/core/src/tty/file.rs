//! Open terminals.

use super::{OUT_MAX, Tty, jobs};
use crate::fs::devices::OpenChr;
use crate::fs::file::{File, FileOps};
use crate::fs::iov::IovIter;
use crate::fs::perm::cap;
use crate::fs::poll::{self, PollTable};
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use uapi::raw::general as c;

/// An open terminal (the slave's side of a pair).
pub struct TtyFile {
    /// The terminal.
    pub tty: Arc<Tty>,
}

/// Opens a terminal; `may_control`: it may become the controlling terminal of a session leader without one.
pub fn open(o: &OpenChr<'_>, tty: Arc<Tty>, may_control: bool) -> Result<Arc<dyn FileOps>> {
    if tty.inner.lock().exclusive && !o.cur.cred().capable(cap::SYS_ADMIN) {
        return Err(Errno::EBUSY);
    }
    if may_control && o.flags & c::O_NOCTTY == 0 && tty.inner.lock().session == 0 {
        // Not a leader, or it has one: then it is an ordinary open.
        jobs::set_controlling(o.cur, &tty, false).ok();
    }
    super::opened(&tty);
    Ok(Arc::new(TtyFile { tty }))
}

impl FileOps for TtyFile {
    fn before_io(&self, cur: &Task, _file: &File, read: bool) -> Result<()> {
        if read {
            jobs::check_background(cur, &self.tty, c::SIGTTIN)
        } else if self.tty.inner.lock().ld.termios.lflag & c::TOSTOP != 0 {
            jobs::check_background(cur, &self.tty, c::SIGTTOU)
        } else {
            Ok(())
        }
    }

    fn try_read(&self, _file: &File, _pos: u64, to: &mut IovIter<'_>) -> Result<usize> {
        if to.remaining() == 0 {
            return Ok(0);
        }
        let n = {
            let mut i = self.tty.inner.lock();
            match i.ld.peek(to.remaining().min(65_536)) {
                Some(bytes) => {
                    let n = if bytes.is_empty() { 0 } else { to.copy_to(&bytes)? };
                    i.ld.consume(n);
                    n
                }
                None if i.hung_up || i.ended => return Ok(0),
                None => return Err(Errno::EAGAIN),
            }
        };
        self.tty.unthrottle();
        self.tty.master_wait.wake(poll::OUT);
        Ok(n)
    }

    fn try_write(&self, _file: &File, _pos: u64, from: &mut IovIter<'_>) -> Result<usize> {
        if from.remaining() == 0 {
            return Ok(0);
        }
        {
            let mut i = self.tty.inner.lock();
            if i.hung_up {
                return Err(Errno::EIO);
            }
            self.tty.push_out(&mut i);
            if i.out.len() >= OUT_MAX {
                return Err(Errno::EAGAIN);
            }
        }
        let mut buf = [0u8; 2048];
        let mark = from.done();
        let n = from.copy_from(&mut buf)?;
        match self.tty.write(&buf[..n]) {
            Ok(k) => {
                if k < n {
                    from.rewind(mark + k);
                }
                Ok(k)
            }
            Err(e) => {
                from.rewind(mark);
                Err(e)
            }
        }
    }

    fn io_timeout(&self, read: bool) -> Option<Duration> {
        if !read {
            return None;
        }
        let ds = self.tty.inner.lock().ld.read_timeout_ds();
        (ds > 0).then(|| Duration::from_millis(u64::from(ds) * 100))
    }

    fn timeout_is_eof(&self) -> bool {
        true
    }

    fn poll(&self, _file: &File, table: &mut PollTable) -> u32 {
        table.register(&self.tty.wait, poll::IN | poll::OUT);
        let i = self.tty.inner.lock();
        let mut ready = 0;
        if i.ld.readable() || i.ended {
            ready |= poll::IN;
        }
        if i.out.len() < OUT_MAX {
            ready |= poll::OUT;
        }
        if i.hung_up {
            ready |= poll::POLLHUP | poll::POLLERR | poll::IN | poll::OUT;
        }
        ready
    }

    fn ioctl<'a>(
        &'a self,
        cur: &'a Arc<Task>,
        _file: &'a File,
        cmd: u32,
        arg: u64,
    ) -> BoxFuture<'a, Result<u64>> {
        Box::pin(super::ioctl::ioctl(cur, &self.tty, cmd, arg, false))
    }

    fn release(&self, _file: &File) {
        if self.tty.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            // The last of this side: a master reads EIO from now on.
            self.tty.master_wait.wake_all();
        }
    }
}
