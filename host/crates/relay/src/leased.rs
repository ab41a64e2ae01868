//! Out of an outbox that hosts share: while this host has the lease, effects leave here, in order, exactly once; the events among them go on to the queue by
//! a `Relay` of their own. Knows no backends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Moved, Relay, RelayError};
use echo_base::backoff::Backoff;
use echo_base::limits;
use echo_capabilities::events::Queue;
use echo_capabilities::hub::{Feed, LeasedOutbox, Sockets};

/// Moves the effects of one outbox whenever this host has its lease.
pub struct LeasedRelay {
    outbox: Arc<dyn LeasedOutbox>,
    queue: Arc<dyn Queue>,
    feed: Arc<dyn Feed>,
    sockets: Arc<dyn Sockets>,
    /// While this host has the lease.
    events: Option<Events>,
    /// When the feed is to number the pushes with a state that it keeps.
    release_at: Option<Instant>,
    has_continued: bool,
    /// Whether the last batch left some for the next.
    has_more: bool,
}

/// The way of the events to the queue.
struct Events {
    stop: CancellationToken,
    relay: JoinHandle<()>,
}

impl LeasedRelay {
    /// Runs until `shutdown`, and then until what is committed has left (or cannot, in which case another host takes it, or the next start).
    pub fn spawn(
        outbox: Arc<dyn LeasedOutbox>,
        queue: Arc<dyn Queue>,
        feed: Arc<dyn Feed>,
        sockets: Arc<dyn Sockets>,
        shutdown: CancellationToken,
    ) -> JoinHandle<()> {
        let relay = Self { outbox, queue, feed, sockets, events: None, release_at: None, has_continued: false, has_more: false };
        tokio::spawn(relay.run(shutdown))
    }

    async fn run(mut self, shutdown: CancellationToken) {
        let signal = self.outbox.signal();
        let tick = Duration::from_millis(limits::RELAY_TICK_MS);
        let mut backoff = Backoff::from_ms(limits::RELAY_RETRY_FIRST_MS, limits::RELAY_RETRY_LAST_MS);
        loop {
            // Before looking, so that a commit during the look notifies again.
            let ended = shutdown.is_cancelled();
            let began_at = tokio::time::Instant::now();
            match self.step(ended).await {
                Ok(Moved { effects: 0, .. }) if ended => break,
                Ok(moved) => {
                    backoff.reset();
                    let took = began_at.elapsed();
                    if !self.has_more && !ended {
                        let look_again = self.release_at.map(tokio::time::Instant::from).unwrap_or(began_at + tick);
                        tokio::select! {
                            // Whatever was committed since the look began.
                            () = signal.notified() => {}
                            () = tokio::time::sleep_until(look_again.min(began_at + tick)) => {}
                            () = shutdown.cancelled() => {}
                        }
                    }
                    match moved.next_after(took) {
                        Duration::ZERO => tokio::task::yield_now().await,
                        pause => drop(shutdown.run_until_cancelled(tokio::time::sleep_until(began_at + pause)).await),
                    }
                }
                Err(error) if ended => {
                    tracing::warn!(source = self.outbox.source(), %error, "effects stay in the outbox until a host takes them");
                    break;
                }
                Err(error) => {
                    let pause = backoff.pause();
                    tracing::warn!(source = self.outbox.source(), %error, retry_ms = pause.as_millis() as u64, "effects cannot leave yet");
                    shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
                }
            }
        }
        let held = self.events.is_some();
        self.end_events(true).await;
        if held && let Err(error) = self.outbox.surrender().await {
            tracing::warn!(source = self.outbox.source(), %error, "another host has to wait for the lease");
        }
    }

    /// One batch, where this host has the lease or can have it.
    async fn step(&mut self, ended: bool) -> Result<Moved, RelayError> {
        self.has_more = false;
        if self.events.is_none() {
            // A host that ends takes over from nobody.
            if ended || !self.outbox.lease().await? {
                return Ok(Moved::default());
            }
            self.begin_events().await?;
            // Whoever had the lease before may have left some.
            self.release_at = Some(Instant::now());
        }
        let mut released = 0;
        if self.release_at.is_some_and(|at| ended || Instant::now() >= at) {
            let Some(entries) = self.outbox.release().await? else { return Ok(self.lost().await) };
            self.release_at = None;
            released = entries.len();
            self.sockets.deliver(&entries);
        }
        let Some(relayed) = self.outbox.relay().await? else { return Ok(self.lost().await) };
        self.has_more = relayed.has_more;
        self.sockets.deliver(&relayed.entries);
        for push in &relayed.ephemeral {
            self.sockets.deliver_ephemeral(push);
        }
        if relayed.has_states && self.release_at.is_none() {
            self.release_at = Some(Instant::now() + Duration::from_millis(limits::FEED_STATE_GATHER_MS));
        }
        Ok(Moved { effects: relayed.effects + released, bytes: relayed.bytes })
    }

    async fn begin_events(&mut self) -> Result<(), RelayError> {
        let events = self.outbox.events();
        if !self.has_continued {
            // Before any has left: a database of the past would give out positions again that the queue has seen.
            match self.queue.position(events.source()).await {
                Ok(position) => {
                    position.into_iter().for_each(|position| events.start_above(position));
                    self.has_continued = true;
                }
                // Pushes do not wait for a queue that is away.
                Err(error) => tracing::warn!(source = events.source(), %error, "the queue does not say what it has seen"),
            }
        }
        let stop = CancellationToken::new();
        let relay = Relay::of_events(events, self.queue.clone(), self.feed.clone(), self.sockets.clone());
        self.events = Some(Events { relay: tokio::spawn(relay.run(stop.clone())), stop });
        Ok(())
    }

    async fn lost(&mut self) -> Moved {
        tracing::info!(source = self.outbox.source(), "another host relays these effects now");
        self.end_events(false).await;
        self.release_at = None;
        Moved::default()
    }

    /// With `all`, those that wait leave first. The queue knows what it has taken, should another host publish them again.
    async fn end_events(&mut self, all: bool) {
        let Some(Events { stop, relay }) = self.events.take() else { return };
        stop.cancel();
        if !all {
            relay.abort();
        }
        // A panic was logged where it happened; the events stay in the log.
        let _ = relay.await;
    }
}
