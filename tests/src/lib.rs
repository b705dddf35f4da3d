//! The host-side harness: driving a guest over pipes, reading ELF and JSON, knowing the work tree.
//!
//! Key types: [`guest::Guest`], [`machine::Machine`], [`ratchet::Counts`], [`workspace::Crate`]. Neighbours: the suites in `tests/tests/` and
//! `xtask`, which both use it. It knows nothing of the kernel's crates: everything here drives finished binaries.
#![deny(unsafe_code)]

pub mod elf;
pub mod guest;
pub mod json;
pub mod machine;
pub mod ns;
pub mod ratchet;
pub mod shell;
pub mod workspace;
