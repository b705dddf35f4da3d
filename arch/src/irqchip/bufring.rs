//! Provided buffers (io_uring_register_buf_ring(3)): a ring of equal slots from which the host picks one for each frame.

use super::source::CONTROL_LEN;
use crate::host::mmap::AnonMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use uapi::{Errno, Result};

/// struct io_uring_buf (uapi/linux/io_uring.h). The tail of the ring lies in `resv` of entry 0.
#[repr(C)]
struct Entry {
    addr: u64,
    len: u32,
    bid: u16,
    resv: u16,
}

type Refill = Arc<dyn Fn() + Send + Sync>;

/// A ring of receive buffers. Memory is touched only when a frame arrives in it.
pub struct BufRing {
    group: u16,
    entries: u16,
    slot_size: usize,
    headroom: usize,
    ring: AnonMap,
    slots: AnonMap,
    /// Our copy of the tail; the lock serialises those who give slots back.
    tail: Mutex<u16>,
    available: AtomicU32,
    starved: AtomicBool,
    refill: Mutex<Option<Refill>>,
}

impl BufRing {
    /// `entries` must be a power of two of at most 32768; each slot holds `headroom` bytes that the host leaves alone,
    /// then room for a frame.
    pub(super) fn new(group: u16, entries: u16, slot_size: usize, headroom: usize) -> Result<Self> {
        let fits = entries.is_power_of_two() && headroom < slot_size && slot_size <= 1 << 24;
        if !fits {
            return Err(Errno::EINVAL);
        }
        let ring = AnonMap::new(usize::from(entries) * size_of::<Entry>())?;
        let slots = AnonMap::new(usize::from(entries) * slot_size)?;
        let this = Self {
            group,
            entries,
            slot_size,
            headroom,
            ring,
            slots,
            tail: Mutex::new(0),
            available: AtomicU32::new(0),
            starved: AtomicBool::new(false),
            refill: Mutex::new(None),
        };
        for bid in 0..entries {
            this.give_back(bid);
        }
        Ok(this)
    }

    pub(super) fn group(&self) -> u16 {
        self.group
    }

    pub(super) fn entries(&self) -> u16 {
        self.entries
    }

    pub(super) fn ring_addr(&self) -> u64 {
        self.ring.base().as_ptr() as u64
    }

    /// Slots that the host may fill now.
    pub fn available(&self) -> u32 {
        self.available.load(Ordering::Relaxed)
    }

    /// Notes that receiving has stopped for want of slots; `refill` is called once, from whatever thread returns the
    /// next slot. True if a slot is there by now: then go on at once, nothing will be called.
    pub fn wait_refill(&self, refill: Refill) -> bool {
        *self.refill.lock().unwrap_or_else(PoisonError::into_inner) = Some(refill);
        self.starved.store(true, Ordering::SeqCst);
        // Pairs with give_back: either it sees `starved` or we see its slot.
        self.available.load(Ordering::SeqCst) > 0 && self.starved.swap(false, Ordering::SeqCst)
    }

    fn slot_base(&self, bid: u16) -> NonNull<u8> {
        // SAFETY: bid < entries, so the address lies in the mapping.
        unsafe { self.slots.base().add(usize::from(bid) * self.slot_size) }
    }

    fn give_back(&self, bid: u16) {
        let addr = self.slot_base(bid).as_ptr() as u64 + self.headroom as u64;
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let index = usize::from(*tail & (self.entries - 1));
        let entries = self.ring.base().cast::<Entry>().as_ptr();
        // SAFETY: index < entries; the mapping holds that many.
        let entry = unsafe { entries.add(index) };
        // SAFETY: entry is in the mapping; the host does not read it before the tail moves past it.
        unsafe { (*entry).addr = addr };
        // SAFETY: as above.
        unsafe { (*entry).len = (self.slot_size - self.headroom) as u32 };
        // SAFETY: as above.
        unsafe { (*entry).bid = bid };
        *tail = tail.wrapping_add(1);
        // SAFETY: entry 0 exists; its `resv` is the tail, which only this function writes, under the lock.
        let shared = unsafe { &raw mut (*entries).resv };
        // SAFETY: aligned, mapped, and all access from both sides is atomic.
        let shared = unsafe { AtomicU16::from_ptr(shared) };
        shared.store(*tail, Ordering::Release);
        drop(tail);
        self.available.fetch_add(1, Ordering::SeqCst);
        if self.starved.load(Ordering::SeqCst) && self.starved.swap(false, Ordering::SeqCst) {
            let refill = self.refill.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(f) = refill {
                f();
            }
        }
    }

    /// The slot that a completion names. `None` if the host names one that does not exist.
    pub(super) fn take(self: &Arc<Self>, bid: u16, len: usize) -> Option<RxSlot> {
        if bid >= self.entries || len > self.slot_size - self.headroom {
            return None;
        }
        self.available.fetch_sub(1, Ordering::SeqCst);
        Some(RxSlot { ring: Arc::clone(self), bid, start: self.headroom, len, segment: 0 })
    }
}

/// A received frame in its slot; owns the slot and returns it on drop, from any thread.
pub struct RxSlot {
    ring: Arc<BufRing>,
    bid: u16,
    start: usize,
    len: usize,
    /// Bytes a datagram if the slot holds several; else 0.
    segment: u16,
}

/// struct io_uring_recvmsg_out (uapi/linux/io_uring.h): four u32, the lengths of name, control data and payload, flags.
const MSG_OUT_LEN: usize = 16;
/// recvmsg(2): UDP_GRO's control message holds an int.
const UDP_GRO: u32 = 104;

impl RxSlot {
    /// Bytes a datagram, if UDP_GRO has put several of them (all alike but for a shorter last) behind each other.
    pub fn segment(&self) -> Option<usize> {
        (self.segment > 0).then_some(usize::from(self.segment))
    }

    /// Takes what a standing recvmsg has put in front of the payload. `None` if it is not there.
    pub(super) fn strip_msg(mut self) -> Option<Self> {
        let skip = MSG_OUT_LEN + CONTROL_LEN;
        let data = self.data();
        if data.len() < skip {
            return None;
        }
        let word = |at: usize| data.get(at..)?.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b));
        // struct cmsghdr: u64 length, level, type; then the data.
        let cmsg = MSG_OUT_LEN;
        let there = word(4)? >= 20 && word(cmsg + 8)? == libc::SOL_UDP as u32 && word(cmsg + 12)? == UDP_GRO;
        let size = word(cmsg + 16)?;
        let total = data.len() - skip;
        self.segment = u16::try_from(size).ok().filter(|&s| there && usize::from(s) < total).unwrap_or(0);
        self.start += skip;
        self.len = total;
        Some(self)
    }

    /// The frame.
    pub fn data(&self) -> &[u8] {
        self.whole().get(self.range()).unwrap_or_default()
    }

    /// The frame, to be changed in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        let range = self.range();
        self.whole_mut().get_mut(range).unwrap_or_default()
    }

    /// Where the frame lies in the slot; it starts after the headroom.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }

    /// Moves the borders of the frame within the slot; `EINVAL` if they do not fit.
    pub fn set_range(&mut self, range: Range<usize>) -> Result<()> {
        if range.start > range.end || range.end > self.ring.slot_size {
            return Err(Errno::EINVAL);
        }
        self.start = range.start;
        self.len = range.end - range.start;
        Ok(())
    }

    /// The whole slot with headroom and tailroom.
    pub fn whole(&self) -> &[u8] {
        let base = self.ring.slot_base(self.bid).as_ptr();
        // SAFETY: the slot is mapped (zero or what the host wrote) and ours alone until drop: the host writes only to
        // slots that are in the ring, and this one has been taken out of it.
        unsafe { std::slice::from_raw_parts(base, self.ring.slot_size) }
    }

    /// The whole slot, to be changed in place.
    pub fn whole_mut(&mut self) -> &mut [u8] {
        let base = self.ring.slot_base(self.bid).as_ptr();
        // SAFETY: as in `whole`, and `&mut self` is the only way in.
        unsafe { std::slice::from_raw_parts_mut(base, self.ring.slot_size) }
    }
}

impl std::ops::Deref for RxSlot {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.data()
    }
}

impl AsRef<[u8]> for RxSlot {
    fn as_ref(&self) -> &[u8] {
        self.data()
    }
}

impl super::IoSource for RxSlot {
    fn segments<'a>(&'a self, out: &mut super::Segments<'a>) {
        out.push(self.data());
    }
}

impl Drop for RxSlot {
    fn drop(&mut self) {
        self.ring.give_back(self.bid);
    }
}
