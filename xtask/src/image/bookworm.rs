//! The Debian image: debootstrap's minbase, made as root with a network.

use super::{Image, ext4, recipe::Recipe};
use crate::{paths, prereq, sh::Cmd};
use anyhow::{Result, bail};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Makes the image, or finds it made from the same recipe.
pub fn make(recipe: &Recipe, text: &str, suite: &str, mirror: &str, include: &[String]) -> Result<Image> {
    let name = &recipe.name;
    let image = Image {
        ext4: paths::images().join(format!("{name}.ext4")),
        tree: paths::images().join(format!("{name}.tree")),
    };
    let init = std::fs::read(paths::root().join("images/init.sh"))?;
    let mut h = DefaultHasher::new();
    (super::FORMAT, text, &init).hash(&mut h);
    let key = format!("{:016x}", h.finish());
    let stamp = paths::images().join(format!("{name}.key"));
    if std::fs::read_to_string(&stamp).is_ok_and(|k| k == key) && image.ext4.exists() {
        eprintln!("xtask: image {name}: {} is up to date", image.ext4.display());
        return Ok(image);
    }
    if !prereq::is_root() {
        bail!("image {name} is made by debootstrap and needs root; `cargo xtask image smoke` does not");
    }
    prereq::ensure(&[prereq::DEBOOTSTRAP])?;
    if image.tree.exists() {
        std::fs::remove_dir_all(&image.tree)?;
    }
    std::fs::create_dir_all(paths::images())?;
    eprintln!("xtask: image {name}: debootstrap {suite} from {mirror}");
    Cmd::new(["debootstrap", "--variant=minbase"])
        .arg(format!("--include={}", include.join(",")))
        .arg(suite)
        .arg(&image.tree)
        .arg(mirror)
        .run()?;
    let _ = std::fs::remove_dir_all(image.tree.join("var/cache/apt/archives"));
    let _ = std::fs::remove_dir_all(image.tree.join("var/lib/apt/lists"));
    for d in ["var/cache/apt/archives/partial", "var/lib/apt/lists/partial"] {
        std::fs::create_dir_all(image.tree.join(d))?;
    }
    let place = image.tree.join("usr/sbin/init");
    let _ = std::fs::remove_file(&place);
    std::fs::write(&place, init)?;
    std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let used = Cmd::new(["du", "-sk"]).arg(&image.tree).read()?;
    let kib: u64 = used.split_whitespace().next().and_then(|w| w.parse().ok()).unwrap_or(500_000);
    ext4::make(&image, name, kib << 10, recipe.free_mib, &mut std::iter::empty())?;
    std::fs::write(&stamp, key)?;
    Ok(image)
}
