//! A root tree built from the host's files: programs, the libraries they need, links kept as links.
//!
//! Key type: [`TreeBuilder`]. It first only notes what goes where ([`TreeBuilder::program`] and the others), so that the
//! cache key can be taken without copying anything; [`TreeBuilder::write`] then makes the tree.

use crate::sh::{Cmd, system_program};
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// What stands at a path of the tree.
enum Node {
    Dir(u32),
    Copy(PathBuf),
    Link(PathBuf),
    Text(u32, Vec<u8>),
}

/// Paths of the tree and where each comes from; ordered, so parents come first.
#[derive(Default)]
pub struct TreeBuilder {
    nodes: BTreeMap<PathBuf, Node>,
    ldd_done: BTreeSet<PathBuf>,
}

/// Debian's merged /usr: these are links in every tree.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

impl TreeBuilder {
    /// An empty root with the usual directories.
    pub fn new() -> Self {
        let mut t = Self::default();
        for d in [
            "dev",
            "etc",
            "mnt",
            "proc",
            "run",
            "sys",
            "usr",
            "usr/bin",
            "usr/sbin",
            "usr/lib",
            "usr/lib64",
            "var",
        ] {
            t.nodes.insert(d.into(), Node::Dir(0o755));
        }
        t.nodes.insert("root".into(), Node::Dir(0o700));
        t.nodes.insert("tmp".into(), Node::Dir(0o1777));
        t.nodes.insert("var/tmp".into(), Node::Dir(0o1777));
        for m in MERGED {
            t.nodes.insert(m.into(), Node::Link(Path::new("usr").join(m)));
        }
        t.nodes.insert("var/run".into(), Node::Link("/run".into()));
        t
    }

    /// A file with given text.
    pub fn text(&mut self, path: &str, mode: u32, data: impl Into<Vec<u8>>) {
        self.parents(Path::new(path));
        self.nodes.insert(path.into(), Node::Text(mode, data.into()));
    }

    /// A symbolic link, unless something stands there already.
    pub fn link(&mut self, path: &str, to: &str) {
        self.nodes.entry(path.into()).or_insert_with(|| Node::Link(to.into()));
    }

    /// A host file put at another place.
    pub fn copy(&mut self, path: &str, from: &Path) {
        self.parents(Path::new(path));
        self.nodes.insert(path.into(), Node::Copy(from.to_owned()));
    }

    /// Whether something stands at a path.
    pub fn has(&self, path: &str) -> bool {
        self.nodes.contains_key(Path::new(path))
    }

    /// A program of the host with everything it links to; false if the host lacks it.
    pub fn program(&mut self, name: &str) -> Result<bool> {
        let Some(path) = system_program(name) else { return Ok(false) };
        self.file(&path)?;
        Ok(true)
    }

    /// A host file at its own place, with links on the way and the libraries it needs.
    pub fn file(&mut self, path: &Path) -> Result<()> {
        let place = usr_merged(path);
        if self.nodes.contains_key(&place) {
            return Ok(());
        }
        let meta =
            std::fs::symlink_metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        self.parents(&place);
        if meta.is_symlink() {
            let to = std::fs::read_link(path)?;
            let full = path.parent().unwrap_or(Path::new("/")).join(&to);
            self.nodes.insert(place, Node::Link(to));
            // One step at a time: /etc/alternatives links stay links.
            return self.file(&clean(&full));
        }
        if meta.is_file() {
            self.nodes.insert(place, Node::Copy(path.to_owned()));
            if meta.mode() & 0o111 != 0 || path.to_string_lossy().contains(".so") {
                self.libraries(path)?;
            }
        }
        Ok(())
    }

    /// A whole directory but for entries whose name is in `skip`.
    pub fn tree(&mut self, from: &Path, skip: &[String]) -> Result<()> {
        if !from.is_dir() {
            return Ok(());
        }
        self.parents(&usr_merged(&from.join("x")));
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if skip.contains(&name) {
                continue;
            }
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                self.nodes.insert(usr_merged(&path), Node::Dir(0o755));
                self.tree(&path, skip)?;
            } else if path.exists() {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    /// Busybox under each of its names that nothing else has taken.
    pub fn busybox(&mut self) -> Result<()> {
        let Some(busybox) = system_program("busybox") else { bail!("busybox is not there") };
        for name in Cmd::new([&busybox]).arg("--list").read()?.lines() {
            let taken = ["usr/bin", "usr/sbin"].iter().any(|d| self.has(&format!("{d}/{name}")));
            if !taken && !name.is_empty() {
                self.link(&format!("usr/bin/{name}"), "busybox");
            }
        }
        Ok(())
    }

    fn libraries(&mut self, path: &Path) -> Result<()> {
        if !self.ldd_done.insert(path.to_owned()) {
            return Ok(());
        }
        // ldd refuses what is not a dynamic ELF file: scripts and static programs need nothing.
        let Ok(text) = Cmd::new(["ldd"]).arg(path).read() else { return Ok(()) };
        for line in text.lines() {
            if line.contains("not found") {
                bail!("{}: {}", path.display(), line.trim());
            }
            if let Some(lib) = line.split_whitespace().find(|w| w.starts_with('/')) {
                self.file(Path::new(lib))?;
            }
        }
        Ok(())
    }

    fn parents(&mut self, place: &Path) {
        for p in place.ancestors().skip(1) {
            if !p.as_os_str().is_empty() {
                self.nodes.entry(p.to_owned()).or_insert(Node::Dir(0o755));
            }
        }
    }

    /// Number of entries and bytes of file data.
    pub fn size(&self) -> (usize, u64) {
        let bytes = self.nodes.values().map(|n| match n {
            Node::Copy(p) => std::fs::metadata(p).map_or(0, |m| m.len().next_multiple_of(4096)),
            Node::Text(_, d) => d.len() as u64,
            _ => 0,
        });
        (self.nodes.len(), bytes.sum())
    }

    /// A value that changes when the tree would: paths, links, texts; size and time of host files.
    pub fn hash(&self, h: &mut DefaultHasher) -> Result<()> {
        for (place, node) in &self.nodes {
            place.hash(h);
            match node {
                Node::Dir(mode) => mode.hash(h),
                Node::Link(to) => to.hash(h),
                Node::Text(mode, data) => (mode, data).hash(h),
                Node::Copy(from) => {
                    let m = std::fs::metadata(from)?;
                    (from, m.len(), m.mode()).hash(h);
                    if from.starts_with(crate::paths::target()) {
                        std::fs::read(from)?.hash(h); // built again does not mean changed
                    } else {
                        m.mtime().hash(h);
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes the tree below `to`, which must not exist.
    pub fn write(&self, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to)?;
        for (place, node) in &self.nodes {
            let path = to.join(place);
            let ctx = || format!("cannot make {}", path.display());
            match node {
                Node::Dir(mode) => {
                    std::fs::create_dir(&path).with_context(ctx)?;
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode))?;
                }
                Node::Link(target) => symlink(target, &path).with_context(ctx)?,
                Node::Text(mode, data) => {
                    std::fs::write(&path, data).with_context(ctx)?;
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode))?;
                    let f = std::fs::File::options().write(true).open(&path)?;
                    f.set_modified(UNIX_EPOCH)?;
                }
                Node::Copy(from) => {
                    std::fs::copy(from, &path).with_context(ctx)?;
                    let meta = std::fs::metadata(from)?;
                    // Readable and writable for us while it is made; no set-id programs in an image of everybody's.
                    std::fs::set_permissions(
                        &path,
                        std::fs::Permissions::from_mode(meta.mode() & 0o755 | 0o600),
                    )?;
                    let f = std::fs::File::options().write(true).open(&path)?;
                    f.set_modified(meta.modified()?)?; // python compares it with what its .pyc files say
                }
            }
        }
        Ok(())
    }

    /// Every path of the tree, absolute.
    pub fn paths(&self) -> impl Iterator<Item = String> + '_ {
        self.nodes.keys().map(|p| format!("/{}", p.display()))
    }
}

/// Where a host path stands in a merged-usr tree, relative to its root.
fn usr_merged(path: &Path) -> PathBuf {
    let rel = path.strip_prefix("/").unwrap_or(path);
    let first = rel.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned());
    match first {
        Some(f) if MERGED.contains(&f.as_str()) => Path::new("usr").join(rel),
        _ => rel.to_owned(),
    }
}

/// `a/../b` without asking the file system.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for c in path.components() {
        match c {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::CurDir => {}
            c => out.push(c),
        }
    }
    out
}
