//! A stub process: the host side of one guest address space.

use super::ctl::Op;
use super::layout::*;
use super::notif::{Listener, take_fd};
use super::stub_host::StubHost;
use super::thread::UserThread;
use crate::host::{fd::HostFd, last_errno};
use parking_lot::Mutex;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use uapi::{Errno, Result};

/// A stub. Dropping it kills the host process; its numbers serve others at once, so whoever has run guest code in it
/// first kills it and waits for its pidfd.
pub struct StubProcess {
    host: Arc<StubHost>,
    slot: u32,
    state: State,
    /// Threads asked for so far: tells at which number the next listener appears.
    requests: AtomicU32,
    blocks: Arc<Home>,
}

enum State {
    /// The zygote has been asked.
    Forking { seq: u32 },
    /// The process is there; its mapper is coming up.
    Starting { pidfd: HostFd, pid: i32 },
    /// Ready.
    Ready { pidfd: HostFd, pid: i32 },
}

impl StubProcess {
    pub(super) fn request(host: Arc<StubHost>) -> Result<Self> {
        let slot = host.slots.take()?;
        let root = CTL_SLOTS + u64::from(slot) * SLOT_LEN;
        let mapper = root + 0x1000;
        let ctl = &host.ctl;
        ctl.write(root, &[0u8; 64]);
        ctl.write(mapper, &[0u8; 64]);
        let filter = |prog: u64| {
            const NEW_LISTENER: u64 = 8;
            Op::new(libc::SYS_seccomp, [1, NEW_LISTENER, prog, 0, 0, 0])
        };
        // The mapper confines itself, takes a descriptor table of its own and lets go of its listener.
        ctl.put_ops(
            mapper + OPS_OFFSET,
            mapper + 8,
            &[
                filter(host.image.mapper_prog),
                Op::new(libc::SYS_unshare, [libc::CLONE_FILES as u64, 0, 0, 0, 0, 0]),
                Op::new(libc::SYS_close, [FD_MAPPER_LISTENER as u64, 0, 0, 0, 0, 0]),
            ],
        );
        let map = |va: u64, len: u64, off: u64| {
            let flags = (libc::MAP_SHARED | libc::MAP_FIXED) as u64;
            Op::new(libc::SYS_mmap, [va, len, libc::PROT_READ as u64, flags, FD_CTL, off])
        };
        let child = [
            Op::new(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64, 0, 0, 0, 0]),
            map(ROOT_PAGE, 4096, root),
            map(MAPPER_PAGE, MAPPER_LEN, mapper),
            Op { child: host.image.mapper, ..Op::new(libc::SYS_clone, [THREAD_FLAGS, 0, 0, 0, 0, 0]) },
        ];
        let fork =
            Op { child: host.image.root, ..Op::new(libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]) };
        let seq = host.zygote_command(&[fork], &child);
        let blocks = Arc::new(Home { host: Arc::clone(&host), free: Mutex::default() });
        Ok(Self { host, slot, state: State::Forking { seq }, requests: AtomicU32::new(0), blocks })
    }

    /// Goes on with the set-up after a ring of the doorbell. `Ok(Some)` gives the mapper when the stub is ready,
    /// `Ok(None)` means wait for another ring.
    pub fn set_up(&mut self) -> Result<Option<Mapper>> {
        if let State::Forking { seq } = self.state {
            let Some(r) = self.host.zygote_result(seq) else { return Ok(None) };
            if r < 0 {
                return Err(Errno::from_raw(-(r as i32)));
            }
            let pid = r as i32;
            // SAFETY: plain integers; a new descriptor is returned.
            let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
            if fd < 0 {
                return Err(last_errno());
            }
            // SAFETY: the call above has just made the descriptor for us.
            let pidfd = HostFd::from(unsafe { OwnedFd::from_raw_fd(fd as i32) });
            self.state = State::Starting { pidfd, pid };
        }
        if let State::Starting { pidfd, pid } = &self.state {
            let (pidfd, pid) = (pidfd.clone(), *pid);
            let Some(listener) = take_listener(&pidfd, FD_MAPPER_LISTENER, FD_FAILED)? else {
                return Ok(None);
            };
            self.state = State::Ready { pidfd, pid };
            let list = CTL_SLOTS + u64::from(self.slot) * SLOT_LEN + 0x1000;
            return Ok(Some(Mapper { host: Arc::clone(&self.host), listener, list, idle: None }));
        }
        Ok(None)
    }

    /// The pidfd: readable when the process has died. `None` while the zygote works on it.
    pub fn pidfd(&self) -> Option<&HostFd> {
        match &self.state {
            State::Forking { .. } => None,
            State::Starting { pidfd, .. } | State::Ready { pidfd, .. } => Some(pidfd),
        }
    }

    /// Host process id, 0 while the zygote works on it.
    pub fn pid(&self) -> i32 {
        match &self.state {
            State::Forking { .. } => 0,
            State::Starting { pid, .. } | State::Ready { pid, .. } => *pid,
        }
    }

    /// Asks the root for a guest thread in block `take_block` has given. The block must be mapped already
    /// ([`Block::map_op`]). One request at a time in a stub.
    pub fn request_thread(&self, block: &Block) {
        let root = CTL_SLOTS + u64::from(self.slot) * SLOT_LEN;
        let ctl = &self.host.ctl;
        let va = block.va();
        // stack_t of the thread's signal stack.
        for (i, w) in [va, 0, BLOCK_LEN].iter().enumerate() {
            ctl.write_u64(root + DATA_OFFSET + i as u64 * 8, *w);
        }
        const NEW_LISTENER_KILLABLE: u64 = 8 | 32;
        let child = [
            Op::new(libc::SYS_sigaltstack, [ROOT_PAGE + DATA_OFFSET, 0, 0, 0, 0, 0]),
            Op::new(libc::SYS_seccomp, [1, NEW_LISTENER_KILLABLE, self.host.image.thread_prog, 0, 0, 0]),
        ];
        ctl.put_ops(root + CHILD_OPS_OFFSET, root + 16, &child);
        ctl.write_u64(root + 24, va + super::frame::START_FRAME);
        // The listener appears at the lowest free number: 1, or every other time 2, so that the one of the request
        // before cannot be taken for it. The same goes for the sign of a failure.
        let odd = self.requests.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        ctl.write_u64(root + FAILED_FD_OFFSET, FD_FAILED as u64 + 1 + u64::from(odd));
        let occupy = if odd { libc::SYS_dup2 } else { libc::SYS_getpid };
        let ops = [
            Op::new(libc::SYS_close_range, [1, u64::from(u32::MAX), 0, 0, 0, 0]),
            Op::new(occupy, [FD_DOORBELL, 1, 0, 0, 0, 0]),
            Op { child: self.host.image.thread, ..Op::new(libc::SYS_clone, [THREAD_FLAGS, 0, 0, 0, 0, 0]) },
        ];
        ctl.put_ops(root + OPS_OFFSET, root + 8, &ops);
        ctl.command(root);
    }

    /// Takes the thread that was asked for, after a ring; `None`: not there yet. `EAGAIN`: the host makes no more threads.
    pub fn take_thread(&self, block: Block) -> core::result::Result<UserThread, (Block, Option<Errno>)> {
        let Some(pidfd) = self.pidfd() else { return Err((block, None)) };
        let number = if self.requests.load(Ordering::Relaxed).is_multiple_of(2) { 2 } else { 1 };
        match take_listener(pidfd, number, FD_FAILED + number) {
            Ok(Some(l)) => Ok(UserThread::new(Arc::clone(&self.host), l, block, pidfd.clone(), self.pid())),
            Ok(None) => Err((block, None)),
            Err(e) => Err((block, Some(e))),
        }
    }

    /// A block for a new thread.
    pub fn take_block(&self) -> Result<Block> {
        Block::take(&self.blocks)
    }

    /// Ends the host process at once.
    pub fn kill(&self) {
        if let Some(fd) = self.pidfd() {
            // SAFETY: integers and a null siginfo; the pidfd names exactly our process.
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), libc::SIGKILL, 0, 0) };
        }
    }
}

impl Drop for StubProcess {
    fn drop(&mut self) {
        self.kill();
        self.host.slots.give(self.slot);
    }
}

/// The listener at `number` of the process behind `pidfd`, `None` if it is not there yet. `EAGAIN`: nor will it be, the root
/// has put its sign at `failed`. Guest threads have no call that makes a descriptor there, so only their own root can; a
/// stub that lied would get no thread, no more.
fn take_listener(pidfd: &HostFd, number: i32, failed: i32) -> Result<Option<Listener>> {
    match Listener::take_from(pidfd, number) {
        Ok(l) => Ok(Some(l)),
        Err(Errno::EBADF) => match take_fd(pidfd, failed) {
            Ok(_) => Err(Errno::EAGAIN),
            Err(Errno::EBADF) => Ok(None),
            Err(e) => Err(e),
        },
        Err(e) => Err(e),
    }
}

const THREAD_FLAGS: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM) as u64;

/// The blocks of one stub that no thread uses now. They stay mapped there, writable by its threads, so no other stub
/// gets them before the process is gone: whoever drops the last owner has waited for that.
struct Home {
    host: Arc<StubHost>,
    free: Mutex<Vec<u32>>,
}

impl Drop for Home {
    fn drop(&mut self) {
        std::mem::take(self.free.get_mut()).into_iter().for_each(|i| self.host.blocks.give(i));
    }
}

/// A thread block, given back to its stub on drop.
pub struct Block {
    home: Arc<Home>,
    pub(super) index: u32,
}

impl Block {
    fn take(home: &Arc<Home>) -> Result<Self> {
        let used = home.free.lock().pop();
        let index = used.map_or_else(|| home.host.blocks.take(), Ok)?;
        Ok(Self { home: Arc::clone(home), index })
    }

    pub(super) fn va(&self) -> u64 {
        BLOCKS + u64::from(self.index) * BLOCK_LEN
    }

    fn offset(&self) -> u64 {
        CTL_BLOCKS + u64::from(self.index) * BLOCK_LEN
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.home.host.ctl.discard(self.offset(), BLOCK_LEN);
        self.home.free.lock().push(self.index);
    }
}

/// The kernel's end of a stub's mapper: lists of memory operations, one at a time.
pub struct Mapper {
    host: Arc<StubHost>,
    listener: Listener,
    list: u64,
    /// The mapper's unanswered notification, if it is idle.
    idle: Option<u64>,
}

/// Most operations of one [`Mapper::begin`].
pub const MAPPER_BATCH: usize = ((MAPPER_LEN - OPS_OFFSET) / OP_LEN) as usize;

/// One change of a guest address space's host mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapOp {
    /// Maps `len` bytes of guest memory, from byte `mem` of the memory file, at `va`.
    Map {
        /// Guest address.
        va: u64,
        /// Bytes.
        len: u64,
        /// Offset in the memory file.
        mem: u64,
        /// PROT_* bits.
        prot: u32,
        /// Make the host's page tables at once.
        populate: bool,
    },
    /// Removes mappings.
    Unmap {
        /// Guest address.
        va: u64,
        /// Bytes.
        len: u64,
    },
    /// Changes the protection of what is mapped; all of the range must be mapped.
    Protect {
        /// Guest address.
        va: u64,
        /// Bytes.
        len: u64,
        /// PROT_* bits.
        prot: u32,
    },
    /// Maps a thread block (by its index).
    MapBlock {
        /// Block number.
        index: u32,
    },
    /// Unmaps a thread block.
    UnmapBlock {
        /// Block number.
        index: u32,
    },
}

impl Block {
    /// The operation that maps the block in its stub.
    pub fn map_op(&self) -> MapOp {
        MapOp::MapBlock { index: self.index }
    }

    /// The operation that removes it.
    pub fn unmap_op(&self) -> MapOp {
        MapOp::UnmapBlock { index: self.index }
    }
}

impl MapOp {
    fn host_op(self) -> Op {
        let flags = (libc::MAP_SHARED | libc::MAP_FIXED) as u64;
        match self {
            Self::Map { va, len, mem, prot, populate } => {
                let flags = flags | if populate { libc::MAP_POPULATE as u64 } else { 0 };
                Op::new(libc::SYS_mmap, [va, len, u64::from(prot), flags, FD_MEM, mem])
            }
            Self::Unmap { va, len } => Op::new(libc::SYS_munmap, [va, len, 0, 0, 0, 0]),
            Self::Protect { va, len, prot } => {
                Op::new(libc::SYS_mprotect, [va, len, u64::from(prot), 0, 0, 0])
            }
            Self::MapBlock { index } => {
                let i = u64::from(index);
                let prot = (libc::PROT_READ | libc::PROT_WRITE) as u64;
                let off = CTL_BLOCKS + i * BLOCK_LEN;
                Op::new(libc::SYS_mmap, [BLOCKS + i * BLOCK_LEN, BLOCK_LEN, prot, flags, FD_CTL, off])
            }
            Self::UnmapBlock { index } => {
                Op::new(libc::SYS_munmap, [BLOCKS + u64::from(index) * BLOCK_LEN, BLOCK_LEN, 0, 0, 0, 0])
            }
        }
    }

    /// True if the operation stays inside guest memory (blocks are ours).
    fn in_guest(self) -> bool {
        match self {
            Self::Map { va, len, .. } | Self::Unmap { va, len } | Self::Protect { va, len, .. } => {
                va.checked_add(len).is_some_and(|end| end <= GUEST_END)
            }
            Self::MapBlock { .. } | Self::UnmapBlock { .. } => true,
        }
    }
}

impl Mapper {
    /// The descriptor that becomes readable (POLLIN) when the mapper has finished, or POLLHUP when it has died.
    pub fn fd(&self) -> &HostFd {
        self.listener.fd()
    }

    /// True if [`begin`](Self::begin) may be called.
    pub fn is_idle(&self) -> bool {
        self.idle.is_some()
    }

    /// Hands over a list of at most [`MAPPER_BATCH`] operations.
    pub fn begin(&mut self, ops: &[MapOp]) -> Result<()> {
        assert!(ops.len() <= MAPPER_BATCH && ops.iter().all(|o| o.in_guest()), "a sound batch");
        let id = self.idle.take().ok_or(Errno::EBUSY)?;
        let ops: Vec<Op> = ops.iter().map(|o| o.host_op()).collect();
        self.host.ctl.put_ops(self.list + OPS_OFFSET, self.list + 8, &ops);
        self.listener.send(id, 0)
    }

    /// After POLLIN: takes the mapper's report. The error is the first that an operation met (ENOMEM: the host is
    /// out of mappings or memory).
    pub fn finish(&mut self) -> Result<()> {
        let n = self.listener.recv()?;
        self.idle = Some(n.id);
        if n.nr as u32 != NR_NOTIFY || n.args[0] != NOTIFY_MAPPER {
            return Err(Errno::EIO);
        }
        let r = n.args[1] as i64;
        if r < 0 && r > -4096 { Err(Errno::from_raw(-(r as i32))) } else { Ok(()) }
    }
}
