//! One partition of one consumer's topic on this host: reads its events, hands them over one at a time, notes how far it has come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use async_nats::jetstream::kv::{Operation, UpdateErrorKind};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::super::backlog::Weight;
use super::super::delivery::{self, outcome_of};
use super::super::partition::{Item, Next, Partition};
use super::super::{Event, Handler, Outcome, QueueError};
use super::Core;
use super::progress::{Progress, progress_key};
use super::records::{PartitionKey, Subscription};
use super::streams::{Life, Message, away};
use echo_base::clock::now_us;
use echo_base::limits;

/// The handler of a consumer's events.
pub type HandlerCell = Arc<ArcSwapOption<Arc<dyn Handler>>>;

/// That there is something to read.
#[derive(Default)]
pub struct Wake {
    call: Notify,
    /// In which life something was published last, and the highest number of it.
    published: Mutex<(u64, u64)>,
}

impl Wake {
    pub fn wake(&self, life: u64, seq: u64) {
        {
            let mut published = self.published.lock();
            *published = (*published).max((life, seq));
        }
        self.call.notify_one();
    }

    fn is_ahead(&self, life: u64, read: u64) -> bool {
        *self.published.lock() > (life, read)
    }
}

/// What is handled, and by whom.
pub struct Assigned {
    pub key: PartitionKey,
    pub handler: HandlerCell,
    pub wake: Arc<Wake>,
}

/// Ends with `end`, after the event at hand.
pub async fn run(core: Arc<Core>, assigned: Assigned, end: CancellationToken) {
    while !end.is_cancelled() {
        if !core.has_leases() {
            end.run_until_cancelled(tokio::time::sleep(Duration::from_millis(limits::JETSTREAM_AGAIN_MS))).await;
            continue;
        }
        let begun = async {
            let life = core.life().await?;
            let subscription = core.subscription(&assigned.key.consumer, &assigned.key.topic).await?;
            let Some(subscription) = subscription.filter(Subscription::has_begun) else { return Ok(None) };
            Handling::open(&core, &assigned, life, &subscription).await.map(Some)
        };
        match begun.await {
            Ok(Some(mut handling)) => handling.run(&end).await,
            Ok(None) => {}
            Err(error) => {
                let PartitionKey { consumer, topic, number } = &assigned.key;
                tracing::debug!(consumer, topic, number, %error, "events cannot be read yet");
            }
        }
        if !end.is_cancelled() {
            end.run_until_cancelled(tokio::time::sleep(Duration::from_millis(limits::JETSTREAM_AGAIN_MS))).await;
        }
    }
}

struct Handling<'a> {
    core: &'a Core,
    assigned: &'a Assigned,
    life: Arc<Life>,
    subject: String,
    progress_key: String,
    subscription: i64,
    /// Of the key's value in the bucket; 0 where there is none.
    revision: u64,
    /// All up to here were handed over, or left aside; what is after it is read again by whoever comes next.
    passed: u64,
    /// What was read and is not done.
    open: BTreeMap<u64, (u32, u64)>,
    /// The last that was read.
    read: u64,
    partition: Partition,
    /// Since when something is not written down.
    dirty_since: Option<Instant>,
}

impl<'a> Handling<'a> {
    async fn open(core: &'a Core, assigned: &'a Assigned, life: Arc<Life>, subscription: &Subscription) -> Result<Self, QueueError> {
        let PartitionKey { consumer, topic, number } = &assigned.key;
        let progress_key = progress_key(consumer, topic, *number);
        let entry = life.bucket.entry(progress_key.as_str()).await.map_err(away)?;
        let revision = entry.as_ref().map_or(0, |entry| entry.revision);
        let kept = entry.filter(|entry| entry.operation == Operation::Put);
        let kept = kept.and_then(|entry| serde_json::from_slice::<Progress>(&entry.value).ok());
        let begin = || Progress { subscription: subscription.id, read: subscription.after(life.number), open: BTreeMap::new() };
        let mut progress = kept.filter(|progress| progress.subscription == subscription.id).unwrap_or_else(begin);
        let (now, now_us) = (Instant::now(), now_us());
        let mut items = Vec::new();
        for (seq, (tries, due_us)) in progress.open.clone() {
            let Some(message) = core.streams.event(&life, seq).await? else {
                progress.open.remove(&seq);
                continue;
            };
            let wait_us = due_us.saturating_sub(now_us);
            items.extend(item_of(&message, tries, (wait_us > 0).then(|| now + Duration::from_micros(wait_us))));
        }
        // From here on a host that had the partition before, and stood still, notes nothing any more.
        let value = serde_json::to_vec(&progress).expect("strings and numbers always encode");
        let revision = life.bucket.update(progress_key.as_str(), value.into(), revision).await.map_err(away)?;
        Ok(Self {
            core,
            assigned,
            subject: core.streams.subject(topic, *number),
            life,
            progress_key,
            subscription: subscription.id,
            revision,
            passed: progress.read,
            read: progress.read,
            partition: Partition::after(progress.read as i64, items),
            open: progress.open,
            dirty_since: None,
        })
    }

    async fn run(&mut self, end: &CancellationToken) {
        let tick = Duration::from_millis(limits::QUEUE_TICK_MS);
        let flush = Duration::from_millis(limits::JETSTREAM_FLUSH_MS);
        while !end.is_cancelled() && self.core.is_living(&self.life) {
            if self.dirty_since.is_some_and(|since| since.elapsed() >= flush) && !self.write().await {
                // Another host has it, or the bucket is away: how far it has come is read anew.
                return;
            }
            if !self.core.has_leases() {
                end.run_until_cancelled(tokio::time::sleep(Duration::from_millis(limits::JETSTREAM_AGAIN_MS))).await;
                continue;
            }
            match self.partition.next(Instant::now()) {
                Next::Handle(item) => self.handle(item).await,
                Next::Load(after) => {
                    if let Err(error) = self.load(after as u64).await {
                        let PartitionKey { consumer, topic, .. } = &self.assigned.key;
                        tracing::debug!(consumer, topic, %error, "events cannot be read yet");
                        self.partition.not_loaded();
                        end.run_until_cancelled(tokio::time::sleep(Duration::from_millis(limits::JETSTREAM_AGAIN_MS))).await;
                    }
                }
                Next::Wait(until) => {
                    let (core, life, wake) = (self.core, self.life.clone(), self.assigned.wake.clone());
                    // A replica may not have yet what was published.
                    let is_behind = wake.is_ahead(self.life.number, self.read);
                    let look_again = Instant::now() + if is_behind { Duration::from_millis(limits::JETSTREAM_REPLICA_MS) } else { tick };
                    let write_at = self.dirty_since.map(|since| since + flush);
                    let until = [until, write_at].into_iter().flatten().fold(look_again, Instant::min);
                    tokio::select! {
                        () = wake.call.notified() => self.partition.look_again(),
                        () = tokio::time::sleep_until(until.into()) => if until == look_again { self.partition.look_again() },
                        () = end.cancelled() => {}
                        () = core.ends(&life) => {}
                    }
                }
            }
        }
        if self.dirty_since.is_some() {
            self.write().await;
        }
    }

    async fn load(&mut self, after: u64) -> Result<(), QueueError> {
        let page = self.core.streams.events_after(&self.life, &self.subject, after, limits::QUEUE_PARTITION_EVENTS_MAX).await?;
        let more = page.further > 0;
        let mut items = Vec::new();
        for message in &page.messages {
            self.read = message.seq;
            if message.only.as_ref().is_some_and(|only| *only != self.assigned.key.consumer) {
                continue;
            }
            match item_of(message, 0, None) {
                Some(item) => {
                    self.open.insert(message.seq, (0, 0));
                    items.push(item);
                }
                None => tracing::error!(subject = self.subject, seq = message.seq, "an event cannot be read and is left out"),
            }
        }
        if !page.messages.is_empty() {
            self.changed();
        }
        self.partition.loaded(items, more);
        self.partition.passed(self.read as i64);
        Ok(())
    }

    async fn handle(&mut self, item: Item) {
        let assigned = self.assigned;
        let Some(handler) = assigned.handler.load_full() else {
            return self.acknowledge(item, Outcome::Retry { after: None, reason: "nobody handles it".to_owned() }).await;
        };
        let mut items = vec![item];
        if !items[0].alone && handler.gathers(&assigned.key.topic) {
            self.partition.gather(&mut items);
        }
        if items.len() == 1 {
            let item = items.remove(0);
            let outcome = outcome_of(handler.handle(&item.event)).await;
            return self.acknowledge(item, outcome).await;
        }
        let events: Vec<Arc<Event>> = items.iter().map(|item| item.event.clone()).collect();
        if outcome_of(handler.handle_together(&events)).await == Outcome::Done {
            items.iter().for_each(|item| self.done(item));
        } else {
            self.partition.put_back_alone(items);
        }
    }

    fn done(&mut self, item: &Item) {
        self.open.remove(&(item.id as u64));
        self.passed = self.passed.max(item.id as u64);
        self.changed();
    }

    fn changed(&mut self) {
        self.dirty_since.get_or_insert_with(Instant::now);
    }

    /// Notes what became of an event; one that is to be tried again is set aside with all of its key.
    async fn acknowledge(&mut self, mut item: Item, outcome: Outcome) {
        item.tries = item.tries.saturating_add(1);
        let reason = match outcome {
            Outcome::Done => return self.done(&item),
            Outcome::Reject { reason } => reason,
            Outcome::Retry { reason, .. } if item.tries >= limits::EVENT_TRIES_MAX => reason,
            Outcome::Retry { after, .. } => {
                let pause = delivery::pause(after, item.tries);
                return self.set_aside(item, pause);
            }
        };
        match self.dead_letter(&item, reason).await {
            Ok(()) => self.done(&item),
            Err(error) => {
                tracing::warn!(consumer = self.assigned.key.consumer, event_id = %item.event.id, %error, "a dead letter cannot be kept yet");
                item.tries -= 1;
                self.set_aside(item, Duration::from_millis(limits::JETSTREAM_AGAIN_MS));
            }
        }
    }

    fn set_aside(&mut self, item: Item, pause: Duration) {
        let seq = item.id as u64;
        self.open.insert(seq, (item.tries, now_us() + pause.as_micros() as u64));
        self.passed = self.passed.max(seq);
        self.changed();
        self.partition.set_aside(item, Instant::now() + pause);
    }

    async fn dead_letter(&self, item: &Item, reason: String) -> Result<(), QueueError> {
        let PartitionKey { consumer, topic, .. } = &self.assigned.key;
        tracing::warn!(consumer, topic, event_id = %item.event.id, tries = item.tries, %reason, "an event became a dead letter");
        let origin = format!("{} {}", self.life.number, item.id);
        self.core.records.keep_dead_letter(consumer, &item.event, delivery::cut(reason), item.tries, now_us(), &origin).await
    }

    /// What is kept: all up to the last that was handed over, but what is open of that; or all that was read, where nothing is open.
    fn progress(&self) -> Progress {
        let passed = if self.open.is_empty() { self.read } else { self.passed };
        let open = self.open.range(..=passed).map(|(seq, tried)| (*seq, *tried)).collect();
        Progress { subscription: self.subscription, read: passed, open }
    }

    /// False where another host has written since, or nobody knows.
    async fn write(&mut self) -> bool {
        let value = serde_json::to_vec(&self.progress()).expect("strings and numbers always encode");
        match self.life.bucket.update(self.progress_key.as_str(), value.into(), self.revision).await {
            Ok(revision) => {
                self.revision = revision;
                self.dirty_since = None;
                true
            }
            Err(error) => {
                let by_another = error.kind() == UpdateErrorKind::WrongLastRevision;
                tracing::warn!(key = self.progress_key, %error, by_another, "what was handled cannot be noted and will be handled again");
                self.core.check_soon();
                self.dirty_since = None;
                false
            }
        }
    }
}

fn item_of(message: &Message, tries: u32, due: Option<Instant>) -> Option<Item> {
    let event: Event = serde_json::from_slice(&message.payload).ok()?;
    Some(Item { id: message.seq as i64, event: Arc::new(event), weight: Weight::default(), tries, due, alone: false })
}
