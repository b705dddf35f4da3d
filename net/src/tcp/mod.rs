//! TCP.
//!
//! Key types: [`TcpSock`] (what the socket layer holds), [`Conn`] (a connection: engine, backlog, timers), [`Flow`] (the engine,
//! the only user of smoltcp), [`Listener`], [`InetHash`], [`PortTable`], [`TimeWait`]. `input` finds the connection of a
//! segment, `output` sends what an engine wrote.
//! Below: `ip`. Above: the socket layer.
//! Lock order: socket state > port table > connection > accept queue > hash shard > listener table > TIME-WAIT > `ip` and
//! below (routes, neighbours, device queues) > timer queue. Receive never waits for a connection's lock: a segment for a
//! busy connection goes to its backlog, and whoever holds the lock takes it from there. Wait queues are woken with no
//! lock held.

mod conn;
mod detail;
mod ehash;
mod flow;
mod info;
mod input;
mod listen;
pub mod loss;
mod opts;
mod output;
pub mod port;
mod segment;
mod sock;
mod timewait;

pub use conn::Conn;
pub use detail::{ConnDetail, Summary};
pub use ehash::{FlowKey, InetHash, Keyed};
pub use flow::{Flow, FlowConfig, FlowStats, TcpState};
pub(crate) use info::{listen_info, tcp_info};
pub use input::RxBatch;
pub(crate) use input::present;
pub use listen::{ListenTable, Listener};
pub use opts::TcpOpts;
pub(crate) use opts::ring_sizes;
pub use port::PortTable;
pub use segment::Segment;
pub use sock::TcpSock;
pub use timewait::{TIMEWAIT, TimeWait, TwEntry};

/// Everything TCP of a namespace.
pub struct TcpStack {
    /// Connections.
    pub ehash: InetHash,
    /// Listeners.
    pub listeners: ListenTable,
    /// Ports.
    pub ports: PortTable,
    /// Closed connections that are remembered.
    pub timewait: TimeWait,
    pub(crate) hash: Keyed,
    port_walk: port::PortWalk,
}

impl TcpStack {
    /// Empty tables under a secret key.
    pub fn new(key: Keyed) -> Self {
        Self {
            ehash: InetHash::new(key),
            listeners: ListenTable::default(),
            ports: PortTable::new(false),
            timewait: TimeWait::new(key),
            hash: key,
            port_walk: port::PortWalk::default(),
        }
    }
}
