//! The queue between who publishes an event and who subscribes to it: durable, at least once, in order per key.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use echo_base::names::ServiceName;

#[cfg(test)]
mod contract;
pub mod embedded;

/// An asynchronous call, as JSON (the event record in the codec's form).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Event {
    pub id: Uuid,
    /// `package.function`, e.g. `message.sent`.
    pub topic: String,
    /// Events of the same key are handled in order.
    pub key: String,
    /// The event record as JSON text.
    pub payload: String,
    /// Microseconds since 1970.
    pub at_us: u64,
    /// Identifiers of the request that caused it, for the logs.
    pub correlation_id: String,
}

#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("the queue cannot be reached: {0}")]
    Unavailable(String),
    #[error("too many events of {publisher} wait for their subscribers")]
    Full { publisher: String },
    #[error("no dead letter {0}")]
    NoSuchDeadLetter(i64),
}

/// What a subscriber made of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Again later; the key's further events wait. After `EVENT_TRIES_MAX` it becomes a dead letter.
    Retry {
        after: Option<Duration>,
        reason: String,
    },
    /// Never again: a dead letter.
    Reject {
        reason: String,
    },
}

#[async_trait]
pub trait Handler: Send + Sync {
    async fn handle(&self, event: &Event) -> Outcome;
    /// Whether this topic's events may be handled several at a time.
    fn gathers(&self, _topic: &str) -> bool {
        false
    }
    /// Neighbours of one partition, in their order and of any of its keys, at most `EVENTS_GATHERED_MAX` with `EVENT_GATHERED_BYTES_MAX`
    /// of payload: all of them or none. After anything but `Done` each comes again alone, so that no event answers for another.
    async fn handle_together(&self, _events: &[Arc<Event>]) -> Outcome {
        Outcome::Retry { after: None, reason: "they are handled one at a time".to_owned() }
    }
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct DeadLetter {
    pub id: i64,
    pub consumer: String,
    pub event: Event,
    pub reason: String,
    pub tries: u32,
    pub at_us: u64,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct ConsumerState {
    pub consumer: String,
    pub topic: String,
    /// Events waiting.
    pub lag: u64,
    pub dead_letters: u64,
}

#[async_trait]
pub trait Queue: Send + Sync {
    /// Appends events of one source. Positions rise strictly within a source; what is not above the highest position seen of this
    /// source was appended before and is skipped, so that a batch can be handed over again after a crash. Errors: `Full` while so many events of the source's service wait; nothing is taken then.
    async fn publish(&self, source: &str, events: &[(i64, Event)]) -> Result<(), QueueError>;
    /// The highest position that was appended of this source; none where nothing was.
    async fn position(&self, source: &str) -> Result<Option<i64>, QueueError>;
    /// Makes the consumer known and starts (or replaces) its handling of these topics. A new consumer starts with what is published
    /// from now on. Topics it no longer names are no longer kept for it.
    async fn subscribe(&self, consumer: &ServiceName, topics: Vec<String>, handler: Arc<dyn Handler>) -> Result<(), QueueError>;
    /// Whether anybody subscribes to the topic, at work or away: what nobody is to hear need not be written down.
    async fn has_subscribers(&self, topic: &str) -> Result<bool, QueueError>;
    /// Ends handling; what is in the queue stays. Waits for events being handled.
    async fn stop(&self);
    async fn state(&self) -> Result<Vec<ConsumerState>, QueueError>;
    async fn dead_letters(&self, consumer: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>, QueueError>;
    /// Puts it back at the end of its key's events.
    async fn replay(&self, id: i64) -> Result<(), QueueError>;
    async fn drop_dead_letter(&self, id: i64) -> Result<(), QueueError>;
    /// Drops the dead letters that became that before this time, in microseconds since 1970; how many.
    async fn expire_dead_letters(&self, before_us: u64) -> Result<u64, QueueError>;
    async fn ping(&self) -> Result<(), QueueError>;
}
