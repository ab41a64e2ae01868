//! Which hosts share the data of this one, and what each of them runs: each host says so of itself every `NODE_BEAT_MS`. No guest calls it.

use std::collections::{BTreeMap, BTreeSet};

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
    pub engines: Engines,
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
    pub engines: Engines,
}

/// What a host is connected to besides the database, as its settings say: hosts that are to be one have it in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Engines {
    /// `host:port` of each server that carries events, and what stands before the names there.
    pub events: BTreeSet<String>,
    pub events_prefix: String,
    /// Of each server of the cache; none where it is the host's own.
    pub cache: BTreeSet<String>,
    pub cache_prefix: String,
}

/// What two hosts of one database do not have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// They cannot work together.
    Wrong(String),
    /// They may be names of the same servers.
    Doubtful(String),
}

impl Engines {
    /// The places in addresses that are separated by commas, without what is secret in them.
    pub fn places(addresses: &str) -> BTreeSet<String> {
        let place = |address: &str| {
            let place = address.trim().rsplit("//").next().unwrap_or_default();
            let place = place.rsplit('@').next().unwrap_or_default();
            place.split(['/', '?']).next().unwrap_or_default().to_owned()
        };
        addresses.split(',').map(place).filter(|place| !place.is_empty()).collect()
    }

    /// `name`: the other host's.
    pub fn differences_from(&self, name: &str, other: &Self) -> Vec<Difference> {
        let list = |places: &BTreeSet<String>| match places.is_empty() {
            true => "none".to_owned(),
            false => places.iter().cloned().collect::<Vec<_>>().join(", "),
        };
        let mut differences = Vec::new();
        let mut compare = |engine: &str, own: (&BTreeSet<String>, &str), others: (&BTreeSet<String>, &str)| {
            let (own_list, others_list) = (list(own.0), list(others.0));
            let said = format!("{engine}.url is {own_list} here and {others_list} on host {name}");
            if own.0.is_empty() != others.0.is_empty() {
                differences.push(Difference::Wrong(format!("{said}: all hosts need the same")));
            } else if own.1 != others.1 {
                let said = format!("{engine}.prefix is {:?} here and {:?} on host {name}", own.1, others.1);
                differences.push(Difference::Wrong(format!("{said}: neither would see what the other keeps there")));
            } else if !own.0.is_empty() && own.0.is_disjoint(others.0) {
                differences.push(Difference::Doubtful(format!("{said}: these have to be the same servers")));
            }
        };
        compare("events", (&self.events, &self.events_prefix), (&other.events, &other.events_prefix));
        compare("cache", (&self.cache, &self.cache_prefix), (&other.cache, &other.cache_prefix));
        differences
    }
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
