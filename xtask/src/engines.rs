//! `cargo xtask engines up`: PostgreSQL, Redis and a NATS cluster for a test or a look, as long as somebody wants them.

use std::{env, fs, os::unix::process::parent_id, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use echo_engines::{nats, nats::Nats, postgres, postgres::Postgres, redis, redis::Redis};
use tokio::signal::unix::{SignalKind, signal};

use crate::{setup::apt_install, step::say};

const NATS_NODES: usize = 3;
const PARENT_POLL: Duration = Duration::from_millis(200);

/// The servers that many hosts share: PostgreSQL, Redis, NATS with JetStream.
#[derive(Args)]
pub struct Engines {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(Up),
}

/// Start PostgreSQL, Redis and a NATS cluster of three on free ports, print one line of JSON when all are ready, and end them on Ctrl-C, on SIGTERM, or
/// when whoever started this is gone.
///
/// {"postgres":"…","redis":"…","nats":["…"],"hosts":[],"pids":{"postgres":[…],"redis":[…],"nats":[…]}}
///
/// What is missing is installed: postgresql and redis-server by apt-get, nats-server by pip into the target folder.
#[derive(Args)]
struct Up {
    /// The folder for their files, which go with them. Default: the one for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Engines {
    pub fn run(&self) -> Result<()> {
        match &self.command {
            Command::Up(up) => up.run(),
        }
    }
}

impl Up {
    fn run(&self) -> Result<()> {
        let watched = Ancestors::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime for signals")?;
        // Before anything is started, so that a signal from now on ends what was.
        let mut signals = runtime.block_on(async {
            let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
            kinds.into_iter().map(signal).collect::<Result<Vec<_>, _>>().context("signals")
        })?;
        install()?;
        let below = self.dir.clone().unwrap_or_else(env::temp_dir);
        fs::create_dir_all(&below).with_context(|| below.display().to_string())?;
        let below = below.canonicalize()?;
        let postgres = Postgres::start(&below)?;
        let redis = Redis::start(&below)?;
        let nats = Nats::start(&below, NATS_NODES)?;
        let ready = serde_json::json!({
            "postgres": postgres.url("postgres"),
            "redis": redis.url(),
            "nats": nats.urls(),
            "hosts": [],
            "pids": { "postgres": [postgres.pid()], "redis": [redis.pid()], "nats": nats.pids() },
        });
        println!("{ready}");
        runtime.block_on(async {
            let [terminate, interrupt, hangup] = signals.as_mut_slice() else { return };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
                () = watched.gone() => {}
            }
        });
        say("ending the engines");
        Ok(())
    }
}

/// Installs what is missing.
pub fn install() -> Result<()> {
    let mut missing = Vec::new();
    if postgres::installed().is_err() {
        missing.push("postgresql");
    }
    if redis::installed().is_err() {
        missing.push("redis-server");
    }
    if !missing.is_empty() {
        apt_install("engines", &missing)?;
    }
    postgres::installed()?;
    redis::installed()?;
    nats::installed()?;
    Ok(())
}

/// Who started this, and who started cargo where that was cargo.
struct Ancestors(Vec<(u32, u32)>);

impl Ancestors {
    fn now() -> Self {
        let own = std::process::id();
        let parent = parent_id();
        let mut pairs = vec![(own, parent)];
        let name = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
        if name.trim() == "cargo" {
            pairs.extend(parent_of(parent).map(|grandparent| (parent, grandparent)));
        }
        Self(pairs)
    }

    async fn gone(&self) {
        while self.0.iter().all(|(process, parent)| parent_of(*process) == Some(*parent)) {
            tokio::time::sleep(PARENT_POLL).await;
        }
    }
}

fn parent_of(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_started_this_is_known() {
        assert_eq!(parent_of(std::process::id()), Some(parent_id()));
        assert_eq!(Ancestors::now().0[0], (std::process::id(), parent_id()));
        assert_eq!(parent_of(u32::MAX), None);
    }
}
