//! Neighbours: link-layer addresses of those on the same link (RFC 826, RFC 4861).
//!
//! Key types: [`NeighTable`], [`Nud`] (state of an entry). `arp` and `ndp` speak the two protocols.
//! Below: `dev`, `eth`. Above: `ip::output`, `rtnl`.
//! Lock order: table > entry. Frames are sent and timers armed after both have been dropped.

pub mod arp;
pub mod ndp;

use crate::dev::Dev;
use crate::eth::{self, Mac};
use crate::netns::{Net, TimerEvent};
use crate::skb::Skb;
use klib::ktime::Ktime;
use klib::sync::{Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use uapi::{Errno, Result};

/// State of an entry (`NUD_*` of linux/neighbour.h, RFC 4861 section 7.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Nud {
    /// Asked for the first time, no answer yet.
    Incomplete = 0x01,
    /// Known to be right.
    Reachable = 0x02,
    /// Was right once.
    Stale = 0x04,
    /// In use though stale: a probe follows if nothing confirms it.
    Delay = 0x08,
    /// Being probed.
    Probe = 0x10,
    /// Did not answer.
    Failed = 0x20,
    /// Needs no resolution.
    NoArp = 0x40,
    /// Configured by hand.
    Permanent = 0x80,
}

impl Nud {
    /// The state with this `NUD_*` value.
    pub fn from_bits(v: u16) -> Option<Self> {
        [
            Self::Incomplete,
            Self::Reachable,
            Self::Stale,
            Self::Delay,
            Self::Probe,
            Self::Failed,
            Self::NoArp,
            Self::Permanent,
        ]
        .into_iter()
        .find(|s| *s as u16 == v)
    }
}

/// How far to believe an address that was told.
#[derive(Clone, Copy)]
pub(crate) struct Hint {
    /// In answer to us.
    pub solicited: bool,
    /// Note it even if nobody asked.
    pub create: bool,
    /// A different known address gives way.
    pub overrides: bool,
}

/// What [`NeighTable::set`] may do.
#[derive(Clone, Copy, Debug)]
pub struct SetHow {
    /// Make a new entry.
    pub create: bool,
    /// Change one that is there.
    pub replace: bool,
}

/// Device and address.
pub type NeighKey = (u32, IpAddr);

const REACHABLE_TIME: Duration = Duration::from_secs(30);
const DELAY_FIRST_PROBE: Duration = Duration::from_secs(5);
const RETRANS: Duration = Duration::from_secs(1);
const PROBES: u32 = 3;
/// Frames that wait for an answer, per entry.
const QUEUE_LEN: usize = 64;
/// Entries beyond which unused ones are dropped at once (Linux: gc_thresh3).
const MAX_ENTRIES: usize = 1024;

struct State {
    nud: Nud,
    mac: Mac,
    queue: VecDeque<Skb>,
    probes: u32,
    confirmed: Ktime,
    updated: Ktime,
    used: Ktime,
    /// When it fires; an entry of the same key that is gone may have left others behind.
    timer: Option<Ktime>,
}

impl State {
    /// When a timer is to be armed for `at`; `None` if there is one.
    fn arm(&mut self, at: Ktime) -> Option<Ktime> {
        if self.timer.is_some() {
            return None;
        }
        self.timer = Some(at);
        Some(at)
    }
}

struct Neigh {
    state: Mutex<State>,
}

/// A snapshot of an entry, for `ip neigh`.
#[derive(Clone, Debug)]
pub struct NeighInfo {
    /// Device and address.
    pub key: NeighKey,
    /// State.
    pub nud: Nud,
    /// Link-layer address, unless the state is incomplete or failed.
    pub mac: Option<Mac>,
    /// When last used, confirmed, updated.
    pub times: (Ktime, Ktime, Ktime),
    /// Probes sent since the last answer.
    pub probes: u32,
}

/// All neighbours of a namespace.
#[derive(Default)]
pub struct NeighTable {
    map: RwLock<HashMap<NeighKey, Arc<Neigh>>>,
}

enum Ask {
    Nothing,
    Multicast,
    Unicast(Mac),
}

impl NeighTable {
    fn get(&self, key: &NeighKey) -> Option<Arc<Neigh>> {
        self.map.read().get(key).cloned()
    }

    fn get_or_create(&self, key: NeighKey, now: Ktime) -> Option<Arc<Neigh>> {
        if let Some(n) = self.get(&key) {
            return Some(n);
        }
        let mut map = self.map.write();
        if map.len() >= MAX_ENTRIES && !map.contains_key(&key) {
            Self::evict(&mut map);
            if map.len() >= MAX_ENTRIES {
                return None;
            }
        }
        let fresh = || {
            Arc::new(Neigh {
                state: Mutex::new(State {
                    nud: Nud::Failed,
                    mac: [0; 6],
                    queue: VecDeque::new(),
                    probes: 0,
                    confirmed: now,
                    updated: now,
                    used: now,
                    timer: None,
                }),
            })
        };
        Some(Arc::clone(map.entry(key).or_insert_with(fresh)))
    }

    /// Drops the least recently used eighth of what may go.
    fn evict(map: &mut HashMap<NeighKey, Arc<Neigh>>) {
        let mut old: Vec<(Ktime, NeighKey)> = map
            .iter()
            .filter_map(|(k, n)| {
                let s = n.state.lock();
                let keep =
                    matches!(s.nud, Nud::Permanent | Nud::NoArp | Nud::Reachable | Nud::Delay | Nud::Probe);
                (!keep).then_some((s.used, *k))
            })
            .collect();
        old.sort_by_key(|(t, _)| *t);
        for (_, k) in old.into_iter().take(MAX_ENTRIES / 8) {
            map.remove(&k);
        }
    }

    /// The address of a neighbour if it is known, else queues the frame and asks; `None` then means: not yours any more.
    pub fn resolve(&self, net: &Net, dev: &Arc<Dev>, ip: IpAddr, skb: Skb) -> Option<(Mac, Skb)> {
        let now = net.now();
        let key = (dev.ifindex, ip);
        let neigh = self.get_or_create(key, now)?;
        let mut s = neigh.state.lock();
        s.used = now;
        match s.nud {
            Nud::Reachable if now.since(s.confirmed) < REACHABLE_TIME => return Some((s.mac, skb)),
            Nud::Permanent | Nud::NoArp | Nud::Delay | Nud::Probe => return Some((s.mac, skb)),
            Nud::Reachable | Nud::Stale => {
                s.nud = Nud::Delay;
                s.updated = now;
                let mac = s.mac;
                let arm = s.arm(now + DELAY_FIRST_PROBE);
                drop(s);
                if let Some(at) = arm {
                    net.arm(at, TimerEvent::Neigh(key));
                }
                return Some((mac, skb));
            }
            Nud::Incomplete => {
                if s.queue.len() >= QUEUE_LEN {
                    s.queue.pop_front();
                }
                s.queue.push_back(skb);
            }
            Nud::Failed => {
                s.nud = Nud::Incomplete;
                s.updated = now;
                s.probes = 1;
                s.queue.push_back(skb);
                let arm = s.arm(now + RETRANS);
                drop(s);
                if let Some(at) = arm {
                    net.arm(at, TimerEvent::Neigh(key));
                }
                solicit(net, dev, ip, None);
            }
        }
        None
    }

    /// The timer of an entry fired.
    pub(crate) fn timer(&self, net: &Net, key: NeighKey) {
        let Some(neigh) = self.get(&key) else { return };
        let now = net.now();
        let mut failed = VecDeque::new();
        let mut s = neigh.state.lock();
        if s.timer.is_none_or(|at| now < at) {
            return;
        }
        let (ask, again) = match s.nud {
            Nud::Delay if now.since(s.confirmed) < DELAY_FIRST_PROBE => {
                s.nud = Nud::Reachable;
                (Ask::Nothing, None)
            }
            Nud::Delay => {
                s.nud = Nud::Probe;
                s.probes = 1;
                (Ask::Unicast(s.mac), Some(RETRANS))
            }
            Nud::Probe if s.probes < PROBES => {
                s.probes += 1;
                (Ask::Unicast(s.mac), Some(RETRANS))
            }
            Nud::Incomplete if s.probes < PROBES => {
                s.probes += 1;
                (Ask::Multicast, Some(RETRANS))
            }
            Nud::Probe | Nud::Incomplete => {
                s.nud = Nud::Failed;
                s.updated = now;
                failed = std::mem::take(&mut s.queue);
                (Ask::Nothing, None)
            }
            _ => (Ask::Nothing, None),
        };
        s.timer = again.map(|d| now + d);
        let arm = s.timer;
        drop(s);
        if let Some(at) = arm {
            net.arm(at, TimerEvent::Neigh(key));
        }
        if let Some(dev) = net.devs.get(key.0) {
            match ask {
                Ask::Nothing => {}
                Ask::Multicast => solicit(net, &dev, key.1, None),
                Ask::Unicast(mac) => solicit(net, &dev, key.1, Some(mac)),
            }
        }
        for skb in failed {
            crate::ip::icmp::link_failure(net, &skb);
        }
    }

    /// Something on the link told an address.
    pub(crate) fn learn(&self, net: &Net, dev: &Arc<Dev>, ip: IpAddr, mac: Mac, hint: Hint) {
        let Hint { solicited, create, overrides } = hint;
        if !eth::is_valid(mac) {
            return;
        }
        let now = net.now();
        let key = (dev.ifindex, ip);
        let Some(neigh) = (if create { self.get_or_create(key, now) } else { self.get(&key) }) else {
            return;
        };
        let mut s = neigh.state.lock();
        match s.nud {
            Nud::Permanent | Nud::NoArp => return,
            Nud::Incomplete | Nud::Failed => {
                if s.nud == Nud::Failed && !create && !solicited {
                    return;
                }
                s.mac = mac;
                s.nud = if solicited { Nud::Reachable } else { Nud::Stale };
            }
            _ if s.mac != mac && !overrides => {
                if s.nud == Nud::Reachable {
                    s.nud = Nud::Stale;
                }
                return;
            }
            _ => {
                let changed = s.mac != mac;
                s.mac = mac;
                if solicited {
                    s.nud = Nud::Reachable;
                } else if changed {
                    s.nud = Nud::Stale;
                }
            }
        }
        s.updated = now;
        s.probes = 0;
        if s.nud == Nud::Reachable {
            s.confirmed = now;
        }
        let waiting = std::mem::take(&mut s.queue);
        drop(s);
        for skb in waiting {
            net.eth_xmit(dev, mac, skb);
        }
    }

    /// Traffic from above shows that the neighbour hears us (forward progress, RFC 4861 section 7.3.1).
    pub fn confirm(&self, net: &Net, key: NeighKey) {
        if let Some(n) = self.get(&key) {
            let mut s = n.state.lock();
            if matches!(s.nud, Nud::Stale | Nud::Delay | Nud::Probe | Nud::Reachable) {
                s.confirmed = net.now();
                s.nud = Nud::Reachable;
            }
        }
    }

    /// Sets an entry by hand (`ip neigh add|replace|change`): EEXIST if it is there and `how` does not replace, ENOENT if
    /// it is not and `how` does not create.
    pub fn set(
        &self,
        net: &Net,
        dev: &Arc<Dev>,
        ip: IpAddr,
        mac: Option<Mac>,
        nud: Nud,
        how: SetHow,
    ) -> Result<()> {
        let SetHow { create, replace } = how;
        let key = (dev.ifindex, ip);
        let exists = self.get(&key).is_some();
        if exists && !replace {
            return Err(Errno::EEXIST);
        }
        if !exists && !create {
            return Err(Errno::ENOENT);
        }
        let now = net.now();
        let neigh = self.get_or_create(key, now).ok_or(Errno::ENOBUFS)?;
        let mut s = neigh.state.lock();
        if let Some(m) = mac {
            s.mac = m;
        }
        s.nud = nud;
        s.updated = now;
        s.confirmed = now;
        let waiting = std::mem::take(&mut s.queue);
        let mac = s.mac;
        drop(s);
        for skb in waiting {
            net.eth_xmit(dev, mac, skb);
        }
        Ok(())
    }

    /// Removes an entry.
    pub fn remove(&self, key: &NeighKey) -> Result<()> {
        self.map.write().remove(key).map(drop).ok_or(Errno::ENOENT)
    }

    /// Forgets a device's neighbours, those set by hand only if `all`.
    pub fn flush(&self, ifindex: u32, all: bool) {
        self.map.write().retain(|k, n| k.0 != ifindex || (!all && n.state.lock().nud == Nud::Permanent));
    }

    /// Who could not be reached while the carrier was away is asked again; what waits for the answer goes on waiting.
    pub fn ask_again(&self, ifindex: u32) {
        self.map.write().retain(|k, n| {
            let mut s = n.state.lock();
            match s.nud {
                _ if k.0 != ifindex => true,
                Nud::Failed => false,
                Nud::Incomplete => {
                    s.probes = 0;
                    true
                }
                _ => true,
            }
        });
    }

    /// All entries.
    pub fn list(&self) -> Vec<NeighInfo> {
        let map = self.map.read();
        let mut v: Vec<NeighInfo> = map
            .iter()
            .map(|(k, n)| {
                let s = n.state.lock();
                let known = !matches!(s.nud, Nud::Incomplete | Nud::Failed);
                NeighInfo {
                    key: *k,
                    nud: s.nud,
                    mac: known.then_some(s.mac),
                    times: (s.used, s.confirmed, s.updated),
                    probes: s.probes,
                }
            })
            .collect();
        v.sort_by_key(|n| n.key);
        v
    }
}

/// Asks for an address: everyone, or the one who had it.
fn solicit(net: &Net, dev: &Arc<Dev>, ip: IpAddr, to: Option<Mac>) {
    match ip {
        IpAddr::V4(a) => arp::request(net, dev, a, to),
        IpAddr::V6(a) => ndp::solicit(net, dev, a, to),
    }
}
