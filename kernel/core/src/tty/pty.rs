//! Pseudo terminal pairs: /dev/ptmx and /dev/pts/N (pty(7)).

use super::{Back, Tty};
use crate::fs::devices::{OpenChr, register_chr};
use crate::fs::file::{File, FileOps};
use crate::fs::inode::makedev;
use crate::fs::iov::IovIter;
use crate::fs::poll::{self, PollTable};
use crate::syscall::UserPtr;
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use uapi::raw::general as c;
use uapi::raw::ioctl as i;

/// Major number of the slaves.
pub const PTS_MAJOR: u32 = 136;
/// Pairs that may exist (kernel.pty.max).
pub const PTY_MAX: u32 = 4096;

/// A pair, as long as its master is open.
pub struct Pair {
    /// N of /dev/pts/N.
    pub index: u32,
    /// The slave.
    pub tty: Arc<Tty>,
    /// TIOCSPTLCK: the slave may not be opened yet.
    locked: AtomicBool,
    /// The slave has been open at least once: its end counts.
    seen: AtomicBool,
    /// TIOCPKT was asked for (0 is the only mode there is).
    packet: AtomicU32,
    /// Who opened the master: owner of the slave's node.
    pub owner: (u32, u32),
    /// When.
    pub made: crate::fs::inode::Timespec,
}

static PAIRS: Mutex<BTreeMap<u32, Arc<Pair>>> = Mutex::new(BTreeMap::new());

/// The pair with this number.
pub fn pair(index: u32) -> Option<Arc<Pair>> {
    PAIRS.lock().get(&index).cloned()
}

/// All pairs.
pub fn pairs() -> Vec<Arc<Pair>> {
    PAIRS.lock().values().cloned().collect()
}

/// Opens /dev/ptmx: makes a pair and gives its master.
pub fn open_ptmx(o: &OpenChr<'_>) -> Result<Arc<dyn FileOps>> {
    let cred = o.cur.cred();
    let mut all = PAIRS.lock();
    let index = (0..PTY_MAX).find(|n| !all.contains_key(n)).ok_or(Errno::ENOSPC)?;
    let pair = Arc::new(Pair {
        index,
        tty: Tty::new(makedev(PTS_MAJOR, index), format!("pts/{index}"), Back::Pty),
        locked: AtomicBool::new(true),
        seen: AtomicBool::new(false),
        packet: AtomicU32::new(0),
        owner: (cred.fsuid, cred.fsgid),
        made: crate::fs::inode::Timespec::now(),
    });
    all.insert(index, Arc::clone(&pair));
    Ok(Arc::new(Master { pair }))
}

fn open_slave(o: &OpenChr<'_>) -> Result<Arc<dyn FileOps>> {
    let pair = pair(o.minor).ok_or(Errno::EIO)?;
    if pair.locked.load(Ordering::Acquire) || pair.tty.inner.lock().hung_up {
        return Err(Errno::EIO);
    }
    let f = super::file::open(o, Arc::clone(&pair.tty), true)?;
    pair.seen.store(true, Ordering::Release);
    pair.tty.master_wait.wake_all();
    Ok(f)
}

/// The open master of a pair.
struct Master {
    pair: Arc<Pair>,
}

impl Master {
    fn slave_gone(&self) -> bool {
        self.pair.seen.load(Ordering::Acquire) && self.pair.tty.count.load(Ordering::Acquire) == 0
    }
}

impl FileOps for Master {
    fn try_read(&self, _file: &File, _pos: u64, to: &mut IovIter<'_>) -> Result<usize> {
        let tty = &self.pair.tty;
        let n = {
            let mut inner = tty.inner.lock();
            if inner.out.is_empty() || inner.ld.stopped {
                return if self.slave_gone() { Err(Errno::EIO) } else { Err(Errno::EAGAIN) };
            }
            let (front, _) = inner.out.as_slices();
            let n = to.copy_to(front)?;
            inner.out.drain(..n);
            n
        };
        tty.wait.wake(poll::OUT);
        Ok(n)
    }

    fn try_write(&self, _file: &File, _pos: u64, from: &mut IovIter<'_>) -> Result<usize> {
        let tty = &self.pair.tty;
        let room = tty.inner.lock().ld.room();
        if from.remaining() == 0 {
            return Ok(0);
        }
        if room == 0 {
            return Err(Errno::EAGAIN);
        }
        let mut buf = [0u8; 1024];
        let max = room.min(buf.len());
        let n = from.copy_from(&mut buf[..max])?;
        tty.receive(&buf[..n]);
        Ok(n)
    }

    fn poll(&self, _file: &File, table: &mut PollTable) -> u32 {
        let tty = &self.pair.tty;
        table.register(&tty.master_wait, poll::IN | poll::OUT);
        let gone = self.slave_gone();
        let inner = tty.inner.lock();
        let mut ready = 0;
        if !inner.out.is_empty() && !inner.ld.stopped {
            ready |= poll::IN;
        }
        if inner.ld.room() > 0 {
            ready |= poll::OUT;
        }
        if gone {
            ready |= poll::POLLHUP;
        }
        ready
    }

    fn ioctl<'a>(
        &'a self,
        cur: &'a Arc<Task>,
        file: &'a File,
        cmd: u32,
        arg: u64,
    ) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            match cmd {
                i::TIOCGPTN => UserPtr::<u32>::new(arg).write(cur, &self.pair.index).await?,
                i::TIOCSPTLCK => {
                    let on = UserPtr::<i32>::new(arg).read(cur).await? != 0;
                    self.pair.locked.store(on, Ordering::Release);
                }
                i::TIOCGPTLCK => {
                    let on = i32::from(self.pair.locked.load(Ordering::Acquire));
                    UserPtr::<i32>::new(arg).write(cur, &on).await?;
                }
                i::TIOCGPTPEER => return self.open_peer(cur, file, arg).await,
                i::TIOCPKT => {
                    if UserPtr::<i32>::new(arg).read(cur).await? != 0 {
                        log::warn!(target: "tty", "packet mode of pseudo terminals is not there yet");
                        return Err(Errno::EINVAL);
                    }
                }
                i::TIOCGPKT => {
                    let mode = self.pair.packet.load(Ordering::Relaxed);
                    UserPtr::<u32>::new(arg).write(cur, &mode).await?;
                }
                i::TIOCSIG => {
                    let sig =
                        u32::try_from(arg).ok().filter(|s| matches!(*s, c::SIGINT | c::SIGQUIT | c::SIGTSTP));
                    let pgrp = self.pair.tty.inner.lock().pgrp;
                    crate::fs::hooks::send_group(pgrp, sig.ok_or(Errno::EINVAL)?);
                }
                _ => return super::ioctl::ioctl(cur, &self.pair.tty, cmd, arg, true).await,
            }
            Ok(0)
        })
    }

    fn release(&self, _file: &File) {
        PAIRS.lock().remove(&self.pair.index);
        self.pair.tty.hangup();
    }
}

impl Master {
    /// TIOCGPTPEER: the slave, opened without a path.
    async fn open_peer(&self, cur: &Arc<Task>, _file: &File, flags: u64) -> Result<u64> {
        let flags = u32::try_from(flags).map_err(|_| Errno::EINVAL)?;
        let name = format!("/{}", self.pair.index);
        let at = crate::fs::impls::devpts::kernel_mount().root_path();
        let walk = crate::fs::namei::Walk::from(cur, at);
        let f = crate::fs::open::open_from(walk, cur, name.as_bytes(), flags & !c::O_CLOEXEC).await?;
        crate::fs::syscalls::open::install(cur, f, flags)
    }
}

/// Makes the device numbers known.
pub fn register() {
    register_chr(PTS_MAJOR, 0..=PTY_MAX, "pts", open_slave);
}
