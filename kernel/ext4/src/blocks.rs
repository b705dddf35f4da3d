//! Reading metadata blocks: the cache, the journal's overlay, clustered reads.
//!
//! Lock order: the shards of the cache are leaves, never held over an await.

use crate::BlockIo;
use crate::cache::Clock;
use crate::disk::jbd2::JBD2_MAGIC;
use crate::journal::Overlay;
use klib::{Errno, Result};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const SHARDS: usize = 16;

/// What a block was found to be; its checksum and structure need no second look under the same name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An extent tree node.
    Extent = 1,
    /// A directory leaf.
    DirLeaf = 2,
    /// The root of an htree.
    DxRoot = 3,
    /// An inner node of an htree.
    DxNode = 4,
    /// An extended attribute block.
    Xattr = 5,
}

/// One metadata block in memory.
pub(crate) struct Buf {
    /// Where it lives.
    pub block: u64,
    /// Its bytes, one block long.
    pub data: Box<[u8]>,
    verified: AtomicU64,
}

impl Buf {
    fn key(kind: Kind, ino: u32) -> u64 {
        (kind as u64) << 32 | u64::from(ino)
    }

    /// True if the block was verified as this kind for this inode.
    pub fn is_verified(&self, kind: Kind, ino: u32) -> bool {
        self.verified.load(Ordering::Relaxed) == Self::key(kind, ino)
    }

    /// Notes the verification.
    pub fn set_verified(&self, kind: Kind, ino: u32) {
        self.verified.store(Self::key(kind, ino), Ordering::Relaxed);
    }
}

/// The device in blocks, with what is committed in the journal laid over it.
pub(crate) struct Blocks {
    io: Arc<dyn BlockIo>,
    block_size: u32,
    count: u64,
    overlay: Overlay,
    shards: [Mutex<Clock<u64, Buf>>; SHARDS],
}

impl Blocks {
    /// `count` blocks of `block_size` bytes; at most about `cache_bytes` of them stay in memory.
    pub fn new(
        io: Arc<dyn BlockIo>,
        block_size: u32,
        count: u64,
        overlay: Overlay,
        cache_bytes: usize,
    ) -> Self {
        let per_shard = cache_bytes / usize::try_from(block_size).unwrap_or(usize::MAX).max(1) / SHARDS;
        let shards = std::array::from_fn(|_| Mutex::new(Clock::new(per_shard)));
        Self { io, block_size, count, overlay, shards }
    }

    fn shard(&self, block: u64) -> &Mutex<Clock<u64, Buf>> {
        // The remainder is below SHARDS, so both conversions and the index are exact.
        &self.shards[(block % SHARDS as u64) as usize]
    }

    /// True if `len` blocks from `start` lie on the file system.
    pub fn contains(&self, start: u64, len: u64) -> bool {
        start.checked_add(len).is_some_and(|end| end <= self.count)
    }

    /// The journal's overlay.
    pub fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// Gives the overlay back.
    pub fn into_overlay(self) -> Overlay {
        self.overlay
    }

    /// `n` blocks from `block`, straight from the device, without cache and overlay.
    pub async fn read_raw(&self, block: u64, n: u64) -> Result<Vec<u8>> {
        if !self.contains(block, n) {
            return Err(Errno::EUCLEAN);
        }
        let bytes = n.checked_mul(u64::from(self.block_size)).ok_or(Errno::EUCLEAN)?;
        let len = usize::try_from(bytes).map_err(|_| Errno::EUCLEAN)?;
        let offset = block.checked_mul(u64::from(self.block_size)).ok_or(Errno::EUCLEAN)?;
        let data = self.io.read(offset, len).await?;
        if data.len() != len {
            log::error!(target: "ext4", "short read: {} of {len} bytes at {offset}", data.len());
            return Err(Errno::EIO);
        }
        Ok(data)
    }

    /// One metadata block, from the cache if it is there.
    pub async fn read(&self, block: u64) -> Result<Arc<Buf>> {
        self.read_ahead(block, 1).await
    }

    /// One metadata block; if it has to be read, the `n - 1` blocks behind it are read in the same request.
    pub async fn read_ahead(&self, block: u64, n: u64) -> Result<Arc<Buf>> {
        let cached = self.shard(block).lock().get(block);
        if let Some(buf) = cached {
            return Ok(buf);
        }
        let data = match self.overlay.get(block) {
            Some(copy) => {
                let mut data = self.read_raw(copy.journal_block, 1).await?;
                if copy.escaped
                    && let Some(head) = data.get_mut(..4)
                {
                    head.copy_from_slice(&JBD2_MAGIC.to_be_bytes());
                }
                data
            }
            None => {
                let n = n.clamp(1, self.count.saturating_sub(block).max(1));
                self.read_raw(block, n).await?
            }
        };
        let mut first = None;
        for (nr, chunk) in (block..).zip(data.chunks_exact(self.block_size as usize)) {
            if nr != block && self.overlay.get(nr).is_some() {
                continue;
            }
            let buf = Arc::new(Buf { block: nr, data: chunk.into(), verified: AtomicU64::new(0) });
            let buf = self.shard(nr).lock().insert(nr, buf);
            first.get_or_insert(buf);
        }
        first.ok_or(Errno::EIO)
    }

    /// Number of blocks in the cache.
    pub fn cached(&self) -> usize {
        self.shards.iter().map(|s| s.lock().len()).sum()
    }
}
