//! Paths: the sources, the target folder, the components to build. Asks `cargo metadata`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::step;

pub struct Workspace {
    pub root: PathBuf,
    /// Cargo's target folder (honours `CARGO_TARGET_DIR`).
    pub target: PathBuf,
    /// The services, by name.
    pub plugins: Vec<Component>,
    /// Components that only tests load, by name.
    pub guests: Vec<Component>,
    /// The oldest compiler that the sources accept, as (major, minor).
    pub rust_version: (u32, u32),
}

/// A package with a `plugin.toml` beside its `Cargo.toml`.
#[derive(Clone, Debug)]
pub struct Component {
    /// The folder's name, and that of the packed file.
    pub name: String,
    pub folder: PathBuf,
    /// The cargo package.
    pub package: String,
    /// File name of the component that the compiler leaves.
    pub artifact: String,
}

impl Workspace {
    pub fn find() -> Result<Self> {
        let mut command = cargo();
        command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(manifest()?);
        let metadata: Value = serde_json::from_str(&step::output(&mut command)?).context("cargo metadata's answer")?;
        let root = PathBuf::from(metadata["workspace_root"].as_str().context("cargo metadata names no workspace_root")?);
        let target = PathBuf::from(metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?);
        let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
        let rust_version = packages.iter().find_map(|package| package["rust_version"].as_str());
        let rust_version = rust_version.and_then(parse_version).context("the workspace names no rust-version")?;
        let plugins = components(packages, &root.join("plugins"))?;
        let guests = components(packages, &root.join("host/tests/guests"))?;
        Ok(Self { root, target, plugins, guests, rust_version })
    }

    /// A cargo that works here.
    pub fn cargo(&self) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root);
        command
    }

    /// Another program, run where the sources are.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// Where the packed services are.
    pub fn packed_plugins(&self) -> PathBuf {
        self.target.join("plugins")
    }

    /// Where the packed components of the tests are.
    pub fn packed_guests(&self) -> PathBuf {
        self.target.join("guests")
    }

    /// The host, built with the dev profile.
    pub fn echod(&self) -> PathBuf {
        self.target.join("debug/echod")
    }

    /// The host as operators get it.
    pub fn released_echod(&self) -> PathBuf {
        self.target.join("release/echod")
    }
}

/// The cargo that started us, so that a `+toolchain` reaches every step, without what it says of the package xtask: build scripts read it (ring's does), and
/// what depends on them would be built again whenever cargo is started the other way.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_package)) {
        command.env_remove(name);
    }
    command
}

/// `rustc 1.96.0 (…)` or `1.96` as (1, 96).
pub fn parse_version(text: &str) -> Option<(u32, u32)> {
    let digits = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut parts = digits.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

fn manifest() -> Result<PathBuf> {
    // `cargo run` says where the xtask package is; a copied binary looks upward from where it stands.
    let starts = [env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from), env::current_dir().ok()];
    let found = starts.iter().flatten().flat_map(|start| start.ancestors()).find(|folder| folder.join("wit/services.wit").is_file());
    found.map(|folder| folder.join("Cargo.toml")).ok_or_else(|| anyhow!("run this inside Echo's sources"))
}

fn components(packages: &[Value], parent: &Path) -> Result<Vec<Component>> {
    let mut found = Vec::new();
    for package in packages {
        let folder = package["manifest_path"].as_str().and_then(|path| Path::new(path).parent()).context("a package without a path")?;
        if folder.parent() != Some(parent) || !folder.join("plugin.toml").is_file() {
            continue;
        }
        let name = folder.file_name().and_then(|name| name.to_str()).context("a folder whose name is no UTF-8")?;
        let library = package["targets"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|target| target["crate_types"].as_array().is_some_and(|types| types.iter().any(|kind| kind == "cdylib")));
        let Some(library) = library.and_then(|target| target["name"].as_str()) else {
            bail!("{}: a component needs `[lib] crate-type = [\"cdylib\"]`", folder.join("Cargo.toml").display());
        };
        found.push(Component {
            name: name.to_owned(),
            folder: folder.to_owned(),
            package: package["name"].as_str().context("a package without a name")?.to_owned(),
            artifact: format!("{}.wasm", library.replace('-', "_")),
        });
    }
    // A component that nobody builds must not go unnoticed.
    for folder in fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if folder.join("plugin.toml").is_file() && !found.iter().any(|component: &Component| component.folder == folder) {
            bail!("{} is not among the workspace's members (Cargo.toml)", folder.display());
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("rustc 1.96.0 (ac68faa20 2026-05-25)"), Some((1, 96)));
        assert_eq!(parse_version("1.95"), Some((1, 95)));
        assert_eq!(parse_version("nightly"), None);
    }
}
