//! `cargo xtask bench`: the figures that Echo promises, each a ratio measured in one run.

use std::{ffi::OsString, process::Command};

use anyhow::Result;
use clap::Args;

use crate::{
    engines,
    plugins::{self, ECHOD, Plugins},
    step::{self, say},
    workspace::Workspace,
};

/// Measure what Echo promises and print a table: each line a figure with its goal.
///
/// (a) gateway and plugin against a native handler doing the same JSON work; (b) send to delivered; (c) memory per idle socket;
/// (d) the same load while a plugin is swapped once a second; (e) the same beside a service that misbehaves, in each way alone and in all at once.
/// It fails when a goal is missed. Nothing else should run meanwhile. Both sides are release builds, which take some minutes.
#[derive(Args)]
pub struct Bench {
    /// Seconds per measured point.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Only these parts, e.g. `a,d`.
    #[arg(long)]
    only: Option<String>,
    /// Instead: 1, 2 and 3 hosts on PostgreSQL, Redis and NATS servers of their own, and the two buses between hosts. Figures without goals.
    #[arg(long, conflicts_with = "only")]
    production: bool,
    /// Further arguments of the harness (see `-- --help`).
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

impl Bench {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        say("building echod and the harness, as a release");
        step::run(workspace.cargo().args(["build", "--locked", "--release"]).args(ECHOD))?;
        step::run(&mut self.harness(workspace, &["--no-run"]))?;
        let echod = workspace.released_echod();
        Plugins::with_guests_packed_with(echod.clone()).run(workspace)?;
        let mut command = self.harness(workspace, &["--quiet"]);
        command.arg("--").arg("--seconds").arg(self.seconds.to_string());
        if self.production {
            engines::install()?;
            command.arg("--production");
        }
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
        command.args(["bench", "--locked", "--workspace", "--bench", "bench"]).args(arguments);
        command
    }
}
