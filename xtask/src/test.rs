//! `cargo xtask test`: everything that must hold, stage by stage, with the time of each and a summary.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use echo_engines::oidc;

use crate::{
    engines, flake,
    plugins::Plugins,
    step::{self, LeftOut, say},
    web,
    workspace::Workspace,
};

/// Run everything that must hold: formatting, lints, unit, contract and end-to-end tests, the components' bytes, the web client's files, the Nix flake.
///
/// The contract suites of all backends, embedded and production, are in the stage `tests`, with the services' store tests and the end-to-end tests on the
/// embedded ones; the stage `postgres` runs these two again on PostgreSQL, and some end-to-end tests there on two hosts.
///
/// A failed stage does not stop those that do not depend on it; the summary names every failed stage, and the command fails.
/// One test alone: `cargo test -p echod NAME` (after `cargo xtask plugins --guests`, where it needs the services).
#[derive(Args)]
pub struct Test {
    /// Leave out the slow stages that seldom fail: lints, the second build that compares bytes, the web client, the flake.
    #[arg(long)]
    fast: bool,
}

struct Stage {
    name: &'static str,
    /// The stage that this one depends on.
    needs: Option<&'static str>,
    slow: bool,
    run: fn(&Workspace) -> Result<()>,
}

const STAGES: [Stage; 9] = [
    Stage { name: "formatting", needs: None, slow: false, run: formatting },
    Stage { name: "build", needs: None, slow: false, run: build },
    Stage { name: "plugins", needs: Some("build"), slow: false, run: plugins },
    Stage { name: "tests", needs: Some("plugins"), slow: false, run: tests },
    Stage { name: "postgres", needs: Some("plugins"), slow: false, run: on_postgres },
    Stage { name: "lints", needs: None, slow: true, run: lints },
    Stage { name: "bytes", needs: Some("plugins"), slow: true, run: bytes },
    Stage { name: "web", needs: Some("plugins"), slow: true, run: web::check },
    Stage { name: "flake", needs: None, slow: true, run: flake::check },
];

fn formatting(workspace: &Workspace) -> Result<()> {
    step::run(workspace.cargo().args(["fmt", "--all", "--check"]))
}

/// All targets, so that the tests' build has nothing left to do and every dependency is built once.
fn build(workspace: &Workspace) -> Result<()> {
    step::run(workspace.cargo().args(["build", "--locked", "--workspace", "--all-targets"]))
}

fn plugins(workspace: &Workspace) -> Result<()> {
    Plugins::with_guests().run(workspace)
}

fn tests(workspace: &Workspace) -> Result<()> {
    engines::install()?;
    let mut command = workspace.cargo();
    command.args(["test", "--locked", "--workspace", "--no-fail-fast", "--"]);
    step::run(without_node(&mut command)?)
}

/// The tests against a provider that runs on Node; where there is none they are left out, as the web client's are.
fn without_node(command: &mut Command) -> Result<&mut Command> {
    if oidc::is_possible() {
        oidc::installed()?;
        return Ok(command);
    }
    say("not here: identity_provider:: (no Node)");
    Ok(command.args(["--skip", "identity_provider::"]))
}

/// Run on two hosts on PostgreSQL, Redis and NATS, each request at another one, instead of on one host on PostgreSQL: in these, people do all that people do
/// to each other. The others are about one host (a protocol, a start, a component that misbehaves, a file), where a second one would cost time and show nothing.
const ON_TWO_HOSTS: [&str; 1] = ["story::"];

/// Services' store tests and the end-to-end tests, which `tests` has run on SQLite. Servers are started by the tests.
fn on_postgres(workspace: &Workspace) -> Result<()> {
    engines::install()?;
    // Of the whole workspace, whatever is run: a build of some packages would have other features, and build everything again.
    let mut stores = workspace.cargo();
    stores.args(["test", "--locked", "--workspace", "--no-fail-fast", "--lib", "--", "store::"]).env("ECHO_TEST_SQL", "postgres");
    let outcome = step::run(&mut stores);
    let end_to_end = || {
        let mut command = workspace.cargo();
        command.args(["test", "--locked", "--workspace", "--test", "e2e", "--"]).env("ECHO_TEST_SQL", "postgres");
        command
    };
    let rules = workspace.root.join("host/tests/e2e/only.txt");
    let rules = fs::read_to_string(&rules).with_context(|| rules.display().to_string())?;
    let mut one_host = end_to_end();
    for (test, reason) in only(&rules, &["embedded"]) {
        say(format_args!("not here: {test} ({reason})"));
        one_host.args(["--skip", test]);
    }
    for test in ON_TWO_HOSTS {
        one_host.args(["--skip", test]);
    }
    let outcome = step::run(without_node(&mut one_host)?).and(outcome);
    let mut two_hosts = end_to_end();
    two_hosts.args(ON_TWO_HOSTS).env("ECHO_TEST_HOSTS", "2");
    for (test, reason) in only(&rules, &["embedded", "postgres"]) {
        if ON_TWO_HOSTS.iter().any(|module| test.starts_with(module)) {
            say(format_args!("not on two hosts: {test} ({reason})"));
            two_hosts.args(["--skip", test]);
        }
    }
    step::run(&mut two_hosts).and(outcome)
}

/// The tests that run on no more than one of these, with the reasons, as `host/tests/e2e/backing.rs` explains them.
fn only<'a>(rules: &'a str, most: &[&str]) -> Vec<(&'a str, &'a str)> {
    let lines = rules.lines().filter(|line| !line.starts_with('#'));
    let rules = lines.filter_map(|line| {
        let mut words = line.splitn(3, ' ');
        Some((words.next()?, words.next()?, words.next()?))
    });
    rules.filter(|(_, rule, _)| most.contains(rule)).map(|(test, _, reason)| (test, reason)).collect()
}

fn lints(workspace: &Workspace) -> Result<()> {
    step::run(workspace.cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn bytes(workspace: &Workspace) -> Result<()> {
    Plugins::checked().run(workspace)
}

#[derive(Debug)]
enum Outcome {
    Passed,
    Failed(String),
    NotRun(String),
    /// Not possible on this machine: no failure.
    LeftOut(String),
}

impl Test {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        let stages: Vec<&Stage> = STAGES.iter().filter(|stage| !(self.fast && stage.slow)).collect();
        let mut results: Vec<(&Stage, Outcome, Duration)> = Vec::new();
        for (index, stage) in stages.iter().enumerate() {
            say(format_args!("[{}/{}] {}", index + 1, stages.len(), stage.name));
            let begin = Instant::now();
            let held_up = stage.needs.filter(|needed| !passed(&results, needed));
            let outcome = match held_up {
                Some(needed) => Outcome::NotRun(format!("it needs {needed}")),
                None => match (stage.run)(workspace) {
                    Ok(()) => Outcome::Passed,
                    Err(error) if error.is::<LeftOut>() => Outcome::LeftOut(error.to_string()),
                    Err(error) => Outcome::Failed(format!("{error:#}")),
                },
            };
            say(line(stage.name, &outcome, begin.elapsed()));
            results.push((stage, outcome, begin.elapsed()));
        }
        say("summary");
        for (stage, outcome, taken) in &results {
            eprintln!("    {}", line(stage.name, outcome, *taken));
        }
        let total = results.iter().map(|(_, _, taken)| *taken).sum();
        let bad = results.iter().filter(|(_, outcome, _)| !matches!(outcome, Outcome::Passed | Outcome::LeftOut(_)));
        let bad: Vec<_> = bad.map(|(stage, ..)| stage.name).collect();
        if !bad.is_empty() {
            bail!("not passed: {} (of {} stages, {})", bad.join(", "), results.len(), step::duration(total));
        }
        let left_out = results.iter().filter(|(_, outcome, _)| matches!(outcome, Outcome::LeftOut(_))).count();
        match left_out {
            0 => say(format_args!("all {} stages passed in {}", results.len(), step::duration(total))),
            _ => say(format_args!("{} stages passed in {}, left out: {left_out}", results.len() - left_out, step::duration(total))),
        }
        Ok(())
    }
}

fn passed(results: &[(&Stage, Outcome, Duration)], name: &str) -> bool {
    results.iter().any(|(stage, outcome, _)| stage.name == name && matches!(outcome, Outcome::Passed))
}

fn line(name: &str, outcome: &Outcome, taken: Duration) -> String {
    let taken = step::duration(taken);
    match outcome {
        Outcome::Passed => format!("{name:<12} passed   {taken:>12}"),
        Outcome::Failed(reason) => format!("{name:<12} FAILED   {taken:>12}   {reason}"),
        Outcome::NotRun(reason) => format!("{name:<12} not run                 {reason}"),
        Outcome::LeftOut(reason) => format!("{name:<12} left out {taken:>12}   {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_stands_after_what_it_needs() {
        for (index, stage) in STAGES.iter().enumerate() {
            if let Some(needed) = stage.needs {
                let before = STAGES[..index].iter().find(|other| other.name == needed).expect("named and earlier");
                assert!(!before.slow || stage.slow, "--fast would leave {} without {needed}", stage.name);
            }
        }
    }

    #[test]
    fn rules_name_tests_and_reasons() {
        let rules = "# What this is\nbackup:: embedded it copies files\nmedia::one postgres blobs are one host's\n";
        assert_eq!(only(rules, &["embedded"]), [("backup::", "it copies files")]);
        assert_eq!(only(rules, &["embedded", "postgres"]).len(), 2);
    }

    #[test]
    fn only_a_pass_counts_as_one() {
        let results = [
            (&STAGES[0], Outcome::Passed, Duration::ZERO),
            (&STAGES[1], Outcome::Failed("why".to_owned()), Duration::ZERO),
            (&STAGES[2], Outcome::NotRun("why".to_owned()), Duration::ZERO),
            (&STAGES[3], Outcome::LeftOut("why".to_owned()), Duration::ZERO),
        ];
        let passing = ["formatting", "build", "plugins", "tests", "lints"].map(|name| passed(&results, name));
        assert_eq!(passing, [true, false, false, false, false]);
    }
}
