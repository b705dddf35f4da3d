//! The executor: one host thread a CPU, each with its run queue, its timers, its softirqs and its ring.
//!
//! * [`start`], [`shutdown`]; [`spawn`], [`spawn_on`], [`migrate_to`]: tasks. A task has a home CPU and runs nowhere else
//!   until it moves itself.
//! * [`irq`]: waiting for the host; [`time`], [`hrtimer`]: waiting for the clock; [`softirq`]: work that interrupts leave
//!   behind; [`blocking`]: host calls that sleep; [`smp`]: a word to another CPU; [`signal`]: signals from the host.
//! * [`stats`]: what each CPU has done.
//!
//! Above: drivers and kernel. Below: `arch::irqchip`, `arch::host`.
//!
//! A CPU's loop (see `cpu`): due timers, softirqs, wakes from elsewhere, some tasks; then, if nothing is runnable, one call
//! of the host that submits everything and sleeps. An idle CPU makes no host call at all.
//!
//! Lock order: every lock in here is a leaf, held for a few instructions; wakers, handlers and callbacks run with none
//! held.
#![deny(unsafe_code)]

pub mod blocking;
mod cpu;
pub mod crash;
mod haltpoll;
pub mod hrtimer;
pub mod irq;
mod machine;
pub mod signal;
pub mod smp;
pub mod softirq;
pub mod stats;
mod task;
pub mod time;

pub use blocking::spawn_blocking;
pub use cpu::{Config, shutdown, start};
pub use machine::{host_cpu, least_loaded, load_add, load_of, nr_cpus, this_cpu, try_this_cpu};
pub use task::{migrate_to, spawn, spawn_on, yield_now};
