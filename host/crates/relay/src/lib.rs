//! From the outbox to the queue, the feed and the sockets: what a commit released leaves here, in order, at least once. Queue and
//! feed remember how far a source has come, so handing a batch over again adds nothing. Knows no backends.

mod leased;
#[cfg(test)]
mod losses;

pub use leased::LeasedRelay;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use echo_base::backoff::Backoff;
use echo_base::limits;
use echo_capabilities::events::{Confirmed, Event, Queue, QueueError};
use echo_capabilities::hub::{Class, Feed, FeedChange, Push, Sockets};
use echo_capabilities::sql::{Effect, Outbox};

/// Empties one outbox.
pub struct Relay {
    outbox: Arc<dyn Outbox>,
    queue: Arc<dyn Queue>,
    feed: Arc<dyn Feed>,
    sockets: Arc<dyn Sockets>,
    /// All up to here was taken from the outbox, and its pushes have left.
    taken: i64,
    /// The events up to here were taken: behind `taken` where the queue is away and more wait than memory is for. They stay in the outbox.
    events_taken: i64,
    /// Events that have not left yet: services can wait a moment, and many cost the queue little more than one.
    waiting: Vec<(i64, Event)>,
    /// Of those and of the ones that are being published.
    waiting_bytes: usize,
    /// The events before those. Pushes go on meanwhile, however long the queue takes.
    publication: Option<Publication>,
    publish_timeout: Duration,
    published_at: Instant,
    /// When the feed is to number the pushes with a state that it keeps.
    release_at: Option<Instant>,
    /// While the queue takes nothing: when it is asked again, and the pauses between.
    publish_again_at: Option<Instant>,
    publish_backoff: Backoff,
    /// Ephemeral pushes up to here have been handed to the sockets: nothing that receives them keeps positions, so that doubles are prevented here.
    shown: i64,
    /// Effects that have left and are still in the outbox, and since when.
    left: usize,
    cleared_at: Instant,
    /// The queue's losses when the outbox was read from its oldest on.
    losses: u64,
    /// Events that nobody needs any more and that are still in the outbox.
    confirmed: Vec<i64>,
}

/// Events that are handed to the queue, in a task of their own.
struct Publication {
    events: Arc<Vec<(i64, Event)>>,
    outcome: JoinHandle<Result<(), QueueError>>,
}

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("outbox: {0}")]
    Outbox(#[from] echo_capabilities::sql::SqlError),
    #[error(transparent)]
    Feed(#[from] echo_capabilities::hub::FeedError),
    #[error(transparent)]
    Queue(#[from] echo_capabilities::events::QueueError),
}

/// One batch.
#[derive(Default)]
struct Moved {
    effects: usize,
    bytes: usize,
}

impl Moved {
    /// How long after this batch, which took so long, the next one begins, counted from its begin.
    fn next_after(&self, took: Duration) -> Duration {
        let gathered = Duration::from_millis(limits::RELAY_GATHER_MS);
        if self.effects >= limits::RELAY_LARGE_BATCH || self.bytes >= limits::RELAY_BYTES_MAX {
            // Whoever makes effects without end leaves the processor to others.
            gathered.max(took * (1 + limits::RELAY_REST))
        } else if self.effects >= limits::RELAY_GATHER_EFFECTS {
            // Commits follow each other closely: some gather, as a batch costs little more than a single effect.
            gathered
        } else {
            // What is committed while one batch leaves makes the next.
            Duration::ZERO
        }
    }
}

impl Relay {
    /// Before anything is committed: what leaves this outbox from now on is above all that its receivers have seen of it. A file that was restored, or
    /// that lost its last commits with the power, would else give out positions again, and what is new under them would be passed over.
    pub async fn continue_above(outbox: &dyn Outbox, queue: &dyn Queue, feed: &dyn Feed) -> Result<(), RelayError> {
        let source = outbox.source();
        let seen = feed.position(source).await?.max(queue.position(source).await?);
        if let Some(position) = seen {
            outbox.start_above(position);
        }
        Ok(())
    }

    /// Runs until `shutdown`, and then until what is committed has left (or cannot, in which case it stays for the next start).
    pub fn spawn(
        outbox: Arc<dyn Outbox>,
        queue: Arc<dyn Queue>,
        feed: Arc<dyn Feed>,
        sockets: Arc<dyn Sockets>,
        shutdown: CancellationToken,
    ) -> JoinHandle<()> {
        tokio::spawn(Relay::new(outbox, queue, feed, sockets).run(shutdown))
    }

    /// Of an outbox in which there is nothing but events.
    fn of_events(outbox: Arc<dyn Outbox>, queue: Arc<dyn Queue>, feed: Arc<dyn Feed>, sockets: Arc<dyn Sockets>) -> Self {
        Self { release_at: None, ..Self::new(outbox, queue, feed, sockets) }
    }

    fn new(outbox: Arc<dyn Outbox>, queue: Arc<dyn Queue>, feed: Arc<dyn Feed>, sockets: Arc<dyn Sockets>) -> Self {
        let now = Instant::now();
        Relay {
            losses: queue.losses(),
            confirmed: Vec::new(),
            outbox,
            queue,
            feed,
            sockets,
            taken: i64::MIN,
            events_taken: i64::MIN,
            waiting: Vec::new(),
            waiting_bytes: 0,
            publication: None,
            publish_timeout: Duration::from_millis(limits::RELAY_PUBLISH_TIMEOUT_MS),
            published_at: now,
            // The last run may have left some.
            release_at: Some(now),
            publish_again_at: None,
            publish_backoff: Backoff::from_ms(limits::RELAY_RETRY_FIRST_MS, limits::RELAY_RETRY_LAST_MS),
            shown: i64::MIN,
            left: 0,
            cleared_at: now,
        }
    }

    async fn run(mut self, shutdown: CancellationToken) {
        let signal = self.outbox.signal();
        let tick = Duration::from_millis(limits::RELAY_TICK_MS);
        let mut backoff = Backoff::from_ms(limits::RELAY_RETRY_FIRST_MS, limits::RELAY_RETRY_LAST_MS);
        loop {
            // Read before the outbox is, so that a commit meanwhile notifies again.
            let ended = shutdown.is_cancelled();
            let began_at = tokio::time::Instant::now();
            self.begin_again_after_losses().await;
            match self.move_batch(ended).await {
                Ok(Moved { effects: 0, .. }) if ended => {
                    self.clear().await;
                    if self.has_events() {
                        tracing::warn!(source = self.outbox.source(), "events stay in the outbox until the next start");
                    }
                    return;
                }
                Ok(Moved { effects: 0, .. }) => {
                    backoff.reset();
                    // While some are being published, the others wait for the end of that.
                    let publish_at = (self.has_events() && self.publication.is_none()).then(|| self.publish_at());
                    let look_again = publish_at.into_iter().chain(self.release_at).map(Into::into).min().unwrap_or(began_at + tick);
                    tokio::select! {
                        () = signal.notified() => {}
                        outcome = published(&mut self.publication) => drop(self.end_publication(outcome)),
                        () = tokio::time::sleep_until(look_again) => {}
                        () = shutdown.cancelled() => {}
                    }
                }
                Ok(moved) => match moved.next_after(began_at.elapsed()) {
                    Duration::ZERO => tokio::task::yield_now().await,
                    pause => drop(shutdown.run_until_cancelled(tokio::time::sleep_until(began_at + pause)).await),
                },
                Err(error) if ended => {
                    tracing::warn!(source = self.outbox.source(), %error, "effects stay in the outbox until the next start");
                    return;
                }
                Err(error) => {
                    let pause = backoff.pause();
                    tracing::warn!(source = self.outbox.source(), %error, retry_ms = pause.as_millis() as u64, "effects cannot leave yet");
                    shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
                }
            }
            if self.left >= limits::RELAY_CLEAR_EFFECTS || self.cleared_at.elapsed() >= tick {
                self.clear().await;
            }
        }
    }

    /// Takes what has left out of the outbox. Not at once, because that takes the writer from those who write; should the host die before,
    /// queue and feed know what they have.
    async fn clear(&mut self) {
        self.cleared_at = Instant::now();
        match self.queue.confirmed(self.outbox.source()).await {
            Ok(Confirmed::Published) => {}
            Ok(Confirmed::Positions(confirmed)) => {
                self.confirmed.extend(confirmed);
                return self.remove_confirmed().await;
            }
            Err(error) => return tracing::debug!(source = self.outbox.source(), %error, "events are kept until they are confirmed"),
        }
        if self.left == 0 {
            return;
        }
        let publishing = self.publication.as_ref().and_then(|publication| publication.events.first());
        let moved = publishing.or(self.waiting.first()).map_or(self.events_taken, |(position, _)| position - 1);
        match self.outbox.remove_up_to(moved).await {
            Ok(()) => self.left = usize::from(self.has_events()),
            Err(error) => tracing::warn!(source = self.outbox.source(), %error, "what has left stays in the outbox for now"),
        }
    }

    async fn remove_confirmed(&mut self) {
        self.left = 0;
        while !self.confirmed.is_empty() {
            let some = self.confirmed.len().min(limits::RELAY_CLEAR_EFFECTS);
            if let Err(error) = self.outbox.remove(&self.confirmed[..some]).await {
                return tracing::warn!(source = self.outbox.source(), %error, "what is confirmed stays in the outbox for now");
            }
            self.confirmed.drain(..some);
        }
    }

    /// A queue that has lost events gets all that are kept, from the oldest on.
    async fn begin_again_after_losses(&mut self) {
        let losses = self.queue.losses();
        if losses == self.losses {
            return;
        }
        tracing::info!(source = self.outbox.source(), "events that are not confirmed are published again");
        if let Some(Publication { outcome, .. }) = self.publication.take() {
            outcome.abort();
            // It is over, one way or the other.
            let _ = outcome.await;
        }
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.outbox.rewind();
        (self.taken, self.events_taken) = (i64::MIN, i64::MIN);
        self.publish_again_at = None;
        self.publish_backoff.reset();
        self.losses = losses;
    }

    /// Whether events are committed that have not left.
    fn has_events(&self) -> bool {
        self.publication.is_some() || !self.waiting.is_empty() || self.events_taken < self.taken
    }

    /// Counts as one where no effects were there and events or what the feed kept left. They wait unless it is time for them, or `all` is to leave.
    async fn move_batch(&mut self, all: bool) -> Result<Moved, RelayError> {
        let mut published = self.publish(all).await;
        if self.release_at.is_some_and(|at| all || Instant::now() >= at) {
            let entries = self.feed.release(self.outbox.source()).await?;
            self.release_at = None;
            published |= !entries.is_empty();
            self.sockets.deliver(&entries);
        }
        self.take_events_left_behind().await?;
        let effects = self.outbox.peek(self.taken, limits::RELAY_BATCH).await?;
        let Some(&(last, _)) = effects.last() else { return Ok(Moved { effects: usize::from(published), ..Moved::default() }) };
        let moved = Moved { effects: effects.len(), bytes: effects.iter().map(|(_, effect)| effect.bytes()).sum() };
        let mut events: Vec<(i64, Event)> = Vec::new();
        let mut durable: Vec<(i64, FeedChange)> = Vec::new();
        let mut ephemeral: Vec<(i64, Push)> = Vec::new();
        for (position, effect) in effects {
            match effect {
                Effect::Event(event) => events.push((position, event)),
                Effect::Push(push) if push.class == Class::Durable => durable.push((position, FeedChange::Push(push))),
                Effect::Push(push) => ephemeral.push((position, push)),
                Effect::Replace(replacement) => durable.push((position, FeedChange::Replace(replacement))),
            }
        }
        // Pushes to devices first: people wait for them, and not for the events of services.
        if !durable.is_empty() {
            if self.release_at.is_none()
                && durable.iter().any(|(_, change)| matches!(change, FeedChange::Push(Push { state: Some(_), .. })))
            {
                self.release_at = Some(Instant::now() + Duration::from_millis(limits::FEED_STATE_GATHER_MS));
            }
            let entries = self.feed.apply(self.outbox.source(), &durable).await?;
            self.sockets.deliver(&entries);
        }
        for (_, push) in ephemeral.iter().filter(|(position, _)| *position > self.shown) {
            self.sockets.deliver_ephemeral(push);
        }
        self.shown = last;
        if self.events_taken == self.taken && self.has_room() {
            self.events_taken = last;
            self.wait_with(events);
        }
        self.taken = last;
        self.left += moved.effects;
        Ok(moved)
    }

    /// Pushes do not wait for a queue that is away, and memory is no place for all events of that time.
    fn has_room(&self) -> bool {
        let publishing = self.publication.as_ref().map_or(0, |publication| publication.events.len());
        publishing + self.waiting.len() < limits::RELAY_EVENTS_WAITING_MAX && self.waiting_bytes < limits::RELAY_BYTES_MAX
    }

    fn wait_with(&mut self, events: Vec<(i64, Event)>) {
        self.waiting_bytes += bytes_of(&events);
        self.waiting.extend(events);
    }

    /// Reads events again that were left in the outbox.
    async fn take_events_left_behind(&mut self) -> Result<(), RelayError> {
        if self.events_taken >= self.taken || !self.has_room() {
            return Ok(());
        }
        self.outbox.rewind();
        let effects = self.outbox.peek(self.events_taken, limits::RELAY_BATCH).await?;
        // What comes next is further on.
        self.outbox.rewind();
        let is_last = effects.last().is_none_or(|(position, _)| *position >= self.taken);
        self.events_taken = if is_last { self.taken } else { effects.last().map_or(self.taken, |(position, _)| *position) };
        let taken = self.taken;
        let events = effects.into_iter().filter(|(position, _)| *position <= taken);
        let events = events.filter_map(|(position, effect)| match effect {
            Effect::Event(event) => Some((position, event)),
            Effect::Push(_) | Effect::Replace(_) => None,
        });
        self.wait_with(events.collect());
        Ok(())
    }

    /// When the events that wait are to leave: at once, unless others left just before, or the queue took none.
    fn publish_at(&self) -> Instant {
        if let Some(at) = self.publish_again_at {
            return at;
        }
        let gather = if self.waiting.len() < limits::RELAY_BATCH { limits::RELAY_EVENTS_GATHER_MS } else { 0 };
        self.published_at + Duration::from_millis(gather)
    }

    /// Begins to hand the events that wait to the queue, where it is time for that and no others are under way; with `all` to its end. Whether events
    /// have left. Where the queue takes none, or does not answer, the outbox keeps them and all else goes on.
    async fn publish(&mut self, all: bool) -> bool {
        let mut has_published = false;
        if self.publication.as_ref().is_some_and(|publication| all || publication.outcome.is_finished()) {
            let outcome = published(&mut self.publication).await;
            has_published = self.end_publication(outcome);
            if all && !has_published {
                return false;
            }
        }
        if self.publication.is_some() || self.waiting.is_empty() || !(all || Instant::now() >= self.publish_at()) {
            return has_published;
        }
        let events = Arc::new(std::mem::take(&mut self.waiting));
        let (queue, outbox, handed_over, timeout) = (self.queue.clone(), self.outbox.clone(), events.clone(), self.publish_timeout);
        let losses = self.losses;
        let outcome = tokio::spawn(async move {
            let published = tokio::time::timeout(timeout, queue.publish_since(losses, outbox.source(), &handed_over)).await;
            published.unwrap_or_else(|_| Err(QueueError::Unavailable(format!("it did not answer within {} ms", timeout.as_millis()))))
        });
        self.publication = Some(Publication { events, outcome });
        if all {
            let outcome = published(&mut self.publication).await;
            has_published |= self.end_publication(outcome);
        }
        has_published
    }

    /// Whether events have left.
    fn end_publication(&mut self, outcome: Result<(), QueueError>) -> bool {
        let Some(Publication { events, .. }) = self.publication.take() else { return false };
        self.published_at = Instant::now();
        match outcome {
            Ok(()) => {
                self.waiting_bytes -= bytes_of(&events);
                self.outbox.refuse_events(false);
                self.publish_again_at = None;
                self.publish_backoff.reset();
                true
            }
            Err(error) => {
                // Whoever makes more of them is told to come back later: memory and disk are no place for what nobody takes.
                let first = events.first().map_or(self.taken, |(position, _)| *position);
                if matches!(error, QueueError::Full { .. }) || self.taken.saturating_sub(first) > limits::OUTBOX_BEHIND_MAX {
                    metrics::counter!("echo_outbox_events_refused_total").increment(1);
                    self.outbox.refuse_events(true);
                }
                let later = std::mem::replace(&mut self.waiting, Arc::unwrap_or_clone(events));
                self.waiting.extend(later);
                let pause = self.publish_backoff.pause();
                let retry_ms = pause.as_millis() as u64;
                tracing::warn!(source = self.outbox.source(), %error, retry_ms, waiting = self.waiting.len(), "events cannot leave yet");
                self.publish_again_at = Some(self.published_at + pause);
                false
            }
        }
    }
}

/// Never, where nothing is being published.
async fn published(publication: &mut Option<Publication>) -> Result<(), QueueError> {
    let Some(publication) = publication else { return std::future::pending().await };
    (&mut publication.outcome).await.unwrap_or_else(|error| Err(QueueError::Unavailable(error.to_string())))
}

fn bytes_of(events: &[(i64, Event)]) -> usize {
    events.iter().map(|(_, event)| event.payload.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Instant;

    use async_trait::async_trait;
    use echo_fixture::killed;
    use parking_lot::Mutex;
    use tokio::sync::Notify;
    use uuid::Uuid;

    use super::*;
    use echo_base::names::ServiceName;
    use echo_capabilities::events::embedded::EmbeddedQueue;
    use echo_capabilities::events::{ConsumerState, DeadLetter, Handler, Outcome, QueueError};
    use echo_capabilities::hub::FeedEntry;
    use echo_capabilities::hub::FeedError;
    use echo_capabilities::hub::embedded::EmbeddedFeed;
    use echo_capabilities::sql::sqlite::{Durability, SqliteBackend};
    use echo_capabilities::sql::{Database, ErrorClass, SqlBackend, SqlError};

    /// Everything that arrives, at sockets and at a subscriber.
    #[derive(Default)]
    struct Arrivals {
        entries: Mutex<Vec<FeedEntry>>,
        ephemeral: Mutex<Vec<String>>,
        events: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Sockets for Arrivals {
        fn deliver(&self, entries: &[FeedEntry]) {
            self.entries.lock().extend_from_slice(entries);
        }

        fn deliver_ephemeral(&self, push: &Push) {
            self.ephemeral.lock().push(push.payload.clone());
        }

        async fn online(&self, _: &[Uuid]) -> Result<Vec<Uuid>, FeedError> {
            Ok(Vec::new())
        }

        fn disconnect_session(&self, _: Uuid) {}

        fn disconnect_user(&self, _: Uuid) {}
    }

    struct Subscriber(Arc<Arrivals>);

    #[async_trait]
    impl Handler for Subscriber {
        async fn handle(&self, event: &Event) -> Outcome {
            self.0.events.lock().push(event.payload.clone());
            Outcome::Done
        }
    }

    /// Refuses a few times before it passes on, has no room while it is full, and does not answer at all while it hangs.
    struct FlakyQueue {
        queue: Arc<dyn Queue>,
        refusals: Arc<AtomicUsize>,
        hangs: Arc<AtomicBool>,
        is_full: Arc<AtomicBool>,
    }

    #[async_trait]
    impl Queue for FlakyQueue {
        async fn publish_since(&self, losses: u64, source: &str, events: &[(i64, Event)]) -> Result<(), QueueError> {
            if self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Err(QueueError::Unavailable("not now".to_owned()));
            }
            if self.is_full.load(Ordering::SeqCst) {
                return Err(QueueError::Full { publisher: "alpha".to_owned() });
            }
            if self.hangs.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            self.queue.publish_since(losses, source, events).await
        }

        async fn position(&self, source: &str) -> Result<Option<i64>, QueueError> {
            self.queue.position(source).await
        }

        async fn declare(&self, consumer: &ServiceName, topics: Vec<String>) -> Result<(), QueueError> {
            self.queue.declare(consumer, topics).await
        }

        async fn consume(&self, consumer: &ServiceName, handler: Arc<dyn Handler>) -> Result<(), QueueError> {
            self.queue.consume(consumer, handler).await
        }

        async fn has_subscribers(&self, topic: &str) -> Result<bool, QueueError> {
            self.queue.has_subscribers(topic).await
        }

        async fn stop(&self) {
            self.queue.stop().await;
        }

        async fn state(&self) -> Result<Vec<ConsumerState>, QueueError> {
            self.queue.state().await
        }

        async fn dead_letters(&self, consumer: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
            self.queue.dead_letters(consumer, limit).await
        }

        async fn replay(&self, id: &str) -> Result<(), QueueError> {
            self.queue.replay(id).await
        }

        async fn drop_dead_letter(&self, id: &str) -> Result<(), QueueError> {
            self.queue.drop_dead_letter(id).await
        }
        async fn expire_dead_letters(&self, before_us: u64) -> Result<u64, QueueError> {
            self.queue.expire_dead_letters(before_us).await
        }

        async fn ping(&self) -> Result<(), QueueError> {
            self.queue.ping().await
        }

        async fn close(&self) {
            self.queue.close().await;
        }
    }

    struct Fixture {
        backend: SqliteBackend,
        database: Arc<dyn Database>,
        /// Its lanes end with it.
        queue: Arc<dyn Queue>,
        feed: Arc<EmbeddedFeed>,
        arrivals: Arc<Arrivals>,
        /// How often the queue still refuses.
        refusals: Arc<AtomicUsize>,
        hangs: Arc<AtomicBool>,
        is_full: Arc<AtomicBool>,
        shutdown: CancellationToken,
        relay: JoinHandle<()>,
    }

    async fn fixture(folder: &Path, refusals: usize, handler: Option<Arc<dyn Handler>>) -> Fixture {
        let backend = SqliteBackend::new(folder);
        let database = backend.open(&ServiceName::parse("alpha").expect("a good name")).await.expect("opens");
        let queue = Arc::new(EmbeddedQueue::open(folder, Durability::default()).await.expect("opens"));
        let feed = Arc::new(EmbeddedFeed::open(folder, Durability::default()).await.expect("opens"));
        let arrivals = Arc::new(Arrivals::default());
        let handler = handler.unwrap_or_else(|| Arc::new(Subscriber(arrivals.clone())));
        let subscriber = ServiceName::parse("beta").expect("a good name");
        queue.subscribe(&subscriber, vec!["a.a".to_owned()], handler).await.expect("subscribes");
        let refusals = Arc::new(AtomicUsize::new(refusals));
        let (hangs, is_full): (Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
        let queue: Arc<dyn Queue> =
            Arc::new(FlakyQueue { queue, refusals: refusals.clone(), hangs: hangs.clone(), is_full: is_full.clone() });
        let shutdown = CancellationToken::new();
        Relay::continue_above(database.as_ref(), queue.as_ref(), feed.as_ref()).await.expect("both answer");
        let relay = Relay {
            publish_timeout: Duration::from_millis(200),
            ..Relay::new(database.clone(), queue.clone(), feed.clone(), arrivals.clone())
        };
        let relay = tokio::spawn(relay.run(shutdown.clone()));
        Fixture { backend, database, queue, feed, arrivals, refusals, hangs, is_full, shutdown, relay }
    }

    impl Fixture {
        /// All has left, and the files are closed.
        async fn end(self) {
            self.shutdown.cancel();
            tokio::time::timeout(Duration::from_secs(10), self.relay).await.expect("it ends").expect("no panic");
            self.backend.close().await;
            self.queue.stop().await;
            self.feed.close().await;
        }
    }

    fn event(payload: &str) -> Effect {
        Effect::Event(Event {
            id: Uuid::now_v7(),
            topic: "a.a".to_owned(),
            key: "k".to_owned(),
            payload: payload.to_owned(),
            at_us: 1,
            correlation_id: String::new(),
        })
    }

    fn push(user: Uuid, payload: &str, class: Class) -> Effect {
        Effect::Push(Push {
            users: vec![user],
            event: "message".to_owned(),
            payload: payload.to_owned(),
            class,
            receipt: None,
            subject: None,
            state: None,
        })
    }

    async fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !condition() {
            assert!(begin.elapsed() < Duration::from_secs(20), "{what} never came");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_committed_arrives_once_and_in_order_though_the_queue_is_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let Fixture { database, queue: _queue, arrivals, shutdown, relay, .. } = fixture(folder.path(), 3, None).await;
        let user = Uuid::now_v7();
        // More than one batch.
        let count = limits::RELAY_BATCH + 20;
        for number in 0..count {
            let mut transaction = database.begin().await.expect("begins");
            transaction.emit(event(&number.to_string())).await.expect("emits");
            transaction.emit(push(user, &number.to_string(), Class::Durable)).await.expect("emits");
            transaction.emit(push(user, &number.to_string(), Class::Ephemeral)).await.expect("emits");
            transaction.commit().await.expect("commits");
        }
        until("the last event", || arrivals.events.lock().len() >= count).await;
        let expect: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        assert_eq!(*arrivals.events.lock(), expect);
        assert_eq!(*arrivals.ephemeral.lock(), expect);
        let entries: Vec<(u64, String)> =
            arrivals.entries.lock().iter().map(|entry| (entry.seq, entry.payload.as_ref().to_owned())).collect();
        assert_eq!(entries, (1..).zip(expect).collect::<Vec<_>>());

        // The end: what is committed before it still leaves.
        database.emit(vec![push(user, "\"last\"", Class::Durable)]).await.expect("emits");
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), relay).await.expect("it ends").expect("no panic");
        assert_eq!(arrivals.entries.lock().last().map(|entry| entry.seq), Some(count as u64 + 1));
        assert_eq!(database.peek(i64::MIN, 1).await.expect("peeks"), []);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn pushes_arrive_though_the_queue_takes_nothing_and_its_events_come_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let fixture = fixture(folder.path(), usize::MAX, None).await;
        let user = Uuid::now_v7();
        // More than the relay holds of events, so that some stay in the outbox alone.
        let count = limits::RELAY_EVENTS_WAITING_MAX + 2 * limits::RELAY_BATCH + 20;
        for number in 0..count {
            let mut transaction = fixture.database.begin().await.expect("begins");
            transaction.emit(event(&number.to_string())).await.expect("emits");
            transaction.emit(push(user, &number.to_string(), Class::Durable)).await.expect("emits");
            transaction.commit().await.expect("commits");
        }
        until("the last push", || fixture.arrivals.entries.lock().len() >= count).await;
        assert!(fixture.arrivals.events.lock().is_empty(), "the queue was away");
        fixture.refusals.store(0, Ordering::SeqCst);
        until("the last event", || fixture.arrivals.events.lock().len() >= count).await;
        let expect: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        assert_eq!(*fixture.arrivals.events.lock(), expect, "each once, and in their order");
        // What comes now goes on as before, and nothing stays behind.
        fixture.database.emit(vec![event("next"), push(user, "\"next\"", Class::Durable)]).await.expect("emits");
        until("the next event", || fixture.arrivals.events.lock().len() > count).await;
        fixture.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), fixture.relay).await.expect("it ends").expect("no panic");
        assert_eq!(fixture.arrivals.entries.lock().len(), count + 1);
        assert_eq!(fixture.database.peek(i64::MIN, 1).await.expect("peeks"), []);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn pushes_arrive_though_the_queue_does_not_answer_and_its_events_come_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let fixture = fixture(folder.path(), 0, None).await;
        fixture.hangs.store(true, Ordering::SeqCst);
        let user = Uuid::now_v7();
        let count = 300;
        let begin = Instant::now();
        for number in 0..count {
            let mut transaction = fixture.database.begin().await.expect("begins");
            transaction.emit(event(&number.to_string())).await.expect("emits");
            transaction.emit(push(user, &number.to_string(), Class::Durable)).await.expect("emits");
            transaction.commit().await.expect("commits");
            until("its push", || fixture.arrivals.entries.lock().len() > number).await;
        }
        // Each push would have waited for a time-out of its own.
        assert!(begin.elapsed() < 30 * Duration::from_millis(200), "{:?}", begin.elapsed());
        assert!(fixture.arrivals.events.lock().is_empty(), "the queue took nothing");
        fixture.hangs.store(false, Ordering::SeqCst);
        until("the last event", || fixture.arrivals.events.lock().len() >= count).await;
        let expect: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        assert_eq!(*fixture.arrivals.events.lock(), expect, "each once, and in their order");
        // Nor does the end of the host wait for it for long; what is committed stays for the next start.
        fixture.hangs.store(true, Ordering::SeqCst);
        fixture.database.emit(vec![event("last")]).await.expect("emits");
        fixture.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(5), fixture.relay).await.expect("it ends").expect("no panic");
        fixture.database.rewind();
        assert_eq!(fixture.database.peek(i64::MIN, 1).await.expect("peeks").len(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn while_the_queue_has_no_room_events_are_refused_before_their_commit_and_pushes_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let fixture = fixture(folder.path(), 0, None).await;
        let (database, user) = (&fixture.database, Uuid::now_v7());
        fixture.is_full.store(true, Ordering::SeqCst);
        let mut taken = Vec::new();
        let until_refused = Instant::now() + Duration::from_secs(20);
        let refused = loop {
            assert!(Instant::now() < until_refused, "{} events were taken", taken.len());
            let payload = taken.len().to_string();
            match database.emit(vec![event(&payload)]).await {
                Ok(()) => taken.push(payload),
                Err(error) => break error,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        assert_eq!(refused.class, ErrorClass::Unavailable, "{refused}");
        let mut transaction = database.begin().await.expect("begins");
        transaction.emit(event("within a transaction")).await.expect_err("refused too");
        drop(transaction);
        database.emit(vec![push(user, "\"push\"", Class::Durable)]).await.expect("pushes wait for no subscriber");
        until("the push", || fixture.arrivals.entries.lock().len() == 1).await;

        fixture.is_full.store(false, Ordering::SeqCst);
        until("what was taken", || fixture.arrivals.events.lock().len() >= taken.len()).await;
        let until_taken = Instant::now() + Duration::from_secs(20);
        while let Err(error) = database.emit(vec![event("after")]).await {
            assert!(Instant::now() < until_taken, "there is room again: {error}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        taken.push("after".to_owned());
        until("the last one", || fixture.arrivals.events.lock().len() >= taken.len()).await;
        assert_eq!(*fixture.arrivals.events.lock(), taken, "what was taken arrives once, what was refused never does");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_restored_file_loses_nothing_that_comes_after_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let user = Uuid::now_v7();
        let send = async |fixture: &Fixture, numbers: std::ops::Range<usize>| {
            for number in numbers {
                let effects = vec![event(&number.to_string()), push(user, &number.to_string(), Class::Durable)];
                fixture.database.emit(effects).await.expect("emits");
            }
        };
        let (file, copy) = (folder.path().join("alpha.sqlite"), folder.path().join("copy"));
        let first = fixture(folder.path(), 0, None).await;
        send(&first, 0..5).await;
        first.end().await;
        std::fs::copy(&file, &copy).expect("a copy");
        let second = fixture(folder.path(), 0, None).await;
        send(&second, 5..20).await;
        second.end().await;

        std::fs::copy(&copy, &file).expect("restored");
        let third = fixture(folder.path(), 0, None).await;
        send(&third, 100..103).await;
        until("the new events", || third.arrivals.events.lock().len() >= 3).await;
        until("the new pushes", || third.arrivals.entries.lock().len() >= 3).await;
        assert_eq!(*third.arrivals.events.lock(), ["100", "101", "102"]);
        let entries: Vec<(u64, String)> =
            third.arrivals.entries.lock().iter().map(|entry| (entry.seq, entry.payload.to_string())).collect();
        assert_eq!(entries, [(21, "100".to_owned()), (22, "101".to_owned()), (23, "102".to_owned())]);
        third.end().await;
    }

    /// Has a batch ready whenever it is asked, of these sizes.
    struct Batches {
        sizes: Mutex<VecDeque<usize>>,
        signal: Arc<Notify>,
    }

    #[async_trait]
    impl Outbox for Batches {
        fn source(&self) -> &str {
            "batches"
        }

        fn signal(&self) -> Arc<Notify> {
            self.signal.clone()
        }

        fn start_above(&self, _: i64) {}

        async fn peek(&self, after: i64, _: usize) -> Result<Vec<(i64, Effect)>, SqlError> {
            let size = self.sizes.lock().pop_front().unwrap_or(0);
            Ok((after.max(0) + 1..).take(size).map(|position| (position, push(Uuid::nil(), "1", Class::Ephemeral))).collect())
        }

        fn refuse_events(&self, _: bool) {}

        async fn remove_up_to(&self, _: i64) -> Result<(), SqlError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn after_a_large_batch_some_gather_and_after_a_small_one_none() {
        const GATHER: Duration = Duration::from_millis(limits::RELAY_GATHER_MS);
        let folder = tempfile::tempdir().expect("a folder");
        let Fixture { queue, feed, arrivals, .. } = fixture(folder.path(), 0, None).await;
        let time_of = async |count: u32, size: usize| {
            let sizes = Mutex::new(std::iter::repeat_n(size, count as usize).collect());
            let outbox = Arc::new(Batches { sizes, signal: Arc::default() });
            let begin = Instant::now();
            let shutdown = CancellationToken::new();
            let relay = Relay::spawn(outbox.clone(), queue.clone(), feed.clone(), arrivals.clone(), shutdown.clone());
            until("the last batch", || outbox.sizes.lock().is_empty()).await;
            let time = begin.elapsed();
            shutdown.cancel();
            relay.await.expect("no panic");
            time
        };
        let large = time_of(11, limits::RELAY_GATHER_EFFECTS).await;
        assert!(large >= 10 * GATHER, "{large:?}");
        let small = time_of(1_001, limits::RELAY_GATHER_EFFECTS - 1).await;
        assert!(small < 1_000 * GATHER, "{small:?}");
    }

    #[test]
    fn after_a_very_large_batch_others_have_the_processor() {
        const GATHER: Duration = Duration::from_millis(limits::RELAY_GATHER_MS);
        let next = |effects, bytes, took| Moved { effects, bytes }.next_after(took);
        assert_eq!(next(limits::RELAY_LARGE_BATCH - 1, 0, 10 * GATHER), GATHER, "it took long, but there was little");
        assert_eq!(next(limits::RELAY_LARGE_BATCH, 0, 10 * GATHER), 10 * GATHER * (1 + limits::RELAY_REST));
        assert_eq!(next(1, limits::RELAY_BYTES_MAX, 10 * GATHER), 10 * GATHER * (1 + limits::RELAY_REST));
        assert_eq!(next(limits::RELAY_LARGE_BATCH, 0, Duration::ZERO), GATHER);
    }

    /// Says what it handled to the process that will kill this one.
    struct Teller;

    #[async_trait]
    impl Handler for Teller {
        async fn handle(&self, event: &Event) -> Outcome {
            killed::acknowledge(format!("handled {}", event.payload));
            Outcome::Done
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_killed_process_loses_nothing_between_the_commit_and_the_subscriber() {
        const TEST: &str = "tests::a_killed_process_loses_nothing_between_the_commit_and_the_subscriber";
        let user = Uuid::from_u128(7);
        if let Some(folder) = killed::folder() {
            let Fixture { database, queue: _queue, .. } = fixture(&folder, 0, Some(Arc::new(Teller))).await;
            loop {
                let id = Uuid::now_v7().to_string();
                let mut transaction = database.begin().await.expect("begins");
                transaction.emit(event(&id)).await.expect("emits");
                transaction.emit(push(user, &id, Class::Durable)).await.expect("emits");
                transaction.commit().await.expect("commits");
                killed::acknowledge(format!("committed {id}"));
            }
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (mut committed, mut handled) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..4 {
            for line in killed::run(TEST, folder.path(), rand::random_range(1..600)) {
                match line.split_once(' ').expect("a word and an id") {
                    ("committed", id) => committed.insert(id.to_owned()),
                    (_, id) => handled.insert(id.to_owned()),
                };
            }
        }
        let Fixture { database, queue: _queue, feed, arrivals, shutdown, relay, .. } = fixture(folder.path(), 0, None).await;
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(20), relay).await.expect("it ends").expect("no panic");
        assert_eq!(database.peek(i64::MIN, 1).await.expect("peeks"), []);
        until("every committed event", || {
            let rest: BTreeSet<String> = arrivals.events.lock().iter().cloned().collect();
            committed.iter().all(|id| handled.contains(id) || rest.contains(id))
        })
        .await;

        let mut fed = Vec::new();
        loop {
            let page = feed.read(user, fed.len() as u64, limits::FEED_PAGE_MAX).await.expect("reads");
            if page.entries.is_empty() {
                break;
            }
            for entry in page.entries {
                assert_eq!(entry.seq, fed.len() as u64 + 1, "a gap in the feed");
                fed.push(entry.payload.as_ref().to_owned());
            }
        }
        let unique: BTreeSet<String> = fed.iter().cloned().collect();
        assert_eq!(unique.len(), fed.len(), "a push stands in the feed twice");
        assert!(committed.is_subset(&unique), "a committed push is lost");
    }
}
