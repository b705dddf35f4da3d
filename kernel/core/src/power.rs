//! How the machine ends: reboot(2), the death of init, /proc/exitcode.
//!
//! The binary installs a hook that stops the executors; until then an end aborts the host process.

use parking_lot::RwLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// The way in which the machine ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PowerEvent {
    /// RB_HALT_SYSTEM.
    Halt,
    /// RB_POWER_OFF.
    PowerOff,
    /// RB_AUTOBOOT, RESTART2.
    Restart,
    /// The kernel cannot go on; the text is already in the log.
    Panic(String),
}

/// Called once with the event and the exit status of the host process.
pub type PowerHook = fn(PowerEvent, i32);

static HOOK: RwLock<Option<PowerHook>> = RwLock::new(None);
static EXITCODE: AtomicI32 = AtomicI32::new(0);

/// Installs the hook that ends the machine.
pub fn set_hook(hook: PowerHook) {
    *HOOK.write() = Some(hook);
}

/// What /proc/exitcode holds.
pub fn exitcode() -> i32 {
    EXITCODE.load(Ordering::Relaxed)
}

/// Write to /proc/exitcode.
pub fn set_exitcode(code: i32) {
    EXITCODE.store(code, Ordering::Relaxed);
}

/// Ends the machine with the text that Linux logs. Returns, since the executors stop a moment later.
pub fn end(event: PowerEvent) {
    match &event {
        PowerEvent::Halt => log::error!(target: "reboot", "System halted"),
        PowerEvent::PowerOff => log::error!(target: "reboot", "Power down"),
        PowerEvent::Restart => log::error!(target: "reboot", "Restarting system"),
        PowerEvent::Panic(text) => {
            log::error!(target: "", "Kernel panic - not syncing: {text}");
        }
    }
    let hook = *HOOK.read();
    match hook {
        Some(h) => h(event, exitcode() & 0xff),
        None => std::process::abort(),
    }
}

/// panic(9).
pub fn panic(text: &str) {
    end(PowerEvent::Panic(text.to_string()));
}
