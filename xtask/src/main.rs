//! `cargo xtask`: what a developer of Echo runs. It starts other programs and prints which; it knows nothing of the host's code.

mod bench;
mod dist;
mod engines;
mod flake;
mod fuzz;
mod plugins;
mod run;
mod sbom;
mod setup;
mod step;
mod test;
mod web;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// What a developer of Echo runs.
///
/// On a fresh machine with Rust and a C compiler two commands are enough:
///
///   cargo xtask run     Echo on this machine, ready to talk to
///   cargo xtask test    all checks, as the continuous integration runs them
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", verbatim_doc_comment, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Setup),
    Plugins(plugins::Plugins),
    Component(plugins::ComponentOf),
    Run(run::Run),
    #[command(hide = true)]
    Open(run::Open),
    Test(test::Test),
    Bench(bench::Bench),
    Engines(engines::Engines),
    Fuzz(fuzz::Fuzz),
    Dist(dist::Dist),
    Flake(flake::Flake),
    Web(web::Web),
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace that anyhow would add: what failed is another program.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match arguments.command {
        Command::Setup(setup) => setup.run(&workspace).map(drop),
        Command::Plugins(plugins) => plugins.run(&workspace),
        Command::Component(component) => component.run(&workspace),
        Command::Run(run) => run.run(&workspace),
        Command::Open(open) => {
            open.run();
            Ok(())
        }
        Command::Test(test) => test.run(&workspace),
        Command::Bench(bench) => bench.run(&workspace),
        Command::Engines(engines) => engines.run(&workspace),
        Command::Fuzz(fuzz) => fuzz.run(&workspace),
        Command::Dist(dist) => dist.run(&workspace),
        Command::Flake(flake) => flake.run(&workspace),
        Command::Web(web) => web.run(&workspace),
    }
}
