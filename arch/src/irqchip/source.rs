//! What is sent without copying: objects made of pieces, and memory outside the heap.

use crate::host::fd::HostFd;
use crate::mm::PhysMem;
use std::any::Any;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;
use uapi::{Errno, Result};

/// Most pieces one send may have (a 64 KiB packet in pages, and headers).
pub const MAX_SEGMENTS: usize = 20;

/// The pieces of an [`IoSource`], in order.
pub struct Segments<'a> {
    list: [&'a [u8]; MAX_SEGMENTS],
    len: usize,
}

impl<'a> Segments<'a> {
    fn new() -> Self {
        Self { list: [&[]; MAX_SEGMENTS], len: 0 }
    }

    /// Adds a piece; empty ones are skipped. False if there are [`MAX_SEGMENTS`] already: the operation then fails
    /// with `EBADF`, as a call that cannot be made.
    pub fn push(&mut self, piece: &'a [u8]) -> bool {
        if piece.is_empty() {
            return true;
        }
        match self.list.get_mut(self.len) {
            Some(slot) => {
                *slot = piece;
                self.len += 1;
                true
            }
            None => {
                self.len = usize::MAX;
                false
            }
        }
    }
}

/// Something that can be sent: a packet with its headers, a list of blocks. The operation owns it until completion and
/// gives it back then.
pub trait IoSource: Send + 'static {
    /// Names the pieces, in order. Called once, when the operation is submitted.
    fn segments<'a>(&'a self, out: &mut Segments<'a>);

    /// Destination as a raw `struct sockaddr` (sendmsg(2) `msg_name`), if the socket is not connected.
    fn name(&self) -> Option<&[u8]> {
        None
    }

    /// Which of the queue's descriptors sends it, where there are several (a tunnel's source ports).
    fn lane(&self) -> usize {
        0
    }

    /// Datagram size for UDP_SEGMENT (udp(7)): the host cuts the payload into datagrams of this many bytes.
    fn udp_segment(&self) -> Option<u16> {
        None
    }

    /// A number for whoever hears of the completion (how many frames this is, say); the ring does not look at it.
    fn note(&self) -> u64 {
        0
    }
}

impl IoSource for Vec<u8> {
    fn segments<'a>(&'a self, out: &mut Segments<'a>) {
        out.push(self);
    }
}

/// Memory outside the heap that an operation reads into or writes from: guest frames, kept mapped. Guest memory is volatile: the kernel never makes a
/// reference to it, and the host does not mind.
#[derive(Clone)]
pub struct IoMem {
    ptr: NonNull<u8>,
    len: usize,
    _keep: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the range is only handed to the host kernel; this side never dereferences it.
unsafe impl Send for IoMem {}
// SAFETY: as above.
unsafe impl Sync for IoMem {}

impl IoMem {
    /// The range `offset..offset+len` of guest memory; `EINVAL` if it does not lie in it.
    pub fn frames(mem: &PhysMem, offset: u64, len: usize) -> Result<Self> {
        let end = offset.checked_add(len as u64).ok_or(Errno::EINVAL)?;
        if end > mem.len() as u64 {
            return Err(Errno::EINVAL);
        }
        let (ptr, keep) = mem.target(offset, len);
        Ok(Self { ptr: NonNull::new(ptr).ok_or(Errno::EINVAL)?, len, _keep: keep })
    }

    /// Bytes in the range.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part `start..start+len`, clamped to the range.
    pub fn slice(&self, start: usize, len: usize) -> Self {
        let start = start.min(self.len);
        let len = len.min(self.len - start);
        // SAFETY: start is within the range or one past its end.
        let ptr = unsafe { self.ptr.add(start) };
        Self { ptr, len, _keep: Arc::clone(&self._keep) }
    }

    pub(super) fn ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }
}

/// Room for one control message with a u16 (cmsg(3): header of 16 bytes, data padded to 8).
pub(super) const CONTROL_LEN: usize = 24;

/// A message header that asks for no name, and for control messages of [`CONTROL_LEN`] bytes, which a standing recvmsg
/// puts into the slot.
pub(super) fn control_room() -> Box<libc::msghdr> {
    // SAFETY: all-zero is a valid msghdr (null pointers, zero lengths).
    let mut msg = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
    msg.msg_controllen = CONTROL_LEN;
    Box::new(msg)
}

/// A source under way: the pieces as the host wants them. Boxed, since the host is given its addresses.
pub(super) struct VecOp {
    source: NonNull<dyn IoSource>,
    iov: [libc::iovec; MAX_SEGMENTS],
    msg: libc::msghdr,
    control: [u64; CONTROL_LEN / 8],
    nr: usize,
    pub(super) _fd: HostFd,
}

// SAFETY: the source is Send; the raw pointers lead into it, into this box, or nowhere.
unsafe impl Send for VecOp {}

impl VecOp {
    /// Takes the source apart. `None` if it has too many pieces (the source is dropped).
    pub(super) fn new(source: Box<dyn IoSource>, fd: HostFd) -> Option<Box<Self>> {
        // SAFETY: all-zero is a valid msghdr (null pointers, zero lengths).
        let msg = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: Box::into_raw is never null.
        let source = unsafe { NonNull::new_unchecked(Box::into_raw(source)) };
        let mut op =
            Box::new(Self { source, iov: [empty; MAX_SEGMENTS], msg, control: [0; 3], nr: 0, _fd: fd });
        // SAFETY: the box was leaked into `op.source` just above and is freed only by `Drop` or `into_source`. What
        // `segments` hands out is borrowed from the object; the object is neither moved nor touched until the
        // operation has completed, so by the borrow rules that its author had to keep, the pieces stay valid.
        let src: &dyn IoSource = unsafe { source.as_ref() };
        let mut segs = Segments::new();
        src.segments(&mut segs);
        let pieces = segs.list.get(..segs.len)?;
        for (iov, piece) in op.iov.iter_mut().zip(pieces) {
            *iov = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
        }
        op.nr = pieces.len();
        if let Some(name) = src.name() {
            op.msg.msg_name = name.as_ptr().cast_mut().cast();
            op.msg.msg_namelen = name.len() as u32;
        }
        if let Some(size) = src.udp_segment() {
            // struct cmsghdr { size_t len; int level; int type; } then the data (cmsg(3)).
            const UDP_SEGMENT: u64 = 103;
            op.control = [18, (UDP_SEGMENT << 32) | libc::SOL_UDP as u64, u64::from(size)];
            op.msg.msg_control = op.control.as_mut_ptr().cast();
            op.msg.msg_controllen = CONTROL_LEN;
        }
        op.msg.msg_iov = op.iov.as_mut_ptr();
        op.msg.msg_iovlen = op.nr;
        Some(op)
    }

    /// The only piece, if a plain write or send will do.
    pub(super) fn single(&self) -> Option<(*const u8, u32)> {
        if self.nr != 1 || !self.msg.msg_name.is_null() || !self.msg.msg_control.is_null() {
            return None;
        }
        let iov = self.iov.first()?;
        Some((iov.iov_base.cast_const().cast(), u32::try_from(iov.iov_len).ok()?))
    }

    pub(super) fn iov(&self) -> (*const libc::iovec, u32) {
        (self.iov.as_ptr(), self.nr as u32)
    }

    pub(super) fn msg(&self) -> *const libc::msghdr {
        &raw const self.msg
    }

    /// The source back, after the completion.
    pub(super) fn into_source(self: Box<Self>) -> Box<dyn IoSource> {
        let mut this = std::mem::ManuallyDrop::new(*self);
        // SAFETY: `this` is never used again; its descriptor is dropped exactly once here.
        unsafe { std::ptr::drop_in_place(&raw mut this._fd) };
        // SAFETY: made by Box::into_raw in `new`, and Drop will not run.
        unsafe { Box::from_raw(this.source.as_ptr()) }
    }
}

impl Drop for VecOp {
    fn drop(&mut self) {
        // SAFETY: made by Box::into_raw in `new`; `into_source` suppresses this.
        drop(unsafe { Box::from_raw(self.source.as_ptr()) });
    }
}
