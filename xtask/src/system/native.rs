//! The host itself: the same programs from the image's tree, at the other end of a veth pair.

use super::{Run, Scratch, System, drive, script_head};
use crate::ns::Peer;
use crate::sh::Cmd;
use anyhow::Result;
use std::path::PathBuf;

/// chroot into the image's tree, in a network namespace of its own.
pub struct Native {
    tree: PathBuf,
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
        Ok(Self { tree })
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
        let peer = Peer::new("vh0", "10.0.3.1", "10.0.3.2")?;
        std::fs::write(self.tree.join("tmp/script"), script_head("10.0.3.2", "10.0.3.1") + run.script)?;
        let mut words = peer.enter();
        words.extend(["chroot".to_owned(), self.tree.display().to_string()]);
        words.extend(["/bin/sh", "/tmp/script"].map(str::to_owned));
        let path = ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        drive(words, &[path, ("LANG", "C.UTF-8"), ("HOME", "/root")], run)
    }
}
