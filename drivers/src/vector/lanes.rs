//! The queues of a NIC that is up: one lane or several, each with its ends. Of several, each receives on a CPU of its own.

use super::header::Header;
use super::rx::{HEADROOM, Poll, SLOT_SIZE};
use super::stream::Reassembly;
use super::transport::{Framing, RxEnd, Transport, TxEnd};
use super::tx::{Done, TxLane};
use arch::host::fd::HostFd;
use executor::irq::{POLLRDHUP, RxConfig, RxKind, RxSlot, RxStream, Standing, poll_standing};
use klib::sync::Mutex;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
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

/// Called as an interrupt for what a lane has received.
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// What queues are made with.
pub struct Maker<'a> {
    /// The way to the host.
    pub transport: &'a dyn Transport,
    /// Receive slots.
    pub slots: usize,
    /// Frames that may wait for the host.
    pub depth: &'a Arc<AtomicUsize>,
    /// For the lane of that number, and the CPU that receives; `None`: this one.
    pub notify: &'a dyn Fn(usize) -> (Notify, Option<usize>),
}

/// The receiving end of a lane.
pub struct RxLane {
    /// Not there yet while its CPU has not begun.
    stream: OnceLock<Result<RxStream>>,
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

/// Waits for the end of a peer that receiving does not tell of.
struct Hangup {
    seen: Arc<AtomicBool>,
    /// Dropped first: it polls the descriptor.
    _poll: Standing,
    _fd: HostFd,
}

impl Hangup {
    fn start(fd: HostFd, notify: Notify) -> Result<Self> {
        let seen = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&seen);
        let poll = poll_standing(fd.as_raw_fd(), POLLRDHUP, move |_| {
            tell.store(true, Ordering::Release);
            notify();
        })?;
        Ok(Self { seen, _poll: poll, _fd: fd })
    }
}

/// Everything of a NIC that is up.
pub struct Queues {
    rx: Vec<Arc<RxLane>>,
    tx: Vec<Arc<TxLane>>,
    /// Told what became of sent frames.
    pub done: Arc<Done>,
    hangup: Option<Arc<Hangup>>,
}

impl RxLane {
    fn start(
        end: RxEnd,
        framing: Framing,
        fresh: bool,
        slots: usize,
        notify: Notify,
        cpu: Option<usize>,
    ) -> Result<Arc<Self>> {
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
        let this = Arc::new(Self {
            stream: OnceLock::new(),
            header: end.header,
            reassembly: stream.then(Mutex::default),
            kind: end.kind,
            errors: AtomicUsize::new(0),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let fd = end.fd;
        let begin = move |notify: Notify| RxStream::start(&fd, cfg, move || notify());
        match cpu.filter(|c| executor::try_this_cpu() != Some(*c)) {
            None => drop(this.stream.set(Ok(begin(notify)?))),
            Some(cpu) => {
                let weak = Arc::downgrade(&this);
                executor::smp::call_on(cpu, move || {
                    if let Some(lane) = weak.upgrade() {
                        let _ = lane.stream.set(begin(Arc::clone(&notify)));
                        notify();
                    }
                });
            }
        }
        Ok(this)
    }

    fn stream(&self) -> Option<&RxStream> {
        self.stream.get()?.as_ref().ok()
    }

    /// Whether it still receives; errors that say nothing of the future are shrugged off.
    fn end(&self) -> Option<End> {
        let stream = match self.stream.get()? {
            Ok(s) => s,
            Err(e) => return Some(End::Gone(Err(*e))),
        };
        let end = stream.ended()?;
        let patient = self.errors.fetch_add(1, Ordering::Relaxed) < MAX_ERRORS;
        match end {
            // A packet socket that cannot say in a virtio-net header what it received drops the frame.
            Err(Errno::EINVAL) if self.kind == RxKind::Recv && patient => {
                stream.restart();
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
                stream.restart();
                None
            }
            Err(Errno::ENETDOWN) => {
                stream.restart();
                Some(End::Down)
            }
            other => Some(End::Gone(other)),
        }
    }
}

impl Maker<'_> {
    fn rx(&self, i: usize, end: RxEnd, fresh: bool) -> Result<Arc<RxLane>> {
        let (notify, cpu) = (self.notify)(i);
        RxLane::start(end, self.transport.framing(), fresh, self.slots, notify, cpu)
    }

    fn tx(&self, end: TxEnd, done: &Arc<Done>) -> Arc<TxLane> {
        Arc::new(TxLane::new(end, self.transport.offload(), Arc::clone(self.depth), Arc::clone(done)))
    }

    /// Starts receiving.
    pub fn start(&self, done: Arc<Done>) -> Result<Queues> {
        let hangup = self.transport.hangup();
        let hangup = hangup.map(|fd| Hangup::start(fd, (self.notify)(0).0).map(Arc::new)).transpose()?;
        let none = Queues { rx: Vec::new(), tx: Vec::new(), done, hangup };
        self.lanes(Arc::new(none))
    }

    /// As many lanes as the transport has now. Those that `old` has go on as if nothing had happened.
    pub fn lanes(&self, old: Arc<Queues>) -> Result<Queues> {
        let (mut rx, mut tx) = (Vec::new(), Vec::new());
        for (i, lane) in self.transport.lanes().into_iter().enumerate() {
            match (old.rx.get(i), lane.rx) {
                (Some(there), Some(_)) => rx.push(Arc::clone(there)),
                (None, Some(end)) => rx.push(self.rx(i, end, true)?),
                (_, None) => {}
            }
            match (old.tx.get(i), lane.tx) {
                (Some(there), Some(_)) => tx.push(Arc::clone(there)),
                (None, Some(end)) => tx.push(self.tx(end, &old.done)),
                (_, None) => {}
            }
        }
        if tx.is_empty() {
            return Err(Errno::ENODEV);
        }
        Ok(Queues { rx, tx, done: Arc::clone(&old.done), hangup: old.hangup.clone() })
    }

    /// Receives into another number of slots from now on. Frames that wait in the host are kept; `old` goes first, so
    /// that they keep their order. Not for a stream, where bytes in flight would be lost.
    pub fn slots(&self, old: Arc<Queues>) -> Result<Queues> {
        let (tx, done, hangup) = (old.tx.clone(), Arc::clone(&old.done), old.hangup.clone());
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let counts: Vec<_> = old.rx.iter().map(|l| (load(&l.frames), load(&l.bytes))).collect();
        drop(old);
        let mut rx = Vec::new();
        for (i, end) in self.transport.lanes().into_iter().filter_map(|l| l.rx).enumerate() {
            let lane = self.rx(i, end, false)?;
            // They count since link-up.
            let (frames, bytes) = counts.get(i).copied().unwrap_or_default();
            lane.frames.store(frames, Ordering::Relaxed);
            lane.bytes.store(bytes, Ordering::Relaxed);
            rx.push(lane);
        }
        Ok(Queues { rx, tx, done, hangup })
    }
}

impl Queues {
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

    /// Hands up to `budget` messages that a lane has received to `poll`; the number.
    pub fn poll(&self, lane: usize, slots: &mut Vec<RxSlot>, budget: usize, poll: &mut Poll<'_>) -> usize {
        let Some(lane) = self.rx.get(lane) else { return 0 };
        let Some(stream) = lane.stream() else { return 0 };
        let n = stream.pop_many(slots, budget);
        if n > 0 {
            lane.errors.store(0, Ordering::Relaxed);
        }
        let before = poll.taken;
        match &lane.reassembly {
            None => slots.drain(..).for_each(|s| poll.message(s, &*lane.header)),
            Some(r) => {
                let mut r = r.lock();
                slots.drain(..).for_each(|s| poll.chunk(&s, &mut r));
            }
        }
        lane.frames.fetch_add(poll.taken.0 - before.0, Ordering::Relaxed);
        lane.bytes.fetch_add(poll.taken.1 - before.1, Ordering::Relaxed);
        poll.finish();
        n
    }

    /// The first lane that has stopped, and why.
    pub fn end(&self) -> Option<End> {
        let broken = |l: &Arc<RxLane>| l.reassembly.as_ref().is_some_and(|r| r.lock().is_broken());
        if self.rx.iter().any(broken) {
            return Some(End::Gone(Err(Errno::EPROTO)));
        }
        if self.hangup.as_ref().is_some_and(|h| h.seen.load(Ordering::Acquire)) {
            return Some(End::Gone(Ok(())));
        }
        self.rx.iter().find_map(|l| l.end())
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
        self.rx.iter().filter_map(|l| l.stream()).map(RxStream::starved).sum()
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
