//! Files: descriptors, open files, inodes, dentries, mounts and the file systems.
//!
//! Key types: [`file::File`] (an open file), [`file::FileOps`] (what a kind of file does), [`fdtable::FdTable`].
//! Above: `syscall`. Below: `mm` (page cache, user copies), `device` (disks, terminals).
//! Lock order: `FdTable` > dentry > inode > page cache. No lock is held over an await or while `FileOps` run.

pub mod fdtable;
pub mod file;
pub mod inode;
pub mod iov;
pub mod path;
pub mod poll;
