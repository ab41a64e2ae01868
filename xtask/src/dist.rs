//! `cargo xtask dist`: the folder that an operator gets. Its files are built as everywhere else; here they are collected, hashed and described.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::Args;
use sha2::{Digest, Sha256};

use crate::{
    plugins::{self, ECHOD, Plugins},
    sbom::{self, Product},
    setup::TARGET,
    step::{self, say},
    workspace::Workspace,
};

/// Build a distribution into target/dist: the host, the services, SHA256SUMS and an SBOM of each.
///
/// `plugins/` has the packed services, `components/` the same as the compiler left them, `sbom/` what each and the host is made of
/// (CycloneDX 1.6). `sha256sum --check SHA256SUMS` verifies a copy; `cargo xtask plugins` on the same sources, with the same compiler, gives
/// the same services.
#[derive(Args)]
pub struct Dist {
    /// Write to this folder instead. Its content is deleted first.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl Dist {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        say("building echod, as a release");
        step::run(workspace.cargo().args(["build", "--locked", "--release"]).args(ECHOD))?;
        let echod = workspace.released_echod();
        Plugins::packed_with(echod.clone()).run(workspace)?;

        let dist = self.output.clone().unwrap_or_else(|| workspace.target.join("dist"));
        if dist.exists() {
            fs::remove_dir_all(&dist).with_context(|| dist.display().to_string())?;
        }
        let gather = |file: &Path, folder: &str, name: &str| {
            fs::create_dir_all(dist.join(folder))?;
            fs::copy(file, dist.join(folder).join(name)).with_context(|| file.display().to_string())
        };
        gather(&echod, "", "echod")?;
        let here = host_triple()?;
        let mut products = vec![Product { package: "echod".to_owned(), target: here, file: echod, component: None }];
        for plugin in &workspace.plugins {
            let name = format!("{}.wasm", plugin.name);
            let packed = workspace.packed_plugins().join(&name);
            let component = plugins::bare_component(workspace, plugin);
            gather(&packed, "plugins", &name)?;
            gather(&component, "components", &name)?;
            products.push(Product { package: plugin.package.clone(), target: TARGET.to_owned(), file: packed, component: Some(component) });
        }
        say("listing what each is made of");
        fs::create_dir_all(dist.join("sbom"))?;
        for product in &products {
            let text = serde_json::to_string_pretty(&sbom::describe(workspace, product)?)?;
            fs::write(dist.join("sbom").join(format!("{}.cdx.json", product.package)), text + "\n")?;
        }
        let sums = sums_of(&dist)?;
        fs::write(dist.join("SHA256SUMS"), &sums)?;
        say(format_args!("{}:\n{}", dist.display(), sums.trim_end()));
        Ok(())
    }
}

/// In hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line for every file below the folder, in the order of their paths, as `sha256sum` writes and checks them.
fn sums_of(folder: &Path) -> Result<String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    files.sort();
    let mut sums = String::new();
    for file in files {
        let inside = file.strip_prefix(folder).expect("found below it");
        writeln!(sums, "{}  {}", sha256(&fs::read(&file)?), inside.display())?;
    }
    Ok(sums)
}

/// Of the compiler in use, such as `x86_64-unknown-linux-gnu`.
pub fn host_triple() -> Result<String> {
    let version = step::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_that_sha256sum_checks() {
        let folder = std::env::temp_dir().join(format!("echo-sums-{}", std::process::id()));
        fs::create_dir_all(folder.join("below")).unwrap();
        fs::write(folder.join("b"), "abc").unwrap();
        fs::write(folder.join("below/a"), "").unwrap();
        let sums = sums_of(&folder);
        fs::remove_dir_all(&folder).unwrap();
        // FIPS 180-4's own examples.
        let expect = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  b\n\
                      e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  below/a\n";
        assert_eq!(sums.unwrap(), expect);
    }
}
