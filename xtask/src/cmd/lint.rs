//! `xtask lint`: format, clippy, documentation, layers and ratchets.

use crate::paths;
use crate::sh::Cmd;
use anyhow::{Result, bail};

/// Options of `lint`.
#[derive(clap::Args)]
pub struct Args {
    /// Write lower ratchet counts down and end
    #[arg(long)]
    lower: bool,
    /// Write the ratchet counts as they are, higher ones too, and end
    #[arg(long)]
    raise: bool,
}

/// Name, words after `cargo`, environment.
type Step = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// The steps, also used by `test`.
pub const STEPS: [Step; 3] = [
    ("format", "fmt --all --check", &[]),
    ("clippy", "clippy --quiet --workspace --all-targets -- -D warnings", &[]),
    ("doc", "doc --quiet --workspace --no-deps --document-private-items", &[("RUSTDOCFLAGS", "-D warnings")]),
];

/// A cargo command in the work tree.
pub fn cargo(words: &str, env: &[(&str, &str)]) -> Cmd {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let cmd = Cmd::new([cargo]).args(words.split_whitespace()).dir(&paths::root());
    env.iter().fold(cmd, |c, (k, v)| c.env(k, v))
}

/// Runs all steps; fails at the end if one did.
pub fn run(args: &Args) -> Result<()> {
    if args.lower || args.raise {
        return tests::ratchet::update(args.raise).map_err(anyhow::Error::msg);
    }
    let mut failed = Vec::new();
    for (name, words, env) in STEPS {
        eprintln!("lint: {name}");
        if !cargo(words, env).status()? {
            failed.push(name);
        }
    }
    eprintln!("lint: layers and ratchets");
    if !cargo("test --quiet -p tests --test layers --test ratchet", &[]).status()? {
        failed.push("layers and ratchets");
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    eprintln!("lint: clean");
    Ok(())
}
