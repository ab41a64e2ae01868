//! Which hosts share the data of this one, and what each of them runs: each host says so of itself every `NODE_BEAT_MS`. No guest calls it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use uuid::Uuid;

pub mod postgres;
pub mod single;
#[cfg(test)]
mod suite;

/// The hosts of one database, as this host sees them.
#[async_trait]
pub trait Nodes: Send + Sync {
    /// The name of this host.
    fn name(&self) -> &str;

    /// Says that this host is there, in this state, and runs this.
    /// Errors: `Replaced` where another host has taken its name meanwhile: this one must end.
    async fn beat(&self, state: NodeState, report: &NodeReport) -> Result<(), NodesError>;

    /// All hosts that are known, by name. One that has not been seen for `NODE_AWAY_MS` is `Away`; one that ended in order is not among them.
    async fn list(&self) -> Result<Vec<Node>, NodesError>;

    /// This host ends: it is not among the others any more.
    async fn leave(&self) -> Result<(), NodesError>;
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// Another one with every start.
    pub boot: Uuid,
    /// Where clients reach it.
    pub advertise: String,
    /// Of the program.
    pub version: String,
    pub state: NodeState,
    /// Microseconds since 1970, by the clock that all hosts share.
    pub started_at_us: u64,
    /// By the same clock.
    pub seen_ms_ago: u64,
    /// As it was said last.
    pub report: NodeReport,
    /// What it alone does for all hosts just now, such as `relay:3`.
    pub leases: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It does not take requests yet.
    Starting,
    Serving,
    /// It ends: it takes no new connections.
    Draining,
    /// It has not been seen for `NODE_AWAY_MS`.
    Away,
}

impl NodeState {
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Starting => "starting",
            NodeState::Serving => "serving",
            NodeState::Draining => "draining",
            NodeState::Away => "away",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "starting" => NodeState::Starting,
            "serving" => NodeState::Serving,
            "draining" => NodeState::Draining,
            _ => NodeState::Away,
        }
    }
}

/// What a host says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct NodeReport {
    /// Open sockets.
    pub connections: u64,
    /// By the service's name.
    pub services: BTreeMap<String, LiveVersion>,
}

/// The version of a service that is live on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct LiveVersion {
    pub version: String,
    /// Of the packed file.
    pub sha256: String,
    /// How long it had been live when this was said.
    pub live_ms: u64,
}

/// What a host is called, and where it is reached.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    pub name: String,
    pub advertise: String,
    pub version: String,
}

#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    #[error(
        "another host is running as {name} ({advertise}, last seen {seen_ms_ago} ms ago): give this one a name of its own in node.name, or end the other one"
    )]
    NameTaken { name: String, advertise: String, seen_ms_ago: u64 },
    #[error("{0} is in use by another process: each host has a data folder of its own (--data)")]
    FolderInUse(String),
    #[error("another host has started as {0} while this one could not be seen")]
    Replaced(String),
    #[error("the list of hosts: {0}")]
    Unavailable(String),
}
