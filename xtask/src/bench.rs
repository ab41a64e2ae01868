//! `cargo xtask bench`: the figures.

use anyhow::Result;
use clap::Args;

use crate::workspace::Workspace;

/// Run everything that must hold.
#[derive(Args)]
pub struct Bench {
    #[arg(long)]
    fast: bool,
}

impl Bench {
    pub fn run(&self, _workspace: &Workspace) -> Result<()> {
        anyhow::bail!("not written yet")
    }
}
