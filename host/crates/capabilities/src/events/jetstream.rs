//! The queue on NATS JetStream, for many hosts. Events are kept in one stream under `<prefix>.events.<topic>.<partition>`; how far each consumer has come in each
//! partition is kept in a bucket beside it, written by the one host that has the lease for the partition, and refused to any other by its revision. What must
//! outlive JetStream (who subscribes, leases, dead letters) is in PostgreSQL: `records`.
//!
//! JetStream's acknowledgement is never the last copy: a source keeps its events until every consumer is done with them (`confirmed`), and publishes them
//! again when the streams are gone, or have fallen behind what they acknowledged (`losses`). Partitions read the stream by its numbers and not through
//! consumers on the server: so a key that waits holds up nobody else, and what was handled is known one by one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::assignment::Assignment;
use self::progress::{Progress, position_key, progress_key};
use self::records::{Records, Subscription};
use self::source::{Published, Source, waves};
pub use self::streams::{Inspection, inspect};
use self::streams::{Life, Outgoing, Streams, Woken, away};
use super::backlog::publisher_of;
use super::delivery::{hash_of, partition_of};
use super::{Confirmed, ConsumerState, DeadLetter, Event, Handler, Queue, QueueError};
use crate::sql::postgres::PostgresBackend;
use echo_base::limits;
use echo_base::names::ServiceName;

mod assignment;
pub mod filled;
mod handling;
mod progress;
mod records;
mod source;
mod streams;
#[cfg(test)]
mod tests;

/// How the queue is opened.
#[derive(Clone)]
pub struct JetStreamSettings {
    /// `nats://host:4222`, several separated by commas; `tls://` for TLS.
    pub urls: String,
    /// Before every name in NATS.
    pub prefix: String,
    /// On how many servers everything is kept; on one where NATS is a single server.
    pub replicas: usize,
    /// Of all events that are kept.
    pub bytes_max: u64,
    /// Whether servers are used that are known to lose records.
    pub old_servers: bool,
    /// Per consumer.
    pub dead_letters_max: usize,
    /// Events of one source that are not confirmed.
    pub waiting_max: u64,
}

pub struct JetStreamQueue {
    core: Arc<Core>,
    upkeep: TaskTracker,
    closing: CancellationToken,
}

struct Core {
    streams: Streams,
    records: Records,
    waiting_max: u64,
    /// The number of the last life that is known, at work or not yet.
    latest: AtomicU64,
    /// None until it was found or made.
    life: watch::Sender<Option<Arc<Life>>>,
    making: tokio::sync::Mutex<()>,
    check: Notify,
    /// As they were a moment ago.
    subscriptions: parking_lot::Mutex<Vec<Subscription>>,
    sources: parking_lot::Mutex<HashMap<String, Arc<SourceCell>>>,
    assignment: Assignment,
}

#[derive(Default)]
struct SourceCell {
    /// Held over every publish.
    turn: tokio::sync::Mutex<()>,
    source: parking_lot::Mutex<Source>,
}

impl JetStreamQueue {
    /// Where NATS is away it opens too, and events wait in their outboxes. `backend`: the database that the events' sources are in.
    /// Errors: addresses that cannot be read, a server that is too old, the database.
    pub async fn open(settings: JetStreamSettings, backend: &PostgresBackend) -> Result<Self, QueueError> {
        let records = Records::open(backend, settings.dead_letters_max).await?;
        let core = Arc::new(Core {
            subscriptions: parking_lot::Mutex::new(records.subscriptions().await?),
            streams: Streams::connect(&settings).await?,
            latest: AtomicU64::new(records.life().await?.0),
            records,
            waiting_max: settings.waiting_max,
            life: watch::channel(None).0,
            making: tokio::sync::Mutex::default(),
            check: Notify::new(),
            sources: parking_lot::Mutex::default(),
            assignment: Assignment::default(),
        });
        if core.streams.is_connected()
            && let Err(error) = core.life().await
        {
            tracing::warn!(%error, "JetStream cannot be used yet: events wait in their outboxes");
        }
        let (upkeep, closing) = (TaskTracker::new(), CancellationToken::new());
        upkeep.spawn(closing.clone().run_until_cancelled_owned(check_for_ever(core.clone())));
        upkeep.spawn(closing.clone().run_until_cancelled_owned(assignment::renew_for_ever(core.clone())));
        upkeep.spawn(closing.clone().run_until_cancelled_owned(wake_for_ever(core.clone())));
        upkeep.spawn(closing.clone().run_until_cancelled_owned(purge_for_ever(core.clone())));
        Ok(Self { core, upkeep, closing })
    }
}

impl Drop for JetStreamQueue {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

#[async_trait]
impl Queue for JetStreamQueue {
    async fn publish_since(&self, losses: u64, source: &str, events: &[(i64, Event)]) -> Result<(), QueueError> {
        let core = &self.core;
        let Some((newest, _)) = events.last() else { return Ok(()) };
        let cell = core.source(source);
        let _turn = cell.turn.lock().await;
        let life = core.life().await?;
        if life.number != losses {
            return Err(QueueError::Lost);
        }
        core.read_position(source, &cell, &life).await?;
        let seen = {
            let source_now = cell.source.lock();
            if source_now.unconfirmed_count() >= core.waiting_max {
                return Err(QueueError::Full { publisher: publisher_of(source).to_owned() });
            }
            source_now.position.unwrap_or(i64::MIN)
        };
        core.published_before(&cell, &life, events.iter().filter(|(position, _)| *position <= seen)).await?;
        let fresh = &events[events.partition_point(|(position, _)| *position <= seen)..];
        if fresh.is_empty() {
            return Ok(());
        }
        let mut wakes: BTreeMap<(&str, usize), u64> = BTreeMap::new();
        for wave in waves(fresh.iter().map(|(_, event)| event.key.as_str())) {
            for (place, seq) in core.publish(&life, fresh, &wave).await? {
                let (position, event) = &fresh[place];
                let partition = partition_of(hash_of(&event.key));
                let latest = wakes.entry((event.topic.as_str(), partition)).or_default();
                *latest = seq.max(*latest);
                cell.source.lock().published(*position, Published { topic: event.topic.clone(), partition, seq });
            }
        }
        cell.source.lock().position = Some(*newest);
        for ((topic, partition), seq) in wakes {
            core.wake(&life, topic, partition, seq).await;
        }
        // What is not written here is known to the server by the events' ids for a while, and comes at least once after that.
        if let Err(error) = life.bucket.put(position_key(source), newest.to_string().into()).await {
            tracing::warn!(source, %error, "how far a source has come is not written down");
        }
        Ok(())
    }

    fn losses(&self) -> u64 {
        self.core.latest.load(Ordering::Acquire)
    }

    async fn confirmed(&self, source: &str) -> Result<Confirmed, QueueError> {
        let core = &self.core;
        let life = core.life().await?;
        let cell = core.source(source);
        let open = {
            let source = cell.source.lock();
            if source.is_of(life.number) { source.open() } else { Default::default() }
        };
        if open.is_empty() {
            return Ok(Confirmed::Positions(Vec::new()));
        }
        // Who subscribes now: one that is declared after this gets nothing of what is published already.
        let subscriptions = core.records.subscriptions().await?;
        let known = open.into_iter().map(|(topic, partition)| {
            let (subscriptions, life) = (&subscriptions, &life);
            async move {
                let of_topic = subscriptions.iter().filter(|subscription| subscription.topic == topic);
                let consumers = try_join_all(of_topic.map(|subscription| core.progress(life, subscription, partition))).await?;
                Ok::<_, QueueError>(((topic, partition), consumers))
            }
        });
        let known: BTreeMap<_, _> = try_join_all(known).await?.into_iter().collect();
        let mut source = cell.source.lock();
        if !source.is_of(life.number) {
            return Ok(Confirmed::Positions(Vec::new()));
        }
        Ok(Confirmed::Positions(source.confirm(&known)))
    }

    async fn position(&self, source: &str) -> Result<Option<i64>, QueueError> {
        let cell = self.core.source(source);
        let _turn = cell.turn.lock().await;
        let life = self.core.life().await?;
        self.core.read_position(source, &cell, &life).await?;
        let position = cell.source.lock().position;
        Ok(position)
    }

    async fn declare(&self, consumer: &ServiceName, topics: Vec<String>) -> Result<(), QueueError> {
        let (core, name) = (&self.core, consumer.as_str());
        let mut subscriptions = core.records.declare(name, &topics).await?;
        core.subscriptions.lock().clone_from(&subscriptions);
        let begins = |subscription: &&Subscription| subscription.consumer == name && !subscription.has_begun();
        if subscriptions.iter().any(|subscription| begins(&subscription)) {
            let life = core.life().await?;
            let last = core.streams.last(life.number).await?.ok_or_else(|| core.lost("the streams are missing"))?;
            for subscription in subscriptions.iter().filter(begins) {
                core.records.begin(subscription.id, life.number, last).await?;
            }
            subscriptions = core.records.subscriptions().await?;
        }
        *core.subscriptions.lock() = subscriptions;
        core.assignment.declared(name, topics.clone());
        core.assignment.end_other_topics(core, name, &topics).await;
        Ok(())
    }

    async fn consume(&self, consumer: &ServiceName, handler: Arc<dyn Handler>) -> Result<(), QueueError> {
        self.core.assignment.consume(consumer.as_str(), handler);
        Ok(())
    }

    async fn has_subscribers(&self, topic: &str) -> Result<bool, QueueError> {
        Ok(self.core.subscriptions.lock().iter().any(|subscription| subscription.topic == topic))
    }

    async fn stop(&self) {
        self.core.assignment.stop(&self.core).await;
    }

    async fn state(&self) -> Result<Vec<ConsumerState>, QueueError> {
        let core = &self.core;
        let life = core.life().await?;
        let dead_letters = core.records.dead_letters_counted(life.number).await?;
        let mut states = Vec::new();
        for subscription in core.records.subscriptions().await? {
            let (life, known) = (&life, &subscription);
            let waiting = (0..limits::QUEUE_PARTITIONS as usize).map(|partition| async move {
                let progress = core.progress(life, known, partition).await?;
                let page = core.streams.events_after(life, &core.streams.subject(&known.topic, partition), progress.read, 1).await?;
                Ok::<u64, QueueError>(progress.open.len() as u64 + page.messages.len() as u64 + page.further)
            });
            let lag = try_join_all(waiting).await?.into_iter().sum();
            let Subscription { consumer, topic, .. } = subscription;
            let dead_letters = dead_letters.get(&(consumer.clone(), topic.clone())).copied().unwrap_or(0);
            states.push(ConsumerState { consumer, topic, lag, dead_letters });
        }
        Ok(states)
    }

    async fn dead_letters(&self, consumer: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        self.core.records.dead_letters(self.losses(), consumer, limit).await
    }

    async fn replay(&self, dead_letter: &str) -> Result<(), QueueError> {
        let core = &self.core;
        let id = number_of(dead_letter)?;
        let life = core.life().await?;
        let found = core.records.dead_letter(life.number, id).await?;
        let DeadLetter { consumer, event, .. } = found.ok_or_else(|| QueueError::NoSuchDeadLetter(dead_letter.to_owned()))?;
        let subscriptions = core.records.subscriptions().await?;
        if !subscriptions.iter().any(|known| known.consumer == consumer && known.topic == event.topic) {
            return Err(QueueError::Unavailable(format!("{consumer} no longer subscribes to {}", event.topic)));
        }
        let partition = partition_of(hash_of(&event.key));
        let payload = serde_json::to_vec(&event).expect("strings and numbers always encode").into();
        // The event is the same; under the same id the server would drop it.
        let message_id = format!("dead letter {id}");
        let subject = core.streams.subject(&event.topic, partition);
        let acks = core.streams.publish(&life, vec![Outgoing { subject, message_id, only: Some(consumer), payload }]).await?;
        for ack in acks {
            core.records.replayed(id, life.number, ack.sequence).await?;
            life.has_given(ack.sequence);
            core.wake(&life, &event.topic, partition, ack.sequence).await;
        }
        Ok(())
    }

    async fn drop_dead_letter(&self, dead_letter: &str) -> Result<(), QueueError> {
        let (id, missing) = (number_of(dead_letter)?, || QueueError::NoSuchDeadLetter(dead_letter.to_owned()));
        self.core.records.dead_letter(self.losses(), id).await?.ok_or_else(missing)?;
        if self.core.records.drop_dead_letter(id).await? { Ok(()) } else { Err(missing()) }
    }

    async fn expire_dead_letters(&self, before_us: u64) -> Result<u64, QueueError> {
        self.core.records.expire_dead_letters(before_us).await
    }

    async fn ping(&self) -> Result<(), QueueError> {
        if !self.core.streams.is_connected() {
            return Err(away("no connection to NATS"));
        }
        let life = self.core.life().await?;
        self.core.streams.last(life.number).await?.map(drop).ok_or_else(|| self.core.lost("the streams are missing"))
    }

    async fn close(&self) {
        self.stop().await;
        self.closing.cancel();
        self.upkeep.close();
        self.upkeep.wait().await;
    }
}

fn number_of(dead_letter: &str) -> Result<i64, QueueError> {
    dead_letter.parse().map_err(|_| QueueError::NoSuchDeadLetter(dead_letter.to_owned()))
}

impl Core {
    /// The life of the streams that is in use; found or made where it is not known. Errors: JetStream is away.
    async fn life(&self) -> Result<Arc<Life>, QueueError> {
        if let Some(life) = self.life.borrow().clone() {
            return Ok(life);
        }
        if !self.streams.is_connected() {
            return Err(away("no connection to NATS"));
        }
        let _turn = self.making.lock().await;
        if let Some(life) = self.life.borrow().clone() {
            return Ok(life);
        }
        self.streams.check_server()?;
        // A loss that is found here begins the next; more than one at once is for the next question.
        for _ in 0..2 {
            let (number, is_made) = self.records.life().await?;
            if !is_made {
                self.streams.make(number).await?;
                self.records.made(number).await?;
            }
            match self.streams.open(number).await? {
                Some(life) if number > 0 => {
                    tracing::info!(life = number, "events go by JetStream");
                    let life = Arc::new(life);
                    self.latest.fetch_max(number, Ordering::AcqRel);
                    self.life.send_replace(Some(life.clone()));
                    return Ok(life);
                }
                _ => self.begin_life_after(number).await?,
            }
        }
        Err(away("the streams were lost as they were made"))
    }

    async fn begin_life_after(&self, lost: u64) -> Result<(), QueueError> {
        if lost > 0 {
            tracing::error!(life = lost, "JetStream has lost events: those that are not confirmed are published again");
        }
        self.records.begin_life_after(lost).await
    }

    fn is_living(&self, life: &Arc<Life>) -> bool {
        self.life.borrow().as_ref().is_some_and(|now| now.number == life.number)
    }

    /// Waits until another life is in use, or none.
    async fn ends(&self, life: &Arc<Life>) {
        let _ = self.life.subscribe().wait_for(|now| now.as_ref().is_none_or(|now| now.number != life.number)).await;
    }

    /// Tells the partition, here and on other hosts.
    async fn wake(&self, life: &Life, topic: &str, partition: usize, seq: u64) {
        self.assignment.wake(life.number, topic, partition, seq);
        self.streams.wake(life, topic, partition, seq).await;
    }

    fn check_soon(&self) {
        self.check.notify_one();
    }

    fn lost(&self, what: &str) -> QueueError {
        self.check_soon();
        away(what)
    }

    fn has_leases(&self) -> bool {
        self.assignment.has_leases()
    }

    /// What the database says.
    fn learn(&self, life: u64, subscriptions: Vec<Subscription>) {
        *self.subscriptions.lock() = subscriptions;
        self.learn_life(life);
    }

    fn learn_life(&self, life: u64) {
        self.latest.fetch_max(life, Ordering::AcqRel);
        self.life.send_if_modified(|now| {
            let is_over = now.as_ref().is_some_and(|now| now.number < life);
            if is_over {
                *now = None;
            }
            is_over
        });
    }

    async fn subscription(&self, consumer: &str, topic: &str) -> Result<Option<Subscription>, QueueError> {
        let find = |all: &[Subscription]| all.iter().find(|known| known.consumer == consumer && known.topic == topic).cloned();
        if let Some(known) = find(&self.subscriptions.lock()).filter(Subscription::has_begun) {
            return Ok(Some(known));
        }
        let all = self.records.subscriptions().await?;
        let found = find(&all);
        *self.subscriptions.lock() = all;
        Ok(found)
    }

    fn source(&self, source: &str) -> Arc<SourceCell> {
        self.sources.lock().entry(source.to_owned()).or_default().clone()
    }

    async fn read_position(&self, source: &str, cell: &SourceCell, life: &Life) -> Result<(), QueueError> {
        {
            let mut source = cell.source.lock();
            source.enter(life.number);
            if source.is_read {
                return Ok(());
            }
        }
        let kept = life.bucket.get(position_key(source)).await.map_err(away)?;
        let position = kept.and_then(|value| std::str::from_utf8(&value).ok()?.parse::<i64>().ok());
        let mut source = cell.source.lock();
        source.enter(life.number);
        (source.position, source.is_read) = (position, true);
        Ok(())
    }

    /// Events that an earlier process published, or another host: where they are is known to be no further than the last of their subject.
    async fn published_before(
        &self,
        cell: &SourceCell,
        life: &Life,
        events: impl Iterator<Item = &(i64, Event)>,
    ) -> Result<(), QueueError> {
        let mut last_of: HashMap<String, u64> = HashMap::new();
        for (position, event) in events {
            if cell.source.lock().is_unconfirmed(*position) {
                continue;
            }
            let partition = partition_of(hash_of(&event.key));
            let subject = self.streams.subject(&event.topic, partition);
            let seq = match last_of.get(&subject) {
                Some(seq) => *seq,
                None => self.streams.last_of(life, &subject).await?,
            };
            last_of.insert(subject, seq);
            cell.source.lock().published(*position, Published { topic: event.topic.clone(), partition, seq });
        }
        Ok(())
    }

    /// Their places, and their numbers in the stream.
    async fn publish(&self, life: &Life, events: &[(i64, Event)], wave: &[usize]) -> Result<Vec<(usize, u64)>, QueueError> {
        let outgoing = wave.iter().map(|place| {
            let (_, event) = &events[*place];
            let payload = serde_json::to_vec(event).expect("strings and numbers always encode").into();
            let subject = self.streams.subject(&event.topic, partition_of(hash_of(&event.key)));
            Outgoing { subject, message_id: event.id.to_string(), only: None, payload }
        });
        let highest = life.highest();
        let acks = self.streams.publish(life, outgoing.collect()).await.inspect_err(|_| self.check_soon())?;
        let has_fallen = acks.iter().any(|ack| !ack.duplicate && ack.sequence <= highest);
        if has_fallen {
            tracing::error!(highest, "JetStream gives out numbers that it has given before");
            self.end_life(life.number).await?;
            return Err(QueueError::Lost);
        }
        let places = wave.iter().zip(acks).map(|(place, ack)| {
            life.has_given(ack.sequence);
            (*place, ack.sequence)
        });
        Ok(places.collect())
    }

    /// How far the consumer has come there.
    async fn progress(&self, life: &Life, subscription: &Subscription, partition: usize) -> Result<Progress, QueueError> {
        let key = progress_key(&subscription.consumer, &subscription.topic, partition);
        let kept = life.bucket.get(key).await.map_err(away)?;
        let kept = kept.and_then(|value| serde_json::from_slice::<Progress>(&value).ok());
        Ok(kept.filter(|progress| progress.subscription == subscription.id).unwrap_or_else(|| Progress {
            subscription: subscription.id,
            read: subscription.after(life.number),
            open: BTreeMap::new(),
        }))
    }

    /// Looks whether the streams still have what they acknowledged. Whether they have not, and it is to be asked again: a new leader may say so for a moment.
    async fn look(&self, had_fallen: bool) -> Result<bool, QueueError> {
        let life = self.life().await?;
        let highest = life.highest();
        match self.streams.last(life.number).await? {
            Some(last) if last >= highest => Ok(false),
            Some(_) if !had_fallen => Ok(true),
            last => {
                tracing::error!(last, highest, "JetStream has not what it acknowledged");
                self.end_life(life.number).await.map(|()| false)
            }
        }
    }

    async fn end_life(&self, life: u64) -> Result<(), QueueError> {
        self.begin_life_after(life).await?;
        self.learn_life(life + 1);
        self.life().await.map(drop)
    }

    /// Removes what all consumers are done with, and dead letters that were replayed.
    async fn purge(&self) -> Result<(), QueueError> {
        let life = self.life().await?;
        // Before it is asked who subscribes: one that is declared later begins after this.
        let last = self.streams.last(life.number).await?.unwrap_or(0);
        let subjects = self.streams.subjects(&life).await?;
        let subscriptions = self.records.subscriptions().await?;
        for subject in subjects {
            let Some((topic, partition)) = self.streams.parse_subject(&subject) else { continue };
            let mut done = last;
            for subscription in subscriptions.iter().filter(|subscription| subscription.topic == topic) {
                done = done.min(self.progress(&life, subscription, partition).await?.done_up_to());
            }
            if done > 0 {
                self.streams.forget_up_to(&life, &subject, done).await?;
            }
        }
        for replayed in self.records.all_replayed(life.number).await? {
            let known = subscriptions.iter().find(|known| known.consumer == replayed.consumer && known.topic == replayed.event.topic);
            let is_done = match known {
                Some(subscription) => {
                    self.progress(&life, subscription, partition_of(hash_of(&replayed.event.key))).await?.is_done(replayed.seq)
                }
                None => true,
            };
            if is_done {
                self.records.drop_dead_letter(replayed.id).await?;
            }
        }
        Ok(())
    }
}

async fn check_for_ever(core: Arc<Core>) {
    let pause = Duration::from_millis(limits::JETSTREAM_CHECK_MS);
    let (mut is_away, mut has_fallen) = (false, false);
    loop {
        let looked = core.look(has_fallen).await;
        match &looked {
            Err(error) if !is_away => tracing::warn!(%error, "JetStream is away: events wait in their outboxes"),
            Ok(_) if is_away => tracing::info!("JetStream is back"),
            _ => {}
        }
        is_away = looked.is_err();
        has_fallen = looked.unwrap_or(false);
        let _ = tokio::time::timeout(pause, core.check.notified()).await;
    }
}

async fn purge_for_ever(core: Arc<Core>) {
    loop {
        tokio::time::sleep(Duration::from_millis(limits::JETSTREAM_PURGE_MS)).await;
        if let Err(error) = core.purge().await {
            tracing::debug!(%error, "events that are done stay in the stream for now");
        }
    }
}

/// What other hosts have published.
async fn wake_for_ever(core: Arc<Core>) {
    loop {
        if let Ok(mut wakes) = core.streams.wakes().await {
            while let Some(Woken { life, topic, partition, seq }) = wakes.next().await {
                if let Some(now) = core.life.borrow().as_ref().filter(|now| now.number == life) {
                    now.has_given(seq);
                }
                core.assignment.wake(life, &topic, partition, seq);
            }
        }
        tokio::time::sleep(Duration::from_millis(limits::JETSTREAM_CHECK_MS)).await;
    }
}
