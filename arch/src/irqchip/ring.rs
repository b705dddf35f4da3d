//! The ring of one CPU: submission, the one waiting call, reaping.

use super::bufring::{BufRing, RxSlot};
use super::doorbell::Doorbell;
use super::op::{Completion, Held, Op, OpId, OpKind, Outcome, Payload, Sink};
use super::probe::{Features, explain};
use super::source::{VecOp, control_room};
use crate::host::from_io;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode};
use slab::Slab;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uapi::{Errno, Result};

const SQ_ENTRIES: u32 = 256;
const CQ_ENTRIES: u32 = 4096;
/// Longest chain that [`Ring::submit_chain`] takes: a chain must fit into the empty submission queue.
const MAX_CHAIN: usize = 64;

const TAG_CANCEL: u64 = u64::MAX;
const TAG_DOORBELL: u64 = u64::MAX - 1;

/// Counters of one ring since it was made.
#[derive(Clone, Copy, Default, Debug)]
pub struct RingCounters {
    /// Calls of io_uring_enter(2).
    pub enters: u64,
    /// Those that were allowed to sleep.
    pub waits: u64,
    /// Operations submitted.
    pub submitted: u64,
    /// Times the submission queue was full.
    pub sq_full: u64,
    /// Times the completion queue had overflown (nothing is lost: NODROP).
    pub cq_overflow: u64,
    /// Doorbell completions.
    pub doorbells: u64,
    /// Standing operations that had ended and were armed again by the ring itself.
    pub rearmed: u64,
    /// Completions that named no operation.
    pub spurious: u64,
}

struct Slot {
    generation: u32,
    kind: OpKind,
    sink: Sink,
    held: Held,
}

/// One CPU's io_uring. Made on the thread that uses it and never leaves it.
pub struct Ring {
    uring: IoUring,
    features: Features,
    slots: Slab<Slot>,
    generation: u32,
    /// Entries that did not fit into the submission queue.
    backlog: VecDeque<Entry>,
    bufrings: Vec<Option<Arc<BufRing>>>,
    doorbell: Option<Arc<Doorbell>>,
    counters: RingCounters,
    _not_send: PhantomData<*mut ()>,
}

/// How rings may be set up, best first: (DEFER_TASKRUN, COOP_TASKRUN, SUBMIT_ALL).
pub(super) const SETUPS: [(bool, bool, bool); 4] =
    [(true, true, true), (false, true, true), (false, false, true), (false, false, false)];

/// Sets up a ring with exactly these flags; `EINVAL` if the host does not know them.
pub(super) fn setup((defer, coop, all): (bool, bool, bool), sq: u32, cq: u32) -> std::io::Result<IoUring> {
    let mut b = IoUring::builder();
    b.setup_cqsize(cq).setup_clamp().dontfork();
    if all {
        b.setup_submit_all();
    }
    if coop {
        b.setup_coop_taskrun().setup_taskrun_flag();
    }
    if defer {
        b.setup_single_issuer().setup_defer_taskrun();
    }
    b.build(sq)
}

/// struct io_uring_getevents_arg (uapi/linux/io_uring.h).
#[repr(C)]
struct GeteventsArg {
    sigmask: u64,
    sigmask_sz: u32,
    min_wait_usec: u32,
    ts: u64,
}

const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;

impl Ring {
    /// A ring for the calling thread. `Err` is one line for the user.
    pub fn new(features: Features) -> core::result::Result<Self, String> {
        let how = (features.defer_taskrun, features.coop_taskrun, features.submit_all);
        let uring = setup(how, SQ_ENTRIES, CQ_ENTRIES).map_err(|e| explain(&e))?;
        Ok(Self {
            uring,
            features,
            slots: Slab::with_capacity(256),
            generation: 0,
            backlog: VecDeque::new(),
            bufrings: Vec::new(),
            doorbell: None,
            counters: RingCounters::default(),
            _not_send: PhantomData,
        })
    }

    /// What this host's rings can do.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Counters since the ring was made.
    pub fn counters(&self) -> RingCounters {
        self.counters
    }

    /// Operations under way.
    pub fn in_flight(&self) -> usize {
        self.slots.len()
    }

    /// Queues an operation; it reaches the host with the next [`flush`](Self::flush) or [`wait`](Self::wait). Never fails
    /// for want of room. What cannot be asked at all (too many pieces) completes with an error like anything else.
    pub fn submit(&mut self, op: Op, sink: Sink) -> OpId {
        let (id, entry) = self.prepare(op, sink);
        self.push(entry);
        id
    }

    /// Queues operations that the host must perform one after the other; each begins when the one before has ended, so
    /// frames keep their order even if one has to wait. If one fails or is cut short, those behind it complete with
    /// `ECANCELED`. Longer lists than 64 are cut into chains: order holds within each. Each link costs the host about half
    /// a microsecond: chains are for when waiting is likely.
    pub fn submit_chain(&mut self, ops: impl IntoIterator<Item = (Op, Sink)>) {
        let mut entries: Vec<Entry> = ops.into_iter().map(|(op, sink)| self.prepare(op, sink).1).collect();
        for chain in entries.chunks_mut(MAX_CHAIN) {
            let last = chain.len() - 1;
            for e in chain.iter_mut().take(last) {
                *e = e.clone().flags(Flags::IO_LINK);
            }
            // A chain ends where a submission ends: it has to go in whole.
            if self.room() < chain.len() || !self.backlog.is_empty() {
                self.counters.sq_full += 1;
                let _ = self.flush();
            }
            if self.backlog.is_empty() && self.room() >= chain.len() {
                // SAFETY: what the entries point to is owned by their slots until their completions are reaped.
                let pushed = unsafe { self.uring.submission().push_multiple(chain) };
                debug_assert!(pushed.is_ok(), "room was checked");
            } else {
                self.backlog.extend(chain.iter().cloned());
            }
        }
    }

    fn room(&mut self) -> usize {
        let sq = self.uring.submission();
        sq.capacity() - sq.len()
    }

    fn prepare(&mut self, op: Op, sink: Sink) -> (OpId, Entry) {
        let kind = op.kind();
        self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
        self.counters.submitted += 1;
        let (entry, held) = build(op);
        let index = self.slots.insert(Slot { generation: self.generation, kind, sink, held });
        let id = OpId { index: index as u32, generation: self.generation };
        (id, entry.user_data(id.user_data()))
    }

    fn push(&mut self, entry: Entry) {
        if self.backlog.is_empty() {
            // SAFETY: what the entry points to is owned by its slot until its completion is reaped.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.counters.sq_full += 1;
            let _ = self.flush();
            // SAFETY: as above.
            if self.backlog.is_empty() && unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    fn refill_from_backlog(&mut self) {
        let mut sq = self.uring.submission();
        while let Some(entry) = self.backlog.pop_front() {
            // SAFETY: what the entry points to is owned by its slot until its completion is reaped.
            if unsafe { sq.push(&entry) }.is_err() {
                self.backlog.push_front(entry);
                break;
            }
        }
    }

    /// Asks the host to give up on an operation. Its completion comes all the same, usually with `ECANCELED`.
    pub fn cancel(&mut self, id: OpId) {
        if self.slots.get(id.index as usize).is_some_and(|s| s.generation == id.generation) {
            self.push(opcode::AsyncCancel::new(id.user_data()).build().user_data(TAG_CANCEL));
        }
    }

    /// Lets `doorbell` end this ring's waits.
    pub fn listen(&mut self, doorbell: &Arc<Doorbell>) {
        self.doorbell = Some(Arc::clone(doorbell));
        self.arm_doorbell();
    }

    fn arm_doorbell(&mut self) {
        if let Some(d) = &self.doorbell {
            let poll = opcode::PollAdd::new(Fd(d.raw()), libc::POLLIN as u32).multi(true);
            self.push(poll.build().user_data(TAG_DOORBELL));
        }
    }

    /// Registers a ring of receive slots: `entries` (a power of two) of `slot_size` bytes, of which the host leaves the
    /// first `headroom` alone. `EOPNOTSUPP` on a host without them.
    pub fn new_bufring(&mut self, entries: u16, slot_size: usize, headroom: usize) -> Result<Arc<BufRing>> {
        let index = self.bufrings.iter().position(Option::is_none).unwrap_or(self.bufrings.len());
        let group = u16::try_from(index).map_err(|_| Errno::ENOSPC)?;
        let bufs = Arc::new(BufRing::new(group, entries, slot_size, headroom)?);
        // SAFETY: the ring memory lives until `free_bufring` or the drop of this ring, both of which unregister first.
        let done = unsafe {
            self.uring.submitter().register_buf_ring_with_flags(bufs.ring_addr(), bufs.entries(), group, 0)
        };
        done.map_err(|e| match e.raw_os_error() {
            Some(libc::EINVAL) => Errno::EOPNOTSUPP,
            _ => from_io(&e),
        })?;
        if index == self.bufrings.len() {
            self.bufrings.push(None);
        }
        if let Some(place) = self.bufrings.get_mut(index) {
            *place = Some(Arc::clone(&bufs));
        }
        Ok(bufs)
    }

    /// Takes a ring of slots out of service. Every operation that uses it must have ended.
    pub fn free_bufring(&mut self, bufs: &Arc<BufRing>) {
        let group = bufs.group();
        let ours = self.bufrings.get(usize::from(group)).and_then(Option::as_ref);
        if ours.is_some_and(|b| Arc::ptr_eq(b, bufs))
            && self.uring.submitter().unregister_buf_ring(group).is_ok()
        {
            self.bufrings[usize::from(group)] = None;
        }
    }

    /// True if a call of the host is due: entries are queued, completions overflowed, or deferred work is waiting.
    pub fn wants_flush(&mut self) -> bool {
        if !self.backlog.is_empty() {
            return true;
        }
        let sq = self.uring.submission();
        !sq.is_empty() || sq.taskrun() || sq.cq_overflow()
    }

    /// True if completions can be reaped without calling the host.
    pub fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// Hands everything queued to the host without waiting, and lets it do deferred completion work.
    pub fn flush(&mut self) -> Result<()> {
        loop {
            self.refill_from_backlog();
            let before = self.backlog.len();
            self.enter(0, None)?;
            if self.backlog.is_empty() || before == 0 {
                return Ok(());
            }
        }
    }

    /// Hands everything queued to the host and waits for a completion, at most `timeout` long.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<()> {
        if !self.backlog.is_empty() {
            return self.flush();
        }
        self.counters.waits += 1;
        self.enter(1, timeout)
    }

    fn enter(&mut self, want: u32, timeout: Option<Duration>) -> Result<()> {
        self.counters.enters += 1;
        let queued = {
            let sq = self.uring.submission();
            if sq.cq_overflow() {
                self.counters.cq_overflow += 1;
            }
            sq.len() as u32
        };
        let ts = timeout.map(io_uring::types::Timespec::from);
        let arg = GeteventsArg {
            sigmask: 0,
            sigmask_sz: 0,
            min_wait_usec: 0,
            ts: ts.as_ref().map_or(0, |t| std::ptr::from_ref(t) as u64),
        };
        let (flags, arg) = match ts {
            Some(_) => (ENTER_GETEVENTS | ENTER_EXT_ARG, Some(&arg)),
            None => (ENTER_GETEVENTS, None),
        };
        // SAFETY: `arg` and the timespec it names are live locals of the layout that EXT_ARG asks for; what the queued
        // entries point to is owned by their slots.
        let done = unsafe { self.uring.submitter().enter(queued, want, flags, arg) };
        match done {
            Ok(_) => Ok(()),
            Err(e) => match e.raw_os_error() {
                // Time is up, a signal came, or the completion queue must be reaped first: all are fine.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(from_io(&e)),
            },
        }
    }

    /// Takes up to `max` completions. They are told to nobody yet: see [`Completion::deliver`].
    pub fn reap(&mut self, out: &mut Vec<Completion>, max: usize) {
        let mut doorbell_ended = false;
        let mut cq = self.uring.completion();
        for cqe in (&mut cq).take(max) {
            let (data, res, flags) = (cqe.user_data(), cqe.result(), cqe.flags());
            match data {
                TAG_CANCEL => continue,
                TAG_DOORBELL => {
                    self.counters.doorbells += 1;
                    doorbell_ended |= !cqueue::more(flags);
                    continue;
                }
                _ => {}
            }
            let id = OpId::from_user_data(data);
            let index = id.index as usize;
            let Some(slot) = self.slots.get(index).filter(|s| s.generation == id.generation) else {
                self.counters.spurious += 1;
                continue;
            };
            let more = cqueue::more(flags);
            let frame = match (&slot.held, cqueue::buffer_select(flags)) {
                (Held::Slots { bufs, .. }, Some(bid)) => bufs.take(bid, res.max(0) as usize),
                (Held::MsgSlots { bufs, .. }, Some(bid)) => {
                    bufs.take(bid, res.max(0) as usize).and_then(RxSlot::strip_msg)
                }
                _ => None,
            };
            let (sink, held, kind) = if more {
                (slot.sink.clone(), Held::None, slot.kind)
            } else {
                let slot = self.slots.remove(index);
                (slot.sink, slot.held, slot.kind)
            };
            let result = u32::try_from(res).map_err(|_| Errno::from_raw(res.wrapping_neg()));
            let payload = match (frame, held) {
                (Some(frame), _) => Payload::Slot(frame),
                (None, Held::Buf { buf, .. }) => Payload::Buf(buf),
                (None, Held::Vec(op)) => Payload::Source(op.into_source()),
                (None, Held::NewFd { .. }) if res >= 0 => {
                    // SAFETY: the host has just made this descriptor for this operation; nobody else knows it.
                    Payload::Fd(unsafe { OwnedFd::from_raw_fd(res) })
                }
                _ => Payload::None,
            };
            out.push(Completion { sink, outcome: Outcome { result, payload, more }, kind });
        }
        drop(cq);
        if doorbell_ended {
            self.counters.rearmed += 1;
            self.arm_doorbell();
        }
    }

    /// Cancels everything and waits until the host has let go of all memory, at most two seconds. True if it has.
    fn drain(&mut self) -> bool {
        let until = Instant::now() + Duration::from_secs(2);
        let mut out = Vec::new();
        while !self.slots.is_empty() && Instant::now() < until {
            let ids: Vec<OpId> =
                self.slots.iter().map(|(i, s)| OpId { index: i as u32, generation: s.generation }).collect();
            for id in ids {
                self.cancel(id);
            }
            if self.wait(Some(Duration::from_millis(20))).is_err() {
                break;
            }
            self.reap(&mut out, usize::MAX);
            // Dropped, not delivered: nobody is left to hear of it.
            out.clear();
        }
        self.slots.is_empty()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.drain() {
            // Memory that the host may still write to must not be freed: leak it.
            std::mem::forget(std::mem::take(&mut self.slots));
            std::mem::forget(std::mem::take(&mut self.bufrings));
        }
    }
}

/// The entry for an operation, and what must live as long as it.
fn build(op: Op) -> (Entry, Held) {
    match op {
        Op::Nop => (opcode::Nop::new().build(), Held::None),
        Op::Poll { fd, events, multi } => {
            (opcode::PollAdd::new(Fd(fd), events).multi(multi).build(), Held::None)
        }
        Op::Read { fd, offset, mut buf, start } => {
            let part = buf.get_mut(start..).unwrap_or_default();
            let e = opcode::Read::new(Fd(fd.as_raw_fd()), part.as_mut_ptr(), clamp(part.len()))
                .offset(offset)
                .build();
            (e, Held::Buf { buf, _fd: fd })
        }
        Op::Write { fd, offset, buf, start } => {
            let part = buf.get(start..).unwrap_or_default();
            let e = opcode::Write::new(Fd(fd.as_raw_fd()), part.as_ptr(), clamp(part.len()))
                .offset(offset)
                .build();
            (e, Held::Buf { buf, _fd: fd })
        }
        Op::ReadMem { fd, offset, mem } => {
            let e = opcode::Read::new(Fd(fd.as_raw_fd()), mem.ptr(), clamp(mem.len())).offset(offset).build();
            (e, Held::Mem { _mem: mem, _fd: fd })
        }
        Op::WriteMem { fd, offset, mem } => {
            let e =
                opcode::Write::new(Fd(fd.as_raw_fd()), mem.ptr(), clamp(mem.len())).offset(offset).build();
            (e, Held::Mem { _mem: mem, _fd: fd })
        }
        Op::WriteSource { fd, source, nowait } => {
            let rw = if nowait { libc::RWF_NOWAIT } else { 0 };
            let raw = Fd(fd.as_raw_fd());
            let Some(op) = VecOp::new(source, fd) else { return refused() };
            let e = match op.single() {
                Some((ptr, len)) => opcode::Write::new(raw, ptr, len).offset(u64::MAX).rw_flags(rw).build(),
                None => {
                    let (iov, nr) = op.iov();
                    opcode::Writev::new(raw, iov, nr).offset(u64::MAX).rw_flags(rw).build()
                }
            };
            (e, Held::Vec(op))
        }
        Op::SendSource { fd, source, flags } => {
            let raw = Fd(fd.as_raw_fd());
            let Some(op) = VecOp::new(source, fd) else { return refused() };
            let e = match op.single() {
                Some((ptr, len)) => opcode::Send::new(raw, ptr, len).flags(flags as i32).build(),
                None => opcode::SendMsg::new(raw, op.msg()).flags(flags).build(),
            };
            (e, Held::Vec(op))
        }
        Op::ReadSlot { fd, bufs, multi } => {
            let raw = Fd(fd.as_raw_fd());
            // Length 0: as much as the slot takes. Offset -1: the stream's own position.
            let e = if multi {
                opcode::ReadMulti::new(raw, 0, bufs.group()).offset(u64::MAX).build()
            } else {
                let e =
                    opcode::Read::new(raw, std::ptr::null_mut(), 0).offset(u64::MAX).buf_group(bufs.group());
                e.build().flags(Flags::BUFFER_SELECT)
            };
            (e, Held::Slots { bufs, _fd: fd })
        }
        Op::RecvSlot { fd, bufs, multi } => {
            let raw = Fd(fd.as_raw_fd());
            let e = if multi {
                opcode::RecvMulti::new(raw, bufs.group()).build()
            } else {
                let e = opcode::Recv::new(raw, std::ptr::null_mut(), 0).buf_group(bufs.group());
                e.build().flags(Flags::BUFFER_SELECT)
            };
            (e, Held::Slots { bufs, _fd: fd })
        }
        Op::RecvMsgSlot { fd, bufs } => {
            let msg = control_room();
            let e = opcode::RecvMsgMulti::new(Fd(fd.as_raw_fd()), &raw const *msg, bufs.group()).build();
            (e, Held::MsgSlots { bufs, _msg: msg, _fd: fd })
        }
        Op::Fsync { fd, data_only } => {
            let mut e = opcode::Fsync::new(Fd(fd.as_raw_fd()));
            if data_only {
                e = e.flags(io_uring::types::FsyncFlags::DATASYNC);
            }
            (e.build(), Held::Fd { _fd: fd })
        }
        Op::Fallocate { fd, mode, offset, len } => {
            let e = opcode::Fallocate::new(Fd(fd.as_raw_fd()), len).mode(mode).offset(offset).build();
            (e, Held::Fd { _fd: fd })
        }
        Op::Accept { fd } => {
            let null = std::ptr::null_mut();
            let e = opcode::Accept::new(Fd(fd.as_raw_fd()), null, null.cast())
                .flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
                .build();
            (e, Held::NewFd { _fd: fd })
        }
    }
}

/// An operation that cannot be asked: a poll of no file, which the host refuses with `EBADF`.
fn refused() -> (Entry, Held) {
    (opcode::PollAdd::new(Fd(-1), 0).build(), Held::None)
}

/// Lengths are 32 bits and the host moves at most 0x7ffff000 bytes at once (read(2)); the rest is a short count.
fn clamp(len: usize) -> u32 {
    len.min(0x7fff_f000) as u32
}
