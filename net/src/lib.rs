//! The protocol stack of Kibble, sans-I/O: no tasks, no files, no host calls; time and randomness come from a trait.
//!
//! `README.md` of this folder has the map and the way to use it.
#![deny(unsafe_code)]

mod addr;
pub mod capture;
pub mod csum;
pub mod dev;
pub mod diag;
pub mod eth;
pub mod gro;
pub mod gso;
pub mod ip;
pub mod neigh;
pub mod netns;
pub mod poll;
pub mod proc;
pub mod raw;
pub mod route;
pub mod rtnl;
pub mod skb;
pub mod sockopt;
pub mod sysctl;
pub mod tcp;
pub mod udp;

pub use dev::{DevStats, Features, IfAddr, Napi, NetDevice};
pub use netns::{Net, NetHost, NetRef};
pub use raw::RawSock;
pub use skb::{CsumStatus, ForeignBuf, GsoInfo, GsoType, Skb, SkbPool};
pub use sockopt::{Family, Shutdown};
pub use tcp::TcpSock;
pub use udp::{RecvMeta, SendCtl, UdpSock};
