//! gVisor: `runsc` with the ptrace platform on the image's tree, at the other end of a veth pair.

use super::{Run, Scratch, System, drive, script_head};
use crate::ns::Peer;
use crate::sh::Cmd;
use anyhow::Result;
use std::path::PathBuf;

/// A container of its own for every run.
pub struct Runsc {
    tree: PathBuf,
    count: u32,
}

impl Runsc {
    /// Nothing is started yet.
    pub fn new(tree: PathBuf) -> Self {
        Self { tree, count: 0 }
    }
}

impl System for Runsc {
    fn name(&self) -> &str {
        "gVisor"
    }

    fn addr(&self) -> &str {
        "10.0.4.2"
    }

    fn boot(&mut self, run: Run<'_>) -> Result<String> {
        self.count += 1;
        let scratch = Scratch::new("runsc")?;
        let peer = Peer::new("vh1", "10.0.4.1", "10.0.4.2")?;
        // runsc of 2022 takes a namespace that shows rmem_default for the host's own, and kernels since 6.10 show it
        // everywhere. The mount belongs to that namespace's view of /proc/sys/net and vanishes with it.
        Cmd::new(peer.enter()).args("mount -t tmpfs tmpfs /proc/sys/net/core".split(' ')).read()?;
        let script = scratch.dir.join("sh");
        std::fs::create_dir(&script)?;
        std::fs::write(script.join("run"), script_head("10.0.4.2", "10.0.4.1") + run.script)?;
        let dir = scratch.dir.display().to_string();
        std::fs::write(
            scratch.dir.join("config.json"),
            config(
                run.init.unwrap_or("/script/run"),
                &self.tree.display().to_string(),
                &script.display().to_string(),
                &peer.path(),
            ),
        )?;
        let id = format!("kibble-{}-{}", std::process::id(), self.count);
        let words = [
            "runsc",
            "--root",
            &format!("{dir}/state"),
            "--platform=ptrace",
            "--network=sandbox",
            "--net-raw",
            "--ignore-cgroups",
            "run",
            "--bundle",
            &dir,
            &id,
        ]
        .map(str::to_owned)
        .to_vec();
        drive(words, &[], run)
    }
}

/// The smallest OCI configuration that serves. Paths are ours and hold nothing that JSON would escape.
fn config(first: &str, tree: &str, script: &str, netns: &str) -> String {
    let caps = r#"["CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_FOWNER","CAP_KILL","CAP_NET_ADMIN","CAP_NET_RAW","CAP_SETGID",
        "CAP_SETUID","CAP_SYS_ADMIN","CAP_SYS_CHROOT","CAP_SYS_NICE"]"#;
    format!(
        r#"{{
  "ociVersion": "1.0.0",
  "process": {{
    "terminal": false, "user": {{"uid": 0, "gid": 0}}, "args": ["/bin/sh", "{first}"], "cwd": "/",
    "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"],
    "capabilities": {{"bounding": {caps}, "effective": {caps}, "permitted": {caps}, "inheritable": {caps}}}
  }},
  "root": {{"path": "{tree}", "readonly": true}},
  "hostname": "gvisor",
  "mounts": [
    {{"destination": "/proc", "type": "proc", "source": "proc"}},
    {{"destination": "/sys", "type": "sysfs", "source": "sysfs"}},
    {{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}},
    {{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}},
    {{"destination": "/script", "type": "bind", "source": "{script}", "options": ["ro"]}}
  ],
  "linux": {{
    "namespaces": [{{"type": "pid"}}, {{"type": "ipc"}}, {{"type": "uts"}}, {{"type": "mount"}},
      {{"type": "network", "path": "{netns}"}}]
  }}
}}"#
    )
}
