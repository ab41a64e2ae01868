//! What waits in the queue of each publisher, counted in memory as it comes and goes: who publishes more than is handled is refused, and not the disk
//! filled. No I/O.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use echo_base::limits;

/// What an event counts while it waits for one subscriber.
#[derive(Clone, Debug, Default)]
pub struct Weight {
    /// Empty where it is nobody's.
    pub publisher: Arc<str>,
    pub bytes: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub events: u64,
    pub bytes: u64,
}

pub struct Backlog {
    events_max: u64,
    waiting: Mutex<HashMap<Arc<str>, Waiting>>,
}

/// `message` of `message:0f3a…` (`Outbox::source`).
pub fn publisher_of(source: &str) -> &str {
    source.split(':').next().unwrap_or(source)
}

impl Backlog {
    pub fn new(events_max: u64) -> Self {
        Self { events_max, waiting: Mutex::default() }
    }

    /// Whether so much waits already that nothing more is taken. What is taken then goes beyond by one batch at the most.
    pub fn is_full(&self, publisher: &str) -> bool {
        let waiting = self.waiting.lock().get(publisher).copied().unwrap_or_default();
        waiting.events >= self.events_max || waiting.bytes >= limits::QUEUE_WAITING_BYTES_MAX
    }

    pub fn set(&self, counted: HashMap<Arc<str>, Waiting>) {
        *self.waiting.lock() = counted;
    }

    pub fn add<'a>(&self, weights: impl Iterator<Item = &'a Weight>) {
        let mut all = self.waiting.lock();
        for weight in weights.filter(|weight| !weight.publisher.is_empty()) {
            let waiting = all.entry(weight.publisher.clone()).or_default();
            waiting.events += 1;
            waiting.bytes += weight.bytes as u64;
        }
    }

    pub fn remove<'a>(&self, weights: impl Iterator<Item = &'a Weight>) {
        let mut all = self.waiting.lock();
        for weight in weights {
            if let Some(waiting) = all.get_mut(&weight.publisher) {
                waiting.events = waiting.events.saturating_sub(1);
                waiting.bytes = waiting.bytes.saturating_sub(weight.bytes as u64);
            }
        }
    }
}
