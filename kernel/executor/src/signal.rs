//! Signals that the host sends us, as events: all threads block them, one task reads a signalfd.

use crate::machine::lock;
use arch::host::signal::{self as host, SignalFd};
use klib::Errno;
use std::sync::{Arc, Mutex};

pub use arch::host::signal::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};

const TAKEN: [i32; 4] = [SIGWINCH, SIGTERM, SIGINT, SIGHUP];

type Subscriber = (i32, Arc<dyn Fn() + Send + Sync>);

static SUBSCRIBERS: Mutex<Vec<Subscriber>> = Mutex::new(Vec::new());

/// Calls `f` whenever the host sends `signal` (one of SIGWINCH, SIGTERM, SIGINT, SIGHUP), on CPU 0. Without a subscriber
/// SIGWINCH is dropped and the others stop the kernel with exit code 128 + signal.
pub fn subscribe(signal: i32, f: impl Fn() + Send + Sync + 'static) {
    lock(&SUBSCRIBERS).push((signal, Arc::new(f)));
}

/// Blocks the signals we take; the result undoes it for this thread.
pub(crate) fn block_all() -> impl FnOnce() {
    host::block(&TAKEN);
    || {
        host::unblock(&TAKEN);
        let gone = std::mem::take(&mut *lock(&SUBSCRIBERS));
        drop(gone);
    }
}

/// Starts the task that reads them.
pub(crate) fn start() {
    crate::spawn_on(0, async {
        let fd = match SignalFd::new(&TAKEN) {
            Ok(fd) => fd,
            Err(e) => return log::error!(target: "executor", "signalfd: {}; signals end us unseen", e.text()),
        };
        let mut ready = crate::irq::poll_fd(fd.raw(), crate::irq::POLLIN);
        loop {
            match fd.take() {
                Ok(sig) => dispatch(sig),
                Err(Errno::EAGAIN | Errno::EINTR) => {
                    if (&mut ready).await.is_err() {
                        return;
                    }
                }
                Err(e) => return log::error!(target: "executor", "signalfd: {}", e.text()),
            }
        }
    });
}

fn dispatch(sig: i32) {
    let told: Vec<_> = lock(&SUBSCRIBERS).iter().filter(|s| s.0 == sig).map(|s| Arc::clone(&s.1)).collect();
    for f in &told {
        f();
    }
    if told.is_empty() && sig != SIGWINCH {
        log::info!(target: "executor", "ended by signal {sig} from the host");
        crate::shutdown(128 + sig);
    }
}
