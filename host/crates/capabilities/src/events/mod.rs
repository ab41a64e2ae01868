//! The queue between who publishes an event and who subscribes to it: durable, at least once, in order per key.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use echo_base::limits;
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
    /// Its record is a list named `items` and nothing else: what follows it within a moment may arrive with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gathers: bool,
}

impl Event {
    const ITEMS: (&str, &str) = (r#"{"items":["#, "]}");

    fn items(&self) -> Option<&str> {
        let (head, tail) = Self::ITEMS;
        if self.gathers { self.payload.strip_prefix(head)?.strip_suffix(tail) } else { None }
    }

    /// Takes the items of the next event in. False where they do not belong together, or are too much for one.
    fn gather(&mut self, next: &Event) -> bool {
        let (Some(own), Some(further)) = (self.items(), next.items()) else { return false };
        let belongs = (&self.topic, &self.key) == (&next.topic, &next.key);
        if !belongs || own.is_empty() || further.is_empty() || own.len() + further.len() > limits::EVENT_GATHERED_BYTES_MAX {
            return false;
        }
        let (_, tail) = Self::ITEMS;
        self.payload.truncate(self.payload.len() - tail.len());
        self.payload.push(',');
        self.payload.push_str(further);
        self.payload.push_str(tail);
        true
    }
}

/// The events in their order, neighbours that gather as one. What was gathered has the identifiers of its first.
pub fn gathered<'a>(events: impl Iterator<Item = &'a Event>) -> Vec<Event> {
    let mut gathered: Vec<Event> = Vec::new();
    for event in events {
        if !gathered.last_mut().is_some_and(|last| last.gather(event)) {
            gathered.push(event.clone());
        }
    }
    gathered
}

#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("the queue cannot be reached: {0}")]
    Unavailable(String),
    #[error("too many events of {publisher} wait for their subscribers")]
    Full { publisher: String },
    #[error("no dead letter {0}")]
    NoSuchLetter(i64),
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
    /// source was appended before and is skipped, so that a batch can be handed over again after a crash. Of the rest, neighbours that
    /// gather become one. Errors: `Full` while so many events of the source's service wait; nothing is taken then.
    async fn publish(&self, source: &str, events: &[(i64, Event)]) -> Result<(), QueueError>;
    /// The highest position that was appended of this source; none where nothing was.
    async fn position(&self, source: &str) -> Result<Option<i64>, QueueError>;
    /// Makes the consumer known and starts (or replaces) its handling of these topics. A new consumer starts with what is published
    /// from now on. Topics it no longer names are no longer kept for it.
    async fn subscribe(&self, consumer: &ServiceName, topics: Vec<String>, handler: Arc<dyn Handler>) -> Result<(), QueueError>;
    /// Whether anybody subscribes to the topic, at work or away: what nobody is to hear need not be written down.
    async fn is_heard(&self, topic: &str) -> Result<bool, QueueError>;
    /// Ends handling; what is in the queue stays. Waits for events being handled.
    async fn stop(&self);
    async fn state(&self) -> Result<Vec<ConsumerState>, QueueError>;
    async fn dead_letters(&self, consumer: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>, QueueError>;
    /// Puts it back at the end of its key's events.
    async fn replay(&self, id: i64) -> Result<(), QueueError>;
    async fn drop_letter(&self, id: i64) -> Result<(), QueueError>;
    /// Drops the dead letters that became that before this time, in microseconds since 1970; how many.
    async fn expire_letters(&self, before_us: u64) -> Result<u64, QueueError>;
    async fn ping(&self) -> Result<(), QueueError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(topic: &str, key: &str, payload: &str) -> Event {
        Event { gathers: true, ..contract::event(topic, key, payload) }
    }

    #[test]
    fn neighbours_gather_and_nothing_else() {
        let alone = Event { gathers: false, ..event("a.a", "all", r#"{"items":[5]}"#) };
        let events = [
            event("a.a", "all", r#"{"items":[{"n":1}]}"#),
            event("a.a", "all", r#"{"items":[{"n":2},{"n":3}]}"#),
            event("a.b", "all", r#"{"items":[4]}"#),
            alone.clone(),
            alone,
            event("a.a", "all", r#"{"items":[6]}"#),
            event("a.a", "other", r#"{"items":[7]}"#),
            event("a.a", "other", r#"{"items":[]}"#),
            event("a.a", "other", "{}"),
            event("a.a", "other", r#"{"items":[8]}"#),
        ];
        let gathered = gathered(events.iter());
        let payloads: Vec<&str> = gathered.iter().map(|event| event.payload.as_str()).collect();
        assert_eq!(
            payloads,
            [
                r#"{"items":[{"n":1},{"n":2},{"n":3}]}"#,
                r#"{"items":[4]}"#,
                r#"{"items":[5]}"#,
                r#"{"items":[5]}"#,
                r#"{"items":[6]}"#,
                r#"{"items":[7]}"#,
                r#"{"items":[]}"#,
                "{}",
                r#"{"items":[8]}"#,
            ]
        );
        assert_eq!((gathered[0].id, &gathered[0].key), (events[0].id, &events[0].key));
    }

    #[test]
    fn what_gathers_is_bounded() {
        let events: Vec<Event> = (0..1_000).map(|_| event("a.a", "all", &format!(r#"{{"items":["{}"]}}"#, "x".repeat(500)))).collect();
        let gathered = gathered(events.iter());
        assert!(gathered.len() > 1);
        assert!(gathered.iter().all(|event| event.payload.len() < limits::EVENT_GATHERED_BYTES_MAX + 20));
        let items = gathered.iter().map(|event| event.payload.matches("xx\"").count()).sum::<usize>();
        assert_eq!(items, 1_000);
    }
}
