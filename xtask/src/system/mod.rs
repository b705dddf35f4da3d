//! Linux systems of every kind behind one trait: each starts, runs one shell script to its end and gives what it printed, with a last
//! line `@@STATUS n` for the exit status of its process.
//!
//! Key types: [`System`], [`Run`]. One file a kind: [`native`], [`uml`] (also Kibble: the same boot line), [`runsc`]. [`far`] is what they
//! talk to.
//! All run inside the namespaces of `crate::ns`, from the image of `crate::image`.

pub mod far;
pub mod native;
pub mod runsc;
pub mod uml;

use crate::cpu::Meter;
use anyhow::{Result, bail};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tests::guest::Guest;

/// One start of a system.
pub struct Run<'a> {
    /// Shell script for `/bin/sh`; `$PEER` and `$ME` are set for it.
    pub script: &'a str,
    /// Another first program in init's place; the script then is not run.
    pub init: Option<&'a str>,
    /// Whole time limit.
    pub limit: Duration,
    /// Where its processes are counted.
    pub meter: &'a Meter,
    /// Called with each line as it comes, and the time since the start.
    pub on_line: &'a mut dyn FnMut(&str, &Context),
    /// Also show the console.
    pub verbose: bool,
}

/// What a line callback may want to know.
pub struct Context {
    /// Process that was started for the system.
    pub pid: u32,
    /// Time since it was started.
    pub since_start: Duration,
}

/// A kind of system.
pub trait System {
    /// Short name, as in the tables.
    fn name(&self) -> &str;

    /// Address under which the host finds it.
    fn addr(&self) -> &str;

    /// Starts it, runs the script, waits for the end; the transcript.
    fn boot(&mut self, run: Run<'_>) -> Result<String>;

    /// CPUs of the starts that follow, `None`: its default. Systems that cannot choose do nothing.
    fn set_cpus(&mut self, _: Option<u32>) {}
}

/// Files of one run, on tmpfs, removed when dropped.
pub struct Scratch {
    /// The directory.
    pub dir: PathBuf,
}

impl Scratch {
    /// A fresh directory.
    pub fn new(name: &str) -> Result<Self> {
        let base = if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" };
        let dir = PathBuf::from(format!("{base}/kibble-{}-{name}", crate::ns::unique()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// A script as a file, padded with NULs to whole 4 KiB so that it can be a disk.
    pub fn script(&self, text: &str) -> Result<PathBuf> {
        let path = self.dir.join("script");
        let mut data = text.as_bytes().to_vec();
        data.resize((data.len() + 1).next_multiple_of(4096), 0);
        std::fs::File::create(&path)?.write_all(&data)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The head of every script.
pub fn script_head(me: &str, peer: &str) -> String {
    format!(
        "#!/bin/sh\nPEER={peer}\nME={me}\n\
         if [ -e /sys/class/net/vec0 ]; then ip addr add $ME/24 dev vec0 2>/dev/null; ip link set vec0 up; fi\n"
    )
}

/// Runs a started command to its end, line by line.
pub fn drive(words: Vec<String>, env: &[(&str, &str)], run: Run<'_>) -> Result<String> {
    let all: Vec<String> = run.meter.prefix().into_iter().chain(words).collect();
    let Some((first, rest)) = all.split_first() else { bail!("no command") };
    let mut cmd = Command::new(first);
    cmd.args(rest).envs(env.iter().copied());
    let start = Instant::now();
    let before = crate::procs::all();
    let mut guest = Guest::spawn(cmd)?.echo(run.verbose);
    let pid = guest.pid();
    let left = |start: Instant| run.limit.saturating_sub(start.elapsed());
    let mut status = None;
    let result = loop {
        match guest.line(left(start)) {
            Ok(Some(line)) => (run.on_line)(&line, &Context { pid, since_start: start.elapsed() }),
            Ok(None) => break guest.wait(left(start).max(Duration::from_secs(1))).map(|s| status = s.code()),
            Err(e) => break Err(e),
        }
    };
    let mut transcript = guest.transcript();
    transcript.push_str(&format!("\n@@STATUS {}\n", status.map_or("killed".to_owned(), |s| s.to_string())));
    drop(guest);
    // A killed UML leaves helpers that hold the tap. In our own process namespace all that is new is ours.
    crate::procs::end_since(&before);
    if let Err(e) = result {
        let tail: Vec<&str> = transcript.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("{e}\n--- last lines of its console ---\n{}", tail.join("\n"));
    }
    Ok(transcript)
}
