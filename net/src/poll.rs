//! poll(2) bits (asm-generic/poll.h).

/// There is data to read.
pub const IN: u32 = 0x1;
/// Urgent data.
pub const PRI: u32 = 0x2;
/// Writing will not block.
pub const OUT: u32 = 0x4;
/// An error waits.
pub const ERR: u32 = 0x8;
/// Hung up.
pub const HUP: u32 = 0x10;
/// As [`IN`].
pub const RDNORM: u32 = 0x40;
/// As [`OUT`].
pub const WRNORM: u32 = 0x100;
/// The peer will send no more.
pub const RDHUP: u32 = 0x2000;
/// All of them.
pub const ALL: u32 = IN | OUT | ERR | HUP | RDNORM | WRNORM | RDHUP;
