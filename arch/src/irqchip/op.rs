//! One operation: what is asked, who hears of its completion, what comes back.

use super::bufring::{BufRing, RxSlot};
use super::source::{IoMem, IoSource, VecOp};
use crate::host::fd::HostFd;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use uapi::{Errno, Result};

/// What the ring is asked to do. Offsets are bytes; `u64::MAX` means "the file's own position", as streams have.
#[allow(missing_docs, reason = "the fields are the arguments of the host call that the variant names")]
pub enum Op {
    /// Nothing: completes at once.
    Nop,
    /// Waits until one of the poll(2) `events` holds; `multi` keeps it standing. The result is the events.
    Poll { fd: RawFd, events: u32, multi: bool },
    /// Reads into `buf[start..]`; gives the buffer back.
    Read { fd: HostFd, offset: u64, buf: Vec<u8>, start: usize },
    /// Writes `buf[start..]`; gives the buffer back.
    Write { fd: HostFd, offset: u64, buf: Vec<u8>, start: usize },
    /// Reads into guest frames.
    ReadMem { fd: HostFd, offset: u64, mem: IoMem },
    /// Writes guest frames.
    WriteMem { fd: HostFd, offset: u64, mem: IoMem },
    /// Writes the pieces of `source` with one writev(2). With `nowait` it fails with `EAGAIN` instead of waiting for room
    /// (`EOPNOTSUPP` if the file cannot say).
    WriteSource { fd: HostFd, source: Box<dyn IoSource>, nowait: bool },
    /// Sends the pieces of `source` with one sendmsg(2); `flags` as there.
    SendSource { fd: HostFd, source: Box<dyn IoSource>, flags: u32 },
    /// Reads frames into provided slots; `multi` keeps it standing (hosts since 6.7).
    ReadSlot { fd: HostFd, bufs: Arc<BufRing>, multi: bool },
    /// Receives frames into provided slots; `multi` keeps it standing (hosts since 6.0).
    RecvSlot { fd: HostFd, bufs: Arc<BufRing>, multi: bool },
    /// Receives datagrams into provided slots with what UDP_GRO says of them ([`RxSlot::segment`]); always standing.
    RecvMsgSlot { fd: HostFd, bufs: Arc<BufRing> },
    /// fsync(2), or fdatasync(2) if `data_only`.
    Fsync { fd: HostFd, data_only: bool },
    /// fallocate(2); `mode` holds FALLOC_FL_ bits.
    Fallocate { fd: HostFd, mode: i32, offset: u64, len: u64 },
    /// Accepts a connection; yields a descriptor, which is closed if nobody wants it any more.
    Accept { fd: HostFd },
}

/// Kinds of operations, for counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum OpKind {
    /// No operation.
    Nop,
    /// One-shot and standing polls.
    Poll,
    /// Reads of files and streams.
    Read,
    /// Writes of files and streams.
    Write,
    /// Frames sent.
    Tx,
    /// Frames received.
    Rx,
    /// Syncs and allocations.
    Sync,
    /// Accepted connections.
    Accept,
}

/// Number of [`OpKind`]s.
pub const NR_OP_KINDS: usize = 8;

impl OpKind {
    /// Name for statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nop => "nop",
            Self::Poll => "poll",
            Self::Read => "read",
            Self::Write => "write",
            Self::Tx => "tx",
            Self::Rx => "rx",
            Self::Sync => "sync",
            Self::Accept => "accept",
        }
    }

    /// All kinds in counting order.
    pub const ALL: [Self; NR_OP_KINDS] =
        [Self::Nop, Self::Poll, Self::Read, Self::Write, Self::Tx, Self::Rx, Self::Sync, Self::Accept];
}

impl Op {
    /// Its kind.
    pub fn kind(&self) -> OpKind {
        match self {
            Self::Nop => OpKind::Nop,
            Self::Poll { .. } => OpKind::Poll,
            Self::Read { .. } | Self::ReadMem { .. } => OpKind::Read,
            Self::Write { .. } | Self::WriteMem { .. } => OpKind::Write,
            Self::WriteSource { .. } | Self::SendSource { .. } => OpKind::Tx,
            Self::ReadSlot { .. } | Self::RecvSlot { .. } | Self::RecvMsgSlot { .. } => OpKind::Rx,
            Self::Fsync { .. } | Self::Fallocate { .. } => OpKind::Sync,
            Self::Accept { .. } => OpKind::Accept,
        }
    }
}

/// Names an operation under way: slab index and generation. Stale names are harmless.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl OpId {
    pub(super) fn user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_user_data(data: u64) -> Self {
        Self { index: data as u32, generation: (data >> 32) as u32 }
    }
}

/// What an operation owned or yields.
#[derive(Default)]
pub enum Payload {
    /// Nothing.
    #[default]
    None,
    /// The buffer of a read or write.
    Buf(Vec<u8>),
    /// What was sent.
    Source(Box<dyn IoSource>),
    /// A received frame.
    Slot(RxSlot),
    /// A new descriptor.
    Fd(OwnedFd),
}

/// The end (or, for a standing operation, one event) of an operation.
pub struct Outcome {
    /// Byte count, poll events, or the error.
    pub result: Result<u32>,
    /// What comes back.
    pub payload: Payload,
    /// True if the operation still stands and will complete again.
    pub more: bool,
}

/// An interrupt handler: runs on the CPU of the ring while completions are reaped. It must not block, wait or log; it
/// marks, raises a softirq or wakes.
pub trait IrqHandler: Send + Sync {
    /// `token` is what was given with the operation.
    fn irq(&self, token: u64, outcome: Outcome);
}

/// Who hears of a completion.
#[derive(Clone)]
pub enum Sink {
    /// A future that waits on a cell.
    Cell(Arc<OpCell>),
    /// A handler, with a token that tells it which operation it was.
    Irq(Arc<dyn IrqHandler>, u64),
    /// Nobody.
    Ignore,
}

enum CellState {
    Idle,
    Waiting(Waker),
    Completed(Outcome),
    Ignored,
}

/// Where a future and the ring meet. Made once, used for one operation after another.
pub struct OpCell {
    state: Mutex<CellState>,
}

impl Default for OpCell {
    fn default() -> Self {
        Self { state: Mutex::new(CellState::Idle) }
    }
}

impl OpCell {
    fn lock(&self) -> MutexGuard<'_, CellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that an operation is about to be submitted for this cell.
    pub fn arm(&self, waker: &Waker) {
        let mut state = self.lock();
        debug_assert!(matches!(*state, CellState::Idle), "a cell serves one operation at a time");
        *state = CellState::Waiting(waker.clone());
    }

    /// The outcome, if the operation has completed (the cell is then idle again); otherwise notes whom to wake.
    pub fn poll(&self, waker: &Waker) -> Poll<Outcome> {
        let mut state = self.lock();
        match &*state {
            CellState::Completed(_) => match std::mem::replace(&mut *state, CellState::Idle) {
                CellState::Completed(outcome) => Poll::Ready(outcome),
                _ => unreachable!("matched above, under the lock"),
            },
            CellState::Waiting(old) if old.will_wake(waker) => Poll::Pending,
            CellState::Waiting(_) => {
                *state = CellState::Waiting(waker.clone());
                Poll::Pending
            }
            CellState::Idle | CellState::Ignored => {
                Poll::Ready(Outcome { result: Err(Errno::EINVAL), payload: Payload::None, more: false })
            }
        }
    }

    /// Nobody wants the result any more. True if the operation is still under way (and is worth a cancel); a result
    /// that is there already is dropped, which closes a descriptor and returns a slot.
    pub fn ignore(&self) -> bool {
        let old = std::mem::replace(&mut *self.lock(), CellState::Ignored);
        matches!(old, CellState::Waiting(_))
    }

    fn complete(&self, outcome: Outcome) {
        let mut state = self.lock();
        let old = match *state {
            CellState::Ignored => {
                // What it yields is disposed of outside the lock.
                drop(state);
                return drop(outcome);
            }
            _ => std::mem::replace(&mut *state, CellState::Completed(outcome)),
        };
        drop(state);
        if let CellState::Waiting(waker) = old {
            waker.wake();
        }
    }
}

/// A reaped completion, not yet told to anyone.
pub struct Completion {
    pub(super) sink: Sink,
    pub(super) outcome: Outcome,
    /// Kind of the operation.
    pub kind: OpKind,
}

impl Completion {
    /// Tells whoever waits. Call with no lock held and the ring not borrowed: handlers may submit.
    pub fn deliver(self) {
        match self.sink {
            Sink::Cell(cell) => cell.complete(self.outcome),
            Sink::Irq(handler, token) => handler.irq(token, self.outcome),
            Sink::Ignore => {}
        }
    }
}

/// What the ring keeps while an operation is under way.
pub(super) enum Held {
    None,
    /// Only the descriptor.
    Fd {
        _fd: HostFd,
    },
    /// A heap buffer.
    Buf {
        buf: Vec<u8>,
        _fd: HostFd,
    },
    /// Memory outside the heap.
    Mem {
        _mem: IoMem,
        _fd: HostFd,
    },
    /// A source in pieces.
    Vec(Box<VecOp>),
    /// A group of slots.
    Slots {
        bufs: Arc<BufRing>,
        _fd: HostFd,
    },
    /// A group of slots in which each datagram lies behind what recvmsg(2) says of it.
    MsgSlots {
        bufs: Arc<BufRing>,
        _msg: Box<libc::msghdr>,
        _fd: HostFd,
    },
    /// The result is a new descriptor.
    NewFd {
        _fd: HostFd,
    },
}
