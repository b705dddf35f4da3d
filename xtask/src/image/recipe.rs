//! What a recipe in images/*.ron may say.

use crate::paths;
use anyhow::{Context, Result};
use serde::Deserialize;

/// One root file system.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the image, also its label.
    pub name: String,
    /// Where its files come from.
    pub source: Source,
    /// Free room in the file system, in MiB.
    pub free_mib: u64,
}

/// Where files come from.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Source {
    /// The host's own programs with the libraries they need.
    Host {
        /// Programs that must be there.
        required: Vec<String>,
        /// Programs that are taken where they are.
        optional: Vec<String>,
        /// Whole directories.
        trees: Vec<Tree>,
        /// Single files, where they exist.
        files: Vec<String>,
    },
    /// debootstrap: root and a network.
    Debootstrap {
        /// For example `bookworm`.
        suite: String,
        /// Where packages come from.
        mirror: String,
        /// Packages beside minbase.
        include: Vec<String>,
    },
}

/// A directory that is copied whole.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// Absolute path; `{python3}` is the name that /usr/bin/python3 points to.
    pub from: String,
    /// Names of entries that stay behind, at any depth.
    pub skip: Vec<String>,
}

impl Recipe {
    /// Reads images/NAME.ron; the text is returned too, as part of the cache key.
    pub fn load(name: &str) -> Result<(Self, String)> {
        let path = paths::root().join("images").join(format!("{name}.ron"));
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("no recipe {name}: cannot read {}", path.display()))?;
        let recipe = ron::from_str(&text).with_context(|| format!("{} is not a recipe", path.display()))?;
        Ok((recipe, text))
    }
}
