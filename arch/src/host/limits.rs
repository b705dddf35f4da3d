//! Resource limits of this process (getrlimit(2)).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one; gives what holds now (`u64::MAX`: none).
pub fn raise_nofile() -> u64 {
    let old = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: old.maximum, maximum: old.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { old.maximum } else { old.current };
    now.unwrap_or(u64::MAX)
}
