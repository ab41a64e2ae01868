//! `cargo xtask bench`: the figures that Echo promises, each a ratio measured in one run.

use std::{ffi::OsString, fs, process::Command};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    plugins::{self, ECHOD_PACKAGES, Plugins},
    step::{self, say},
    workspace::Workspace,
};

/// Measure what Echo promises and print a table: each line a figure, the goal beside it.
///
/// (a) gateway and plugin against a native handler doing the same JSON work; (b) send to delivered; (c) memory per idle socket;
/// (d) the same load while a plugin is swapped once a second; (e) the same beside a service that misbehaves. It fails when a goal is missed. Nothing else should run meanwhile.
#[derive(Args)]
pub struct Bench {
    /// Seconds per measured point.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Only these parts, e.g. `a,d`.
    #[arg(long)]
    only: Option<String>,
    /// Further arguments of the harness (see `-- --help`).
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

/// Our own crates as in a release; the dependencies are optimised in the dev profile already, and stay as they are.
const OPTIMISED: [(&str, &str); 4] = [
    ("CARGO_PROFILE_DEV_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_DEV_DEBUG_ASSERTIONS", "false"),
    ("CARGO_PROFILE_DEV_OVERFLOW_CHECKS", "false"),
    ("CARGO_PROFILE_DEV_INCREMENTAL", "false"),
];

impl Bench {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        Plugins::with_guests_and_echod().run(workspace)?;
        say("building echod, optimised");
        step::run(workspace.cargo().args(["build", "--locked"]).args(ECHOD_PACKAGES).envs(OPTIMISED))?;
        // A copy, because the next build of the usual kind puts its own file there.
        let echod = workspace.target.join("bench/echod");
        fs::create_dir_all(echod.parent().expect("a file in a folder"))?;
        fs::copy(workspace.echod(), &echod).with_context(|| echod.display().to_string())?;
        say("building the harness");
        step::run(&mut self.harness(workspace, &["--no-run"]))?;
        let mut command = self.harness(workspace, &["--quiet"]);
        command.arg("--").arg("--seconds").arg(self.seconds.to_string());
        if let Some(parts) = &self.only {
            command.arg("--only").arg(parts);
        }
        command.args(&self.arguments);
        command.env("ECHOD", &echod).env("ECHOD_PLUGINS", workspace.packed_plugins()).env("ECHOD_GUESTS", workspace.packed_guests());
        command.env("ECHOD_COMPONENTS", plugins::bare_components(workspace));
        step::run(&mut command)
    }

    fn harness(&self, workspace: &Workspace, arguments: &[&str]) -> Command {
        let mut command = workspace.cargo();
        command.args(["bench", "--locked", "--profile", "dev", "--bench", "bench"]).args(ECHOD_PACKAGES).args(arguments).envs(OPTIMISED);
        command
    }
}
