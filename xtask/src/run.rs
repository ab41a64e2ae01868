//! `cargo xtask run`: from a fresh clone to a running host.

use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

use anyhow::Result;
use clap::Args;

use crate::{
    engines::{End, Running},
    plugins::Plugins,
    step::say,
    workspace::Workspace,
};

/// Build everything and run Echo on this machine (echod dev): SQLite files in ./data, a swap whenever a plugin's source changes.
///
/// It prints the addresses when it serves. Everything after `--` goes to `echod dev`, for example
/// `cargo xtask run -- --listen 127.0.0.1:9000 --data /tmp/echo`.
#[derive(Args)]
pub struct Run {
    /// Run hosts on PostgreSQL, Redis and NATS servers of their own instead (as `cargo xtask engines up --hosts` does), without data that stays.
    #[arg(long, conflicts_with = "arguments")]
    production: bool,
    /// How many hosts, with --production.
    #[arg(long, default_value_t = 1, requires = "production", value_parser = clap::value_parser!(u8).range(1..=9))]
    hosts: u8,
    /// Arguments for `echod dev`.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

impl Run {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        if self.production {
            let end = End::watch()?;
            Plugins::all().run(workspace)?;
            let running = Running::start(workspace, None, self.hosts.into())?;
            running.announce();
            say("Ctrl-C ends it");
            end.wait();
            return Ok(());
        }
        Plugins::all().run(workspace)?;
        let mut command = Command::new(workspace.echod());
        command.arg("dev");
        if !self.arguments.iter().any(|argument| argument.to_string_lossy().starts_with("--plugins")) {
            command.arg("--plugins").arg(workspace.packed_plugins());
        }
        command.args(&self.arguments).current_dir(&workspace.root);
        say("echod dev; Ctrl-C ends it");
        // In our place, so that signals and the exit status are its own.
        Err(command.exec().into())
    }
}
