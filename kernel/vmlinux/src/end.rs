//! How the process ends: the guest's halt, poweroff, reboot and panic; SIGTERM and SIGINT.

use executor::signal::{SIGHUP, SIGINT, SIGTERM};
use kernel::power::{self, PowerEvent};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Signals that do not end a User-Mode Linux: SIGQUIT and SIGUSR1 (signal(7)).
const IGNORED: [i32; 2] = [3, 10];
/// A machine that has been told to end and has not within this time is ended.
const PATIENCE: Duration = Duration::from_secs(10);

static EVENT: OnceLock<PowerEvent> = OnceLock::new();
static NOREBOOT: AtomicBool = AtomicBool::new(false);

/// Holds back the signals that the executor will take, so that one that comes while the machine is being built does not
/// leave an instance directory behind.
pub fn hold_signals() {
    arch::host::signal::block(&IGNORED);
    arch::host::signal::block(&[SIGTERM, SIGINT, SIGHUP]);
}

/// Says what is done at the end; before the executor starts.
pub fn install(noreboot: bool) {
    NOREBOOT.store(noreboot, Ordering::Relaxed);
    power::set_hook(on_power);
    for signal in [SIGTERM, SIGINT] {
        executor::signal::subscribe(signal, move || {
            log::info!(target: "", "Ended by signal {signal} of the host");
            executor::shutdown(1);
        });
    }
    executor::signal::subscribe(SIGHUP, || {});
}

fn on_power(event: PowerEvent, status: i32) {
    let first = EVENT.set(event).is_ok();
    kernel::tty::console::flush();
    executor::shutdown(status);
    if first {
        // A CPU that never comes back must not keep the process.
        let _ = std::thread::Builder::new().name("end".into()).spawn(move || {
            std::thread::sleep(PATIENCE);
            executor::crash::run_hooks();
            match EVENT.get() {
                Some(PowerEvent::Panic(_)) => std::process::abort(),
                _ => std::process::exit(status),
            }
        });
    }
}

/// Ends the process after the executor has stopped with `status`; `clean` undoes what the host would keep.
pub fn finish(status: i32, stubs: &arch::user::StubHost, clean: impl FnOnce()) -> ! {
    clean();
    match EVENT.get() {
        Some(PowerEvent::Panic(_)) => {
            if kernel::tty::console::console().is_none() {
                eprint!("kmsg_dump:\n{}", kernel::printk::dump());
            }
            std::process::abort()
        }
        Some(PowerEvent::Restart) if !NOREBOOT.load(Ordering::Relaxed) => {
            stubs.kill();
            let mut argv = std::env::args_os();
            let name = argv.next().unwrap_or_else(|| "vmlinux".into());
            let e = Command::new("/proc/self/exe").arg0(name).args(argv).exec();
            eprintln!("vmlinux: cannot start over: {e}");
            std::process::exit(1)
        }
        _ => std::process::exit(status),
    }
}
