//! The end, planned or not: hooks that put the host back in order, and panics that end the process.

use crate::machine::lock;
use std::cell::Cell;
use std::sync::{Arc, Mutex, Once};

type Hook = Arc<dyn Fn() + Send + Sync>;

static HOOKS: Mutex<Vec<Hook>> = Mutex::new(Vec::new());
static INSTALL: Once = Once::new();

thread_local! {
    static FATAL: Cell<bool> = const { Cell::new(false) };
}

/// Registers something to be done before the process ends: at the end of [`crate::start`], and on any panic. It may run
/// more than once, on any thread; it must not panic or wait.
pub fn at_exit(hook: impl Fn() + Send + Sync + 'static) {
    lock(&HOOKS).push(Arc::new(hook));
}

/// Runs the hooks, latest first.
pub fn run_hooks() {
    // try_lock: a panic inside `at_exit` must not hang here.
    let hooks = match HOOKS.try_lock() {
        Ok(h) => h.clone(),
        Err(std::sync::TryLockError::Poisoned(h)) => h.into_inner().clone(),
        Err(std::sync::TryLockError::WouldBlock) => return,
    };
    for h in hooks.iter().rev() {
        h();
    }
}

/// Says that a panic of the calling thread is a bug of the kernel that ends the process.
pub(crate) fn fatal_here() {
    FATAL.with(|f| f.set(true));
}

/// Puts our panic hook before whatever was there.
pub(crate) fn install() {
    INSTALL.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // The terminal first, so that the message can be read.
            run_hooks();
            before(info);
            if FATAL.with(Cell::get) {
                let cpu = crate::try_this_cpu();
                eprintln!(
                    "Kernel panic - not syncing: a bug in the kernel (CPU {cpu:?}); the process ends here"
                );
                std::process::abort();
            }
        }));
    });
}
