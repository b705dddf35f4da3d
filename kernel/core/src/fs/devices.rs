//! Device numbers: which driver stands behind a device node.

use super::file::FileOps;
use super::inode::{Inode, major, makedev, minor};
use super::path::Path;
use crate::task::Task;
use crate::{Errno, Result};
use device::block::BlockDevice;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// What opening a character device is told.
pub struct OpenChr<'a> {
    /// Who opens.
    pub cur: &'a Arc<Task>,
    /// The node.
    pub inode: &'a Arc<Inode>,
    /// Where it lies.
    pub path: &'a Path,
    /// Minor number.
    pub minor: u32,
    /// open(2) flags.
    pub flags: u32,
}

/// Opens a character device.
pub type ChrOpen = fn(&OpenChr<'_>) -> Result<Arc<dyn FileOps>>;

#[derive(Clone)]
struct ChrDev {
    major: u32,
    minors: RangeInclusive<u32>,
    name: &'static str,
    open: ChrOpen,
}

static CHR: RwLock<Vec<ChrDev>> = RwLock::new(Vec::new());
static BLK: RwLock<BTreeMap<u64, Arc<super::blkdev::Disk>>> = RwLock::new(BTreeMap::new());

/// Makes a driver known for these numbers; a number that is taken keeps its first driver.
pub fn register_chr(major: u32, minors: RangeInclusive<u32>, name: &'static str, open: ChrOpen) {
    CHR.write().push(ChrDev { major, minors, name, open });
}

/// Makes a disk known under this number, and gives it a node in every devtmpfs.
pub fn register_blk(major: u32, minor: u32, dev: Arc<dyn BlockDevice>) {
    let number = makedev(major, minor);
    let disk = super::blkdev::Disk::new(number, dev);
    super::impls::devtmpfs::add_node(&disk.name, super::inode::S_IFBLK | 0o660, number);
    BLK.write().insert(number, disk);
}

/// Opens the character device of a node.
pub fn open_chr(cur: &Arc<Task>, inode: &Arc<Inode>, path: &Path, flags: u32) -> Result<Arc<dyn FileOps>> {
    let number = inode.rdev();
    let (major, minor) = (major(number), minor(number));
    let open = {
        let list = CHR.read();
        list.iter().find(|d| d.major == major && d.minors.contains(&minor)).map(|d| d.open)
    };
    open.ok_or(Errno::ENXIO)?(&OpenChr { cur, inode, path, minor, flags })
}

/// Opens the disk of a node.
pub fn open_blk(inode: &Arc<Inode>, flags: u32) -> Result<Arc<dyn FileOps>> {
    disk(inode.rdev()).ok_or(Errno::ENXIO)?.open(flags)
}

/// The disk with this number.
pub fn disk(number: u64) -> Option<Arc<super::blkdev::Disk>> {
    BLK.read().get(&number).cloned()
}

/// The disk with this kernel name (`ubda`).
pub fn disk_by_name(name: &str) -> Option<Arc<super::blkdev::Disk>> {
    BLK.read().values().find(|d| d.name == name).cloned()
}

/// All disks by number.
pub fn disks() -> Vec<Arc<super::blkdev::Disk>> {
    BLK.read().values().cloned().collect()
}

/// /proc/devices.
pub fn show() -> String {
    let mut chr: BTreeMap<u32, &'static str> = BTreeMap::new();
    for d in CHR.read().iter() {
        chr.entry(d.major).or_insert(d.name);
    }
    let mut out = String::from("Character devices:\n");
    for (m, n) in chr {
        out += &format!("{m:3} {n}\n");
    }
    out += "\nBlock devices:\n";
    let mut last = None;
    for number in BLK.read().keys() {
        let m = major(*number);
        if last != Some(m) {
            out += &format!("{m:3} {}\n", if m == 98 { "ubd" } else { "blk" });
            last = Some(m);
        }
    }
    out
}

/// A disk that the kernel knows.
pub type DiskRef = Arc<super::blkdev::Disk>;

/// The disk that the source of a mount names: a block device node, or `/dev/NAME` where there is no /dev yet.
pub async fn disk_at(cur: &Arc<Task>, source: &[u8]) -> Result<DiskRef> {
    match super::namei::path_at(cur, super::namei::AT_FDCWD, source, true).await {
        Ok(p) => {
            let inode = p.inode()?;
            if inode.kind != super::inode::S_IFBLK {
                return Err(Errno::ENOTBLK);
            }
            super::perm::check_nodev(&p.mnt, &inode)?;
            disk(inode.rdev()).ok_or(Errno::ENXIO)
        }
        Err(e) => {
            let name = std::str::from_utf8(source).ok().and_then(|s| s.strip_prefix("/dev/"));
            name.and_then(disk_by_name).ok_or(e)
        }
    }
}
