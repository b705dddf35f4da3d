//! Offloads in the bits of Linux.

use crate::socket::inet::stack;
use net::Features;
use net::dev::Dev;
use std::sync::Arc;

/// Our features, the bit that stands for each, and bits that go with it.
const TABLE: [(Features, u32, u64); 9] = [
    (Features::SG, 0, 1 << 6),
    (Features::HW_CSUM, 3, 0),
    (Features::GSO, 11, 0),
    (Features::GRO, 14, 0),
    (Features::TSO4, 16, 0),
    (Features::TSO6, 20, 0),
    (Features::USO, 33, 0),
    (Features::RXCSUM, 40, 0),
    (Features::LRO, 55, 0),
];

/// Bits that nobody may ask to change: vlan-challenged, tx-lockless, netns-local.
pub const NEVER_CHANGE: u64 = 0x3400;

/// Features as bits.
pub fn to_bits(f: Features) -> u64 {
    TABLE.iter().filter(|t| f.contains(t.0)).fold(0, |b, t| b | 1 << t.1 | t.2)
}

/// Bits as features; bits of which we know nothing are left out.
pub fn from_bits(b: u64) -> Features {
    TABLE.iter().filter(|t| b & (1 << t.1) != 0).fold(Features::empty(), |f, t| f | t.0)
}

/// What a device has, in bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bits {
    /// Can be switched.
    pub hw: u64,
    /// Wished for, of those that can be switched.
    pub wanted: u64,
    /// On.
    pub active: u64,
}

/// The state of a device.
pub fn bits(dev: &Dev) -> Bits {
    Bits {
        hw: to_bits(dev.hw_features()),
        wanted: to_bits(dev.wanted_features()),
        active: to_bits(dev.features()),
    }
}

/// Wishes for `value` in the bits of `mask`; true if something is on or off that was not.
pub fn set(dev: &Arc<Dev>, mask: u64, value: u64) -> bool {
    let (_, changed) = dev.set_wanted(from_bits(mask), from_bits(value));
    if changed {
        // Routes remember what a device can do.
        stack().link_changed(dev.ifindex);
        crate::socket::netlink::ethtool_features_changed(dev);
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_go_there_and_back() {
        assert_eq!(from_bits(to_bits(Features::all())), Features::all());
        assert_eq!(to_bits(Features::SG), 1 | 1 << 6);
        assert_eq!(from_bits(1 << 6 | 1 << 7 | 1 << 63), Features::empty());
        for t in TABLE {
            assert!(!super::super::strings::FEATURES[t.1 as usize].is_empty());
        }
    }
}
