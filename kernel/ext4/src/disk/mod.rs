//! On-disk structures, little endian, as `Documentation/filesystems/ext4/` of Linux describes them.
//!
//! Views over bytes and nothing more: every value in them is the image's word and is checked where it is used.
//! One file a structure family; JBD2 (big endian) is in `jbd2`.

pub(crate) mod dirent;
pub(crate) mod extent;
pub(crate) mod group;
pub(crate) mod inode;
pub(crate) mod jbd2;
pub(crate) mod superblock;
pub(crate) mod xattr;

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The structure at byte `off` of `data`, or nothing if it does not fit.
pub(crate) fn view<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    data: &[u8],
    off: usize,
) -> Option<&T> {
    T::ref_from_prefix(data.get(off..)?).ok().map(|(t, _)| t)
}

/// `n` structures in a row at byte `off` of `data`, or nothing if they do not fit.
pub(crate) fn views<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    data: &[u8],
    off: usize,
    n: usize,
) -> Option<&[T]> {
    <[T]>::ref_from_prefix_with_elems(data.get(off..)?, n).ok().map(|(t, _)| t)
}

/// A little-endian u32 at `off`.
pub(crate) fn le32(data: &[u8], off: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(off..off.checked_add(4)?)?.try_into().ok()?))
}

/// Two halves as one number.
pub(crate) fn join(lo: u32, hi: u32) -> u64 {
    u64::from(hi) << 32 | u64::from(lo)
}
