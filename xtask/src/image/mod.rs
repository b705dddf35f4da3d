//! Root file system images: a recipe becomes a tree, the tree becomes ext4, cached by what went into it.
//!
//! Key types: [`recipe::Recipe`], [`tree::TreeBuilder`], [`Image`]. Neighbours: `cmd::image` (the command), `cmd::boot`,
//! the benchmarks and the suites, which all call [`make`].

pub mod bookworm;
pub mod ext4;
pub mod recipe;
pub mod tree;

use crate::{cmd, paths, prereq};
use anyhow::{Result, bail};
use recipe::{Recipe, Source};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use tree::TreeBuilder;

/// Raised when the way images are made changes.
const FORMAT: u32 = 4;

/// A finished image.
pub struct Image {
    /// The ext4 file.
    pub ext4: PathBuf,
    /// The same files as a tree on the host.
    pub tree: PathBuf,
}

/// Makes the image of a recipe, or finds it made.
pub fn make(name: &str) -> Result<Image> {
    let (recipe, text) = Recipe::load(name)?;
    prereq::ensure(&[prereq::EXT4])?;
    match &recipe.source {
        Source::Host { .. } => host(&recipe, &text),
        Source::Debootstrap { suite, mirror, include } => {
            bookworm::make(&recipe, &text, suite, mirror, include)
        }
    }
}

fn host(recipe: &Recipe, text: &str) -> Result<Image> {
    let Source::Host { required, optional, trees, files } = &recipe.source else {
        bail!("not a host recipe")
    };
    prereq::ensure(&[prereq::SMOKE])?;
    cmd::build::guest_programs()?;
    let name = &recipe.name;
    eprintln!("xtask: image {name}: looking up programs and libraries");
    let mut t = TreeBuilder::new();
    for p in required {
        if !t.program(p)? {
            bail!("image {name}: the host has no program {p}");
        }
    }
    for p in optional {
        t.program(p)?;
    }
    for tr in trees {
        t.tree(Path::new(&tr.from.replace("{python3}", &python_name())), &tr.skip)?;
    }
    for f in files {
        if Path::new(f).exists() {
            t.file(Path::new(f))?;
        }
    }
    t.busybox()?;
    for p in paths::GUEST_PROGRAMS {
        // The name init belongs to the script that every system starts with.
        let place = if p == "init" { "usr/bin/kibble-init".to_owned() } else { format!("usr/bin/{p}") };
        t.copy(&place, &paths::guest_bin(p));
    }
    etc(&mut t, name)?;
    let mut h = DefaultHasher::new();
    (FORMAT, text).hash(&mut h);
    t.hash(&mut h)?;
    let key = format!("{:016x}", h.finish());

    let image = Image {
        ext4: paths::images().join(format!("{name}.ext4")),
        tree: paths::images().join(format!("{name}.tree")),
    };
    let stamp = paths::images().join(format!("{name}.key"));
    if std::fs::read_to_string(&stamp).is_ok_and(|k| k == key) && image.ext4.exists() && image.tree.exists() {
        eprintln!("xtask: image {name}: {} is up to date", image.ext4.display());
        return Ok(image);
    }
    let _ = std::fs::remove_file(&stamp);
    if image.tree.exists() {
        std::fs::remove_dir_all(&image.tree)?;
    }
    let (entries, bytes) = t.size();
    eprintln!("xtask: image {name}: copying {entries} files and directories, {} MiB", bytes >> 20);
    t.write(&image.tree)?;
    ext4::make(&image, name, bytes, recipe.free_mib, &mut t.paths())?;
    std::fs::write(&stamp, key)?;
    Ok(image)
}

fn python_name() -> String {
    std::fs::read_link("/usr/bin/python3")
        .ok()
        .and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "python3".into())
}

fn etc(t: &mut TreeBuilder, name: &str) -> Result<()> {
    t.text(
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    );
    t.text("etc/group", 0o644, "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n");
    t.text("etc/hosts", 0o644, "127.0.0.1 localhost kibble\n::1 localhost ip6-localhost\n10.0.2.1 host\n");
    t.text("etc/hostname", 0o644, "kibble\n");
    t.text(
        "etc/nsswitch.conf",
        0o644,
        "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    );
    t.text("etc/resolv.conf", 0o644, "");
    t.text(
        "etc/profile",
        0o644,
        "export PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8\nPS1='\\u@\\h:\\w\\$ '\n",
    );
    t.text(
        "etc/os-release",
        0o644,
        format!("PRETTY_NAME=\"Kibble {name} image\"\nNAME=\"Kibble\"\nID=kibble\nID_LIKE=debian\n"),
    );
    t.text("etc/fstab", 0o644, "/dev/ubda / ext4 ro 0 1\n");
    t.link("etc/mtab", "/proc/self/mounts");
    t.text("usr/sbin/init", 0o755, std::fs::read(paths::root().join("images/init.sh"))?);
    // The images' init is a shell that waits for its console: nobody is there to be asked, so these act at once.
    for name in ["poweroff", "reboot", "halt"] {
        t.text(
            &format!("usr/sbin/{name}"),
            0o755,
            format!("#!/bin/busybox sh\nsync\nexec /bin/busybox {name} -f\n"),
        );
    }
    // Shows the moment at which a system reaches init, and nothing else.
    t.text("usr/sbin/init-mark", 0o755, "#!/bin/busybox sh\necho @@INIT\nexec /bin/busybox poweroff -f\n");
    Ok(())
}
