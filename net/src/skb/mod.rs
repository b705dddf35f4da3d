//! Packet buffers.
//!
//! Key types: [`Skb`] (one frame with headroom), [`SkbPool`] (where buffers come from and go back to), [`CsumStatus`] and
//! [`GsoInfo`] (what is known of its checksum and its segments), [`ForeignBuf`] (memory that belongs to a receive ring).
//! Below: nothing. Above: everything in this crate, and the drivers.
//! Lock order: the pool's free lists are leaves.

mod buf;
mod meta;
mod pool;

pub use buf::{ForeignBuf, HEADROOM, Skb};
pub use meta::{CsumStatus, GsoInfo, GsoType, PktType};
pub use pool::{LARGE_LEN, SMALL_LEN, SkbPool};
