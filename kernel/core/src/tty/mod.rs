//! Terminals: consoles over `device::tty_port`, pseudo terminals, the line discipline, job control (tty_ioctl(4)).
//!
//! Key types: [`Tty`] (one terminal), [`ldisc::Ldisc`] (N_TTY), [`file::TtyFile`] (an open terminal), `pty` (pairs).
//! Above: `fs::devices`. Below: `device::tty_port`, `signal`, `task::session`.
//! Lock order: `Tty::inner` is taken alone; ports are called with it held, signals are sent after it has been dropped.

pub mod console;
pub mod file;
pub mod ioctl;
pub mod jobs;
pub mod ldisc;
pub mod pty;
pub mod termios;

pub use console::{console_write, register_console};

use crate::fs::poll;
use crate::task::session::ControllingTty;
use crate::{Errno, Result};
use device::tty_port::TtyPort;
use klib::waitqueue::WaitQueue;
use ldisc::Ldisc;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Output that waits for the far side before writers do.
const OUT_MAX: usize = 16_384;
/// Echo is dropped when this much output waits.
const ECHO_MAX: usize = 65_536;

/// What is at the far side.
pub enum Back {
    /// A line on the host.
    Port(Arc<dyn TtyPort>),
    /// The master of a pair; it takes its bytes from `Inner::out`.
    Pty,
}

/// The changing part of a terminal.
pub struct Inner {
    /// The line discipline.
    pub ld: Ldisc,
    /// Processed output on its way.
    pub out: VecDeque<u8>,
    /// Rows, columns, and their sizes in pixels (struct winsize).
    pub winsize: [u16; 4],
    /// Foreground process group; 0 if none.
    pub pgrp: u32,
    /// Session it controls; 0 if none.
    pub session: u32,
    /// The line is gone: reads end, writes fail.
    pub hung_up: bool,
    /// Input has ended for good: reads give 0.
    pub ended: bool,
    /// TIOCEXCL.
    pub exclusive: bool,
}

/// A terminal.
pub struct Tty {
    /// Device number.
    pub dev: u64,
    /// Name without /dev/, for example `tty0`.
    pub name: String,
    /// The far side.
    pub back: Back,
    /// State.
    pub inner: Mutex<Inner>,
    /// Readers and writers of this side.
    pub wait: WaitQueue,
    /// The master of a pair waits here.
    pub master_wait: WaitQueue,
    /// Open files of this side.
    pub count: AtomicU32,
}

impl Tty {
    /// A terminal with default settings.
    pub fn new(dev: u64, name: String, back: Back) -> Arc<Self> {
        let (cols, rows) = match &back {
            Back::Port(p) => p.winsize().unwrap_or((0, 0)),
            Back::Pty => (0, 0),
        };
        Arc::new(Self {
            dev,
            name,
            back,
            inner: Mutex::new(Inner {
                ld: Ldisc::default(),
                out: VecDeque::new(),
                winsize: [rows, cols, 0, 0],
                pgrp: 0,
                session: 0,
                hung_up: false,
                ended: false,
                exclusive: false,
            }),
            wait: WaitQueue::new(),
            master_wait: WaitQueue::new(),
            count: AtomicU32::new(0),
        })
    }

    /// Hands waiting output to the port, as far as it takes it.
    pub fn push_out(&self, i: &mut Inner) {
        let Back::Port(port) = &self.back else { return };
        while !i.ld.stopped && !i.out.is_empty() {
            let (front, _) = i.out.as_slices();
            match port.try_write(front) {
                Ok(0) | Err(_) => return,
                Ok(n) => {
                    i.out.drain(..n.min(front.len()));
                }
            }
        }
    }

    /// Takes bytes from the far side.
    pub fn receive(&self, bytes: &[u8]) {
        let (signals, pgrp) = {
            let mut i = self.inner.lock();
            let fx = i.ld.input(bytes);
            if fx.flush_output {
                i.out.clear();
            }
            if i.out.len() < ECHO_MAX {
                i.out.extend(&fx.echo);
            }
            self.push_out(&mut i);
            (fx.signals, i.pgrp)
        };
        for s in signals {
            if pgrp != 0 {
                crate::fs::hooks::send_group(pgrp, s);
            }
        }
        self.wait.wake(poll::IN | poll::OUT);
        self.master_wait.wake(poll::IN | poll::OUT);
    }

    /// Writes text processed for output; gives how many bytes of `text` were taken, or `EAGAIN`.
    pub fn write(&self, text: &[u8]) -> Result<usize> {
        let n = {
            let mut i = self.inner.lock();
            if i.hung_up {
                return Err(Errno::EIO);
            }
            self.push_out(&mut i);
            let room = OUT_MAX.saturating_sub(i.out.len());
            if room == 0 {
                return Err(Errno::EAGAIN);
            }
            // One byte may become eight (a tab): the bound is on what goes in.
            let n = text.len().min(room);
            let mut out = Vec::with_capacity(n + 16);
            i.ld.output(&text[..n], &mut out);
            i.out.extend(out);
            self.push_out(&mut i);
            n
        };
        self.master_wait.wake(poll::IN);
        Ok(n)
    }

    /// TIOCSWINSZ, and a change on the host: SIGWINCH if it is one.
    pub fn set_winsize(&self, new: [u16; 4]) {
        let pgrp = {
            let mut i = self.inner.lock();
            if i.winsize == new {
                return;
            }
            i.winsize = new;
            i.pgrp
        };
        if pgrp != 0 {
            crate::fs::hooks::send_group(pgrp, uapi::raw::general::SIGWINCH);
        }
    }

    /// The far side has gone: readers see the end, the session hears of it.
    pub fn hangup(&self) {
        let pgrp = {
            let mut i = self.inner.lock();
            if i.hung_up {
                return;
            }
            i.hung_up = true;
            i.ld.flush_input();
            i.pgrp
        };
        self.wait.wake_all();
        self.master_wait.wake_all();
        if pgrp != 0 {
            crate::fs::hooks::send_group(pgrp, uapi::raw::general::SIGHUP);
            crate::fs::hooks::send_group(pgrp, uapi::raw::general::SIGCONT);
        }
    }
}

impl ControllingTty for Tty {
    fn foreground_pgrp(&self) -> u32 {
        self.inner.lock().pgrp
    }

    fn disassociate(&self) {
        let mut i = self.inner.lock();
        i.session = 0;
        i.pgrp = 0;
    }

    fn dev(&self) -> u64 {
        self.dev
    }
}

/// Counts an open file of the terminal.
pub(crate) fn opened(tty: &Tty) {
    tty.count.fetch_add(1, Ordering::AcqRel);
}
