//! Routing: where a packet goes next.
//!
//! Key types: [`Fib`] (routes by longest prefix), [`FibEntry`], [`Route`] (the answer). Below: `dev`. Above: `ip`, sockets, `rtnl`.
//! Lock order: the namespace's `fib` lock is taken after no other lock of the stack but a flow's; devices are looked up
//! after it has been dropped.

mod fib;
mod pmtu;
pub use fib::{Fib, FibEntry, Prefix, Route, RouteKind};
pub use pmtu::PmtuCache;
