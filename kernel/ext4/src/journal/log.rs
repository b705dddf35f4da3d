//! Walking the log: descriptors, revokes, commits.
//!
//! One pass suffices because only a map is built: at its commit block a transaction's blocks enter the map and its
//! revokes leave it, so a later write of a revoked block enters again. The log ends at the first block that is not
//! the next of its sequence, or at a commit that does not check out.

use super::{Copy, Layout, MAX_OVERLAY, Overlay};
use crate::MountError;
use crate::csum::{crc32_be, crc32c, crc32c_with_hole};
use crate::disk::jbd2::{
    COMMIT_BLOCK, COMMIT_CSUM_OFFSET, COMPAT_CHECKSUM, DEFAULT_FC_BLOCKS, DESCRIPTOR_BLOCK, FLAG_ESCAPE,
    FLAG_LAST_TAG, FLAG_SAME_UUID, HEADER_LEN, INCOMPAT_64BIT, INCOMPAT_ASYNC_COMMIT, INCOMPAT_CSUM_V2,
    INCOMPAT_CSUM_V3, INCOMPAT_FAST_COMMIT, JBD2_MAGIC, JSB_CSUM_OFFSET, JSB_SIZE, KNOWN_INCOMPAT,
    REVOKE_BLOCK, REVOKE_HEADER_LEN, RawCommit, RawHeader, RawJournalSuper, RawTag, RawTag3, SUPERBLOCK_V1,
    SUPERBLOCK_V2,
};
use crate::disk::{join, le32, view};
use klib::Errno;
use std::collections::BTreeMap;
use zerocopy::big_endian;

/// Blocks read in one request while data checksums are verified.
const VERIFY_BATCH: u64 = 64;

/// What recovery found.
pub(crate) struct Recovery {
    /// Blocks whose content is in the journal.
    pub overlay: Overlay,
    /// Transactions that were complete.
    pub transactions: u32,
}

/// A block as a descriptor names it.
#[derive(Clone, Copy)]
struct Tag {
    block: u64,
    escaped: bool,
    /// Checksum of the content; 16 bits of it in version 2.
    csum: u32,
}

/// A tagged block of a transaction, with where its content is.
#[derive(Clone, Copy)]
struct Entry {
    tag: Tag,
    journal_block: u64,
    sequence: u32,
}

/// The journal's superblock, checked.
struct Params {
    block_size: usize,
    first: u64,
    last: u64,
    start: u64,
    sequence: u32,
    compat: u32,
    incompat: u32,
    seed: u32,
}

fn journal(what: impl Into<String>) -> MountError {
    MountError::Journal(what.into())
}

fn io(e: Errno) -> MountError {
    MountError::Io(e)
}

impl Params {
    fn parse(data: &[u8], layout: &Layout<'_>, block_size: usize) -> Result<Self, MountError> {
        let raw: &RawJournalSuper = view(data, 0).ok_or_else(|| journal("no superblock"))?;
        if raw.header.magic.get() != JBD2_MAGIC {
            return Err(journal("superblock has no magic number"));
        }
        let v2 = match raw.header.blocktype.get() {
            SUPERBLOCK_V1 => false,
            SUPERBLOCK_V2 => true,
            other => return Err(journal(format!("superblock of type {other}"))),
        };
        let (compat, incompat) =
            if v2 { (raw.feature_compat.get(), raw.feature_incompat.get()) } else { (0, 0) };
        if incompat & !KNOWN_INCOMPAT != 0 {
            return Err(journal(format!("unsupported journal features {:#x}", incompat & !KNOWN_INCOMPAT)));
        }
        if incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) == INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3 {
            return Err(journal("checksum versions 2 and 3 at once"));
        }
        if incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0 {
            if raw.checksum_type != 4 {
                return Err(journal(format!("checksum type {}", raw.checksum_type)));
            }
            let body = data.get(..JSB_SIZE).ok_or_else(|| journal("short superblock"))?;
            if crc32c_with_hole(!0, body, JSB_CSUM_OFFSET, 4) != raw.checksum.get() {
                return Err(MountError::Checksum("journal superblock".into()));
            }
        }
        if usize::try_from(raw.blocksize.get()) != Ok(block_size) {
            return Err(journal(format!("block size {}", raw.blocksize.get())));
        }
        let maxlen = u64::from(raw.maxlen.get());
        if maxlen > layout.len() {
            return Err(journal(format!("{maxlen} blocks, its file has {}", layout.len())));
        }
        let fc = if incompat & INCOMPAT_FAST_COMMIT == 0 {
            0
        } else {
            u64::from(if raw.num_fc_blks.get() == 0 { DEFAULT_FC_BLOCKS } else { raw.num_fc_blks.get() })
        };
        let first = u64::from(raw.first.get());
        let last = maxlen.saturating_sub(fc);
        let start = u64::from(raw.start.get());
        if first == 0 || first >= last || start != 0 && !(first..last).contains(&start) {
            return Err(journal(format!("first block {first}, start {start}, length {maxlen}")));
        }
        Ok(Self {
            block_size,
            first,
            last,
            start,
            sequence: raw.sequence.get(),
            compat,
            incompat,
            seed: crc32c(!0, &raw.uuid),
        })
    }

    fn has_csum(&self) -> bool {
        self.incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0
    }

    fn next(&self, at: u64) -> u64 {
        if at + 1 >= self.last { self.first } else { at + 1 }
    }

    /// Descriptor and revoke blocks end in a checksum of the block.
    fn tail_ok(&self, data: &[u8]) -> bool {
        let Some(off) = data.len().checked_sub(4).filter(|_| self.has_csum()) else { return true };
        le32(data, off).map(u32::swap_bytes) == Some(crc32c_with_hole(self.seed, data, off, 4))
    }

    fn commit_ok(&self, data: &[u8], v1: u32) -> bool {
        let Some(raw) = view::<RawCommit>(data, 0) else { return false };
        let stored = raw.chksum.first().map_or(0, |c| c.get());
        if self.has_csum() {
            return stored == crc32c_with_hole(self.seed, data, COMMIT_CSUM_OFFSET, 4);
        }
        if self.compat & COMPAT_CHECKSUM != 0 {
            // Type CRC32 with 4 bytes, or a block written without one.
            let none = raw.chksum_type == 0 && raw.chksum_size == 0 && stored == 0;
            return none || raw.chksum_type == 1 && raw.chksum_size == 4 && stored == v1;
        }
        true
    }

    /// The tags of a descriptor block.
    fn tags(&self, data: &[u8]) -> Vec<Tag> {
        let end = data.len().saturating_sub(if self.has_csum() { 4 } else { 0 });
        let data = data.get(..end).unwrap_or(&[]);
        let mut at = HEADER_LEN;
        let mut tags = Vec::new();
        while let Some((tag, flags, size)) = self.tag(data, at) {
            tags.push(tag);
            at += size + if flags & FLAG_SAME_UUID == 0 { 16 } else { 0 };
            if flags & FLAG_LAST_TAG != 0 {
                break;
            }
        }
        tags
    }

    fn tag(&self, data: &[u8], at: usize) -> Option<(Tag, u32, usize)> {
        let wide = self.incompat & INCOMPAT_64BIT != 0;
        if self.incompat & INCOMPAT_CSUM_V3 != 0 {
            let t: &RawTag3 = view(data, at)?;
            let block = join(t.blocknr.get(), if wide { t.blocknr_high.get() } else { 0 });
            let flags = t.flags.get();
            return Some((
                Tag { block, escaped: flags & FLAG_ESCAPE != 0, csum: t.checksum.get() },
                flags,
                16,
            ));
        }
        // `journal_tag_bytes()`: version 2 is two bytes longer than what it stores.
        let size = 8 + if wide { 4 } else { 0 } + if self.incompat & INCOMPAT_CSUM_V2 != 0 { 2 } else { 0 };
        data.get(at..at + size)?;
        let t: &RawTag = view(data, at)?;
        let high = if wide { view::<big_endian::U32>(data, at + 8)?.get() } else { 0 };
        let flags = u32::from(t.flags.get());
        let csum = u32::from(t.checksum.get());
        Some((
            Tag { block: join(t.blocknr.get(), high), escaped: flags & FLAG_ESCAPE != 0, csum },
            flags,
            size,
        ))
    }

    /// The blocks that a revoke block names.
    fn revokes(&self, data: &[u8]) -> Option<Vec<u64>> {
        let used = usize::try_from(view::<big_endian::U32>(data, HEADER_LEN)?.get()).ok()?;
        let end = data.len().saturating_sub(if self.has_csum() { 4 } else { 0 });
        if used > end {
            return None;
        }
        let records = data.get(REVOKE_HEADER_LEN..used)?;
        Some(if self.incompat & INCOMPAT_64BIT != 0 {
            records.chunks_exact(8).filter_map(|r| view::<big_endian::U64>(r, 0)).map(|b| b.get()).collect()
        } else {
            let read = |r| view::<big_endian::U32>(r, 0).map(|b| u64::from(b.get()));
            records.chunks_exact(4).filter_map(read).collect()
        })
    }

    fn data_ok(&self, entry: &Entry, data: &[u8]) -> bool {
        if !self.has_csum() {
            return true;
        }
        let crc = crc32c(crc32c(self.seed, &entry.sequence.to_be_bytes()), data);
        if self.incompat & INCOMPAT_CSUM_V3 != 0 {
            crc == entry.tag.csum
        } else {
            crc & 0xffff == entry.tag.csum
        }
    }
}

/// Walks the journal and returns what a recovery would write. `blocks_count` is the size of the file system.
pub(crate) async fn recover(
    layout: &Layout<'_>,
    block_size: usize,
    blocks_count: u64,
) -> Result<Recovery, MountError> {
    let p = Params::parse(&layout.read(0).await.map_err(io)?, layout, block_size)?;
    if p.start == 0 {
        return Ok(Recovery { overlay: Overlay::default(), transactions: 0 });
    }
    let mut walk = Walk { p: &p, layout, at: p.start, visited: 0, map: BTreeMap::new(), last_commit_sec: 0 };
    let mut sequence = p.sequence;
    let mut transactions = 0u32;
    while walk.transaction(sequence).await? {
        sequence = sequence.wrapping_add(1);
        transactions += 1;
    }
    refuse_fast_commits(&p, layout, sequence).await?;
    let map = walk.map;
    if map.keys().next_back().is_some_and(|b| *b >= blocks_count) {
        return Err(journal("names a block outside the file system"));
    }
    verify_data(&p, layout, &map).await?;
    let copy = |e: &Entry| Copy { journal_block: e.journal_block, escaped: e.tag.escaped };
    let map = map.iter().map(|(b, e)| (*b, copy(e))).collect();
    Ok(Recovery { overlay: Overlay { map }, transactions })
}

struct Walk<'a> {
    p: &'a Params,
    layout: &'a Layout<'a>,
    at: u64,
    visited: u64,
    map: BTreeMap<u64, Entry>,
    last_commit_sec: u64,
}

impl Walk<'_> {
    /// Moves on by one block; false once the whole log has been seen.
    fn advance(&mut self) -> bool {
        self.at = self.p.next(self.at);
        self.visited += 1;
        self.visited < self.p.last
    }

    /// Reads one transaction; false if the log ends before its commit block.
    async fn transaction(&mut self, sequence: u32) -> Result<bool, MountError> {
        let p = self.p;
        let v1 = p.compat & COMPAT_CHECKSUM != 0 && !p.has_csum();
        let mut crc = !0u32;
        let mut entries: Vec<Entry> = Vec::new();
        let mut revoked: Vec<u64> = Vec::new();
        let mut suspect = false;
        loop {
            let data = self.layout.read(self.at).await.map_err(io)?;
            let Some(header) = view::<RawHeader>(&data, 0) else { return Ok(false) };
            if header.magic.get() != JBD2_MAGIC || header.sequence.get() != sequence {
                return Ok(false);
            }
            match header.blocktype.get() {
                DESCRIPTOR_BLOCK => {
                    suspect |= !p.tail_ok(&data);
                    if v1 {
                        crc = crc32_be(crc, &data);
                    }
                    for tag in p.tags(&data) {
                        if !self.advance() {
                            return Ok(false);
                        }
                        let journal_block = self.physical()?;
                        if v1 {
                            crc = crc32_be(crc, &self.layout.read(self.at).await.map_err(io)?);
                        }
                        entries.push(Entry { tag, journal_block, sequence });
                    }
                }
                REVOKE_BLOCK => match p.revokes(&data).filter(|_| p.tail_ok(&data)) {
                    Some(blocks) => revoked.extend(blocks),
                    None => suspect = true,
                },
                COMMIT_BLOCK => return self.commit(&data, crc, suspect, entries, &revoked),
                _ => return Ok(false),
            }
            if revoked.len() > MAX_OVERLAY {
                return Err(journal("too many revoked blocks"));
            }
            if !self.advance() {
                return Ok(false);
            }
        }
    }

    fn physical(&self) -> Result<u64, MountError> {
        self.layout.physical(self.at).map(|(b, _)| b).ok_or_else(|| journal("block outside its file"))
    }

    fn commit(
        &mut self,
        data: &[u8],
        crc: u32,
        suspect: bool,
        entries: Vec<Entry>,
        revoked: &[u64],
    ) -> Result<bool, MountError> {
        let p = self.p;
        let sec = view::<RawCommit>(data, 0).map_or(0, |c| c.commit_sec.get());
        // A block left over from an earlier round of the log can look right but for its checksum; it is older than
        // what was committed before it. Anything else that fails its checksum is damage.
        let stale = sec < self.last_commit_sec;
        if suspect && !stale {
            return Err(MountError::Checksum("journal descriptor or revoke block".into()));
        }
        if suspect {
            return Ok(false);
        }
        if !p.commit_ok(data, crc) {
            // An asynchronous commit may have been cut short, then the log ends here.
            if stale || p.incompat & INCOMPAT_ASYNC_COMMIT != 0 {
                return Ok(false);
            }
            return Err(MountError::Checksum("journal commit block".into()));
        }
        self.last_commit_sec = sec;
        for e in entries {
            self.map.insert(e.tag.block, e);
        }
        for b in revoked {
            // The tag of a block revoked and logged again in one transaction is kept: jbd2 cancels the revoke then.
            self.map.remove(b);
        }
        if self.map.len() > MAX_OVERLAY {
            return Err(journal("too many blocks"));
        }
        // When this was the last block of a log that is full, the next transaction ends the walk by its sequence.
        Ok(self.advance())
    }
}

/// Fast commits are logical records that would have to be applied, not copied.
async fn refuse_fast_commits(p: &Params, layout: &Layout<'_>, sequence: u32) -> Result<(), MountError> {
    const TAG_HEAD: u16 = 9;
    if p.incompat & INCOMPAT_FAST_COMMIT == 0 {
        return Ok(());
    }
    let data = layout.read(p.last + 1).await.map_err(io)?;
    let tag = data.get(..2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes);
    if tag == Some(TAG_HEAD) && le32(&data, 8) == Some(sequence) {
        return Err(MountError::Unsupported("fast_commit records in a journal that needs recovery".into()));
    }
    Ok(())
}

/// Checks the content of every block that will be used, in the order of the device.
async fn verify_data(p: &Params, layout: &Layout<'_>, map: &BTreeMap<u64, Entry>) -> Result<(), MountError> {
    if !p.has_csum() {
        return Ok(());
    }
    let mut entries: Vec<&Entry> = map.values().collect();
    entries.sort_by_key(|e| e.journal_block);
    let mut rest = entries.as_slice();
    while let Some(first) = rest.first().map(|e| e.journal_block) {
        let in_batch = |e: &&Entry| e.journal_block - first < VERIFY_BATCH;
        let n = rest.iter().take_while(|e| in_batch(e)).count();
        let (batch, tail) = rest.split_at(n);
        let end = batch.last().map_or(first, |e| e.journal_block) + 1;
        let data = layout.read_device(first, end - first).await.map_err(io)?;
        for e in batch {
            let nr = usize::try_from(e.journal_block - first).unwrap_or(usize::MAX);
            let start = nr.saturating_mul(p.block_size);
            let block = data.get(start..start.saturating_add(p.block_size)).ok_or_else(|| io(Errno::EIO))?;
            if !p.data_ok(e, block) {
                return Err(MountError::Checksum(format!("journal content of block {}", e.tag.block)));
            }
        }
        rest = tail;
    }
    Ok(())
}
