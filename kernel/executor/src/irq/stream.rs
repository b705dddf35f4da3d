//! Readiness as a stream of events: one standing operation instead of one operation a wait.

use super::{Place, with_ring};
use crate::machine::{lock, with_local};
use arch::host::fd::HostFd;
use arch::irqchip::{IrqHandler, Op, Outcome, Sink};
use klib::{Errno, Result};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// Events after arming that may be told twice: the host looks at the level when it arms, and the wake for the same thing
/// may come later.
const UNPROVEN: u8 = 2;

/// A standing poll whose events are awaited one by one. Lives on the ring of the CPU that waits and follows its task
/// to another CPU. Dropping it ends the poll.
pub struct PollStream {
    fd: HostFd,
    events: u32,
    cell: Arc<Cell>,
    place: Option<Place>,
    unproven: u8,
    nap: bool,
}

#[derive(Default)]
struct Cell(Mutex<State>);

#[derive(Default)]
struct State {
    queue: VecDeque<Result<u32>>,
    /// The host has ended the operation.
    ended: bool,
    waker: Option<Waker>,
}

impl IrqHandler for Cell {
    fn irq(&self, _token: u64, outcome: Outcome) {
        let waker = {
            let mut state = lock(&self.0);
            state.ended |= !outcome.more;
            // A poll ends with an error when it is cancelled or has nothing to poll; it ends without one when the
            // completion queue overflows.
            state.queue.push_back(outcome.result);
            state.waker.take()
        };
        if let Some(w) = waker {
            w.wake();
        }
    }
}

impl PollStream {
    /// Events of `events` (poll(2) bits) for `fd`; nothing is asked of the host before the first wait.
    pub fn new(fd: &HostFd, events: u32) -> Self {
        Self { fd: fd.clone(), events, cell: Arc::default(), place: None, unproven: 0, nap: false }
    }

    /// Whether a wait may put the whole CPU to sleep in place if nothing else is runnable, which saves the way through
    /// the run queue. Only for a task that waits for nothing else at the same time: no time limit around it.
    pub fn set_nap(&mut self, nap: bool) {
        self.nap = nap;
    }

    /// Forgets what was told and arms anew with the next wait, which sees what holds then.
    pub fn restart(&mut self) {
        if let Some(place) = self.place.take() {
            place.cancel();
        }
        self.cell = Arc::default();
    }

    /// What holds (poll(2) bits) when next something comes up. What was told before is not told again.
    pub async fn next(&mut self) -> Result<u32> {
        loop {
            let (events, unproven) = poll_fn(|cx| self.poll_next(cx)).await?;
            if !unproven {
                return Ok(events);
            }
            // To take what is not there would wait for the next one, and the CPU with it.
            let now = u32::from(self.fd.poll_now(self.events as u16)?);
            if now != 0 {
                return Ok(now);
            }
        }
    }

    /// An event, and whether the same may have been told before.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<(u32, bool)>> {
        if let Some(event) = self.take(None) {
            return Poll::Ready(event);
        }
        let here = crate::try_this_cpu();
        if self.place.is_some_and(|p| Some(p.cpu) != here) {
            self.restart();
        }
        if self.place.is_none() {
            let op = Op::Poll { fd: self.fd.as_raw_fd(), events: self.events, multi: true };
            let cell: Arc<dyn IrqHandler> = self.cell.clone();
            self.place =
                with_ring(|ring, cpu| Place { cpu, id: ring.submit(op, Sink::Irq(Arc::clone(&cell), 0)) });
            self.unproven = UNPROVEN;
            if self.place.is_none() {
                return Poll::Ready(Err(Errno::ENXIO));
            }
        }
        if self.nap {
            // Who sleeps here need not be woken.
            lock(&self.cell.0).waker = None;
            with_local(|l| l.map(crate::cpu::nap));
        }
        match self.take(Some(cx.waker())) {
            Some(event) => Poll::Ready(event),
            None => Poll::Pending,
        }
    }

    /// The first event that is there, or notes whom to wake.
    fn take(&mut self, waker: Option<&Waker>) -> Option<Result<(u32, bool)>> {
        let mut state = lock(&self.cell.0);
        if let Some(result) = state.queue.pop_front() {
            let last = state.ended && state.queue.is_empty();
            drop(state);
            let unproven = self.unproven > 0;
            self.unproven = self.unproven.saturating_sub(1);
            if last {
                // Whatever holds is told again when it is armed again.
                self.place = None;
                self.cell = Arc::default();
            }
            return Some(result.map(|events| (events, unproven || last)));
        }
        if let Some(w) = waker
            && !state.waker.as_ref().is_some_and(|old| old.will_wake(w))
        {
            state.waker = Some(w.clone());
        }
        None
    }
}

impl Drop for PollStream {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            place.cancel();
        }
    }
}
