//! `cargo xtask web`: the web client and the operators' console, from `host/web` to the files that the host has in it (`host/web/dist` and
//! `host/web/console/dist`). These are committed, so only whoever changes them needs Node.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    step::{self, LeftOut, say},
    workspace::{Workspace, parse_version},
};

/// The oldest Node that Vite runs on.
const NODE_MIN: (u32, u32) = (20, 19);
const CHROMIUMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// What is built: its name, npm's script for it, and where it goes below `host/web`.
const PAGES: [(&str, &str, &str); 2] = [("web client", "build", "dist"), ("console", "build:console", "console/dist")];

/// Build the web client and the console into host/web/dist and host/web/console/dist, from the versions in its lock file. Needs Node 20.19 or later; the host's build does not.
#[derive(Args, Default)]
pub struct Web {
    /// Build beside it and compare: fails where what is committed is not what the sources make.
    #[arg(long)]
    check: bool,
    /// Check the types, then test the client library and the client against a host, in Chromium (needs `cargo build` and `cargo xtask plugins --guests`).
    #[arg(long)]
    test: bool,
    /// Take the pictures of the README anew, from a running host in Chromium, into host/docs/pictures (needs what --test needs).
    #[arg(long)]
    pictures: bool,
}

impl Web {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        let web = Sources::of(workspace)?;
        web.install()?;
        if !(self.check || self.test || self.pictures) {
            return PAGES.iter().try_for_each(|page| web.build(page, &web.folder.join(page.2)));
        }
        if self.check {
            web.compare(&workspace.target.join("web"))?;
        }
        if self.test {
            web.test(workspace, "test")?;
        }
        if self.pictures { web.test(workspace, "pictures") } else { Ok(()) }
    }
}

/// The stage of `cargo xtask test`: what is committed is what the sources make, and, where there is a Chromium, two people get along with it. Left out
/// where there is no Node. `cargo xtask web --test` tests all of it.
pub fn check(workspace: &Workspace) -> Result<()> {
    let web = Sources::of(workspace)?;
    web.install()?;
    web.compare(&workspace.target.join("web"))?;
    if chromium().is_none() {
        say("no Chromium: the web client is not driven");
        return Ok(());
    }
    web.test(workspace, "test:story")
}

struct Sources {
    folder: PathBuf,
}

impl Sources {
    fn of(workspace: &Workspace) -> Result<Self> {
        let version = Command::new("node").arg("--version").output().ok().and_then(|output| String::from_utf8(output.stdout).ok());
        match version.as_deref().map(|text| (text, parse_version(text.trim_start_matches('v')))) {
            Some((_, Some(version))) if version >= NODE_MIN => Ok(Self { folder: workspace.root.join("host/web") }),
            Some((text, _)) => {
                Err(LeftOut(format!("Node {}.{} or later is needed, here is {}", NODE_MIN.0, NODE_MIN.1, text.trim())).into())
            }
            None => Err(LeftOut(format!("no Node: install version {}.{} or later", NODE_MIN.0, NODE_MIN.1)).into()),
        }
    }

    fn npm(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("npm");
        command.args(arguments).current_dir(&self.folder);
        command
    }

    /// Exactly what the lock file names; at once where that was done already.
    fn install(&self) -> Result<()> {
        let (wanted, done) = (self.folder.join("package-lock.json"), self.folder.join("node_modules/.package-lock.json"));
        let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
        if time(&done).is_some_and(|done| time(&wanted).is_some_and(|wanted| done >= wanted)) {
            return Ok(());
        }
        step::run(&mut self.npm(&["ci", "--ignore-scripts", "--no-audit", "--no-fund"]))
    }

    fn build(&self, (name, script, _): &(&str, &str, &str), into: &Path) -> Result<()> {
        say(format_args!("{name} into {}", into.display()));
        let out = into.to_str().context("a path that is no UTF-8")?;
        step::run(&mut self.npm(&["run", "--silent", script, "--", "--logLevel", "warn", "--emptyOutDir", "--outDir", out]))
    }

    /// Builds each into a folder of its own below `beside`.
    fn compare(&self, beside: &Path) -> Result<()> {
        for page in &PAGES {
            let (name, folder) = (page.0, page.2);
            let built_in = beside.join(folder.replace('/', "-"));
            self.build(page, &built_in)?;
            let (committed, built) = (files(&self.folder.join(folder))?, files(&built_in)?);
            let different: Vec<_> = committed.keys().chain(built.keys()).filter(|name| committed.get(*name) != built.get(*name)).collect();
            if !different.is_empty() {
                bail!(
                    "host/web/{folder} is not what the sources of the {name} make ({different:?} differ): run `cargo xtask web` and commit it"
                )
            }
        }
        Ok(())
    }

    fn test(&self, workspace: &Workspace, script: &str) -> Result<()> {
        let mut command = self.npm(&["run", "--silent", script]);
        command.env("ECHO_HOST", workspace.echod()).env("ECHO_PLUGINS", workspace.packed_plugins());
        if let Some(chromium) = chromium() {
            command.env("CHROMIUM", chromium);
        }
        step::run(&mut command)
    }
}

/// A Chromium of this machine.
fn chromium() -> Option<PathBuf> {
    if let Some(named) = env::var_os("CHROMIUM") {
        return Some(named.into());
    }
    let folders: Vec<_> = env::split_paths(&env::var_os("PATH")?).collect();
    CHROMIUMS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
}

fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a name that is no UTF-8")?.to_owned();
        found.insert(name, fs::read(&path).with_context(|| path.display().to_string())?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_compared_by_names_and_bytes() {
        let folder = env::temp_dir().join(format!("echo-web-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("a.js"), "1").unwrap();
        let found = files(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, BTreeMap::from([("a.js".to_owned(), b"1".to_vec())]));
    }
}
