//! Frames that leave: queued, handed to the host in batches, in order.

use super::refusal::Refusal;
use super::{POLLOUT, Place, with_ring};
use crate::hrtimer::Hrtimer;
use crate::machine::lock;
use arch::host::fd::HostFd;
use arch::irqchip::{IoSource, IrqHandler, Op, Outcome, Payload, Sink};
use klib::{Errno, Result};
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, Weak};

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
///
/// Where the host has no room and no poll can tell when it will (`ENOBUFS`: the queue of its interface is full, or memory is
/// short), frames are tried again after a while. Such a queue sends chains from then on, for it will happen again.
pub struct TxQueue(Arc<Shared>);

struct Shared {
    fd: HostFd,
    /// Further descriptors, by [`IoSource::lane`] - 1.
    lanes: Vec<HostFd>,
    kind: TxKind,
    depth: usize,
    state: Mutex<State>,
    /// Ends a wait whose end no poll knows.
    timer: Hrtimer,
    done: Arc<dyn TxDone>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Box<dyn IoSource>>,
    /// Operations of the batch that have not completed.
    in_flight: usize,
    /// Frames of the batch that must be sent again, by their place in it.
    again: Vec<(u64, Box<dyn IoSource>)>,
    /// The host had no room: a poll or the timer is waiting for it.
    blocked: bool,
    poll: Option<Place>,
    refusal: Refusal,
    /// A frame of the batch was refused with `ENOBUFS`.
    refused: bool,
    stopped: bool,
    /// The host had no room lately: send chains.
    chained: bool,
    /// The file does not know operations that do not wait, or refuses frames without a word when: chains for ever.
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
            Errno::ENOBUFS => {
                self.always_chained = true;
                !self.refusal.is_final(crate::time::now())
            }
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
        Self(Arc::new_cyclic(|me: &Weak<Shared>| {
            let me = Weak::clone(me);
            let timer = Hrtimer::new(move || {
                if let Some(this) = me.upgrade() {
                    this.unblock();
                }
            });
            Shared { fd, lanes, kind, depth, state: Mutex::default(), timer, done }
        }))
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

    /// A wait for room is over.
    fn unblock(self: &Arc<Self>) {
        {
            let mut state = lock(&self.state);
            state.blocked = false;
            state.poll = None;
        }
        let _ = self.flush();
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
            return this.unblock();
        }
        let frame = match outcome.payload {
            Payload::Source(s) => Some(s),
            _ => None,
        };
        let mut no_room = false;
        let mut pause = None;
        let mut finished = None;
        let ended = {
            let mut state = lock(&this.state);
            state.in_flight = state.in_flight.saturating_sub(1);
            match (outcome.result, frame) {
                (Err(e), Some(f)) if !state.stopped && state.comes_again(e) => {
                    // Even the chain, which waits by itself, found no room: wait for it with a poll.
                    no_room = e == Errno::EAGAIN && state.chain_in_flight;
                    state.blocked |= no_room || e == Errno::ENOBUFS;
                    state.refused |= e == Errno::ENOBUFS;
                    state.chained = true;
                    state.retried += 1;
                    state.again.push((token, f));
                }
                (r, f) => {
                    if r != Err(Errno::ENOBUFS) {
                        state.refusal = Refusal::default();
                    }
                    finished = Some((f, r));
                }
            }
            let ended = state.in_flight == 0;
            if ended && std::mem::take(&mut state.refused) {
                pause = Some(state.refusal.pause(crate::time::now()));
            }
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
        if let Some(t) = pause {
            this.timer.arm(crate::time::now() + t);
        }
        if ended {
            this.done.batch_end();
            let _ = this.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arch::host::fd::socketpair;
    use std::time::{Duration, Instant};

    #[derive(Default)]
    struct Done(Mutex<Vec<Result<u32>>>);
    impl TxDone for Done {
        fn done(&self, _frame: Box<dyn IoSource>, result: Result<u32>) {
            lock(&self.0).push(result);
        }
    }

    /// Plays a host that answers a batch of frames with these results, instead of asking it.
    fn answer(tx: &TxQueue, frames: u8, chained: bool, result: impl Fn(u8) -> Result<u32>) {
        let batch: Vec<_> = {
            let mut state = lock(&tx.0.state);
            let n = usize::from(frames).min(state.queue.len());
            (state.in_flight, state.chain_in_flight) = (n, chained);
            state.queue.drain(..n).collect()
        };
        for (i, f) in batch.into_iter().enumerate() {
            let outcome = Outcome { result: result(i as u8), payload: Payload::Source(f), more: false };
            TxIrq(Arc::clone(&tx.0)).irq(i as u64, outcome);
        }
    }

    async fn refused_for_a_while() {
        let (a, b) = socketpair(true).expect("socketpair");
        let done = Arc::new(Done::default());
        let tx = TxQueue::new(&a, TxKind::Send, 100, done.clone());
        for i in 0..6u8 {
            assert!(tx.push(Box::new(vec![i; 9])).is_ok());
        }
        // Two have left, the third finds no room, the others are cut off.
        answer(&tx, 6, true, |i| match i {
            0 | 1 => Ok(9),
            2 => Err(Errno::ENOBUFS),
            _ => Err(Errno::ECANCELED),
        });
        assert_eq!((tx.len(), tx.retried()), (4, 4), "nothing is lost");
        assert_eq!(*lock(&done.0), [Ok(9), Ok(9)], "nothing is an error");
        tx.flush().expect("flush");
        assert_eq!(lock(&tx.0.state).in_flight, 0, "it waits");
        let end = Instant::now() + Duration::from_secs(20);
        while !tx.is_empty() {
            assert!(Instant::now() < end, "waited 20 s for {} frames", tx.len());
            crate::time::sleep(Duration::from_millis(1)).await;
        }
        for i in 2..6u8 {
            let mut buf = [0; 20];
            assert_eq!((b.read(&mut buf), buf[0]), (Ok(9), i), "in order");
        }
        assert_eq!(*lock(&done.0), [Ok(9); 6]);
        assert_eq!(lock(&tx.0.state).refusal, Refusal::default(), "forgotten");
    }

    #[test]
    fn a_full_queue_of_the_host_is_waiting() {
        let code = crate::start(crate::Config { ncpus: 1, pin: false }, || {
            crate::spawn(async {
                refused_for_a_while().await;
                crate::shutdown(0);
            });
        });
        assert_eq!(code, 0);
    }
}
