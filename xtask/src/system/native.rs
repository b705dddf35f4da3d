//! The host itself: the same programs from the image's tree, at the other end of a veth pair.

use super::far::{Near, Tunnel};
use super::uml::{GUEST, HOST};
use super::{Run, Scratch, System, drive, script_head};
use crate::ns::Peer;
use crate::sh::Cmd;
use anyhow::Result;
use std::path::PathBuf;

/// chroot into the image's tree, in a network namespace of its own.
pub struct Native {
    tree: PathBuf,
    /// Instead of the veth pair: a relay at our own end of this tunnel.
    pub tunnel: Option<Tunnel>,
}

impl Native {
    /// Mounts what the tree needs; only inside our private mount namespace.
    pub fn new(tree: PathBuf) -> Result<Self> {
        for (dir, words) in [
            ("proc", "mount --rbind /proc"),
            ("sys", "mount --rbind /sys"),
            ("dev", "mount --rbind /dev"),
            ("tmp", "mount -t tmpfs tmpfs"),
            ("run", "mount -t tmpfs tmpfs"),
        ] {
            Cmd::line(words).arg(tree.join(dir)).read()?;
        }
        Ok(Self { tree, tunnel: None })
    }
}

impl System for Native {
    fn name(&self) -> &str {
        "native"
    }

    fn addr(&self) -> &str {
        "10.0.3.2"
    }

    fn boot(&mut self, run: Run<'_>) -> Result<String> {
        let _scratch = Scratch::new("native")?;
        let (me, host) = if self.tunnel.is_some() { (GUEST, HOST) } else { ("10.0.3.2", "10.0.3.1") };
        let _near = self.tunnel.map(|t| Near::start(t, run.meter)).transpose()?;
        let peer = if self.tunnel.is_none() { Some(Peer::new("vh0", host, me)?) } else { None };
        std::fs::write(self.tree.join("tmp/script"), script_head(me, host) + run.script)?;
        let mut words = peer.as_ref().map(Peer::enter).unwrap_or_default();
        words.extend(["chroot".to_owned(), self.tree.display().to_string()]);
        words.extend(["/bin/sh", "/tmp/script"].map(str::to_owned));
        let path = ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        drive(words, &[path, ("LANG", "C.UTF-8"), ("HOME", "/root")], run)
    }
}
