//! Leases: of the hosts that share a database, one at a time does a piece of work.

use std::time::Duration;

use async_trait::async_trait;

pub mod postgres;
pub mod process;
#[cfg(test)]
mod suite;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("leases cannot be reached: {0}")]
pub struct LeaseError(pub String);

/// A lease that this host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Rises with each host that takes it (a fencing number): what is written under a lower one comes too late.
    pub epoch: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct HeldLease {
    pub name: String,
    pub node: String,
    pub epoch: u64,
}

#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes the lease of this name for `ttl` from now, or makes it last from now where this host has it. None: another host has it. The clock is that of
    /// whoever keeps the leases; a host that was stopped for longer than `ttl` may believe that it still has one, so what must not be done twice checks
    /// the epoch.
    async fn take(&self, name: &str, ttl: Duration) -> Result<Option<Lease>, LeaseError>;
    /// Another host may have it at once. Nothing happens where this host does not have it.
    async fn give_back(&self, name: &str) -> Result<(), LeaseError>;
    /// All leases that any host has now.
    async fn held(&self) -> Result<Vec<HeldLease>, LeaseError>;
}
