//! Files of /proc that belong to no process.

use super::super::pseudo::{Entry, Text, Tree};
use crate::fs::{devices, inode};
use crate::mm::frames::frames;
use crate::power;
use crate::socket::{self, net_stack};
use crate::task::misc::{RELEASE, VERSION};
use crate::task::pid as pids;
use crate::{Errno, time};
use parking_lot::RwLock;
use std::fmt::Write as _;

static CMDLINE: RwLock<String> = RwLock::new(String::new());

/// Tells the joined boot line, for /proc/cmdline.
pub fn set_cmdline(line: &str) {
    line.clone_into(&mut CMDLINE.write());
}

fn cpus() -> usize {
    executor::nr_cpus().max(1)
}

fn cpuinfo() -> String {
    let mut s = String::new();
    for n in 0..cpus() {
        write!(
            s,
            "processor\t: {n}\nvendor_id\t: User Mode Linux\nmodel name\t: UML\nmode\t\t: skas\nhost\t\t: Linux\n\
             fpu\t\t: yes\nflags\t\t: fpu tsc cx8 cmov mmx fxsr sse sse2 syscall nx lm constant_tsc rep_good nopl cx16\n\
             cache_alignment\t: 64\nbogomips\t: 4000.00\n\n"
        )
        .ok();
    }
    s
}

fn meminfo() -> String {
    let f = frames();
    let (total, free) = (f.total_pages() * 4, f.free_pages() * 4);
    let mut s = String::new();
    for (name, kib) in [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", total.saturating_sub(free)),
        ("Inactive", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", total.saturating_sub(free)),
        ("Mapped", 0),
        ("Shmem", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("CommitLimit", total / 2),
        ("Committed_AS", total.saturating_sub(free)),
        ("VmallocTotal", 34_359_738_367),
        ("VmallocUsed", 0),
    ] {
        writeln!(s, "{:16}{kib:8} kB", format!("{name}:")).ok();
    }
    s
}

/// States of all threads: how many in all, how many run.
fn threads() -> (usize, usize) {
    let t = pids::read();
    (t.nr_threads(), t.tasks().filter(|t| t.state_char() == 'R').count())
}

fn stat() -> String {
    const TICK: u64 = 10_000_000;
    let up = time::uptime_ns() / TICK;
    let idle: Vec<u64> =
        (0..cpus()).map(|n| (executor::stats::cpu(n).map_or(0, |c| c.idle_ns) / TICK).min(up)).collect();
    let mut s = String::new();
    let line = |idle: u64, n: u64| format!("{} 0 0 {idle} 0 0 0 0 0 0\n", (up * n).saturating_sub(idle));
    write!(s, "cpu  {}", line(idle.iter().sum(), cpus() as u64)).ok();
    for (n, i) in idle.iter().enumerate() {
        write!(s, "cpu{n} {}", line(*i, 1)).ok();
    }
    let switches: u64 = (0..cpus()).filter_map(executor::stats::cpu).map(|c| c.tasks_run).sum();
    let boot = (arch::host::clock::realtime_ns().saturating_sub(time::uptime_ns())) / 1_000_000_000;
    let (_, running) = threads();
    let last = pids::read().last_pid();
    write!(
        s,
        "intr 0\nctxt {switches}\nbtime {boot}\nprocesses {last}\nprocs_running {}\nprocs_blocked 0\n\
         softirq 0 0 0 0 0 0 0 0 0 0 0\n",
        running.max(1)
    )
    .ok();
    s
}

fn uptime() -> String {
    let up = time::uptime_ns() / 10_000_000;
    let idle: u64 = (0..cpus()).filter_map(executor::stats::cpu).map(|c| c.idle_ns).sum::<u64>() / 10_000_000;
    format!("{}.{:02} {}.{:02}\n", up / 100, up % 100, idle / 100, idle % 100)
}

fn loadavg() -> String {
    // DIFFERS: the load now, not its average.
    let (all, running) = threads();
    let last = pids::read().last_pid();
    format!("{0}.00 {0}.00 {0}.00 {1}/{all} {last}\n", running.saturating_sub(1), running.max(1))
}

fn filesystems() -> String {
    let mut s = String::new();
    for t in crate::fs::super_block::types() {
        writeln!(s, "{}\t{}", if t.needs_dev { "" } else { "nodev" }, t.name).ok();
    }
    s
}

fn partitions() -> String {
    let mut s = String::from("major minor  #blocks  name\n\n");
    for d in devices::disks() {
        let (a, b) = (inode::major(d.number), inode::minor(d.number));
        writeln!(s, "{a:4} {b:8} {:10} {}", d.dev.size() / 1024, d.name).ok();
    }
    s
}

fn diskstats() -> String {
    let mut s = String::new();
    for d in devices::disks() {
        let (a, b) = (inode::major(d.number), inode::minor(d.number));
        writeln!(s, "{a:4} {b:7} {} 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0", d.name).ok();
    }
    s
}

fn interrupts() -> String {
    let mut s = String::from("   ");
    for n in 0..cpus() {
        write!(s, "        CPU{n}").ok();
    }
    s += "\n  0:";
    for n in 0..cpus() {
        let c = executor::stats::cpu(n).map_or(0, |c| c.completions.iter().sum::<u64>());
        write!(s, " {c:11}").ok();
    }
    s + "   io_uring  completions\n"
}

fn executor_counters() -> String {
    (0..cpus()).filter_map(|n| Some(format!("cpu{n} {:?}\n", executor::stats::cpu(n)?))).collect()
}

/// Adds what the kernel itself has.
pub fn fill(t: &Tree) {
    t.text("cpuinfo", cpuinfo);
    t.text("meminfo", meminfo);
    t.text("stat", stat);
    t.text("uptime", uptime);
    t.text("loadavg", loadavg);
    t.text("version", || format!("Linux version {RELEASE} (kibble@localhost) (rustc) {VERSION}\n"));
    t.text("cmdline", || format!("{}\n", CMDLINE.read()));
    t.text("filesystems", filesystems);
    t.text("devices", devices::show);
    t.text("partitions", partitions);
    t.text("diskstats", diskstats);
    t.text("interrupts", interrupts);
    t.text("iomem", String::new);
    t.text("ioports", String::new);
    t.text("modules", String::new);
    t.text("swaps", || "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".into());
    t.text("misc", String::new);
    t.text("vmstat", || {
        let f = frames();
        format!(
            "nr_free_pages {}\npgfault 0\npgmajfault 0\npswpin 0\npswpout 0\npgpgin 0\npgpgout 0\n",
            f.free_pages()
        )
    });
    t.text("cgroups", || "#subsys_name\thierarchy\tnum_cgroups\tenabled\n".into());
    t.text("kibble/executor", executor_counters);
    t.add("mounts", Entry::Link("self/mounts".into()));
    t.add("net", Entry::Link("self/net".into()));
    t.add("fs", Entry::Dir);
    t.add("bus", Entry::Dir);
    t.add("driver", Entry::Dir);
    let exitcode =
        Text::new(|_| Ok(format!("{}\n", power::exitcode()).into_bytes())).mode(0o400).writable(|_, b| {
            let text = std::str::from_utf8(b).map_err(|_| Errno::EINVAL)?;
            power::set_exitcode(parse_c(text).ok_or(Errno::EINVAL)?);
            Ok(())
        });
    t.add("exitcode", Entry::File(exitcode));
    let kmsg = Text::new(|_| Ok(crate::printk::dump().into_bytes())).mode(0o400);
    t.add("kmsg", Entry::File(kmsg));
}

/// An integer as C writes it: decimal, 0x, or octal with a leading zero.
fn parse_c(text: &str) -> Option<i32> {
    let t = text.trim_matches(['\n', ' ', '\t', '\0']);
    let (neg, t) = t.strip_prefix('-').map_or((false, t), |r| (true, r));
    let v = if let Some(h) = t.strip_prefix("0x").or_else(|| t.strip_prefix("0X")) {
        i32::from_str_radix(h, 16).ok()?
    } else if t.len() > 1 && t.starts_with('0') {
        i32::from_str_radix(t, 8).ok()?
    } else {
        t.parse().ok()?
    };
    Some(if neg { v.wrapping_neg() } else { v })
}

/// Adds what the protocol stack shows of itself.
pub fn fill_net(t: &Tree) {
    t.text("dev", || net::proc::net_dev(net_stack()));
    t.text("route", || net::proc::net_route(net_stack()));
    t.text("arp", || net::proc::net_arp(net_stack()));
    t.text("if_inet6", || net::proc::net_if_inet6(net_stack()));
    t.text("tcp", || net::proc::net_tcp(net_stack(), false));
    t.text("tcp6", || net::proc::net_tcp(net_stack(), true));
    t.text("udp", || net::proc::net_udp(net_stack(), false));
    t.text("udp6", || net::proc::net_udp(net_stack(), true));
    t.text("raw", || net::proc::net_raw(net_stack(), false));
    t.text("raw6", || net::proc::net_raw(net_stack(), true));
    t.text("unix", socket::unix::proc_net_unix);
    t.text("netlink", socket::netlink::proc_net_netlink);
    t.text("packet", || "sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n".into());
    t.text("protocols", || "protocol  size sockets  memory press maxhdr  slab module\n".into());
    t.text("sockstat", || net::proc::net_sockstat(net_stack(), false, socket::count()));
    t.text("sockstat6", || net::proc::net_sockstat(net_stack(), true, 0));
    t.text("snmp", || net::proc::net_snmp(net_stack()));
    t.text("netstat", || "TcpExt: SyncookiesSent\nTcpExt: 0\n".into());
    t.text("wireless", String::new);
}

#[cfg(test)]
mod tests {
    use super::parse_c;

    #[test]
    fn c_integers() {
        assert_eq!(parse_c("0x10\n"), Some(16));
        assert_eq!(parse_c("-3"), Some(-3));
        assert_eq!(parse_c("010"), Some(8));
        assert_eq!(parse_c("0"), Some(0));
        assert_eq!(parse_c("x"), None);
    }
}
