//! Two stacks and a wire on virtual time.
#![allow(dead_code)]

use klib::ktime::Ktime;
use klib::sync::Mutex;
use net::dev::{DevStats, Features, NetDevice};
use net::netns::{NetHost, NetRef};
use net::{IfAddr, Net, Skb};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub struct Clock(pub AtomicU64);

pub struct Host {
    pub clock: Arc<Clock>,
    seed: AtomicU64,
    pub softirq: AtomicBool,
    /// Calls that the stack has made of its host: it asks for the time whenever it looks at a connection, so they
    /// tell how much it has worked.
    pub calls: AtomicU64,
}

impl NetHost for Host {
    fn now(&self) -> Ktime {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ktime(self.clock.0.load(Ordering::SeqCst))
    }
    fn random(&self, out: &mut [u8]) {
        for b in out {
            let s = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
            *b = (s ^ (s >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes()[6];
        }
    }
    fn raise_softirq(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.softirq.store(true, Ordering::SeqCst);
    }
    fn timer_armed(&self, _at: Ktime) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}

pub struct Nic {
    pub mac: [u8; 6],
    pub features: Features,
    pub mtu: u32,
    pub tx: Mutex<VecDeque<Skb>>,
    pub room: std::sync::atomic::AtomicUsize,
    pub frames: AtomicU64,
    pub biggest: AtomicU64,
    net: Mutex<Option<(NetRef, u32)>>,
}

impl NetDevice for Nic {
    fn kind(&self) -> &str {
        "vec"
    }
    fn attach(&self, net: NetRef, ifindex: u32) {
        *self.net.lock() = Some((net, ifindex));
    }
    fn mac(&self) -> [u8; 6] {
        self.mac
    }
    fn mtu(&self) -> u32 {
        self.mtu
    }
    fn features(&self) -> Features {
        self.features
    }
    fn open(&self) -> uapi::Result<()> {
        Ok(())
    }
    fn close(&self) {}
    fn xmit(&self, skb: Skb) -> Result<(), Skb> {
        let mut q = self.tx.lock();
        if q.len() >= self.room.load(Ordering::Relaxed) {
            return Err(skb);
        }
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.biggest.fetch_max(skb.len() as u64, Ordering::Relaxed);
        q.push_back(skb);
        Ok(())
    }
    fn stats(&self) -> DevStats {
        DevStats::default()
    }
}

pub const TSO: Features = Features::from_bits_truncate(
    Features::SG.bits()
        | Features::HW_CSUM.bits()
        | Features::RXCSUM.bits()
        | Features::TSO4.bits()
        | Features::TSO6.bits()
        | Features::USO.bits()
        | Features::LRO.bits(),
);

pub struct Side {
    pub net: Arc<Net>,
    pub host: Arc<Host>,
    pub nic: Arc<Nic>,
    pub ifindex: u32,
}

/// Says whether a frame is lost.
pub type Loss = Box<dyn FnMut(bool, &Skb) -> bool>;

/// Says how much longer a frame takes.
pub type Jitter = Option<Box<dyn FnMut(bool) -> Duration>>;

pub struct Sim {
    pub clock: Arc<Clock>,
    pub a: Side,
    pub b: Side,
    /// Frames on the wire in the order of their arrival, towards a and towards b.
    wire: [VecDeque<(u64, Skb)>; 2],
    pub delay: Duration,
    /// Added to the delay of a frame: (towards b).
    pub jitter: Jitter,
    /// Drops a frame if it says so: (towards b, index, frame).
    pub loss: Loss,
    pub batch: usize,
}

fn side(clock: &Arc<Clock>, n: u8, features: Features, mtu: u32) -> Side {
    let host = Arc::new(Host {
        clock: Arc::clone(clock),
        seed: AtomicU64::new(u64::from(n) * 77_777),
        softirq: AtomicBool::new(false),
        calls: AtomicU64::new(0),
    });
    let net = Net::new(Arc::clone(&host) as Arc<dyn NetHost>);
    let nic = Arc::new(Nic {
        mac: [2, 0, 0, 0, 0, n],
        features,
        mtu,
        tx: Mutex::default(),
        room: 64.into(),
        frames: AtomicU64::new(0),
        biggest: AtomicU64::new(0),
        net: Mutex::new(None),
    });
    let dev = net.register(Arc::clone(&nic) as Arc<dyn NetDevice>).unwrap();
    net.set_link_up(net.lo.ifindex, true).unwrap();
    net.set_link_up(dev.ifindex, true).unwrap();
    let v4: std::net::IpAddr = [10, 0, 0, n].into();
    let v6: std::net::IpAddr = format!("fd00::{n}").parse().unwrap();
    net.addr_add(dev.ifindex, IfAddr::new(v4, 24)).unwrap();
    net.addr_add(dev.ifindex, IfAddr::new(v6, 64)).unwrap();
    Side { net, host, nic, ifindex: dev.ifindex }
}

impl Sim {
    pub fn new(fa: Features, fb: Features) -> Self {
        Self::with_mtu(fa, fb, 1500)
    }

    pub fn with_mtu(fa: Features, fb: Features, mtu: u32) -> Self {
        let clock = Arc::new(Clock(AtomicU64::new(1_000_000_000)));
        let (a, b) = (side(&clock, 1, fa, mtu), side(&clock, 2, fb, mtu));
        Self {
            clock,
            a,
            b,
            wire: [VecDeque::new(), VecDeque::new()],
            jitter: None,
            delay: Duration::from_micros(50),
            loss: Box::new(|_, _| false),
            batch: 16,
        }
    }

    pub fn now(&self) -> u64 {
        self.clock.0.load(Ordering::SeqCst)
    }

    fn collect(&mut self) -> bool {
        let mut any = false;
        let at = self.now() + self.delay.as_nanos() as u64;
        for to_b in [true, false] {
            let s = if to_b { &self.a } else { &self.b };
            let out: Vec<Skb> = s.nic.tx.lock().drain(..).collect();
            if out.is_empty() {
                continue;
            }
            any = true;
            s.net.tx_wake(s.ifindex);
            for f in out {
                if !(self.loss)(to_b, &f) {
                    let at = at + self.jitter.as_mut().map_or(0, |j| j(to_b).as_nanos() as u64);
                    let w = &mut self.wire[usize::from(to_b)];
                    let i = w.partition_point(|(t, _)| *t <= at);
                    w.insert(i, (at, f));
                }
            }
        }
        any
    }

    fn deliver(&mut self) -> bool {
        let now = self.now();
        let mut any = false;
        for to_b in [true, false] {
            let mut batch = Vec::new();
            let w = &mut self.wire[usize::from(to_b)];
            while batch.len() < self.batch && w.front().is_some_and(|(at, _)| *at <= now) {
                let (_, mut f) = w.pop_front().unwrap();
                // What a virtio-like wire says of an offloaded frame.
                f.pkt_type = net::skb::PktType::Host;
                batch.push(f);
            }
            if !batch.is_empty() {
                any = true;
                let s = if to_b { &self.b } else { &self.a };
                s.net.rx(s.ifindex, batch.into_iter());
            }
        }
        any
    }

    /// Lets everything happen that happens now.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut any = self.collect();
            any |= self.deliver();
            for s in [&self.a, &self.b] {
                if s.host.softirq.swap(false, Ordering::SeqCst) {
                    s.net.run_softirq();
                    any = true;
                }
            }
            if !any {
                return;
            }
        }
        panic!("the wire does not come to rest at {} ns", self.now());
    }

    /// Goes to the next event (at most `limit` away) and lets it happen.
    pub fn step(&mut self, limit: Duration) {
        self.settle();
        let end = self.now() + limit.as_nanos() as u64;
        let timers = [&self.a, &self.b].into_iter().filter_map(|s| s.net.next_timer()).map(|t| t.0);
        let frames = self.wire.iter().filter_map(|w| w.front()).map(|(at, _)| *at);
        let next = timers.chain(frames).min().unwrap_or(end).clamp(self.now() + 1, end);
        self.clock.0.store(next, Ordering::SeqCst);
        for s in [&self.a, &self.b] {
            s.net.run_timers(Ktime(next));
        }
        self.settle();
    }

    /// Runs for a time.
    pub fn run(&mut self, d: Duration) {
        let end = self.now() + d.as_nanos() as u64;
        self.settle();
        while self.now() < end {
            self.step(Duration::from_nanos(end - self.now()));
        }
    }

    /// Runs until `done`, at most `limit` of virtual time; panics with `what` if it does not come.
    pub fn until(&mut self, what: &str, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now() + limit.as_nanos() as u64;
        self.settle();
        while !done(self) {
            assert!(self.now() < end, "{what}: not within {limit:?} of virtual time");
            self.step(Duration::from_millis(100));
        }
    }
}
