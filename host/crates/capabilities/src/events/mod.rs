//! The queue between who publishes an event and who subscribes to it: durable, at least once, in order per key.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use echo_base::names::ServiceName;

mod backlog;
mod delivery;
pub mod embedded;
pub mod jetstream;
mod partition;
#[cfg(test)]
mod suite;

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
    #[error("the queue has lost events, and they have to be published again")]
    Lost,
    #[error("no dead letter {0}")]
    NoSuchDeadLetter(String),
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
    /// The queue's own name for it.
    pub id: String,
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

/// Which of a source's events need not be published again, whatever the queue loses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// All that were published: the queue is as durable as the outbox.
    Published,
    /// Those at these positions, as every consumer is done with them. Each is named at least once.
    Positions(Vec<i64>),
}

#[async_trait]
pub trait Queue: Send + Sync {
    /// Appends events of one source. Positions rise strictly within a source; what is not above the highest position seen of this
    /// source was appended before and is skipped, so that a batch can be handed over again after a crash. Errors: `Full` while so many events of the source's service wait; nothing is taken then.
    async fn publish(&self, source: &str, events: &[(i64, Event)]) -> Result<(), QueueError> {
        self.publish_since(self.losses(), source, events).await
    }
    /// As `publish`, of a source that has handed over the oldest that it keeps and all that follow since `losses` was this. Errors: `Lost` where it has risen.
    async fn publish_since(&self, losses: u64, source: &str, events: &[(i64, Event)]) -> Result<(), QueueError>;
    /// Rises when the queue has lost events: all that are not confirmed have to be published again, from the oldest on.
    fn losses(&self) -> u64 {
        0
    }
    /// What was confirmed of this source since the last time.
    async fn confirmed(&self, _source: &str) -> Result<Confirmed, QueueError> {
        Ok(Confirmed::Published)
    }
    /// The highest position that was appended of this source; none where nothing was.
    async fn position(&self, source: &str) -> Result<Option<i64>, QueueError>;
    /// Keeps these topics for the consumer from now on, in the place of those that this host has declared for it before. A topic that no host declares for
    /// it is no longer kept.
    async fn declare(&self, consumer: &ServiceName, topics: Vec<String>) -> Result<(), QueueError>;
    /// Starts the handling of the topics that this host has declared for the consumer, or goes on with another handler.
    async fn consume(&self, consumer: &ServiceName, handler: Arc<dyn Handler>) -> Result<(), QueueError>;
    /// Declares and consumes.
    async fn subscribe(&self, consumer: &ServiceName, topics: Vec<String>, handler: Arc<dyn Handler>) -> Result<(), QueueError> {
        self.declare(consumer, topics).await?;
        self.consume(consumer, handler).await
    }
    /// Whether anybody subscribes to the topic, at work or away: what nobody is to hear need not be written down.
    async fn has_subscribers(&self, topic: &str) -> Result<bool, QueueError>;
    /// Ends handling; what is in the queue stays. Waits for events being handled.
    async fn stop(&self);
    async fn state(&self) -> Result<Vec<ConsumerState>, QueueError>;
    /// Newest first.
    async fn dead_letters(&self, consumer: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>, QueueError>;
    /// Puts it back at the end of its key's events.
    async fn replay(&self, dead_letter: &str) -> Result<(), QueueError>;
    async fn drop_dead_letter(&self, dead_letter: &str) -> Result<(), QueueError>;
    /// Drops the dead letters that became that before this time, in microseconds since 1970; how many.
    async fn expire_dead_letters(&self, before_us: u64) -> Result<u64, QueueError>;
    async fn ping(&self) -> Result<(), QueueError>;
    /// Ends handling and all else that the queue does on this host. Whoever holds it publishes nothing any more.
    async fn close(&self);
}
