//! Clocks and timers.

pub mod group_timers;

pub use group_timers::GroupTimers;
