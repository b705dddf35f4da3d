//! From the texts of the boot line to devices. Everything is opened before anything starts, so that a mistake is one line
//! and not half a machine.

use arch::mm::PhysMem;
use device::block::BlockDevice;
use drivers::console::{Channel, Port, Spec};
use drivers::ubd::{Ubd, UbdConfig};
use drivers::vector::{Vector, VectorConfig};
use kernel::param::{At, BootLine, DeviceText, Disk, Mistake};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Minors of a disk.
const MINORS: u32 = 16;
/// Most bytes of an initramfs.
const INITRD_MAX: u64 = 1 << 30;

/// The texts of the drivers, parsed.
pub struct Parsed {
    /// Consoles by number.
    consoles: BTreeMap<u8, (At, Spec)>,
    /// Network devices.
    vecs: Vec<(At, VectorConfig)>,
}

/// The devices, opened.
pub struct Devices {
    /// Disks by the minor of the whole disk.
    pub disks: Vec<(u32, Arc<dyn BlockDevice>)>,
    /// Console lines by number; the kernel's own console first.
    pub consoles: Vec<(u32, Port)>,
    /// Network devices in the order of their units.
    pub nics: Vec<Arc<dyn net::NetDevice>>,
    /// The initramfs of `initrd=`.
    pub initrd: Option<Vec<u8>>,
}

fn spec(text: &DeviceText, wrong: &mut Vec<Mistake>) -> Option<(At, Spec)> {
    match Spec::parse(&text.text) {
        Ok(spec) => Some((text.at.clone(), spec)),
        Err(e) => {
            wrong.push(text.at.error(e));
            None
        }
    }
}

/// Parses what the drivers understand; adds their mistakes to those of the line.
pub fn parse(line: &BootLine, wrong: &mut Vec<Mistake>) -> Parsed {
    let mut consoles = BTreeMap::new();
    let default = line.con_default.as_ref().and_then(|text| spec(text, wrong));
    for n in 0..kernel::param::CONSOLES {
        let found = match line.cons.get(&n) {
            Some(text) => spec(text, wrong),
            None if n == 0 && default.is_none() => {
                let spec = Spec { input: Channel::Fd(0), output: Channel::Fd(1) };
                Some((At { pos: 0, text: "con0=fd:0,fd:1".into() }, spec))
            }
            None => default.clone(),
        };
        consoles.extend(found.map(|f| (n, f)));
    }
    // Serial lines are checked; those that lead somewhere have to wait.
    for text in line.ssl_default.iter().chain(line.ssls.values()) {
        if let Some((at, spec)) = spec(text, wrong)
            && matches!((spec.input, spec.output), (Channel::Fd(_), _) | (_, Channel::Fd(_)))
        {
            wrong.push(at.error(
                "serial lines are not yet supported; expected null or none, or con<N>= for a console",
            ));
        }
    }
    let mut vecs = Vec::new();
    for (unit, text) in &line.vecs {
        match VectorConfig::parse_options(*unit, &text.text) {
            Ok(cfg) => vecs.push((text.at.clone(), cfg)),
            Err(e) => wrong.push(text.at.error(without_name(&e, &format!("vec{unit}")))),
        }
    }
    wrong.sort_by_key(|m| m.at.pos);
    Parsed { consoles, vecs }
}

/// Drivers begin their messages with the device, which whoever shows a [`Mistake`] does too.
fn without_name<'a>(message: &'a str, name: &str) -> &'a str {
    message.strip_prefix(name).and_then(|m| m.strip_prefix(": ")).unwrap_or(message)
}

/// Opens everything. `Err` is the first thing that cannot be had.
pub fn open(line: &BootLine, parsed: &Parsed, memory: &PhysMem, cpus: usize) -> Result<Devices, Mistake> {
    let mut disks: Vec<(u32, Arc<dyn BlockDevice>)> = Vec::new();
    for disk in &line.disks {
        disks.push((u32::from(disk.unit) * MINORS, open_disk(disk, memory)?));
    }
    let mut nics: Vec<Arc<dyn net::NetDevice>> = Vec::new();
    for (at, cfg) in &parsed.vecs {
        let cfg = &VectorConfig { cpus, ..cfg.clone() };
        let nic = Vector::new(cfg).map_err(|e| at.error(without_name(&e, &format!("vec{}", cfg.unit))))?;
        nics.push(nic);
    }
    let initrd = line.initrd.as_ref().map(|(at, path)| read_initrd(at, path)).transpose()?;
    let mut consoles = Vec::new();
    for (n, (at, spec)) in &parsed.consoles {
        if let Some(port) = drivers::console::open(*spec).map_err(|e| at.error(e))? {
            consoles.push((u32::from(*n), port));
        }
    }
    // The last console= that exists is the kernel's.
    let wanted: Vec<u32> = line.consoles.iter().filter_map(|c| c.strip_prefix("tty")?.parse().ok()).collect();
    if let Some(i) = wanted.iter().rev().find_map(|n| consoles.iter().position(|(m, _)| m == n)) {
        consoles.swap(0, i);
    }
    Ok(Devices { disks, consoles, nics, initrd })
}

fn open_disk(disk: &Disk, memory: &PhysMem) -> Result<Arc<Ubd>, Mistake> {
    let cfg = UbdConfig {
        unit: disk.unit,
        path: disk.file.clone().into(),
        backing: disk.backing.clone().map(Into::into),
        read_only: disk.read_only,
        sync: disk.sync,
        shared: disk.shared,
        data: disk.data,
        no_trim: disk.no_trim,
        serial: disk.serial.clone(),
    };
    Ubd::open(&cfg, Some(memory.clone())).map_err(|e| {
        let named = format!("ubd{}={}", disk.unit, disk.file);
        disk.at.error(without_name(&e, &named))
    })
}

fn read_initrd(at: &At, path: &str) -> Result<Vec<u8>, Mistake> {
    let wrong = |e: std::io::Error| {
        at.error(format!("cannot read it: {}; expected a file of the host", crate::instance::plain(&e)))
    };
    let meta = std::fs::metadata(path).map_err(wrong)?;
    if !meta.is_file() || meta.len() > INITRD_MAX {
        return Err(at.error("not a file of at most 1 GiB; expected a cpio archive (newc)"));
    }
    let bytes = std::fs::read(path).map_err(wrong)?;
    if !bytes.starts_with(b"070701") && !bytes.starts_with(b"070702") {
        return Err(at.error("not a cpio archive (newc; compressed ones are not yet supported); expected one made with 'cpio -o -H newc'"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(args: &[&str]) -> String {
        let (line, mut wrong) = kernel::param::parse(args);
        parse(&line, &mut wrong);
        wrong.first().map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn mistakes_of_drivers_stand_in_the_order_of_the_line() {
        for (args, expected) in [
            ("con0=fd:x", "con0=fd:x: channel 'fd:x': 'x' is not the number of a file descriptor"),
            (
                "con=xterm",
                "con=xterm: channel 'xterm': 'xterm' is not supported yet; use fd:<n>, null or none",
            ),
            (
                "ssl0=fd:0",
                "ssl0=fd:0: serial lines are not yet supported; expected null or none, or con<N>= for a console",
            ),
            ("ssl=null con1=none", ""),
            ("vec0:transport=tap,depth=x mem=1", "vec0:transport=tap,depth=x: depth=x: "),
            ("mem=1 vec0:transport=tap,depth=x", "mem=1: Too few physical memory!"),
            ("vec1:transport=hybris", "vec1:transport=hybris: transport=hybris: unknown"),
        ] {
            let args: Vec<&str> = args.split(' ').collect();
            let got = first(&args);
            assert!(got.starts_with(expected) && got.is_empty() == expected.is_empty(), "{args:?}: {got}");
        }
    }

    #[test]
    fn consoles_by_default_and_by_name() {
        let consoles = |args: &[&str]| {
            let (line, mut wrong) = kernel::param::parse(args);
            let p = parse(&line, &mut wrong);
            assert!(wrong.is_empty());
            p.consoles.into_iter().map(|(n, (_, s))| format!("{n}={s}")).collect::<Vec<_>>()
        };
        assert_eq!(consoles(&[]), ["0=fd:0,fd:1"]);
        assert_eq!(consoles(&["con1=null", "con0=null,fd:2"]), ["0=null,fd:2", "1=null"]);
        assert_eq!(consoles(&["con=null", "con0=fd:0,fd:1"]).len(), 16);
    }
}
