//! Software GRO: merges received TCP segments of a flow into super-frames.

/// Frames of a device that wait for their successors within one poll.
#[derive(Default)]
pub struct Gro {}
