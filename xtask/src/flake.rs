//! The Nix flake: formatted, linted, consistent with its lock file, and evaluated, where Nix is available. Builds nothing with it;
//! `host/docs/REPRODUCE.md` says what that leaves unchecked.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    plugins::copy_sources,
    setup::apt_install,
    step::{self, LeftOut, say},
    workspace::{Workspace, parse_version},
};

/// Small stand-ins for the flake's inputs, for machines without network, where a checkout has them beside it.
const STAND_INS: &str = "../shared/nix/check-flake.sh";
/// nixpkgs refuses an older Nix; the stand-ins do not.
const NIX_FOR_NIXPKGS: (u32, u32) = (2, 18);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);

/// Mistakes that the evaluation has to find: file, what stands there, what is put in its place.
const FAULTS: [(&str, &str, &str); 5] = [
    ("nix/shell.nix", "pkgs.wasm-tools", "pkgs.wasm-tolls"),
    ("nix/packages.nix", "../migrations", "../migration"),
    ("nix/toolchain.toml", "wasm32-unknown-unknown", "wasm32-wasip2"),
    ("nix/vm-test.nix", "openFirewall", "openFirewal"),
    ("nix/nixos-module.nix", "MemoryDenyWriteExecute = false", "MemoryDenyWriteExecute = true"),
];

/// Check the Nix flake: format, lints, lock file, evaluation. Builds nothing with it; `test` does the same.
#[derive(Args)]
pub struct Flake;

impl Flake {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        check(workspace)
    }
}

pub fn check(workspace: &Workspace) -> Result<()> {
    match (lint(workspace), evaluate(workspace)) {
        // What fails is told before what is left out.
        (Err(reason), evaluated) if evaluated.is_ok() || !reason.is::<LeftOut>() => Err(reason),
        (_, evaluated) => evaluated,
    }
}

fn lint(workspace: &Workspace) -> Result<()> {
    let files = nix_files(&workspace.root)?;
    let nixfmt = tool(workspace, "nixfmt", "nixfmt_rs@0.5.3")?;
    step::run(workspace.command(&nixfmt).arg("--check").args(&files))?;
    let deadnix = tool(workspace, "deadnix", "deadnix@1.3.1")?;
    step::run(workspace.command(&deadnix).arg("--fail").args(&files))
}

fn evaluate(workspace: &Workspace) -> Result<()> {
    let nix = Nix::find(workspace)?;
    nix.check_lock(&workspace.root)?;
    let stand_ins = workspace.root.join(STAND_INS);
    if stand_ins.is_file() { evaluate_on_stand_ins(workspace, &stand_ins) } else { nix.evaluate(workspace) }
}

/// On a copy, whose index names new files too, and which can be spoilt.
fn evaluate_on_stand_ins(workspace: &Workspace, check: &Path) -> Result<()> {
    let copy = workspace.target.join("flake/sources");
    if copy.exists() {
        fs::remove_dir_all(&copy).with_context(|| copy.display().to_string())?;
    }
    copy_sources(&workspace.root, &copy)?;
    for arguments in [&["init", "--quiet"][..], &["add", "--all"]] {
        step::run(Command::new("git").current_dir(&copy).args(arguments))?;
    }
    let evaluate = || {
        let mut command = Command::new("sh");
        command.arg(check).arg(".").current_dir(&copy);
        command
    };
    step::run(&mut evaluate())?;
    for (file, good, bad) in FAULTS {
        let path = copy.join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if !text.contains(good) {
            bail!("{file} has no {good:?} to replace: FAULTS of xtask/src/flake.rs is to follow it");
        }
        fs::write(&path, text.replace(good, bad))?;
        // A look at the output would tell which of both has failed; that none has is what matters.
        if evaluate().output().context("sh")?.status.success() {
            bail!("the evaluation does not find that {file} says {bad:?}");
        }
        fs::write(&path, text)?;
    }
    say(format_args!("flake: evaluates on stand-ins for its inputs, and {} planted faults are found", FAULTS.len()));
    Ok(())
}

/// From the root.
fn nix_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![PathBuf::from("flake.nix")];
    for entry in fs::read_dir(root.join("nix"))? {
        let file = Path::new("nix").join(entry?.file_name());
        if file.extension().is_some_and(|extension| extension == "nix") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// A program, on the PATH or installed into the target folder. Errors: `LeftOut`, where it cannot be installed.
fn tool(workspace: &Workspace, program: &str, crate_and_version: &str) -> Result<PathBuf> {
    if on_path(program) {
        return Ok(program.into());
    }
    let tools = workspace.target.join("tools");
    let installed = tools.join("bin").join(program);
    if !installed.is_file() {
        say(format_args!("flake: cargo install {crate_and_version}"));
        let mut install = workspace.cargo();
        // Unoptimised: built in half the time, and it looks at a few small files.
        install.args(["install", "--quiet", "--locked", "--debug", crate_and_version, "--root"]).arg(&tools);
        install.arg("--target-dir").arg(tools.join("build"));
        step::run_within(DOWNLOAD_LIMIT, &mut install).map_err(LeftOut)?;
    }
    Ok(installed)
}

fn on_path(program: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(program).is_file())
}

/// A Nix with a store of its own below the target folder: nothing outside is written, and no daemon is wanted.
struct Nix {
    folder: PathBuf,
    version: (u32, u32),
}

impl Nix {
    fn find(workspace: &Workspace) -> Result<Self> {
        if !on_path("nix") {
            apt_install("flake", &["nix-bin"]).map_err(|reason| LeftOut(format!("there is no Nix: {reason:#}")))?;
        }
        let version = step::output(Command::new("nix").arg("--version"))?;
        // The last word: some have a name with digits before it.
        let version = version.rsplit(' ').next().and_then(parse_version).with_context(|| format!("no version is in {version:?}"))?;
        let folder = workspace.target.join("flake");
        fs::create_dir_all(folder.join("home"))?;
        Ok(Self { folder, version })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nix");
        command.args(["--extra-experimental-features", "nix-command flakes"]).args(arguments);
        command.env("NIX_REMOTE", self.folder.join("nix")).env("HOME", self.folder.join("home"));
        command
    }

    /// The lock names the inputs of flake.nix and no others. Needs no network: only what is not locked would be asked for.
    fn check_lock(&self, root: &Path) -> Result<()> {
        let both = self.folder.join("lock");
        fs::create_dir_all(&both)?;
        for file in ["flake.nix", "flake.lock"] {
            fs::copy(root.join(file), both.join(file)).with_context(|| file.to_owned())?;
        }
        let flake = format!("path:{}", both.display());
        step::output(&mut self.command(&["flake", "metadata", "--no-update-lock-file", &flake])).context("flake.lock")?;
        Ok(())
    }

    /// On the inputs themselves.
    fn evaluate(&self, workspace: &Workspace) -> Result<()> {
        let (major, minor) = self.version;
        if self.version < NIX_FOR_NIXPKGS {
            bail!(LeftOut(format!("evaluation: Nix {major}.{minor} is too old for nixpkgs, and there are no stand-ins")));
        }
        let mut download = self.command(&["flake", "archive"]);
        step::run_within(DOWNLOAD_LIMIT, download.current_dir(&workspace.root)).map_err(LeftOut)?;
        step::run(self.command(&["flake", "check", "--no-build", "--all-systems"]).current_dir(&workspace.root))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_is_the_workspaces() {
        let workspace = Workspace::find().unwrap();
        let toolchain = fs::read_to_string(workspace.root.join("nix/toolchain.toml")).unwrap();
        let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap();
        assert_eq!(parse_version(channel.trim_matches('"')), Some(workspace.rust_version));
    }
}
