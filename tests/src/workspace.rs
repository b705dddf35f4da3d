//! The work tree as data: its top, its crates with their edges (from `cargo metadata`), its Rust files.

use crate::json::Json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The top of the work tree.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// A crate as cargo sees it.
#[derive(Debug)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its licence expression, empty if it says none.
    pub license: String,
    /// Where it comes from: empty for our own.
    pub source: String,
    /// Names of its dependencies; dev-dependencies excepted.
    pub deps: Vec<String>,
}

/// All crates that the lock file names, ours and others'.
pub fn crates() -> Result<Vec<Crate>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = |extra: &[&str]| {
        Command::new(&cargo)
            .args(["metadata", "--format-version", "1", "--locked"])
            .args(extra)
            .current_dir(root())
            .output()
            .map_err(|e| format!("cannot start cargo: {e}"))
    };
    let mut out = run(&["--offline"])?;
    if !out.status.success() {
        out = run(&[])?;
    }
    if !out.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&out.stderr)));
    }
    let json = Json::parse(&String::from_utf8_lossy(&out.stdout)).ok_or("cargo metadata printed no JSON")?;
    let packages = json.get("packages").ok_or("cargo metadata without packages")?;
    let text = |p: &Json, key: &str| p.get(key).and_then(Json::str).unwrap_or_default().to_owned();
    Ok(packages
        .items()
        .iter()
        .map(|p| Crate {
            name: text(p, "name"),
            license: text(p, "license"),
            source: text(p, "source"),
            deps: p
                .get("dependencies")
                .map_or(&[][..], Json::items)
                .iter()
                .filter(|d| d.get("kind").and_then(Json::str) != Some("dev"))
                .map(|d| text(d, "name"))
                .collect(),
        })
        .collect())
}

/// All Rust files below a folder of the tree, relative to the top, sorted.
pub fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    walk(&root().join(folder), &mut out);
    out.sort();
    out
}

fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
    for e in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = e.path();
        let name = e.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                walk(&path, out);
            }
        } else if name.ends_with(".rs")
            && let Ok(rel) = path.strip_prefix(root())
        {
            out.push(rel.to_owned());
        }
    }
}
