//! A network namespace: all devices, addresses, routes, sockets of one stack, its timers and its softirq.
//!
//! Lock order of the namespace's own locks: `fib`, `local`, `broadcasts` and `timers` are leaves among themselves; the
//! loopback is emptied with no lock held but `lo_busy`.

use crate::capture::Capture;
use crate::dev::loopback::Loopback;
use crate::dev::{Dev, DevTable, Features, IfFlags, NetDevice};
use crate::ip::frag::FragStore;
use crate::neigh::{NeighKey, NeighTable};
use crate::raw::RawTable;
use crate::route::{Fib, PmtuCache};
use crate::rtnl;
use crate::skb::{Skb, SkbPool};
use crate::sysctl::Sysctl;
use crate::tcp::{Conn, FlowKey, Keyed, RxBatch, TcpStack};
use crate::udp::UdpTable;
use klib::ktime::Ktime;
use klib::sync::{Mutex, RwLock};
use klib::timerqueue::{TimerId, TimerQueue};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use uapi::Result;

/// What the stack needs from whoever runs it.
pub trait NetHost: Send + Sync {
    /// CLOCK_MONOTONIC now.
    fn now(&self) -> Ktime;
    /// Wall-clock nanoseconds since 1970 (time stamps of packets).
    fn realtime_ns(&self) -> u64 {
        0
    }
    /// Fills `out` with random bytes that cannot be foretold. Called rarely (keys).
    fn random(&self, out: &mut [u8]);
    /// There is work that nobody is doing: call [`Net::run_softirq`] soon, with no lock held. Must not call back at once.
    fn raise_softirq(&self);
    /// [`Net::next_timer`] has become earlier: `at`. Must not call back at once.
    fn timer_armed(&self, at: Ktime);
    /// A message for those who listen to a group of rtnetlink (`RTNLGRP_*`, from 1).
    fn announce(&self, _group: u32, _msg: &[u8]) {}
}

/// Who is to be told when a time has come.
pub(crate) enum TimerEvent {
    Conn(Weak<Conn>),
    Neigh(NeighKey),
    TimeWait,
}

/// Limits how many ICMP errors leave (Linux: icmp_msgs_per_sec, icmp_msgs_burst).
#[derive(Default)]
pub(crate) struct IcmpLimit {
    state: Mutex<(u64, u64)>,
}

impl IcmpLimit {
    /// True if one more may leave: 1000 a second, 50 at once.
    pub(crate) fn allow(&self, now: Ktime) -> bool {
        let mut s = self.state.lock();
        let ms = now.as_ns() / 1_000_000;
        let fresh = ms.saturating_sub(s.1);
        if fresh > 0 || s.1 == 0 {
            s.0 = if s.1 == 0 { 50 } else { (s.0 + fresh).min(50) };
            s.1 = ms.max(1);
        }
        if s.0 == 0 {
            return false;
        }
        s.0 -= 1;
        true
    }
}

/// Counters of the namespace.
#[derive(Default)]
pub struct NetStats {
    /// SYNs dropped because an accept queue was full.
    pub listen_drops: AtomicU64,
}

/// One network stack. Everything hangs off it; every method may be called from any CPU.
pub struct Net {
    me: Weak<Net>,
    pub(crate) host: Arc<dyn NetHost>,
    pub(crate) pool: Arc<SkbPool>,
    /// The devices.
    pub devs: DevTable,
    /// The loopback device.
    pub lo: Arc<Dev>,
    lo_drv: Arc<Loopback>,
    lo_busy: Mutex<()>,
    /// Routes. Change them through this lock, then call [`bump_routes`](Self::bump_routes).
    pub fib: RwLock<Fib>,
    /// Path MTUs.
    pub pmtu: PmtuCache,
    /// Neighbours.
    pub neigh: NeighTable,
    /// Tunables.
    pub sysctl: Sysctl,
    /// Counters.
    pub stats: NetStats,
    pub(crate) local: RwLock<HashMap<IpAddr, u32>>,
    pub(crate) broadcasts: RwLock<HashSet<Ipv4Addr>>,
    pub(crate) frags: Mutex<FragStore>,
    pub(crate) icmp_limit: IcmpLimit,
    /// TCP's tables.
    pub tcp: TcpStack,
    pub(crate) udp: UdpTable,
    pub(crate) raw: RawTable,
    timers: Mutex<TimerQueue<TimerEvent>>,
    tw_timer: AtomicBool,
    route_gen: AtomicU64,
    next_id: AtomicU64,
    pub(crate) ip_id: AtomicU32,
    key: Keyed,
    draws: AtomicU64,
    /// Devices (bit = ifindex modulo 64) that got frames since the last flush.
    dirty: AtomicU64,
    capture: RwLock<Option<Arc<dyn Capture>>>,
    capturing: AtomicBool,
}

/// A driver's way back into the stack; holds nothing alive.
#[derive(Clone)]
pub struct NetRef(Weak<Net>);

impl NetRef {
    /// As [`Net::rx`]; frames are dropped if the stack is gone.
    pub fn rx(&self, ifindex: u32, frames: impl Iterator<Item = Skb>) {
        if let Some(net) = self.0.upgrade() {
            net.rx(ifindex, frames);
        }
    }

    /// As [`Net::tx_wake`].
    pub fn tx_wake(&self, ifindex: u32) {
        if let Some(net) = self.0.upgrade() {
            net.tx_wake(ifindex);
        }
    }

    /// The device's carrier or features changed: tells whoever listens.
    pub fn link_changed(&self, ifindex: u32) {
        if let Some(net) = self.0.upgrade() {
            net.link_changed(ifindex);
        }
    }

    /// The pool for frames that the driver makes itself.
    pub fn pool(&self) -> Option<Arc<SkbPool>> {
        self.0.upgrade().map(|n| Arc::clone(&n.pool))
    }
}

/// Frames that the loopback delivers before others have their turn.
const LO_BUDGET: usize = 512;

impl Net {
    /// A namespace with its loopback device (down).
    pub fn new(host: Arc<dyn NetHost>) -> Arc<Self> {
        let mut k = [0; 16];
        host.random(&mut k);
        let half = |i: usize| u64::from_le_bytes(k[i..i + 8].try_into().unwrap_or([7; 8]));
        let key = Keyed(half(0), half(8));
        let lo_drv = Arc::new(Loopback::new());
        let devs = DevTable::default();
        let lo = devs.register_loopback(Arc::clone(&lo_drv) as Arc<dyn NetDevice>);
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            host,
            pool: SkbPool::new(),
            devs,
            lo,
            lo_drv,
            lo_busy: Mutex::new(()),
            fib: RwLock::default(),
            pmtu: PmtuCache::default(),
            neigh: NeighTable::default(),
            sysctl: Sysctl::default(),
            stats: NetStats::default(),
            local: RwLock::default(),
            broadcasts: RwLock::default(),
            frags: Mutex::default(),
            icmp_limit: IcmpLimit::default(),
            tcp: TcpStack::new(key),
            udp: UdpTable::default(),
            raw: RawTable::default(),
            timers: Mutex::default(),
            tw_timer: AtomicBool::new(false),
            route_gen: AtomicU64::new(0),
            next_id: AtomicU64::new(4_026_531_840),
            ip_id: AtomicU32::new(key.1 as u32),
            key: Keyed(key.1, !key.0),
            draws: AtomicU64::new(0),
            dirty: AtomicU64::new(0),
            capture: RwLock::new(None),
            capturing: AtomicBool::new(false),
        })
    }

    pub(crate) fn weak(&self) -> Weak<Self> {
        self.me.clone()
    }

    /// The namespace's packet buffers.
    pub fn pool(&self) -> &Arc<SkbPool> {
        &self.pool
    }

    /// Time, as the host says.
    pub fn now(&self) -> Ktime {
        self.host.now()
    }

    pub(crate) fn random_u64(&self) -> u64 {
        self.key.hash(&self.draws.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn random_u32(&self) -> u32 {
        self.random_u64() as u32
    }

    pub(crate) fn next_ino(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn next_ip_id(&self) -> u16 {
        self.ip_id.fetch_add(1, Ordering::Relaxed) as u16
    }

    /// Changes whenever a cached route may be wrong.
    pub(crate) fn route_generation(&self) -> u64 {
        self.route_gen.load(Ordering::Acquire)
    }

    /// Makes everyone look their routes up again.
    pub fn bump_routes(&self) {
        self.route_gen.fetch_add(1, Ordering::AcqRel);
    }

    /// Registers a device, which is down at first.
    pub fn register(&self, drv: Arc<dyn NetDevice>) -> Result<Arc<Dev>> {
        let dev = self.devs.register(drv)?;
        dev.drv.attach(NetRef(self.me.clone()), dev.ifindex);
        Ok(dev)
    }

    /// Takes received frames of a device, Ethernet header first, in the order of their arrival. Called from the
    /// driver's softirq with no lock held; answers and acknowledgements are handed to drivers before it returns.
    pub fn rx(&self, ifindex: u32, frames: impl Iterator<Item = Skb>) {
        let Some(dev) = self.devs.get(ifindex) else { return };
        if !dev.is_up() {
            return frames.for_each(drop);
        }
        let mut batch = RxBatch::default();
        // Where the host or the driver merges already, looking again finds little.
        let mergeable = dev.drv.features() & (Features::GRO | Features::LRO) == Features::GRO;
        if mergeable && !dev.drv.merges() {
            let mut merged = Vec::new();
            {
                let mut gro = dev.gro.lock();
                for skb in frames {
                    gro.receive(skb, &self.pool, &mut merged);
                }
                gro.flush(&mut merged);
            }
            for skb in merged {
                self.eth_rcv(&dev, skb, &mut batch);
            }
        } else {
            for skb in frames {
                self.eth_rcv(&dev, skb, &mut batch);
            }
        }
        batch.finish(self);
        self.kick();
    }

    /// The driver has room for frames again after it refused one.
    pub fn tx_wake(&self, ifindex: u32) {
        if let Some(dev) = self.devs.get(ifindex) {
            dev.txq.wake(&*dev.drv);
            // What the driver has taken just now has to be flushed, or its end would never come.
            self.mark_dirty(ifindex);
            self.kick();
        }
    }

    /// A device's carrier, features, name, address or MTU changed.
    pub fn link_changed(&self, ifindex: u32) {
        if let Some(dev) = self.devs.get(ifindex) {
            self.announce_link(&dev, IfFlags::empty());
        }
        self.bump_routes();
    }

    /// Tells whoever listens how a device stands; `change`: the flags that somebody has changed.
    pub(crate) fn announce_link(&self, dev: &Dev, change: IfFlags) {
        match dev.carrier_changed() {
            // Whoever is there when it is back may have another address.
            Some(false) => self.neigh.flush(dev.ifindex, false),
            Some(true) => self.neigh.ask_again(dev.ifindex),
            None => {}
        }
        self.host.announce(rtnl::link::GROUP, &rtnl::link::news(dev, change));
    }

    pub(crate) fn mark_dirty(&self, ifindex: u32) {
        self.dirty.fetch_or(1 << (ifindex % 64), Ordering::AcqRel);
    }

    /// Ends a burst: empties the loopback, lets drivers flush. Every entry point of the stack calls it last, with no
    /// lock held.
    pub(crate) fn kick(&self) {
        loop {
            let dirty = self.dirty.swap(0, Ordering::AcqRel);
            if dirty == 0 {
                return;
            }
            if dirty & (1 << (self.lo.ifindex % 64)) != 0 && !self.run_loopback() {
                self.host.raise_softirq();
            }
            let others = dirty & !(1 << (self.lo.ifindex % 64));
            if others != 0 {
                for d in self.devs.all() {
                    if others & (1 << (d.ifindex % 64)) != 0 {
                        d.drv.flush();
                    }
                }
            }
        }
    }

    /// Delivers what the loopback holds; false if some is left.
    fn run_loopback(&self) -> bool {
        let mut frames = Vec::new();
        let mut done = 0;
        while self.lo_drv.has_work() {
            // Whoever holds the lock looks again after its batch, so nothing is left behind.
            let Some(_busy) = self.lo_busy.try_lock() else { return true };
            if done >= LO_BUDGET {
                return false;
            }
            self.lo_drv.take(&mut frames, 64);
            done += frames.len();
            let mut batch = RxBatch::default();
            for skb in frames.drain(..) {
                self.eth_rcv(&self.lo, skb, &mut batch);
            }
            batch.finish(self);
        }
        true
    }

    /// Does what [`NetHost::raise_softirq`] asked for.
    pub fn run_softirq(&self) {
        self.mark_dirty(self.lo.ifindex);
        self.kick();
    }

    pub(crate) fn arm(&self, at: Ktime, ev: TimerEvent) -> TimerId {
        let mut q = self.timers.lock();
        let first = q.next();
        let id = q.add(at, ev);
        drop(q);
        if first.is_none_or(|f| at < f) {
            self.host.timer_armed(at);
        }
        id
    }

    pub(crate) fn disarm(&self, id: TimerId) {
        let old = self.timers.lock().cancel(id);
        drop(old);
    }

    /// When [`run_timers`](Self::run_timers) wants to be called next.
    pub fn next_timer(&self) -> Option<Ktime> {
        self.timers.lock().next()
    }

    /// Runs what is due.
    pub fn run_timers(&self, now: Ktime) {
        // Bounded, so that a timer that re-arms itself in the past cannot hold the CPU.
        for _ in 0..10_000 {
            let ev = self.timers.lock().pop_due(now);
            match ev {
                None => break,
                Some(TimerEvent::Conn(w)) => {
                    if let Some(c) = w.upgrade() {
                        c.kick(self);
                    }
                }
                Some(TimerEvent::Neigh(k)) => self.neigh.timer(self, k),
                Some(TimerEvent::TimeWait) => {
                    let (gone, next) = self.tcp.timewait.expire(now);
                    self.tw_timer.store(false, Ordering::Release);
                    for k in gone {
                        self.tcp.ports.use_port(k.lport, false);
                    }
                    if let Some(at) = next {
                        self.arm_timewait(at);
                    }
                }
            }
        }
        self.kick();
    }

    fn arm_timewait(&self, at: Ktime) {
        if !self.tw_timer.swap(true, Ordering::AcqRel) {
            // Once a second is often enough for something that lasts sixty.
            self.arm(at + Duration::from_secs(1), TimerEvent::TimeWait);
        }
    }

    pub(crate) fn timewait_enter(&self, key: FlowKey, snd_nxt: u32, rcv_nxt: u32, now: Ktime) {
        if self.tcp.timewait.get(&key).is_none() {
            self.tcp.ports.use_port(key.lport, true);
        }
        for k in self.tcp.timewait.insert(key, snd_nxt, rcv_nxt, now) {
            self.tcp.ports.use_port(k.lport, false);
        }
        self.arm_timewait(now + crate::tcp::TIMEWAIT);
    }

    pub(crate) fn timewait_leave(&self, key: &FlowKey) {
        if self.tcp.timewait.remove(key) {
            self.tcp.ports.use_port(key.lport, false);
        }
    }

    /// Sets or ends the capture of frames.
    pub fn set_capture(&self, c: Option<Arc<dyn Capture>>) {
        self.capturing.store(c.is_some(), Ordering::Release);
        *self.capture.write() = c;
    }

    pub(crate) fn capture(&self, dev: &Dev, skb: &Skb) {
        if self.capturing.load(Ordering::Relaxed)
            && let Some(c) = &*self.capture.read()
        {
            c.frame(dev.ifindex, self.host.realtime_ns(), skb);
        }
    }

    /// The text of a tunable: name below /proc/sys/net.
    pub fn sysctl_get(&self, name: &str) -> Option<String> {
        self.sysctl.get(name)
    }

    /// Changes a tunable.
    pub fn sysctl_set(&self, name: &str, value: &str) -> Result<()> {
        self.sysctl.set(name, value)
    }

    /// All tunables.
    pub fn sysctl_list(&self) -> Vec<&'static str> {
        self.sysctl.list()
    }
}
