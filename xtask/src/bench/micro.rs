//! `bench micro`: single operations (userland's `microbench`), boot time, idle cost, placement and fairness.

use super::bars;
use super::net::host_line;
use super::stats::{Stat, quantile, short, stat};
use super::table::Table;
use crate::cpu::Meter;
use crate::procs;
use crate::system::{Context, Run, System};
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::process::{Child, Stdio};
use std::time::Duration;

/// How to measure.
pub struct Plan {
    /// Rounds; in each every system runs once, every second round in reverse order.
    pub pairs: u32,
    /// Seconds of idling, once a system; 0 leaves it out.
    pub idle_s: u32,
    /// Also show the consoles.
    pub verbose: bool,
}

/// Metric to value; the unit is part of [`Series::units`].
type Sample = BTreeMap<String, f64>;

/// All figures of a system.
pub struct Series {
    /// Name of the system.
    pub name: String,
    /// One entry a round.
    pub rounds: Vec<Sample>,
    /// Unit of each metric.
    pub units: BTreeMap<String, String>,
    /// What went wrong.
    pub failures: Vec<String>,
}

impl Series {
    fn stat(&self, key: &str) -> Option<Stat> {
        stat(self.rounds.iter().filter_map(|r| r.get(key).copied()))
    }

    fn put(&mut self, round: usize, key: &str, unit: &str, value: f64) {
        if self.rounds.len() <= round {
            self.rounds.resize(round + 1, Sample::new());
        }
        if let Some(r) = self.rounds.get_mut(round) {
            r.insert(key.to_owned(), value);
        }
        self.units.insert(key.to_owned(), unit.to_owned());
    }
}

/// A loop of the shell itself that makes no system call; about a second on today's machines.
const BUSY: &str = "i=0; while [ $i -lt 1500000 ]; do i=$((i+1)); done";

/// The host's two cores are what there is to win, however many CPUs a guest would have by itself.
fn two_busy_script() -> String {
    format!(
        "cat >/tmp/busy <<'E'\n{BUSY}\nE\n\
         sh /tmp/busy\n\
         echo '@@MARK serial'; sh /tmp/busy; sh /tmp/busy; echo '@@MARK serial-end'\n\
         echo '@@MARK parallel'; sh /tmp/busy & a=$!; sh /tmp/busy & b=$!; wait $a $b; echo '@@MARK parallel-end'\n\
         echo '@@DONE'\n"
    )
}

const WORK: &str = "echo '@@BEGIN micro'; microbench; echo '@@END micro'
i=0; until ping -c 1 -W 1 $PEER >/dev/null 2>&1; do i=$((i+1)); [ $i -ge 20 ] && break; done
(while :; do :; done) & spin=$!
echo '@@MARK spin'; sleep 9; kill $spin; echo '@@MARK spin-end'
echo '@@DONE'
";

/// Measures all systems; prints progress as it goes.
pub fn measure(systems: &mut [Box<dyn System>], plan: &Plan) -> Result<Vec<Series>> {
    let mut out: Vec<Series> = systems
        .iter()
        .map(|s| Series {
            name: s.name().to_owned(),
            rounds: Vec::new(),
            units: BTreeMap::new(),
            failures: Vec::new(),
        })
        .collect();
    for round in 0..plan.pairs as usize {
        let mut order: Vec<usize> = (0..systems.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for i in order {
            let (Some(system), Some(series)) = (systems.get_mut(i), out.get_mut(i)) else { continue };
            eprintln!("bench micro: round {}/{} {}", round + 1, plan.pairs, series.name);
            for part in [boot_time, two_busy, work] {
                keep(series, part(system.as_mut(), round, plan));
            }
            if round == 0 && plan.idle_s > 0 && series.name != "native" {
                keep(series, idle(system.as_mut(), round, plan));
            }
        }
    }
    Ok(out)
}

type Figures = Vec<(usize, String, String, f64)>;

fn keep(series: &mut Series, part: Result<Figures>) {
    match part {
        Ok(all) => {
            for (round, key, unit, value) in all {
                eprintln!("bench micro:   {key} {} {unit}", short(value));
                series.put(round, &key, &unit, value);
            }
        }
        Err(e) => {
            eprintln!("bench micro:   failed: {e:#}");
            series.failures.push(format!("{e:#}").lines().next().unwrap_or_default().to_owned());
        }
    }
}

/// From the start of the process to the first line that init prints.
fn boot_time(system: &mut dyn System, round: usize, plan: &Plan) -> Result<Figures> {
    if system.name() == "native" {
        return Ok(Vec::new());
    }
    let meter = Meter::new();
    let mut at = None;
    let mut on_line = |line: &str, c: &Context| {
        if line.trim() == "@@INIT" {
            at.get_or_insert(c.since_start);
        }
    };
    let limit = Duration::from_secs(60);
    let run = Run {
        script: "",
        init: Some("/usr/sbin/init-mark"),
        limit,
        meter: &meter,
        on_line: &mut on_line,
        verbose: plan.verbose,
    };
    let result = system.boot(run);
    match (at, result) {
        (Some(t), _) => Ok(vec![(round, "boot".into(), "s".into(), t.as_secs_f64())]),
        (None, Err(e)) => Err(e),
        (None, Ok(t)) => bail!("init printed nothing: {}", t.lines().last().unwrap_or_default()),
    }
}

/// Two busy processes one after the other, and at once, on two CPUs.
fn two_busy(system: &mut dyn System, round: usize, plan: &Plan) -> Result<Figures> {
    let meter = Meter::new();
    let mut marks: BTreeMap<String, f64> = BTreeMap::new();
    let mut on_line = |line: &str, c: &Context| {
        if let Some(mark) = line.trim().strip_prefix("@@MARK ") {
            marks.insert(mark.to_owned(), c.since_start.as_secs_f64());
        }
    };
    let script = two_busy_script();
    let limit = Duration::from_secs(120);
    let run = Run {
        script: &script,
        init: None,
        limit,
        meter: &meter,
        on_line: &mut on_line,
        verbose: plan.verbose,
    };
    system.set_cpus(Some(2));
    let transcript = system.boot(run);
    system.set_cpus(None);
    let transcript = transcript?;
    let span = |a: &str, b: &str| Some(marks.get(b)? - marks.get(a)?);
    match (span("serial", "serial-end"), span("parallel", "parallel-end")) {
        (Some(s), Some(p)) => Ok(vec![(round, "two_busy".into(), "x".into(), s / p)]),
        _ => bail!("two busy processes did not end: {}", transcript.lines().last().unwrap_or_default()),
    }
}

/// microbench, ping while a process spins.
fn work(system: &mut dyn System, round: usize, plan: &Plan) -> Result<Figures> {
    let meter = Meter::new();
    let guest = system.addr().to_owned();
    let mut ping: Option<Child> = None;
    let mut on_line = |line: &str, _: &Context| {
        if line.trim() == "@@MARK spin" {
            let mut cmd = crate::sh::Cmd::line("ping -c 700 -i 0.01 -w 8").arg(&guest).into_inner();
            ping = cmd.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok();
        }
    };
    let limit = Duration::from_secs(400);
    let run =
        Run { script: WORK, init: None, limit, meter: &meter, on_line: &mut on_line, verbose: plan.verbose };
    let transcript = system.boot(run);
    let pings = ping.map(ping_times).unwrap_or_default();
    let transcript = transcript?;
    let mut out: Figures = Vec::new();
    for line in transcript.lines() {
        if let Some((name, value, unit)) = figure(line) {
            out.push((round, name, unit, value));
        }
    }
    if pings.len() >= 100
        && let (Some(p50), Some(p99)) = (quantile(&pings, 0.5), quantile(&pings, 0.99))
    {
        out.push((round, "ping_p50_spin".into(), "us".into(), p50));
        out.push((round, "ping_p99_spin".into(), "us".into(), p99));
    }
    if !transcript.contains("@@DONE") {
        let tail: Vec<&str> = transcript.lines().rev().take(5).collect();
        eprintln!("bench micro:   the script did not come to its end: {}", tail.join(" | "));
    }
    Ok(out)
}

fn ping_times(mut child: Child) -> Vec<f64> {
    let mut text = String::new();
    if let Some(out) = &mut child.stdout {
        let _ = out.read_to_string(&mut text);
    }
    let _ = child.wait();
    let time = |l: &str| Some(l.split_once("time=")?.1.split(' ').next()?.parse::<f64>().ok()? * 1000.0);
    let mut all: Vec<f64> = text.lines().filter_map(time).collect();
    // A lost answer is the worst answer.
    let sent =
        text.lines().find_map(|l| l.split_once(" packets transmitted")?.0.trim().parse::<usize>().ok());
    all.resize(all.len().max(sent.unwrap_or(0)), 1e6);
    all
}

/// Memory after three quiet seconds, CPU time of a quiet stretch, scaled to a minute.
fn idle(system: &mut dyn System, round: usize, plan: &Plan) -> Result<Figures> {
    let meter = Meter::new();
    let before: BTreeSet<u32> = procs::all();
    let mut begin = None;
    let mut end = None;
    let mut mib = 0.0;
    let mut on_line = |line: &str, c: &Context| match line.trim() {
        "@@IDLE0" => {
            let mut own = procs::family(c.pid);
            if crate::ns::own_pids() {
                own.extend(procs::all().difference(&before));
            }
            mib = super::memory::mib(&own);
            begin = Some(meter.snapshot());
        }
        "@@IDLE1" => end = Some(meter.snapshot()),
        _ => {}
    };
    let script = format!("sleep 3; echo @@IDLE0; sleep {}; echo @@IDLE1\n", plan.idle_s);
    let limit = Duration::from_secs(60 + u64::from(plan.idle_s));
    let run = Run {
        script: &script,
        init: None,
        limit,
        meter: &meter,
        on_line: &mut on_line,
        verbose: plan.verbose,
    };
    let transcript = system.boot(run)?;
    let (Some(b), Some(e)) = (begin, end) else {
        bail!("it did not idle: {}", transcript.lines().last().unwrap_or_default())
    };
    let minute = 60.0 / f64::from(plan.idle_s);
    Ok(vec![
        (round, "idle_memory".into(), "MiB".into(), mib),
        (round, "idle_cpu".into(), "s/min".into(), (e - b).procs * minute),
    ])
}

/// A line `name value unit` of microbench; times become microseconds.
fn figure(line: &str) -> Option<(String, f64, String)> {
    let mut words = line.split_whitespace();
    let (name, value, unit) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !name.contains(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let value: f64 = value.parse().ok()?;
    let (value, unit) = match unit {
        "ns" => (value / 1e3, "us"),
        "us" => (value, "us"),
        "ms" => (value * 1e3, "us"),
        "s" => (value * 1e6, "us"),
        u => (value, u),
    };
    Some((name.to_owned(), value, unit.to_owned()))
}

/// The table, the bars, and whether all bars that could be judged hold.
pub fn report(series: &[Series], plan: &Plan) -> String {
    let mut metrics: Vec<(&String, &String)> = Vec::new();
    for (m, u) in series.iter().flat_map(|s| &s.units) {
        if !metrics.iter().any(|k| k.0 == m) {
            metrics.push((m, u));
        }
    }
    // What a bar asks about comes first, in the order of the bars.
    let place = |m: &str| bars::BARS.iter().position(|b| bars::of(m).is_some_and(|x| std::ptr::eq(x, b)));
    metrics.sort_by_key(|m| (place(m.0).unwrap_or(usize::MAX), m.0.clone()));
    let mut t = Table::new(
        ["Operation".to_owned(), "unit".to_owned()].into_iter().chain(series.iter().map(|s| s.name.clone())),
    );
    for (m, u) in &metrics {
        let title = bars::of(m).map_or((*m).clone(), |b| b.title.to_owned());
        let cells = series.iter().map(|s| {
            s.stat(m)
                .map_or("-".into(), |x| format!("{} ({}..{})", short(x.median), short(x.min), short(x.max)))
        });
        t.row([title, (*u).clone()].into_iter().chain(cells));
    }
    let mut md = format!(
        "# Single operations\n\n`cargo xtask bench micro --pairs {} --idle {}`: median (least..greatest) of {} rounds in \
         alternating order; idle figures once. Memory: all processes of the guest and its memory file.\n\n{}\n{t}",
        plan.pairs,
        plan.idle_s,
        plan.pairs,
        host_line()
    );
    if let Some(ours) = series.iter().find(|s| s.name == "Kibble") {
        md.push_str("\n## Bars\n\nFor UML the variant counts that is better in that line.\n\n");
        let mut t = Table::new(["Bar", "asked", "Kibble", "UML", "gVisor", "ratio to UML", "held"]);
        for bar in bars::BARS {
            let value = |s: &Series| {
                let key = s.units.keys().find(|k| bars::of(k).is_some_and(|b| std::ptr::eq(b, bar)))?;
                s.stat(key).map(|x| x.median)
            };
            let best = |a: f64, b: f64| if bar.least.is_some() { a.max(b) } else { a.min(b) };
            let uml = series.iter().filter(|s| s.name.starts_with("UML")).filter_map(value).reduce(best);
            let gvisor = series.iter().find(|s| s.name == "gVisor").and_then(value);
            let mine = value(ours);
            let held = mine.and_then(|m| bar.holds(m, uml, gvisor));
            let show = |v: Option<f64>| v.map_or("-".into(), short);
            t.row([
                bar.title.to_owned(),
                bar.text(),
                show(mine),
                show(uml),
                show(gvisor),
                show(mine.zip(uml).map(|(m, u)| m / u)),
                held.map_or("no figure", |h| if h { "yes" } else { "NO" }).to_owned(),
            ]);
        }
        md.push_str(&t.to_string());
    }
    for s in series.iter().filter(|s| !s.failures.is_empty()) {
        md.push_str(&format!("\n{}: {} parts failed; first: {}\n", s.name, s.failures.len(), s.failures[0]));
    }
    md
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn reads_figures() {
        assert_eq!(figure("null_syscall 120 ns"), Some(("null_syscall".into(), 0.12, "us".into())));
        assert_eq!(
            figure("fork_exec_static 0.7 ms\r"),
            Some(("fork_exec_static".into(), 700.0, "us".into()))
        );
        assert_eq!(figure("64 bytes from"), None);
        assert_eq!(figure("hello world again"), None);
    }
}
