//! From the outbox to the queue, the feed and the sockets: what a commit released leaves here, in order, at least once. Queue and
//! feed remember how far a source has come, so handing a batch over again adds nothing. Knows no backends.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::capabilities::events::{Event, Queue};
use crate::capabilities::hub::{Class, Feed, Push, Sockets};
use crate::capabilities::sql::{Effect, Outbox};
use crate::limits;

/// Empties one outbox.
pub struct Relay {
    outbox: Arc<dyn Outbox>,
    queue: Arc<dyn Queue>,
    feed: Arc<dyn Feed>,
    sockets: Arc<dyn Sockets>,
    /// Ephemeral pushes up to here have been handed to the sockets: they alone have nobody who remembers.
    shown: i64,
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("outbox: {0}")]
    Outbox(#[from] crate::capabilities::sql::SqlError),
    #[error(transparent)]
    Queue(#[from] crate::capabilities::events::QueueError),
    #[error(transparent)]
    Feed(#[from] crate::capabilities::hub::FeedError),
}

impl Relay {
    /// Runs until `shutdown`, and then until what is committed has left (or cannot, in which case it stays for the next start).
    pub fn spawn(
        outbox: Arc<dyn Outbox>,
        queue: Arc<dyn Queue>,
        feed: Arc<dyn Feed>,
        sockets: Arc<dyn Sockets>,
        shutdown: CancellationToken,
    ) -> JoinHandle<()> {
        tokio::spawn(Relay { outbox, queue, feed, sockets, shown: i64::MIN }.run(shutdown))
    }

    async fn run(mut self, shutdown: CancellationToken) {
        let signal = self.outbox.signal();
        let mut pause = Duration::from_millis(limits::RELAY_RETRY_FIRST_MS);
        loop {
            // Before looking, so that a commit during the look rings again.
            let ended = shutdown.is_cancelled();
            match self.move_batch().await {
                Ok(0) if ended => return,
                Ok(0) => {
                    pause = Duration::from_millis(limits::RELAY_RETRY_FIRST_MS);
                    let tick = Duration::from_millis(limits::RELAY_TICK_MS);
                    tokio::select! {
                        () = signal.notified() => {}
                        () = tokio::time::sleep(tick) => {}
                        () = shutdown.cancelled() => {}
                    }
                }
                Ok(_) => {}
                Err(error) if ended => {
                    tracing::warn!(source = self.outbox.source(), %error, "effects stay in the outbox until the next start");
                    return;
                }
                Err(error) => {
                    tracing::warn!(source = self.outbox.source(), %error, retry_ms = pause.as_millis() as u64, "effects cannot leave yet");
                    shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
                    pause = (pause * 2).min(Duration::from_millis(limits::RELAY_RETRY_LAST_MS));
                }
            }
        }
    }

    /// How many effects have left.
    async fn move_batch(&mut self) -> Result<usize, RelayError> {
        let effects = self.outbox.peek(limits::RELAY_BATCH).await?;
        let count = effects.len();
        let Some(&(last, _)) = effects.last() else { return Ok(0) };
        let mut events: Vec<(i64, Event)> = Vec::new();
        let mut durable: Vec<(i64, Push)> = Vec::new();
        let mut ephemeral: Vec<(i64, Push)> = Vec::new();
        for (position, effect) in effects {
            match effect {
                Effect::Event(event) => events.push((position, event)),
                Effect::Push(push) if push.class == Class::Durable => durable.push((position, push)),
                Effect::Push(push) => ephemeral.push((position, push)),
            }
        }
        // Devices before services: a person waits for the one, nobody sees the other.
        if !durable.is_empty() {
            let entries = self.feed.append(self.outbox.source(), &durable).await?;
            self.sockets.deliver(&entries);
        }
        for (_, push) in ephemeral.iter().filter(|(position, _)| *position > self.shown) {
            self.sockets.deliver_ephemeral(push);
        }
        self.shown = last;
        if !events.is_empty() {
            self.queue.publish(self.outbox.source(), &events).await?;
        }
        self.outbox.remove_up_to(last).await?;
        Ok(count)
    }
}
