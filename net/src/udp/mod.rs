//! UDP, and what all datagram sockets share.
//!
//! Key types: [`UdpSock`], [`UdpTable`]; [`RecvMeta`], [`SendCtl`] and the receive queue serve `raw` too.
//! Below: `ip`. Above: the socket layer. Lock order: socket state > port table > UDP table > receive queue; sending happens
//! with none of them held.

mod input;
mod queue;
mod send;
mod sock;

pub(crate) use queue::{Dgram, DgramQueue};
pub use queue::{RecvMeta, SendCtl};
pub(crate) use send::Plan;
pub use sock::{UdpSock, UdpTable};
