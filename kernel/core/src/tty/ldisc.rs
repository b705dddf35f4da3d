//! The line discipline N_TTY (termios(3)): from bytes typed to lines, signals and echo; from bytes written to bytes
//! sent. Pure: no locks, no tasks.

use super::termios::{self as t, Termios};
use std::collections::VecDeque;
use uapi::raw::general as c;

/// Bytes of a line being edited (N_TTY_BUF_SIZE).
const LINE_MAX: usize = 4095;
/// Bytes that wait for readers.
const READ_MAX: usize = 65_536;

/// What came of some input.
#[derive(Default)]
pub struct Effects {
    /// Bytes to send back, processed for output.
    pub echo: Vec<u8>,
    /// Signals for the foreground process group.
    pub signals: Vec<u32>,
    /// A flush of output was asked for (a signal without NOFLSH).
    pub flush_output: bool,
}

/// State of one terminal's line discipline.
#[derive(Default)]
pub struct Ldisc {
    /// The settings.
    pub termios: Termios,
    /// The line being edited.
    line: Vec<u8>,
    /// Lines (with their ends) that wait for readers; an empty one is an end of file.
    lines: VecDeque<Vec<u8>>,
    /// Bytes that wait when there are no lines (ICANON off).
    raw: VecDeque<u8>,
    queued: usize,
    column: usize,
    /// Column where the line being edited starts.
    line_start: usize,
    literal_next: bool,
    /// ^S was typed: output stops.
    pub stopped: bool,
}

impl Ldisc {
    fn l(&self, bit: u32) -> bool {
        self.termios.lflag & bit != 0
    }

    fn i(&self, bit: u32) -> bool {
        self.termios.iflag & bit != 0
    }

    fn is(&self, b: u8, which: u32) -> bool {
        let v = self.termios.cc[which as usize];
        v != t::DISABLED && v == b
    }

    /// How many more bytes of input fit.
    pub fn room(&self) -> usize {
        READ_MAX.saturating_sub(self.queued)
    }

    /// Bytes that a read may take now (FIONREAD).
    pub fn available(&self) -> usize {
        if self.l(c::ICANON) { self.lines.front().map_or(0, Vec::len) } else { self.raw.len() }
    }

    /// A read would give something (a line, an end of file, VMIN bytes).
    pub fn readable(&self) -> bool {
        if self.l(c::ICANON) {
            !self.lines.is_empty()
        } else {
            !self.raw.is_empty() && self.raw.len() >= self.min()
        }
    }

    /// VMIN when it counts: with VTIME set, poll(2) is content with one byte.
    fn min(&self) -> usize {
        let vtime = self.termios.cc[c::VTIME as usize];
        let vmin = usize::from(self.termios.cc[c::VMIN as usize]);
        if vtime == 0 { vmin.max(1) } else { 1 }
    }

    /// VTIME of a read that may come back with nothing (VMIN 0), in tenths of a second; 0: no such time.
    pub fn read_timeout_ds(&self) -> u8 {
        let cc = &self.termios.cc;
        if self.l(c::ICANON) || cc[c::VMIN as usize] != 0 { 0 } else { cc[c::VTIME as usize] }
    }

    /// Takes what was typed.
    pub fn input(&mut self, bytes: &[u8]) -> Effects {
        let mut fx = Effects::default();
        for &b in bytes {
            self.input_byte(b, &mut fx);
        }
        fx
    }

    fn input_byte(&mut self, b: u8, fx: &mut Effects) {
        let mut b = if self.i(c::ISTRIP) { b & 0x7f } else { b };
        if self.literal_next {
            self.literal_next = false;
            self.push(b, fx);
            return;
        }
        if b == b'\r' {
            if self.i(c::IGNCR) {
                return;
            }
            if self.i(c::ICRNL) {
                b = b'\n';
            }
        } else if b == b'\n' && self.i(c::INLCR) {
            b = b'\r';
        }
        if self.i(t::IUCLC) && self.l(c::IEXTEN) {
            b = b.to_ascii_lowercase();
        }
        if self.i(c::IXON) {
            if self.is(b, c::VSTART) {
                self.stopped = false;
                return;
            }
            if self.is(b, c::VSTOP) {
                self.stopped = true;
                return;
            }
            if self.i(c::IXANY) {
                self.stopped = false;
            }
        }
        if self.l(c::ISIG) {
            for (which, sig) in [(c::VINTR, c::SIGINT), (c::VQUIT, c::SIGQUIT), (c::VSUSP, c::SIGTSTP)] {
                if self.is(b, which) {
                    if !self.l(c::NOFLSH) {
                        self.flush_input();
                        fx.flush_output = true;
                        fx.echo.clear();
                    }
                    self.echo(b, fx);
                    fx.signals.push(sig);
                    return;
                }
            }
        }
        if self.l(c::ICANON) && self.edit(b, fx) {
            return;
        }
        self.push(b, fx);
    }

    /// Editing of a line; true if the byte was one of its commands.
    fn edit(&mut self, b: u8, fx: &mut Effects) -> bool {
        if self.is(b, c::VERASE) {
            self.erase_one(fx);
        } else if self.is(b, c::VKILL) {
            if self.l(t::ECHOKE) && self.l(c::ECHOE) && self.l(c::ECHO) {
                while !self.line.is_empty() {
                    self.erase_one(fx);
                }
            } else {
                self.line.clear();
                self.echo(b, fx);
                if self.l(c::ECHOK) && self.l(c::ECHO) {
                    self.emit(b'\n', &mut fx.echo);
                }
            }
        } else if self.l(c::IEXTEN) && self.is(b, c::VWERASE) {
            let word = |x: u8| x.is_ascii_alphanumeric() || x == b'_' || x >= 0x80;
            while self.line.last().is_some_and(|&x| !word(x)) {
                self.erase_one(fx);
            }
            while self.line.last().is_some_and(|&x| word(x)) {
                self.erase_one(fx);
            }
        } else if self.l(c::IEXTEN) && self.is(b, c::VLNEXT) {
            self.literal_next = true;
            if self.l(c::ECHO) && self.l(t::ECHOCTL) {
                fx.echo.extend_from_slice(b"^\x08");
            }
        } else if self.l(c::IEXTEN) && self.is(b, c::VREPRINT) && self.l(c::ECHO) {
            self.echo(b, fx);
            self.emit(b'\n', &mut fx.echo);
            for x in self.line.clone() {
                self.echo(x, fx);
            }
        } else if self.is(b, c::VEOF) {
            self.commit();
        } else if b == b'\n' || self.is(b, c::VEOL) || (self.l(c::IEXTEN) && self.is(b, c::VEOL2)) {
            if self.l(c::ECHO) || (b == b'\n' && self.l(c::ECHONL)) {
                self.echo_plain(b, fx);
            }
            self.line.push(b);
            self.commit();
        } else {
            return false;
        }
        true
    }

    fn commit(&mut self) {
        let line = std::mem::take(&mut self.line);
        // Ends of file take no room among the bytes: they are counted here.
        if self.lines.len() >= 4096 {
            return;
        }
        self.queued += line.len();
        self.lines.push_back(line);
    }

    fn push(&mut self, b: u8, fx: &mut Effects) {
        if self.l(c::ICANON) {
            if self.line.len() >= LINE_MAX {
                if self.i(c::IMAXBEL) {
                    fx.echo.push(7);
                }
                return;
            }
            if self.line.is_empty() {
                self.line_start = self.column;
            }
            self.line.push(b);
        } else {
            if self.queued >= READ_MAX {
                return;
            }
            self.raw.push_back(b);
            self.queued += 1;
        }
        self.echo(b, fx);
    }

    /// How a byte of the line is shown: itself, or `^X`.
    fn shown(&self, b: u8) -> usize {
        if is_control(b) && b != b'\t' {
            if self.l(t::ECHOCTL) { 2 } else { 0 }
        } else if b & 0xc0 == 0x80 && self.i(t::IUTF8) {
            0
        } else {
            1
        }
    }

    fn erase_one(&mut self, fx: &mut Effects) {
        let Some(mut b) = self.line.pop() else { return };
        if self.i(t::IUTF8) {
            while b & 0xc0 == 0x80 {
                match self.line.pop() {
                    Some(x) => b = x,
                    None => break,
                }
            }
        }
        if !self.l(c::ECHO) {
            return;
        }
        if !self.l(c::ECHOE) {
            let e = self.termios.cc[c::VERASE as usize];
            self.echo(e, fx);
            return;
        }
        let width = if b == b'\t' {
            // Back to where the tab began: the columns of what stands before it.
            let mut col = self.line_start;
            for &x in &self.line {
                col = if x == b'\t' { (col | 7) + 1 } else { col + self.shown(x) };
            }
            self.column.saturating_sub(col)
        } else {
            self.shown(b)
        };
        for _ in 0..width {
            fx.echo.extend_from_slice(if b == b'\t' { b"\x08" } else { b"\x08 \x08" });
        }
        self.column = self.column.saturating_sub(width);
    }

    fn echo(&mut self, b: u8, fx: &mut Effects) {
        if !self.l(c::ECHO) {
            return;
        }
        if is_control(b) && b != b'\t' && b != b'\n' && self.l(t::ECHOCTL) {
            fx.echo.push(b'^');
            fx.echo.push(b ^ 0x40);
            self.column += 2;
        } else {
            self.echo_plain(b, fx);
        }
    }

    fn echo_plain(&mut self, b: u8, fx: &mut Effects) {
        self.emit(b, &mut fx.echo);
    }

    /// Processes bytes for output (OPOST).
    pub fn output(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &b in bytes {
            self.emit(b, out);
        }
    }

    fn emit(&mut self, b: u8, out: &mut Vec<u8>) {
        let o = self.termios.oflag;
        if o & c::OPOST == 0 {
            out.push(b);
            return;
        }
        match b {
            b'\n' => {
                if o & c::ONLCR != 0 {
                    out.push(b'\r');
                    self.column = 0;
                }
                if o & c::ONLRET != 0 {
                    self.column = 0;
                }
                out.push(b);
            }
            b'\r' => {
                if o & c::ONOCR != 0 && self.column == 0 {
                    return;
                }
                if o & c::OCRNL != 0 {
                    out.push(b'\n');
                    return;
                }
                self.column = 0;
                out.push(b);
            }
            b'\t' => {
                let n = 8 - (self.column & 7);
                self.column += n;
                if o & t::TABDLY == t::XTABS {
                    out.extend(std::iter::repeat_n(b' ', n));
                } else {
                    out.push(b);
                }
            }
            8 => {
                self.column = self.column.saturating_sub(1);
                out.push(b);
            }
            _ => {
                let b = if o & t::OLCUC != 0 { b.to_ascii_uppercase() } else { b };
                if !is_control(b) && (b & 0xc0 != 0x80 || !self.i(t::IUTF8)) {
                    self.column += 1;
                }
                out.push(b);
            }
        }
    }

    /// Looks at what a read of `max` bytes would get; `None` if it has to wait. The bytes stay until
    /// [`consume`](Self::consume).
    pub fn peek(&mut self, max: usize) -> Option<Vec<u8>> {
        if self.l(c::ICANON) {
            let line = self.lines.front()?;
            return Some(line[..line.len().min(max)].to_vec());
        }
        let vmin = usize::from(self.termios.cc[c::VMIN as usize]);
        if vmin > 0 && self.raw.len() < self.min().min(max) {
            return None;
        }
        if self.raw.is_empty() && self.termios.cc[c::VTIME as usize] != 0 {
            return None;
        }
        Some(self.raw.iter().take(max).copied().collect())
    }

    /// Takes off what a read has got.
    pub fn consume(&mut self, n: usize) {
        if self.l(c::ICANON) {
            let Some(line) = self.lines.front_mut() else { return };
            let n = n.min(line.len());
            line.drain(..n);
            self.queued = self.queued.saturating_sub(n);
            if line.is_empty() {
                self.lines.pop_front();
            }
        } else {
            let n = n.min(self.raw.len());
            self.raw.drain(..n);
            self.queued = self.queued.saturating_sub(n);
        }
    }

    /// TCIFLUSH.
    pub fn flush_input(&mut self) {
        self.line.clear();
        self.lines.clear();
        self.raw.clear();
        self.queued = 0;
    }

    /// New settings. What waits is carried over when lines are switched on or off.
    pub fn set_termios(&mut self, new: Termios) {
        let (was, is) = (self.l(c::ICANON), new.lflag & c::ICANON != 0);
        if was && !is {
            for l in self.lines.drain(..) {
                self.raw.extend(l);
            }
            self.raw.extend(self.line.drain(..));
            self.queued = self.raw.len();
        } else if !was && is && !self.raw.is_empty() {
            self.lines.push_back(self.raw.drain(..).collect());
        }
        if new.iflag & c::IXON == 0 {
            self.stopped = false;
        }
        self.termios = new;
    }
}

fn is_control(b: u8) -> bool {
    b < 32 || b == 127
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(l: &mut Ldisc) -> Option<Vec<u8>> {
        let v = l.peek(4096)?;
        l.consume(v.len());
        Some(v)
    }

    #[test]
    fn lines_are_edited_and_echoed() {
        let mut l = Ldisc::default();
        let fx = l.input(b"helx\x7flo\r");
        assert_eq!(fx.echo, b"helx\x08 \x08lo\r\n");
        assert_eq!(read(&mut l), Some(b"hello\n".to_vec()));
        assert_eq!(read(&mut l), None);
        l.input(b"one two\x17x\n");
        assert_eq!(read(&mut l), Some(b"one x\n".to_vec()));
        l.input(b"gone\x15kept\n");
        assert_eq!(read(&mut l), Some(b"kept\n".to_vec()));
    }

    #[test]
    fn end_of_file_and_signals() {
        let mut l = Ldisc::default();
        l.input(b"part\x04");
        assert_eq!(read(&mut l), Some(b"part".to_vec()));
        l.input(b"\x04");
        assert!(l.readable());
        assert_eq!(l.peek(10), Some(Vec::new()));
        l.consume(0);
        assert!(!l.readable());
        let fx = l.input(b"abc\x03");
        assert_eq!(fx.signals, [c::SIGINT]);
        assert!(fx.echo.ends_with(b"^C") && fx.flush_output);
        assert_eq!(l.available(), 0);
    }

    #[test]
    fn raw_mode_and_back() {
        let mut l = Ldisc::default();
        l.input(b"typed ahead\nmore");
        let mut raw = l.termios;
        raw.lflag &= !(c::ICANON | c::ECHO | c::ISIG);
        raw.oflag &= !c::OPOST;
        l.set_termios(raw);
        assert_eq!(read(&mut l), Some(b"typed ahead\nmore".to_vec()));
        let fx = l.input(b"\x03\x7f");
        assert!(fx.echo.is_empty() && fx.signals.is_empty());
        assert_eq!(read(&mut l), Some(b"\x03\x7f".to_vec()));
        let mut out = Vec::new();
        l.output(b"a\nb", &mut out);
        assert_eq!(out, b"a\nb");
    }

    #[test]
    fn flow_control_and_long_lines() {
        let mut l = Ldisc::default();
        l.input(b"\x13");
        assert!(l.stopped);
        l.input(b"\x11");
        assert!(!l.stopped);
        l.input(&[b'x'; 10_000]);
        l.input(b"\n");
        assert_eq!(read(&mut l).map(|v| v.len()), Some(4096));
    }
}
