//! Files: descriptors, open files, inodes, dentries, mounts and the file systems.
//!
//! Key types: [`file::File`] (an open file), [`file::FileOps`] (what a kind of file does), [`fdtable::FdTable`],
//! [`inode::Inode`], [`dentry::Dentry`], [`mount::Mount`], [`path::Path`], [`namei::Walk`] (path walk).
//! Above: `syscall`. Below: `mm` (page cache, user copies), `device` (disks, terminals).
//! Lock order: `FdTable` > dentry > inode > page cache. No lock is held over an await or while `FileOps` run, but
//! for an inode's write lock, which spans one try of a write.

pub mod anon;
pub mod attr;
pub mod blkdev;
pub mod boot;
pub mod cached_file;
pub mod dentry;
pub mod devices;
pub mod dir;
pub mod eventfd;
pub mod eventpoll;
pub mod fdtable;
pub mod file;
pub mod hooks;
pub mod impls;
pub mod inode;
pub mod iov;
pub mod locks;
pub mod memdev;
pub mod memfd;
pub mod mount;
pub mod namei;
pub mod namei_ops;
pub mod open;
pub mod path;
pub mod perm;
pub mod pipe;
pub mod poll;
pub mod signalfd;
pub mod super_block;
pub mod syscalls;
pub mod timerfd;

/// Makes file system types and devices known. Called once at boot, before the first task.
pub fn init() {
    impls::tmpfs::register();
    impls::devtmpfs::register();
    impls::ext4::register();
    impls::procfs::init();
    impls::sysfs::init();
    impls::devpts::register();
    memdev::register();
    crate::tty::console::register();
    crate::tty::pty::register();
}
