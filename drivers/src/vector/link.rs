//! The link of the NIC is that of the host's interface behind it: down there, no carrier here. News of links (rtnetlink)
//! say when to look; what counts is what is seen then.

use arch::host::netif::{self, LinkEvents};
use arch::host::packet;
use executor::irq::{POLLIN, Standing, poll_standing};
use klib::sync::Mutex;
use net::dev::ethtool::{Duplex, LinkSettings};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct Watch {
    events: LinkEvents,
    /// Dropped first: it polls the descriptor.
    _poll: Standing,
}

/// Watches one interface of the host.
#[derive(Default)]
pub struct HostLink {
    watch: Mutex<Option<Watch>>,
    /// There are events to read.
    pending: Arc<AtomicBool>,
    /// Somebody wants a look without any.
    asked: AtomicBool,
}

impl HostLink {
    /// Begins; harmless to repeat. `wake` is called as an interrupt when [`heard`](Self::heard) should be asked.
    pub fn start(&self, wake: impl Fn() + Send + Sync + 'static) {
        let mut watch = self.watch.lock();
        if watch.is_none() {
            let pending = Arc::clone(&self.pending);
            let notify = move |_| {
                pending.store(true, Ordering::SeqCst);
                wake();
            };
            let Ok(events) = LinkEvents::open() else { return };
            let Ok(poll) = poll_standing(events.fd().as_raw_fd(), POLLIN, notify) else { return };
            *watch = Some(Watch { events, _poll: poll });
        }
    }

    /// The interface is to be looked at, whether there is news of it or not. False if changes are never heard of.
    pub fn ask(&self) -> bool {
        self.asked.store(true, Ordering::SeqCst);
        self.watch.lock().is_some()
    }

    /// True if the interface should be looked at: there was news of its name or its number since the last call.
    pub fn heard(&self, ifname: &str, index: Option<u32>) -> bool {
        let mut ours = self.asked.swap(false, Ordering::SeqCst);
        if self.pending.swap(false, Ordering::SeqCst)
            && let Some(w) = &*self.watch.lock()
        {
            let missed = w.events.read(|e| ours |= e.name == ifname || Some(e.index) == index);
            // News that did not fit may have been ours.
            ours |= missed;
        }
        ours
    }
}

/// Whether the host's interface is up with its own link working; `None` if there is no such interface. Its number tells
/// it, and only without one its name: it may have been renamed.
pub fn running(ifname: &str, index: Option<u32>) -> Option<bool> {
    let now = index.map(netif::name_of);
    let name = match &now {
        None => ifname,
        Some(n) => n.as_deref().ok()?,
    };
    packet::link(name).ok().map(|l| l.up && l.running)
}

/// Speed and duplex of the host's interface, unknown where there is none.
pub fn settings(ifname: Option<&str>) -> LinkSettings {
    /// PORT_OTHER.
    const OTHER: u8 = 0xff;
    let Some(s) = ifname.and_then(|n| netif::speed(n).ok()) else {
        return LinkSettings { port: OTHER, ..LinkSettings::default() };
    };
    let duplex = match s.duplex {
        0 => Duplex::Half,
        1 => Duplex::Full,
        _ => Duplex::Unknown,
    };
    LinkSettings { speed: s.speed, duplex, port: s.port, autoneg: s.autoneg }
}
