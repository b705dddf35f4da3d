//! sysfs (sysfs(5)), as far as programs look: CPUs, disks, network interfaces. Others add files with [`register`].

use super::pseudo::{Entry, Text, Tree};
use crate::fs::devices;
use crate::fs::inode::{Inode, major, minor};
use crate::fs::super_block::{FsType, MountArgs, PlainSuper, SuperBlock};
use crate::socket::net_stack;
use crate::task::Task;
use crate::{BoxFuture, Errno, Result};
use net::dev::ethtool::Duplex;
use std::sync::{Arc, OnceLock};

const MAGIC: u64 = 0x6265_6572;

static TREE: Tree = Tree::new();

/// Adds /sys/`path`.
pub fn register(path: &str, read: impl Fn() -> String + Send + Sync + 'static) {
    TREE.text(path, read);
}

/// Adds a link.
pub fn register_link(path: &str, target: &str) {
    TREE.add(path, Entry::Link(target.to_owned()));
}

/// Adds a directory whose names come from closures, for example class/net.
pub fn register_living(path: &str, names: super::pseudo::Names, find: super::pseudo::Find) {
    TREE.add(path, Entry::Living(names, find));
}

fn text(f: impl Fn() -> String + Send + Sync + 'static) -> Entry {
    Entry::File(Text::new(move |_| Ok(f().into_bytes())))
}

fn fill() {
    let n = executor::nr_cpus().max(1);
    let range = if n == 1 { "0\n".to_owned() } else { format!("0-{}\n", n - 1) };
    for f in ["online", "possible", "present"] {
        let r = range.clone();
        TREE.text(&format!("devices/system/cpu/{f}"), move || r.clone());
    }
    TREE.text("devices/system/cpu/offline", || "\n".into());
    TREE.text("devices/system/cpu/kernel_max", || "7\n".into());
    for i in 0..n {
        let base = format!("devices/system/cpu/cpu{i}");
        TREE.text(&format!("{base}/online"), || "1\n".into());
        TREE.text(&format!("{base}/topology/core_id"), move || format!("{i}\n"));
        TREE.text(&format!("{base}/topology/physical_package_id"), || "0\n".into());
        TREE.text(&format!("{base}/topology/thread_siblings_list"), move || format!("{i}\n"));
        TREE.text(&format!("{base}/topology/thread_siblings"), move || format!("{:x}\n", 1u64 << i.min(63)));
    }
    TREE.text("devices/system/node/online", || "0\n".into());
    let r = range;
    TREE.text("devices/system/node/node0/cpulist", move || r.clone());
    for d in devices::disks() {
        let base = format!("devices/virtual/block/{}", d.name);
        let (a, b) = (major(d.number), minor(d.number));
        TREE.text(&format!("{base}/dev"), move || format!("{a}:{b}\n"));
        let dev = Arc::clone(&d.dev);
        TREE.text(&format!("{base}/size"), move || format!("{}\n", dev.size() / 512));
        let dev = Arc::clone(&d.dev);
        TREE.text(&format!("{base}/ro"), move || format!("{}\n", u8::from(dev.read_only())));
        let name = d.name.clone();
        TREE.text(&format!("{base}/uevent"), move || {
            format!("MAJOR={a}\nMINOR={b}\nDEVNAME={name}\nDEVTYPE=disk\n")
        });
        TREE.text(&format!("{base}/removable"), || "0\n".into());
        TREE.text(&format!("{base}/stat"), || "0 0 0 0 0 0 0 0 0 0 0\n".into());
        TREE.text(&format!("{base}/queue/rotational"), || "0\n".into());
        TREE.text(&format!("{base}/queue/logical_block_size"), || "512\n".into());
        TREE.text(&format!("{base}/queue/hw_sector_size"), || "512\n".into());
        register_link(&format!("block/{}", d.name), &format!("../{base}"));
        register_link(&format!("class/block/{}", d.name), &format!("../../{base}"));
        register_link(&format!("dev/block/{a}:{b}"), &format!("../../{base}"));
    }
    // Interfaces come and go: their names are asked of the stack, and their parts read from its text.
    let names: super::pseudo::Names = Arc::new(|| interfaces().into_iter().map(|i| i.0).collect());
    register_living(
        "class/net",
        names,
        Arc::new(|n| {
            interfaces()
                .iter()
                .any(|i| i.0 == n)
                .then(|| Entry::Link(format!("../../devices/virtual/net/{n}")))
        }),
    );
    let names: super::pseudo::Names = Arc::new(|| interfaces().into_iter().map(|i| i.0).collect());
    register_living(
        "devices/virtual/net",
        names,
        Arc::new(|n| {
            let n = n.to_owned();
            interfaces().iter().any(|i| i.0 == n).then(|| {
                let a = n.clone();
                Entry::Living(
                    Arc::new(|| PARTS.iter().map(|p| (*p).to_owned()).collect()),
                    Arc::new(move |part| interface_part(&a, part)),
                )
            })
        }),
    );
    for dir in
        ["kernel/debug", "kernel/security", "fs/cgroup", "bus", "firmware", "module", "power", "class/tty"]
    {
        TREE.add(dir, Entry::Dir);
    }
    TREE.text("kernel/uevent_seqnum", || "0\n".into());
    TREE.text("kernel/mm/transparent_hugepage/enabled", || "always madvise [never]\n".into());
    TREE.text("class/tty/console/active", || "tty0\n".into());
}

/// Files of an interface's directory.
const PARTS: &[&str] = &[
    "address",
    "carrier",
    "carrier_changes",
    "duplex",
    "flags",
    "ifindex",
    "mtu",
    "operstate",
    "speed",
    "type",
    "uevent",
    "statistics",
];
/// Files of its statistics, with the column of /proc/net/dev they are in.
const COUNTERS: &[(&str, usize)] = &[
    ("rx_bytes", 0),
    ("rx_packets", 1),
    ("rx_errors", 2),
    ("rx_dropped", 3),
    ("multicast", 7),
    ("tx_bytes", 8),
    ("tx_packets", 9),
    ("tx_errors", 10),
    ("tx_dropped", 11),
    ("collisions", 13),
];

/// Name and counters of each interface.
fn interfaces() -> Vec<(String, Vec<u64>)> {
    net::proc::net_dev(net_stack())
        .lines()
        .filter_map(|l| {
            let (name, rest) = l.split_once(':')?;
            Some((name.trim().to_owned(), rest.split_whitespace().filter_map(|w| w.parse().ok()).collect()))
        })
        .collect()
}

fn interface_part(name: &str, part: &str) -> Option<Entry> {
    if !PARTS.contains(&part) {
        return None;
    }
    let own = name.to_owned();
    if part == "statistics" {
        return Some(Entry::Living(
            Arc::new(|| COUNTERS.iter().map(|c| c.0.to_owned()).collect()),
            Arc::new(move |f| {
                let column = COUNTERS.iter().find(|c| c.0 == f)?.1;
                let own = own.clone();
                Some(text(move || {
                    let v = interfaces().into_iter().find(|i| i.0 == own);
                    format!("{}\n", v.and_then(|i| i.1.get(column).copied()).unwrap_or(0))
                }))
            }),
        ));
    }
    let part = part.to_owned();
    Some(Entry::File(Text::new(move |_| device_text(&own, &part).map(String::into_bytes))))
}

fn init_root() -> Arc<Inode> {
    let sb = SuperBlock::new("sysfs", MAGIC, 0, Box::new(PlainSuper));
    TREE.set_super(Arc::clone(&sb));
    fill();
    TREE.inode("").expect("the root of a tree is there")
}

fn mount<'a>(_cur: &'a Arc<Task>, _args: MountArgs<'a>) -> BoxFuture<'a, Result<Arc<Inode>>> {
    static ROOT: OnceLock<Arc<Inode>> = OnceLock::new();
    Box::pin(async { Ok(Arc::clone(ROOT.get_or_init(init_root))) })
}

/// Makes sysfs known to mount(2).
pub fn init() {
    crate::fs::super_block::register(FsType { name: "sysfs", needs_dev: false, mount });
}

/// One file of an interface. EINVAL where Linux says so: the link of a device that is down, the speed of one that has none.
fn device_text(name: &str, part: &str) -> Result<String> {
    let d = net_stack().devs.by_name(name).ok_or(Errno::ENODEV)?;
    let link = || match d.is_up() {
        true => d.drv.ethtool().link_settings().map_err(|_| Errno::EINVAL),
        false => Err(Errno::EINVAL),
    };
    let running = d.flags().contains(net::dev::IfFlags::RUNNING);
    Ok(match part {
        "address" => {
            let m: Vec<String> = d.drv.mac().iter().map(|b| format!("{b:02x}")).collect();
            format!("{}\n", m.join(":"))
        }
        "carrier" if !d.is_up() => return Err(Errno::EINVAL),
        "carrier" => format!("{}\n", u8::from(running)),
        "carrier_changes" => format!("{}\n", d.carrier_changes()),
        "flags" => format!("{:#x}\n", d.flags().bits() & 0xffff),
        "ifindex" => format!("{}\n", d.ifindex),
        "mtu" => format!("{}\n", d.drv.mtu()),
        "operstate" if d.is_loopback() => "unknown\n".into(),
        "operstate" => format!("{}\n", if running { "up" } else { "down" }),
        "speed" => link()?.speed.map_or("-1\n".to_owned(), |s| format!("{s}\n")),
        "duplex" => match link()?.duplex {
            Duplex::Half => "half\n".into(),
            Duplex::Full => "full\n".into(),
            Duplex::Unknown => "unknown\n".into(),
        },
        "type" => format!("{}\n", if d.is_loopback() { 772 } else { 1 }),
        "uevent" => format!("INTERFACE={name}\nIFINDEX={}\n", d.ifindex),
        _ => String::new(),
    })
}
