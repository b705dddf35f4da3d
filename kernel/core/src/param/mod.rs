//! The boot line: what the arguments of `vmlinux` say. Grammar and defaults are User-Mode Linux's; its silent ignores
//! and crashes are not. Nothing here touches the host: the same arguments give the same answer everywhere.
//!
//! * [`parse`] turns arguments into a [`BootLine`] and the list of mistakes.
//! * [`At`]: where an option stood and how it was written, so that whoever finds a mistake in it later (a driver's parser)
//!   can name it the same way.
//! * `options`: one function an option. `line`: arguments, quotes, `--`, the text of /proc/cmdline. `number`, `ubd`,
//!   `root`, `ip`, `hint`: parts of the grammar.
//!
//! Neighbours: `vmlinux` above, which parses the texts of drivers' options with the drivers' own parsers. No locks.

mod hint;
mod ip;
mod line;
mod number;
mod options;
mod root;
mod ubd;

#[cfg(test)]
mod tests;

pub use ip::IpConfig;
pub use line::quoted;
pub use root::RootDev;
pub use ubd::Disk;

use std::collections::BTreeMap;
use std::fmt;

/// `mem=` when it is not given: 64 MiB, as User-Mode Linux has it.
pub const MEM_DEFAULT: u64 = 64 << 20;
/// The least memory that boots.
pub const MEM_MIN: u64 = 16 << 20;
/// The most: what half of a 47-bit address space has room for.
pub const MEM_MAX: u64 = 1 << 46;
/// Most CPUs.
pub const NCPUS_MAX: usize = 8;
/// Longest boot line in bytes (COMMAND_LINE_SIZE less the terminator).
pub const LINE_MAX: usize = 4095;
/// Consoles go from con0 to con15.
pub const CONSOLES: u8 = 16;
/// Serial lines go from ssl0 to ssl63.
pub const SERIAL_LINES: u8 = 64;

/// Where an option stands on the boot line, and its text as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Index of the argument, from 0.
    pub pos: usize,
    /// The whole argument: `mem=512M`.
    pub text: String,
}

impl At {
    /// A mistake in this option. `what` says what is wrong and what was expected.
    pub fn error(&self, what: impl Into<String>) -> Mistake {
        Mistake { at: self.clone(), what: what.into() }
    }
}

/// A mistake on the boot line; shown as `OPTION=VALUE: what is wrong; what was expected`, always one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The option.
    pub at: At,
    /// What is wrong with it, and what was expected.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 120;
        let one_line = |s: &str| s.chars().flat_map(hint::visible).collect::<String>();
        let mut option = one_line(&self.at.text);
        if option.chars().count() > SHOWN {
            option = option.chars().take(SHOWN).chain("...".chars()).collect();
        }
        write!(f, "{option}: {}", one_line(&self.what))
    }
}

/// The text of an option that a driver parses: `con0=`, `ssl1=`, `vec0:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceText {
    /// The option.
    pub at: At,
    /// What follows `con0=` or `vec0:`.
    pub text: String,
}

/// What the process is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Boot.
    #[default]
    Boot,
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// `--showconfig`.
    ShowConfig,
}

/// A line for the boot log about an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Warn: something asked for does not happen. Info: nothing is lost.
    pub level: log::Level,
    /// The line.
    pub text: String,
}

/// What the boot line says, with defaults filled in.
#[derive(Clone, Debug)]
pub struct BootLine {
    /// What to do.
    pub action: Action,
    /// `mem=`: bytes of guest memory, a multiple of 64 KiB.
    pub mem: u64,
    /// `umid=`; `None`: a random one.
    pub umid: Option<String>,
    /// `uml_dir=`; `None`: `~/.uml`.
    pub uml_dir: Option<(At, String)>,
    /// `ubd<N>=`, ascending units.
    pub disks: Vec<Disk>,
    /// The disk with the root file system; `None`: the initramfs is all there is.
    pub root: Option<RootDev>,
    /// `ro` (the default) or `rw`.
    pub root_ro: bool,
    /// `rootfstype=`: names separated by commas.
    pub rootfstype: Option<String>,
    /// `rootflags=`: mount data for the root file system.
    pub rootflags: Option<String>,
    /// `init=`; `None`: the usual four paths.
    pub init: Option<String>,
    /// `rdinit=`: the program of an initramfs; `None`: /init.
    pub rdinit: Option<String>,
    /// `con=`: for consoles that have no `con<N>=`.
    pub con_default: Option<DeviceText>,
    /// `con<N>=`.
    pub cons: BTreeMap<u8, DeviceText>,
    /// `ssl=`: for serial lines that have no `ssl<N>=`.
    pub ssl_default: Option<DeviceText>,
    /// `ssl<N>=`.
    pub ssls: BTreeMap<u8, DeviceText>,
    /// `console=`, in order; the last one is /dev/console.
    pub consoles: Vec<String>,
    /// `vec<N>:`.
    pub vecs: BTreeMap<u32, DeviceText>,
    /// `ncpus=`; `None`: as many as the host lends, at most [`NCPUS_MAX`].
    pub ncpus: Option<usize>,
    /// Lines of a level below this reach the console (`loglevel=`, `quiet`, `debug`, `ignore_loglevel`); 7 by
    /// default, 8 with `log=`.
    pub loglevel: u32,
    /// `quiet` was given.
    pub quiet: bool,
    /// `panic=`: accepted; a panic ends the process at once.
    pub panic: i32,
    /// `noreboot`: a reboot ends the process.
    pub noreboot: bool,
    /// `ip=`.
    pub ip: Option<IpConfig>,
    /// `strace`: each system call is logged.
    pub strace: bool,
    /// `hostname=`.
    pub hostname: Option<String>,
    /// `initrd=`: a host file.
    pub initrd: Option<(At, String)>,
    /// `log=`: levels by subsystem, in env_logger's syntax.
    pub log: Option<String>,
    /// Arguments of init after its path: unknown words, then what follows `--`.
    pub init_args: Vec<String>,
    /// Environment of init: HOME, TERM and unknown `name=value`.
    pub init_env: Vec<String>,
    /// The line that Linux logs about what goes to init.
    pub unknown: Option<String>,
    /// Lines for the boot log.
    pub notes: Vec<Note>,
    /// /proc/cmdline without its newline.
    pub cmdline: String,
}

impl Default for BootLine {
    fn default() -> Self {
        Self {
            action: Action::Boot,
            mem: MEM_DEFAULT,
            umid: None,
            uml_dir: None,
            disks: Vec::new(),
            root: None,
            root_ro: true,
            rootfstype: None,
            rootflags: None,
            init: None,
            rdinit: None,
            con_default: None,
            cons: BTreeMap::new(),
            ssl_default: None,
            ssls: BTreeMap::new(),
            consoles: Vec::new(),
            vecs: BTreeMap::new(),
            ncpus: None,
            loglevel: 7,
            quiet: false,
            panic: 0,
            noreboot: false,
            ip: None,
            strace: false,
            hostname: None,
            initrd: None,
            log: None,
            init_args: Vec::new(),
            init_env: vec!["HOME=/".into(), "TERM=linux".into()],
            unknown: None,
            notes: Vec::new(),
            cmdline: String::new(),
        }
    }
}

/// Names of all options but those of units (`ubd0=`, `con0=`, `vec0:`), with `=` if they take a value.
pub fn option_names() -> impl Iterator<Item = &'static str> {
    options::names()
}

/// Parses the arguments of the process (without argv\[0\]). Mistakes are in the order of the line; with any of them the
/// result must not be booted, but its `action` holds.
pub fn parse<S: AsRef<str>>(args: &[S]) -> (BootLine, Vec<Mistake>) {
    line::parse(args)
}
