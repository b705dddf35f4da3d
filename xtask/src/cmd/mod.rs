//! The commands, one file each.

pub mod bench;
pub mod build;
pub mod image;
