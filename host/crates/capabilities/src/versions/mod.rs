//! Which versions of the services are kept, and what is to be live: one set, of one host or of all hosts of a database. What a packed file is and what a
//! service's state says is the runtime's; here they are kept. No guest calls it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use uuid::Uuid;

use echo_base::names::ServiceName;

pub mod files;
pub mod postgres;
#[cfg(test)]
mod suite;

/// The subject on the bus between hosts under which a host says that others have something to look for here.
pub const CHANGED: &str = "versions";

/// Packed files, and a state for each service.
#[async_trait]
pub trait VersionStore: Send + Sync {
    /// All services that have anything here, each with a number that changes with every change of it.
    async fn services(&self) -> Result<BTreeMap<ServiceName, i64>, StoreError>;

    /// With nothing in it for a service that has nothing here.
    async fn read(&self, service: &ServiceName) -> Result<Kept, StoreError>;

    /// The packed file of a version; none where it was removed meanwhile.
    async fn file(&self, service: &ServiceName, version: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Errors: `OtherBytes` where another host has kept the version with other bytes.
    async fn keep(&self, service: &ServiceName, version: &str, sha256: &str, file: &[u8]) -> Result<(), StoreError>;

    async fn remove(&self, service: &ServiceName, version: &str) -> Result<(), StoreError>;

    /// Replaces the service's state, if it is still the one that was read (`Kept::state_revision`); and, for a rollout, if that is still under way. The
    /// number of the new one.
    /// Errors: `Overtaken` where it is not, and nothing was changed; `Unknown` where nobody knows whether it was.
    async fn put_state(&self, service: &ServiceName, read: i64, state: &str, rollout: Option<Uuid>) -> Result<i64, StoreError>;

    /// Where several hosts share it: how they agree.
    fn rollouts(&self) -> Option<&dyn Rollouts> {
        None
    }
}

/// How the hosts that share one set of versions come to run the same: one of them asks all others to prepare a version, and when all have, its new state
/// (`VersionStore::put_state`) is what all follow. One rollout of a service at a time.
#[async_trait]
pub trait Rollouts: Send + Sync {
    /// None while another host's rollout of this service is under way. One whose host is away is over, and so is one that was not renewed for `ROLLOUT_S`.
    async fn begin(&self, service: &ServiceName) -> Result<Option<Uuid>, StoreError>;

    /// Asks the others to prepare, and renews the rollout. `order` says what, in the words of the one who asks.
    /// Errors: `Overtaken` where it is over.
    async fn ask(&self, service: &ServiceName, rollout: Uuid, order: &str) -> Result<(), StoreError>;

    /// Renews the rollout. Errors: `Overtaken` where it is over.
    async fn renew(&self, service: &ServiceName, rollout: Uuid) -> Result<(), StoreError>;

    /// What the other hosts that are serving say; those that are away, starting or ending are not waited for.
    async fn answers(&self, service: &ServiceName, rollout: Uuid) -> Result<Vec<Answer>, StoreError>;

    /// What other hosts ask of this one, and it has not answered.
    async fn asked(&self) -> Result<Vec<Order>, StoreError>;

    /// `refusal`: why this host cannot run it.
    async fn answer(&self, order: &Order, refusal: Option<&str>) -> Result<(), StoreError>;

    async fn end(&self, service: &ServiceName, rollout: Uuid) -> Result<(), StoreError>;

    /// Other hosts that are serving or ending, and do not run this packed file, or have not for so long.
    async fn hosts_without(&self, service: &ServiceName, sha256: &str, for_ms: u64) -> Result<Vec<String>, StoreError>;
}

/// What is kept of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// As in `VersionStore::services`.
    pub revision: i64,
    pub state_revision: i64,
    pub state: Option<String>,
    /// By version, the SHA-256 of its packed file, where that is known without reading it.
    pub files: BTreeMap<String, Option<String>>,
}

/// What a host says to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub node: String,
    pub said: Said,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Nothing,
    Prepared,
    Refused(String),
}

/// A version that another host wants to be prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub service: ServiceName,
    pub rollout: Uuid,
    pub node: String,
    pub text: String,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("another version became live meanwhile")]
    Overtaken,
    #[error("this version is there already with other bytes")]
    OtherBytes,
    /// Nobody knows whether it was changed.
    #[error("{0}; whether it was changed is not known")]
    Unknown(String),
    #[error("{0}")]
    Unavailable(String),
}
