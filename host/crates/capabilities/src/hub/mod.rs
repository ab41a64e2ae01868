//! Reaching devices: the durable feed of each user, and the sockets that are open now.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use uuid::Uuid;

use super::events::Event;
use super::sql::Outbox;

mod acknowledged;
mod device_hosts;
pub mod embedded;
pub mod host;
pub mod postgres;
mod reached;
mod states;
#[cfg(test)]
mod suite;

pub use device_hosts::{Announced, CONNECTED, ClaimError, Claimed, ClaimedPage, DISCONNECTED, DeviceHosts, DeviceSocket};

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    Durable,
    Ephemeral,
}

/// One event for several users.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Push {
    pub users: Vec<Uuid>,
    /// The frame's `type`.
    pub event: String,
    /// JSON text.
    pub payload: String,
    pub class: Class,
    pub receipt: Option<String>,
    /// What it is about: a `Replacement` finds it by this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// It says how something is now: of those of one key that follow each other closely each user gets the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// What was pushed about a subject says this instead, wherever it is kept.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Replacement {
    pub subject: String,
    /// The frames' new `type`; none where each keeps its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// JSON text.
    pub payload: String,
}

/// What changes feeds, in the order of its positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedChange {
    Push(Push),
    Replace(Replacement),
}

impl Push {
    /// What it takes in memory and on the disk, roughly.
    pub fn bytes(&self) -> usize {
        self.payload.len() + size_of_val(self.users.as_slice())
    }
}

/// One durable event in one user's feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEntry {
    pub user: Uuid,
    /// Gapless per user, from 1.
    pub seq: u64,
    pub event: String,
    /// JSON text; shared by all users of the push.
    pub payload: Arc<str>,
    /// Microseconds since 1970.
    pub at_us: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the feed cannot be reached: {0}")]
pub struct FeedError(pub String);

/// A stretch of a user's feed.
#[derive(Clone, Debug, Default)]
pub struct FeedPage {
    pub entries: Vec<FeedEntry>,
    /// The newest seq of this user; 0 for an empty feed.
    pub head: u64,
    /// The oldest seq that is still kept, or `head + 1`.
    pub oldest: u64,
}

#[derive(Clone, Debug)]
pub struct Acknowledgement {
    pub user: Uuid,
    pub device: String,
    /// What the device was given begins after this one: of what is before nothing is known.
    pub above: u64,
    /// All from there up to here reached the device; 0 where nothing is acknowledged yet. Beyond the head it counts as the head.
    pub seq: u64,
}

/// What is noted of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceCursor {
    /// What it was given begins after this one.
    pub above: u64,
    /// What it acknowledged ends with this one; 0 where it never did.
    pub acknowledged: u64,
}

/// Services do not meet in each other's subjects. A source's name begins with its service's.
pub(crate) fn subject_of(service: &str, subject: &str) -> String {
    format!("{service} {subject}")
}

/// `message` of `message:0f3a…` (`Outbox::source`).
pub(crate) fn service_of(source: &str) -> &str {
    source.split(':').next().unwrap_or(source)
}

/// The durable feeds. Its own outbox carries the events of `echo:hub/events` to the queue.
#[async_trait]
pub trait Feed: Outbox {
    /// Numbers and keeps durable pushes of one source, and makes its replacements among what the same service has pushed before, all in one
    /// transaction; ephemeral pushes do not come here. What is not above the highest position seen of this source is skipped (see
    /// `Queue::publish`). A replaced payload is overwritten, not only let go of. Of pushes with a state the first of a key is numbered; those that
    /// follow it closely are kept, the last for each user, until `release`.
    async fn apply(&self, source: &str, changes: &[(i64, FeedChange)]) -> Result<Vec<FeedEntry>, FeedError>;
    /// The highest position that was seen of this source; none where nothing was.
    async fn position(&self, source: &str) -> Result<Option<i64>, FeedError>;
    /// Numbers the pushes with a state that `apply` kept of this source. To be called `FEED_STATE_GATHER_MS` after the first of them, and at the
    /// start.
    async fn release(&self, source: &str) -> Result<Vec<FeedEntry>, FeedError>;
    /// Entries with `seq > since`, oldest first.
    async fn read(&self, user: Uuid, since: u64, limit: usize) -> Result<FeedPage, FeedError>;
    /// Moves devices' cursors (never back), notes from where on they were given events, and writes `hub.acknowledged` with the receipts that no
    /// device of their user had reached before, in the same transaction.
    async fn acknowledge(&self, acknowledgements: &[Acknowledgement]) -> Result<(), FeedError>;
    /// Writes events into its outbox, all in one transaction.
    async fn announce(&self, events: &[Event]) -> Result<(), FeedError>;
    /// None for a device of which nothing was noted.
    async fn device(&self, user: Uuid, device: &str) -> Result<Option<DeviceCursor>, FeedError>;
    /// Which of the users have not acknowledged the receipt by any device.
    async fn unacknowledged(&self, receipt: &str, users: &[Uuid]) -> Result<Vec<Uuid>, FeedError>;
    /// Drops entries older than `FEED_TTL_S` and beyond `FEED_EVENTS_MAX` per user, and what is noted of devices that have not been there for
    /// `cursors_kept`; how many entries.
    async fn expire(&self, now_us: u64, cursors_kept: Duration) -> Result<u64, FeedError>;
}

/// A service's outbox in a database that several hosts share, moved on by one of them at a time.
#[async_trait]
pub trait LeasedOutbox: Send + Sync {
    /// As `Outbox::source`.
    fn source(&self) -> &str;
    /// Notified after commits on this host that wrote an effect; those of other hosts are found by looking.
    fn signal(&self) -> Arc<Notify>;
    /// Asks for the lease, for `RELAY_LEASE_MS`; whether this host has it. Moving effects makes it last from then.
    async fn lease(&self) -> Result<bool, FeedError>;
    /// Gives the lease back.
    async fn surrender(&self) -> Result<(), FeedError>;
    /// Moves the oldest effects on: changes of the feeds into the feeds, events into `events`, and all of them out of the outbox, in one transaction. None,
    /// and nothing has changed, where the lease is another host's.
    async fn relay(&self) -> Result<Option<Relayed>, FeedError>;
    /// As `Feed::release`, under the lease.
    async fn release(&self) -> Result<Option<Vec<FeedEntry>>, FeedError>;
    /// What was moved on of the events, for the queue, with positions in the order of the commits.
    fn events(&self) -> Arc<dyn Outbox>;
}

/// What one transaction moved on.
#[derive(Clone, Debug, Default)]
pub struct Relayed {
    pub effects: usize,
    pub bytes: usize,
    /// Whether some were left for the next batch.
    pub has_more: bool,
    /// To be delivered to the sockets.
    pub entries: Vec<FeedEntry>,
    /// To be shown to whoever is there; nobody keeps them.
    pub ephemeral: Vec<Push>,
    /// Some may wait for `release`.
    pub has_states: bool,
}

/// The sockets that are open, on this host and on those that it shares a database with. Implemented by the hub.
#[async_trait]
pub trait Sockets: Send + Sync {
    /// Hands entries to the connected devices of their users; never blocks.
    fn deliver(&self, entries: &[FeedEntry]);
    /// Hands a frame to whoever of the users is connected and not slow; never blocks.
    fn deliver_ephemeral(&self, push: &Push);
    /// Which of the users have a device connected.
    async fn online(&self, users: &[Uuid]) -> Result<Vec<Uuid>, FeedError>;
    /// Closes with 4401.
    fn disconnect_session(&self, session: Uuid);
    fn disconnect_user(&self, user: Uuid);
}
