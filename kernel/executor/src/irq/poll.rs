//! Readiness of host descriptors.

use super::{Place, with_ring};
use arch::irqchip::{IrqHandler, Op, OpCell, Outcome, Sink};
use klib::{Errno, Result};
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

/// Waits until one of `events` (poll(2) bits) holds for `fd`; gives the events that hold. The caller keeps the
/// descriptor open meanwhile.
///
/// The future may be awaited again and again by reference, which arms it anew each time without allocating; the
/// operation goes to the ring of the CPU that polls it first.
pub fn poll_fd(fd: RawFd, events: u32) -> PollFd {
    PollFd { fd, events, cell: Arc::default(), place: None }
}

/// Future of [`poll_fd`].
#[must_use = "futures do nothing unless awaited"]
pub struct PollFd {
    fd: RawFd,
    events: u32,
    cell: Arc<OpCell>,
    place: Option<Place>,
}

impl PollFd {
    /// Arms it now, so that the operation is submitted together with whatever else is queued, and is awaited later.
    /// Wakes nobody before it is polled.
    pub fn arm(&mut self) {
        if self.place.is_none() {
            let _ = self.submit(std::task::Waker::noop());
        }
    }

    fn submit(&mut self, waker: &std::task::Waker) -> Result<()> {
        self.cell.arm(waker);
        let op = Op::Poll { fd: self.fd, events: self.events, multi: false };
        let sink = Sink::Cell(Arc::clone(&self.cell));
        self.place = with_ring(|ring, cpu| Place { cpu, id: ring.submit(op, sink) });
        if self.place.is_none() {
            self.cell = Arc::default();
            return Err(Errno::ENXIO);
        }
        Ok(())
    }
}

impl Future for PollFd {
    type Output = Result<u32>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<u32>> {
        if self.place.is_none() {
            return match self.submit(cx.waker()) {
                Ok(()) => Poll::Pending,
                Err(e) => Poll::Ready(Err(e)),
            };
        }
        let done = self.cell.poll(cx.waker());
        if done.is_ready() {
            self.place = None;
        }
        done.map(|o| o.result)
    }
}

impl Drop for PollFd {
    fn drop(&mut self) {
        if let Some(place) = self.place.take()
            && self.cell.ignore()
        {
            place.cancel();
        }
    }
}

/// Calls `f` as an interrupt handler whenever one of `events` comes up for `fd`, until the result is dropped. Edges, not
/// levels: `f` must cause the descriptor to be worked off until `EAGAIN`. It is told the events, or the error with which
/// the standing poll ended for good. `ENXIO` on a foreign thread.
pub fn poll_standing(
    fd: RawFd,
    events: u32,
    f: impl Fn(Result<u32>) + Send + Sync + 'static,
) -> Result<Standing> {
    let shared = Arc::new(StandingShared {
        fd,
        events,
        stop: AtomicBool::new(false),
        place: Mutex::new(None),
        f: Box::new(f),
    });
    shared.arm()?;
    Ok(Standing(shared))
}

/// A standing poll; dropping it ends it.
#[must_use = "dropping it ends the standing poll"]
pub struct Standing(Arc<StandingShared>);

struct StandingShared {
    fd: RawFd,
    events: u32,
    stop: AtomicBool,
    place: Mutex<Option<Place>>,
    f: Box<dyn Fn(Result<u32>) + Send + Sync>,
}

impl StandingShared {
    fn arm(self: &Arc<Self>) -> Result<()> {
        let op = Op::Poll { fd: self.fd, events: self.events, multi: true };
        let sink = Sink::Irq(Arc::new(StandingIrq(Arc::clone(self))), 0);
        let place = with_ring(|ring, cpu| Place { cpu, id: ring.submit(op, sink) }).ok_or(Errno::ENXIO)?;
        *crate::machine::lock(&self.place) = Some(place);
        // Dropped meanwhile on another CPU, which saw no operation to cancel, or the one before: do it here.
        if self.stop.load(Ordering::Acquire) {
            place.cancel();
        }
        Ok(())
    }
}

struct StandingIrq(Arc<StandingShared>);

impl IrqHandler for StandingIrq {
    fn irq(&self, _token: u64, outcome: Outcome) {
        if self.0.stop.load(Ordering::Acquire) {
            return;
        }
        (self.0.f)(outcome.result);
        // A standing poll may end at any time, for example when the completion queue overflows: arm it again.
        if !outcome.more && outcome.result.is_ok() {
            let _ = self.0.arm();
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
        if let Some(place) = crate::machine::lock(&self.0.place).take() {
            place.cancel();
        }
    }
}
