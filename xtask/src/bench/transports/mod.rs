//! `bench transports`: each way of the vector NIC to the host, UML's own row beside ours: TCP both ways, request/response, 64-byte
//! datagrams, CPU time a byte and calls to the host.
//!
//! A group of rows is measured in rounds; in each every system runs once, neighbours adjacent, every second round in reverse order. The
//! far end is made anew for every run and is the same for all systems of a row (`crate::system::far`).

pub mod report;
pub mod rows;

use super::calls::Count;
use super::marks::{Marks, named, unfinished};
use super::net::{Sample, Series};
use super::stats::short;
use crate::cpu::Meter;
use crate::system::far::{Far, Way};
use crate::system::{Context, Run, System, native::Native, uml::Uml};
use anyhow::{Result, bail};
use rows::{ROWS, Row};
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

/// How to measure.
pub struct Plan {
    /// Rounds.
    pub pairs: u32,
    /// Seconds of each transfer.
    pub seconds: u32,
    /// Names of rows, all if empty.
    pub rows: Vec<String>,
    /// Names of systems, all if empty.
    pub systems: Vec<String>,
    /// Our kernel.
    pub kernel: PathBuf,
    /// Root disk of the guests.
    pub ext4: PathBuf,
    /// Root directory of the host's own programs.
    pub tree: PathBuf,
    /// Also show the consoles.
    pub verbose: bool,
}

/// Who is measured on a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// The host's own programs over a veth pair.
    Native,
    /// The host's own programs with a second far end between them and the tunnel.
    Alone,
    /// The packaged User-Mode Linux.
    Uml,
    /// The same, pinned to one core.
    Pinned,
    /// Ours.
    Kibble,
}

/// All systems by their names in `--systems` and in tables.
pub const WHO: [(Who, &str, &str); 5] = [
    (Who::Native, "native", "host, veth"),
    (Who::Uml, "uml", "UML"),
    (Who::Pinned, "uml1", "UML, one core"),
    (Who::Kibble, "kibble", "Kibble"),
    (Who::Alone, "alone", "two far ends"),
];

impl Who {
    /// Name in tables.
    pub fn title(self) -> &'static str {
        WHO.iter().find(|w| w.0 == self).map_or("?", |w| w.2)
    }
}

/// What one system gave on one row.
pub struct Line {
    /// The row.
    pub row: &'static Row,
    /// The system.
    pub who: Who,
    /// Its figures.
    pub series: Series,
}

/// Systems of a group in the order in which they are measured: what is compared stands side by side.
fn line_up(group: u32, plan: &Plan) -> Vec<Line> {
    let named = |list: &[String], key: &str| list.is_empty() || list.iter().any(|l| l == key);
    let has_uml = crate::sh::system_program("linux.uml").is_some();
    let mut out = Vec::new();
    let rows = || ROWS.iter().filter(|r| r.group == group && named(&plan.rows, r.key));
    for (who, key, title) in WHO {
        if !named(&plan.systems, key) {
            continue;
        }
        for row in rows() {
            let there = match who {
                Who::Native => row.native,
                Who::Uml | Who::Pinned => row.uml && has_uml,
                Who::Kibble => true,
                // One way of each kind is enough.
                Who::Alone => matches!(row.way, Way::Tunnel(_)) && row.uml,
            };
            if there {
                let series = Series { name: title.to_owned(), rounds: Vec::new(), failure: None };
                out.push(Line { row, who, series });
            }
        }
    }
    out
}

/// Measures everything; prints progress as it goes.
pub fn measure(plan: &Plan) -> Result<Vec<Line>> {
    let meter = Meter::new();
    eprintln!("bench transports: CPU time by {}", meter.how());
    let why_no_calls = super::calls::unable();
    if let Some(why) = &why_no_calls {
        eprintln!("bench transports: calls are not counted: {why}");
    }
    let mut native = Native::new(plan.tree.clone())?;
    let mut out = Vec::new();
    for group in 0..=ROWS.iter().map(|r| r.group).max().unwrap_or(0) {
        let mut lines = line_up(group, plan);
        for round in 0..plan.pairs {
            let mut order: Vec<usize> = (0..lines.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for i in order {
                let Some(l) = lines.get_mut(i) else { continue };
                // What the far end can do is asked once.
                if l.who == Who::Alone && round > 0 {
                    continue;
                }
                let calls = round == 0 && why_no_calls.is_none();
                let what = format!("{}/{} {:10} {:13}", round + 1, plan.pairs, l.row.key, l.who.title());
                let mut sample = one(l.row, l.who, calls, plan, &mut native, &meter);
                if let Err(e) = &sample {
                    eprintln!("bench transports: {what} failed, once more: {e:#}");
                    l.series
                        .failure
                        .get_or_insert(format!("{e:#}").lines().next().unwrap_or_default().to_owned());
                    sample = one(l.row, l.who, calls, plan, &mut native, &meter);
                }
                match &sample {
                    Ok(s) => eprintln!("bench transports: {what} {}", brief(s)),
                    Err(e) => eprintln!("bench transports: {what} failed: {e:#}"),
                }
                l.series.rounds.push(sample.ok());
            }
        }
        out.append(&mut lines);
    }
    Ok(out)
}

fn brief(s: &Sample) -> String {
    let part = |k: &str| s.get(k).map_or("-".into(), |v| short(*v));
    format!(
        "TX {} RX {} Gbit/s, UDP {} / {} kpps, rr {} us, CPU {} / {} s/GiB, far end's {} / {}, calls {} / {} per MiB",
        part("tx"),
        part("rx"),
        part("udptx"),
        part("udprx"),
        part("rr"),
        part("txmachine"),
        part("rxmachine"),
        part("txfar"),
        part("rxfar"),
        part("txcalls"),
        part("rxcalls")
    )
}

/// The script that every system runs.
fn script(seconds: u32, calls: bool) -> String {
    let iperf = |key: &str, flag: &str, seconds: u32| {
        format!(
            "echo '@@BEGIN {key}'; timeout {} iperf3 -c $PEER {flag} -t {seconds} -i 0 -f k; echo '@@END {key}'\nsleep 0.2\n",
            seconds + 10
        )
    };
    let mut s = "i=0; until ping -c 1 -W 1 $PEER >/dev/null 2>&1; do i=$((i+1)); [ $i -ge 20 ] && echo '@@FAIL no peer' && exit 1; done\n\
                 timeout 20 nettool rr $PEER 5202 1\n"
        .to_owned();
    s.push_str(&iperf("tx", "", seconds));
    s.push_str(&iperf("rx", "-R", seconds));
    if calls {
        s.push_str(&iperf("txcalls", "", 1));
        s.push_str(&iperf("rxcalls", "-R", 1));
    }
    s.push_str(
        "timeout 20 nettool udp-flood $PEER 5203 1\nsleep 0.2\n\
         timeout 20 nettool udp-count $PEER 5203 1\n\
         echo '@@DONE'\n",
    );
    s
}

/// One run of one system on one row.
fn one(row: &Row, who: Who, calls: bool, plan: &Plan, native: &mut Native, meter: &Meter) -> Result<Sample> {
    let way = if who == Who::Native { Way::Own } else { row.way };
    let far = RefCell::new(Far::start(way, meter)?);
    let mut guest;
    let system: &mut dyn System = match who {
        Who::Native | Who::Alone => {
            native.tunnel = match way {
                Way::Tunnel(t) => Some(t),
                _ => None,
            };
            native
        }
        Who::Uml | Who::Pinned | Who::Kibble => {
            guest = match who {
                Who::Kibble => Uml::kibble(plan.kernel.clone(), plan.ext4.clone()),
                _ => Uml::packaged(plan.ext4.clone(), (who == Who::Pinned).then_some(0)),
            };
            guest.vec0 = Some(row.line.to_owned());
            &mut guest
        }
    };
    let far_cpu = || far.borrow().cpu();
    let mut marks = Marks::new(meter, &far_cpu);
    let mut counts: Vec<(String, Count)> = Vec::new();
    let mut on_line = |line: &str, c: &Context| {
        if let Some(("@@BEGIN", key)) = marks.line(line, c)
            && key.ends_with("calls")
        {
            counts.push((key.to_owned(), Count::start(c.pid)));
        }
    };
    let transcript = system.boot(Run {
        script: &script(plan.seconds, calls),
        init: None,
        limit: Duration::from_secs(90 + 2 * u64::from(plan.seconds)),
        meter,
        on_line: &mut on_line,
        verbose: plan.verbose,
    })?;
    unfinished(&transcript)?;
    let mut sample = Sample::new();
    for (key, machine, procs, end) in
        [("tx", "txmachine", "txcpu", "txfar"), ("rx", "rxmachine", "rxcpu", "rxfar")]
    {
        let Some(t) = marks.transfer(&transcript, key, plan.seconds)? else { continue };
        sample.extend([(key, t.gbit), (machine, t.cpu.machine), (procs, t.cpu.procs), (end, t.far)]);
    }
    for (key, count) in counts {
        let calls = count.finish();
        let t = marks.transfer(&transcript, &key, 1)?;
        let key = if key == "txcalls" { "txcalls" } else { "rxcalls" };
        if let Some((calls, t)) = calls.zip(t) {
            sample.insert(key, calls / (t.gbit * 1e9 / 8.0 / 1_048_576.0));
        }
    }
    for (key, name, scale) in
        [("rr", "rr_p50", 1.0), ("udptx", "udp_flood", 1e-3), ("udprx", "udp_count", 1e-3)]
    {
        if let Some(v) = named(&transcript, name) {
            sample.insert(key, v * scale);
        }
    }
    far.borrow_mut().alive()?;
    if !sample.contains_key("tx") || !sample.contains_key("rx") {
        bail!("no figure of iperf3 in its output");
    }
    Ok(sample)
}
