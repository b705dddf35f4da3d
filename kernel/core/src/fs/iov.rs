//! Where the bytes of a read or write live: guest memory or a kernel buffer.

use crate::mm::Mm;
use crate::{Errno, Result};
use std::sync::Arc;

/// A piece of guest memory: address and length, as in readv(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoVec {
    /// Guest address of the first byte.
    pub base: u64,
    /// Bytes.
    pub len: usize,
}

enum Backing<'a> {
    User { mm: &'a Arc<Mm>, segs: &'a [IoVec] },
    KernelDst(&'a mut [u8]),
    KernelSrc(&'a [u8]),
}

/// A cursor over the buffers of one read or write. Copies never sleep: a guest page that is not in memory ends the
/// copy short, or with `EFAULT` if nothing was copied, and is noted, so that the wait loop of `fs::file` can bring
/// it in ([`IovIter::take_fault`]) and try again. Copy first, commit after.
pub struct IovIter<'a> {
    backing: Backing<'a>,
    seg: usize,
    off: usize,
    remaining: usize,
    done: usize,
    fault: Option<Fault>,
}

/// A guest page that a copy found missing.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Guest address.
    pub addr: u64,
    /// True if the copy wanted to write it.
    pub write: bool,
}

impl<'a> IovIter<'a> {
    /// Over guest memory; `segs` have been checked by `import_iovec`.
    pub fn user(mm: &'a Arc<Mm>, segs: &'a [IoVec]) -> Self {
        let remaining = segs.iter().map(|s| s.len).sum();
        Self { backing: Backing::User { mm, segs }, seg: 0, off: 0, remaining, done: 0, fault: None }
    }

    /// A kernel buffer to be filled by a read.
    pub fn kernel_dst(buf: &'a mut [u8]) -> Self {
        let remaining = buf.len();
        Self { backing: Backing::KernelDst(buf), seg: 0, off: 0, remaining, done: 0, fault: None }
    }

    /// A kernel buffer to be written out.
    pub fn kernel_src(buf: &'a [u8]) -> Self {
        let remaining = buf.len();
        Self { backing: Backing::KernelSrc(buf), seg: 0, off: 0, remaining, done: 0, fault: None }
    }

    /// Bytes not copied yet.
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// Bytes copied so far.
    pub fn done(&self) -> usize {
        self.done
    }

    /// The missing page that ended the last copy, if one did.
    pub fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    /// Goes back to where [`done`](Self::done) was `mark`: what was copied since counts as not copied. For messages,
    /// which are taken whole or not at all. A noted fault stays.
    pub fn rewind(&mut self, mark: usize) {
        self.remaining += self.done;
        (self.seg, self.off, self.done) = (0, 0, 0);
        self.advance(mark);
    }

    /// Moves the end nearer: at most `max` further bytes.
    pub fn truncate(&mut self, max: usize) {
        self.remaining = self.remaining.min(max);
    }

    fn advance_in_seg(&mut self, n: usize, seg_len: usize) {
        self.off += n;
        self.remaining -= n;
        self.done += n;
        if self.off == seg_len {
            self.seg += 1;
            self.off = 0;
        }
    }

    /// Skips `n` bytes that were handled elsewhere.
    pub fn advance(&mut self, mut n: usize) {
        n = n.min(self.remaining);
        match &self.backing {
            Backing::User { segs, .. } => {
                let segs = *segs;
                while n > 0 {
                    let Some(s) = segs.get(self.seg) else { return };
                    let k = n.min(s.len - self.off);
                    n -= k;
                    self.advance_in_seg(k, s.len);
                }
            }
            _ => {
                self.off += n;
                self.remaining -= n;
                self.done += n;
            }
        }
    }

    /// Copies `src` to the destination: as much as fits and is in memory. `EFAULT` if nothing could be copied
    /// although something should.
    pub fn copy_to(&mut self, src: &[u8]) -> Result<usize> {
        let want = src.len().min(self.remaining);
        match &mut self.backing {
            Backing::KernelSrc(_) => Err(Errno::EINVAL),
            Backing::KernelDst(buf) => {
                buf[self.off..self.off + want].copy_from_slice(&src[..want]);
                self.off += want;
                self.remaining -= want;
                self.done += want;
                Ok(want)
            }
            Backing::User { mm, segs } => {
                let (mm, segs) = (*mm, *segs);
                self.user_loop(segs, want, |addr, at, n| mm.try_copy_to_user(addr, &src[at..at + n]), true)
            }
        }
    }

    /// Copies from the source into `dst`; as [`copy_to`](Self::copy_to).
    pub fn copy_from(&mut self, dst: &mut [u8]) -> Result<usize> {
        let want = dst.len().min(self.remaining);
        match &mut self.backing {
            Backing::KernelDst(_) => Err(Errno::EINVAL),
            Backing::KernelSrc(buf) => {
                dst[..want].copy_from_slice(&buf[self.off..self.off + want]);
                self.off += want;
                self.remaining -= want;
                self.done += want;
                Ok(want)
            }
            Backing::User { mm, segs } => {
                let (mm, segs) = (*mm, *segs);
                self.user_loop(
                    segs,
                    want,
                    |addr, at, n| mm.try_copy_from_user(addr, &mut dst[at..at + n]),
                    false,
                )
            }
        }
    }

    fn user_loop(
        &mut self,
        segs: &[IoVec],
        want: usize,
        mut copy: impl FnMut(u64, usize, usize) -> usize,
        write: bool,
    ) -> Result<usize> {
        let mut copied = 0;
        while copied < want {
            let Some(s) = segs.get(self.seg) else { break };
            if self.off == s.len {
                self.seg += 1;
                self.off = 0;
                continue;
            }
            let n = (want - copied).min(s.len - self.off);
            let addr = s.base + self.off as u64;
            let got = copy(addr, copied, n);
            copied += got;
            self.advance_in_seg(got, s.len);
            if got < n {
                self.fault = Some(Fault { addr: addr + got as u64, write });
                break;
            }
        }
        if copied == 0 && want > 0 { Err(Errno::EFAULT) } else { Ok(copied) }
    }
}

/// Copies all of `bytes` or nothing: a record that a read takes whole. `EFAULT` if a page is missing.
pub fn copy_whole(to: &mut IovIter<'_>, bytes: &[u8]) -> Result<()> {
    let mark = to.done();
    if to.copy_to(bytes)? < bytes.len() {
        to.rewind(mark);
        return Err(Errno::EFAULT);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewind_copies_again() {
        let mut buf = [0u8; 8];
        let mut it = IovIter::kernel_dst(&mut buf);
        assert_eq!(it.copy_to(b"abc"), Ok(3));
        assert_eq!(it.copy_to(b"xyz"), Ok(3));
        it.rewind(3);
        assert_eq!((it.done(), it.remaining()), (3, 5));
        assert_eq!(it.copy_to(b"defghij"), Ok(5));
        assert_eq!(&buf, b"abcdefgh");
    }
}
