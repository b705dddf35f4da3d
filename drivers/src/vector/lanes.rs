//! The queues of a NIC that is up: one lane or several, each with its ends.

use super::header::Header;
use super::rx::{HEADROOM, Poll, SLOT_SIZE};
use super::stream::Reassembly;
use super::transport::{Framing, RxEnd, Transport};
use super::tx::{Done, TxLane};
use executor::irq::{RxConfig, RxKind, RxSlot, RxStream};
use klib::sync::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use uapi::{Errno, Result};

/// Most receive slots unless somebody asks for more: they should fit the caches, and frames wait as well in the host.
const DEFAULT_SLOTS: usize = 64;
/// Most receive slots, 68 KiB each.
pub const MAX_SLOTS: usize = 256;
/// Fewest receive slots.
const MIN_SLOTS: usize = 16;
/// Most old messages thrown away at link-up.
const MAX_OLD: usize = 4096;
/// Errors in a row after which a descriptor is given up.
const MAX_ERRORS: usize = 10_000;

/// Receive slots for a queue of `depth` frames.
pub fn default_slots(depth: usize) -> usize {
    round_slots(depth.min(DEFAULT_SLOTS))
}

/// What becomes of a wish for so many slots.
pub fn round_slots(n: usize) -> usize {
    n.next_power_of_two().clamp(MIN_SLOTS, MAX_SLOTS)
}

/// The receiving end of a lane.
pub struct RxLane {
    stream: RxStream,
    header: Arc<dyn Header>,
    reassembly: Option<Mutex<Reassembly>>,
    kind: RxKind,
    /// Errors in a row with no frame between them.
    errors: AtomicUsize,
    /// Frames received since link-up, and their bytes.
    frames: AtomicU64,
    bytes: AtomicU64,
}

/// Why a lane has stopped receiving.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The interface on the host is down; receiving goes on when it comes back.
    Down,
    /// The descriptor is of no use any more.
    Gone(Result<()>),
}

/// Everything of a NIC that is up.
pub struct Queues {
    rx: Vec<RxLane>,
    tx: Vec<Arc<TxLane>>,
    /// Told what became of sent frames.
    pub done: Arc<Done>,
    next: AtomicUsize,
}

impl RxLane {
    fn start(
        end: RxEnd,
        slots: usize,
        framing: Framing,
        fresh: bool,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self> {
        let cfg = RxConfig {
            kind: end.kind,
            slots: u16::try_from(slots).map_err(|_| Errno::EINVAL)?,
            slot_size: SLOT_SIZE,
            headroom: HEADROOM,
        };
        let stream = framing == Framing::Stream;
        if fresh && !stream {
            // What arrived while the link was down is not for now.
            let mut old = vec![0u8; SLOT_SIZE];
            let mut left = MAX_OLD;
            while left > 0
                && end.fd.poll_now(1).is_ok_and(|ev| ev & 1 != 0)
                && end.fd.read(&mut old).is_ok_and(|n| n > 0)
            {
                left -= 1;
            }
        }
        Ok(Self {
            stream: RxStream::start(&end.fd, cfg, notify)?,
            header: end.header,
            reassembly: stream.then(Mutex::default),
            kind: end.kind,
            errors: AtomicUsize::new(0),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    /// Whether it still receives; errors that say nothing of the future are shrugged off.
    fn end(&self) -> Option<End> {
        let end = self.stream.ended()?;
        let patient = self.errors.fetch_add(1, Ordering::Relaxed) < MAX_ERRORS;
        match end {
            // A packet socket that cannot say in a virtio-net header what it received drops the frame.
            Err(Errno::EINVAL) if self.kind == RxKind::Recv && patient => {
                self.stream.restart();
                None
            }
            // A peer or a router answered a frame of ours with ICMP, or a signal came.
            Err(
                Errno::ECONNREFUSED
                | Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::EHOSTDOWN
                | Errno::EMSGSIZE
                | Errno::EPROTO
                | Errno::ENOPROTOOPT
                | Errno::ENOMEM,
            ) if patient => {
                self.stream.restart();
                None
            }
            Err(Errno::ENETDOWN) => {
                self.stream.restart();
                Some(End::Down)
            }
            other => Some(End::Gone(other)),
        }
    }
}

impl Queues {
    /// Starts receiving on this CPU. `notify` runs as an interrupt.
    pub fn start(
        transport: &dyn Transport,
        slots: usize,
        depth: &Arc<AtomicUsize>,
        done: Arc<Done>,
        notify: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Result<Self> {
        let (mut rx, mut tx) = (Vec::new(), Vec::new());
        for lane in transport.lanes() {
            if let Some(end) = lane.rx {
                rx.push(RxLane::start(end, slots, transport.framing(), true, notify.clone())?);
            }
            if let Some(end) = lane.tx {
                tx.push(Arc::new(TxLane::new(
                    end,
                    transport.offload(),
                    Arc::clone(depth),
                    Arc::clone(&done),
                )));
            }
        }
        if tx.is_empty() {
            return Err(Errno::ENODEV);
        }
        Ok(Self { rx, tx, done, next: AtomicUsize::new(0) })
    }

    /// Receives into another number of slots from now on. Frames that wait in the host are kept; `old` goes first, so
    /// that they keep their order. `EOPNOTSUPP` on a stream, where bytes in flight would be lost.
    pub fn resize(
        old: Arc<Self>,
        transport: &dyn Transport,
        slots: usize,
        notify: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Result<Self> {
        let (tx, done) = (old.tx.clone(), Arc::clone(&old.done));
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let counts: Vec<_> = old.rx.iter().map(|l| (load(&l.frames), load(&l.bytes))).collect();
        drop(old);
        let mut rx = Vec::new();
        for end in transport.lanes().into_iter().filter_map(|l| l.rx) {
            let lane = RxLane::start(end, slots, transport.framing(), false, notify.clone())?;
            // They count since link-up.
            let (frames, bytes) = counts.get(rx.len()).copied().unwrap_or_default();
            lane.frames.store(frames, Ordering::Relaxed);
            lane.bytes.store(bytes, Ordering::Relaxed);
            rx.push(lane);
        }
        Ok(Self { rx, tx, done, next: AtomicUsize::new(0) })
    }

    /// `ethtool -S`, per queue: what was received and sent since link-up.
    pub fn stats(&self, mut f: impl FnMut(String, u64)) {
        for (i, l) in self.rx.iter().enumerate() {
            f(format!("rx_queue_{i}_frames"), l.frames.load(Ordering::Relaxed));
            f(format!("rx_queue_{i}_bytes"), l.bytes.load(Ordering::Relaxed));
        }
        for (i, l) in self.tx.iter().enumerate() {
            let (frames, bytes) = l.counts();
            f(format!("tx_queue_{i}_frames"), frames);
            f(format!("tx_queue_{i}_bytes"), bytes);
        }
    }

    /// The names that [`stats`](Self::stats) will have.
    pub fn names(transport: &dyn Transport) -> impl Iterator<Item = String> {
        let lanes = transport.lanes();
        let of = |dir: &'static str, n: usize| {
            (0..n).flat_map(move |i| ["frames", "bytes"].map(|w| format!("{dir}_queue_{i}_{w}")))
        };
        let rx = lanes.iter().filter(|l| l.rx.is_some()).count();
        let tx = lanes.iter().filter(|l| l.tx.is_some()).count();
        of("rx", rx).chain(of("tx", tx))
    }

    /// Frames that the host had no room for at first.
    pub fn retried(&self) -> u64 {
        self.tx.iter().map(|l| l.retried()).sum()
    }

    /// Hands up to `budget` received messages to `poll`; the number.
    pub fn poll(&self, slots: &mut Vec<RxSlot>, budget: usize, poll: &mut Poll<'_>) -> usize {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut done = 0;
        for i in 0..self.rx.len() {
            let Some(lane) = self.rx.get((first.wrapping_add(i)) % self.rx.len()) else { break };
            let n = lane.stream.pop_many(slots, budget - done);
            if n > 0 {
                lane.errors.store(0, Ordering::Relaxed);
            }
            done += n;
            let before = poll.out.len();
            match &lane.reassembly {
                None => slots.drain(..).for_each(|s| poll.message(s, &*lane.header)),
                Some(r) => {
                    let mut r = r.lock();
                    slots.drain(..).for_each(|s| poll.chunk(&s, &mut r));
                }
            }
            let new = poll.out.get(before..).unwrap_or(&[]);
            lane.frames.fetch_add(new.len() as u64, Ordering::Relaxed);
            lane.bytes.fetch_add(new.iter().map(|s| s.len() as u64).sum(), Ordering::Relaxed);
        }
        done
    }

    /// The first lane that has stopped, and why.
    pub fn end(&self) -> Option<End> {
        let broken = |l: &RxLane| l.reassembly.as_ref().is_some_and(|r| r.lock().is_broken());
        if self.rx.iter().any(broken) {
            return Some(End::Gone(Err(Errno::EPROTO)));
        }
        self.rx.iter().find_map(RxLane::end)
    }

    /// The lane for a frame.
    pub fn choose(&self, frame: &[u8]) -> Option<&Arc<TxLane>> {
        match &self.tx[..] {
            [one] => Some(one),
            many => many.get(flow_hash(frame) as usize % many.len()),
        }
    }

    /// True if some lane has frames to give to the host.
    pub fn flush(&self) -> Result<()> {
        self.tx.iter().try_for_each(|l| l.flush())
    }

    /// Times receiving stood still because every slot was in use.
    pub fn starved(&self) -> u64 {
        self.rx.iter().map(|l| l.stream.starved()).sum()
    }
}

/// A number that is the same for the frames of a flow: of IP addresses, protocol and ports, else of the link header.
pub fn flow_hash(frame: &[u8]) -> u32 {
    let mut h = 0x811c_9dc5u32;
    let mut mix = |b: Option<&[u8]>| {
        for b in b.unwrap_or_default() {
            h = (h ^ u32::from(*b)).wrapping_mul(0x0100_0193);
        }
    };
    match frame.get(12..14) {
        Some([0x08, 0x00]) => {
            mix(frame.get(23..24));
            mix(frame.get(26..34));
            let l4 = 14 + usize::from(frame.get(14).copied().unwrap_or(0) & 15) * 4;
            // Pieces of a packet have no ports.
            let whole = frame.get(20..22).is_some_and(|b| b[0] & 0x3f == 0 && b[1] == 0);
            if whole && matches!(frame.get(23), Some(6 | 17)) {
                mix(frame.get(l4..l4 + 4));
            }
        }
        Some([0x86, 0xdd]) => {
            mix(frame.get(20..21));
            mix(frame.get(22..54));
            if matches!(frame.get(20), Some(6 | 17)) {
                mix(frame.get(54..58));
            }
        }
        _ => mix(frame.get(..14)),
    }
    // The low bits are used: let the high ones take part.
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_has_one_hash_and_flows_differ() {
        let mut f = vec![0u8; 60];
        f[12] = 8;
        f[14] = 0x45;
        f[23] = 17;
        let one = flow_hash(&f);
        f[50] = 7;
        assert_eq!(flow_hash(&f), one, "payload");
        f[35] = 1;
        assert_ne!(flow_hash(&f), one, "port");
        for len in 0..60 {
            flow_hash(&f[..len]);
        }
    }
}
