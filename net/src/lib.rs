//! The protocol stack of Kibble, sans-I/O: no tasks, no files, no host calls; time and randomness come from a trait.
//!
//! `README.md` of this folder has the map and the way to use it.
#![deny(unsafe_code)]

pub mod csum;
pub mod dev;
pub mod eth;
pub mod gro;
pub mod netns;
pub mod skb;

pub use dev::{DevStats, Features, Napi, NetDevice};
pub use netns::{Net, NetHost, NetRef};
pub use skb::{CsumStatus, ForeignBuf, GsoInfo, GsoType, Skb, SkbPool};
