//! What the host's io_uring offers, and a clear word if it offers nothing.

use super::ring::{SETUPS, setup};
use crate::host::thread::host_release;
use io_uring::{IoUring, Probe, opcode};
use std::fmt;

/// How rings are set up on this host, and which operations they have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// Kernel release, major and minor.
    pub release: (u32, u32),
    /// Completions are worked off only when their CPU asks (DEFER_TASKRUN, 6.1).
    pub defer_taskrun: bool,
    /// No interrupting of a running CPU for completions (COOP_TASKRUN, 5.19).
    pub coop_taskrun: bool,
    /// One bad entry does not stop a batch (SUBMIT_ALL, 5.18).
    pub submit_all: bool,
    /// Completions are never dropped (NODROP, 5.5).
    pub nodrop: bool,
    /// Rings of provided buffers (5.19).
    pub buf_ring: bool,
    /// Standing reads (6.7).
    pub read_multi: bool,
    /// Standing receives (6.0).
    pub recv_multi: bool,
}

/// Features named in this variable (separated by commas, as the boot log names them) are not used even if the host has
/// them: for trying on a new host how an old one behaves.
pub const WITHOUT_VAR: &str = "KIBBLE_IO_URING_WITHOUT";

/// Looks at the host. `Err` is one line for the user.
pub fn probe() -> Result<Features, String> {
    let without = std::env::var(WITHOUT_VAR).unwrap_or_default();
    probe_without(&without.split(',').collect::<Vec<_>>())
}

/// As [`probe`], doing without some features.
pub fn probe_without(without: &[&str]) -> Result<Features, String> {
    let wanted = |name: &str| !without.contains(&name);
    let mut last = std::io::Error::from_raw_os_error(libc::EINVAL);
    for how @ (defer, coop, _) in SETUPS {
        if (defer && !wanted("defer_taskrun")) || (coop && !wanted("coop_taskrun")) {
            continue;
        }
        match setup(how, 8, 16) {
            Ok(uring) => {
                let mut f = probe_ring(&uring, how)?;
                f.buf_ring &= wanted("buf_ring");
                f.recv_multi &= wanted("recv_multishot");
                f.read_multi &= wanted("read_multishot");
                return Ok(f);
            }
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => last = e,
            Err(e) => return Err(explain(&e)),
        }
    }
    Err(explain(&last))
}

fn probe_ring(uring: &IoUring, (defer, coop, all): (bool, bool, bool)) -> Result<Features, String> {
    let mut features = Features {
        release: host_release(),
        defer_taskrun: defer,
        coop_taskrun: coop,
        submit_all: all,
        nodrop: uring.params().is_feature_nodrop(),
        ..Features::default()
    };
    if !uring.params().is_feature_ext_arg() || !features.nodrop {
        return Err(format!(
            "io_uring of this host ({}.{}) is too old: Linux 6.1 or newer is needed",
            features.release.0, features.release.1
        ));
    }
    let mut ops = Probe::new();
    if uring.submitter().register_probe(&mut ops).is_ok() {
        features.read_multi = ops.is_supported(opcode::ReadMulti::CODE);
        // Both came without an opcode of their own; SEND_ZC is of the same release as multishot receive (6.0), SOCKET
        // of the same as buffer rings (5.19).
        features.recv_multi = ops.is_supported(opcode::SendZc::CODE);
        features.buf_ring = ops.is_supported(opcode::Socket::CODE);
    }
    Ok(features)
}

/// The line a user can act on.
pub(super) fn explain(e: &std::io::Error) -> String {
    let hint = match e.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => {
            "; allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile, and check \
             sysctl kernel.io_uring_disabled"
        }
        Some(libc::ENOMEM) => "; raise RLIMIT_MEMLOCK or the container's memory limit",
        Some(libc::EMFILE | libc::ENFILE) => "; raise RLIMIT_NOFILE",
        _ => "",
    };
    format!("io_uring is not available: {e}{hint}")
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "io_uring on Linux {}.{}:", self.release.0, self.release.1)?;
        let list = [
            (self.defer_taskrun, "defer_taskrun"),
            (self.coop_taskrun, "coop_taskrun"),
            (self.submit_all, "submit_all"),
            (self.buf_ring, "buf_ring"),
            (self.recv_multi, "recv_multishot"),
            (self.read_multi, "read_multishot"),
        ];
        for (have, name) in list {
            write!(f, " {}{name}", if have { "" } else { "no-" })?;
        }
        Ok(())
    }
}
