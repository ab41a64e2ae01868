//! This host among those of its database: what it says of itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::stores::Stores;
use crate::config::Config;
use echo_base::limits;
use echo_capabilities::nodes::postgres::PostgresNodes;
use echo_capabilities::nodes::single::SingleNode;
use echo_capabilities::nodes::{Difference, Engines, NodeIdentity, NodeReport, NodeState, Nodes, NodesError};
use echo_hub::Registry;
use echo_runtime::Runtime;

/// `listens`: where clients reach this host, unless the settings say otherwise.
pub(super) async fn open(config: &Config, stores: &Stores, listens: &str) -> anyhow::Result<Arc<dyn Nodes>> {
    let advertise = if config.node.advertise.is_empty() { listens } else { &config.node.advertise };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let identity = NodeIdentity { name: config.node_name()?, advertise: advertise.to_owned(), version, engines: engines(config) };
    Ok(match stores {
        Stores::Embedded { .. } => Arc::new(SingleNode::new(identity)),
        Stores::Postgres { sql, .. } => {
            let folder: &Path = &config.data.dir;
            let nodes = PostgresNodes::open(sql, identity, folder).await.context("this host among the others")?;
            if let Err(reason) = fits(&nodes, config).await {
                nodes.leave().await.context("the hosts of this database")?;
                return Err(reason);
            }
            Arc::new(nodes)
        }
    })
}

/// What keeps this host from serving beside others of its database.
fn alone_because(config: &Config) -> Option<&'static str> {
    if config.events.url.text().is_none() {
        // Each host has a queue of its own, and events that one has taken are nobody's while it is away.
        Some("several hosts need events.url in the settings of each, the NATS that carries their events and is the bus between them")
    } else if config.blob.url.is_empty() {
        Some("several hosts need blob.url in the settings of each, so that a file that came to one of them can be read at all")
    } else {
        None
    }
}

/// What all hosts of a database have to have in common, they have.
async fn fits(nodes: &PostgresNodes, config: &Config) -> anyhow::Result<()> {
    let others = nodes.list().await.context("the hosts of this database")?;
    for other in others.iter().filter(|node| node.name != nodes.name() && node.state != NodeState::Away) {
        if let Some(reason) = alone_because(config) {
            anyhow::bail!("host {} runs on this database: {reason}", other.name);
        }
        // A host of an earlier version says nothing of it.
        if other.engines == Engines::default() {
            continue;
        }
        for difference in engines(config).differences_from(&other.name, &other.engines) {
            match difference {
                Difference::Wrong(reason) => anyhow::bail!(reason),
                Difference::Doubtful(reason) => tracing::warn!(reason, "this host and another one may be connected to different servers"),
            }
        }
    }
    Ok(())
}

fn engines(config: &Config) -> Engines {
    let (events, cache) = (config.events.url.text().unwrap_or_default(), config.cache.url.text().unwrap_or_default());
    Engines {
        events: Engines::places(events),
        events_prefix: config.events.prefix.clone(),
        cache: Engines::places(cache),
        cache_prefix: config.cache.prefix.clone(),
    }
}

/// Says what this host is and runs, every `NODE_BEAT_MS` and after each change of its state or of a version.
pub(super) struct Heartbeat {
    nodes: Arc<dyn Nodes>,
    state: Arc<Mutex<NodeState>>,
    changed: Arc<Notify>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Heartbeat {
    /// `shutdown` is cancelled where another host has taken this one's name.
    pub(super) fn start(nodes: Arc<dyn Nodes>, runtime: Arc<Runtime>, registry: Arc<Registry>, shutdown: CancellationToken) -> Self {
        let (state, changed, stop) = (Arc::new(Mutex::new(NodeState::Starting)), Arc::new(Notify::new()), CancellationToken::new());
        let task = tokio::spawn({
            let (nodes, state, changed, stop) = (nodes.clone(), state.clone(), changed.clone(), stop.clone());
            async move {
                let mut tick = tokio::time::interval(Duration::from_millis(limits::NODE_BEAT_MS));
                tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                let (switched, mut is_seen) = (runtime.switched(), true);
                loop {
                    tokio::select! {
                        _ = tick.tick() => {}
                        () = changed.notified() => {}
                        () = switched.notified() => {}
                        () = stop.cancelled() => return,
                    }
                    let now = *state.lock();
                    match nodes.beat(now, &report(&runtime, &registry)).await {
                        Ok(()) => is_seen = true,
                        Err(error @ NodesError::Replaced(_)) => {
                            tracing::error!(%error, "this host ends: two of one name would take each other's work");
                            shutdown.cancel();
                            return;
                        }
                        Err(error) if is_seen => {
                            is_seen = false;
                            tracing::warn!(%error, "other hosts cannot see this one");
                        }
                        Err(_) => {}
                    }
                }
            }
        });
        Self { nodes, state, changed, stop, task }
    }

    pub(super) fn nodes(&self) -> Arc<dyn Nodes> {
        self.nodes.clone()
    }

    pub(super) fn set(&self, state: NodeState) {
        *self.state.lock() = state;
        self.changed.notify_one();
    }

    /// Before the stores close.
    pub(super) async fn end(self) {
        self.stop.cancel();
        // A panic in it was logged where it happened.
        let _ = self.task.await;
        if let Err(error) = self.nodes.leave().await {
            tracing::warn!(%error, "other hosts see this one as away");
        }
    }
}

fn report(runtime: &Runtime, registry: &Registry) -> NodeReport {
    NodeReport { connections: registry.count() as u64, services: runtime.live_versions() }
}
