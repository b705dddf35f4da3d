//! The file systems: one folder or file a type, each behind `InodeOps` and `SuperOps`.

pub mod cpio;
pub mod devpts;
pub mod devtmpfs;
pub mod ext4;
pub mod procfs;
pub mod pseudo;
pub mod sysfs;
pub mod tmpfs;
