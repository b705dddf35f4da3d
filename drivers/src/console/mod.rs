//! Consoles and serial lines: `<in>[,<out>]`, each a channel of the host. The guest's line discipline is the kernel's; on
//! this side everything is raw.
//!
//! * [`Spec`]: what the command line says. [`open`]: the port it means.
//! * [`fd`]: host descriptors. [`null`]: nowhere.
//!
//! Neighbours: `device::tty_port` above, `executor::irq` and `arch::host` below. Lock order: a port's state lock is a
//! leaf; wait queues are woken without it.

pub mod fd;
pub mod null;

use device::tty_port::TtyPort;
use std::fmt;
use std::sync::Arc;

/// One direction of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// Output is discarded, input never comes.
    Null,
    /// The line does not exist.
    None,
    /// A descriptor that this process was started with.
    Fd(i32),
}

/// Where a line's input comes from and its output goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spec {
    /// Input.
    pub input: Channel,
    /// Output.
    pub output: Channel,
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::None => f.write_str("none"),
            Self::Fd(n) => write!(f, "fd:{n}"),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.input == self.output {
            self.input.fmt(f)
        } else {
            write!(f, "{},{}", self.input, self.output)
        }
    }
}

impl Channel {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "null" => Ok(Self::Null),
            None if text == "none" => Ok(Self::None),
            None | Some(("fd", "")) if text.starts_with("fd") => {
                Err(format!("channel '{text}': 'fd' must specify a file descriptor, as in fd:0"))
            }
            Some(("fd", n)) => match n.parse() {
                Ok(n) if (0..1 << 20).contains(&n) => Ok(Self::Fd(n)),
                _ => Err(format!("channel '{text}': '{n}' is not the number of a file descriptor")),
            },
            _ => match text.split(':').next().unwrap_or_default() {
                kind @ ("pty" | "pts" | "tty" | "port" | "xterm") => {
                    Err(format!("channel '{text}': '{kind}' is not supported yet; use fd:<n>, null or none"))
                }
                _ => Err(format!("channel '{text}': expected fd:<n>, null or none")),
            },
        }
    }
}

impl Spec {
    /// Parses `<in>[,<out>]`; one channel serves both directions. `Err` is one line for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (input, output) = match text.split_once(',') {
            Some((i, o)) => (Channel::parse(i)?, Channel::parse(o)?),
            None => (Channel::parse(text)?, Channel::parse(text)?),
        };
        if (input == Channel::None) != (output == Channel::None) {
            return Err(format!("'{text}': a line cannot exist in one direction only; use null"));
        }
        Ok(Self { input, output })
    }
}

/// Opens the port that a specification means; `None` for `none`. On a CPU or before the executor starts; nothing moves
/// before [`Port::start`]. `Err` is one line for the user.
pub fn open(spec: Spec) -> Result<Option<Port>, String> {
    match (spec.input, spec.output) {
        (Channel::None, _) | (_, Channel::None) => Ok(None),
        (Channel::Null, Channel::Null) => Ok(Some(Port::Null(Arc::default()))),
        (input, output) => fd::FdPort::open(input, output).map(|p| Some(Port::Fd(p))),
    }
}

/// An opened port.
pub enum Port {
    /// Goes nowhere.
    Null(Arc<null::NullPort>),
    /// Host descriptors.
    Fd(Arc<fd::FdPort>),
}

impl Port {
    /// Puts host terminals in raw mode and begins to move bytes; on a CPU (or with the executor running). The terminal is
    /// put back at the end of the executor, on a panic, and when the host ends us by a signal.
    pub fn start(self) -> Arc<dyn TtyPort> {
        match self {
            Self::Null(p) => p,
            Self::Fd(p) => {
                p.start();
                p
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs() {
        let both = |c| Spec { input: c, output: c };
        assert_eq!(Spec::parse("null"), Ok(both(Channel::Null)));
        assert_eq!(Spec::parse("none"), Ok(both(Channel::None)));
        assert_eq!(Spec::parse("fd:3"), Ok(both(Channel::Fd(3))));
        let pair = Spec { input: Channel::Fd(0), output: Channel::Fd(1) };
        assert_eq!(Spec::parse("fd:0,fd:1"), Ok(pair));
        assert_eq!(pair.to_string(), "fd:0,fd:1");
        assert_eq!(both(Channel::Null).to_string(), "null");
        for bad in [
            "",
            "fd",
            "fd:",
            "fd:x",
            "fd:-1",
            "pts",
            "tty:/dev/tty1",
            "none,fd:0",
            "fd:0,fd:1,fd:2",
            "port:9",
        ] {
            assert!(Spec::parse(bad).is_err(), "{bad}");
        }
        assert!(open(both(Channel::Fd(1 << 19))).is_err_and(|e| e.contains("fd:524288")));
    }
}
