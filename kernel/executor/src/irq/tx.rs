//! Frames that leave: queued, handed to the host in batches, in order.

use super::{POLLOUT, Place, with_ring};
use crate::machine::lock;
use arch::host::fd::HostFd;
use arch::irqchip::{IoSource, IrqHandler, Op, Outcome, Payload, Sink};
use klib::{Errno, Result};
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

/// Frames handed to the host at once.
const BATCH: usize = 64;
/// send(2): do not wait.
const MSG_DONTWAIT: u32 = 0x40;
/// send(2): the whole of it, and no signal when the peer has gone.
const MSG_WHOLE: u32 = 0x100 | 0x4000;
const TOKEN_POLL: u64 = u64::MAX;

/// How frames are given to a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TxKind {
    /// write(2) or writev(2): tap devices.
    Write,
    /// send(2) or sendmsg(2): sockets.
    Send,
    /// The same on a stream socket: each frame goes out whole before the next one begins.
    Stream,
}

/// Told what became of frames; runs as an interrupt: it marks, counts, raises a softirq, no more.
pub trait TxDone: Send + Sync {
    /// A frame has left (`Ok(bytes)`; descriptors that carry frames take them whole) or was refused by the host;
    /// `ECANCELED`: the queue was dropped before its turn came.
    fn done(&self, frame: Box<dyn IoSource>, result: Result<u32>);
    /// All frames of a batch are done; there is room in the queue again. Raise NET_TX here.
    fn batch_end(&self) {}
}

/// A transmit queue. One batch is with the host at a time.
///
/// As long as the host takes every frame at once, a batch is a row of operations that do not wait, performed in order as
/// they are submitted. When the host has no room for one (`EAGAIN`), that one and whatever else came back are sent again
/// in their order as a *chain*, in which each operation begins when the one before has ended and the host waits for room
/// itself: none overtakes. Chains cost half a microsecond a frame more, so the queue goes back to rows when it has run
/// empty. (In the row in which the host first ran out of room, a later frame may have slipped through if room appeared
/// in the very microseconds of the submission.)
pub struct TxQueue(Arc<Shared>);

struct Shared {
    fd: HostFd,
    /// Further descriptors, by [`IoSource::lane`] - 1.
    lanes: Vec<HostFd>,
    kind: TxKind,
    depth: usize,
    state: Mutex<State>,
    done: Arc<dyn TxDone>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Box<dyn IoSource>>,
    /// Operations of the batch that have not completed.
    in_flight: usize,
    /// Frames of the batch that must be sent again, by their place in it.
    again: Vec<(u64, Box<dyn IoSource>)>,
    /// The host had no room: a poll is waiting for it.
    blocked: bool,
    poll: Option<Place>,
    stopped: bool,
    /// The host had no room lately: send chains.
    chained: bool,
    /// The file does not know operations that do not wait: chains for ever.
    always_chained: bool,
    /// The batch with the host is a chain.
    chain_in_flight: bool,
    /// Frames that the host had no room for at first.
    retried: u64,
}

impl State {
    /// True if a frame that came back with this error is to be sent again.
    fn comes_again(&mut self, e: Errno) -> bool {
        match e {
            // ECANCELED: one before it failed and the chain was cut.
            Errno::EAGAIN | Errno::EINTR | Errno::ECANCELED => true,
            Errno::EOPNOTSUPP if !self.chain_in_flight => {
                self.always_chained = true;
                true
            }
            _ => false,
        }
    }
}

impl TxQueue {
    /// A queue of at most `depth` frames.
    pub fn new(fd: &HostFd, kind: TxKind, depth: usize, done: Arc<dyn TxDone>) -> Self {
        Self::with_lanes(fd, Vec::new(), kind, depth, done)
    }

    /// As [`new`](Self::new), with further descriptors: a source that names lane N leaves by `lanes[N - 1]`, others by `fd`.
    pub fn with_lanes(
        fd: &HostFd,
        lanes: Vec<HostFd>,
        kind: TxKind,
        depth: usize,
        done: Arc<dyn TxDone>,
    ) -> Self {
        let (fd, depth) = (fd.clone(), depth.max(1));
        Self(Arc::new(Shared { fd, lanes, kind, depth, state: Mutex::default(), done }))
    }

    /// Queues a frame; gives it back if the queue is full. Nothing is sent before [`flush`](Self::flush).
    pub fn push(&self, frame: Box<dyn IoSource>) -> core::result::Result<(), Box<dyn IoSource>> {
        let mut state = lock(&self.0.state);
        if state.queue.len() + state.in_flight >= self.0.depth {
            return Err(frame);
        }
        state.queue.push_back(frame);
        Ok(())
    }

    /// Frames queued or with the host.
    pub fn len(&self) -> usize {
        let state = lock(&self.0.state);
        state.queue.len() + state.in_flight
    }

    /// True if nothing is queued or with the host.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Frames so far that the host had no room for at first.
    pub fn retried(&self) -> u64 {
        lock(&self.0.state).retried
    }

    /// Room for further frames.
    pub fn room(&self) -> usize {
        self.0.depth.saturating_sub(self.len())
    }

    /// Puts what is queued into the ring of this CPU; it reaches the host with the CPU's next call. If a batch is under
    /// way, its completion sends the next one. `ENXIO` on a foreign thread.
    pub fn flush(&self) -> Result<()> {
        self.0.flush()
    }
}

impl Drop for TxQueue {
    fn drop(&mut self) {
        let (poll, queue) = {
            let mut state = lock(&self.0.state);
            state.stopped = true;
            (state.poll.take(), std::mem::take(&mut state.queue))
        };
        for frame in queue {
            self.0.done.done(frame, Err(Errno::ECANCELED));
        }
        if let Some(p) = poll {
            p.cancel();
        }
    }
}

impl Shared {
    fn flush(self: &Arc<Self>) -> Result<()> {
        if crate::try_this_cpu().is_none() {
            return Err(Errno::ENXIO);
        }
        let (batch, chained): (Vec<Box<dyn IoSource>>, bool) = {
            let mut state = lock(&self.state);
            if state.in_flight > 0 || state.blocked || state.stopped || state.queue.is_empty() {
                return Ok(());
            }
            let n = state.queue.len().min(BATCH);
            state.in_flight = n;
            state.chain_in_flight = state.chained || state.always_chained || self.kind == TxKind::Stream;
            (state.queue.drain(..n).collect(), state.chain_in_flight)
        };
        let handler: Arc<dyn IrqHandler> = Arc::new(TxIrq(Arc::clone(self)));
        let ops = batch.into_iter().enumerate().map(|(i, source)| {
            let lane = source.lane().checked_sub(1).and_then(|n| self.lanes.get(n));
            let fd = lane.unwrap_or(&self.fd).clone();
            let op = match self.kind {
                TxKind::Write => Op::WriteSource { fd, source, nowait: !chained },
                TxKind::Send => Op::SendSource { fd, source, flags: if chained { 0 } else { MSG_DONTWAIT } },
                TxKind::Stream => Op::SendSource { fd, source, flags: MSG_WHOLE },
            };
            (op, Sink::Irq(Arc::clone(&handler), i as u64))
        });
        with_ring(|ring, _| {
            if chained {
                ring.submit_chain(ops);
            } else {
                for (op, sink) in ops {
                    ring.submit(op, sink);
                }
            }
        })
        .ok_or(Errno::ENXIO)
    }

    /// The host had no room though it was asked to wait (a file that cannot be polled inside an operation): wait for it.
    fn wait_room(self: &Arc<Self>) {
        let op = Op::Poll { fd: self.fd.as_raw_fd(), events: POLLOUT, multi: false };
        let sink = Sink::Irq(Arc::new(TxIrq(Arc::clone(self))), TOKEN_POLL);
        let place = with_ring(|ring, cpu| Place { cpu, id: ring.submit(op, sink) });
        let mut state = lock(&self.state);
        state.poll = place;
        if state.stopped
            && let Some(place) = state.poll.take()
        {
            drop(state);
            place.cancel();
        }
    }
}

struct TxIrq(Arc<Shared>);

impl IrqHandler for TxIrq {
    fn irq(&self, token: u64, outcome: Outcome) {
        let this = &self.0;
        if token == TOKEN_POLL {
            let mut state = lock(&this.state);
            state.blocked = false;
            state.poll = None;
            drop(state);
            let _ = this.flush();
            return;
        }
        let frame = match outcome.payload {
            Payload::Source(s) => Some(s),
            _ => None,
        };
        let mut no_room = false;
        let mut finished = None;
        let ended = {
            let mut state = lock(&this.state);
            state.in_flight = state.in_flight.saturating_sub(1);
            match (outcome.result, frame) {
                (Err(e), Some(f)) if !state.stopped && state.comes_again(e) => {
                    // Even the chain, which waits by itself, found no room: wait for it with a poll.
                    no_room = e == Errno::EAGAIN && state.chain_in_flight;
                    state.blocked |= no_room;
                    state.chained = true;
                    state.retried += 1;
                    state.again.push((token, f));
                }
                (r, f) => finished = Some((f, r)),
            }
            let ended = state.in_flight == 0;
            if ended && state.chain_in_flight && state.again.is_empty() && state.queue.is_empty() {
                state.chained = false;
            }
            if ended && !state.again.is_empty() {
                let mut again = std::mem::take(&mut state.again);
                again.sort_by_key(|&(i, _)| i);
                for (_, f) in again.into_iter().rev() {
                    state.queue.push_front(f);
                }
            }
            ended
        };
        if let Some((Some(frame), result)) = finished {
            this.done.done(frame, result);
        }
        if no_room {
            this.wait_room();
        }
        if ended {
            this.done.batch_end();
            let _ = this.flush();
        }
    }
}
