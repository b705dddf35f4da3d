//! What the kernel does with files before the first program runs.

use super::impls::{cpio, devtmpfs, ext4};
use super::mount::ms;
use super::namei::{AT_FDCWD, path_at};
use super::open::open_kernel;
use super::{devices, super_block};
use crate::task::Task;
use crate::{Errno, Result};
use std::sync::Arc;
use uapi::raw::general as c;

/// Unpacks an initramfs into the rootfs; gives the number of entries.
pub fn unpack_initramfs(archive: &[u8]) -> Result<usize> {
    let root = super::mount::init_ns().root_path().inode()?;
    cpio::unpack(&root, archive)
}

/// The disk that `root=` names: `/dev/ubda`, `ubda`, or a number as `98:0` or `0x6200`.
pub fn root_disk(root: &str) -> Option<devices::DiskRef> {
    let name = root.strip_prefix("/dev/").unwrap_or(root);
    if let Some(d) = devices::disk_by_name(name) {
        return Some(d);
    }
    if let Some((a, b)) = name.split_once(':') {
        return devices::disk(super::inode::makedev(a.parse().ok()?, b.parse().ok()?));
    }
    let old = u32::from_str_radix(name.strip_prefix("0x").unwrap_or(name), 16).ok()?;
    devices::disk(super::inode::makedev(old >> 8, old & 0xff))
}

/// Mounts the disk that `root=` names over the rootfs and makes it the root of `cur`, the first task. `flags` are
/// MS_* flags; the disk is mounted read-only whatever they say, until ext4 writes.
pub async fn mount_root(cur: &Arc<Task>, root: &str, flags: u32) -> Result<()> {
    let disk = root_disk(root).ok_or(Errno::ENODEV)?;
    let inode = ext4::mount_disk(&disk).await?;
    let fs = cur.fs();
    let ns = fs.ns();
    ns.mount(ns.root_path(), &inode, "/dev/root", flags | ms::RDONLY)?;
    fs.set_root(ns.root_path());
    fs.set_cwd(ns.root_path());
    Ok(())
}

/// Mounts devtmpfs on /dev if there is such a directory, as CONFIG_DEVTMPFS_MOUNT does; says whether it did.
pub async fn mount_dev(cur: &Arc<Task>) -> bool {
    let Ok(at) = path_at(cur, AT_FDCWD, b"/dev", true).await else { return false };
    cur.fs().ns().mount(at, devtmpfs::root(), "devtmpfs", ms::RELATIME).is_ok()
}

/// Mounts a file system that needs no device, if its directory is there.
pub async fn mount_nodev(cur: &Arc<Task>, fs_type: &str, at: &[u8], data: &[u8]) -> Result<()> {
    let path = path_at(cur, AT_FDCWD, at, true).await?;
    let kind = super_block::find(fs_type.as_bytes())?;
    let args = super_block::MountArgs { source: fs_type.as_bytes(), data, flags: 0 };
    let root = (kind.mount)(cur, args).await?;
    cur.fs().ns().mount(path, &root, fs_type, 0).map(|_| ())
}

/// Opens /dev/console as descriptors 0, 1 and 2 of the first task. Without the node the console is opened all the
/// same, so that a bare root file system has an output.
pub async fn open_console(cur: &Arc<Task>) -> Result<()> {
    let file = match open_kernel(cur, b"/dev/console", c::O_RDWR).await {
        Ok(f) => f,
        Err(e) => {
            log::warn!(target: "fs", "unable to open an initial console: {}", e.name());
            let node = devtmpfs::root();
            let walk =
                super::namei::Walk::from(cur, super::mount::Mount::detached(node, "devtmpfs", 0).root_path());
            super::open::open_from(walk, cur, b"console", c::O_RDWR).await?
        }
    };
    let files = cur.files();
    for fd in 0..3 {
        drop(files.replace(fd, Arc::clone(&file), false, 64)?);
    }
    Ok(())
}
