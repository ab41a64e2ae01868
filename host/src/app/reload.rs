//! Reads the settings again while the host runs, and takes over those of routes; the others are used after a restart.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::admin::Reloaded;
use crate::config::Config;
use echo_runtime::Runtime;

/// The settings, and all that is wrong with them by themselves.
type ReadSettings = Box<dyn Fn() -> (Config, Vec<String>) + Send + Sync>;

/// Where the settings come from, and when they are to be read again.
pub struct SettingsSource {
    pub read: ReadSettings,
    /// Notified on SIGHUP.
    pub asked: Arc<Notify>,
}

pub struct Reload {
    read: ReadSettings,
    /// What the host was started with.
    started_with: Arc<Config>,
    runtime: Arc<Runtime>,
}

impl Reload {
    pub fn new(read: ReadSettings, started_with: Arc<Config>, runtime: Arc<Runtime>) -> Arc<Self> {
        Arc::new(Self { read, started_with, runtime })
    }

    /// Errors: all that is wrong, a sentence each; then nothing is changed.
    pub async fn now(self: Arc<Self>) -> Result<Reloaded, Vec<String>> {
        let reading = self.clone();
        let read = tokio::task::spawn_blocking(move || (reading.read)()).await;
        let (config, mut problems) = read.map_err(|error| vec![error.to_string()])?;
        let routes = config.routes();
        if !problems.is_empty() {
            problems.extend(self.runtime.problems_of_routes(routes));
            return Err(problems);
        }
        let (overrides, prefixes) = (routes.overrides.len(), routes.prefixes.len());
        let snapshot = self.runtime.set_routes(routes).await?;
        let after_restart = self.started_with.differences(&config);
        tracing::info!(overrides, prefixes, snapshot, ?after_restart, "the settings of routes are taken over");
        Ok(Reloaded { overrides, prefixes, after_restart })
    }

    /// Each time that it is asked for.
    pub async fn run(self: Arc<Self>, asked: Arc<Notify>) {
        loop {
            asked.notified().await;
            if let Err(problems) = self.clone().now().await {
                for problem in problems {
                    tracing::error!(problem, "the settings were read again and are not taken over: nothing has changed");
                }
            }
        }
    }
}
