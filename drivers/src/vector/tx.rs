//! Sending: frames queue up and leave in batches, in order; each is owned by its operation until that is done. What the
//! host cannot do for a frame (segments, checksum) is done here, at the last moment.

use super::ethtool::{Counters, TxDrop, add};
use super::header::Outgoing;
use super::lanes::flow_hash;
use super::napi;
use super::transport::{Train, TxEnd};
use executor::irq::{IoSource, Segments, TxDone, TxQueue};
use net::gso::{self, Cut};
use net::{CsumStatus, Features, GsoInfo, GsoType, Skb, SkbPool};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use uapi::{Errno, Result};

/// Most segments of a super-frame: more is an attack.
const MAX_SEGMENTS: usize = 2048;

/// One frame, or a train of them, with headers, as the ring sends it.
struct TxFrame {
    skb: Skb,
    to: Option<Arc<[u8]>>,
    /// Which descriptor it leaves by.
    lane: usize,
    segment: Option<u16>,
    /// Frames in it.
    frames: u32,
    /// Their bytes, headers of the transport not counted.
    bytes: u32,
}

impl IoSource for TxFrame {
    fn segments<'a>(&'a self, out: &mut Segments<'a>) {
        out.push(self.skb.data());
    }

    fn name(&self) -> Option<&[u8]> {
        self.to.as_deref()
    }

    fn lane(&self) -> usize {
        self.lane
    }

    fn udp_segment(&self) -> Option<u16> {
        self.segment
    }

    fn note(&self) -> u64 {
        u64::from(self.frames) << 32 | u64::from(self.bytes)
    }
}

/// The sending end of a lane.
pub struct TxLane {
    queue: TxQueue,
    end: TxEnd,
    /// What the host does.
    offload: Features,
    /// Frames that may wait; changed while frames flow.
    depth: Arc<AtomicUsize>,
    /// Frames queued since link-up, and their bytes.
    frames: AtomicU64,
    bytes: AtomicU64,
    done: Arc<Done>,
}

impl TxLane {
    pub(super) fn new(end: TxEnd, offload: Features, depth: Arc<AtomicUsize>, done: Arc<Done>) -> Self {
        // The bound is kept by those who ask `is_full`: the segments of one super-frame may go beyond it.
        let ports = end.ports.clone();
        let queue = TxQueue::with_lanes(&end.fd, ports, end.kind, u32::MAX as usize, done.clone());
        Self { queue, end, offload, depth, frames: AtomicU64::new(0), bytes: AtomicU64::new(0), done }
    }

    /// True if no frame should be sent now.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= self.depth.load(Ordering::Relaxed)
    }

    /// Frames and bytes queued since link-up.
    pub fn counts(&self) -> (u64, u64) {
        (self.frames.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Frames so far that the host had no room for at first.
    pub fn retried(&self) -> u64 {
        self.queue.retried()
    }

    /// Gives what is queued to the ring of this CPU.
    pub fn flush(&self) -> Result<()> {
        self.queue.flush()
    }

    /// Queues a frame. False if it was dropped because it is not what it says it is.
    pub fn send(&self, mut skb: Skb, pool: impl FnOnce() -> Option<Arc<SkbPool>>) -> bool {
        let max = self.longest_frame();
        if skb.len() > max && skb.gso.is_none() {
            // One segment that the path would cut into fragments becomes two.
            skb.gso = own_segment(&skb);
        }
        let Some(gso) = skb.gso else {
            if !self.offload.contains(Features::HW_CSUM) && !gso::finish_checksum(&mut skb) {
                return false;
            }
            return self.send_one(skb);
        };
        let need = match gso.kind {
            GsoType::TcpV4 => Features::TSO4,
            GsoType::TcpV6 => Features::TSO6,
            GsoType::Udp => Features::USO,
        };
        if self.offload.contains(need) {
            return self.send_one(skb);
        }
        let (Some(pool), Some(cut)) = (pool(), Cut::new(&skb).map(|c| c.limit(max))) else { return false };
        if cut.count() > MAX_SEGMENTS {
            return false;
        }
        match self.end.train {
            // The host refuses trains of datagrams that it would have to send in fragments.
            Some(t) if cut.len(0) <= max => self.send_trains(&cut, t, &pool),
            _ => (0..cut.count()).all(|i| {
                let len = cut.len(i);
                let mut seg = pool.alloc(len);
                cut.write(i, seg.put(len)) && self.send_one(seg)
            }),
        }
    }

    /// Bytes of the longest frame that leaves in one piece.
    fn longest_frame(&self) -> usize {
        let Some(limit) = &self.end.limit else { return usize::MAX };
        if self.done.too_long.load(Ordering::Relaxed) && self.done.too_long.swap(false, Ordering::Relaxed) {
            limit.refresh();
        }
        limit.message().saturating_sub(self.end.header.tx_len())
    }

    /// The descriptor for a frame.
    fn port(&self, frame: &[u8]) -> usize {
        match self.end.ports.len() {
            0 => 0,
            n => flow_hash(frame) as usize % (n + 1),
        }
    }

    fn send_one(&self, mut skb: Skb) -> bool {
        let lane = self.port(skb.data());
        let bytes = u32::try_from(skb.len()).unwrap_or(u32::MAX);
        let n = self.end.header.tx_len();
        if n > 0 {
            let (csum, gso) = (skb.csum, skb.gso);
            skb.push(n);
            let Some((out, frame)) = skb.data_mut().split_at_mut_checked(n) else { return false };
            self.end.header.tx(out, Outgoing { frame, csum, gso });
        }
        self.push(TxFrame { skb, to: self.end.to.clone(), lane, segment: None, frames: 1, bytes })
    }

    /// Segments side by side, each behind its own header: the host cuts them apart again.
    fn send_trains(&self, cut: &Cut<'_>, t: Train, pool: &Arc<SkbPool>) -> bool {
        let n = self.end.header.tx_len();
        let (count, size) = (cut.count(), n + cut.len(0));
        let per = (t.bytes / size).min(t.frames).max(1);
        (0..count).step_by(per).all(|from| {
            let part = from..count.min(from + per);
            let frames = part.len();
            let mut skb = pool.alloc(frames * size);
            let (mut bytes, mut lane) = (0, 0);
            for i in part {
                let len = cut.len(i);
                let Some((out, frame)) = skb.put(n + len).split_at_mut_checked(n) else { return false };
                if !cut.write(i, frame) {
                    return false;
                }
                self.end.header.tx(out, Outgoing { frame, csum: CsumStatus::None, gso: None });
                if bytes == 0 {
                    lane = self.port(frame);
                }
                bytes += len;
            }
            self.push(TxFrame {
                skb,
                to: self.end.to.clone(),
                lane,
                segment: u16::try_from(size).ok().filter(|_| frames > 1),
                frames: frames as u32,
                bytes: bytes as u32,
            })
        })
    }

    fn push(&self, frame: TxFrame) -> bool {
        add(&self.frames, frame.frames.into());
        add(&self.bytes, frame.bytes.into());
        self.queue.push(Box::new(frame)).is_ok()
    }
}

/// A TCP segment of this host as a super-frame of one. `None` for anything else, and for what was summed up elsewhere: a
/// wrong sum must stay wrong.
fn own_segment(skb: &Skb) -> Option<GsoInfo> {
    let CsumStatus::Partial { offset: 16, .. } = skb.csum else { return None };
    let kind = match skb.data().get(12..14)? {
        [0x08, 0x00] => GsoType::TcpV4,
        [0x86, 0xdd] => GsoType::TcpV6,
        _ => return None,
    };
    Some(GsoInfo { kind, size: u16::MAX, hdr_len: 0 })
}

/// Counts completions and wakes the stack's queue. Runs as an interrupt.
pub struct Done {
    pub(super) counters: Arc<Counters>,
    /// The stack was refused a frame and is owed a wake.
    pub(super) stopped: AtomicBool,
    /// The wake is due.
    pub(super) wake: AtomicBool,
    /// The host has refused a message for its length.
    too_long: AtomicBool,
    batch: AtomicU64,
    pub(super) sched: Arc<napi::Sched>,
}

impl Done {
    pub(super) fn new(counters: Arc<Counters>, sched: Arc<napi::Sched>) -> Self {
        Self {
            counters,
            stopped: AtomicBool::new(false),
            wake: AtomicBool::new(false),
            too_long: AtomicBool::new(false),
            batch: AtomicU64::new(0),
            sched,
        }
    }
}

impl TxDone for Done {
    fn done(&self, frame: Box<dyn IoSource>, result: Result<u32>) {
        let note = frame.note();
        let (frames, bytes) = (note >> 32, note & 0xffff_ffff);
        self.batch.fetch_add(frames, Ordering::Relaxed);
        match result {
            Ok(_) => {
                add(&self.counters.tx_packets, frames);
                add(&self.counters.tx_bytes, bytes);
            }
            Err(Errno::ECANCELED) => (0..frames).for_each(|_| self.counters.tx_drop(TxDrop::Down)),
            Err(e) => {
                add(&self.counters.tx_errors, frames);
                // EINVAL is the word of older hosts for a train whose datagrams are too long.
                if matches!(e, Errno::EMSGSIZE | Errno::EINVAL) {
                    self.too_long.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    fn batch_end(&self) {
        self.counters.batch(self.batch.swap(0, Ordering::Relaxed));
        if self.stopped.swap(false, Ordering::SeqCst) {
            self.wake.store(true, Ordering::SeqCst);
            self.sched.schedule();
        }
    }
}
