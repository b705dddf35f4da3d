//! The binary: reads the boot line, looks at the host, opens the devices, starts the kernel, ends as the guest says.
//!
//! * `devices`: the drivers' part of the boot line. `host`: what the host lends. `instance`: `~/.uml/<umid>/pid`.
//! * `logger`: log lines into the kernel's log. `end`: exit statuses, reboot, signals. `help`: the texts.
//!
//! The order matters. Mistakes come first, when nothing has been started; then the memory file and the devices; then,
//! while the process has one thread, the process that makes stubs; then the CPUs.
#![deny(unsafe_code)]

mod devices;
mod end;
mod help;
mod host;
mod instance;
mod logger;

use arch::mm::PhysMem;
use arch::user::StubHost;
use instance::Instance;
use kernel::param::{self, Action, At, BootLine};
use kernel::start::{BootParams, Machine};
use kernel::task::misc;
use std::io::Write;

/// The initramfs that `cargo xtask build` has put in; empty without it.
static BUILT_IN: &[u8] = include_bytes!(env!("KIBBLE_INITRAMFS_PATH"));

fn main() {
    arch::host::malloc::tune();
    let args = arguments();
    let (line, mut mistakes) = param::parse(&args);
    let text = match line.action {
        Action::Boot => None,
        Action::Help => Some(help::help()),
        Action::Version => Some(help::version()),
        Action::ShowConfig => Some(help::config()),
    };
    if let Some(text) = text {
        // A reader that has seen enough (head) is no error.
        let _ = std::io::stdout().write_all(text.as_bytes());
        return;
    }
    let parsed = devices::parse(&line, &mut mistakes);
    if let Some(first) = mistakes.first() {
        fail(first);
    }
    boot(line, &parsed)
}

/// The arguments as text; the line that cannot be read is a mistake like others.
fn arguments() -> Vec<String> {
    let read = |(pos, arg): (usize, std::ffi::OsString)| {
        arg.into_string().unwrap_or_else(|arg| {
            let at = At { pos, text: arg.to_string_lossy().into_owned() };
            fail(at.error("not UTF-8; expected text in UTF-8"))
        })
    };
    std::env::args_os().skip(1).enumerate().map(read).collect()
}

/// One line on stderr, exit status 1.
fn fail(what: impl std::fmt::Display) -> ! {
    eprintln!("vmlinux: {what}");
    std::process::exit(1)
}

fn boot(line: BootLine, parsed: &devices::Parsed) -> ! {
    end::hold_signals();
    logger::install(&line);
    let host = host::probe(line.ncpus).unwrap_or_else(|e| fail(e));
    let instance = Instance::create(&line).unwrap_or_else(|e| fail(e));
    say_hello(&line, &host, &instance);
    let fail = |what: &dyn std::fmt::Display| -> ! {
        instance.remove();
        fail(what)
    };
    let memory = usize::try_from(line.mem).ok().and_then(|m| PhysMem::new(m).ok());
    let memory = memory.unwrap_or_else(|| {
        let mib = line.mem >> 20;
        fail(&format!("mem={mib}M: the host does not lend so much (memfd_create, mmap); expected less"))
    });
    let devices = devices::open(&line, parsed, &memory, host.ncpus).unwrap_or_else(|e| fail(&e));
    let stubs = StubHost::start(&memory).unwrap_or_else(|e| fail(&e));
    kernel_settings(&line, &instance);
    end::install(line.noreboot);
    let cleaner = instance.clone();
    executor::crash::at_exit(move || cleaner.remove());
    let config = executor::Config { ncpus: host.ncpus, pin: true };
    let kept = stubs.clone();
    let status = executor::start(config, move || {
        let machine = Machine {
            memory,
            stubs,
            disks: devices.disks,
            nics: devices.nics,
            consoles: devices.consoles.into_iter().map(|(n, port)| (n, port.start())).collect(),
            initramfs: match devices.initrd {
                Some(bytes) => Vec::leak(bytes),
                None if line.root.is_some() => &[],
                None => BUILT_IN,
            },
        };
        kernel::start::start(machine, params(&line));
    });
    end::finish(status, &kept, || instance.remove())
}

/// The first lines of the log.
fn say_hello(line: &BootLine, host: &host::Host, instance: &Instance) {
    log::info!(target: "", "Linux version {} (Kibble {}) {}", misc::RELEASE, env!("CARGO_PKG_VERSION"), misc::VERSION);
    log::info!(target: "", "Kernel command line: {}", line.cmdline);
    for note in &line.notes {
        log::log!(target: "", note.level, "{}", note.text);
    }
    if !line.root_ro && line.root.is_some() {
        log::warn!(target: "", "rw: writing ext4 is not yet supported, the root file system is mounted read-only");
    }
    if let Some(unknown) = &line.unknown {
        log::info!(target: "", "{unknown}");
    }
    log::info!(target: "", "{}", host.summary);
    for warning in &instance.warnings {
        log::warn!(target: "", "{warning}");
    }
    if let Some(dir) = &instance.dir {
        log::info!(target: "", "Instance {} in {}", instance.umid, dir.display());
    }
}

/// What the kernel keeps in places of its own.
fn kernel_settings(line: &BootLine, instance: &Instance) {
    kernel::fs::impls::procfs::set_cmdline(&line.cmdline);
    if line.strace {
        kernel::syscall::strace::enable();
    }
    let from_ip = line.ip.as_ref().and_then(|ip| ip.hostname.as_deref());
    // As the instance is called, so the guest, until its init knows better.
    let name = line.hostname.as_deref().or(from_ip).or(line.umid.as_ref().map(|_| instance.umid.as_str()));
    if let Some(name) = name {
        misc::set_hostname(name.as_bytes());
    }
}

fn params(line: &BootLine) -> BootParams {
    BootParams {
        root: line.root.map(|r| r.to_string()),
        read_write: !line.root_ro,
        // An initramfs has rdinit=; with nothing but an initramfs whoever says init= means that one.
        init: line.rdinit.clone().filter(|_| line.root.is_none()).or_else(|| line.init.clone()),
        ip: line.ip.clone(),
        args: line.init_args.clone(),
        env: line.init_env.clone(),
    }
}
