//! The host terminal: raw mode and its undoing, window size (termios(3), ioctl_tty(2)).

use super::fd::HostFd;
use super::from_rustix;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use uapi::Result;

/// A terminal in raw mode; remembers how it was. Clones are not made: whoever holds it restores it.
#[derive(Debug)]
pub struct RawMode {
    fd: HostFd,
    saved: Termios,
}

impl RawMode {
    /// Puts a terminal in raw mode (cfmakeraw(3)): every byte passes unchanged both ways.
    pub fn enter(fd: &HostFd) -> Result<Self> {
        let saved = tcgetattr(fd).map_err(from_rustix)?;
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(fd, OptionalActions::Now, &raw).map_err(from_rustix)?;
        Ok(Self { fd: fd.clone(), saved })
    }

    /// Puts it back as it was. May be called more than once and from any thread.
    pub fn restore(&self) {
        let _ = tcsetattr(&self.fd, OptionalActions::Now, &self.saved);
    }
}

/// Columns and rows of a terminal; `None` if the descriptor is not one or does not know.
pub fn winsize(fd: &HostFd) -> Option<(u16, u16)> {
    let w = tcgetwinsize(fd).ok()?;
    (w.ws_col > 0 && w.ws_row > 0).then_some((w.ws_col, w.ws_row))
}

/// A new pseudo-terminal (pts(4)): (master, slave).
pub fn open_pty() -> Result<(HostFd, HostFd)> {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).map_err(from_rustix)?;
    grantpt(&master).map_err(from_rustix)?;
    unlockpt(&master).map_err(from_rustix)?;
    let slave = ioctl_tiocgptpeer(&master, flags).map_err(from_rustix)?;
    Ok((master.into(), slave.into()))
}

/// Sets the size of a terminal in columns and rows; its foreground processes get SIGWINCH.
pub fn set_winsize(fd: &HostFd, cols: u16, rows: u16) -> Result<()> {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(fd, size).map_err(from_rustix)
}

/// True if the terminal is in raw mode: no echo, no lines, no signals.
pub fn is_raw(fd: &HostFd) -> bool {
    use rustix::termios::LocalModes as L;
    tcgetattr(fd).is_ok_and(|t| !t.local_modes.intersects(L::ECHO | L::ICANON | L::ISIG))
}
