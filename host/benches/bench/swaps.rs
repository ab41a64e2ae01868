//! (d) The same HTTP load, quiet and while its plugin is swapped once a second by the operator.

use std::{fs, os::unix::fs::symlink, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::process::Command;

use crate::{
    Arguments,
    http::{Load, Method, Route},
    open_loop, repository,
    server::{Host, Server},
    table::{Goal, Row, Table, milliseconds, thousands},
};

const SERVICE: &str = "location";
const PATH: &str = "/api/v1/location/lookup";
/// Well below what the machine can do, so that the time shown is the server's and not the queue before it.
const RATE: u64 = 1_000;
const SWAP_EVERY: Duration = Duration::from_secs(1);
const GOAL_P99_RATIO: f64 = 2.0;

pub async fn measure(arguments: &Arguments, host: &Host, server: &Server, table: &mut Table) -> Result<()> {
    // The first two are swapped to and fro; each of the others is a new version, deployed and made live.
    let versions = packed_versions(host, 2 + arguments.seconds as usize).await?;
    let route = Route { address: server.public, method: Method::Get, path: PATH };
    let load = || open_loop::requests(route, arguments.connections, RATE, arguments.duration());
    open_loop::requests(route, arguments.connections, RATE, Duration::from_secs(2)).await?;
    let quiet = load().await?;
    refuse_errors("quiet", &quiet)?;
    for version in &versions[..2] {
        deploy(server, version).await?;
    }
    // One fewer than the seconds of the load, so that the last swap lies within it.
    let swaps = (arguments.seconds as usize).saturating_sub(1).max(1);
    let (swapped, ()) = tokio::try_join!(load(), swap_every_second(server, &versions[..2], swaps, Deploy::Before))?;
    add(&format!("swapped once a second ({swaps} times)"), &swapped, &quiet, true, table);
    let (deployed, ()) = tokio::try_join!(load(), swap_every_second(server, &versions[2..], swaps, Deploy::Each))?;
    add(&format!("a new version deployed once a second ({swaps} times)"), &deployed, &quiet, false, table);
    Ok(())
}

fn add(what: &str, load: &Load, quiet: &Load, binding: bool, table: &mut Table) {
    let (p99, quiet_p99) = (load.latency.value_at_quantile(0.99), quiet.latency.value_at_quantile(0.99));
    let ratio = p99 as f64 / quiet_p99 as f64;
    let p99_goal = binding.then_some(GOAL_P99_RATIO);
    table.add(Row {
        part: 'd',
        what: format!("p99 at {}/s, {what}", thousands(RATE as f64)),
        measured: milliseconds(p99),
        against: format!("quiet {}", milliseconds(quiet_p99)),
        ratio: Some(ratio),
        goal: p99_goal.and_then(|goal| Goal::new(format!("≤ {goal:.2}"), ratio <= goal)),
    });
    table.add(Row {
        part: 'd',
        what: format!("failed requests, {what}"),
        measured: match &load.error {
            None => "0".to_owned(),
            Some(first) => format!("{} (the first: {first})", load.errors),
        },
        against: format!("{} sent", thousands((load.answered + load.errors) as f64)),
        ratio: None,
        goal: Goal::new("0", load.errors == 0),
    });
}

fn refuse_errors(name: &str, load: &Load) -> Result<()> {
    match &load.error {
        None => Ok(()),
        Some(error) => bail!("{name}: {} requests failed, the first with {error}", load.errors),
    }
}

struct Version {
    version: String,
    file: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Deploy {
    /// Done already.
    Before,
    /// Right before it goes live, so that compiling it falls into the load as well.
    Each,
}

async fn swap_every_second(server: &Server, versions: &[Version], swaps: usize, when: Deploy) -> Result<()> {
    let mut ticks = tokio::time::interval(SWAP_EVERY);
    ticks.tick().await;
    for version in versions.iter().cycle().take(swaps) {
        ticks.tick().await;
        if when == Deploy::Each {
            deploy(server, version).await?;
        }
        let url = format!("http://{}/admin/v1/plugins/{SERVICE}/active", server.admin);
        let answer = server.client.put(url).bearer_auth(&server.admin_token).json(&json!({"version": version.version})).send().await?;
        let status = answer.status();
        if !status.is_success() {
            bail!("making {} live answers {status}: {}", version.version, answer.text().await?);
        }
    }
    Ok(())
}

async fn deploy(server: &Server, version: &Version) -> Result<()> {
    let url = format!("http://{}/admin/v1/plugins/{SERVICE}/versions", server.admin);
    let bytes = fs::read(&version.file).with_context(|| version.file.display().to_string())?;
    let answer = server.client.post(url).bearer_auth(&server.admin_token).body(bytes).send().await?;
    let status = answer.status();
    if status.as_u16() != 201 {
        bail!("deploying {} answers {status}: {}", version.version, answer.text().await?);
    }
    Ok(())
}

/// The same component under other versions: the manifest's line is changed in a copy of the plugin's folder, beside links to what it refers to.
async fn packed_versions(host: &Host, count: usize) -> Result<Vec<Version>> {
    let root = host.folder().join("repack");
    let plugin = root.join("plugins").join(SERVICE);
    fs::create_dir_all(&plugin)?;
    let repository = repository().canonicalize()?;
    for name in ["wit", "migrations"] {
        if repository.join(name).exists() {
            symlink(repository.join(name), root.join(name))?;
        }
    }
    let manifest = fs::read_to_string(repository.join("plugins").join(SERVICE).join("plugin.toml"))?;
    let current = toml::from_str::<toml::Table>(&manifest)?;
    let current = current.get("version").and_then(|version| version.as_str()).context("plugin.toml without a version")?;
    let (minor, patch) = current.rsplit_once('.').context("plugin.toml's version")?;
    let patch: usize = patch.parse().context("plugin.toml's version")?;
    let mut versions = Vec::new();
    for number in 1..=count {
        let version = format!("{minor}.{}", patch + number);
        let changed = manifest.replacen(&format!("version = \"{current}\""), &format!("version = \"{version}\""), 1);
        fs::write(plugin.join("plugin.toml"), changed)?;
        let file = root.join(format!("{version}.wasm"));
        let mut command = Command::new(&host.binary);
        command
            .args(["plugin", "pack"])
            .arg(&plugin)
            .arg("--component")
            .arg(host.components.join(format!("{SERVICE}.wasm")))
            .arg("-o")
            .arg(&file);
        let output = command.output().await.with_context(|| host.binary.display().to_string())?;
        if !output.status.success() {
            bail!("echod plugin pack: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        versions.push(Version { version, file });
    }
    Ok(versions)
}
