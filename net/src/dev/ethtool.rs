//! What a device offers to ethtool(8): [`EthtoolOps`] with a default for everything, and the values that go through it.
//!
//! Neighbours: `features` decides which wishes are granted; the kernel's sockets speak the two protocols of ethtool.

use std::borrow::Cow;
use uapi::{Errno, Result};

/// `ethtool -i` (`struct ethtool_drvinfo`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DriverInfo {
    /// Name of the driver; empty: the device has none and `-i` is not supported.
    pub driver: &'static str,
    /// Its version.
    pub version: Cow<'static, str>,
    /// Version of the firmware.
    pub firmware: Cow<'static, str>,
    /// Where it sits.
    pub bus: Cow<'static, str>,
}

/// `ethtool -g` (`struct ethtool_ringparam`): frames, of which `*_max` are bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RingParams {
    /// Most receive slots.
    pub rx_max: u32,
    /// Most frames that wait for the host.
    pub tx_max: u32,
    /// Receive slots.
    pub rx: u32,
    /// Frames that may wait for the host.
    pub tx: u32,
}

/// `ethtool -l` (`struct ethtool_channels`): queues; a maximum of 0 means that there are none of the kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChannelParams {
    /// Most queues that only receive.
    pub rx_max: u32,
    /// Most queues that only send.
    pub tx_max: u32,
    /// Most queues that do both.
    pub combined_max: u32,
    /// Queues that only receive.
    pub rx: u32,
    /// Queues that only send.
    pub tx: u32,
    /// Queues that do both.
    pub combined: u32,
}

/// `ethtool -c` (`struct ethtool_coalesce`); `None` is a parameter that the device does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Coalesce {
    /// Microseconds by which the notice of a received frame may be late.
    pub rx_usecs: Option<u32>,
    /// Received frames that end the wait.
    pub rx_frames: Option<u32>,
    /// Microseconds by which a frame may leave late.
    pub tx_usecs: Option<u32>,
    /// Waiting frames that end the wait.
    pub tx_frames: Option<u32>,
}

/// `DUPLEX_*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Duplex {
    /// One direction at a time.
    Half = 0,
    /// Both directions at once.
    Full = 1,
    /// Not known.
    #[default]
    Unknown = 0xff,
}

/// Speed and kind of the link (`struct ethtool_link_settings`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkSettings {
    /// Mbit/s; `None`: not known.
    pub speed: Option<u32>,
    /// Duplex.
    pub duplex: Duplex,
    /// `PORT_*`: 0 twisted pair, 0xef none, 0xff other.
    pub port: u8,
    /// Autonegotiation is on.
    pub autoneg: bool,
}

/// One line of `ethtool -t`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SelfTest {
    /// What was tested.
    pub name: Cow<'static, str>,
    /// 0: well; else the errno or the number of failures.
    pub result: u64,
}

/// What ethtool asks of a device. The defaults answer as a device of Linux does that lacks the operation. Methods may be
/// called from any CPU and must not block.
pub trait EthtoolOps: Send + Sync {
    /// `-i`.
    fn driver_info(&self) -> DriverInfo {
        DriverInfo::default()
    }
    /// `-P`: the address the device was made with; zeros: none.
    fn perm_addr(&self) -> [u8; 6] {
        [0; 6]
    }
    /// `-S`: names of at most 31 bytes and values, always the same names in the same order.
    fn stats(&self) -> Vec<(Cow<'static, str>, u64)> {
        Vec::new()
    }
    /// `-g`.
    fn rings(&self) -> Result<RingParams> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `-G`; the values are within the bounds of [`rings`](Self::rings).
    fn set_rings(&self, _p: &RingParams) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `-c`.
    fn coalesce(&self) -> Result<Coalesce> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `-C`; only parameters that [`coalesce`](Self::coalesce) has.
    fn set_coalesce(&self, _c: &Coalesce) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `-l`.
    fn channels(&self) -> Result<ChannelParams> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `-L`; the values are within the bounds of [`channels`](Self::channels).
    fn set_channels(&self, _p: &ChannelParams) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Speed, duplex and port.
    fn link_settings(&self) -> Result<LinkSettings> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `msglvl` (`NETIF_MSG_*`).
    fn msglevel(&self) -> Result<u32> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Changes `msglvl`.
    fn set_msglevel(&self, _level: u32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Names of the tests of [`self_test`](Self::self_test).
    fn self_test_names(&self) -> Vec<&'static str> {
        Vec::new()
    }
    /// `-t`: runs the tests and gives their results in the order of their names. `offline`: traffic may be disturbed.
    fn self_test(&self, _offline: bool) -> Result<Vec<SelfTest>> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `-f`: may [`flash`](Self::flash) be called at all? `Err` is what the program is told.
    fn flash_allowed(&self) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `-f`: takes the bytes of the file.
    fn flash(&self, _image: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
}

/// For devices without anything to tell.
pub struct NoEthtool;

impl EthtoolOps for NoEthtool {}
