//! What the host's io_uring offers, and a clear word if it offers nothing.

use crate::host::thread::host_release;
use io_uring::{Probe, opcode};
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

/// Looks at the host. `Err` is one line for the user.
pub fn probe() -> Result<Features, String> {
    let (uring, defer, coop, all) = super::ring::setup(8, 16).map_err(|e| explain(&e))?;
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
