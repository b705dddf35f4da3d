//! Offloads: what is wished for, what a device can, and what is on (netdev_features of Linux).
//!
//! A wish that cannot be granted stays a wish: it comes true when what it depends on is there.

use super::netdevice::Features;
use super::table::Dev;
use std::sync::atomic::{AtomicU32, Ordering};

/// What the stack does for every device, so that drivers know nothing of it.
const SOFT: Features = Features::GSO;

/// Drops features that need others that are off.
pub fn fix(mut f: Features) -> Features {
    if !f.contains(Features::HW_CSUM) {
        f.remove(Features::TSO4 | Features::TSO6 | Features::USO);
    }
    if !f.contains(Features::SG) {
        f.remove(Features::TSO4 | Features::TSO6 | Features::USO | Features::GSO);
    }
    // Merging, by whomever, rests on checksums that somebody has looked at; and who wants no merged frames wants none.
    if !f.contains(Features::RXCSUM) || !f.contains(Features::GRO) {
        f.remove(Features::LRO);
    }
    f
}

/// State of a new device: everything is wished for that is there.
pub(super) fn initial(drv: &dyn super::NetDevice) -> (AtomicU32, AtomicU32) {
    (AtomicU32::new((drv.features() | SOFT).bits()), AtomicU32::new(SOFT.bits()))
}

impl Dev {
    /// What is on.
    pub fn features(&self) -> Features {
        let soft = Features::from_bits_truncate(self.soft.load(Ordering::Relaxed));
        self.drv.features() | soft
    }

    /// What can be switched.
    pub fn hw_features(&self) -> Features {
        self.drv.hw_features() | SOFT
    }

    /// What is wished for: fixed features as they are, the others as somebody has asked.
    pub fn wanted_features(&self) -> Features {
        let hw = self.hw_features();
        Features::from_bits_truncate(self.wanted.load(Ordering::Acquire)) & hw
    }

    /// Wishes for the features of `mask` as in `value`; bits that cannot be switched are left alone. Gives what is on then;
    /// true if that has changed.
    pub fn set_wanted(&self, mask: Features, value: Features) -> (Features, bool) {
        let hw = self.hw_features();
        let mask = mask & hw;
        let _order = self.feature_lock.lock();
        let wanted = (self.wanted_features() - mask) | (value & mask);
        self.wanted.store(wanted.bits(), Ordering::Release);
        let old = self.features();
        let want = fix((old - hw) | wanted);
        if want == old {
            return (old, false);
        }
        self.soft.store((want & SOFT).bits(), Ordering::Relaxed);
        if (want ^ old).intersects(!SOFT) {
            self.drv.set_features(want - SOFT);
        }
        let now = self.features();
        (now, now != old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::DevTable;
    use crate::dev::loopback::Loopback;
    use std::sync::Arc;

    #[test]
    fn what_rests_on_something_falls_with_it() {
        let all = Features::all();
        assert_eq!(fix(all), all);
        let no_csum = fix(all - Features::HW_CSUM);
        assert!(!no_csum.intersects(Features::TSO4 | Features::TSO6 | Features::USO));
        assert!(no_csum.contains(Features::GSO | Features::LRO));
        assert!(!fix(all - Features::SG).intersects(Features::GSO | Features::TSO4));
        assert!(!fix(all - Features::RXCSUM).contains(Features::LRO));
        assert!(!fix(all - Features::GRO).contains(Features::LRO));
    }

    #[test]
    fn a_wish_comes_true_when_its_ground_returns() {
        let lo = DevTable::default().register_loopback(Arc::new(Loopback::new()));
        let tso = Features::TSO4 | Features::TSO6;
        assert!(lo.features().contains(tso));
        let (now, changed) = lo.set_wanted(tso, Features::empty());
        assert!(changed && !now.intersects(tso) && lo.features() == now);
        assert_eq!(lo.set_wanted(Features::HW_CSUM, Features::empty()), (now, false), "fixed");
        let (now, changed) = lo.set_wanted(tso, tso);
        assert!(changed && now.contains(tso));
    }
}
