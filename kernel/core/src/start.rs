//! From devices to the first process.

use crate::fs::fdtable::FdTable;
use crate::fs::path::FsStruct;
use crate::mm::{Mm, space};
use crate::task::{Task, copy, exec, run};
use crate::{Errno, Result};
use arch::mm::PhysMem;
use arch::user::StubHost;
use device::block::BlockDevice;
use device::tty_port::TtyPort;
use std::sync::Arc;
use uapi::raw::general as c;

/// What `vmlinux` has opened for the kernel.
pub struct Machine {
    /// Guest memory.
    pub memory: PhysMem,
    /// The maker of host processes, started while the process had one thread.
    pub stubs: Arc<StubHost>,
    /// Disks: minor number of the whole disk (16 times the unit) and the device.
    pub disks: Vec<(u32, Arc<dyn BlockDevice>)>,
    /// Network cards, in the order of their units.
    pub nics: Vec<Arc<dyn net::NetDevice>>,
    /// Consoles by number (tty0, ...); the first of the list is the kernel's own and /dev/console.
    pub consoles: Vec<(u32, Arc<dyn TtyPort>)>,
    /// The initramfs, empty if there is none.
    pub initramfs: &'static [u8],
}

/// What the boot line says to the kernel.
#[derive(Clone, Debug, Default)]
pub struct BootParams {
    /// `root=`; none: stay on the initramfs.
    pub root: Option<String>,
    /// `rw` was given.
    pub read_write: bool,
    /// `init=` or `rdinit=`; none: the usual places.
    pub init: Option<String>,
    /// `ip=`.
    pub ip: Option<crate::param::IpConfig>,
    /// Arguments of init.
    pub args: Vec<String>,
    /// Environment of init; empty: HOME and TERM.
    pub env: Vec<String>,
}

/// Where init is looked for (Linux' order; `/init` on an initramfs).
const INIT_PLACES: [&str; 4] = ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"];

/// Sets the kernel up and starts the first process; runs on CPU 0. What goes wrong is a panic, as in Linux.
pub fn start(machine: Machine, params: BootParams) {
    crate::mm::frames::init(machine.memory.clone());
    space::init(Arc::clone(&machine.stubs));
    crate::fs::init();
    executor::spawn(async move {
        if let Err(text) = boot(machine, params).await {
            crate::power::panic(&text);
        }
    });
}

async fn boot(machine: Machine, params: BootParams) -> Result<(), String> {
    for (number, port) in &machine.consoles {
        crate::tty::console::register_console(*number, false, Arc::clone(port));
    }
    let total = crate::mm::frames::frames().total_pages() * 4;
    log::info!(target: "", "Memory: {total}K/{total}K available");
    for (minor, disk) in &machine.disks {
        crate::fs::devices::register_blk(UBD_MAJOR, *minor, Arc::clone(disk));
    }
    crate::socket::net_init(&machine.nics, params.ip.as_ref())?;
    let cur = first_task().await.map_err(|e| format!("cannot make the first process: {e}"))?;
    if !machine.initramfs.is_empty() {
        crate::fs::boot::unpack_initramfs(machine.initramfs).map_err(|e| format!("bad initramfs: {e}"))?;
    }
    if let Some(root) = &params.root {
        let flags = if params.read_write { 0 } else { 1 };
        crate::fs::boot::mount_root(&cur, root, flags).await.map_err(|e| {
            format!("VFS: Unable to mount root fs on {root}: {e}; ubd devices: {}", disk_names(&machine))
        })?;
    }
    crate::fs::boot::mount_dev(&cur).await;
    crate::fs::boot::open_console(&cur).await.map_err(|e| format!("cannot open the console: {e}"))?;
    run_init(&cur, &params).await
}

/// Major number of UML's disks.
const UBD_MAJOR: u32 = 98;

fn disk_names(machine: &Machine) -> String {
    let names: Vec<&str> = machine.disks.iter().map(|d| d.1.name()).collect();
    if names.is_empty() { "none".into() } else { names.join(" ") }
}

/// A task without a program, to open files with and to become init.
async fn first_task() -> Result<Arc<Task>> {
    let ready = space::take().await?;
    let mm = Mm::new(ready.space);
    let threads = crate::mm::frames::frames().total_pages() / 64;
    copy::new_init(mm, Arc::new(FdTable::default()), Arc::new(FsStruct::new()), threads.max(64))
}

async fn run_init(cur: &Arc<Task>, params: &BootParams) -> Result<(), String> {
    let mut env: Vec<Vec<u8>> = params.env.iter().map(|e| e.clone().into_bytes()).collect();
    if env.is_empty() {
        env = vec![b"HOME=/".to_vec(), b"TERM=linux".to_vec()];
    }
    let places: Vec<&str> = match (&params.init, params.root.is_some()) {
        (Some(p), _) => vec![p],
        (None, true) => INIT_PLACES.to_vec(),
        (None, false) => std::iter::once("/init").chain(INIT_PLACES).collect(),
    };
    let mut last = Errno::ENOENT;
    for path in &places {
        let argv = std::iter::once((*path).to_owned()).chain(params.args.iter().cloned());
        let argv = argv.map(String::into_bytes).collect();
        match exec::exec(cur, c::AT_FDCWD, path.as_bytes(), 0, argv, env.clone()).await {
            Ok(e) => {
                log::info!(target: "", "Run {path} as init process");
                // The task has had no host thread, so it was given one.
                let thread = e.thread.ok_or("the first process has no host thread")?;
                run::start(Arc::clone(cur), thread, e.regs, Vec::new(), executor::this_cpu());
                return Ok(());
            }
            Err(e) => last = e,
        }
    }
    Err(match &params.init {
        Some(p) => format!("Requested init {p} failed (error -{}): {last}", last.raw()),
        None => format!("No working init found: tried {}; try init= ({last})", places.join(" ")),
    })
}
