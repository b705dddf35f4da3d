//! Frames that arrive: a standing receive into provided slots.

use super::{Place, with_ring};
use crate::machine::lock;
use arch::host::fd::HostFd;
use arch::irqchip::{BufRing, IrqHandler, Op, Outcome, Payload, RxSlot, Sink};
use klib::{Errno, Result};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How frames are taken from a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RxKind {
    /// read(2): tap devices, pipes.
    Read,
    /// recv(2): sockets.
    Recv,
    /// recvmsg(2): UDP sockets with UDP_GRO, whose slots may hold several datagrams ([`RxSlot::segment`]). On a host
    /// without standing receives UDP_GRO is switched off and it is as `Recv`.
    RecvMsg,
    /// recv(2) on a connected stream or SEQPACKET socket: no bytes are the end of it.
    Stream,
}

/// How to receive.
#[derive(Clone, Copy, Debug)]
pub struct RxConfig {
    /// Read or receive.
    pub kind: RxKind,
    /// Slots, a power of two.
    pub slots: u16,
    /// Bytes a slot, headroom included (68 KiB for 64 KiB frames).
    pub slot_size: usize,
    /// Bytes left free before each frame.
    pub headroom: usize,
}

/// Frames of one descriptor, received on the ring of the CPU that started it. Dropping it ends it.
pub struct RxStream(Arc<Shared>);

struct Shared {
    fd: HostFd,
    kind: RxKind,
    bufs: Arc<BufRing>,
    /// Standing operations are available; otherwise one operation a frame.
    multi: bool,
    cpu: usize,
    stop: AtomicBool,
    state: Mutex<State>,
    /// Times receiving stood still because every slot was in use.
    starved: AtomicU64,
    notify: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    frames: VecDeque<RxSlot>,
    place: Option<Place>,
    ended: Option<Result<()>>,
}

impl RxStream {
    /// Starts receiving on this CPU. `notify` runs as an interrupt handler for each frame and at the end of the stream: it
    /// raises a softirq or wakes, no more. `ENXIO` on a foreign thread, `EOPNOTSUPP` on a host without provided buffers.
    pub fn start(fd: &HostFd, cfg: RxConfig, notify: impl Fn() + Send + Sync + 'static) -> Result<Self> {
        let (bufs, cpu, multi) = with_ring(|ring, cpu| {
            let f = ring.features();
            let multi = match cfg.kind {
                RxKind::Read => f.read_multi,
                RxKind::Recv | RxKind::RecvMsg | RxKind::Stream => f.recv_multi,
            };
            ring.new_bufring(cfg.slots, cfg.slot_size, cfg.headroom).map(|b| (b, cpu, multi))
        })
        .ok_or(Errno::ENXIO)??;
        if cfg.kind == RxKind::RecvMsg && !multi {
            arch::host::udp::set_gro(fd, false)?;
        }
        let shared = Arc::new(Shared {
            fd: fd.clone(),
            kind: cfg.kind,
            bufs,
            multi,
            cpu,
            stop: AtomicBool::new(false),
            state: Mutex::default(),
            starved: AtomicU64::new(0),
            notify: Box::new(notify),
        });
        shared.arm();
        Ok(Self(shared))
    }

    /// The next frame, in order of arrival.
    pub fn pop(&self) -> Option<RxSlot> {
        lock(&self.0.state).frames.pop_front()
    }

    /// Up to `max` frames at once, appended to `out`; the number.
    pub fn pop_many(&self, out: &mut Vec<RxSlot>, max: usize) -> usize {
        let mut state = lock(&self.0.state);
        let n = max.min(state.frames.len());
        out.extend(state.frames.drain(..n));
        n
    }

    /// `Some` once receiving has ended: `Ok` at the end of the stream, else the error. Frames may be left.
    pub fn ended(&self) -> Option<Result<()>> {
        lock(&self.0.state).ended
    }

    /// Starts again after an error that has passed (an interface that was down).
    pub fn restart(&self) {
        let was = lock(&self.0.state).ended.take();
        if was.is_some() {
            Shared::arm_at_home(&self.0);
        }
    }

    /// Times every slot was in use and receiving had to wait.
    pub fn starved(&self) -> u64 {
        self.0.starved.load(Ordering::Relaxed)
    }

    /// The CPU that receives.
    pub fn cpu(&self) -> usize {
        self.0.cpu
    }
}

impl Drop for RxStream {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
        let (place, frames) = {
            let mut state = lock(&self.0.state);
            (state.place.take(), std::mem::take(&mut state.frames))
        };
        drop(frames);
        match place {
            Some(p) => p.cancel(),
            None => Shared::free_at_home(&self.0),
        }
    }
}

impl Shared {
    /// Arms the receive; on the home CPU only.
    fn arm(self: &Arc<Self>) {
        let (fd, bufs, multi) = (self.fd.clone(), Arc::clone(&self.bufs), self.multi);
        let op = match self.kind {
            RxKind::Read => Op::ReadSlot { fd, bufs, multi },
            RxKind::RecvMsg if multi => Op::RecvMsgSlot { fd, bufs },
            RxKind::Recv | RxKind::RecvMsg | RxKind::Stream => Op::RecvSlot { fd, bufs, multi },
        };
        let sink = Sink::Irq(Arc::new(RxIrq(Arc::clone(self))), 0);
        let place = with_ring(|ring, cpu| Place { cpu, id: ring.submit(op, sink) });
        lock(&self.state).place = place;
        // Dropped meanwhile on another CPU, which saw no operation to cancel: do it here.
        if self.stop.load(Ordering::Acquire)
            && let Some(place) = lock(&self.state).place.take()
        {
            place.cancel();
        }
    }

    fn arm_at_home(this: &Arc<Self>) {
        let this = Arc::clone(this);
        crate::smp::call_on(this.cpu, move || {
            if !this.stop.load(Ordering::Acquire) {
                this.arm();
            }
        });
    }

    /// Takes the slots out of the ring, once no operation uses them.
    fn free_at_home(this: &Arc<Self>) {
        if crate::machine::machine().is_none() {
            return;
        }
        let this = Arc::clone(this);
        crate::smp::call_on(this.cpu, move || {
            with_ring(|ring, _| ring.free_bufring(&this.bufs));
        });
    }
}

struct RxIrq(Arc<Shared>);

impl IrqHandler for RxIrq {
    fn irq(&self, _token: u64, outcome: Outcome) {
        let this = &self.0;
        let stopped = this.stop.load(Ordering::Acquire);
        let mut go_on = !outcome.more && !stopped;
        {
            let mut state = lock(&this.state);
            if !outcome.more {
                state.place = None;
            }
            match (outcome.result, outcome.payload) {
                (Ok(n), Payload::Slot(slot)) if n > 0 && !stopped => state.frames.push_back(slot),
                (Ok(_), Payload::Slot(_)) if stopped => {}
                // End of a stream; a datagram of no bytes on a socket is skipped.
                (Ok(_), _) if matches!(this.kind, RxKind::Read | RxKind::Stream) && !outcome.more => {
                    state.ended = Some(Ok(()));
                    go_on = false;
                }
                (Ok(_), _) => {}
                (Err(Errno::ENOBUFS | Errno::EINTR | Errno::EAGAIN), _) => {}
                (Err(e), _) => {
                    state.ended = Some(Err(e));
                    go_on = false;
                }
            }
        }
        if stopped {
            if !outcome.more {
                Shared::free_at_home(this);
            }
            return;
        }
        (this.notify)();
        if go_on {
            if this.bufs.available() == 0 {
                this.starved.fetch_add(1, Ordering::Relaxed);
                let again = Arc::clone(this);
                if !this.bufs.wait_refill(Arc::new(move || Shared::arm_at_home(&again))) {
                    return;
                }
            }
            this.arm();
        }
    }
}
