//! Pipes and FIFOs (pipe(7)).
//!
//! One ring of bytes under one lock, copied to and from guest memory directly. Lock order: `Pipe::ring` is a leaf;
//! queues are woken after it has been dropped.

use super::anon::{self, AnonFs};
use super::file::{File, FileOps};
use super::inode::Inode;
use super::iov::IovIter;
use super::poll::{self, PollTable};
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use klib::waitqueue::WaitQueue;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use uapi::raw::general as c;

/// Writes up to this are not mixed with others.
pub const PIPE_BUF: usize = 4096;
/// Size of a new pipe.
const DEFAULT_SIZE: usize = 65_536;
/// F_SETPIPE_SZ of unprivileged processes (fs.pipe-max-size).
pub const PIPE_MAX: usize = 1 << 20;
/// Bytes of all pipes' rings together.
const ALL_MAX: u64 = 256 << 20;

static ALL: AtomicU64 = AtomicU64::new(0);

#[derive(Default)]
struct Ring {
    buf: Vec<u8>,
    head: usize,
    len: usize,
    max: usize,
    /// Lengths of packets (O_DIRECT); empty in stream mode.
    packets: VecDeque<usize>,
    readers: u32,
    writers: u32,
    /// Counts opens, so that an open of a FIFO sees a partner that has gone again.
    reader_gen: u64,
    writer_gen: u64,
}

impl Ring {
    fn free(&self) -> usize {
        self.max - self.len
    }

    /// A write of up to `PIPE_BUF` bytes would not block.
    fn has_room(&self) -> bool {
        self.free() >= PIPE_BUF && self.packets.len() < self.max / PIPE_BUF
    }

    /// Makes room for `extra` more bytes in memory: the ring starts small.
    fn reserve(&mut self, extra: usize) -> Result<()> {
        let want = self.len + extra;
        if want <= self.buf.len() {
            return Ok(());
        }
        let new = want.next_power_of_two().clamp(PIPE_BUF, self.max.max(PIPE_BUF));
        let more = (new - self.buf.len()) as u64;
        if ALL.fetch_add(more, Ordering::Relaxed) + more > ALL_MAX {
            ALL.fetch_sub(more, Ordering::Relaxed);
            return Err(Errno::ENOMEM);
        }
        self.resize(new);
        Ok(())
    }

    /// Moves the contents to a buffer of `new` bytes, not less than `len`.
    fn resize(&mut self, new: usize) {
        let mut buf = vec![0; new];
        let first = self.len.min(self.buf.len() - self.head);
        buf[..first].copy_from_slice(&self.buf[self.head..self.head + first]);
        buf[first..self.len].copy_from_slice(&self.buf[..self.len - first]);
        (self.buf, self.head) = (buf, 0);
    }

    /// Copies up to `n` bytes in behind the contents, without counting them; gives how many came.
    fn fill(&mut self, from: &mut IovIter<'_>, n: usize) -> Result<usize> {
        let cap = self.buf.len();
        let mut got = 0;
        while got < n {
            let at = (self.head + self.len + got) % cap;
            let run = (n - got).min(cap - at);
            match from.copy_from(&mut self.buf[at..at + run]) {
                Ok(k) => {
                    got += k;
                    if k < run {
                        break;
                    }
                }
                Err(e) if got == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(got)
    }

    /// Copies up to `n` bytes out from the front, without taking them off; gives how many went.
    fn drain(&self, to: &mut IovIter<'_>, n: usize) -> Result<usize> {
        let cap = self.buf.len();
        let mut put = 0;
        while put < n {
            let at = (self.head + put) % cap;
            let run = (n - put).min(cap - at);
            match to.copy_to(&self.buf[at..at + run]) {
                Ok(k) => {
                    put += k;
                    if k < run {
                        break;
                    }
                }
                Err(e) if put == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(put)
    }

    fn take(&mut self, n: usize) {
        self.len -= n;
        self.head = if self.len == 0 { 0 } else { (self.head + n) % self.buf.len() };
    }
}

/// A pipe: what both ends share.
pub struct Pipe {
    ring: Mutex<Ring>,
    /// Readers wait here for data, writers for space, opens of a FIFO for each other.
    readers: WaitQueue,
    writers: WaitQueue,
    /// One user of a FIFO holds it by this.
    opens: WaitQueue,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        ALL.fetch_sub(self.ring.get_mut().buf.len() as u64, Ordering::Relaxed);
    }
}

impl Pipe {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            ring: Mutex::new(Ring { max: DEFAULT_SIZE, ..Ring::default() }),
            readers: WaitQueue::new(),
            writers: WaitQueue::new(),
            opens: WaitQueue::new(),
        })
    }

    /// Reads; `EAGAIN` when empty, 0 when empty and no writer is left.
    pub fn try_read(&self, to: &mut IovIter<'_>) -> Result<usize> {
        let mut r = self.ring.lock();
        if to.remaining() == 0 {
            return Ok(0);
        }
        if r.len == 0 {
            return if r.writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let was_full = !r.has_room();
        let done = match r.packets.front().copied() {
            Some(packet) => {
                let want = packet.min(to.remaining());
                let mark = to.done();
                let n = r.drain(to, want)?;
                if n < want {
                    // A packet is taken whole: the missing page is brought in first.
                    to.rewind(mark);
                    return Err(Errno::EFAULT);
                }
                r.packets.pop_front();
                r.take(packet);
                n
            }
            None => {
                let want = r.len.min(to.remaining());
                let n = r.drain(to, want)?;
                r.take(n);
                n
            }
        };
        drop(r);
        if was_full {
            self.writers.wake(poll::OUT);
        }
        Ok(done)
    }

    /// Writes; `EAGAIN` without space, `EPIPE` without readers.
    pub fn try_write(&self, from: &mut IovIter<'_>, packet: bool) -> Result<usize> {
        let mut r = self.ring.lock();
        if r.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let want = from.remaining();
        if want == 0 {
            return Ok(0);
        }
        let free = r.free();
        let whole = packet || !r.packets.is_empty() || want <= PIPE_BUF;
        let n = if whole { want.min(PIPE_BUF) } else { want.min(free) };
        if n == 0 || n > free {
            return Err(Errno::EAGAIN);
        }
        if whole && r.packets.len() >= r.max / PIPE_BUF && !r.packets.is_empty() {
            return Err(Errno::EAGAIN);
        }
        r.reserve(n)?;
        let mark = from.done();
        let got = r.fill(from, n)?;
        if whole && got < n {
            from.rewind(mark);
            return Err(Errno::EFAULT);
        }
        if packet || !r.packets.is_empty() {
            if r.packets.is_empty() && r.len > 0 {
                let before = r.len;
                r.packets.push_back(before);
            }
            r.packets.push_back(got);
        }
        r.len += got;
        drop(r);
        self.readers.wake(poll::IN);
        Ok(got)
    }

    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.ring.lock().len
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of up to `n` bytes from the front (tee(2)).
    pub fn peek(&self, n: usize) -> Vec<u8> {
        let r = self.ring.lock();
        let mut out = vec![0; n.min(r.len)];
        let want = out.len();
        let got = r.drain(&mut IovIter::kernel_dst(&mut out), want).unwrap_or(0);
        out.truncate(got);
        out
    }

    /// F_GETPIPE_SZ.
    pub fn size(&self) -> usize {
        self.ring.lock().max
    }

    /// F_SETPIPE_SZ: rounds up to a power of two of pages; `EBUSY` if it holds more.
    pub fn set_size(&self, want: usize, privileged: bool) -> Result<usize> {
        let size = want.max(PIPE_BUF).checked_next_power_of_two().ok_or(Errno::EINVAL)?;
        if size > 1 << 30 {
            return Err(Errno::EINVAL);
        }
        if size > PIPE_MAX && !privileged {
            return Err(Errno::EPERM);
        }
        let mut r = self.ring.lock();
        if r.len > size {
            return Err(Errno::EBUSY);
        }
        r.max = size;
        if r.buf.len() > size {
            ALL.fetch_sub((r.buf.len() - size) as u64, Ordering::Relaxed);
            r.resize(size);
        }
        drop(r);
        self.writers.wake(poll::OUT);
        Ok(size)
    }

    fn attach(&self, read: bool, write: bool) {
        let mut r = self.ring.lock();
        if read {
            r.readers += 1;
            r.reader_gen += 1;
        }
        if write {
            r.writers += 1;
            r.writer_gen += 1;
        }
        drop(r);
        self.opens.wake_all();
    }

    fn detach(&self, read: bool, write: bool) {
        let mut r = self.ring.lock();
        r.readers -= u32::from(read);
        r.writers -= u32::from(write);
        if r.readers == 0 && r.writers == 0 {
            // A FIFO that nobody has open forgets what was in it.
            r.len = 0;
            r.head = 0;
            r.packets.clear();
        }
        drop(r);
        self.readers.wake_all();
        self.writers.wake_all();
    }
}

/// One open end (or both, for a FIFO opened O_RDWR).
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    read: bool,
    write: bool,
}

impl PipeEnd {
    fn new(pipe: Arc<Pipe>, read: bool, write: bool) -> Arc<Self> {
        pipe.attach(read, write);
        Arc::new(Self { pipe, read, write })
    }

    /// The pipe behind it.
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        self.pipe.detach(self.read, self.write);
    }
}

impl FileOps for PipeEnd {
    fn try_read(&self, _file: &File, _pos: u64, to: &mut IovIter<'_>) -> Result<usize> {
        self.pipe.try_read(to)
    }

    fn try_write(&self, file: &File, _pos: u64, from: &mut IovIter<'_>) -> Result<usize> {
        self.pipe.try_write(from, file.flags() & c::O_DIRECT != 0)
    }

    fn poll(&self, _file: &File, table: &mut PollTable) -> u32 {
        if self.read {
            table.register(&self.pipe.readers, poll::IN);
        }
        if self.write {
            table.register(&self.pipe.writers, poll::OUT);
        }
        let r = self.pipe.ring.lock();
        let mut ready = 0;
        if self.read {
            if r.len > 0 {
                ready |= poll::IN;
            }
            if r.writers == 0 && r.writer_gen > 0 {
                ready |= poll::POLLHUP;
            }
        }
        if self.write {
            if r.has_room() {
                ready |= poll::OUT;
            }
            if r.readers == 0 {
                ready |= poll::POLLERR;
            }
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
        Box::pin(async move {
            if cmd != uapi::raw::ioctl::FIONREAD {
                return Err(Errno::ENOTTY);
            }
            let n = i32::try_from(self.pipe.len()).unwrap_or(i32::MAX);
            cur.mm().write_obj(arg, &n).await.map(|()| 0)
        })
    }

    fn sigpipe(&self) -> bool {
        true
    }
}

/// Both ends of a new pipe; `flags` may hold O_NONBLOCK and O_DIRECT.
pub fn new_pipe(cur: &Task, flags: u32) -> (Arc<File>, Arc<File>) {
    let pipe = Pipe::new();
    let inode = anon::inode(AnonFs::Pipe, &cur.cred());
    *inode.fifo.lock() = Arc::downgrade(&pipe);
    let keep = flags & (c::O_NONBLOCK | c::O_DIRECT);
    let r = PipeEnd::new(Arc::clone(&pipe), true, false);
    let w = PipeEnd::new(pipe, false, true);
    (
        anon::file(AnonFs::Pipe, "", Arc::clone(&inode), r, keep | c::O_RDONLY),
        anon::file(AnonFs::Pipe, "", inode, w, keep | c::O_WRONLY),
    )
}

/// open(2) of a FIFO: waits for the other side unless O_NONBLOCK or O_RDWR (fifo(7)).
pub async fn open_fifo(cur: &Arc<Task>, inode: &Arc<Inode>, flags: u32) -> Result<Arc<dyn FileOps>> {
    let pipe = {
        let mut slot = inode.fifo.lock();
        match slot.upgrade() {
            Some(p) => p,
            None => {
                let p = Pipe::new();
                *slot = Arc::downgrade(&p);
                p
            }
        }
    };
    let (read, write) = match flags & c::O_ACCMODE {
        c::O_RDONLY => (true, false),
        c::O_WRONLY => (false, true),
        _ => (true, true),
    };
    let nonblock = flags & c::O_NONBLOCK != 0;
    if write && !read && nonblock && pipe.ring.lock().readers == 0 {
        return Err(Errno::ENXIO);
    }
    let end = PipeEnd::new(Arc::clone(&pipe), read, write);
    if read != write && !nonblock {
        let (seen_r, seen_w) = {
            let r = pipe.ring.lock();
            (r.reader_gen, r.writer_gen)
        };
        cur.wait_event(None, |table| {
            table.register(&pipe.opens, u32::MAX);
            let r = pipe.ring.lock();
            let there = if read {
                r.writers > 0 || r.writer_gen != seen_w
            } else {
                r.readers > 0 || r.reader_gen != seen_r
            };
            there.then_some(())
        })
        .await?;
    } else if read && !write && nonblock {
        // A reader that came first does not hang up before the first writer has been there.
        let mut r = pipe.ring.lock();
        if r.writers == 0 {
            r.writer_gen = 0;
        }
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(p: &Arc<Pipe>) -> (Arc<PipeEnd>, Arc<PipeEnd>) {
        (PipeEnd::new(Arc::clone(p), true, false), PipeEnd::new(Arc::clone(p), false, true))
    }

    fn w(p: &Pipe, data: &[u8]) -> Result<usize> {
        p.try_write(&mut IovIter::kernel_src(data), false)
    }

    fn r(p: &Pipe, n: usize) -> Result<Vec<u8>> {
        let mut buf = vec![0; n];
        let got = p.try_read(&mut IovIter::kernel_dst(&mut buf))?;
        buf.truncate(got);
        Ok(buf)
    }

    #[test]
    fn bytes_come_out_in_order_around_the_ring() {
        let p = Pipe::new();
        let _ends = open(&p);
        let (mut next_in, mut next_out) = (0u8, 0u8);
        let mut x = 1u32;
        for _ in 0..5000 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let n = (x >> 16) as usize % 9000;
            if x & 1 == 0 {
                let data: Vec<u8> = (0..n).map(|i| next_in.wrapping_add(i as u8)).collect();
                match w(&p, &data) {
                    Ok(k) => next_in = next_in.wrapping_add(k as u8),
                    Err(e) => assert_eq!(e, Errno::EAGAIN),
                }
            } else {
                for b in r(&p, n).unwrap_or_default() {
                    assert_eq!(b, next_out);
                    next_out = next_out.wrapping_add(1);
                }
            }
        }
    }

    #[test]
    fn small_writes_are_whole_and_large_ones_short() {
        let p = Pipe::new();
        let _ends = open(&p);
        assert_eq!(w(&p, &vec![1; 70_000]), Ok(65_536));
        assert_eq!(w(&p, &[1]), Err(Errno::EAGAIN));
        r(&p, 100).unwrap();
        assert_eq!(w(&p, &[1; 101]), Err(Errno::EAGAIN));
        assert_eq!(w(&p, &[1; 100]), Ok(100));
    }

    #[test]
    fn ends_of_the_other_side() {
        let p = Pipe::new();
        let (a, b) = open(&p);
        w(&p, b"x").unwrap();
        drop(b);
        assert_eq!(r(&p, 5), Ok(b"x".to_vec()));
        assert_eq!(r(&p, 5), Ok(Vec::new()));
        let p = Pipe::new();
        let (c1, _c2) = open(&p);
        drop(c1);
        assert_eq!(w(&p, b"x"), Err(Errno::EPIPE));
        drop(a);
    }

    #[test]
    fn packets_keep_their_ends() {
        let p = Pipe::new();
        let _ends = open(&p);
        for d in [&b"abc"[..], b"defgh"] {
            p.try_write(&mut IovIter::kernel_src(d), true).unwrap();
        }
        assert_eq!(r(&p, 2), Ok(b"ab".to_vec()));
        assert_eq!(r(&p, 10), Ok(b"defgh".to_vec()));
        assert_eq!(r(&p, 10), Err(Errno::EAGAIN));
    }

    #[test]
    fn size_changes_keep_contents() {
        let p = Pipe::new();
        let _ends = open(&p);
        w(&p, &[7; 5000]).unwrap();
        assert_eq!(p.set_size(4096, false), Err(Errno::EBUSY));
        assert_eq!(p.set_size(5001, false), Ok(8192));
        assert_eq!(r(&p, 6000), Ok(vec![7; 5000]));
    }
}
