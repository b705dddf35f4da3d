//! `bench net`: iperf3 both ways, request/response and ping, native, UML, gVisor and Kibble in alternating order.

use super::marks::{Marks, named, unfinished};
use super::stats::{Stat, short, stat};
use super::svg;
use super::table::Table;
use crate::cpu::Meter;
use crate::system::far::{Far, Way};
use crate::system::{Context, Run, System};
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::time::Duration;

/// How to measure.
pub struct Plan {
    /// Rounds; in each every system runs once, every second round in reverse order.
    pub pairs: u32,
    /// Seconds of each transfer.
    pub seconds: u32,
    /// Also show the consoles.
    pub verbose: bool,
}

/// The metrics, by key: title, unit, whether more is better.
pub const METRICS: [(&str, &str, bool); 8] = [
    ("tx", "TCP TX, Gbit/s", true),
    ("rx", "TCP RX, Gbit/s", true),
    ("rr", "request/response, us", false),
    ("ping", "ping, us", false),
    ("txcpu", "TX, CPU s/GiB", false),
    ("rxcpu", "RX, CPU s/GiB", false),
    ("txmachine", "TX, machine s/GiB", false),
    ("rxmachine", "RX, machine s/GiB", false),
];

/// What one boot of one system gave.
pub type Sample = BTreeMap<&'static str, f64>;

/// All samples of a system; a failed round leaves a hole, so that pairs stay pairs.
pub struct Series {
    /// Name of the system.
    pub name: String,
    /// One entry a round.
    pub rounds: Vec<Option<Sample>>,
    /// The first failure, if any.
    pub failure: Option<String>,
}

impl Series {
    /// Statistics of one metric.
    pub fn stat(&self, key: &str) -> Option<Stat> {
        stat(self.rounds.iter().flatten().filter_map(|s| s.get(key).copied()))
    }

    /// This series over another, round by round.
    pub fn ratio(&self, other: &Self, key: &str) -> Option<Stat> {
        let get = |s: &Option<Sample>| s.as_ref().and_then(|s| s.get(key).copied());
        stat(self.rounds.iter().zip(&other.rounds).filter_map(|(a, b)| Some(get(a)? / get(b)?)))
    }
}

/// The script that every system runs. Marks on the console tell the host when to read the CPU counters.
fn script(seconds: u32) -> String {
    format!(
        "i=0; until ping -c 1 -W 1 $PEER >/dev/null 2>&1; do i=$((i+1)); [ $i -ge 20 ] && echo '@@FAIL no peer' && exit 1; done\n\
         ping -c 100 -i 0.01 $PEER >/tmp/ping 2>&1; cat /tmp/ping\n\
         nettool rr $PEER 5202 2\n\
         echo '@@BEGIN tx'; iperf3 -c $PEER -t {seconds} -i 0 -f k; echo '@@END tx'\n\
         sleep 0.3\n\
         echo '@@BEGIN rx'; iperf3 -c $PEER -R -t {seconds} -i 0 -f k; echo '@@END rx'\n\
         echo '@@DONE'\n"
    )
}

/// Measures all systems; prints progress as it goes.
pub fn measure(systems: &mut [Box<dyn System>], plan: &Plan) -> Result<Vec<Series>> {
    let meter = Meter::new();
    eprintln!("bench net: CPU time by {}", meter.how());
    let servers = Far::start(Way::Own, &meter)?;
    let mut out: Vec<Series> = systems
        .iter()
        .map(|s| Series { name: s.name().to_owned(), rounds: Vec::new(), failure: None })
        .collect();
    for round in 0..plan.pairs {
        let mut order: Vec<usize> = (0..systems.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for i in order {
            let (Some(system), Some(series)) = (systems.get_mut(i), out.get_mut(i)) else { continue };
            let sample = one(system.as_mut(), plan, &meter);
            match &sample {
                Ok(s) => {
                    eprintln!("bench net: round {}/{} {:14} {}", round + 1, plan.pairs, series.name, brief(s))
                }
                Err(e) => {
                    eprintln!(
                        "bench net: round {}/{} {:14} failed: {e:#}",
                        round + 1,
                        plan.pairs,
                        series.name
                    );
                    let text = format!("{e:#}");
                    series.failure.get_or_insert(text.lines().next().unwrap_or_default().to_owned());
                }
            }
            series.rounds.push(sample.ok());
        }
    }
    drop(servers);
    Ok(out)
}

fn brief(s: &Sample) -> String {
    let part = |k: &str| s.get(k).map_or("-".into(), |v| short(*v));
    format!("TX {} RX {} Gbit/s, rr {} us, ping {} us", part("tx"), part("rx"), part("rr"), part("ping"))
}

fn one(system: &mut dyn System, plan: &Plan, meter: &Meter) -> Result<Sample> {
    let mut marks = Marks::new(meter, &|| 0.0);
    let mut on_line = |line: &str, c: &Context| {
        marks.line(line, c);
    };
    let limit = Duration::from_secs(60 + 3 * u64::from(plan.seconds));
    let text = script(plan.seconds);
    let transcript = system.boot(Run {
        script: &text,
        init: None,
        limit,
        meter,
        on_line: &mut on_line,
        verbose: plan.verbose,
    })?;
    unfinished(&transcript)?;
    let mut sample = Sample::new();
    for (key, cpu_key, machine_key) in [("tx", "txcpu", "txmachine"), ("rx", "rxcpu", "rxmachine")] {
        let Some(t) = marks.transfer(&transcript, key, plan.seconds)? else { continue };
        sample.extend([(key, t.gbit), (cpu_key, t.cpu.procs), (machine_key, t.cpu.machine)]);
    }
    let pings: Vec<f64> = transcript.lines().filter_map(ping_us).collect();
    if let Some(s) = stat(pings) {
        sample.insert("ping", s.median);
    }
    if let Some(rr) = named(&transcript, "rr_p50") {
        sample.insert("rr", rr);
    }
    if sample.is_empty() {
        bail!("no figure in its output");
    }
    Ok(sample)
}

/// Microseconds of `64 bytes from 10.0.2.1: icmp_seq=1 ttl=64 time=0.165 ms`.
fn ping_us(line: &str) -> Option<f64> {
    let rest = line.split_once("time=")?.1;
    Some(rest.split(' ').next()?.parse::<f64>().ok()? * 1000.0)
}

/// The figures of two systems side by side, in plain words.
pub fn demo(series: &[Series]) -> String {
    let [host, guest] = series else { return String::new() };
    let mut t = Table::new(["", host.name.as_str(), guest.name.as_str(), "ratio"]);
    for (key, title, _) in METRICS.iter().take(4) {
        let cell = |s: &Series| s.stat(key).map_or("-".into(), |x| short(x.median));
        let ratio = guest.ratio(host, key).map_or("-".into(), |x| format!("{:.2}", x.median));
        t.row([(*title).to_owned(), cell(host), cell(guest), ratio]);
    }
    let failures = series.iter().filter_map(|s| Some(format!("\n{}: {}", s.name, s.failure.as_ref()?)));
    format!("{t}{}", failures.collect::<String>())
}

/// The figures of one system and, against each other one, the ratio of medians pair by pair.
pub fn report(series: &[Series], plan: &Plan) -> (String, String) {
    let live: Vec<&Series> = series.iter().filter(|s| s.rounds.iter().any(Option::is_some)).collect();
    let mut table = Table::new(["System"].into_iter().chain(METRICS.iter().map(|m| m.1)));
    for s in &live {
        let cells = METRICS.iter().map(|m| {
            s.stat(m.0)
                .map_or("-".into(), |x| format!("{} ({}..{})", short(x.median), short(x.min), short(x.max)))
        });
        table.row(std::iter::once(s.name.clone()).chain(cells));
    }
    let mut md = format!(
        "# Network\n\n`cargo xtask bench net --pairs {} --seconds {}`: median (least..greatest) of {} rounds; every system ran \
         once a round, every second round in reverse order. CPU: user and system time of all processes involved at both \
         ends; machine: busy time of all cores, soft interrupts included.\n\n{}\n{table}",
        plan.pairs,
        plan.seconds,
        plan.pairs,
        host_line(),
    );
    if let Some(ours) = live.iter().find(|s| s.name == "Kibble") {
        md.push_str("\n## Kibble against each, pair by pair\n\nMedian of the pairwise ratio (least..greatest). For UML the variant counts that is better in that column.\n\n");
        let shown = &METRICS[..6];
        let mut t = Table::new(["Kibble /"].into_iter().chain(shown.iter().map(|m| m.1)));
        let cell = |other: Option<&&Series>, key: &str| {
            other
                .and_then(|o| ours.ratio(o, key))
                .map_or("-".into(), |x| format!("{:.2} ({:.2}..{:.2})", x.median, x.min, x.max))
        };
        let uml: Vec<&Series> = live.iter().filter(|s| s.name.starts_with("UML")).copied().collect();
        let better = |key: &str, more: bool| {
            uml.iter().filter(|s| s.stat(key).is_some()).max_by(|a, b| {
                let v = |s: &Series| s.stat(key).map_or(0.0, |x| if more { x.median } else { -x.median });
                v(a).total_cmp(&v(b))
            })
        };
        t.row(
            std::iter::once("UML, better".to_owned())
                .chain(shown.iter().map(|m| cell(better(m.0, m.2), m.0))),
        );
        for s in live.iter().filter(|s| s.name != "Kibble" && !s.name.starts_with("UML")) {
            t.row(std::iter::once(s.name.clone()).chain(shown.iter().map(|m| cell(Some(s), m.0))));
        }
        md.push_str(&t.to_string());
    }
    for s in series {
        if let Some(f) = &s.failure {
            md.push_str(&format!(
                "\n{}: {} of {} rounds failed; first: {f}\n",
                s.name,
                holes(s),
                s.rounds.len()
            ));
        }
    }
    let groups: Vec<svg::Group> = METRICS[..6]
        .iter()
        .map(|m| svg::Group {
            title: m.1.to_owned(),
            bars: live.iter().map(|s| (s.name.clone(), s.stat(m.0).map(|x| x.median))).collect(),
        })
        .collect();
    (md, svg::bars("Network: native, UML, gVisor, Kibble on one host in one run", &groups))
}

fn holes(s: &Series) -> usize {
    s.rounds.iter().filter(|r| r.is_none()).count()
}

/// The host in one line.
pub fn host_line() -> String {
    let read = |p: &str| std::fs::read_to_string(p).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let model = read("/proc/cpuinfo");
    let model =
        model.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ")).map_or("?", |m| m.1);
    let load = read("/proc/loadavg");
    format!(
        "Host: Linux {}, {cpus} cores, {model}; load average at the end {}.\n",
        kernel.trim(),
        load.split(' ').next().unwrap_or("?")
    )
}

#[cfg(test)]
mod tests {
    use super::ping_us;

    #[test]
    fn reads_what_ping_prints() {
        assert_eq!(ping_us("64 bytes from 10.0.2.1: icmp_seq=1 ttl=64 time=0.165 ms"), Some(165.0));
    }
}
