//! io_uring read as an interrupt controller: operations are interrupt lines, completions are interrupts.
//!
//! * [`Ring`]: one a CPU, made and used on one thread. [`Op`] goes in, [`Completion`] comes out.
//! * [`OpCell`] / [`IrqHandler`]: who hears of a completion: a waiting future, or an interrupt handler.
//! * [`BufRing`] / [`RxSlot`]: memory that the host fills without being asked each time.
//! * [`IoSource`]: something sent in pieces without a copy; [`IoMem`]: memory outside the heap (guest frames).
//! * [`Doorbell`]: the inter-processor interrupt.
//! * [`probe`]: what this host offers.
//!
//! Whatever memory an operation names belongs to the operation until its completion has been reaped, whatever becomes
//! of those who asked for it. An operation is Submitted (in the ring), Waiting (someone polls its cell), Ignored
//! (nobody wants the result any more; what it yields is disposed of) or Completed.
//!
//! Above: the executor, which alone owns rings. Below: `host`. Lock order: the lock of an `OpCell` or of a `BufRing` is a
//! leaf; wakers and handlers are called with none held.

mod bufring;
mod doorbell;
mod op;
pub mod probe;
mod ring;
mod source;

pub use bufring::{BufRing, RxSlot};
pub use doorbell::Doorbell;
pub use op::{Completion, IrqHandler, NR_OP_KINDS, Op, OpCell, OpId, OpKind, Outcome, Payload, Sink};
pub use ring::{Ring, RingCounters};
pub use source::{IoMem, IoSource, MAX_SEGMENTS, Segments};

#[cfg(test)]
mod tests;
