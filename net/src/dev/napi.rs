//! Polled reception: the contract between a driver's softirq and the stack.
//!
//! A completion marks the device and raises the driver's softirq; it does no work. The softirq polls with a budget and
//! hands what it found to [`Net::rx`](crate::Net::rx) in one batch, so that acknowledgements leave once a batch. If the
//! budget is used up the driver stays scheduled and is polled again after others had their turn.

/// Frames a poll may deliver before others have their turn (Linux: `dev_weight`).
pub const NAPI_WEIGHT: usize = 64;

/// A source of received frames.
pub trait Napi: Send + Sync {
    /// Delivers at most `budget` frames to the stack and returns how many. Fewer than `budget` means: nothing is left,
    /// interrupts are on again.
    fn poll(&self, budget: usize) -> usize;
}
