//! A queue that loses what it acknowledged: what becomes of the events that an outbox keeps until they are confirmed.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use super::*;
use echo_base::names::ServiceName;
use echo_capabilities::events::{ConsumerState, DeadLetter, Handler};
use echo_capabilities::hub::embedded::EmbeddedFeed;
use echo_capabilities::hub::{FeedEntry, FeedError};
use echo_capabilities::sql::SqlError;
use echo_capabilities::sql::sqlite::Durability;

/// Numbered events, each kept until it is removed by its position.
#[derive(Default)]
struct Log {
    rows: Mutex<BTreeMap<i64, Event>>,
    signal: Arc<Notify>,
}

impl Log {
    fn append(&self, position: i64) {
        let event = Event {
            id: Uuid::now_v7(),
            topic: "a.a".to_owned(),
            key: "k".to_owned(),
            payload: position.to_string(),
            at_us: 0,
            correlation_id: String::new(),
        };
        self.rows.lock().insert(position, event);
        self.signal.notify_one();
    }

    fn positions(&self) -> Vec<i64> {
        self.rows.lock().keys().copied().collect()
    }
}

#[async_trait]
impl Outbox for Log {
    fn source(&self) -> &str {
        "alpha:1"
    }
    fn signal(&self) -> Arc<Notify> {
        self.signal.clone()
    }
    fn start_above(&self, _: i64) {}
    async fn peek(&self, after: i64, limit: usize) -> Result<Vec<(i64, Effect)>, SqlError> {
        let rows = self.rows.lock();
        let rows = rows.iter().filter(|(position, _)| **position > after).take(limit);
        Ok(rows.map(|(position, event)| (*position, Effect::Event(event.clone()))).collect())
    }
    fn refuse_events(&self, _: bool) {}
    async fn remove_up_to(&self, _: i64) -> Result<(), SqlError> {
        panic!("an event was removed that is not confirmed")
    }
    async fn remove(&self, positions: &[i64]) -> Result<(), SqlError> {
        self.rows.lock().retain(|position, _| !positions.contains(position));
        Ok(())
    }
}

/// Takes positions that rise, and forgets them when it is told to.
#[derive(Default)]
struct ForgetfulQueue {
    losses: std::sync::atomic::AtomicU64,
    taken: Mutex<Vec<i64>>,
    confirmed: Mutex<BTreeSet<i64>>,
}

impl ForgetfulQueue {
    fn lose_all(&self) {
        let mut taken = self.taken.lock();
        taken.clear();
        self.losses.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }

    async fn has_taken(&self, expect: &[i64]) {
        let all = async {
            while *self.taken.lock() != expect {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), all).await.is_err() {
            panic!("{:?} were taken, not {expect:?}", self.taken.lock());
        }
    }
}

#[async_trait]
impl Queue for ForgetfulQueue {
    async fn publish_since(&self, losses: u64, _: &str, events: &[(i64, Event)]) -> Result<(), QueueError> {
        let mut taken = self.taken.lock();
        if losses != self.losses() {
            return Err(QueueError::Lost);
        }
        for (position, _) in events {
            assert!(taken.last().is_none_or(|last| last < position), "{position} came after {taken:?}");
            taken.push(*position);
        }
        Ok(())
    }
    fn losses(&self) -> u64 {
        self.losses.load(std::sync::atomic::Ordering::SeqCst)
    }
    async fn confirmed(&self, _: &str) -> Result<Confirmed, QueueError> {
        Ok(Confirmed::Positions(std::mem::take(&mut *self.confirmed.lock()).into_iter().collect()))
    }
    async fn position(&self, _: &str) -> Result<Option<i64>, QueueError> {
        Ok(self.taken.lock().last().copied())
    }
    async fn declare(&self, _: &ServiceName, _: Vec<String>) -> Result<(), QueueError> {
        Ok(())
    }
    async fn consume(&self, _: &ServiceName, _: Arc<dyn Handler>) -> Result<(), QueueError> {
        Ok(())
    }
    async fn has_subscribers(&self, _: &str) -> Result<bool, QueueError> {
        Ok(true)
    }
    async fn stop(&self) {}
    async fn state(&self) -> Result<Vec<ConsumerState>, QueueError> {
        Ok(Vec::new())
    }
    async fn dead_letters(&self, _: Option<&str>, _: usize) -> Result<Vec<DeadLetter>, QueueError> {
        Ok(Vec::new())
    }
    async fn replay(&self, _: &str) -> Result<(), QueueError> {
        Ok(())
    }
    async fn drop_dead_letter(&self, _: &str) -> Result<(), QueueError> {
        Ok(())
    }
    async fn expire_dead_letters(&self, _: u64) -> Result<u64, QueueError> {
        Ok(0)
    }
    async fn ping(&self) -> Result<(), QueueError> {
        Ok(())
    }
    async fn close(&self) {}
}

struct NoSockets;

#[async_trait]
impl Sockets for NoSockets {
    fn deliver(&self, _: &[FeedEntry]) {}
    fn deliver_ephemeral(&self, _: &Push) {}
    async fn online(&self, _: &[Uuid]) -> Result<Vec<Uuid>, FeedError> {
        Ok(Vec::new())
    }
    fn disconnect_session(&self, _: Uuid) {}
    fn disconnect_user(&self, _: Uuid) {}
}

#[tokio::test]
async fn events_are_kept_until_they_are_confirmed_and_published_again_after_a_loss() {
    let folder = tempfile::tempdir().expect("a folder");
    let feed = Arc::new(EmbeddedFeed::open(folder.path(), Durability::default()).await.expect("opens"));
    let (log, queue, shutdown) = (Arc::new(Log::default()), Arc::new(ForgetfulQueue::default()), CancellationToken::new());
    (1..=5).for_each(|position| log.append(position));
    let relay = tokio::spawn(Relay::of_events(log.clone(), queue.clone(), feed.clone(), Arc::new(NoSockets)).run(shutdown.clone()));
    queue.has_taken(&[1, 2, 3, 4, 5]).await;

    // Not in order: what is not confirmed holds nothing back.
    queue.confirmed.lock().extend([1, 2, 4]);
    let removed = async {
        while log.positions() != [3, 5] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), removed).await.expect("confirmed events are removed");

    log.append(6);
    queue.has_taken(&[1, 2, 3, 4, 5, 6]).await;
    queue.lose_all();
    // Whether it hears of the loss from the queue or as it publishes: from the oldest on, and in order.
    log.append(7);
    queue.has_taken(&[3, 5, 6, 7]).await;
    queue.lose_all();
    queue.has_taken(&[3, 5, 6, 7]).await;

    shutdown.cancel();
    relay.await.expect("ends");
    assert_eq!(log.positions(), [3, 5, 6, 7], "they stay until they are confirmed");
}
