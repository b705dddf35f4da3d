//! Measurements with every peer in the same run: `net` (throughput, latency, CPU per byte), `transports` (the same and more for each way
//! of the vector NIC to the host) and `micro` (single operations).
//!
//! Neighbours: `crate::system` starts what is measured, `crate::cpu` counts. `stats`, `table` and `svg` present.

pub mod bars;
pub mod calls;
pub mod marks;
pub mod memory;
pub mod micro;
pub mod net;
pub mod stats;
pub mod svg;
pub mod table;
pub mod transports;
