//! The commands, one file each.

pub mod bench;
pub mod boot;
pub mod build;
pub mod image;
pub mod lint;
pub mod status;
pub mod test;
