//! struct termios and its numbers (termios(3), ioctl_tty(2)).

use uapi::raw::general as c;

/// A control character that is off.
pub const DISABLED: u8 = 0;
/// Lower case on input.
pub const IUCLC: u32 = 0o1000;
/// Input is UTF-8.
pub const IUTF8: u32 = 0o40000;
/// Upper case on output.
pub const OLCUC: u32 = 2;
/// How tabs are sent.
pub const TABDLY: u32 = 0o14000;
/// As spaces.
pub const XTABS: u32 = 0o14000;
/// Control characters are echoed as `^X`.
pub const ECHOCTL: u32 = 0o1000;
/// A kill erases what is shown.
pub const ECHOKE: u32 = 0o4000;

/// Settings of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Termios {
    /// Input modes.
    pub iflag: u32,
    /// Output modes.
    pub oflag: u32,
    /// Control modes.
    pub cflag: u32,
    /// Local modes.
    pub lflag: u32,
    /// Line discipline.
    pub line: u8,
    /// Control characters.
    pub cc: [u8; 19],
    /// Baud rates.
    pub ispeed: u32,
    /// See [`ispeed`](Self::ispeed).
    pub ospeed: u32,
}

/// struct termios in guest layout.
pub type Raw = [u8; 36];
/// struct termios2.
pub type Raw2 = [u8; 44];

impl Default for Termios {
    /// What Linux gives a new terminal.
    fn default() -> Self {
        let mut cc = [0u8; 19];
        for (i, v) in [
            (c::VINTR, 3),
            (c::VQUIT, 28),
            (c::VERASE, 127),
            (c::VKILL, 21),
            (c::VEOF, 4),
            (c::VMIN, 1),
            (c::VSTART, 17),
            (c::VSTOP, 19),
            (c::VSUSP, 26),
            (c::VREPRINT, 18),
            (c::VDISCARD, 15),
            (c::VWERASE, 23),
            (c::VLNEXT, 22),
        ] {
            cc[i as usize] = v;
        }
        Self {
            iflag: c::ICRNL | c::IXON,
            oflag: c::OPOST | c::ONLCR,
            // B38400 | CS8 | CREAD | HUPCL
            cflag: 0o17 | 0o60 | 0o200 | 0o2000,
            lflag: c::ISIG | c::ICANON | c::ECHO | c::ECHOE | c::ECHOK | ECHOCTL | ECHOKE | c::IEXTEN,
            line: 0,
            cc,
            ispeed: 38_400,
            ospeed: 38_400,
        }
    }
}

impl Termios {
    /// In guest layout, speeds included.
    pub fn to_raw2(self) -> Raw2 {
        let mut r = [0u8; 44];
        for (i, v) in [self.iflag, self.oflag, self.cflag, self.lflag].into_iter().enumerate() {
            r[i * 4..i * 4 + 4].copy_from_slice(&v.to_ne_bytes());
        }
        r[16] = self.line;
        r[17..36].copy_from_slice(&self.cc);
        r[36..40].copy_from_slice(&self.ispeed.to_ne_bytes());
        r[40..44].copy_from_slice(&self.ospeed.to_ne_bytes());
        r
    }

    /// In the layout of the older struct.
    pub fn to_raw(self) -> Raw {
        let mut r = [0u8; 36];
        r.copy_from_slice(&self.to_raw2()[..36]);
        r
    }

    /// From guest layout; speeds are kept where only the older struct is given.
    pub fn from_raw(self, r: &[u8]) -> Self {
        let word = |i: usize| {
            let mut b = [0u8; 4];
            if let Some(s) = r.get(i..i + 4) {
                b.copy_from_slice(s);
            }
            u32::from_ne_bytes(b)
        };
        let mut cc = [0u8; 19];
        if let Some(s) = r.get(17..36) {
            cc.copy_from_slice(s);
        }
        let speeds = r.len() >= 44;
        Self {
            iflag: word(0),
            oflag: word(4),
            cflag: word(8),
            lflag: word(12),
            line: 0,
            cc,
            ispeed: if speeds { word(36) } else { self.ispeed },
            ospeed: if speeds { word(40) } else { self.ospeed },
        }
    }
}
