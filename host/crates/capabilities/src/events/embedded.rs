//! The queue on SQLite: one row per event and consumer, taken out when that consumer has handled it. Knows no services and no outboxes.
//!
//! Each topic of each consumer has `QUEUE_PARTITIONS` partitions, chosen by the key's hash. A partition is a task that handles one event at a time,
//! so a key's events stay in order and different keys go side by side. A publish writes the rows and hands the events to the partitions
//! in memory; partitions read the file only at the start and after an overflow.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backlog::{Backlog, Waiting, Weight, publisher_of};
use super::delivery::{self, cut, hash_of, outcome_of, partition_of};
use super::partition::{Item, Next, Partition};
use super::{ConsumerState, DeadLetter, Event, Handler, Outcome, Queue, QueueError};
use crate::sql::sqlite::pool::{File, PooledConnection};
use crate::sql::sqlite::script::Script;
use crate::sql::sqlite::values::{Params, Row};
use crate::sql::sqlite::{Durability, values};
use crate::sql::{ErrorClass, SqlError, Value};
use echo_base::clock::now_us;
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_base::private_file;

const TABLES: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS queue_subscription (id INTEGER PRIMARY KEY AUTOINCREMENT, consumer TEXT NOT NULL, topic TEXT NOT NULL,
        UNIQUE (consumer, topic))",
    "CREATE TABLE IF NOT EXISTS queue_entry (id INTEGER PRIMARY KEY, subscription INTEGER NOT NULL, hash INTEGER NOT NULL,
        partition INTEGER NOT NULL, event TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0, due_us INTEGER NOT NULL DEFAULT 0)",
    "CREATE INDEX IF NOT EXISTS queue_entry_order ON queue_entry (subscription, partition, id)",
    "CREATE TABLE IF NOT EXISTS queue_letter (id INTEGER PRIMARY KEY AUTOINCREMENT, consumer TEXT NOT NULL, topic TEXT NOT NULL,
        event TEXT NOT NULL, reason TEXT NOT NULL, tries INTEGER NOT NULL, at_us INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS queue_source (name TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID",
];

/// The service that published it; null where an operator put it back, or before there was this column.
const ADD_PUBLISHER: &str = "ALTER TABLE queue_entry ADD COLUMN publisher TEXT";

const PUT_ENTRY: &str = "INSERT INTO queue_entry (id, subscription, hash, partition, event, publisher) VALUES ($1, $2, $3, $4, $5, $6)";
const PUT_SOURCE: &str = "INSERT INTO queue_source (name, position) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET position = excluded.position";

pub struct EmbeddedQueue {
    core: Arc<Core>,
    /// Ends the partitions; replaced when handling begins again after a stop.
    running: parking_lot::Mutex<CancellationToken>,
    partitions: TaskTracker,
    ack_writer: TaskTracker,
    closing: CancellationToken,
}

/// What partitions and callers share.
struct Core {
    file: Arc<File>,
    scripts: Scripts,
    /// Held over every publish: ids rise in the order of the commits.
    memory: tokio::sync::Mutex<Memory>,
    /// What was made of events and is not written down yet.
    acks: parking_lot::Mutex<Vec<Ack>>,
    /// One at a time writes it down.
    writing_acks: tokio::sync::Mutex<()>,
    acks_waiting: Notify,
    /// What waits of each publisher.
    backlog: Backlog,
    /// Per consumer.
    dead_letters_max: usize,
}

struct Scripts {
    put_entry: Script,
    put_source: Script,
    load: Script,
    done: Script,
    retry: Script,
    dead_letter: Script,
}

#[derive(Default)]
struct Memory {
    sources: HashMap<String, i64>,
    next_id: i64,
    /// By topic.
    subscriptions: HashMap<String, Vec<Arc<Subscription>>>,
    /// False after a failed write: nobody knows whether it took place.
    valid: bool,
}

struct Subscription {
    id: i64,
    consumer: String,
    topic: String,
    handler: ArcSwapOption<Arc<dyn Handler>>,
    partitions: Vec<PartitionCell>,
    /// None while nobody handles.
    running: parking_lot::Mutex<Option<Running>>,
}

struct Running {
    end: CancellationToken,
    tasks: TaskTracker,
}

struct PartitionCell {
    state: parking_lot::Mutex<Partition>,
    call: Notify,
}

enum Ack {
    Done { id: i64, weight: Weight },
    Retry { id: i64, tries: u32, due_us: u64 },
    Dead { id: i64, weight: Weight, consumer: String, reason: String, tries: u32, at_us: u64 },
}

impl EmbeddedQueue {
    /// `<folder>/queue.sqlite`.
    pub async fn open(folder: &Path, durability: Durability) -> Result<Self, QueueError> {
        Self::open_within(folder, durability, limits::DEAD_LETTERS_MAX, limits::QUEUE_WAITING_MAX).await
    }

    /// ... with so many dead letters per consumer, and so many events waiting of one publisher, at the most.
    pub async fn open_within(folder: &Path, durability: Durability, dead_letters_max: usize, waiting_max: u64) -> Result<Self, QueueError> {
        private_file::create_folder(folder).map_err(|error| QueueError::Unavailable(format!("{}: {error}", folder.display())))?;
        let file = Arc::new(File::open(&folder.join("queue.sqlite"), durability).await?);
        let mut writer = file.writer_alone().await?;
        writer.run(&Script::all(TABLES), Params::default()).await?;
        if !has_publishers(&mut writer).await? {
            writer.run(&Script::new(ADD_PUBLISHER).once(), Params::default()).await?;
        }
        // Another version may have had another number of partitions.
        let repartition = Script::new("UPDATE queue_entry SET partition = hash % $1 WHERE partition <> hash % $1");
        writer.run(&repartition, values::bind([i64::from(limits::QUEUE_PARTITIONS).into()])?).await?;
        drop(writer);
        let scripts = Scripts {
            put_entry: Script::new(PUT_ENTRY),
            put_source: Script::new(PUT_SOURCE),
            load: Script::new(
                "SELECT id, event, tries, due_us, publisher FROM queue_entry WHERE subscription = $1 AND partition = $2 AND id > $3 ORDER BY id LIMIT $4",
            ),
            done: Script::new("DELETE FROM queue_entry WHERE id = $1"),
            retry: Script::new("UPDATE queue_entry SET tries = $2, due_us = $3 WHERE id = $1"),
            dead_letter: Script::all([
                "INSERT INTO queue_letter (consumer, topic, event, reason, tries, at_us)
                    SELECT $2, event ->> 'topic', event, $3, $4, $5 FROM queue_entry WHERE id = $1",
                "DELETE FROM queue_entry WHERE id = $1",
                "DELETE FROM queue_letter WHERE consumer = $2
                    AND id <= (SELECT id FROM queue_letter WHERE consumer = $2 ORDER BY id DESC LIMIT 1 OFFSET $6)",
            ]),
        };
        let core = Arc::new(Core {
            file,
            scripts,
            memory: tokio::sync::Mutex::default(),
            acks: parking_lot::Mutex::default(),
            writing_acks: tokio::sync::Mutex::default(),
            acks_waiting: Notify::new(),
            backlog: Backlog::new(waiting_max),
            dead_letters_max,
        });
        core.make_valid(&mut *core.memory.lock().await).await?;
        let (ack_writer, closing) = (TaskTracker::new(), CancellationToken::new());
        ack_writer.spawn(write_acks_for_ever(core.clone(), closing.clone()));
        Ok(Self { core, running: parking_lot::Mutex::default(), partitions: TaskTracker::new(), ack_writer, closing })
    }

    pub fn file(&self) -> Arc<File> {
        self.core.file.clone()
    }

    /// Starts the partitions of a subscription, unless they run.
    fn start(&self, subscription: &Arc<Subscription>) {
        let mut running = subscription.running.lock();
        let root = self.running.lock().clone();
        if running.as_ref().is_some_and(|running| !running.end.is_cancelled()) {
            return;
        }
        let end = root.child_token();
        let tasks = TaskTracker::new();
        for partition in 0..subscription.partitions.len() {
            *subscription.partitions[partition].state.lock() = Partition::from_file();
            let work = run_partition(self.core.clone(), subscription.clone(), partition, end.clone());
            // Tracked twice: a replaced consumer waits for its own partitions, a stop for all.
            tasks.spawn(self.partitions.track_future(work));
        }
        tasks.close();
        *running = Some(Running { end, tasks });
    }
}

impl Drop for EmbeddedQueue {
    fn drop(&mut self) {
        self.running.lock().cancel();
        self.closing.cancel();
    }
}

#[async_trait]
impl Queue for EmbeddedQueue {
    async fn publish_since(&self, _losses: u64, source: &str, events: &[(i64, Event)]) -> Result<(), QueueError> {
        let core = &self.core;
        let mut memory = core.memory.lock().await;
        core.make_valid(&mut memory).await?;
        let seen = memory.sources.get(source).copied().unwrap_or(i64::MIN);
        let mut offers: Vec<(Arc<Subscription>, usize, Item)> = Vec::new();
        let mut rows: Vec<Params> = Vec::new();
        let newest = events.last().map_or(seen, |(position, _)| seen.max(*position));
        let unseen = events.iter().filter(|(position, _)| *position > seen).map(|(_, event)| event);
        let publisher: Arc<str> = publisher_of(source).into();
        if core.backlog.is_full(&publisher) {
            return Err(QueueError::Full { publisher: publisher.to_string() });
        }
        for event in unseen {
            let Some(subscriptions) = memory.subscriptions.get(&event.topic).cloned() else { continue };
            let text = encode(event);
            let shared = Arc::new(event.clone());
            for subscription in subscriptions {
                let id = memory.next_id;
                memory.next_id += 1;
                rows.push(entry_row(id, &subscription, &shared.key, &text, Some(&publisher))?);
                let weight = Weight { publisher: publisher.clone(), bytes: text.len() };
                let partition = partition_of(hash_of(&shared.key));
                offers.push((subscription, partition, Item { id, event: shared.clone(), weight, tries: 0, due: None, alone: false }));
            }
        }
        if !rows.is_empty() {
            // Invalid until the commit is known: also when this future is dropped.
            memory.valid = false;
            core.append(&rows, source, newest).await?;
            memory.valid = true;
        }
        memory.sources.insert(source.to_owned(), newest);
        core.backlog.add(offers.iter().map(|(_, _, item)| &item.weight));
        for (subscription, partition, item) in offers {
            subscription.offer(partition, item);
        }
        Ok(())
    }

    async fn position(&self, source: &str) -> Result<Option<i64>, QueueError> {
        let mut memory = self.core.memory.lock().await;
        self.core.make_valid(&mut memory).await?;
        Ok(memory.sources.get(source).copied())
    }

    async fn declare(&self, consumer: &ServiceName, topics: Vec<String>) -> Result<(), QueueError> {
        let core = &self.core;
        let mut memory = core.memory.lock().await;
        core.make_valid(&mut memory).await?;
        for topic in &topics {
            if memory.find(consumer.as_str(), topic).is_none() {
                let fresh = Arc::new(core.add_subscription(consumer.as_str(), topic).await?);
                memory.subscriptions.entry(topic.clone()).or_default().push(fresh);
            }
        }
        let mut dropped = Vec::new();
        for subscriptions in memory.subscriptions.values_mut() {
            subscriptions.retain(|subscription| {
                let stays = subscription.consumer != consumer.as_str() || topics.contains(&subscription.topic);
                if !stays {
                    dropped.push(subscription.clone());
                }
                stays
            });
        }
        // From here on nothing is published to them; their last events may take a while.
        drop(memory);
        for subscription in dropped {
            let running = subscription.running.lock().take();
            if let Some(Running { end, tasks }) = running {
                end.cancel();
                tasks.wait().await;
            }
            core.remove_subscription(&subscription).await?;
            // What waited for it is counted anew.
            core.memory.lock().await.valid = false;
        }
        Ok(())
    }

    async fn consume(&self, consumer: &ServiceName, handler: Arc<dyn Handler>) -> Result<(), QueueError> {
        let mut memory = self.core.memory.lock().await;
        self.core.make_valid(&mut memory).await?;
        {
            let mut running = self.running.lock();
            if running.is_cancelled() {
                *running = CancellationToken::new();
            }
        }
        for subscription in memory.subscriptions.values().flatten().filter(|subscription| subscription.consumer == consumer.as_str()) {
            subscription.handler.store(Some(Arc::new(handler.clone())));
            self.start(subscription);
        }
        Ok(())
    }

    async fn has_subscribers(&self, topic: &str) -> Result<bool, QueueError> {
        let mut memory = self.core.memory.lock().await;
        self.core.make_valid(&mut memory).await?;
        Ok(memory.subscriptions.get(topic).is_some_and(|subscriptions| !subscriptions.is_empty()))
    }

    async fn stop(&self) {
        self.running.lock().cancel();
        self.partitions.close();
        self.partitions.wait().await;
        self.partitions.reopen();
        if let Err(error) = self.core.write_acks().await {
            tracing::warn!(%error, "what was handled last is not written down and will be handled again");
        }
    }

    async fn state(&self) -> Result<Vec<ConsumerState>, QueueError> {
        self.core.write_acks().await?;
        let mut states = Vec::new();
        let script = Script::new(
            "SELECT consumer, topic, (SELECT count(*) FROM queue_entry WHERE subscription = queue_subscription.id),
                    (SELECT count(*) FROM queue_letter WHERE queue_letter.consumer = queue_subscription.consumer
                        AND queue_letter.topic = queue_subscription.topic)
                FROM queue_subscription ORDER BY consumer, topic",
        );
        let mut reader = self.core.file.reader().await?;
        each(&mut reader, &script, vec![], |row| {
            let (consumer, topic) = (values::text(row, 0)?, values::text(row, 1)?);
            states.push(ConsumerState { consumer, topic, lag: number(row, 2)?, dead_letters: number(row, 3)? });
            Ok(true)
        })
        .await?;
        Ok(states)
    }

    async fn dead_letters(&self, consumer: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        self.core.write_acks().await?;
        let script = Script::new(
            "SELECT id, consumer, event, reason, tries, at_us FROM queue_letter WHERE $1 IS NULL OR consumer = $1 ORDER BY id DESC LIMIT $2",
        );
        let mut letters = Vec::new();
        let mut bytes = 0;
        let consumer = consumer.map_or(Value::Null, Value::from);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut reader = self.core.file.reader().await?;
        each(&mut reader, &script, vec![consumer, limit.into()], |row| {
            let event = values::text(row, 2)?;
            bytes += event.len();
            letters.push(DeadLetter {
                id: values::integer(row, 0)?.to_string(),
                consumer: values::text(row, 1)?,
                event: decode(&event)?,
                reason: values::text(row, 3)?,
                tries: u32::try_from(number(row, 4)?).unwrap_or(u32::MAX),
                at_us: number(row, 5)?,
            });
            Ok(bytes < limits::SQL_RESULT_BYTES_MAX)
        })
        .await?;
        Ok(letters)
    }

    async fn replay(&self, id: &str) -> Result<(), QueueError> {
        let core = &self.core;
        let id = number_of(id)?;
        core.write_acks().await?;
        let mut memory = core.memory.lock().await;
        core.make_valid(&mut memory).await?;
        let mut found = None;
        let mut reader = core.file.reader().await?;
        each(&mut reader, &Script::new("SELECT consumer, event FROM queue_letter WHERE id = $1"), vec![id.into()], |row| {
            found = Some((values::text(row, 0)?, decode(&values::text(row, 1)?)?));
            Ok(true)
        })
        .await?;
        drop(reader);
        let Some((consumer, event)) = found else { return Err(QueueError::NoSuchDeadLetter(id.to_string())) };
        let Some(subscription) = memory.find(&consumer, &event.topic) else {
            return Err(QueueError::Unavailable(format!("{consumer} no longer subscribes to {}", event.topic)));
        };
        let entry = memory.next_id;
        memory.next_id += 1;
        memory.valid = false;
        let row = entry_row(entry, &subscription, &event.key, &encode(&event), None)?;
        let mut writer = core.file.writer().await?;
        writer.begin()?;
        writer.run(&core.scripts.put_entry, row).await?;
        writer.run(&Script::new("DELETE FROM queue_letter WHERE id = $1"), values::bind([id.into()])?).await?;
        writer.commit(None).await?;
        memory.valid = true;
        let partition = partition_of(hash_of(&event.key));
        subscription
            .offer(partition, Item { id: entry, event: Arc::new(event), weight: Weight::default(), tries: 0, due: None, alone: false });
        Ok(())
    }

    async fn drop_dead_letter(&self, id: &str) -> Result<(), QueueError> {
        let id = number_of(id)?;
        let script = Script::new("DELETE FROM queue_letter WHERE id = $1");
        let counts = self.core.file.write(&script, values::bind([id.into()])?).await?;
        if counts == [0] { Err(QueueError::NoSuchDeadLetter(id.to_string())) } else { Ok(()) }
    }

    async fn expire_dead_letters(&self, before_us: u64) -> Result<u64, QueueError> {
        self.core.write_acks().await?;
        // They became that in the order of their ids.
        let script = Script::new("DELETE FROM queue_letter WHERE id IN (SELECT id FROM queue_letter ORDER BY id LIMIT $2) AND at_us < $1");
        let mut expired = 0;
        loop {
            let params = values::bind([Value::Timestamp(before_us), (limits::DEAD_LETTER_SWEEP_BATCH as i64).into()])?;
            let counts = self.core.file.write(&script, params).await?;
            let count = counts.last().copied().unwrap_or(0);
            expired += count;
            if count < limits::DEAD_LETTER_SWEEP_BATCH as u64 {
                return Ok(expired);
            }
        }
    }

    async fn ping(&self) -> Result<(), QueueError> {
        let mut reader = self.core.file.reader().await?;
        each(&mut reader, &Script::new("SELECT 1 FROM queue_source LIMIT 1"), vec![], |_| Ok(true)).await?;
        Ok(())
    }

    /// Stops handling, writes down what was handled and closes the file.
    async fn close(&self) {
        self.stop().await;
        self.closing.cancel();
        self.ack_writer.close();
        self.ack_writer.wait().await;
        self.core.file.close().await;
    }
}

impl Memory {
    fn find(&self, consumer: &str, topic: &str) -> Option<Arc<Subscription>> {
        self.subscriptions.get(topic)?.iter().find(|subscription| subscription.consumer == consumer).cloned()
    }
}

impl Subscription {
    fn new(id: i64, consumer: String, topic: String) -> Self {
        let cell = |_| PartitionCell { state: parking_lot::Mutex::new(Partition::from_file()), call: Notify::new() };
        let partitions = (0..limits::QUEUE_PARTITIONS).map(cell).collect();
        Self { id, consumer, topic, handler: ArcSwapOption::empty(), partitions, running: parking_lot::Mutex::new(None) }
    }

    fn offer(&self, partition: usize, item: Item) {
        let cell = &self.partitions[partition];
        cell.state.lock().offer(item);
        cell.call.notify_one();
    }
}

impl Core {
    /// Reads anew what the file says, where that is not known. Subscriptions in memory stay: they are written before they are made.
    async fn make_valid(&self, memory: &mut Memory) -> Result<(), SqlError> {
        if memory.valid {
            return Ok(());
        }
        // A write whose future was dropped has come to its end before the writer is given.
        let mut writer = self.file.writer_alone().await?;
        let next = Script::new("SELECT coalesce((SELECT max(id) FROM queue_entry), 0) + 1");
        each(&mut writer, &next, vec![], |row| {
            // The partitions in memory have seen the ids of before, though all of those may have been taken out since.
            memory.next_id = memory.next_id.max(values::integer(row, 0)?);
            Ok(true)
        })
        .await?;
        each(&mut writer, &Script::new("SELECT name, position FROM queue_source"), vec![], |row| {
            memory.sources.insert(values::text(row, 0)?, values::integer(row, 1)?);
            Ok(true)
        })
        .await?;
        each(&mut writer, &Script::new("SELECT id, consumer, topic FROM queue_subscription"), vec![], |row| {
            let (id, consumer, topic) = (values::integer(row, 0)?, values::text(row, 1)?, values::text(row, 2)?);
            if memory.find(&consumer, &topic).is_none() {
                memory.subscriptions.entry(topic.clone()).or_default().push(Arc::new(Subscription::new(id, consumer, topic)));
            }
            Ok(true)
        })
        .await?;
        let waiting =
            "SELECT publisher, count(*), sum(octet_length(event)) FROM queue_entry WHERE publisher IS NOT NULL GROUP BY publisher";
        let mut counted = HashMap::new();
        each(&mut writer, &Script::new(waiting), vec![], |row| {
            counted.insert(values::text(row, 0)?.into(), Waiting { events: number(row, 1)?, bytes: number(row, 2)? });
            Ok(true)
        })
        .await?;
        self.backlog.set(counted);
        // A write whose outcome was unknown may have taken place: then its events are in the file alone.
        for subscription in memory.subscriptions.values().flatten() {
            for cell in &subscription.partitions {
                cell.state.lock().look_again();
                cell.call.notify_one();
            }
        }
        memory.valid = true;
        Ok(())
    }

    async fn append(&self, rows: &[Params], source: &str, position: i64) -> Result<(), SqlError> {
        let mut writer = self.file.writer().await?;
        writer.begin()?;
        writer.run_rows(&self.scripts.put_entry, rows).await?;
        writer.run(&self.scripts.put_source, values::bind([source.into(), position.into()])?).await?;
        writer.commit(None).await
    }

    async fn add_subscription(&self, consumer: &str, topic: &str) -> Result<Subscription, SqlError> {
        let script = Script::new("INSERT INTO queue_subscription (consumer, topic) VALUES ($1, $2) RETURNING id");
        let mut id = 0;
        let mut writer = self.file.writer().await?;
        writer.begin()?;
        each(&mut writer, &script, vec![consumer.into(), topic.into()], |row| {
            id = values::integer(row, 0)?;
            Ok(true)
        })
        .await?;
        writer.commit(None).await?;
        Ok(Subscription::new(id, consumer.to_owned(), topic.to_owned()))
    }

    async fn remove_subscription(&self, subscription: &Subscription) -> Result<(), SqlError> {
        let script = Script::all(["DELETE FROM queue_entry WHERE subscription = $1", "DELETE FROM queue_subscription WHERE id = $1"]);
        self.file.write(&script, values::bind([subscription.id.into()])?).await.map(drop)
    }

    async fn load(&self, subscription: i64, partition: usize, after: i64) -> Result<(Vec<Item>, bool), SqlError> {
        let (now, now_us) = (Instant::now(), now_us());
        let mut items = Vec::new();
        let mut bytes = 0;
        let limit = limits::QUEUE_PARTITION_EVENTS_MAX as i64;
        let mut reader = self.file.reader().await?;
        let params = vec![subscription.into(), (partition as i64).into(), after.into(), limit.into()];
        let mut cut = false;
        each(&mut reader, &self.scripts.load, params, |row| {
            let event = values::text(row, 1)?;
            bytes += event.len();
            let wait_us = number(row, 3)?.saturating_sub(now_us);
            let publisher = if values::is_null(row, 4)? { String::new() } else { values::text(row, 4)? };
            items.push(Item {
                id: values::integer(row, 0)?,
                weight: Weight { publisher: publisher.into(), bytes: event.len() },
                event: Arc::new(decode(&event)?),
                tries: u32::try_from(number(row, 2)?).unwrap_or(u32::MAX),
                due: (wait_us > 0).then(|| now + Duration::from_micros(wait_us)),
                alone: false,
            });
            cut = bytes >= limits::QUEUE_PARTITION_BYTES_MAX;
            Ok(!cut)
        })
        .await?;
        let more = cut || items.len() as i64 == limit;
        Ok((items, more))
    }

    fn ack(&self, ack: Ack) {
        self.acks.lock().push(ack);
        self.acks_waiting.notify_one();
    }

    /// Writes down what was made of events, in one transaction.
    async fn write_acks(&self) -> Result<(), SqlError> {
        let _turn = self.writing_acks.lock().await;
        let taken = Taken { core: self, all: std::mem::take(&mut *self.acks.lock()) };
        if taken.all.is_empty() {
            return Ok(());
        }
        let done = taken.all.iter().filter_map(|ack| match ack {
            Ack::Done { id, .. } => Some(values::bind([(*id).into()])),
            _ => None,
        });
        let done = done.collect::<Result<Vec<_>, _>>()?;
        let mut writer = self.file.writer().await?;
        writer.begin()?;
        writer.run_rows(&self.scripts.done, &done).await?;
        for ack in &taken.all {
            match ack {
                Ack::Done { .. } => {}
                Ack::Retry { id, tries, due_us } => {
                    let params = [(*id).into(), i64::from(*tries).into(), Value::Timestamp(*due_us)];
                    writer.run(&self.scripts.retry, values::bind(params)?).await?;
                }
                Ack::Dead { id, consumer, reason, tries, at_us, .. } => {
                    let kept = self.dead_letters_max as i64;
                    let params = [
                        (*id).into(),
                        consumer.as_str().into(),
                        reason.as_str().into(),
                        i64::from(*tries).into(),
                        Value::Timestamp(*at_us),
                        kept.into(),
                    ];
                    let counts = writer.run(&self.scripts.dead_letter, values::bind(params)?).await?;
                    if counts.get(2).is_some_and(|dropped| *dropped > 0) {
                        tracing::warn!(%consumer, kept, "too many dead letters: the oldest is dropped");
                    }
                }
            }
        }
        writer.commit(None).await?;
        self.backlog.remove(taken.all.iter().filter_map(|ack| match ack {
            Ack::Done { weight, .. } | Ack::Dead { weight, .. } => Some(weight),
            Ack::Retry { .. } => None,
        }));
        taken.written();
        Ok(())
    }
}

/// Settlements on their way to the file; they go back to the front unless they were written.
struct Taken<'a> {
    core: &'a Core,
    all: Vec<Ack>,
}

impl Taken<'_> {
    fn written(mut self) {
        self.all.clear();
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut waiting = self.core.acks.lock();
        self.all.append(&mut waiting);
        std::mem::swap(&mut self.all, &mut *waiting);
    }
}

/// Owned by the queue; ends with `close` or when the queue is dropped.
async fn write_acks_for_ever(core: Arc<Core>, closing: CancellationToken) {
    while closing.run_until_cancelled(core.acks_waiting.notified()).await.is_some() {
        // What is handled meanwhile goes into the same transaction.
        tokio::time::sleep(Duration::from_millis(limits::QUEUE_ACK_FLUSH_MS)).await;
        if let Err(error) = core.write_acks().await {
            tracing::warn!(%error, "what was handled cannot be written down yet");
            closing.run_until_cancelled(tokio::time::sleep(Duration::from_millis(limits::RELAY_TICK_MS))).await;
            core.acks_waiting.notify_one();
        }
    }
}

/// Owned by its subscription; ends when that is stopped or replaced, after the event at hand.
async fn run_partition(core: Arc<Core>, subscription: Arc<Subscription>, partition: usize, end: CancellationToken) {
    let cell = &subscription.partitions[partition];
    let tick = Duration::from_millis(limits::QUEUE_TICK_MS);
    while !end.is_cancelled() {
        if core.acks.lock().len() >= limits::QUEUE_ACKS_WAITING_MAX {
            end.run_until_cancelled(tokio::time::sleep(Duration::from_millis(limits::QUEUE_ACK_FLUSH_MS))).await;
            continue;
        }
        let next = cell.state.lock().next(Instant::now());
        match next {
            Next::Handle(item) => {
                let Some(handler) = subscription.handler.load_full() else {
                    acknowledge(&core, &subscription, cell, item, Outcome::Retry { after: None, reason: "nobody handles it".to_owned() });
                    continue;
                };
                let mut items = vec![item];
                if !items[0].alone && handler.gathers(&subscription.topic) {
                    cell.state.lock().gather(&mut items);
                }
                match items.len() {
                    1 => {
                        let item = items.remove(0);
                        let outcome = outcome_of(handler.handle(&item.event)).await;
                        acknowledge(&core, &subscription, cell, item, outcome);
                    }
                    _ if handled_together(&core, handler.as_ref().as_ref(), &items).await => {}
                    _ => cell.state.lock().put_back_alone(items),
                }
            }
            Next::Load(after) => match core.load(subscription.id, partition, after).await {
                Ok((items, more)) => cell.state.lock().loaded(items, more),
                Err(error) => {
                    tracing::warn!(consumer = %subscription.consumer, topic = %subscription.topic, %error, "events cannot be read yet");
                    cell.state.lock().not_loaded();
                    end.run_until_cancelled(tokio::time::sleep(Duration::from_millis(limits::RELAY_TICK_MS))).await;
                }
            },
            Next::Wait(until) => {
                let overlooked = Instant::now() + tick;
                let until = until.map_or(overlooked, |until| until.min(overlooked));
                tokio::select! {
                    () = cell.call.notified() => {}
                    () = tokio::time::sleep_until(until.into()) => if until == overlooked { cell.state.lock().look_again() },
                    () = end.cancelled() => {}
                }
            }
        }
    }
}

/// False where each is to be handled alone.
async fn handled_together(core: &Core, handler: &dyn Handler, items: &[Item]) -> bool {
    let events: Vec<Arc<Event>> = items.iter().map(|item| item.event.clone()).collect();
    let done = outcome_of(handler.handle_together(&events)).await == Outcome::Done;
    if done {
        items.iter().for_each(|item| core.ack(Ack::Done { id: item.id, weight: item.weight.clone() }));
    }
    done
}

/// Notes what became of an event; one that is to be tried again is set aside with all of its key.
fn acknowledge(core: &Core, subscription: &Subscription, cell: &PartitionCell, mut item: Item, outcome: Outcome) {
    item.tries = item.tries.saturating_add(1);
    let dead_letter = |reason: String| {
        tracing::warn!(
            consumer = %subscription.consumer, topic = %subscription.topic, event_id = %item.event.id, tries = item.tries, %reason,
            "an event became a dead letter"
        );
        let consumer = subscription.consumer.clone();
        core.ack(Ack::Dead { id: item.id, weight: item.weight.clone(), consumer, reason: cut(reason), tries: item.tries, at_us: now_us() });
    };
    match outcome {
        Outcome::Done => core.ack(Ack::Done { id: item.id, weight: item.weight.clone() }),
        Outcome::Reject { reason } => dead_letter(reason),
        Outcome::Retry { reason, .. } if item.tries >= limits::EVENT_TRIES_MAX => dead_letter(reason),
        Outcome::Retry { after, .. } => {
            let pause = delivery::pause(after, item.tries);
            let due_us = now_us() + pause.as_micros() as u64;
            core.ack(Ack::Retry { id: item.id, tries: item.tries, due_us });
            cell.state.lock().set_aside(item, Instant::now() + pause);
        }
    }
}

/// The parameters of `PUT_ENTRY`.
fn entry_row(id: i64, subscription: &Subscription, key: &str, event: &str, publisher: Option<&str>) -> Result<Params, SqlError> {
    let hash = hash_of(key);
    let publisher = publisher.map_or(Value::Null, Value::from);
    values::bind([id.into(), subscription.id.into(), i64::from(hash).into(), (partition_of(hash) as i64).into(), event.into(), publisher])
}

async fn has_publishers(writer: &mut PooledConnection) -> Result<bool, SqlError> {
    let mut found = false;
    let script = Script::new("SELECT 1 FROM pragma_table_info('queue_entry') WHERE name = 'publisher'").once();
    each(writer, &script, vec![], |_| {
        found = true;
        Ok(true)
    })
    .await?;
    Ok(found)
}

fn number_of(dead_letter: &str) -> Result<i64, QueueError> {
    dead_letter.parse().map_err(|_| QueueError::NoSuchDeadLetter(dead_letter.to_owned()))
}

fn encode(event: &Event) -> String {
    serde_json::to_string(event).expect("strings and numbers always encode")
}

fn decode(event: &str) -> Result<Event, SqlError> {
    serde_json::from_str(event).map_err(|error| SqlError::new(ErrorClass::Other, format!("an event cannot be read: {error}")))
}

async fn each(
    pooled: &mut PooledConnection,
    script: &Script,
    params: Vec<Value>,
    visit: impl FnMut(&Row<'_>) -> Result<bool, SqlError> + Send,
) -> Result<(), SqlError> {
    pooled.each(script, values::bind(params)?, visit).await.map(drop)
}

fn number(row: &Row<'_>, index: usize) -> Result<u64, SqlError> {
    u64::try_from(values::integer(row, index)?).map_err(|error| SqlError::new(ErrorClass::Other, error.to_string()))
}

impl From<SqlError> for QueueError {
    fn from(error: SqlError) -> Self {
        QueueError::Unavailable(error.to_string())
    }
}
