//! Disks on host files and host block devices (`ubd0=...`). Requests are operations of the ring.
//!
//! * [`UbdConfig`]: what the command line says. [`Ubd`]: the disk, a `device::block::BlockDevice`.
//! * `request`: how a request is cut into operations and put together again.
//!
//! Neighbours: the kernel's page cache and file systems above (by the trait), `executor::irq` below. No locks.

mod request;

use arch::host::fd::{FileKind, HostFd, OpenHow};
use arch::mm::PhysMem;
use device::BoxFuture;
use device::block::BlockDevice;
use std::path::PathBuf;
use std::sync::Arc;
use uapi::{Errno, Result};

/// Bytes of a sector, the unit of requests.
pub const SECTOR: u32 = 512;
/// First bytes of a COW file of any version that this architecture wrote (the magic 0x4f4f4f4d is big-endian).
const COW_MAGIC: [u8; 4] = *b"OOOM";
/// Units go from 0 to 15 (ubda to ubdp).
pub const MAX_UNITS: u8 = 16;

/// One `ubd` option of the command line.
#[derive(Clone, Debug, Default)]
pub struct UbdConfig {
    /// 0 to 15: ubda to ubdp.
    pub unit: u8,
    /// The host file or block device.
    pub path: PathBuf,
    /// Backing file, if `path` is a COW file.
    pub backing: Option<PathBuf>,
    /// Flag `r`.
    pub read_only: bool,
    /// Flag `s`: O_SYNC.
    pub sync: bool,
    /// Flag `c`: no lock is taken on the host file.
    pub shared: bool,
    /// Flag `d`: plain data, not looked at for a COW header.
    pub data: bool,
    /// Flag `t`: no discard.
    pub no_trim: bool,
    /// Serial number for sysfs.
    pub serial: Option<String>,
}

/// A disk on a host file.
pub struct Ubd {
    fd: HostFd,
    name: String,
    size: u64,
    read_only: bool,
    serial: Option<String>,
    frames: Option<PhysMem>,
}

impl Ubd {
    /// Opens and locks the host file. `frames` is the guest memory that `read_frames` fills. `Err` is one line for the user.
    /// Needs no executor yet.
    pub fn open(cfg: &UbdConfig, frames: Option<PhysMem>) -> core::result::Result<Arc<Self>, String> {
        let file = cfg.path.display();
        let option = format!("ubd{}", cfg.unit);
        if cfg.unit >= MAX_UNITS {
            return Err(format!("{option}: device number out of range, expected 0 to {}", MAX_UNITS - 1));
        }
        if cfg.backing.is_some() {
            return Err(format!("{option}={file}: COW files are not yet supported; give one plain file"));
        }
        let (fd, read_only) = Self::open_file(cfg).map_err(|e| match e {
            Errno::ENOENT => format!("{option}={file}: no such file"),
            e => format!("{option}={file}: cannot open the file: {}", e.text()),
        })?;
        match fd.kind() {
            Ok(FileKind::Regular | FileKind::Block) => {}
            Ok(_) => return Err(format!("{option}={file}: expected a regular file or a block device")),
            Err(e) => return Err(format!("{option}={file}: {}", e.text())),
        }
        if !cfg.shared {
            fd.lock(!read_only).map_err(|(e, pid)| match pid {
                Some(pid) if pid > 0 => {
                    format!("{option}={file}: the file is locked by process {pid} (flag c shares it)")
                }
                _ if matches!(e, Errno::EAGAIN | Errno::EACCES) => {
                    format!("{option}={file}: the file is locked by another process (flag c shares it)")
                }
                _ => format!("{option}={file}: cannot lock the file: {} (flag c does without)", e.text()),
            })?;
        }
        let size = fd.size().map_err(|e| format!("{option}={file}: cannot tell its size: {}", e.text()))?;
        if size == 0 {
            return Err(format!("{option}={file}: the file is empty"));
        }
        let Some(size) = size.checked_next_multiple_of(u64::from(SECTOR)) else {
            return Err(format!("{option}={file}: the file is too large"));
        };
        let mut head = [0u8; 4];
        if !cfg.data && fd.pread(&mut head, 0) == Ok(head.len()) && head == COW_MAGIC {
            return Err(format!(
                "{option}={file}: COW files are not yet supported (flag d takes the file as plain data)"
            ));
        }
        let letter = char::from(b'a' + cfg.unit);
        Ok(Arc::new(Self {
            fd,
            name: format!("ubd{letter}"),
            size,
            read_only,
            serial: cfg.serial.clone(),
            frames,
        }))
    }

    /// As UML: a file that cannot be written is read-only without a word.
    fn open_file(cfg: &UbdConfig) -> Result<(HostFd, bool)> {
        let how = OpenHow { write: !cfg.read_only, sync: cfg.sync, ..OpenHow::default() };
        match HostFd::open(&cfg.path, how) {
            Err(Errno::EACCES | Errno::EROFS | Errno::EPERM | Errno::ETXTBSY) if how.write => {
                HostFd::open(&cfg.path, OpenHow { write: false, ..how }).map(|fd| (fd, true))
            }
            fd => fd.map(|fd| (fd, cfg.read_only)),
        }
    }

    /// Serial number, for sysfs.
    pub fn serial(&self) -> Option<&str> {
        self.serial.as_deref()
    }

    /// `EINVAL` for a request that is not made of sectors or leaves the disk.
    fn check(&self, offset: u64, len: usize) -> Result<()> {
        let sector = u64::from(SECTOR);
        let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
        let end = offset.checked_add(len).ok_or(Errno::EINVAL)?;
        if !offset.is_multiple_of(sector) || !len.is_multiple_of(sector) || end > self.size {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }
}

impl BlockDevice for Ubd {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        SECTOR
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, len: usize) -> BoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            self.check(offset, len)?;
            request::read(&self.fd, offset, len).await
        })
    }

    fn read_frames(&self, offset: u64, len: usize, mem: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.check(offset, len)?;
            let frames = self.frames.as_ref().ok_or(Errno::EIO)?;
            request::read_frames(&self.fd, offset, len, frames, mem).await
        })
    }

    fn write(&self, offset: u64, data: Vec<u8>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.read_only {
                return Err(Errno::EROFS);
            }
            self.check(offset, data.len())?;
            request::write(&self.fd, offset, data).await
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.read_only {
                return Ok(());
            }
            request::flush(&self.fd).await
        })
    }
}
