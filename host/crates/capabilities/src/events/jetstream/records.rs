//! What hosts agree on about events, in PostgreSQL, where no loss of JetStream reaches it: which life of the streams is in use, who subscribes to what, which
//! host handles which partition, and the dead letters.
//!
//! Whatever decides something takes one lock of the database first, so that two hosts never decide at the same time. Only the database's clock counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{DeadLetter, Event, QueueError};
use crate::sql::postgres::pool::Pooled;
use crate::sql::postgres::{PostgresBackend, Shared};
use crate::sql::{ErrorClass, SqlError, Value};
use echo_base::limits;

const READ_COMMITTED: &str = "READ COMMITTED";
/// As that of `sql::postgres`: tables are made, and decisions taken, by one host at a time.
const LOCK: i64 = 0x4563_686f_0010;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS event_life (one BOOLEAN PRIMARY KEY DEFAULT true CHECK (one), life BIGINT NOT NULL, is_made BOOLEAN NOT NULL);
    INSERT INTO event_life (life, is_made) VALUES (0, true) ON CONFLICT (one) DO NOTHING;
    CREATE TABLE IF NOT EXISTS event_subscription (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, consumer TEXT NOT NULL, topic TEXT NOT NULL,
        life BIGINT, passed BIGINT NOT NULL DEFAULT 0, UNIQUE (consumer, topic));
    CREATE TABLE IF NOT EXISTS event_node (node TEXT PRIMARY KEY, until TIMESTAMPTZ NOT NULL);
    CREATE TABLE IF NOT EXISTS event_declaration (node TEXT NOT NULL, consumer TEXT NOT NULL, topic TEXT NOT NULL, consumes BOOLEAN NOT NULL DEFAULT false,
        PRIMARY KEY (node, consumer, topic));
    CREATE TABLE IF NOT EXISTS event_partition (consumer TEXT NOT NULL, topic TEXT NOT NULL, number INT NOT NULL, node TEXT, epoch BIGINT NOT NULL DEFAULT 0,
        PRIMARY KEY (consumer, topic, number));
    CREATE TABLE IF NOT EXISTS event_dead_letter (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, consumer TEXT NOT NULL, topic TEXT NOT NULL,
        event TEXT NOT NULL, reason TEXT NOT NULL, tries BIGINT NOT NULL, at_us BIGINT NOT NULL, origin TEXT NOT NULL,
        replayed_life BIGINT, replayed_seq BIGINT, UNIQUE (consumer, origin))";

/// A consumer's interest in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub id: i64,
    pub consumer: String,
    pub topic: String,
    /// In which life it began, after which number. None while that is not decided: then nothing of the topic is done.
    life: Option<u64>,
    passed: u64,
}

impl Subscription {
    /// In a later life it gets all: what was published again is for it too.
    pub fn after(&self, life: u64) -> u64 {
        if self.life == Some(life) { self.passed } else { 0 }
    }

    pub fn has_begun(&self) -> bool {
        self.life.is_some()
    }
}

/// A partition of a consumer's topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionKey {
    pub consumer: String,
    pub topic: String,
    pub number: usize,
}

/// What a host knows after it has renewed its leases.
pub struct Renewed {
    pub life: u64,
    pub subscriptions: Vec<Subscription>,
    /// What this host has, each with the number of its lease.
    pub held: BTreeMap<PartitionKey, i64>,
    /// How many partitions of a consumer's topic are this host's share.
    pub shares: BTreeMap<(String, String), usize>,
}

/// A dead letter that was published again.
pub struct Replayed {
    pub id: i64,
    pub consumer: String,
    pub event: Event,
    pub seq: u64,
}

pub struct Records {
    shared: Arc<Shared>,
    dead_letters_max: usize,
}

impl Records {
    /// Makes the tables where they are missing.
    pub async fn open(backend: &PostgresBackend, dead_letters_max: usize) -> Result<Self, QueueError> {
        let records = Self { shared: backend.shared(), dead_letters_max };
        let mut connection = records.decide().await?;
        connection.raw(TABLES).await?;
        connection.commit().await?;
        Ok(records)
    }

    fn node(&self) -> Value {
        self.shared.node.as_str().into()
    }

    /// A transaction that decides something.
    async fn decide(&self) -> Result<Pooled, SqlError> {
        let mut connection = self.shared.host.take().await?;
        connection.begin(READ_COMMITTED).await?;
        connection.rows("SELECT pg_advisory_xact_lock($1)::text", vec![LOCK.into()]).await?;
        Ok(connection)
    }

    async fn rows(&self, sql: &str, values: Vec<Value>) -> Result<Vec<Vec<Value>>, SqlError> {
        self.shared.host.take().await?.rows(sql, values).await
    }

    /// The life in use, and whether its streams were made.
    pub async fn life(&self) -> Result<(u64, bool), QueueError> {
        let rows = self.rows("SELECT life, is_made::int::bigint FROM event_life", vec![]).await?;
        let [Value::S64(life), Value::S64(is_made)] = one(&rows)? else { return Err(unreadable().into()) };
        Ok((unsigned(*life)?, *is_made != 0))
    }

    /// The streams of this life are lost, or there were none: another begins, unless another host has begun it.
    pub async fn begin_life_after(&self, lost: u64) -> Result<(), QueueError> {
        self.rows("UPDATE event_life SET life = life + 1, is_made = false WHERE life = $1 RETURNING life", vec![signed(lost)?]).await?;
        Ok(())
    }

    pub async fn made(&self, life: u64) -> Result<(), QueueError> {
        self.rows("UPDATE event_life SET is_made = true WHERE life = $1 RETURNING life", vec![signed(life)?]).await?;
        Ok(())
    }

    pub async fn subscriptions(&self) -> Result<Vec<Subscription>, QueueError> {
        Ok(subscriptions(&mut self.shared.host.take().await?).await?)
    }

    /// These topics are the consumer's on this host. A topic that no host declares for it, or only hosts that were away for long, is nobody's any more.
    pub async fn declare(&self, consumer: &str, topics: &[String]) -> Result<Vec<Subscription>, QueueError> {
        let topics = serde_json::to_string(topics).expect("strings always encode");
        let mut connection = self.decide().await?;
        let seen = "INSERT INTO event_node AS known (node, until) VALUES ($1::text, clock_timestamp())
            ON CONFLICT (node) DO UPDATE SET until = greatest(known.until, excluded.until)";
        connection.rows(seen, vec![self.node()]).await?;
        let away = "DELETE FROM event_declaration WHERE node IN (
            SELECT node FROM event_node WHERE until < clock_timestamp() - make_interval(secs => $1::bigint::double precision))";
        connection.rows(away, vec![(limits::EVENT_DECLARATION_KEPT_S as i64).into()]).await?;
        let withdraw = "DELETE FROM event_declaration WHERE node = $1::text AND consumer = $2::text
            AND topic NOT IN (SELECT json_array_elements_text($3::text::json))";
        let given = || vec![self.node(), consumer.into(), topics.as_str().into()];
        connection.rows(withdraw, given()).await?;
        let declare = "INSERT INTO event_declaration (node, consumer, topic)
            SELECT $1::text, $2::text, json_array_elements_text($3::text::json) ON CONFLICT DO NOTHING";
        connection.rows(declare, given()).await?;
        let subscribe = "INSERT INTO event_subscription (consumer, topic) SELECT $1::text, json_array_elements_text($2::text::json) ON CONFLICT DO NOTHING";
        connection.rows(subscribe, vec![consumer.into(), topics.as_str().into()]).await?;
        let unsubscribe =
            "DELETE FROM event_subscription AS known WHERE consumer = $1::text AND NOT EXISTS (SELECT 1 FROM event_declaration AS declared
            WHERE declared.consumer = known.consumer AND declared.topic = known.topic)";
        connection.rows(unsubscribe, vec![consumer.into()]).await?;
        let partitions = "INSERT INTO event_partition (consumer, topic, number)
            SELECT $1::text, topic, number FROM event_subscription, generate_series(0, $2::bigint::int - 1) AS number WHERE consumer = $1::text
            ON CONFLICT DO NOTHING";
        connection.rows(partitions, vec![consumer.into(), i64::from(limits::QUEUE_PARTITIONS).into()]).await?;
        let without =
            "DELETE FROM event_partition AS part WHERE consumer = $1::text AND NOT EXISTS (SELECT 1 FROM event_subscription AS known
            WHERE known.consumer = part.consumer AND known.topic = part.topic)";
        connection.rows(without, vec![consumer.into()]).await?;
        let all = subscriptions(&mut connection).await?;
        connection.commit().await?;
        Ok(all)
    }

    /// A new subscription gets what comes after this number. What was published before this was said has a lower one; what is published after it was
    /// declared is not done until this is said.
    pub async fn begin(&self, subscription: i64, life: u64, passed: u64) -> Result<(), QueueError> {
        let sql = "UPDATE event_subscription SET life = $2, passed = $3 WHERE id = $1 AND life IS NULL RETURNING id";
        self.rows(sql, vec![subscription.into(), signed(life)?, signed(passed)?]).await?;
        Ok(())
    }

    /// Makes this host's leases last from now, and takes free partitions of what it consumes, up to its share.
    pub async fn renew(&self, consumed: &[(String, String)]) -> Result<Renewed, QueueError> {
        let wanted: Vec<_> = consumed.iter().map(|(consumer, topic)| serde_json::json!({ "consumer": consumer, "topic": topic })).collect();
        let wanted = serde_json::Value::from(wanted).to_string();
        let mut connection = self.decide().await?;
        let last = "INSERT INTO event_node (node, until) VALUES ($1::text, clock_timestamp() + make_interval(secs => $2::bigint / 1000.0))
            ON CONFLICT (node) DO UPDATE SET until = excluded.until";
        connection.rows(last, vec![self.node(), (limits::EVENT_LEASE_MS as i64).into()]).await?;
        let consumes = "UPDATE event_declaration AS own SET consumes = NOT consumes WHERE node = $1::text AND consumes <> EXISTS (
            SELECT 1 FROM json_to_recordset($2::text::json) AS wanted(consumer text, topic text)
            WHERE wanted.consumer = own.consumer AND wanted.topic = own.topic)";
        connection.rows(consumes, vec![self.node(), wanted.as_str().into()]).await?;
        let shares = "SELECT own.consumer, own.topic, count(*) FROM event_declaration AS own
            JOIN event_declaration AS other ON other.consumer = own.consumer AND other.topic = own.topic AND other.consumes
            JOIN event_node ON event_node.node = other.node AND event_node.until >= clock_timestamp()
            WHERE own.node = $1::text AND own.consumes GROUP BY own.consumer, own.topic";
        let mut shares_of_this: BTreeMap<(String, String), usize> = BTreeMap::new();
        for row in connection.rows(shares, vec![self.node()]).await? {
            let [Value::Text(consumer), Value::Text(topic), Value::S64(hosts)] = row.as_slice() else { return Err(unreadable().into()) };
            let share = u64::from(limits::QUEUE_PARTITIONS).div_ceil(unsigned(*hosts)?.max(1));
            shares_of_this.insert((consumer.clone(), topic.clone()), share as usize);
        }
        let partitions =
            "SELECT part.consumer, part.topic, number::bigint, part.epoch, (part.node IS NOT DISTINCT FROM $1::text)::int::bigint
            FROM event_partition AS part LEFT JOIN event_node ON event_node.node = part.node
            WHERE part.node = $1::text OR event_node.until IS NULL OR event_node.until < clock_timestamp()
            ORDER BY 1, 2, 3";
        let (mut held, mut free) = (BTreeMap::new(), Vec::new());
        for row in connection.rows(partitions, vec![self.node()]).await? {
            let [Value::Text(consumer), Value::Text(topic), Value::S64(number), Value::S64(epoch), Value::S64(is_own)] = row.as_slice()
            else {
                return Err(unreadable().into());
            };
            let key = PartitionKey { consumer: consumer.clone(), topic: topic.clone(), number: unsigned(*number)? as usize };
            if *is_own != 0 {
                held.insert(key, *epoch);
            } else {
                free.push((key, *epoch));
            }
        }
        let mut taken = Vec::new();
        for (key, epoch) in free {
            let topic = (key.consumer.clone(), key.topic.clone());
            let share = shares_of_this.get(&topic).copied().unwrap_or(0);
            if held.keys().filter(|held| (&held.consumer, &held.topic) == (&topic.0, &topic.1)).count() < share {
                taken.push(serde_json::json!({ "consumer": key.consumer, "topic": key.topic, "number": key.number }));
                held.insert(key, epoch + 1);
            }
        }
        if !taken.is_empty() {
            let take = "UPDATE event_partition AS part SET node = $1::text, epoch = epoch + 1
                FROM json_to_recordset($2::text::json) AS taken(consumer text, topic text, number int)
                WHERE taken.consumer = part.consumer AND taken.topic = part.topic AND taken.number = part.number";
            connection.rows(take, vec![self.node(), serde_json::Value::from(taken).to_string().into()]).await?;
        }
        let rows = connection.rows("SELECT life FROM event_life", vec![]).await?;
        let [Value::S64(life)] = one(&rows)? else { return Err(unreadable().into()) };
        let life = unsigned(*life)?;
        let all = subscriptions(&mut connection).await?;
        connection.commit().await?;
        Ok(Renewed { life, subscriptions: all, held, shares: shares_of_this })
    }

    /// Other hosts may have them at once.
    pub async fn give_back(&self, partitions: &[(PartitionKey, i64)]) -> Result<(), QueueError> {
        let list: Vec<_> = partitions
            .iter()
            .map(|(key, epoch)| serde_json::json!({ "consumer": key.consumer, "topic": key.topic, "number": key.number, "epoch": epoch }))
            .collect();
        let sql = "UPDATE event_partition AS part SET node = NULL
            FROM json_to_recordset($2::text::json) AS given(consumer text, topic text, number int, epoch bigint)
            WHERE given.consumer = part.consumer AND given.topic = part.topic AND given.number = part.number
            AND given.epoch = part.epoch AND part.node = $1::text";
        self.rows(sql, vec![self.node(), serde_json::Value::from(list).to_string().into()]).await?;
        Ok(())
    }

    /// Keeps an event that cannot be handled; once for its `origin`, however often it is said.
    pub async fn keep_dead_letter(
        &self,
        consumer: &str,
        event: &Event,
        reason: String,
        tries: u32,
        at_us: u64,
        origin: &str,
    ) -> Result<(), QueueError> {
        let text = serde_json::to_string(event).expect("strings and numbers always encode");
        let put = "INSERT INTO event_dead_letter (consumer, topic, event, reason, tries, at_us, origin)
            VALUES ($1::text, $2::text, $3::text, $4::text, $5, $6, $7::text) ON CONFLICT (consumer, origin) DO NOTHING";
        let values = vec![
            consumer.into(),
            event.topic.as_str().into(),
            text.into(),
            reason.into(),
            i64::from(tries).into(),
            signed(at_us)?,
            origin.into(),
        ];
        let mut connection = self.shared.host.take().await?;
        connection.rows(put, values).await?;
        let drop_oldest = "DELETE FROM event_dead_letter WHERE consumer = $1::text AND id <= (
            SELECT id FROM event_dead_letter WHERE consumer = $1::text ORDER BY id DESC LIMIT 1 OFFSET $2) RETURNING id";
        let kept = self.dead_letters_max as i64;
        if !connection.rows(drop_oldest, vec![consumer.into(), kept.into()]).await?.is_empty() {
            tracing::warn!(%consumer, kept, "too many dead letters: the oldest is dropped");
        }
        Ok(())
    }

    /// Newest first; without those that were published again in this life.
    pub async fn dead_letters(&self, life: u64, consumer: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        let sql = "SELECT id, consumer, event, reason, tries, at_us FROM (
                SELECT *, sum(octet_length(event)) OVER (ORDER BY id DESC) AS bytes FROM (
                    SELECT * FROM event_dead_letter WHERE ($1::text IS NULL OR consumer = $1::text) AND replayed_life IS DISTINCT FROM $2
                    ORDER BY id DESC LIMIT $3) AS newest) AS counted
            WHERE bytes - octet_length(event) < $4 ORDER BY id DESC";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let values =
            vec![consumer.map_or(Value::Null, Value::from), signed(life)?, limit.into(), (limits::SQL_RESULT_BYTES_MAX as i64).into()];
        self.rows(sql, values).await?.iter().map(|row| dead_letter(row)).collect()
    }

    pub async fn dead_letter(&self, life: u64, id: i64) -> Result<Option<DeadLetter>, QueueError> {
        let sql =
            "SELECT id, consumer, event, reason, tries, at_us FROM event_dead_letter WHERE id = $1 AND replayed_life IS DISTINCT FROM $2";
        self.rows(sql, vec![id.into(), signed(life)?]).await?.first().map(|row| dead_letter(row)).transpose()
    }

    /// It was published again, under this number: it is gone when the consumer has done with that, and back when JetStream loses it before.
    pub async fn replayed(&self, id: i64, life: u64, seq: u64) -> Result<(), QueueError> {
        let sql = "UPDATE event_dead_letter SET replayed_life = $2, replayed_seq = $3 WHERE id = $1 RETURNING id";
        self.rows(sql, vec![id.into(), signed(life)?, signed(seq)?]).await?;
        Ok(())
    }

    pub async fn all_replayed(&self, life: u64) -> Result<Vec<Replayed>, QueueError> {
        let sql = "SELECT id, consumer, event, replayed_seq FROM event_dead_letter WHERE replayed_life = $1 ORDER BY id LIMIT $2";
        let rows = self.rows(sql, vec![signed(life)?, (limits::DEAD_LETTER_SWEEP_BATCH as i64).into()]).await?;
        let replayed = rows.iter().map(|row| match row.as_slice() {
            [Value::S64(id), Value::Text(consumer), Value::Text(event), Value::S64(seq)] => {
                Ok(Replayed { id: *id, consumer: consumer.clone(), event: event_of(event)?, seq: unsigned(*seq)? })
            }
            _ => Err(unreadable().into()),
        });
        replayed.collect()
    }

    /// Whether it was there.
    pub async fn drop_dead_letter(&self, id: i64) -> Result<bool, QueueError> {
        Ok(!self.rows("DELETE FROM event_dead_letter WHERE id = $1 RETURNING id", vec![id.into()]).await?.is_empty())
    }

    pub async fn expire_dead_letters(&self, before_us: u64) -> Result<u64, QueueError> {
        let sql = "DELETE FROM event_dead_letter WHERE id IN (SELECT id FROM event_dead_letter WHERE at_us < $1 ORDER BY id LIMIT $2) RETURNING id";
        let mut expired = 0;
        loop {
            let batch = limits::DEAD_LETTER_SWEEP_BATCH;
            let count = self.rows(sql, vec![signed(before_us)?, (batch as i64).into()]).await?.len();
            expired += count as u64;
            if count < batch {
                return Ok(expired);
            }
        }
    }

    /// By consumer and topic.
    pub async fn dead_letters_counted(&self, life: u64) -> Result<BTreeMap<(String, String), u64>, QueueError> {
        let sql =
            "SELECT consumer, topic, count(*) FROM event_dead_letter WHERE replayed_life IS DISTINCT FROM $1 GROUP BY consumer, topic";
        let rows = self.rows(sql, vec![signed(life)?]).await?;
        let counted = rows.iter().map(|row| match row.as_slice() {
            [Value::Text(consumer), Value::Text(topic), Value::S64(count)] => Ok(((consumer.clone(), topic.clone()), unsigned(*count)?)),
            _ => Err(unreadable().into()),
        });
        counted.collect()
    }
}

async fn subscriptions(connection: &mut Pooled) -> Result<Vec<Subscription>, SqlError> {
    let sql = "SELECT id, consumer, topic, life, passed FROM event_subscription ORDER BY consumer COLLATE \"C\", topic COLLATE \"C\"";
    let rows = connection.rows(sql, vec![]).await?;
    let known = rows.iter().map(|row| {
        let [Value::S64(id), Value::Text(consumer), Value::Text(topic), life, Value::S64(passed)] = row.as_slice() else {
            return Err(unreadable());
        };
        let life = match life {
            Value::S64(life) => Some(unsigned(*life)?),
            _ => None,
        };
        Ok(Subscription { id: *id, consumer: consumer.clone(), topic: topic.clone(), life, passed: unsigned(*passed)? })
    });
    known.collect()
}

fn dead_letter(row: &[Value]) -> Result<DeadLetter, QueueError> {
    let [Value::S64(id), Value::Text(consumer), Value::Text(event), Value::Text(reason), Value::S64(tries), Value::S64(at_us)] = row else {
        return Err(unreadable().into());
    };
    Ok(DeadLetter {
        id: id.to_string(),
        consumer: consumer.clone(),
        event: event_of(event)?,
        reason: reason.clone(),
        tries: u32::try_from(*tries).unwrap_or(u32::MAX),
        at_us: unsigned(*at_us)?,
    })
}

fn event_of(text: &str) -> Result<Event, SqlError> {
    serde_json::from_str(text).map_err(|_| unreadable())
}

fn one(rows: &[Vec<Value>]) -> Result<&[Value], SqlError> {
    rows.first().map(Vec::as_slice).ok_or_else(unreadable)
}

fn signed(number: u64) -> Result<Value, SqlError> {
    i64::try_from(number).map(Value::S64).map_err(|_| unreadable())
}

fn unsigned(number: i64) -> Result<u64, SqlError> {
    u64::try_from(number).map_err(|_| unreadable())
}

fn unreadable() -> SqlError {
    SqlError::new(ErrorClass::Other, "the queue's tables hold what was never written there")
}
