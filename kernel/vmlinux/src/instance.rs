//! The instance directory `<uml_dir>/<umid>/` with the file `pid`: how others find this guest.

use kernel::param::BootLine;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What the directory may hold; it is emptied of these only.
const FILES: [&str; 2] = ["pid", "mconsole"];
/// Random names tried before giving up.
const TRIES: usize = 16;

/// A directory of ours.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The name: `umid=` or random.
    pub umid: String,
    /// The directory; `None` if there is nowhere to make one.
    pub dir: Option<PathBuf>,
    /// Lines for the boot log: what was not as asked.
    pub warnings: Vec<String>,
}

impl Instance {
    /// Makes the directory and writes the process id. `Err` is one line for the user.
    pub fn create(line: &BootLine) -> Result<Self, String> {
        let home = std::env::var_os("HOME").filter(|h| !h.is_empty()).map(PathBuf::from);
        Self::create_in(line, home.as_deref(), std::process::id())
    }

    fn create_in(line: &BootLine, home: Option<&Path>, pid: u32) -> Result<Self, String> {
        let random = || line.umid.clone().unwrap_or_else(random_id);
        let (base, named) = match (&line.uml_dir, home) {
            (Some((at, text)), home) => {
                let base = match (text.strip_prefix("~/"), home) {
                    (Some(rest), Some(home)) => home.join(rest),
                    _ => PathBuf::from(text),
                };
                (base, Some(at.text.clone()))
            }
            (None, Some(home)) => (home.join(".uml"), line.umid.as_ref().map(|u| format!("umid={u}"))),
            (None, None) => {
                let warning = "no instance directory: HOME is not set; give uml_dir=DIR to have one".into();
                return Ok(Self { umid: random(), dir: None, warnings: vec![warning] });
            }
        };
        let mut warnings = Vec::new();
        match Self::claim(&base, line.umid.as_deref(), pid, &mut warnings) {
            Ok((umid, dir)) => Ok(Self { umid, dir: Some(dir), warnings }),
            Err(e) => {
                let what = format!("cannot make an instance directory in {}: {}", base.display(), plain(&e));
                match named {
                    Some(option) => {
                        Err(format!("{option}: {what}; expected a directory that can be written"))
                    }
                    None => {
                        warnings.push(format!("{what}; give uml_dir=DIR to have one elsewhere"));
                        Ok(Self { umid: random(), dir: None, warnings })
                    }
                }
            }
        }
    }

    /// Takes the wanted name, or a random one if it is in use.
    fn claim(
        base: &Path,
        wanted: Option<&str>,
        pid: u32,
        warnings: &mut Vec<String>,
    ) -> io::Result<(String, PathBuf)> {
        // One level only: a mistyped path must not grow a tree.
        match fs::create_dir(base) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        if let Some(name) = wanted {
            match take(&base.join(name), pid)? {
                Taken::Ours => return Ok((name.into(), base.join(name))),
                Taken::By(other) => {
                    warnings.push(format!(
                        "umid \"{name}\" is already in use by pid {other}; a random one is taken"
                    ));
                }
            }
        }
        for _ in 0..TRIES {
            let name = random_id();
            if let Taken::Ours = take(&base.join(&name), pid)? {
                return Ok((name.clone(), base.join(name)));
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Removes the directory, if it is still ours. May be called more than once.
    pub fn remove(&self) {
        let Some(dir) = &self.dir else { return };
        if read_pid(dir) == Some(std::process::id()) {
            empty(dir);
            let _ = fs::remove_dir(dir);
        }
    }
}

enum Taken {
    Ours,
    By(u32),
}

/// Makes the directory, or takes over one whose owner is dead, and writes the pid file.
fn take(dir: &Path, pid: u32) -> io::Result<Taken> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            // The same number is what we were before a reboot, or what another container called its first process.
            if let Some(owner) = read_pid(dir).filter(|&p| p != pid && alive(p)) {
                return Ok(Taken::By(owner));
            }
            empty(dir);
        }
        other => other?,
    }
    fs::write(dir.join("pid"), format!("{pid}\n"))?;
    Ok(Taken::Ours)
}

fn read_pid(dir: &Path) -> Option<u32> {
    fs::read_to_string(dir.join("pid")).ok()?.trim().parse().ok()
}

fn alive(pid: u32) -> bool {
    // A zombie is dead: its parent has not looked yet.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn empty(dir: &Path) {
    for name in FILES {
        let _ = fs::remove_file(dir.join(name));
    }
}

/// Six characters, as User-Mode Linux chooses them.
fn random_id() -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut bytes = [0u8; 6];
    if arch::host::random::fill(&mut bytes).is_err() {
        return format!("{:06}", std::process::id() % 1_000_000);
    }
    bytes
        .iter()
        .filter_map(|b| LETTERS.get(usize::from(*b) % LETTERS.len()))
        .map(|&b| char::from(b))
        .collect()
}

/// An error's text without its number.
pub fn plain(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(n) => uapi::Errno::from_raw(n).text().into(),
        None => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::param;

    fn line(args: &[&str]) -> BootLine {
        param::parse(args).0
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("kibble-instance-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory for temporary files");
        dir
    }

    #[test]
    fn life_of_a_directory() {
        let home = scratch("life");
        let pid = std::process::id();
        let b = line(&["umid=box"]);
        let i = Instance::create_in(&b, Some(&home), pid).expect("made");
        let dir = home.join(".uml/box");
        assert_eq!((i.umid.as_str(), i.dir.as_deref()), ("box", Some(dir.as_path())));
        assert_eq!(fs::read_to_string(dir.join("pid")).expect("readable"), format!("{pid}\n"));
        // Another process that is alive: process 1 always is.
        fs::write(dir.join("pid"), "1\n").expect("writable");
        let other = Instance::create_in(&b, Some(&home), pid).expect("made");
        assert_ne!(other.umid, "box");
        assert!(other.warnings[0].starts_with("umid \"box\" is already in use by pid 1"));
        other.remove();
        i.remove();
        assert!(dir.exists(), "not ours any more");
        // A dead one is taken over.
        fs::write(dir.join("pid"), "4194304\n").expect("writable");
        fs::write(dir.join("mconsole"), "").expect("writable");
        let again = Instance::create_in(&b, Some(&home), pid).expect("made");
        assert!(again.umid == "box" && again.warnings.is_empty() && !dir.join("mconsole").exists());
        again.remove();
        again.remove();
        assert!(!dir.exists());
        fs::remove_dir_all(&home).expect("removable");
    }

    #[test]
    fn nowhere_to_go() {
        let home = scratch("nowhere");
        let b = line(&["uml_dir=/proc/none/such"]);
        let e = Instance::create_in(&b, Some(&home), 1).expect_err("no such directory");
        assert_eq!(
            e,
            "uml_dir=/proc/none/such: cannot make an instance directory in /proc/none/such: No such file or directory; \
             expected a directory that can be written"
        );
        let i = Instance::create_in(&line(&[]), None, 1).expect("only a warning");
        assert!(i.dir.is_none() && i.warnings.len() == 1 && i.umid.len() == 6);
        let i = Instance::create_in(&line(&[]), Some(Path::new("/proc/none")), 1).expect("only a warning");
        assert!(i.dir.is_none() && i.warnings.len() == 1);
        assert!(Instance::create_in(&line(&["umid=x"]), Some(Path::new("/proc/none")), 1).is_err());
        fs::remove_dir_all(&home).expect("removable");
    }
}
