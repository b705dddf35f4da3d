//! Systems with User-Mode Linux's boot line: the packaged `linux.uml` and Kibble itself.

use super::{Run, Scratch, System, drive, script_head};
use crate::ns::Tap;
use anyhow::Result;
use std::path::PathBuf;

/// A kernel that is one host process.
pub struct Uml {
    /// Name in tables.
    pub name: String,
    /// The binary.
    pub kernel: PathBuf,
    /// Root disk.
    pub ext4: PathBuf,
    /// Host core that it is pinned to.
    pub pin: Option<u32>,
    /// More words of the boot line.
    pub extra: Vec<String>,
    /// Whether it gets a tap; without one nothing but the console leads out.
    pub net: bool,
    /// Words after `vec0:` in the tap's place; whoever sets them has made what they need.
    pub vec0: Option<String>,
    /// CPUs, if the boot line is to say so.
    pub cpus: Option<u32>,
}

/// Address of the guest on its tap.
pub const GUEST: &str = "10.0.2.2";
/// Address of the host on the tap.
pub const HOST: &str = "10.0.2.1";

impl Uml {
    /// The packaged User-Mode Linux.
    pub fn packaged(ext4: PathBuf, pin: Option<u32>) -> Self {
        let name = if pin.is_some() { "UML, one core" } else { "UML" };
        let kernel = crate::sh::system_program("linux.uml").unwrap_or_else(|| "linux.uml".into());
        Self { name: name.into(), kernel, ext4, pin, extra: Vec::new(), net: true, vec0: None, cpus: None }
    }

    /// Our kernel.
    pub fn kibble(kernel: PathBuf, ext4: PathBuf) -> Self {
        Self {
            name: "Kibble".into(),
            kernel,
            ext4,
            pin: None,
            extra: Vec::new(),
            net: true,
            vec0: None,
            cpus: None,
        }
    }
}

impl System for Uml {
    fn name(&self) -> &str {
        &self.name
    }

    fn addr(&self) -> &str {
        GUEST
    }

    /// User-Mode Linux of Debian has one CPU and would take the word for init's environment: harmless.
    fn set_cpus(&mut self, n: Option<u32>) {
        self.cpus = n;
    }

    fn boot(&mut self, run: Run<'_>) -> Result<String> {
        let scratch = Scratch::new("uml")?;
        let disk = scratch.script(&(script_head(GUEST, HOST) + run.script))?;
        let _tap = if self.net && self.vec0.is_none() { Some(Tap::new("tap0", HOST)?) } else { None };
        let mut words: Vec<String> = Vec::new();
        if let Some(core) = self.pin {
            words.extend(["taskset", "-c", &core.to_string()].map(str::to_owned));
        }
        words.push(self.kernel.display().to_string());
        words.push("mem=512M".into());
        words.push(format!("ubd0={}", self.ext4.display()));
        words.push(format!("ubd1={}", disk.display()));
        words.extend(["root=/dev/ubda", "ro", "con=null", "con0=fd:0,fd:1", "quiet"].map(str::to_owned));
        if self.net {
            let tap = "transport=tap,ifname=tap0,depth=128,gro=1";
            words.push(format!("vec0:{}", self.vec0.as_deref().unwrap_or(tap)));
        }
        if let Some(init) = run.init {
            words.push(format!("init={init}"));
        }
        words.extend(self.cpus.map(|n| format!("ncpus={n}")));
        words.extend(self.extra.iter().cloned());
        let tmp = scratch.dir.display().to_string();
        drive(words, &[("TMPDIR", &tmp), ("HOME", &tmp)], run)
    }
}
