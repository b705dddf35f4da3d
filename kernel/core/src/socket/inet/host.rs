//! The protocol stack's host: time, chance, softirqs and timers of the executor.

use crate::socket::netlink;
use executor::hrtimer::Hrtimer;
use executor::softirq::{self, SoftirqVec};
use klib::ktime::Ktime;
use klib::sync::Mutex;
use net::{Net, NetHost};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use uapi::raw::netlink::NETLINK_ROUTE;

/// Set once the executor runs: before that nothing can be raised, and nothing has to be.
static RUNNING: AtomicBool = AtomicBool::new(false);
static NET: OnceLock<Arc<Net>> = OnceLock::new();
static TIMER: OnceLock<Hrtimer> = OnceLock::new();
/// When the timer fires next.
static ARMED: Mutex<Ktime> = Mutex::new(Ktime::MAX);

struct Host;

impl NetHost for Host {
    fn now(&self) -> Ktime {
        arch::host::clock::monotonic()
    }

    fn realtime_ns(&self) -> u64 {
        arch::host::clock::realtime_ns()
    }

    fn random(&self, out: &mut [u8]) {
        if let Err(e) = arch::host::random::fill(out) {
            // Keys of zeros would be guessed; there is no going on without.
            log::error!(target: "net", "no random bytes from the host: {}", e.text());
            executor::shutdown(1);
        }
    }

    fn raise_softirq(&self) {
        if RUNNING.load(Ordering::Acquire) {
            softirq::raise(SoftirqVec::NetTx);
        }
    }

    fn timer_armed(&self, at: Ktime) {
        if !RUNNING.load(Ordering::Acquire) {
            return;
        }
        let mut armed = ARMED.lock();
        if at < *armed {
            *armed = at;
            TIMER.get_or_init(|| Hrtimer::new(fire)).arm(at);
        }
    }

    fn announce(&self, group: u32, msg: &[u8]) {
        netlink::broadcast(NETLINK_ROUTE, group, msg);
    }
}

fn fire() {
    *ARMED.lock() = Ktime::MAX;
    let net = stack();
    net.run_timers(arch::host::clock::monotonic());
    if let Some(next) = net.next_timer() {
        Host.timer_armed(next);
    }
}

/// The protocol stack of this machine, made when first asked for.
pub fn stack() -> &'static Arc<Net> {
    NET.get_or_init(|| Net::new(Arc::new(Host)))
}

/// Connects the stack with the executor; to be called on one of its CPUs.
pub(super) fn start() {
    softirq::register(
        SoftirqVec::NetTx,
        Arc::new(|| {
            stack().run_softirq();
            false
        }),
    );
    RUNNING.store(true, Ordering::Release);
    softirq::raise(SoftirqVec::NetTx);
    if let Some(at) = stack().next_timer() {
        Host.timer_armed(at);
    }
}
