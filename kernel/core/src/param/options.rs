//! The options, each by its name.

use super::line::{Arg, State};
use super::ubd::{self, Disk};
use super::{
    Action, At, CONSOLES, DeviceText, MEM_MAX, MEM_MIN, NCPUS_MAX, SERIAL_LINES, hint, ip, number, root,
};
use log::Level;

/// What becomes of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Known; stays in /proc/cmdline.
    Keep,
    /// Known; does not.
    Consume,
    /// Not ours.
    Unknown,
}
use Verdict::{Consume, Keep, Unknown};

/// Options with a value, in the form that "did you mean" shows.
const VALUES: &[&str] = &[
    "mem=",
    "umid=",
    "uml_dir=",
    "root=",
    "rootfstype=",
    "rootflags=",
    "init=",
    "rdinit=",
    "initrd=",
    "con=",
    "ssl=",
    "console=",
    "ncpus=",
    "loglevel=",
    "panic=",
    "ip=",
    "hostname=",
    "log=",
    "hostfs=",
    "mconsole=",
    "iomem=",
    "dtb=",
    "xterm=",
    "virtio_uml.device=",
    "mitigations=",
    "rootdelay=",
    "selinux=",
    "apparmor=",
    "security=",
    "seccomp=",
];
/// Options that are one word (some take a value too).
const WORDS: &[&str] = &[
    "ro",
    "rw",
    "quiet",
    "debug",
    "ignore_loglevel",
    "noreboot",
    "strace",
    "nokaslr",
    "earlyprintk",
    "rootwait",
    "nosysemu",
    "ssl-non-raw",
    "fake_ide",
    "fakehd",
    "time-travel",
    "time-travel-start=",
    "--help",
    "--version",
    "--showconfig",
];

/// All of them.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    VALUES.iter().chain(WORDS).copied()
}

/// Names are the same with `-` and `_`, as in Linux.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// True if an argument begins with the name of an option of ours.
pub(super) fn known(arg: &str) -> bool {
    let name = normal(arg.split('=').next().unwrap_or(arg));
    let ours = |k: &&str| normal(k.trim_end_matches('=')) == name;
    names().any(|k| ours(&k)) || device(arg).is_some()
}

/// The option that an unknown name is probably meant to be.
pub(super) fn guess(name: &str) -> Option<&'static str> {
    let plain: Vec<&'static str> =
        VALUES.iter().chain(WORDS).filter(|k| !k.starts_with('-')).map(|k| k.trim_end_matches('=')).collect();
    let found = hint::guess(&name.to_ascii_lowercase(), &plain).or_else(|| {
        // MEM=, Root=: the right name in the wrong case.
        plain.iter().copied().find(|k| k.len() >= 3 && *k != name && name.eq_ignore_ascii_case(k))
    })?;
    VALUES.iter().chain(WORDS).copied().find(|k| k.trim_end_matches('=') == found)
}

/// A device option: its prefix and what follows it. `con` and `ssl` want a digit, a letter is only ubd's.
fn device(arg: &str) -> Option<(&'static str, &str)> {
    for prefix in ["ubd", "udb", "vec", "eth", "con", "ssl"] {
        let Some(rest) = arg.strip_prefix(prefix) else { continue };
        let digit = rest.starts_with(|c: char| c.is_ascii_digit());
        let head = rest.split(['=', ':']).next().unwrap_or(rest);
        let has_value = head.len() < rest.len();
        let is = match prefix {
            "ubd" | "udb" => digit || head.len() <= 7,
            "vec" | "eth" => digit || (has_value && head.len() <= 1),
            _ => digit,
        };
        if is {
            return Some((prefix, rest));
        }
    }
    None
}

/// Takes one argument. `Err` says what is wrong and what was expected.
pub(super) fn option(st: &mut State, at: &At, arg: &Arg<'_>) -> Result<Verdict, String> {
    if let Some((prefix, rest)) = device(arg.whole) {
        return device_option(st, at, prefix, rest);
    }
    let name = normal(arg.name);
    match arg.value {
        _ if name.starts_with("__") => dashed(st, arg),
        _ if name == "time_travel" || name == "time_travel_start" => Err(not_supported("simulated time")),
        Some(value) => with_value(st, at, &name, value),
        None => word(st, at, &name),
    }
}

fn dashed(st: &mut State, arg: &Arg<'_>) -> Result<Verdict, String> {
    st.line.action =
        match arg.whole {
            "--help" => Action::Help,
            "--version" => Action::Version,
            "--showconfig" => Action::ShowConfig,
            _ => return Err(
                "unknown option; expected --help, --version or --showconfig (arguments of init go after --)"
                    .into(),
            ),
        };
    Ok(Keep)
}

fn not_yet(what: &str) -> String {
    format!("{what} not yet supported; expected a boot line without this option")
}

fn not_supported(what: &str) -> String {
    format!("{what} is not supported; expected a boot line without this option")
}

/// `con0=`, `vec0:`, `ubd0=`, `eth0=`.
fn device_option(st: &mut State, at: &At, prefix: &str, rest: &str) -> Result<Verdict, String> {
    match prefix {
        "ubd" => return disk(st, at, rest),
        "udb" => return Err(format!("unknown option; did you mean ubd{rest}?")),
        "eth" => return Err(legacy_net(rest)),
        "vec" => return vector(st, at, rest),
        _ => {}
    }
    let units = if prefix == "con" { CONSOLES } else { SERIAL_LINES };
    let what = if prefix == "con" { "console" } else { "serial line" };
    let (unit, tail) =
        number::c_uint(rest).ok_or(format!("bad {what} number; expected 0 to {}", units - 1))?;
    let Some(text) = tail.strip_prefix('=') else {
        return Err(format!("missing '='; expected {prefix}{unit}=CHANNEL, as in {prefix}{unit}=null"));
    };
    let unit = u8::try_from(unit)
        .ok()
        .filter(|u| *u < units)
        .ok_or(format!("device number out of range; expected {prefix}0 to {prefix}{}", units - 1))?;
    st.once(&format!("{prefix}{unit}"), at)?;
    let line = channel(at, text)?;
    let lines = if prefix == "con" { &mut st.line.cons } else { &mut st.line.ssls };
    lines.insert(unit, line);
    Ok(Keep)
}

fn channel(at: &At, text: &str) -> Result<DeviceText, String> {
    if text.is_empty() {
        return Err("no channel given; expected fd:<n>, fd:<in>,fd:<out>, null or none".into());
    }
    Ok(DeviceText { at: at.clone(), text: text.into() })
}

fn disk(st: &mut State, at: &At, rest: &str) -> Result<Verdict, String> {
    match rest.strip_prefix('=') {
        Some("sync") => {
            st.all_sync = true;
            return Ok(Keep);
        }
        Some(v) if !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()) => {
            return Err("fake major not supported any more; expected ubd<N>=FILE or ubd=sync".into());
        }
        Some(_) => return Err("no device number; expected ubd<N>=FILE, as in ubd0=FILE, or ubd=sync".into()),
        None => {}
    }
    let disk = Disk::parse(at.clone(), rest).inspect_err(|_| remember_unit(st, at, rest))?;
    st.once(&format!("ubd{}", disk.unit), at).map_err(|e| format!("device is already configured, {e}"))?;
    st.line.disks.retain(|d| d.unit != disk.unit);
    st.line.disks.push(disk);
    Ok(Keep)
}

/// A disk with a mistake is a disk all the same: `root=` must not be called wrong for it.
fn remember_unit(st: &mut State, at: &At, rest: &str) {
    if let Some((unit, _)) = ubd::unit(rest) {
        let _ = st.once(&format!("ubd{unit}"), at);
    }
}

fn vector(st: &mut State, at: &At, rest: &str) -> Result<Verdict, String> {
    const EXPECTED: &str = "expected vec<N>:key=value,..., as in vec0:transport=tap,ifname=tap0";
    let Some((unit, tail)) = number::c_uint(rest) else {
        return Err(format!("bad device number; {EXPECTED}"));
    };
    let Some(text) = tail.strip_prefix(':') else {
        return Err(format!("expected ':' after device number; {EXPECTED}"));
    };
    let unit = u32::try_from(unit)
        .ok()
        .filter(|u| *u < 256)
        .ok_or("device number out of range; expected vec0 to vec255")?;
    st.once(&format!("vec{unit}"), at)?;
    st.line.vecs.insert(unit, DeviceText { at: at.clone(), text: text.into() });
    Ok(Keep)
}

/// The network devices that are gone since Linux 6.16: each has a successor.
fn legacy_net(rest: &str) -> String {
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let n = rest.get(..digits).filter(|n| !n.is_empty()).unwrap_or("0");
    let spec = rest.split_once('=').map_or("", |(_, s)| s);
    let mut fields = spec.split(',');
    let transport = fields.next().unwrap_or_default();
    let tap = fields.next().filter(|f| !f.is_empty()).unwrap_or("tap0");
    let instead = match transport {
        "daemon" | "vde" => format!("vec{n}:transport=vde,vnl=..."),
        "mcast" | "ucast" => format!("vec{n}:transport=l2tpv3,udp=1,..."),
        "slirp" | "slip" => format!("vec{n}:transport=fd,fd=<N> with passt on the other end"),
        "pcap" => format!("vec{n}:transport=raw,ifname=..."),
        "tuntap" => format!("vec{n}:transport=tap,ifname={tap}"),
        _ => format!("vec{n}:transport=tap,ifname=tap0"),
    };
    format!("eth devices are not supported; expected {instead}")
}

fn with_value(st: &mut State, at: &At, name: &str, value: &str) -> Result<Verdict, String> {
    const ONCE: [&str; 12] = [
        "mem",
        "umid",
        "uml_dir",
        "root",
        "rootfstype",
        "rootflags",
        "init",
        "rdinit",
        "ncpus",
        "hostname",
        "initrd",
        "ip",
    ];
    if ONCE.contains(&name) {
        st.once(name, at)?;
    }
    let text = |what: &str| match value {
        "" => Err(format!("empty value; expected {what}")),
        v => Ok(v.to_string()),
    };
    match name {
        "mem" => st.line.mem = memory(value)?,
        "umid" => {
            st.line.umid = Some(umid(value)?);
            return Ok(Consume);
        }
        "uml_dir" => match value {
            "" => return Err("uml_dir can't be an empty string; expected a directory of the host".into()),
            v => st.line.uml_dir = Some((at.clone(), v.into())),
        },
        "root" => st.root = Some((at.clone(), root::parse(value)?)),
        "rootfstype" => st.line.rootfstype = Some(file_systems(value)?),
        "rootflags" => st.line.rootflags = Some(value.into()),
        "init" => st.line.init = Some(text("a program of the guest, as in init=/bin/sh")?),
        "rdinit" => st.line.rdinit = Some(text("a program of the initramfs, as in rdinit=/init")?),
        "initrd" => st.line.initrd = Some((at.clone(), text("a host file, as in initrd=rootfs.cpio")?)),
        "hostname" => st.line.hostname = Some(hostname(value)?),
        "ip" => st.line.ip = ip::parse(value)?,
        "con" => st.line.con_default = Some(channel(at, value)?),
        "ssl" => st.line.ssl_default = Some(channel(at, value)?),
        "console" => st.line.consoles.push(console(value)?),
        "ncpus" => {
            st.line.ncpus = Some(
                value
                    .parse()
                    .ok()
                    .filter(|n| (1..=NCPUS_MAX).contains(n))
                    .ok_or(format!("not a number of CPUs; expected 1 to {NCPUS_MAX}"))?,
            );
        }
        "loglevel" => {
            let level = number::c_int(value).and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= 15);
            st.loglevel = Some(level.ok_or("not a level; expected 0 to 8, as in loglevel=7")?);
        }
        "panic" => {
            st.line.panic = number::c_int(value).ok_or("not a number; expected seconds, as in panic=-1")?
        }
        "strace" => return Err("a filter is not yet supported; expected strace".into()),
        "log" => st.line.log = Some(levels(value)?),
        "debug" | "earlyprintk" => {}
        "hostfs" => return Err(not_yet("hostfs is")),
        "mconsole" => return Err(not_yet("the management console is")),
        "virtio_uml.device" => return Err(not_yet("virtio devices are")),
        "xterm" => return Err(not_yet("xterm channels are")),
        "iomem" => return Err(not_supported("a file as a region of I/O memory")),
        "dtb" => return Err(not_supported("a device tree")),
        "seccomp" => {
            if !matches!(value, "on" | "auto" | "off") {
                return Err("invalid seccomp option; expected on, auto or off".into());
            }
            nothing_to_do(st, at, "guest processes are always trapped by seccomp");
        }
        "mitigations" => nothing_to_do(st, at, "the host's mitigations hold for its processes"),
        "rootdelay" => nothing_to_do(st, at, "disks are there at once"),
        "selinux" | "apparmor" | "security" => nothing_to_do(st, at, "there are no security modules"),
        "ro" | "rw" | "quiet" | "ignore_loglevel" | "noreboot" | "nokaslr" | "rootwait" | "nosysemu" => {
            return Err(format!("takes no value; expected {}", at.text.split('=').next().unwrap_or(name)));
        }
        _ => return Ok(Unknown),
    }
    Ok(Keep)
}

fn word(st: &mut State, at: &At, name: &str) -> Result<Verdict, String> {
    match name {
        "ro" => st.line.root_ro = true,
        "rw" => st.line.root_ro = false,
        "quiet" => {
            st.line.quiet = true;
            st.loglevel = Some(4);
        }
        "debug" => st.loglevel = Some(10),
        "ignore_loglevel" => st.loglevel = Some(15),
        "noreboot" => st.line.noreboot = true,
        "strace" => st.line.strace = true,
        "rootwait" => nothing_to_do(st, at, "disks are there at once"),
        "nokaslr" => nothing_to_do(st, at, "there is no kernel image to be moved"),
        "earlyprintk" => nothing_to_do(st, at, "the console works from the first line"),
        "nosysemu" => nothing_to_do(st, at, "ptrace is not used"),
        "ssl_non_raw" => nothing_to_do(st, at, "the host's line is raw, the guest's discipline cooks"),
        "fake_ide" | "fakehd" => nothing_to_do(st, at, "the option has been removed"),
        _ if VALUES.iter().any(|k| normal(k) == format!("{name}=")) => {
            let form = VALUES.iter().find(|k| normal(k) == format!("{name}=")).copied().unwrap_or_default();
            return Err(format!("no value given; expected {form}VALUE"));
        }
        _ => return Ok(Unknown),
    }
    Ok(Keep)
}

/// An option of Linux that does nothing here, by which nothing is lost.
fn nothing_to_do(st: &mut State, at: &At, why: &str) {
    st.note(Level::Info, format!("{}: nothing to do, {why}", at.text));
}

fn memory(value: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected a number with suffix k, m, g or t, as in mem=512M";
    let bytes = number::size(value).ok_or(format!("not a size; {EXPECTED}"))?;
    if bytes < MEM_MIN {
        return Err(format!("Too few physical memory! Needed={MEM_MIN}, given={bytes}; {EXPECTED}"));
    }
    if bytes > MEM_MAX {
        return Err(format!("more than an address space holds; expected at most {}T", MEM_MAX >> 40));
    }
    Ok(bytes & !0xffff)
}

fn umid(value: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected a name of at most 63 bytes without '/', as in umid=debian";
    match value {
        "" => Err(format!("empty name; {EXPECTED}")),
        "." | ".." => Err(format!("not a name; {EXPECTED}")),
        v if v.contains('/') || v.contains('\0') => Err(format!("a name with '/'; {EXPECTED}")),
        v if v.len() > 63 => Err(format!("a name of {} bytes; {EXPECTED}", v.len())),
        v => Ok(v.into()),
    }
}

fn hostname(value: &str) -> Result<String, String> {
    match value.len() {
        1..=64 => Ok(value.into()),
        n => Err(format!("a name of {n} bytes; expected 1 to 64")),
    }
}

fn file_systems(value: &str) -> Result<String, String> {
    for fs in value.split(',') {
        match fs {
            "ext2" | "ext3" | "ext4" => {}
            "hostfs" | "tmpfs" | "ramfs" | "overlay" | "nfs" | "9p" | "virtiofs" => {
                return Err(format!("a root on {fs} is not yet supported; expected ext4"));
            }
            _ => return Err(format!("no file system '{fs}' here; expected ext4")),
        }
    }
    Ok(value.into())
}

fn console(value: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected tty0 to tty15";
    let name = value.split(',').next().unwrap_or(value);
    if name.starts_with("ttyS") {
        return Err(format!("a serial line as console is not yet supported; {EXPECTED}"));
    }
    let unit = match name.strip_prefix("tty") {
        // What KUnit's runner says.
        Some("") => Some(0),
        Some(n) => n.parse::<u8>().ok().filter(|n| *n < CONSOLES),
        None => None,
    };
    unit.map(|n| format!("tty{n}")).ok_or(format!("no such console; {EXPECTED}"))
}

/// `log=info,net::tcp=trace`: what env_logger would only complain about is a mistake here.
fn levels(value: &str) -> Result<String, String> {
    const LEVELS: &str = "off, error, warn, info, debug or trace";
    for part in value.split(',').filter(|p| !p.is_empty()) {
        if let Some((_, level)) = part.rsplit_once('=')
            && level.parse::<log::LevelFilter>().is_err()
        {
            return Err(format!(
                "'{level}' is not a level; expected {LEVELS}, as in log=info,net::tcp=trace"
            ));
        }
    }
    Ok(value.into())
}
