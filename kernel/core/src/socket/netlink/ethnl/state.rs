//! Commands that are no plain groups of numbers: link, messages, time stamps, features.

use super::bitset::{self, Bitset};
use crate::Errno;
use crate::socket::ethtool::{features as feat, strings};
use crate::socket::netlink::attr::{self, Attr, Nack};
use net::dev::Dev;
use net::rtnl::Msg;
use std::sync::Arc;

/// Link modes of Linux 6.1 (ETHTOOL_LINK_MODE_*): none of them is ours.
const LINK_MODES: u32 = 102;
/// SPEED_UNKNOWN.
pub const SPEED_UNKNOWN: u32 = u32::MAX;

fn names(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(0)
}

/// LINKINFO_GET.
pub fn linkinfo(d: &Dev, m: &mut Msg, _compact: bool) -> Result<(), Nack> {
    let l = d.drv.ethtool().link_settings()?;
    m.attr_u8(2, l.port);
    // PHY address, MDI-X, its control, transceiver.
    for kind in 3..=6 {
        m.attr_u8(kind, 0);
    }
    Ok(())
}

/// LINKMODES_GET.
pub fn linkmodes(d: &Dev, m: &mut Msg, compact: bool) -> Result<(), Nack> {
    let l = d.drv.ethtool().link_settings()?;
    m.attr_u8(2, u8::from(l.autoneg));
    Bitset { size: LINK_MODES, value: 0, mask: Some(0), names: &[] }.put(m, 3, compact);
    m.attr_u32(5, l.speed.unwrap_or(SPEED_UNKNOWN));
    m.attr_u8(6, l.duplex as u8);
    Ok(())
}

/// LINKSTATE_GET.
pub fn linkstate(d: &Dev, m: &mut Msg, _compact: bool) -> Result<(), Nack> {
    m.attr_u8(2, u8::from(d.is_up() && d.drv.carrier()));
    Ok(())
}

/// DEBUG_GET.
pub fn debug(d: &Dev, m: &mut Msg, compact: bool) -> Result<(), Nack> {
    let value = d.drv.ethtool().msglevel()?.into();
    let names = &strings::MSG_CLASSES;
    Bitset { size: self::names(names.len()), value, mask: None, names }.put(m, 2, compact);
    Ok(())
}

/// DEBUG_SET.
pub fn set_debug(d: &Arc<Dev>, attrs: &[Attr<'_>]) -> Result<bool, Nack> {
    let ops = d.drv.ethtool();
    let old = ops.msglevel()?;
    let a = attr::find(attrs, 2).ok_or(Errno::EINVAL)?;
    let w = bitset::parse(&a, &strings::MSG_CLASSES)?;
    let new = u32::try_from((u64::from(old) & !w.mask) | w.value).map_err(|_| Errno::EINVAL)?;
    if new != old {
        ops.set_msglevel(new)?;
    }
    Ok(new != old)
}

/// TSINFO_GET.
pub fn tsinfo(_d: &Dev, m: &mut Msg, compact: bool) -> Result<(), Nack> {
    let names = &strings::SOF_TIMESTAMPING;
    let value = strings::SOFTWARE_STAMPS.into();
    Bitset { size: self::names(names.len()), value, mask: None, names }.put(m, 2, compact);
    Ok(())
}

/// FEATURES_GET.
pub fn features(d: &Dev, m: &mut Msg, compact: bool) -> Result<(), Nack> {
    let b = feat::bits(d);
    let names = &strings::FEATURES;
    Bitset { size: 64, value: b.hw, mask: Some(u64::MAX), names }.put(m, 2, compact);
    for (kind, value) in [(3, b.wanted), (4, b.active), (5, feat::NEVER_CHANGE)] {
        Bitset { size: 64, value, mask: None, names }.put(m, kind, compact);
    }
    Ok(())
}

/// FEATURES_SET: the answer tells of which wishes nothing came, and what else has changed.
pub fn set_features(d: &Arc<Dev>, attrs: &[Attr<'_>], m: &mut Msg, compact: bool) -> Result<(), Nack> {
    let a = attr::find(attrs, 3).ok_or(Errno::EINVAL)?;
    let names = &strings::FEATURES;
    let w = bitset::parse(&a, names)?;
    if w.mask & feat::NEVER_CHANGE != 0 && attr::find(&a.nested()?, 1).is_none() {
        return Err(Nack::invalid("attempt to change non-ethtool features", &a));
    }
    let old = feat::bits(d);
    let wish = (old.wanted & !w.mask) | w.value;
    if wish != old.wanted {
        feat::set(d, w.mask, w.value);
    }
    let now = feat::bits(d).active;
    let refused = (wish ^ now) & w.mask;
    let changed = old.active ^ now;
    Bitset { size: 64, value: wish & refused, mask: Some(refused), names }.put(m, 3, compact);
    Bitset { size: 64, value: now & changed, mask: Some(changed), names }.put(m, 4, compact);
    Ok(())
}
