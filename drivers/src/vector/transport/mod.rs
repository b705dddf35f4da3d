//! Ways to the host. A transport declares its keys, opens descriptors and says how frames look on them; everything else
//! (batches, queues, cutting and merging of super-frames, statistics) is the driver's, once for all.
//!
//! Adding one: a file here with a `static KIND: Kind`, and its line in [`KINDS`].
//!
//! * [`Kind`]: name, keys and parser. [`Plan`]: a checked set of options, which opens. [`Transport`]: what is open.
//! * [`Lane`]: a pair of ends; several of them are queues, or ports of a tunnel.

mod bess;
mod common;
mod fd;
mod geneve;
mod gre;
mod hybrid;
mod l2tpv3;
mod raw;
mod socket;
mod stream;
mod tap;
mod tunnel;
mod vde;
mod vxlan;

use super::config::Mac;
use super::header::Header;
use super::options::{Key, Options};
use arch::host::fd::HostFd;
use arch::host::packet::Insn;
use executor::irq::{RxKind, TxKind};
use net::Features;
use std::fmt::Debug;
use std::sync::Arc;
use uapi::{Errno, Result};

/// Every transport.
pub static KINDS: &[&Kind] = &[
    &tap::KIND,
    &hybrid::KIND,
    &raw::KIND,
    &gre::KIND,
    &l2tpv3::KIND,
    &vxlan::KIND,
    &vxlan::GPE_KIND,
    &geneve::KIND,
    &fd::KIND,
    &bess::KIND,
    &vde::KIND,
    &stream::KIND,
];

/// A transport as the command line knows it.
#[derive(Debug)]
pub struct Kind {
    /// As `transport=` names it.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// Its own keys, besides the common ones.
    pub keys: &'static [Key],
    /// Checks the options against each other; their types have been checked. `Err` is one line without the device's name.
    pub parse: fn(&Options) -> std::result::Result<Arc<dyn Plan>, String>,
}

/// What the driver tells a transport that is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Unit of the device.
    pub unit: u32,
    /// Its link-layer address.
    pub mac: Mac,
    /// Frames in a queue.
    pub depth: usize,
    /// Largest inner IP packet at first.
    pub mtu: u32,
    /// `gro=1`.
    pub gro: bool,
    /// CPUs that there will be.
    pub cpus: usize,
}

/// Options of a transport, checked; opens it.
pub trait Plan: Debug + Send + Sync {
    /// Opens the descriptors. `Err` is one line for the user, without the device's name.
    fn open(&self, setup: &Setup) -> std::result::Result<Box<dyn Transport>, String>;
}

/// How frames follow one another on a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// A message is a frame behind its header.
    Messages,
    /// A byte stream; in front of each frame its length, four bytes, big-endian. Headers are not asked on receive.
    Stream,
}

/// Where frames come from.
pub struct RxEnd {
    /// A descriptor in blocking mode.
    pub fd: HostFd,
    /// Read or receive; with `RecvMsg` a message may be several datagrams, which are taken apart before the header looks.
    pub kind: RxKind,
    /// What stands in front of frames.
    pub header: Arc<dyn Header>,
}

/// Several frames may leave with one sendmsg(2), cut by the host into datagrams of equal size (UDP_SEGMENT, udp(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Train {
    /// Most datagrams in one call (the host's limit is 64).
    pub frames: usize,
    /// Most bytes in one call: 65507 over IPv4, 65487 over IPv6.
    pub bytes: usize,
}

/// Where frames go.
pub struct TxEnd {
    /// A descriptor in blocking mode.
    pub fd: HostFd,
    /// Write, send, or send on a stream.
    pub kind: TxKind,
    /// Further descriptors: the hash of a frame's flow says by which of all it leaves (source ports of a UDP tunnel).
    pub ports: Vec<HostFd>,
    /// What stands in front of frames.
    pub header: Arc<dyn Header>,
    /// Destination as a raw `struct sockaddr` for sockets that are not connected.
    pub to: Option<Arc<[u8]>>,
    /// Super-frames leave as trains of datagrams, not one by one.
    pub train: Option<Train>,
    /// What the path takes.
    pub limit: Option<Arc<dyn Limit>>,
}

/// How long a message may be that the host need not send in fragments.
pub trait Limit: Send + Sync {
    /// Bytes of header and frame.
    fn message(&self) -> usize;
    /// The host found one too long: looks again.
    fn refresh(&self);
}

impl TxEnd {
    /// An end without a destination, further ports or trains.
    pub fn plain(fd: &HostFd, kind: TxKind, header: Arc<dyn Header>) -> Self {
        Self { fd: fd.clone(), kind, ports: Vec::new(), header, to: None, train: None, limit: None }
    }
}

/// A queue to the host. With several, a frame to be sent takes the one that the hash of its flow says.
#[derive(Default)]
pub struct Lane {
    /// The receiving end.
    pub rx: Option<RxEnd>,
    /// The sending end.
    pub tx: Option<TxEnd>,
}

/// Why a way could not be opened again, and when the next try is worth while.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Again {
    /// There is nothing that could be opened (an inherited descriptor).
    Never,
    /// The interface is not there: when it comes, or something else happens to it.
    News,
    /// After a pause. One line for the user.
    Later(String),
}

/// An open way to the host.
pub trait Transport: Send + Sync {
    /// As `transport=` names it.
    fn name(&self) -> &'static str;
    /// For the boot log: what was opened and with which offloads.
    fn describe(&self) -> String;
    /// Its queues, at least one. Called at each link-up; headers keep their state.
    fn lanes(&self) -> Vec<Lane>;
    /// Most queues that [`set_lanes`](Self::set_lanes) gives.
    fn max_lanes(&self) -> usize {
        1
    }
    /// Another number of queues, from 1 to [`max_lanes`](Self::max_lanes); those that stay are the first ones.
    fn set_lanes(&self, _n: usize) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// What the *host* does: checksums and segments of frames sent (`HW_CSUM`, `TSO4`, `TSO6`, `USO`), checksums and merging of
    /// frames received (`RXCSUM`, `LRO`). The driver does the rest in software.
    fn offload(&self) -> Features;
    /// Switches what the host does while frames flow; what is not in [`offload`](Self::offload) is ignored.
    fn set_offload(&self, _on: Features) {}
    /// The host hands over single frames that are worth merging: the driver does that where it takes them out of their
    /// messages, if GRO is on, as it is at first.
    fn merges(&self) -> bool {
        false
    }
    /// The interface of the host whose link is ours and whose speed we tell.
    fn host_ifname(&self) -> Option<&str> {
        None
    }
    /// The number of that interface which the descriptors belong to.
    fn host_ifindex(&self) -> Option<u32> {
        None
    }
    /// False once the descriptors have lost their interface for good.
    fn is_alive(&self) -> bool {
        true
    }
    /// The way was lost: opens it anew, so that [`lanes`](Self::lanes) are of use again. May sleep; asked by one thread at a
    /// time, while no frames flow.
    fn reopen(&self) -> std::result::Result<(), Again> {
        Err(Again::Never)
    }
    /// A descriptor whose hang-up says that the peer is gone, where receiving does not say it.
    fn hangup(&self) -> Option<HostFd> {
        None
    }
    /// How frames follow one another.
    fn framing(&self) -> Framing {
        Framing::Messages
    }
    /// Largest IP packet that fits behind the headers.
    fn max_mtu(&self) -> u32 {
        65535
    }
    /// Largest super-frame (IP packet) that leaves with one call of the host, from a device of this MTU.
    fn gso_max(&self, _mtu: u32) -> u32 {
        65535
    }
    /// Attaches a classic BPF program to the receiving side; `None` goes back to what was there at first. `EOPNOTSUPP` where
    /// there is no socket.
    fn set_filter(&self, _program: Option<&[Insn]>) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// The device has another address now (the link is down).
    fn set_mac(&self, _mac: Mac) -> Result<()> {
        Ok(())
    }
}
