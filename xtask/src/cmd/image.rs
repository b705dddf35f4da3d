//! `xtask image [RECIPE]`: makes a root file system image.

use crate::image;
use anyhow::Result;

/// Options of `image`.
#[derive(clap::Args)]
pub struct Args {
    /// A recipe of images/: smoke (the host's own programs, no root, no network) or bookworm (debootstrap)
    #[arg(default_value = "smoke")]
    recipe: String,
}

/// Makes the image and prints its path.
pub fn run(args: &Args) -> Result<()> {
    let image = image::make(&args.recipe)?;
    println!("{}", image.ext4.display());
    Ok(())
}
