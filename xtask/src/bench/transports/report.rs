//! The tables and the picture.

use super::rows::{Other, bars, row};
use super::{Line, Plan, Who};
use crate::bench::net::{Series, host_line};
use crate::bench::stats::{Stat, short, stat};
use crate::bench::svg;
use crate::bench::table::Table;

/// The metrics, by key: title, whether more is better, whether with its spread.
const METRICS: [(&str, &str, bool, bool); 11] = [
    ("tx", "TCP TX, Gbit/s", true, true),
    ("rx", "TCP RX, Gbit/s", true, true),
    ("udptx", "64-byte UDP TX, kpps", true, true),
    ("udprx", "64-byte UDP RX, kpps", true, true),
    ("rr", "request/response, us", false, true),
    ("txmachine", "TX, CPU s/GiB", false, false),
    ("rxmachine", "RX, CPU s/GiB", false, false),
    ("txfar", "TX, far end's s/GiB", false, false),
    ("rxfar", "RX, far end's s/GiB", false, false),
    ("txcalls", "TX, calls/MiB", false, false),
    ("rxcalls", "RX, calls/MiB", false, false),
];

const EXPLAINED: &str = "\
Each way of the vector NIC to the host, with the same boot line for User-Mode Linux and for Kibble; TX is from the guest to the host. Median \
(least..greatest) of the rounds; in each every system ran once, those of a transport next to each other, every second round in reverse order. \
64-byte UDP: datagrams a second that arrived, one system call each on the guest's side; what was lost is not in it.

CPU: busy time of all cores a GiB of payload, soft interrupts included: the guest, the far end and the host's kernel. Far end's: user and system time of \
the programs there (iperf3 and, for tunnels, the relay), which is part of it. Calls: those of all of the system's processes to the host per MiB of payload, \
counted in a transfer of its own by the tracepoint raw_syscalls:sys_enter (perf stat) in the first round. A call of a guest program that is \
stopped by ptrace or seccomp before the host runs it is not in it; what a guest's kernel does to serve it is. For the host's own veth: iperf3's calls.

Tunnels run over a veth pair with an MTU of 1600. The host's kernel has no device for most of them, so their far end is a tap with the host's TCP \
behind it and a relay (`nettool relay`) between it and the tunnel's socket, which cuts and merges TCP super-frames, in UDP_SEGMENT trains or sendmmsg batches.
";

fn cell(s: &Series, key: &str, spread: bool) -> String {
    s.stat(key).map_or("-".into(), |x| {
        if spread && s.rounds.len() > 1 {
            format!("{} ({}..{})", short(x.median), short(x.min), short(x.max))
        } else {
            short(x.median)
        }
    })
}

/// Those of a row.
fn of<'a>(lines: &'a [Line], key: &str, who: &[Who]) -> Vec<&'a Line> {
    lines.iter().filter(|l| l.row.key == key && who.contains(&l.who)).collect()
}

/// The line that counts against ours.
fn other<'a>(lines: &'a [Line], key: &str, metric: &str, other: Other) -> Option<&'a Line> {
    let more = METRICS.iter().any(|m| m.0 == metric && m.2);
    let value =
        |l: &&Line| l.series.stat(metric).map_or(f64::MIN, |x| if more { x.median } else { -x.median });
    let all = match other {
        Other::Uml => of(lines, key, &[Who::Uml, Who::Pinned]),
        Other::Native => of(lines, key, &[Who::Native]),
        Other::L2tpv3 => of(lines, "l2tpv3-udp", &[Who::Kibble]),
    };
    all.into_iter().max_by(|a, b| value(a).total_cmp(&value(b)))
}

/// The report and the picture.
pub fn report(lines: &[Line], plan: &Plan) -> (String, String) {
    let mut keys: Vec<&str> = lines.iter().map(|l| l.row.key).collect();
    keys.dedup();
    keys.sort_by_key(|k| super::rows::ROWS.iter().position(|r| r.key == *k));
    keys.dedup();
    let mut md = format!(
        "# Transports\n\n`cargo xtask bench transports --pairs {} --seconds {}`. {EXPLAINED}\n{}Its congestion control: {}.\n",
        plan.pairs,
        plan.seconds,
        host_line(),
        std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default().trim(),
    );
    for (title, metrics) in [("Rates", &METRICS[..5]), ("Costs", &METRICS[5..])] {
        let mut t = Table::new(["Transport", "System"].into_iter().chain(metrics.iter().map(|m| m.1)));
        for key in &keys {
            for l in lines.iter().filter(|l| l.row.key == *key && l.who != Who::Alone) {
                let cells = metrics.iter().map(|m| cell(&l.series, m.0, m.3));
                t.row([(*key).to_owned(), l.who.title().to_owned()].into_iter().chain(cells));
            }
        }
        md.push_str(&format!("\n## {title}\n\n{t}"));
    }
    if let Some(why) = crate::bench::calls::unable() {
        md.push_str(&format!("\nCalls were not counted: {why}.\n"));
    }
    md.push_str(&judged(lines, &keys));
    md.push_str(&alone(lines));
    for l in lines {
        if let Some(f) = &l.series.failure {
            let holes = l.series.rounds.iter().filter(|r| r.is_none()).count();
            md.push_str(&format!(
                "\n{}, {}: runs failed, {holes} of them twice in a row; first: {f}\n",
                l.row.key,
                l.who.title()
            ));
        }
    }
    (md, picture(lines, &keys))
}

/// The bars, judged by the median of the ratios round by round.
fn judged(lines: &[Line], keys: &[&str]) -> String {
    let mut t = Table::new(["Transport", "Metric", "asked", "Kibble", "other", "ratio", "held"]);
    let (mut held, mut all) = (0, 0);
    for r in keys.iter().filter_map(|k| row(k)) {
        let Some(ours) = of(lines, r.key, &[Who::Kibble]).pop() else { continue };
        for b in bars(r) {
            let (title, more) = METRICS.iter().find(|m| m.0 == b.metric).map_or(("?", true), |m| (m.1, m.2));
            let them = other(lines, r.key, b.metric, b.other);
            let ratio: Option<Stat> = them.and_then(|o| ours.series.ratio(&o.series, b.metric));
            let ok = ratio.map(|x| if more { x.median >= b.times } else { x.median <= b.times });
            all += 1;
            held += u32::from(ok == Some(true));
            let name = match b.other {
                Other::Uml => "UML",
                Other::Native => "veth",
                Other::L2tpv3 => "our l2tpv3-udp",
            };
            t.row([
                r.key.to_owned(),
                title.to_owned(),
                format!("{} {} of {name}", if more { ">=" } else { "<=" }, b.times),
                cell(&ours.series, b.metric, false),
                them.map_or("-".into(), |o| {
                    format!("{} ({})", cell(&o.series, b.metric, false), o.who.title())
                }),
                ratio.map_or("-".into(), |x| format!("{:.2} ({:.2}..{:.2})", x.median, x.min, x.max)),
                ok.map_or("no figure", |ok| if ok { "yes" } else { "NO" }).to_owned(),
            ]);
        }
    }
    format!(
        "\n## Bars\n\nKibble over the other, median (least..greatest) of the ratios round by round; of UML the variant counts that is better in that \
         line. {held} of {all} held.\n\n{t}"
    )
}

/// What the far end of the tunnels can do.
fn alone(lines: &[Line]) -> String {
    let mut t = Table::new([
        "Tunnel",
        "Direction of the rows",
        "two back to back, Gbit/s",
        "our row, Gbit/s",
        "at least twice",
        "half of the CPU time, s/GiB",
        "derived: one alone, Gbit/s",
    ]);
    let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    let mut any = false;
    for l in lines.iter().filter(|l| l.who == Who::Alone) {
        // In the direction of TX the far end that stands for the guest sends.
        for (key, cpu, title) in [("tx", "txmachine", "TX"), ("rx", "rxmachine", "RX")] {
            let get = |k: &str| l.series.stat(k).map(|x| x.median);
            let Some((gbit, cpu)) = get(key).zip(get(cpu)) else { continue };
            let rows = lines.iter().filter(|o| o.row.group == l.row.group && o.who == Who::Kibble);
            let Some(best) = stat(rows.filter_map(|o| Some(o.series.stat(key)?.median))).map(|s| s.max)
            else {
                continue;
            };
            any = true;
            let one = cores * 8.0 * 1.073_741_824 / (cpu / 2.0);
            t.row([
                l.row.key.to_owned(),
                title.to_owned(),
                short(gbit),
                short(best),
                if gbit >= 2.0 * best { "yes" } else { "NO" }.to_owned(),
                short(cpu / 2.0),
                short(one),
            ]);
        }
    }
    if !any {
        return String::new();
    }
    format!(
        "\n## The far end of the tunnels, alone\n\nThe host's iperf3 and TCP on both sides, through two such far ends back to back, measured; it must reach twice the row's figure. \
         Our row: the fastest of ours with that kind of tunnel. The last column is derived, not measured: two far ends share {cores} cores, and one alone \
         with all of them would do what its half of the CPU time allows.\n\n{t}"
    )
}

fn picture(lines: &[Line], keys: &[&str]) -> String {
    let shown = [METRICS[0], METRICS[1], METRICS[2], METRICS[3]];
    let columns: Vec<Vec<svg::Group>> = shown
        .iter()
        .map(|m| {
            let group = |key: &&str| svg::Group {
                title: format!("{key}: {}", m.1),
                bars: [Who::Native, Who::Uml, Who::Pinned, Who::Kibble]
                    .iter()
                    .map(|w| {
                        let l = of(lines, key, &[*w]).pop();
                        (w.title().to_owned(), l.and_then(|l| l.series.stat(m.0)).map(|x| x.median))
                    })
                    .collect(),
            };
            keys.iter().map(group).collect()
        })
        .collect();
    svg::columns("Transports: the host's veth, UML, Kibble on one host in one run", &columns)
}
