//! Clocks and timers: what guests read as time, sleeps, interval timers, POSIX timers.
//!
//! Key types: [`clock::Clock`], [`timer::Timer`] (one timer of a process), [`GroupTimers`] (all of them). The executor's
//! `Hrtimer` calls back; nothing ticks. Guests see the host's own CLOCK_MONOTONIC and CLOCK_REALTIME, so that a vDSO
//! needs no call; what counts from the guest's boot is [`uptime_ns`].
//! Lock order: `GroupTimers` > `Timer` > signals of the process. A timer's signal is sent with no lock of this module held.

pub mod clock;
pub mod group_timers;
pub mod itimer;
pub mod posix_timer;
pub mod sleep;
pub mod syscalls;
pub mod timer;

pub use group_timers::GroupTimers;

use klib::ktime::Ktime;
use std::sync::OnceLock;

static BOOT: OnceLock<Ktime> = OnceLock::new();

/// When this kernel started; the first call decides, so it is made early in boot.
pub fn boot_time() -> Ktime {
    *BOOT.get_or_init(executor::time::now)
}

/// Nanoseconds since boot (/proc/uptime, sysinfo(2)).
pub fn uptime_ns() -> u64 {
    since_boot_ns(executor::time::now())
}

/// An instant as nanoseconds since boot (start times in /proc).
pub fn since_boot_ns(t: Ktime) -> u64 {
    t.as_ns().saturating_sub(boot_time().as_ns())
}
