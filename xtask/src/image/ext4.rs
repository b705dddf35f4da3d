//! From a tree to an ext4 file: `mke2fs -d`, owners set to root, judged by e2fsck.

use super::Image;
use crate::prereq;
use crate::sh::{Cmd, system_program};
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::{Path, PathBuf};

fn tool(name: &str) -> PathBuf {
    system_program(name).unwrap_or_else(|| name.into())
}

/// Makes `image.ext4` from `image.tree`; `bytes` of data and `free_mib` of room. `paths` are all paths of the tree.
pub fn make(
    image: &Image,
    label: &str,
    bytes: u64,
    free_mib: u64,
    paths: &mut dyn Iterator<Item = String>,
) -> Result<()> {
    let tmp = image.ext4.with_extension("ext4.new");
    let _ = std::fs::remove_file(&tmp);
    // Metadata and journal take a tenth at most; the file is sparse, so room costs nothing.
    let mib = (bytes >> 20) + (bytes >> 23) + 32 + free_mib;
    eprintln!("xtask: image {label}: mke2fs, {mib} MiB");
    Cmd::new([tool("mke2fs")])
        .arg("-q")
        .args(["-t", "ext4", "-b", "4096", "-L", label, "-E", "root_owner=0:0", "-d"])
        .arg(&image.tree)
        .arg(&tmp)
        .arg(format!("{mib}M"))
        .read()?;
    if !prereq::is_root() {
        owners(&tmp, paths)?;
    }
    eprintln!("xtask: image {label}: e2fsck");
    Cmd::new([tool("e2fsck")]).args(["-f", "-n"]).arg(&tmp).read().context("the image is not clean")?;
    std::fs::rename(&tmp, &image.ext4)?;
    eprintln!("xtask: image {label}: {} is ready", image.ext4.display());
    Ok(())
}

/// Files made by a user belong to that user in the image; debugfs gives them to root.
fn owners(ext4: &Path, paths: &mut dyn Iterator<Item = String>) -> Result<()> {
    let mut child = Cmd::new([tool("debugfs")])
        .args(["-w", "-f", "-"])
        .arg(ext4)
        .into_inner()
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .context("cannot start debugfs")?;
    let mut script = String::new();
    for p in paths {
        script.push_str(&format!("sif \"{p}\" uid 0\nsif \"{p}\" gid 0\n"));
    }
    child.stdin.take().context("debugfs has no stdin")?.write_all(script.as_bytes())?;
    if !child.wait()?.success() {
        bail!("debugfs could not set the owners");
    }
    Ok(())
}
