//! Time as the kernel counts it: nanoseconds of the monotonic clock.

use core::ops::{Add, Sub};
use core::time::Duration;

/// An instant of CLOCK_MONOTONIC in nanoseconds. [`Ktime::MAX`] means "never".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ktime(pub u64);

impl Ktime {
    /// Never.
    pub const MAX: Self = Self(u64::MAX);

    /// Nanoseconds since the clock's start.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// Time left until `self`, zero if it has passed.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Ktime {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(u64::try_from(d.as_nanos()).map_or(u64::MAX, |ns| self.0.saturating_add(ns)))
    }
}

impl Sub for Ktime {
    type Output = Duration;
    fn sub(self, other: Self) -> Duration {
        self.since(other)
    }
}
