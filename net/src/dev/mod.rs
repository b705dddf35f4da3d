//! Network devices as the stack sees them.
//!
//! Key types: [`NetDevice`] (what a driver implements), [`Features`], [`DevStats`], [`Dev`] (a registered device: index,
//! name, flags, addresses, its transmit queue), [`DevTable`], [`EthtoolOps`] (what a device offers to ethtool). The receive contract is in [`napi`].
//! Below: `skb`. Above: `ip`, `neigh`, `rtnl`, and the drivers.
//! Lock order: device table > a device's configuration > its transmit queue > the driver's own locks > skb pool.

pub mod ethtool;
mod features;
mod ioctl;
pub mod loopback;
pub mod napi;
mod netdevice;
mod table;
pub mod txq;

pub use ethtool::EthtoolOps;
pub use features::fix as fix_features;
pub use napi::Napi;
pub use netdevice::{DevStats, Features, NetDevice};
pub use table::{Dev, DevTable, IfAddr, IfFlags, is_link_local};
