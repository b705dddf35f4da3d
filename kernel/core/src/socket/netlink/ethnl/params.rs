//! Groups of numbers (rings, queues, coalescing): each is a table of attributes; reading, writing and the checks are
//! one piece of code for all.

use crate::Errno;
use crate::socket::netlink::attr::{Attr, Nack};
use net::dev::EthtoolOps;
use net::dev::ethtool::{ChannelParams, Coalesce, RingParams};
use net::rtnl::Msg;
use uapi::Result;

/// One number of a group.
pub struct Param<T> {
    /// Its attribute.
    attr: u16,
    /// One byte, not four.
    byte: bool,
    /// Its value; `None`: the device has no such thing.
    get: fn(&T) -> Option<u32>,
    /// Changes it; `None`: it cannot be changed.
    set: Option<fn(&mut T, u32)>,
    /// Its bound.
    max: fn(&T) -> u32,
}

/// A group of numbers.
pub struct Group<T: 'static> {
    get: fn(&dyn EthtoolOps) -> Result<T>,
    set: fn(&dyn EthtoolOps, &T) -> Result<()>,
    params: &'static [Param<T>],
    too_big: &'static str,
    /// What is wrong with all of it.
    check: fn(&T) -> Option<&'static str>,
}

/// A group without its type.
pub trait AnyGroup: Sync {
    /// Writes all numbers of a device.
    fn put(&self, ops: &dyn EthtoolOps, m: &mut Msg) -> Result<()>;
    /// Changes what the attributes (without the header) say. False: nothing was different.
    fn change(&self, ops: &dyn EthtoolOps, attrs: &[Attr<'_>]) -> Result<bool, Nack>;
}

impl<T: Copy + PartialEq> AnyGroup for Group<T> {
    fn put(&self, ops: &dyn EthtoolOps, m: &mut Msg) -> Result<()> {
        let now = (self.get)(ops)?;
        for p in self.params {
            match (p.get)(&now) {
                Some(v) if p.byte => m.attr_u8(p.attr, u8::try_from(v).unwrap_or(u8::MAX)),
                Some(v) => m.attr_u32(p.attr, v),
                None => {}
            }
        }
        Ok(())
    }

    fn change(&self, ops: &dyn EthtoolOps, attrs: &[Attr<'_>]) -> Result<bool, Nack> {
        let old = (self.get)(ops)?;
        let mut new = old;
        for a in attrs {
            let p = self.params.iter().find(|p| p.attr == a.kind && (p.get)(&old).is_some());
            let Some((p, set)) = p.and_then(|p| Some((p, p.set?))) else {
                return Err(Nack::invalid("cannot modify an unsupported parameter", a));
            };
            let v = a.number()?;
            if v > (p.max)(&old) {
                return Err(Nack::invalid(self.too_big, a));
            }
            set(&mut new, v);
        }
        if let Some(text) = (self.check)(&new) {
            return Err(Nack { errno: Errno::EINVAL, text, at: 0 });
        }
        if new == old {
            return Ok(false);
        }
        (self.set)(ops, &new)?;
        Ok(true)
    }
}

/// A number that is only told.
const fn told<T>(attr: u16, get: fn(&T) -> Option<u32>) -> Param<T> {
    Param { attr, byte: false, get, set: None, max: |_| 0 }
}

const fn set<T>(attr: u16, get: fn(&T) -> Option<u32>, set: fn(&mut T, u32), max: fn(&T) -> u32) -> Param<T> {
    Param { attr, byte: false, get, set: Some(set), max }
}

fn some(v: u32) -> Option<u32> {
    (v > 0).then_some(v)
}

/// `-g`, `-G` (ETHTOOL_A_RINGS_*).
pub static RINGS: Group<RingParams> = Group {
    get: |o| o.rings(),
    set: |o, p| o.set_rings(p),
    params: &[
        told(2, |p| some(p.rx_max)),
        told(5, |p| some(p.tx_max)),
        set(6, |p| some(p.rx_max).map(|_| p.rx), |p, v| p.rx = v, |p| p.rx_max),
        set(9, |p| some(p.tx_max).map(|_| p.tx), |p, v| p.tx = v, |p| p.tx_max),
        // TX push: off.
        Param { attr: 13, byte: true, get: |_| Some(0), set: None, max: |_| 0 },
    ],
    too_big: "requested ring size exceeds maximum",
    check: |p| (p.rx_max > 0 && p.rx == 0 || p.tx_max > 0 && p.tx == 0).then_some("a ring cannot be empty"),
};

/// `-l`, `-L` (ETHTOOL_A_CHANNELS_*).
pub static CHANNELS: Group<ChannelParams> = Group {
    get: |o| o.channels(),
    set: |o, p| o.set_channels(p),
    params: &[
        told(2, |p| some(p.rx_max)),
        told(3, |p| some(p.tx_max)),
        told(5, |p| some(p.combined_max)),
        set(6, |p| some(p.rx_max).map(|_| p.rx), |p, v| p.rx = v, |p| p.rx_max),
        set(7, |p| some(p.tx_max).map(|_| p.tx), |p, v| p.tx = v, |p| p.tx_max),
        set(9, |p| some(p.combined_max).map(|_| p.combined), |p, v| p.combined = v, |p| p.combined_max),
    ],
    too_big: "requested channel count exceeds maximum",
    check: |p| {
        (p.combined == 0 && (p.rx == 0 || p.tx == 0))
            .then_some("requested channel counts would result in no RX or TX channel being configured")
    },
};

/// `-c`, `-C` (ETHTOOL_A_COALESCE_*).
pub static COALESCE: Group<Coalesce> = Group {
    get: |o| o.coalesce(),
    set: |o, p| o.set_coalesce(p),
    params: &[
        set(2, |c| c.rx_usecs, |c, v| c.rx_usecs = Some(v), |_| u32::MAX),
        set(3, |c| c.rx_frames, |c, v| c.rx_frames = Some(v), |_| u32::MAX),
        set(6, |c| c.tx_usecs, |c, v| c.tx_usecs = Some(v), |_| u32::MAX),
        set(7, |c| c.tx_frames, |c, v| c.tx_frames = Some(v), |_| u32::MAX),
    ],
    too_big: "",
    check: |_| None,
};
