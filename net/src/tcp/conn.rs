//! A connection: its engine behind a lock, the backlog for segments that come while the lock is held, its timers, its
//! errors and its readiness.

use super::ehash::FlowKey;
use super::flow::{Flow, TcpState};
use super::listen::Listener;
use super::opts::TcpOpts;
use super::segment::{RST, Segment};
use crate::dev::txq::TxWaiter;
use crate::diag::Owner;
use crate::ip::header_len;
use crate::netns::{Net, TimerEvent};
use crate::poll;
use crate::route::Route;
use crate::skb::Skb;
use klib::ktime::Ktime;
use klib::sync::Mutex;
use klib::timerqueue::TimerId;
use klib::waitqueue::WaitQueue;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use uapi::Errno;

/// Half-closed connections nobody holds any more live this long (Linux: tcp_fin_timeout).
const FIN_TIMEOUT: Duration = Duration::from_secs(60);
/// A handshake from outside that is not completed.
const SYNRECV_TIMEOUT: Duration = Duration::from_secs(63);
/// Bytes a busy connection lets wait beyond its receive ring.
const BACKLOG_SLACK: usize = 1 << 20;

#[derive(Default)]
struct Backlog {
    frames: VecDeque<Skb>,
    bytes: usize,
}

/// What hangs behind the lock of a connection.
pub(super) struct Inner {
    pub(super) flow: Flow,
    pub(super) opts: TcpOpts,
    /// Error to be reported once.
    pub(super) err: Option<Errno>,
    /// Error from ICMP that is only reported if the connection dies of it.
    pub(super) soft_err: Option<Errno>,
    /// shutdown(2) of the reading side.
    pub(super) rcv_shutdown: bool,
    /// shutdown(2) or close(2) of the writing side.
    pub(super) snd_shutdown: bool,
    /// No socket holds it any more.
    pub(super) orphan: bool,
    /// A writer found the ring full: wake it when there is room.
    pub(super) want_space: bool,
    listener: Option<Weak<Listener>>,
    route: Option<(u64, Route)>,
    last_state: TcpState,
    /// When the peer was last heard, or data was first sent after a pause.
    pub(super) heard: Ktime,
    pub(super) probes: u32,
    waiting: bool,
    orphaned: Ktime,
    timer: Option<(Ktime, TimerId)>,
    in_hash: bool,
    scratch: VecDeque<Skb>,
}

/// A connection.
pub struct Conn {
    /// Its ends.
    pub key: FlowKey,
    /// Woken with poll bits.
    pub wq: WaitQueue,
    net: Weak<Net>,
    inner: Mutex<Inner>,
    backlog: Mutex<Backlog>,
    /// Holders of the lock, and who waits for it, that do no work with it.
    peekers: AtomicU32,
    /// Something happened that whoever has the lock must look at: a timer, room in the device.
    kicked: AtomicBool,
    /// Poll bits to wake with once the lock is free.
    events: AtomicU32,
    rcvbuf: usize,
    /// Who holds it.
    owner: Mutex<Owner>,
}

impl Conn {
    pub(super) fn new(
        net: &Net,
        key: FlowKey,
        flow: Flow,
        opts: TcpOpts,
        wq: WaitQueue,
        listener: Option<&Arc<Listener>>,
    ) -> Arc<Self> {
        let now = net.now();
        let rcvbuf = flow.recv_capacity();
        let last_state = flow.state();
        Arc::new(Self {
            key,
            wq,
            net: net.weak(),
            inner: Mutex::new(Inner {
                flow,
                opts,
                err: None,
                soft_err: None,
                rcv_shutdown: false,
                snd_shutdown: false,
                orphan: false,
                want_space: false,
                listener: listener.map(Arc::downgrade),
                route: None,
                last_state,
                heard: now,
                probes: 0,
                waiting: false,
                orphaned: now,
                timer: None,
                in_hash: true,
                scratch: VecDeque::new(),
            }),
            backlog: Mutex::default(),
            peekers: AtomicU32::new(0),
            kicked: AtomicBool::new(false),
            events: AtomicU32::new(0),
            rcvbuf,
            owner: Mutex::new(Owner { cookie: net.next_ino(), ..Owner::default() }),
        })
    }

    /// Queues a segment (IP header first). Follow with [`poll`](Self::poll).
    pub(crate) fn enqueue(&self, skb: Skb) {
        let mut b = self.backlog.lock();
        if b.bytes > self.rcvbuf + BACKLOG_SLACK {
            return;
        }
        b.bytes += skb.len();
        b.frames.push_back(skb);
    }

    fn has_work(&self) -> bool {
        self.kicked.load(Ordering::Acquire) || !self.backlog.lock().frames.is_empty()
    }

    /// Does what waits, unless somebody else holds the connection: then they do it.
    pub(crate) fn poll(self: &Arc<Self>, net: &Net) {
        while self.has_work() {
            let mut g = match self.inner.try_lock() {
                Some(g) => g,
                // Somebody who only looks may hold it; that is soon over.
                None if self.peekers.load(Ordering::SeqCst) > 0 => self.inner.lock(),
                None => return,
            };
            self.run(&mut g, net);
            drop(g);
            self.wake();
        }
    }

    /// Works on the connection with its lock held; what it caused is sent before this returns.
    pub(super) fn with<R>(self: &Arc<Self>, net: &Net, f: impl FnOnce(&mut Inner) -> R) -> R {
        let mut g = self.inner.lock();
        let r = f(&mut g);
        self.run(&mut g, net);
        drop(g);
        self.wake();
        self.poll(net);
        r
    }

    /// Looks at the connection, changing nothing that would have to be sent.
    pub(super) fn peek<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        // Who finds the lock taken leaves the work to the holder, and this one does none: see `poll`.
        self.peekers.fetch_add(1, Ordering::SeqCst);
        let r = f(&mut self.inner.lock());
        self.peekers.fetch_sub(1, Ordering::SeqCst);
        r
    }

    /// Who holds it.
    pub fn owner(&self) -> Owner {
        *self.owner.lock()
    }

    pub(super) fn set_owner(&self, o: Owner) {
        *self.owner.lock() = o;
    }

    /// Bytes of segments that wait for the lock.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog.lock().bytes
    }

    /// True while data or the FIN of a connection that its socket has let go of is not acknowledged.
    pub fn is_lingering(&self) -> bool {
        let closing = |s| matches!(s, TcpState::FinWait1 | TcpState::Closing | TcpState::LastAck);
        self.peek(|i| i.orphan && closing(i.flow.state()))
    }

    /// Wakes with what was raised while the lock was held.
    fn wake(&self) {
        let ev = self.events.swap(0, Ordering::AcqRel);
        if ev != 0 {
            self.wq.wake(ev);
        }
    }

    fn raise(&self, bits: u32) {
        self.events.fetch_or(bits, Ordering::AcqRel);
    }

    /// A timer of this connection fired, or its device has room.
    pub(crate) fn kick(self: &Arc<Self>, net: &Net) {
        self.kicked.store(true, Ordering::Release);
        self.poll(net);
    }

    /// Ends the connection with a RST.
    pub(crate) fn abort(self: &Arc<Self>, net: &Net) {
        self.with(net, |i| {
            i.orphan = true;
            i.flow.abort();
        });
    }

    /// Everything that follows a change: backlog, output, states, timers.
    fn run(self: &Arc<Self>, i: &mut Inner, net: &Net) {
        let now = net.now();
        self.kicked.store(false, Ordering::Release);
        loop {
            {
                let mut b = self.backlog.lock();
                if b.frames.is_empty() {
                    break;
                }
                b.bytes = 0;
                std::mem::swap(&mut b.frames, &mut i.scratch);
            }
            while let Some(skb) = i.scratch.pop_front() {
                self.segment(i, skb, now);
            }
        }
        self.deadlines(i, now);
        self.transmit(i, net, now);
        self.transitions(i, net, now);
        i.flow.tidy(now);
        self.arm(i, net, now);
    }

    fn segment(&self, i: &mut Inner, skb: Skb, now: Ktime) {
        let Some(seg) = Segment::parse(skb.data(), header_len(self.key.laddr)) else { return };
        let (before, queued) = (i.flow.state(), i.flow.recv_queue());
        // Nobody will read it: the peer is told so (RFC 1122 section 4.2.2.13).
        if i.orphan && seg.payload > 0 && matches!(before, TcpState::FinWait1 | TcpState::FinWait2) {
            i.flow.abort();
            return;
        }
        i.flow.input(now, skb, &seg);
        i.heard = now;
        i.probes = 0;
        if i.flow.recv_queue() > queued {
            self.raise(poll::IN | poll::RDNORM);
        }
        let after = i.flow.state();
        let was_listening = before == TcpState::SynRecv && after == TcpState::Listen;
        if (after == TcpState::Close && before != TcpState::Close && seg.flags & RST != 0) || was_listening {
            let e = match before {
                TcpState::SynSent => Errno::ECONNREFUSED,
                TcpState::CloseWait => Errno::EPIPE,
                _ => Errno::ECONNRESET,
            };
            i.err = Some(e);
            if was_listening {
                i.flow.abort();
            }
        }
    }

    /// Deadlines that the engine does not keep: give up, keep alive, orphans.
    fn deadlines(&self, i: &mut Inner, now: Ktime) {
        let Some(at) = self.deadline(i) else { return };
        if at > now {
            return;
        }
        let state = i.flow.state();
        let idle = i.flow.send_queue() == 0 && matches!(state, TcpState::Established | TcpState::CloseWait);
        if idle && i.probes < i.opts.keepcnt {
            i.probes += 1;
            i.flow.probe(now);
            return;
        }
        i.err = Some(i.soft_err.take().unwrap_or(Errno::ETIMEDOUT));
        i.flow.abort();
    }

    pub(super) fn deadline(&self, i: &Inner) -> Option<Ktime> {
        let user =
            (i.opts.user_timeout_ms != 0).then(|| Duration::from_millis(u64::from(i.opts.user_timeout_ms)));
        match i.flow.state() {
            TcpState::SynSent => {
                let n = u32::from(i.opts.syn_retries.clamp(1, 127)).min(7);
                Some(i.heard + user.unwrap_or(Duration::from_secs((2 << n) - 1)))
            }
            TcpState::SynRecv | TcpState::Listen => Some(i.heard + SYNRECV_TIMEOUT),
            TcpState::FinWait2 if i.orphan => Some(i.orphaned + FIN_TIMEOUT),
            TcpState::FinWait1 | TcpState::Closing | TcpState::LastAck => {
                let limit = if i.orphan { 110 } else { 924 };
                Some(i.heard + user.unwrap_or(Duration::from_secs(limit)))
            }
            TcpState::Established | TcpState::CloseWait if i.flow.send_queue() > 0 => {
                Some(i.heard + user.unwrap_or(Duration::from_secs(924)))
            }
            TcpState::Established | TcpState::CloseWait | TcpState::FinWait2 if i.opts.keepalive => {
                let (idle, intvl) = (u64::from(i.opts.keepidle), u64::from(i.opts.keepintvl));
                Some(i.heard + Duration::from_secs(idle + intvl * u64::from(i.probes)))
            }
            _ => None,
        }
    }

    fn route(&self, i: &mut Inner, net: &Net) -> Option<Route> {
        let generation = net.route_generation();
        if let Some((g, r)) = &i.route
            && *g == generation
        {
            return Some(r.clone());
        }
        match net.route_lookup(self.key.raddr, Some(self.key.laddr), i.opts.oif) {
            Ok(r) => {
                i.route = Some((generation, r.clone()));
                i.flow.set_mtu(net.now(), r.mtu as usize);
                Some(r)
            }
            Err(e) => {
                i.route = None;
                i.soft_err = Some(e);
                None
            }
        }
    }

    fn transmit(self: &Arc<Self>, i: &mut Inner, net: &Net, now: Ktime) {
        let route = self.route(i, net);
        if i.waiting {
            // The device told that it has room only through a kick; any other run may look again too.
            i.waiting = false;
        }
        // Bounded: one round cannot send more than a window, but a broken engine must not spin for ever.
        for _ in 0..100_000 {
            if let Some(r) = &route
                && r.dev.txq.is_congested()
            {
                i.waiting = true;
                break;
            }
            if !i.flow.output_one(now) {
                break;
            }
            let Inner { flow, opts, .. } = i;
            flow.take(false, |skb| super::output::send(net, route.as_ref(), &self.key, opts, skb));
        }
        let Inner { flow, opts, .. } = i;
        flow.take(true, |skb| super::output::send(net, route.as_ref(), &self.key, opts, skb));
        if i.waiting
            && let Some(r) = &route
        {
            r.dev.txq.wait(Arc::clone(self) as Arc<dyn TxWaiter>);
        }
    }

    fn transitions(self: &Arc<Self>, i: &mut Inner, net: &Net, now: Ktime) {
        let (old, new) = (i.last_state, i.flow.state());
        if i.want_space && !i.snd_shutdown && i.writable() {
            i.want_space = false;
            self.raise(poll::OUT | poll::WRNORM);
        }
        if new != old {
            i.last_state = new;
            let opening = |s| matches!(s, TcpState::SynSent | TcpState::SynRecv | TcpState::Listen);
            if opening(old) && !opening(new) {
                self.established(i, net, new);
            }
            match new {
                TcpState::CloseWait | TcpState::Closing | TcpState::TimeWait | TcpState::LastAck => {
                    self.raise(poll::IN | poll::RDNORM | poll::RDHUP);
                }
                TcpState::Close => self.raise(poll::ALL),
                // A close that lingers waits for it.
                TcpState::FinWait2 => self.raise(poll::OUT | poll::WRNORM),
                _ => {}
            }
        }
        if i.orphan && i.flow.state() == TcpState::FinWait2 && i.flow.recv_queue() > 0 {
            i.flow.abort();
            self.transmit(i, net, now);
        }
        match i.flow.state() {
            TcpState::Close => self.detach(i, net),
            TcpState::TimeWait if i.orphan => {
                let (snd, rcv) = i.flow.seqs();
                self.detach(i, net);
                net.timewait_enter(self.key, snd, rcv, now);
            }
            _ => {}
        }
    }

    fn established(self: &Arc<Self>, i: &mut Inner, net: &Net, new: TcpState) {
        self.raise(poll::OUT | poll::WRNORM);
        let Some(weak) = i.listener.take() else { return };
        let listener = weak.upgrade();
        if new == TcpState::Close {
            if let Some(l) = listener {
                l.syn_failed();
            }
            return;
        }
        match listener {
            Some(l) if l.complete(self) => {
                // Woken here with the lock held: the waiter's look at the accept queue does not need it.
                l.wq.wake(poll::IN | poll::RDNORM);
            }
            _ => {
                i.orphan = true;
                i.flow.abort();
                let now = net.now();
                self.transmit(i, net, now);
            }
        }
    }

    /// Takes the connection out of the tables.
    fn detach(self: &Arc<Self>, i: &mut Inner, net: &Net) {
        if let Some(l) = i.listener.take().and_then(|w| w.upgrade()) {
            l.syn_failed();
        }
        if std::mem::replace(&mut i.in_hash, false) {
            net.tcp.ehash.remove(&self.key);
            net.tcp.ports.use_port(self.key.lport, false);
        }
    }

    fn arm(self: &Arc<Self>, i: &mut Inner, net: &Net, now: Ktime) {
        let engine = match i.flow.poll_at(now) {
            // What it wants now it cannot have (no room, no route): look again soon instead of at once.
            Some(t) if t <= now => Some(now + Duration::from_millis(if i.waiting { 200 } else { 10 })),
            t => t,
        };
        let wanted = [engine, self.deadline(i), i.flow.tidy_at()];
        let Some(at) = wanted.into_iter().flatten().min() else { return };
        if !i.in_hash {
            return;
        }
        // A timer that fires too early looks again; so the queue is only touched when the deadline comes nearer.
        if let Some((armed, id)) = i.timer {
            if armed <= at && armed > now {
                return;
            }
            net.disarm(id);
        }
        let id = net.arm(at, TimerEvent::Conn(Arc::downgrade(self)));
        i.timer = Some((at, id));
    }

    /// An ICMP error about a packet of ours with sequence number `seq`.
    pub(super) fn icmp_error(self: &Arc<Self>, net: &Net, seq: u32, err: Errno, mtu: u32) {
        self.with(net, |i| {
            if !i.flow.is_in_flight(seq) {
                return;
            }
            if err == Errno::EMSGSIZE {
                // Too small to be true is not believed; who sends more than that must have a reason (RFC 1191).
                if mtu != 0 && (mtu as usize) < i.flow.mtu() {
                    let now = net.now();
                    let mtu = net.pmtu.learn(self.key.raddr, mtu, now);
                    net.bump_routes();
                    i.flow.set_mtu(now, mtu as usize);
                }
                return;
            }
            if matches!(i.flow.state(), TcpState::SynSent | TcpState::SynRecv) {
                i.err = Some(err);
                i.flow.abort();
            } else {
                i.soft_err = Some(err);
            }
        });
    }

    /// The socket lets go of the connection. `rst`: at once, with a RST.
    pub(super) fn release(self: &Arc<Self>, net: &Net, rst: bool) {
        let now = net.now();
        let cookie = self.owner().cookie;
        self.set_owner(Owner { cookie, ..Owner::default() });
        self.with(net, |i| {
            i.orphan = true;
            i.orphaned = now;
            i.heard = now;
            i.rcv_shutdown = true;
            i.snd_shutdown = true;
            if rst || i.flow.recv_queue() > 0 || matches!(i.flow.state(), TcpState::SynSent) {
                i.flow.abort();
            } else {
                i.flow.close();
            }
        });
    }
}

impl Inner {
    /// Room enough that a writer should be woken: a third of the ring (Linux: `sk_stream_is_writeable`).
    pub(super) fn writable(&self) -> bool {
        let (used, cap) = (self.flow.send_queue(), self.flow.send_capacity());
        self.flow.may_send() && cap - used >= used / 2 && used < cap
    }

    /// poll(2) bits.
    pub(super) fn poll_mask(&mut self) -> u32 {
        let state = self.flow.state();
        let mut m = 0;
        if self.err.is_some() {
            m |= poll::ERR;
        }
        let eof = matches!(
            state,
            TcpState::CloseWait
                | TcpState::Closing
                | TcpState::TimeWait
                | TcpState::LastAck
                | TcpState::Close
        );
        if state == TcpState::Close || (self.rcv_shutdown && self.snd_shutdown) {
            m |= poll::HUP;
        }
        if self.rcv_shutdown || eof {
            m |= poll::IN | poll::RDNORM | poll::RDHUP;
        }
        if matches!(state, TcpState::SynSent | TcpState::SynRecv) {
            return m;
        }
        if self.flow.recv_queue() >= self.opts.rcvlowat.max(1) {
            m |= poll::IN | poll::RDNORM;
        }
        if self.snd_shutdown || state == TcpState::Close || self.writable() {
            m |= poll::OUT | poll::WRNORM;
        } else {
            self.want_space = true;
        }
        m
    }

    /// Makes the options that changed known to the engine.
    pub(super) fn apply_options(&mut self) {
        self.flow.set_nodelay(self.opts.nodelay && !self.opts.cork);
        if self.opts.ttl != 0 {
            self.flow.set_ttl(self.opts.ttl);
        }
        if let Some(a) = self.opts.congestion {
            self.flow.set_algorithm(a);
        }
    }

    /// Time passes for the give-up deadline only while something is outstanding.
    pub(super) fn begins_to_send(&mut self, now: Ktime) {
        if self.flow.send_queue() == 0 {
            self.heard = now;
            self.flow.wake(now);
        }
    }
}

impl TxWaiter for Conn {
    fn tx_ready(self: Arc<Self>) {
        if let Some(net) = self.net.upgrade() {
            self.kick(&net);
        } else {
            self.kicked.store(true, Ordering::Release);
        }
    }
}
