//! Marks on a console, `@@BEGIN key` and `@@END key`: what was printed between them, how long it took by our clock, and the CPU time.

use crate::cpu::{Meter, Snapshot};
use crate::system::Context;
use anyhow::{Result, bail};
use std::collections::BTreeMap;

/// A point in time.
#[derive(Clone, Copy, Default)]
struct Point {
    cpu: Snapshot,
    far: f64,
    /// Seconds since the system was started.
    at: f64,
}

/// All marks of one run.
pub struct Marks<'a> {
    meter: &'a Meter,
    far: &'a dyn Fn() -> f64,
    spans: BTreeMap<String, (Point, Point)>,
}

/// An iperf3 transfer between two marks.
pub struct Transfer {
    /// Rate by the receiver's line.
    pub gbit: f64,
    /// CPU seconds a GiB: all processes, and the machine.
    pub cpu: Snapshot,
    /// CPU seconds a GiB of the far end's programs.
    pub far: f64,
}

impl<'a> Marks<'a> {
    /// None yet; `far` gives the CPU seconds of the far end's programs so far.
    pub fn new(meter: &'a Meter, far: &'a dyn Fn() -> f64) -> Self {
        Self { meter, far, spans: BTreeMap::new() }
    }

    /// Looks at a line of the console; the mark's word and its key if it is one.
    pub fn line<'l>(&mut self, line: &'l str, c: &Context) -> Option<(&'l str, &'l str)> {
        let mut words = line.split_whitespace();
        let (word, key) = (words.next()?, words.next()?);
        if word != "@@BEGIN" && word != "@@END" {
            return None;
        }
        let now = Point { cpu: self.meter.snapshot(), far: (self.far)(), at: c.since_start.as_secs_f64() };
        if word == "@@BEGIN" {
            self.spans.insert(key.to_owned(), (now, now));
        } else if let Some(s) = self.spans.get_mut(key) {
            s.1 = now;
        }
        Some((word, key))
    }

    /// The iperf3 run of `seconds` between the marks of `key`; `None` if it left no figure.
    pub fn transfer(&self, transcript: &str, key: &str, seconds: u32) -> Result<Option<Transfer>> {
        let Some((gbit, (a, b))) = iperf_gbit(section(transcript, key)).zip(self.spans.get(key)) else {
            return Ok(None);
        };
        let wall = b.at - a.at;
        // The guest's own clock gave the rate: it must agree with ours.
        let asked = f64::from(seconds);
        if wall < 0.9 * asked || wall > 1.5 * asked + 0.3 {
            bail!("{key}: {seconds} s by the guest's clock took {wall:.2} s");
        }
        let gib = gbit * 1e9 / 8.0 * f64::from(seconds) / 1_073_741_824.0;
        let d = b.cpu - a.cpu;
        let cpu = Snapshot { procs: d.procs / gib, machine: d.machine / gib };
        Ok(Some(Transfer { gbit, cpu, far: (b.far - a.far) / gib }))
    }
}

/// What was printed between two marks.
pub fn section<'a>(text: &'a str, key: &str) -> &'a str {
    let begin = format!("@@BEGIN {key}");
    let end = format!("@@END {key}");
    let from = text.find(&begin).map_or(text.len(), |i| i + begin.len());
    let rest = text.get(from..).unwrap_or_default();
    rest.find(&end).and_then(|i| rest.get(..i)).unwrap_or(rest)
}

/// Gbit/s of the receiver's line: `[  5]   0.00-5.04   sec  ... KBytes  3512345 Kbits/sec                  receiver`.
pub fn iperf_gbit(text: &str) -> Option<f64> {
    let line = text.lines().find(|l| l.trim_end().ends_with("receiver"))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|w| *w == "Kbits/sec")?;
    Some(words.get(at.checked_sub(1)?)?.parse::<f64>().ok()? / 1e6)
}

/// The figure of a line `name value unit`.
pub fn named(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|l| l.trim().strip_prefix(name)?.strip_prefix(' ')?.split(' ').next()?.parse().ok())
}

/// The last lines of a console that did not come to `@@DONE`, for an error.
pub fn unfinished(transcript: &str) -> Result<()> {
    if transcript.contains("@@DONE") {
        return Ok(());
    }
    let tail: Vec<&str> = transcript.lines().rev().filter(|l| !l.trim().is_empty()).take(12).collect();
    let all: Vec<&str> = tail.iter().rev().copied().collect();
    bail!("the script did not come to its end: {}\n{}", tail.get(1).unwrap_or(&"?"), all.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::{iperf_gbit, named, section};

    #[test]
    fn reads_what_the_tools_print() {
        let t = "@@BEGIN tx\n[  5]   0.00-5.00   sec  2 KBytes  3500000 Kbits/sec    0   sender\r\n\
                 [  5]   0.00-5.04   sec  2 KBytes  3400000 Kbits/sec                  receiver\r\n@@END tx\n@@BEGIN rx";
        assert_eq!(iperf_gbit(section(t, "tx")), Some(3.4));
        assert_eq!(iperf_gbit(section(t, "rx")), None);
        assert_eq!(named("rr 9 /s\r\nrr_p50 41.5 us\r\n", "rr_p50"), Some(41.5));
    }
}
