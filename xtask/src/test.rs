//! `cargo xtask test`: everything that must hold, stage by stage.

use anyhow::Result;
use clap::Args;

use crate::workspace::Workspace;

/// Run everything that must hold.
#[derive(Args)]
pub struct Test {
    #[arg(long)]
    fast: bool,
}

impl Test {
    pub fn run(&self, _workspace: &Workspace) -> Result<()> {
        anyhow::bail!("not written yet")
    }
}
