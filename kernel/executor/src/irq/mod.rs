//! Waiting for the host: every operation is asked of the ring of the CPU that asks, and a completion is an interrupt.
//!
//! * [`poll_fd`], [`PollFd`]: one-shot readiness, cheap to use again and again. [`PollStream`],
//!   [`poll_standing`]: readiness that keeps coming, awaited or as interrupts.
//! * [`read_at`], [`write_at`], [`read_fd`], [`write_fd`], [`fsync`], ...: futures of one operation with owned buffers.
//! * [`RxStream`]: frames that arrive in provided slots; [`TxQueue`]: frames that leave in order, in batches.
//!
//! Dropping any of these futures cancels its operation; the operation keeps its memory until the host lets go of it.

mod file;
mod poll;
mod refusal;
mod rx;
mod stream;
mod tx;

pub use arch::irqchip::{IoMem, IoSource, MAX_SEGMENTS, RxSlot, Segments};
pub use file::{
    accept, fallocate, fsync, nop, read_at, read_fd, read_frames, read_part, send, write_at, write_fd,
    write_frames, write_part,
};
pub use poll::{PollFd, Standing, poll_fd, poll_standing};
pub use rx::{RxConfig, RxKind, RxStream};
pub use stream::PollStream;
pub use tx::{TxDone, TxKind, TxQueue};

use crate::machine::with_local;
use arch::irqchip::{Op, OpCell, OpId, Outcome, Payload, Ring, Sink};
use klib::Errno;
use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// poll(2) event bits.
pub const POLLIN: u32 = 0x1;
/// There is urgent data, or a state change.
pub const POLLPRI: u32 = 0x2;
/// Writing will not block.
pub const POLLOUT: u32 = 0x4;
/// Error condition (always reported).
pub const POLLERR: u32 = 0x8;
/// Hang-up (always reported).
pub const POLLHUP: u32 = 0x10;
/// The peer closed its writing half.
pub const POLLRDHUP: u32 = 0x2000;

/// The ring of a CPU, until the CPU ends.
pub(crate) struct RingSlot(RefCell<Option<Ring>>);

impl RingSlot {
    pub(crate) fn new(ring: Option<Ring>) -> Self {
        Self(RefCell::new(ring))
    }

    /// Calls `f` with the ring; `None` if it is gone. Not to be nested.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Ring) -> T) -> Option<T> {
        self.0.borrow_mut().as_mut().map(f)
    }

    pub(crate) fn take(&self) -> Option<Ring> {
        self.0.borrow_mut().take()
    }
}

/// Calls `f` with the ring of this CPU and the CPU's number; `None` on a foreign thread.
fn with_ring<T>(f: impl FnOnce(&mut Ring, usize) -> T) -> Option<T> {
    with_local(|l| l.and_then(|l| l.ring.with(|r| f(r, l.id))))
}

/// Hands what this CPU has queued to the host now, instead of with its next call. Before a guest thread is let go on: a
/// frame is on its way while the guest returns from the call that made it.
pub fn submit_now() {
    with_ring(|ring, _| {
        if ring.wants_flush() {
            // What goes wrong shows at the next call, which must not fail.
            let _ = ring.flush();
        }
    });
}

/// An operation under way on the ring of a CPU.
#[derive(Clone, Copy)]
struct Place {
    cpu: usize,
    id: OpId,
}

impl Place {
    /// Asks for its end, from any thread.
    fn cancel(self) {
        let Self { cpu, id } = self;
        let here = with_local(|l| l.filter(|l| l.id == cpu).and_then(|l| l.ring.with(|r| r.cancel(id))));
        if here.is_none() && crate::machine::machine().is_some() {
            crate::smp::call_on(cpu, move || {
                with_ring(|r, _| r.cancel(id));
            });
        }
    }
}

/// Future of one operation.
#[must_use = "futures do nothing unless awaited"]
struct OpFuture {
    op: Option<Op>,
    cell: Arc<OpCell>,
    place: Option<Place>,
}

impl OpFuture {
    fn new(op: Op) -> Self {
        Self { op: Some(op), cell: Arc::default(), place: None }
    }
}

impl Future for OpFuture {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(op) = self.op.take() {
            self.cell.arm(cx.waker());
            let sink = Sink::Cell(Arc::clone(&self.cell));
            self.place = with_ring(|ring, cpu| Place { cpu, id: ring.submit(op, sink) });
            return match self.place {
                Some(_) => Poll::Pending,
                None => {
                    self.cell.ignore();
                    // Not on a CPU, or the kernel is ending.
                    Poll::Ready(Outcome { result: Err(Errno::ENXIO), payload: Payload::None, more: false })
                }
            };
        }
        let done = self.cell.poll(cx.waker());
        if done.is_ready() {
            self.place = None;
        }
        done
    }
}

impl Drop for OpFuture {
    fn drop(&mut self) {
        if let Some(place) = self.place.take()
            && self.cell.ignore()
        {
            place.cancel();
        }
    }
}
