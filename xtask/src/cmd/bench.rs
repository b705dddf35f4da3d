//! `xtask bench net|transports|micro`: builds everything, goes into private namespaces, measures, writes docs/bench/.

use crate::bench::{micro, net, transports};
use crate::system::{System, native::Native, runsc::Runsc, uml::Uml};
use crate::{image, ns, paths, prereq};
use anyhow::{Result, bail};
use std::path::PathBuf;

/// Options of `bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Throughput, latency and CPU per byte: native, UML, gVisor, Kibble
    Net(NetArgs),
    /// Each way of the vector NIC to the host: native, UML, Kibble
    Transports(TransportsArgs),
    /// Single operations, boot time, idle cost: native, UML, gVisor, Kibble
    Micro(MicroArgs),
}

/// What every benchmark understands.
#[derive(clap::Args, Clone)]
struct How {
    /// Another kernel with our boot line in Kibble's place
    #[arg(long)]
    kernel: Option<PathBuf>,
    /// Image recipe
    #[arg(long, default_value = "smoke")]
    image: String,
    /// Show the consoles
    #[arg(long, short)]
    verbose: bool,
    /// Print the report, write no files
    #[arg(long)]
    dry: bool,
    /// Take vmlinux and image as they are
    #[arg(long)]
    no_build: bool,
}

impl How {
    fn vmlinux(&self) -> PathBuf {
        self.kernel.clone().unwrap_or_else(paths::vmlinux)
    }

    fn ext4(&self) -> PathBuf {
        paths::images().join(format!("{}.ext4", self.image))
    }

    fn tree(&self) -> PathBuf {
        paths::images().join(format!("{}.tree", self.image))
    }
}

/// What benchmarks of whole systems understand.
#[derive(clap::Args, Clone)]
pub struct Common {
    /// Only these systems: native, uml, uml1 (pinned to one core), gvisor, kibble
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(flatten)]
    how: How,
}

#[derive(clap::Args)]
struct NetArgs {
    #[command(flatten)]
    common: Common,
    /// Rounds; each runs every system once [default: 5]
    #[arg(long)]
    pairs: Option<u32>,
    /// Seconds of each transfer [default: 5]
    #[arg(long)]
    seconds: Option<u32>,
    /// The same as `bench transports`, with its defaults; --only names systems
    #[arg(long)]
    transports: bool,
}

/// Rounds and seconds of `transports`: all of it in about ten minutes.
const PAIRS: u32 = 3;
const SECONDS: u32 = 2;

#[derive(clap::Args)]
struct TransportsArgs {
    /// Only these rows: tap, hybrid, raw, l2tpv3-udp, vxlan, geneve, gre
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these systems: native, uml, uml1 (pinned to one core), kibble, alone (two far ends of a tunnel)
    #[arg(long, value_delimiter = ',')]
    systems: Vec<String>,
    /// Rounds; each runs every system once on every row
    #[arg(long, default_value_t = PAIRS)]
    pairs: u32,
    /// Seconds of each transfer
    #[arg(long, default_value_t = SECONDS)]
    seconds: u32,
    #[command(flatten)]
    how: How,
}

#[derive(clap::Args)]
struct MicroArgs {
    #[command(flatten)]
    common: Common,
    /// Rounds; each runs every system once
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// Seconds of idling, once a system
    #[arg(long, default_value_t = 60)]
    idle: u32,
}

/// Runs one benchmark.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Net(a) if a.transports => transports(&TransportsArgs {
            only: Vec::new(),
            systems: a.common.only.clone(),
            pairs: a.pairs.unwrap_or(PAIRS),
            seconds: a.seconds.unwrap_or(SECONDS),
            how: a.common.how.clone(),
        }),
        What::Net(a) => {
            prepare(&a.common.how, &a.common.only)?;
            let mut systems = systems(&a.common)?;
            let plan = net::Plan {
                pairs: a.pairs.unwrap_or(5),
                seconds: a.seconds.unwrap_or(5),
                verbose: a.common.how.verbose,
            };
            let series = net::measure(&mut systems, &plan)?;
            let (md, svg) = net::report(&series, &plan);
            println!("{md}");
            write(&a.common.how, &[("net.md", &md), ("net.svg", &svg)])
        }
        What::Transports(a) => transports(a),
        What::Micro(a) => {
            prepare(&a.common.how, &a.common.only)?;
            let mut systems = systems(&a.common)?;
            let plan = micro::Plan { pairs: a.pairs, idle_s: a.idle, verbose: a.common.how.verbose };
            let series = micro::measure(&mut systems, &plan)?;
            let md = micro::report(&series, &plan);
            println!("{md}");
            write(&a.common.how, &[("micro.md", &md)])
        }
    }
}

fn transports(a: &TransportsArgs) -> Result<()> {
    let rows: Vec<&str> = transports::rows::ROWS.iter().map(|r| r.key).collect();
    let systems: Vec<&str> = transports::WHO.iter().map(|w| w.1).collect();
    for (option, given, known) in [("only", &a.only, &rows), ("systems", &a.systems, &systems)] {
        if let Some(o) = given.iter().find(|o| !known.contains(&o.as_str())) {
            bail!("--{option} {o}: expected {}", known.join(", "));
        }
    }
    prepare(&a.how, &a.systems)?;
    let plan = transports::Plan {
        pairs: a.pairs,
        seconds: a.seconds,
        rows: a.only.clone(),
        systems: a.systems.clone(),
        kernel: a.how.vmlinux(),
        ext4: a.how.ext4(),
        tree: a.how.tree(),
        verbose: a.how.verbose,
    };
    let lines = transports::measure(&plan)?;
    let (md, svg) = transports::report::report(&lines, &plan);
    println!("{md}");
    write(&a.how, &[("transports.md", &md), ("transports.svg", &svg)])
}

/// Builds outside, then comes back inside the namespaces.
fn prepare(how: &How, only: &[String]) -> Result<()> {
    if ns::inside() {
        return ns::prepare();
    }
    if !how.no_build {
        prereq::ensure(&[prereq::EXT4, prereq::SMOKE, prereq::NET])?;
        if !prereq::have(&[prereq::BENCH]) {
            eprintln!(
                "xtask: some peers are not installed and stay out of the table (user-mode-linux, runsc)"
            );
        }
        if wanted(only, "kibble") && how.kernel.is_none() {
            super::build::run(&super::build::Args::default())?;
        }
        image::make(&how.image)?;
    }
    match ns::enter()? {}
}

fn wanted(only: &[String], key: &str) -> bool {
    only.is_empty() || only.iter().any(|o| o == key)
}

fn systems(c: &Common) -> Result<Vec<Box<dyn System>>> {
    let (ext4, tree) = (c.how.ext4(), c.how.tree());
    for o in &c.only {
        if !["native", "uml", "uml1", "gvisor", "kibble"].contains(&o.as_str()) {
            bail!("--only {o}: expected native, uml, uml1, gvisor or kibble");
        }
    }
    let mut out: Vec<Box<dyn System>> = Vec::new();
    if wanted(&c.only, "native") {
        out.push(Box::new(Native::new(tree.clone())?));
    }
    if crate::sh::system_program("linux.uml").is_some() {
        if wanted(&c.only, "uml") {
            out.push(Box::new(Uml::packaged(ext4.clone(), None)));
        }
        if wanted(&c.only, "uml1") {
            out.push(Box::new(Uml::packaged(ext4.clone(), Some(0))));
        }
    }
    // The peer that counts most stands next to ours.
    if wanted(&c.only, "kibble") {
        out.push(Box::new(Uml::kibble(c.how.vmlinux(), ext4)));
    }
    if wanted(&c.only, "gvisor") && crate::sh::system_program("runsc").is_some() {
        out.push(Box::new(Runsc::new(tree)));
    }
    Ok(out)
}

fn write(how: &How, files: &[(&str, &str)]) -> Result<()> {
    if how.dry {
        return Ok(());
    }
    let dir = paths::root().join("docs/bench");
    std::fs::create_dir_all(&dir)?;
    for (name, text) in files {
        std::fs::write(dir.join(name), text)?;
        eprintln!("xtask: wrote docs/bench/{name}");
    }
    Ok(())
}
