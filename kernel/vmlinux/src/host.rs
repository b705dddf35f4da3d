//! What this host lends: tried before anything starts, one clear line for what is missing.

use arch::host::{limits, thread};
use arch::irqchip::probe::probe as probe_ring;
use kernel::param::NCPUS_MAX;

/// The oldest kernel that works.
const OLDEST: (u32, u32) = (6, 1);

/// What was found and chosen.
pub struct Host {
    /// Number of CPUs to run.
    pub ncpus: usize,
    /// The line for the boot log.
    pub summary: String,
}

/// Looks at the host; the process must have one thread. `Err` is one line for the user.
pub fn probe(ncpus: Option<usize>) -> Result<Host, String> {
    let release = thread::host_release();
    if release < OLDEST {
        return Err(format!(
            "this host runs Linux {}.{}; expected Linux {}.{} or newer",
            release.0, release.1, OLDEST.0, OLDEST.1
        ));
    }
    probe_ring()?;
    arch::user::probe::probe()?;
    let nofile = match limits::raise_nofile() {
        u64::MAX => "no limit of open files".into(),
        n => format!("{n} open files"),
    };
    let lent = thread::allowed_cpus().len();
    let ncpus = ncpus.unwrap_or_else(|| lent.clamp(1, NCPUS_MAX));
    let summary = format!(
        "Host: Linux {}.{}, user code trapped by seccomp listeners, {ncpus} CPU{} on {lent} of the host, {nofile}",
        release.0,
        release.1,
        if ncpus == 1 { "" } else { "s" },
    );
    Ok(Host { ncpus, summary })
}
