//! A line on host descriptors: terminals, pipes, sockets, plain files.
//!
//! Two tasks move the bytes. Terminals, pipes and sockets are waited for with polls on the ring and moved without blocking
//! (through an open file description of our own, so that O_NONBLOCK is not forced upon the shell that started us). What
//! cannot be had non-blocking, plain files above all, is moved by ring operations.

use super::Channel;
use arch::host::fd::{FileKind, HostFd};
use arch::host::term::{RawMode, winsize};
use device::tty_port::TtyPort;
use executor::irq::{self, POLLHUP, POLLIN, POLLOUT, POLLPRI};
use klib::waitqueue::WaitQueue;
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use uapi::{Errno, Result};

/// Bytes held each way. Input beyond stays with the host; output beyond is refused with `EAGAIN`.
const BUFFER: usize = 64 << 10;
/// Bytes moved at once.
const CHUNK: usize = 4096;
/// How long the last words may take to leave when the process ends, in milliseconds.
const LAST_WORDS_MS: u32 = 200;

/// How bytes get through a descriptor without blocking a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// read(2), write(2) on a non-blocking description.
    Direct,
    /// recv(2), send(2) with MSG_DONTWAIT.
    Socket,
    /// Operations of the ring.
    Ring,
}

struct End {
    fd: HostFd,
    way: Way,
    tty: bool,
}

/// A terminal line on descriptors of the host.
pub struct FdPort {
    input: Option<End>,
    output: Option<End>,
    state: Mutex<State>,
    raw: Mutex<Vec<RawMode>>,
    /// For those who read and write the line.
    queue: WaitQueue,
    /// For our own two tasks.
    work: WaitQueue,
}

#[derive(Default)]
struct State {
    rx: VecDeque<u8>,
    /// The input has ended.
    hangup: bool,
    tx: VecDeque<u8>,
    /// The host refuses our output: it is discarded from now on.
    tx_dead: bool,
}

impl End {
    fn open(number: i32, write: bool) -> core::result::Result<Self, String> {
        let dir = if write { "output" } else { "input" };
        let fail = |e: Errno| format!("console channel fd:{number} ({dir}): {}", e.text());
        let fd = HostFd::dup_of(number).map_err(fail)?;
        let kind = fd.kind().map_err(fail)?;
        let tty = kind == FileKind::Tty;
        match kind {
            FileKind::Socket => Ok(Self { fd, way: Way::Socket, tty }),
            FileKind::Regular | FileKind::Block => Ok(Self { fd, way: Way::Ring, tty }),
            FileKind::Other => Err(fail(Errno::EISDIR)),
            FileKind::Tty | FileKind::Char | FileKind::Pipe => match fd.reopen_nonblocking(write) {
                Ok(own) => Ok(Self { fd: own, way: Way::Direct, tty }),
                // Not ours to open (a terminal of another user): slower, but works.
                Err(_) => Ok(Self { fd, way: Way::Ring, tty }),
            },
        }
    }

    fn try_read(&self, buf: &mut [u8]) -> Result<usize> {
        match self.way {
            Way::Socket => self.fd.recv_now(buf),
            _ => self.fd.read(buf),
        }
    }

    fn try_write(&self, buf: &[u8]) -> Result<usize> {
        match self.way {
            Way::Socket => self.fd.send_now(buf),
            Way::Direct => self.fd.write(buf),
            // Only for the last words of a descriptor that may block: little, and only if there is room.
            Way::Ring => match self.fd.poll_now(POLLOUT as u16)? & POLLOUT as u16 {
                0 => Err(Errno::EAGAIN),
                _ => self.fd.write(buf.get(..512).unwrap_or(buf)),
            },
        }
    }
}

impl FdPort {
    pub(super) fn open(input: Channel, output: Channel) -> core::result::Result<Arc<Self>, String> {
        let end = |channel, write| match channel {
            Channel::Fd(n) => End::open(n, write).map(Some),
            Channel::Null | Channel::None => Ok(None),
        };
        Ok(Arc::new(Self {
            input: end(input, false)?,
            output: end(output, true)?,
            state: Mutex::default(),
            raw: Mutex::default(),
            queue: WaitQueue::new(),
            work: WaitQueue::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn start(self: &Arc<Self>) {
        for end in [&self.input, &self.output].into_iter().flatten().filter(|e| e.tty) {
            match RawMode::enter(&end.fd) {
                Ok(raw) => self.raw.lock().unwrap_or_else(PoisonError::into_inner).push(raw),
                Err(e) => log::warn!(target: "console", "raw mode of the host terminal: {}", e.text()),
            }
        }
        let weak = Arc::downgrade(self);
        executor::crash::at_exit(move || {
            if let Some(port) = weak.upgrade() {
                port.flush_now();
                port.restore();
            }
        });
        let weak = Arc::downgrade(self);
        executor::signal::subscribe(executor::signal::SIGWINCH, move || {
            if let Some(port) = weak.upgrade() {
                port.queue.wake(POLLPRI);
            }
        });
        if self.input.is_some() {
            executor::spawn(Arc::clone(self).reader());
        }
        if self.output.is_some() {
            executor::spawn(Arc::clone(self).writer());
        }
    }

    /// Puts the host's terminal back as it was.
    fn restore(&self) {
        // Never waits: this may be a panic of whoever holds the lock.
        let raw = match self.raw.try_lock() {
            Ok(r) => r,
            Err(TryLockError::Poisoned(r)) => r.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        // The second one, if any, was saved when the first was raw already.
        raw.iter().rev().for_each(RawMode::restore);
    }

    async fn reader(self: Arc<Self>) {
        let Some(end) = &self.input else { return };
        let mut ready = irq::poll_fd(end.fd.as_raw_fd(), POLLIN);
        let mut buf = vec![0u8; CHUNK];
        loop {
            let room = self.work.wait_until(|| {
                let used = self.lock().rx.len();
                (used < BUFFER).then_some(BUFFER - used)
            });
            let room = room.await.min(CHUNK);
            buf.resize(room, 0);
            let got = if end.way == Way::Ring {
                let (got, back) = irq::read_fd(&end.fd, std::mem::take(&mut buf)).await;
                buf = back;
                got
            } else {
                match end.try_read(&mut buf) {
                    Err(Errno::EAGAIN) => match (&mut ready).await {
                        Ok(_) => continue,
                        Err(e) => Err(e),
                    },
                    got => got,
                }
            };
            match got {
                // A terminal whose other side has gone says EIO: that is its end of file.
                Ok(0) | Err(Errno::EIO) => break,
                Ok(n) => {
                    self.lock().rx.extend(buf.iter().take(n));
                    self.queue.wake(POLLIN);
                }
                Err(Errno::EINTR | Errno::EAGAIN) => executor::yield_now().await,
                Err(e) => {
                    log::warn!(target: "console", "console input ends: {}", e.text());
                    break;
                }
            }
        }
        self.lock().hangup = true;
        self.queue.wake(POLLIN | POLLHUP);
    }

    async fn writer(self: Arc<Self>) {
        let Some(end) = &self.output else { return };
        let mut ready = irq::poll_fd(end.fd.as_raw_fd(), POLLOUT);
        loop {
            self.work.wait_until(|| (!self.lock().tx.is_empty()).then_some(())).await;
            let put = if end.way == Way::Ring {
                let chunk: Vec<u8> = {
                    let mut state = self.lock();
                    let n = state.tx.len().min(CHUNK);
                    state.tx.drain(..n).collect()
                };
                self.write_through_ring(&end.fd, chunk).await
            } else {
                self.push_out(end)
            };
            match put {
                Ok(()) => self.queue.wake(POLLOUT),
                Err(Errno::EAGAIN) => {
                    self.queue.wake(POLLOUT);
                    if (&mut ready).await.is_err() {
                        return;
                    }
                }
                Err(e) => {
                    log::warn!(target: "console", "console output is lost from here on: {}", e.text());
                    let mut state = self.lock();
                    state.tx_dead = true;
                    state.tx.clear();
                    drop(state);
                    self.queue.wake(POLLOUT);
                    return;
                }
            }
        }
    }

    /// Writes what is queued as far as the host takes it without waiting.
    fn push_out(&self, end: &End) -> Result<()> {
        let mut state = self.lock();
        Self::push_queue(&mut state, end)
    }

    fn push_queue(state: &mut State, end: &End) -> Result<()> {
        while !state.tx.is_empty() {
            let (front, _) = state.tx.as_slices();
            let n = match end.try_write(front) {
                Ok(0) => return Err(Errno::EIO),
                Ok(n) => n,
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e),
            };
            state.tx.drain(..n.min(state.tx.len()));
        }
        Ok(())
    }

    async fn write_through_ring(&self, fd: &HostFd, mut chunk: Vec<u8>) -> Result<()> {
        let mut done = 0;
        while done < chunk.len() {
            let (n, back) = irq::write_part(fd, u64::MAX, chunk, done).await;
            chunk = back;
            match n {
                Ok(0) => return Err(Errno::EIO),
                Ok(n) => done += n,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    irq::poll_fd(fd.as_raw_fd(), POLLOUT).await?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl TtyPort for FdPort {
    fn try_read(&self, buf: &mut [u8]) -> Result<usize> {
        let mut state = self.lock();
        if state.rx.is_empty() {
            return if state.hangup { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let was_full = state.rx.len() >= BUFFER;
        let n = buf.len().min(state.rx.len());
        for (to, from) in buf.iter_mut().zip(state.rx.drain(..n)) {
            *to = from;
        }
        drop(state);
        if was_full && n > 0 {
            self.work.wake_all();
        }
        Ok(n)
    }

    fn try_write(&self, buf: &[u8]) -> Result<usize> {
        let mut state = self.lock();
        if state.tx_dead || self.output.is_none() || buf.is_empty() {
            return Ok(buf.len());
        }
        let n = buf.len().min(BUFFER.saturating_sub(state.tx.len()));
        if n == 0 {
            return Err(Errno::EAGAIN);
        }
        let was_empty = state.tx.is_empty();
        state.tx.extend(buf.iter().take(n));
        drop(state);
        if was_empty {
            self.work.wake_all();
        }
        Ok(n)
    }

    fn wait_queue(&self) -> &WaitQueue {
        &self.queue
    }

    fn winsize(&self) -> Option<(u16, u16)> {
        let ttys = [&self.output, &self.input].into_iter().flatten().filter(|e| e.tty);
        ttys.map(|e| winsize(&e.fd)).find(Option::is_some).flatten()
    }

    fn flush_now(&self) {
        let Some(end) = &self.output else { return };
        // Never waits for the lock: this may be a panic of whoever holds it.
        let mut state = match self.state.try_lock() {
            Ok(s) => s,
            Err(TryLockError::Poisoned(s)) => s.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if state.tx_dead {
            return;
        }
        let mut tries = LAST_WORDS_MS / 10;
        while Self::push_queue(&mut state, end) == Err(Errno::EAGAIN) && tries > 0 {
            tries -= 1;
            let _ = end.fd.poll_wait(POLLOUT as u16, 10);
        }
    }
}
