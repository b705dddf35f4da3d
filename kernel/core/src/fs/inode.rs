//! Inodes.

/// A file as the file system knows it.
pub struct Inode {}
