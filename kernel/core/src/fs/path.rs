//! Places in the tree of mounts, and a task's root and working directory.

use super::inode::Inode;
use std::sync::Arc;

/// A mount and a dentry in it.
#[derive(Clone)]
pub struct Path {
    /// The inode that the dentry names.
    pub inode: Arc<Inode>,
}

/// Root directory, working directory and umask, shared by CLONE_FS.
#[derive(Default)]
pub struct FsStruct {}
