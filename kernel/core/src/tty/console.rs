//! Consoles: terminals over a line on the host, /dev/console, the kernel's own output.

use super::{Back, Tty};
use crate::fs::devices::{OpenChr, register_chr};
use crate::fs::file::FileOps;
use crate::fs::inode::{S_IFCHR, makedev};
use crate::fs::poll;
use crate::{Errno, Result};
use device::tty_port::TtyPort;
use parking_lot::RwLock;
use std::sync::{Arc, OnceLock};

/// Terminals over host lines by device number.
static TTYS: RwLock<Vec<Arc<Tty>>> = RwLock::new(Vec::new());
/// Where /dev/console and the kernel's lines go.
static CONSOLE: OnceLock<Arc<Tty>> = OnceLock::new();

/// Makes a host line a terminal: `ttyN` (major 4), or `ttySN` with `serial`. The first one is the console. Runs its
/// input in a task of the kernel.
pub fn register_console(number: u32, serial: bool, port: Arc<dyn TtyPort>) -> Arc<Tty> {
    let (name, minor) =
        if serial { (format!("ttyS{number}"), 64 + number) } else { (format!("tty{number}"), number) };
    let dev = makedev(4, minor);
    let tty = Tty::new(dev, name.clone(), Back::Port(Arc::clone(&port)));
    TTYS.write().push(Arc::clone(&tty));
    crate::fs::impls::devtmpfs::add_node(&name, S_IFCHR | 0o620, dev);
    if CONSOLE.set(Arc::clone(&tty)).is_ok() {
        // What was said before there was a console.
        console_write(crate::printk::replay().as_bytes());
    }
    executor::spawn(pump(Arc::clone(&tty), port));
    tty
}

/// Carries input from the port to the line discipline, and waiting output the other way, until the line hangs up.
async fn pump(tty: Arc<Tty>, port: Arc<dyn TtyPort>) {
    let mut buf = [0u8; 1024];
    loop {
        let got = port
            .wait_queue()
            .wait_until(|| {
                {
                    let mut i = tty.inner.lock();
                    let before = i.out.len();
                    tty.push_out(&mut i);
                    if i.out.len() < before {
                        drop(i);
                        tty.wait.wake(poll::OUT);
                    }
                }
                if let Some((cols, rows)) = port.winsize() {
                    let [old_rows, old_cols, x, y] = tty.inner.lock().winsize;
                    if (old_rows, old_cols) != (rows, cols) {
                        tty.set_winsize([rows, cols, x, y]);
                    }
                }
                let room = tty.inner.lock().ld.room().min(buf.len());
                if room == 0 {
                    // Readers make room and wake this queue.
                    return None;
                }
                match port.try_read(&mut buf[..room]) {
                    Ok(n) => Some(Some(n)),
                    Err(Errno::EAGAIN) => None,
                    Err(_) => Some(None),
                }
            })
            .await;
        match got {
            Some(n) if n > 0 => tty.receive(&buf[..n]),
            // The host line is at its end: readers see an end of file, but writing may go on (stdin closed).
            _ => {
                if port.try_write(&[]).is_err() {
                    tty.hangup();
                } else {
                    tty.end_of_input();
                }
                return;
            }
        }
    }
}

impl Tty {
    /// Readers have made room: input that waits at the port may come.
    pub(super) fn unthrottle(&self) {
        if let Back::Port(p) = &self.back {
            p.wait_queue().wake(poll::IN);
        }
    }

    /// Input has ended for good: each read finds an end of file.
    fn end_of_input(&self) {
        self.inner.lock().ended = true;
        self.wait.wake_all();
    }
}

/// Writes kernel text to the console, in front of nothing and behind what waits; text before there is a console is
/// lost here and stays in the log.
pub fn console_write(text: &[u8]) {
    let Some(tty) = CONSOLE.get() else { return };
    // A line logged by code that holds this very lock stays in the log alone.
    let Some(mut i) = tty.inner.try_lock_for(std::time::Duration::from_millis(20)) else { return };
    if i.out.len() < super::ECHO_MAX {
        for &b in text {
            if b == b'\n' {
                i.out.push_back(b'\r');
            }
            i.out.push_back(b);
        }
    }
    tty.push_out(&mut i);
    if let Back::Port(p) = &tty.back
        && std::thread::panicking()
    {
        p.flush_now();
    }
}

/// Hands everything that waits to the host (shutdown, panic).
pub fn flush() {
    if let Some(tty) = CONSOLE.get()
        && let Back::Port(p) = &tty.back
    {
        tty.push_out(&mut tty.inner.lock());
        p.flush_now();
    }
}

/// The console.
pub fn console() -> Option<Arc<Tty>> {
    CONSOLE.get().cloned()
}

fn find(dev: u64) -> Option<Arc<Tty>> {
    TTYS.read().iter().find(|t| t.dev == dev).cloned()
}

fn open_tty(o: &OpenChr<'_>) -> Result<Arc<dyn FileOps>> {
    let tty = find(makedev(4, o.minor)).ok_or(Errno::ENXIO)?;
    super::file::open(o, tty, true)
}

fn open_aux(o: &OpenChr<'_>) -> Result<Arc<dyn FileOps>> {
    match o.minor {
        0 => {
            let tty = super::jobs::current_tty(o.cur).ok_or(Errno::ENXIO)?;
            super::file::open(o, tty, false)
        }
        // The console never becomes a controlling terminal by being opened.
        1 => super::file::open(o, console().ok_or(Errno::ENODEV)?, false),
        2 => super::pty::open_ptmx(o),
        _ => Err(Errno::ENXIO),
    }
}

/// Makes the device numbers known.
pub fn register() {
    register_chr(4, 0..=63, "tty", open_tty);
    register_chr(4, 64..=255, "ttyS", open_tty);
    register_chr(5, 0..=2, "/dev/tty", open_aux);
}
