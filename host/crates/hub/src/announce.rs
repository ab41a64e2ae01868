//! Devices that come and go become events of `echo:hub/events`. Noted in memory, written together into the feed's outbox, and only where
//! somebody listens. Knows no sockets.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use super::registry::Change;
use echo_base::backoff::Backoff;
use echo_base::clock::now_us;
use echo_base::limits;
use echo_capabilities::events::{Event, Queue, QueueError};
use echo_capabilities::hub::{CONNECTED, DISCONNECTED};
use echo_capabilities::hub::{Feed, FeedError};

pub struct Announcer {
    feed: Arc<dyn Feed>,
    queue: Arc<dyn Queue>,
    /// In their order. Full: what comes then is dropped, which takes a feed that is away (no socket opens without it) and more sockets
    /// closing than the host may have.
    waiting: Mutex<VecDeque<Noted>>,
    wake: Notify,
    /// One writer at a time, so that events leave in the order in which they were noted.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Noted {
    /// The event's id: the same however often it is tried.
    id: Uuid,
    at_us: u64,
    change: Change,
}

#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl Announcer {
    pub fn new(feed: Arc<dyn Feed>, queue: Arc<dyn Queue>) -> Arc<Self> {
        Arc::new(Self { feed, queue, waiting: Mutex::default(), wake: Notify::new(), writing: tokio::sync::Mutex::default() })
    }

    /// Never waits: it is called by a socket that opens or closes, under a lock of the registry.
    pub fn note(&self, change: Change) {
        let at_us = now_us();
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= limits::HUB_CHANGES_WAITING_MAX {
                metrics::counter!("echo_hub_changes_dropped_total").increment(1);
                return;
            }
            waiting.push_back(Noted { id: Uuid::now_v7(), at_us, change });
        }
        self.wake.notify_one();
    }

    /// Publishes what is noted, for ever; where that fails, again after a pause.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            let mut backoff = Backoff::from_ms(limits::FEED_RETRY_FIRST_MS, limits::FEED_RETRY_LAST_MS);
            while let Err(error) = self.flush().await {
                if backoff.is_fresh() {
                    tracing::warn!(%error, "services do not hear yet which devices come and go");
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }

    /// Publishes all that was noted before. What could not be published stays noted.
    pub async fn flush(&self) -> Result<(), AnnounceError> {
        let _writing = self.writing.lock().await;
        loop {
            let noted: Vec<Noted> = self.waiting.lock().iter().take(limits::RELAY_BATCH).cloned().collect();
            if noted.is_empty() {
                return Ok(());
            }
            let subscribed = (self.queue.has_subscribers(CONNECTED).await?, self.queue.has_subscribers(DISCONNECTED).await?);
            let has_subscribers = |noted: &&Noted| match noted.change {
                Change::Connected(_) => subscribed.0,
                Change::Disconnected(_) => subscribed.1,
            };
            let events: Vec<Event> = noted.iter().filter(has_subscribers).map(Noted::event).collect();
            if !events.is_empty() {
                self.feed.announce(&events).await?;
            }
            // Only now: whoever is cancelled before has published nothing, or does so twice.
            self.waiting.lock().drain(..noted.len());
        }
    }
}

impl Noted {
    fn event(&self) -> Event {
        let (topic, socket) = match &self.change {
            Change::Connected(socket) => (CONNECTED, socket),
            Change::Disconnected(socket) => (DISCONNECTED, socket),
        };
        socket.event(topic, self.id, self.at_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use echo_capabilities::events::embedded::EmbeddedQueue;
    use echo_capabilities::hub::DeviceSocket;
    use echo_capabilities::hub::embedded::EmbeddedFeed;
    use echo_capabilities::sql::sqlite::Durability;

    #[tokio::test]
    async fn without_a_queue_what_is_noted_stays_within_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let feed = Arc::new(EmbeddedFeed::open(folder.path(), Durability::default()).await.unwrap());
        let queue = Arc::new(EmbeddedQueue::open(folder.path(), Durability::default()).await.unwrap());
        let announcer = Announcer::new(feed, queue.clone());
        let id = Uuid::nil();
        let info = DeviceSocket { connection_id: id, user_id: id, device_id: "phone".to_owned(), session_id: id };
        for _ in 0..limits::HUB_CHANGES_WAITING_MAX + 10 {
            announcer.note(Change::Connected(info.clone()));
        }
        assert_eq!(announcer.waiting.lock().len(), limits::HUB_CHANGES_WAITING_MAX);
        announcer.flush().await.unwrap();
        assert!(announcer.waiting.lock().is_empty());
    }
}
