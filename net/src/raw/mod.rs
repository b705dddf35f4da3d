//! Raw sockets and ping sockets.
//!
//! Key types: [`RawSock`] (SOCK_RAW, and SOCK_DGRAM with IPPROTO_ICMP), [`RawTable`]. Below: `ip`, and the datagram queue of `udp`.
//! Lock order: socket state > raw table > receive queue; sending happens with none of them held.

mod input;
mod sock;

pub use sock::{RawSock, RawTable};
