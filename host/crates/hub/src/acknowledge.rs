//! Acknowledgements: collected from all sockets for a moment, then written together. Cumulative, so that what a crash loses is said
//! again by the device's next one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::connection::Connection;
use echo_base::backoff::Backoff;
use echo_base::limits;
use echo_capabilities::hub::{Acknowledgement, Feed};

pub(super) struct Acknowledger {
    feed: Arc<dyn Feed>,
    flush_after: Duration,
    /// Each connection at most once: bounded by the connections.
    waiting: Mutex<Vec<Arc<Connection>>>,
    wake: Notify,
    /// One writer at a time, so that an older batch cannot be written after a newer one.
    writing: tokio::sync::Mutex<()>,
}

impl Acknowledger {
    pub fn new(feed: Arc<dyn Feed>, flush_after: Duration) -> Self {
        Self { feed, flush_after, waiting: Mutex::default(), wake: Notify::new(), writing: tokio::sync::Mutex::default() }
    }

    /// All that this device was given, up to `seq`, reached it; 0 where only what it was given is to be noted.
    pub fn note(&self, connection: &Arc<Connection>, seq: u64) {
        connection.acknowledged.fetch_max(seq, Ordering::SeqCst);
        if !connection.acknowledgement_waits.swap(true, Ordering::SeqCst) {
            self.waiting.lock().push(connection.clone());
            self.wake.notify_one();
        }
    }

    /// Writes what is noted, for ever, each time at most `flush_after` behind the first.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            tokio::time::sleep(self.flush_after).await;
            self.flush().await;
        }
    }

    /// Writes all that was noted before; tries again until it is written.
    pub async fn flush(&self) {
        let _writing = self.writing.lock().await;
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for connections in waiting.chunks(limits::ACK_BATCH_MAX) {
            let mut backoff = Backoff::from_ms(limits::FEED_RETRY_FIRST_MS, limits::FEED_RETRY_LAST_MS);
            while let Err(error) = self.feed.acknowledge(&batch(connections)).await {
                tracing::warn!(%error, count = connections.len(), "acknowledgements wait to be written");
                tokio::time::sleep(backoff.pause()).await;
            }
            metrics::counter!("echo_hub_acks_total").increment(connections.len() as u64);
        }
    }
}

fn batch(connections: &[Arc<Connection>]) -> Vec<Acknowledgement> {
    connections
        .iter()
        .map(|connection| {
            // Cleared before it is read: one that comes in between is written now or noted again.
            connection.acknowledgement_waits.store(false, Ordering::SeqCst);
            Acknowledgement {
                user: connection.user,
                device: connection.device.to_string(),
                above: connection.above.load(Ordering::SeqCst),
                seq: connection.acknowledged.load(Ordering::SeqCst),
            }
        })
        .collect()
}
