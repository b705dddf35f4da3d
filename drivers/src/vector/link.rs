//! The link of the NIC is that of the host's interface behind it: down there, no carrier here.

use arch::host::netif::{self, LinkEvents};
use executor::irq::{POLLIN, Standing, poll_standing};
use klib::sync::Mutex;
use net::dev::ethtool::{Duplex, LinkSettings};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What has become of the host's interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Up or down.
    Running(bool),
    /// Deleted, or moved to another network namespace.
    Gone,
}

struct Watch {
    events: LinkEvents,
    /// Dropped first: it polls the descriptor.
    _poll: Standing,
}

/// Watches one interface of the host.
#[derive(Default)]
pub struct HostLink {
    watch: Mutex<Option<Watch>>,
    pending: Arc<AtomicBool>,
}

impl HostLink {
    /// Begins, or asks anew. `wake` is called as an interrupt when there is something to [`take`](Self::take).
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
        if let Some(w) = &*watch {
            let _ = w.events.refresh();
        }
    }

    /// The last change of `ifname` since the last call.
    pub fn take(&self, ifname: &str) -> Option<Change> {
        if !self.pending.swap(false, Ordering::SeqCst) {
            return None;
        }
        let watch = self.watch.lock();
        let w = watch.as_ref()?;
        let mut last = None;
        let lost = w.events.read(|e| {
            if e.name == ifname {
                last = Some(if e.gone { Change::Gone } else { Change::Running(e.running) });
            }
        });
        if lost {
            let _ = w.events.refresh();
        }
        last
    }
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
