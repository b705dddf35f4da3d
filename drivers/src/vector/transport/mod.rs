//! Ways to the host. A transport opens descriptors and says how frames look on them; everything else (batches, queues,
//! statistics) is the driver's. Adding one is a file here, a line in [`open`], and its keys in `config`.

mod tap;

use super::config::{TransportConfig, VectorConfig};
use arch::host::fd::HostFd;
use executor::irq::{RxKind, TxKind};
use net::Features;

/// What stands in front of each frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Header {
    /// A virtio-net header: checksums and super-frames are the host's business.
    Vnet,
}

/// An open way to the host.
pub trait Transport: Send + Sync {
    /// As `transport=` names it.
    fn name(&self) -> &'static str;
    /// For the boot log: what was opened and with which offloads.
    fn describe(&self) -> String;
    /// What stands in front of frames, in both directions.
    fn header(&self) -> Header;
    /// Where frames come from.
    fn rx(&self) -> (&HostFd, RxKind);
    /// Where frames go.
    fn tx(&self) -> (&HostFd, TxKind);
    /// What the host does for us.
    fn features(&self) -> Features;
}

/// Opens the transport that the configuration asks for. `Err` is one line for the user.
pub fn open(cfg: &VectorConfig) -> Result<Box<dyn Transport>, String> {
    match &cfg.transport {
        TransportConfig::Tap { ifname } => Ok(Box::new(tap::TapTransport::open(ifname.as_deref())?)),
    }
}
