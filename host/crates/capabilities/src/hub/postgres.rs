//! The feed on PostgreSQL, in the host's own schema, for all hosts of the database. Numbers are given out by the database: a user's row is locked from the
//! statement that raises its head to the commit, users in the order of their ids, so that batches wait for each other and never in a circle. A batch is a
//! fixed number of statements, however many users it has. Knows no sockets and no guests.
//!
//! Transactions here are READ COMMITTED: all that they decide by is locked first.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};
use tokio::sync::{Mutex, Notify};
use uuid::Uuid;

use self::numbering::Numbered;
use super::acknowledged::{Step, acknowledged};
use super::reached::{Reached, Span};
use super::states::States;
use super::{Acknowledgement, DeviceCursor, Feed, FeedChange, FeedEntry, FeedError, FeedPage};
use crate::events::Event;
use crate::sql::postgres::outbox::{self, Pending, Written};
use crate::sql::postgres::pool::Pooled;
use crate::sql::postgres::rows::{add, arguments, identifier, number, signed, string, unreadable, unreadable_because, unsigned};
use crate::sql::postgres::{PostgresBackend, Shared};
use crate::sql::{Effect, Outbox, SqlError, Value};
use echo_base::clock::now_us;
use echo_base::limits;

mod device_hosts;
mod event_log;
mod numbering;
mod relaying;
#[cfg(test)]
mod tests;

pub use self::relaying::ServiceOutbox;

const READ_COMMITTED: &str = "READ COMMITTED";

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS feed_user (id UUID PRIMARY KEY, head BIGINT NOT NULL DEFAULT 0, acked BIGINT NOT NULL DEFAULT 0,
        gaps BIGINT[] NOT NULL DEFAULT '{}');
    CREATE SEQUENCE IF NOT EXISTS feed_payload_id;
    CREATE TABLE IF NOT EXISTS feed_payload (id BIGINT PRIMARY KEY, event TEXT NOT NULL, body TEXT NOT NULL, receipt TEXT, users UUID[], seqs BIGINT[],
        subject TEXT, at_us BIGINT NOT NULL);
    CREATE INDEX IF NOT EXISTS feed_payload_receipt ON feed_payload (receipt) WHERE receipt IS NOT NULL;
    CREATE INDEX IF NOT EXISTS feed_payload_subject ON feed_payload (subject) WHERE subject IS NOT NULL;
    CREATE INDEX IF NOT EXISTS feed_payload_at ON feed_payload (at_us);
    CREATE TABLE IF NOT EXISTS feed_entry (user_id UUID NOT NULL, seq BIGINT NOT NULL, payload BIGINT NOT NULL, PRIMARY KEY (user_id, seq))
        PARTITION BY HASH (user_id);
    CREATE TABLE IF NOT EXISTS feed_cursor (user_id UUID NOT NULL, device TEXT NOT NULL, seq BIGINT NOT NULL, above BIGINT NOT NULL,
        at_us BIGINT NOT NULL, PRIMARY KEY (user_id, device));
    CREATE INDEX IF NOT EXISTS feed_cursor_at ON feed_cursor (at_us);
    CREATE TABLE IF NOT EXISTS feed_waiting (source TEXT NOT NULL, id BIGINT NOT NULL, push TEXT NOT NULL, PRIMARY KEY (source, id));
    CREATE TABLE IF NOT EXISTS feed_source (name TEXT PRIMARY KEY, position BIGINT NOT NULL)";
/// Of the entries, by user.
const PARTITIONS: u32 = 16;
/// As that of `sql::postgres`: tables are made by one host at a time.
const SETUP_LOCK: i64 = 0x4563_686f_0002;

pub struct PostgresFeed {
    shared: Arc<Shared>,
    source: String,
    outbox: Written,
    /// By source.
    sources: Mutex<HashMap<String, Arc<Mutex<Source>>>>,
    /// By shard, the lease that this host has.
    leases: Mutex<HashMap<i16, relaying::Lease>>,
}

/// What is known here of the pushes with a state that wait to be numbered.
#[derive(Default)]
struct Source {
    states: States,
    /// False at first, and after a failed write: the database knows.
    is_read: bool,
    /// The lease under which it was read.
    epoch: i64,
}

impl PostgresFeed {
    /// Makes the tables where they are missing.
    pub async fn open(backend: &PostgresBackend) -> Result<Self, FeedError> {
        let shared = backend.shared();
        let mut connection = shared.host.take().await?;
        connection.begin(READ_COMMITTED).await?;
        connection.rows("SELECT pg_advisory_xact_lock($1)::text", vec![SETUP_LOCK.into()]).await?;
        connection.raw(TABLES).await?;
        connection.raw(device_hosts::TABLES).await?;
        for remainder in 0..PARTITIONS {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS feed_entry_{remainder} PARTITION OF feed_entry FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {remainder})"
            );
            connection.raw(sql).await?;
        }
        let fresh = format!("hub:{}", Uuid::new_v4().simple());
        let put = "INSERT INTO source (service, name) VALUES ('hub', $1) ON CONFLICT (service) DO UPDATE SET service = excluded.service RETURNING name";
        let source = text(connection.rows(put, vec![fresh.into()]).await?.first().and_then(|row| row.first()))?;
        connection.commit().await?;
        Ok(Self { shared, source, outbox: Written::default(), sources: Mutex::default(), leases: Mutex::default() })
    }

    async fn source_of(&self, source: &str) -> Arc<Mutex<Source>> {
        self.sources.lock().await.entry(source.to_owned()).or_default().clone()
    }

    async fn begin(&self) -> Result<Pooled, SqlError> {
        let mut connection = self.shared.host.take().await?;
        connection.begin(READ_COMMITTED).await?;
        Ok(connection)
    }

    /// Reads what waits of a source, where that is not known. From here on it is not known again, until whoever asked says that its write took place.
    async fn read_states(&self, connection: &mut Pooled, name: &str, source: &mut Source) -> Result<(), SqlError> {
        if !source.is_read {
            source.states = States::default();
            for row in connection.rows("SELECT id, push FROM feed_waiting WHERE source = $1 ORDER BY id", vec![name.into()]).await? {
                let [Value::S64(id), Value::Text(push)] = row.as_slice() else { return Err(unreadable()) };
                source.states.load(*id, name, serde_json::from_str(push).map_err(|_| unreadable())?);
            }
        }
        source.is_read = false;
        Ok(())
    }

    /// Numbers and keeps changes, within the transaction that is open.
    async fn change(
        &self,
        connection: &mut Pooled,
        name: &str,
        source: &mut Source,
        changes: &[&FeedChange],
    ) -> Result<Vec<FeedEntry>, SqlError> {
        self.read_states(connection, name, source).await?;
        let numbered = Numbered::of(&mut source.states, name, changes, now_us());
        numbered.write(connection, name).await
    }

    /// As `change`, of what waits.
    async fn release_on(&self, connection: &mut Pooled, name: &str, source: &mut Source) -> Result<Vec<FeedEntry>, SqlError> {
        self.read_states(connection, name, source).await?;
        let mut released = source.states.release(name, Instant::now());
        if released.is_empty() {
            return Ok(Vec::new());
        }
        // What another host has released meanwhile is there no more.
        let mut arguments = PgArguments::default();
        add(&mut arguments, name)?;
        add(&mut arguments, released.iter().map(|waiting| waiting.id).collect::<Vec<i64>>())?;
        let still = connection.rows_with("DELETE FROM feed_waiting WHERE source = $1 AND id = ANY($2) RETURNING id", arguments).await?;
        let still = still.iter().map(|row| number(row, 0)).collect::<Result<Vec<i64>, _>>()?;
        released.retain(|waiting| still.contains(&waiting.id));
        let numbered = Numbered::of_released(name, &released, now_us());
        numbered.write(connection, name).await
    }

    async fn acknowledge_some(&self, acknowledgements: &[Acknowledgement]) -> Result<(), SqlError> {
        let mut connection = self.begin().await?;
        // In the order of the ids, as everybody locks them.
        let ids: BTreeSet<String> = acknowledgements.iter().map(|one| one.user.to_string()).collect();
        let ids: Vec<String> = ids.into_iter().collect();
        let lock = "INSERT INTO feed_user AS person (id) SELECT given.id::uuid FROM unnest($1::text[]) AS given(id) ORDER BY 1
            ON CONFLICT (id) DO UPDATE SET id = person.id RETURNING id::text, head, acked, array_to_string(gaps, ',')";
        let mut heads: HashMap<Uuid, u64> = HashMap::new();
        let mut steps: BTreeMap<Uuid, Step> = BTreeMap::new();
        for row in connection.rows_with(lock, arguments([ids])?).await? {
            let user = identifier(&row, 0)?;
            heads.insert(user, unsigned(&row, 1)?);
            let reached = Reached { up_to: unsigned(&row, 2)?, gaps: gaps(&string(&row, 3)?)? };
            steps.insert(user, Step { user, device: String::new(), to: 0, reached, fresh: Vec::new(), receipts: Vec::new() });
        }
        let mut cursors: BTreeMap<(Uuid, &str), (u64, u64)> = BTreeMap::new();
        for Acknowledgement { user, device, above, seq } in acknowledgements {
            let (Some(head), Some(step)) = (heads.get(user), steps.get_mut(user)) else { return Err(unreadable()) };
            let (above, seq) = ((*above).min(*head), (*seq).min(*head));
            let cursor = cursors.entry((*user, device.as_str())).or_default();
            *cursor = (cursor.0.max(seq), above);
            step.reached.add(Span { above, up_to: seq }, &mut step.fresh);
            if step.device.is_empty() || seq > step.to {
                (step.to, step.device) = (seq, device.clone());
            }
        }
        let mut spans: (Vec<String>, Vec<i64>, Vec<i64>) = Default::default();
        for step in steps.values_mut() {
            step.fresh.sort_unstable_by_key(|span| span.above);
            for span in &step.fresh {
                spans.0.push(step.user.to_string());
                spans.1.push(signed(span.above));
                spans.2.push(signed(span.up_to));
            }
        }
        if !spans.0.is_empty() {
            let receipts = "SELECT entry.user_id::text, payload.receipt FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS span(user_id, above, up_to)
                JOIN feed_entry AS entry ON entry.user_id = span.user_id::uuid AND entry.seq > span.above AND entry.seq <= span.up_to
                JOIN feed_payload AS payload ON payload.id = entry.payload
                WHERE payload.receipt IS NOT NULL ORDER BY entry.user_id, entry.seq";
            let mut given = PgArguments::default();
            add(&mut given, spans.0)?;
            add(&mut given, spans.1)?;
            add(&mut given, spans.2)?;
            for row in connection.rows_with(receipts, given).await? {
                if let Some(step) = steps.get_mut(&identifier(&row, 0)?) {
                    step.receipts.push(string(&row, 1)?);
                }
            }
        }
        let put_cursors = "INSERT INTO feed_cursor AS noted (user_id, device, seq, above, at_us)
            SELECT given.user_id::uuid, given.device, given.seq, given.above, $5
                FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS given(user_id, device, seq, above)
            ON CONFLICT (user_id, device) DO UPDATE SET seq = greatest(noted.seq, excluded.seq), above = excluded.above, at_us = excluded.at_us";
        let mut given = PgArguments::default();
        add(&mut given, cursors.keys().map(|(user, _)| user.to_string()).collect::<Vec<_>>())?;
        add(&mut given, cursors.keys().map(|(_, device)| (*device).to_owned()).collect::<Vec<_>>())?;
        add(&mut given, cursors.values().map(|(seq, _)| signed(*seq)).collect::<Vec<_>>())?;
        add(&mut given, cursors.values().map(|(_, above)| signed(*above)).collect::<Vec<_>>())?;
        add(&mut given, signed(now_us()))?;
        connection.rows_with(put_cursors, given).await?;
        let put_users = "UPDATE feed_user AS person SET acked = given.acked, gaps = given.gaps::bigint[]
            FROM unnest($1::text[], $2::bigint[], $3::text[]) AS given(id, acked, gaps) WHERE person.id = given.id::uuid";
        let mut given = PgArguments::default();
        add(&mut given, steps.keys().map(Uuid::to_string).collect::<Vec<_>>())?;
        add(&mut given, steps.values().map(|step| signed(step.reached.up_to)).collect::<Vec<_>>())?;
        add(&mut given, steps.values().map(|step| array_of(&step.reached.gaps)).collect::<Vec<_>>())?;
        connection.rows_with(put_users, given).await?;
        self.publish_and_commit(connection, acknowledged(steps.values())).await
    }

    /// Ends the transaction with these events in the outbox.
    async fn publish_and_commit(&self, mut connection: Pooled, events: Vec<Event>) -> Result<(), SqlError> {
        let mut pending = Pending::default();
        for event in events {
            let effect = Effect::Event(event);
            // Whoever acknowledges or announces keeps it, and tries again.
            self.outbox.check(&effect)?;
            pending.push(effect)?;
            if pending.is_full() {
                pending.write(&mut connection).await?;
            }
        }
        if !pending.is_empty() {
            pending.write(&mut connection).await?;
        }
        connection.commit().await?;
        if pending.has_written() {
            self.outbox.signal().notify_one();
        }
        Ok(())
    }
}

#[async_trait]
impl Feed for PostgresFeed {
    async fn apply(&self, source: &str, changes: &[(i64, FeedChange)]) -> Result<Vec<FeedEntry>, FeedError> {
        let known = self.source_of(source).await;
        let mut known = known.lock().await;
        let mut connection = self.begin().await?;
        let lock = "INSERT INTO feed_source AS known (name, position) VALUES ($1, $2)
            ON CONFLICT (name) DO UPDATE SET name = known.name RETURNING position";
        let seen = match connection.rows(lock, vec![source.into(), i64::MIN.into()]).await?.first().map(Vec::as_slice) {
            Some([Value::S64(seen)]) => *seen,
            _ => return Err(unreadable().into()),
        };
        let fresh: Vec<&(i64, FeedChange)> = changes.iter().filter(|(position, _)| *position > seen).collect();
        let Some(&&(position, _)) = fresh.last() else {
            connection.rollback().await?;
            return Ok(Vec::new());
        };
        let fresh: Vec<&FeedChange> = fresh.into_iter().map(|(_, change)| change).collect();
        let entries = self.change(&mut connection, source, &mut known, &fresh).await?;
        connection.rows("UPDATE feed_source SET position = $2 WHERE name = $1", vec![source.into(), position.into()]).await?;
        connection.commit().await?;
        known.is_read = true;
        Ok(entries)
    }

    async fn position(&self, source: &str) -> Result<Option<i64>, FeedError> {
        let sql = "SELECT position FROM feed_source WHERE name = $1 AND position > $2";
        let rows = self.shared.host.take().await?.rows(sql, vec![source.into(), i64::MIN.into()]).await?;
        Ok(match rows.first().map(Vec::as_slice) {
            Some([Value::S64(position)]) => Some(*position),
            _ => None,
        })
    }

    async fn release(&self, source: &str) -> Result<Vec<FeedEntry>, FeedError> {
        let known = self.source_of(source).await;
        let mut known = known.lock().await;
        let mut connection = self.begin().await?;
        let entries = self.release_on(&mut connection, source, &mut known).await?;
        connection.commit().await?;
        known.is_read = true;
        Ok(entries)
    }

    async fn read(&self, user: Uuid, since: u64, limit: usize) -> Result<FeedPage, FeedError> {
        let sql = "SELECT person.head, (SELECT min(seq) FROM feed_entry WHERE user_id = $1), entry.seq, payload.event, payload.body, payload.at_us
            FROM feed_user AS person
            LEFT JOIN feed_entry AS entry ON entry.user_id = person.id AND entry.seq > $2
            LEFT JOIN feed_payload AS payload ON payload.id = entry.payload
            WHERE person.id = $1 ORDER BY entry.seq LIMIT $3";
        let mut page = FeedPage { oldest: 1, ..FeedPage::default() };
        let mut bytes = 0;
        let limit = limit.clamp(1, limits::FEED_PAGE_MAX) as i64;
        let mut connection = self.shared.host.take().await?;
        let mut visit = |row: &PgRow| -> Result<(), SqlError> {
            page.head = unsigned(row, 0)?;
            page.oldest = match row.try_get::<Option<i64>, _>(1).map_err(unreadable_because)? {
                Some(oldest) => u64::try_from(oldest).map_err(unreadable_because)?,
                None => page.head + 1,
            };
            let is_none = row.try_get::<Option<i64>, _>(2).map_err(unreadable_because)?.is_none();
            if is_none || bytes >= limits::SQL_RESULT_BYTES_MAX {
                return Ok(());
            }
            let body = string(row, 4)?;
            bytes += body.len();
            page.entries.push(FeedEntry {
                user,
                seq: unsigned(row, 2)?,
                event: string(row, 3)?,
                payload: body.into(),
                at_us: unsigned(row, 5)?,
            });
            Ok(())
        };
        connection.run(sql, vec![Value::Uuid(user), signed(since).into(), limit.into()], &mut visit).await?;
        Ok(page)
    }

    async fn acknowledge(&self, acknowledgements: &[Acknowledgement]) -> Result<(), FeedError> {
        for some in acknowledgements.chunks(limits::ACK_BATCH_MAX) {
            self.acknowledge_some(some).await?;
        }
        Ok(())
    }

    async fn announce(&self, events: &[Event]) -> Result<(), FeedError> {
        let connection = self.begin().await?;
        Ok(self.publish_and_commit(connection, events.to_vec()).await?)
    }

    async fn device(&self, user: Uuid, device: &str) -> Result<Option<DeviceCursor>, FeedError> {
        let sql = "SELECT seq, above FROM feed_cursor WHERE user_id = $1 AND device = $2";
        let rows = self.shared.host.take().await?.rows(sql, vec![Value::Uuid(user), device.into()]).await?;
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(match rows.first().map(Vec::as_slice) {
            Some([Value::S64(seq), Value::S64(above)]) => Some(DeviceCursor { acknowledged: number(*seq), above: number(*above) }),
            _ => None,
        })
    }

    async fn unacknowledged(&self, receipt: &str, users: &[Uuid]) -> Result<Vec<Uuid>, FeedError> {
        let sql = "SELECT person.id::text FROM feed_payload AS payload
            CROSS JOIN unnest(payload.users, payload.seqs) AS member(id, seq)
            JOIN feed_user AS person ON person.id = member.id
            WHERE payload.receipt = $1 AND member.seq <= person.acked AND NOT EXISTS
                (SELECT 1 FROM generate_subscripts(person.gaps, 1) AS place
                    WHERE place % 2 = 1 AND member.seq > person.gaps[place] AND member.seq <= person.gaps[place + 1])";
        let mut reached = HashSet::new();
        let mut connection = self.shared.host.take().await?;
        let mut visit = |row: &PgRow| -> Result<(), SqlError> {
            reached.insert(identifier(row, 0)?);
            Ok(())
        };
        connection.run(sql, vec![receipt.into()], &mut visit).await?;
        Ok(users.iter().copied().filter(|user| !reached.contains(user)).collect())
    }

    async fn expire(&self, now_us: u64, cursors_kept: Duration) -> Result<u64, FeedError> {
        let mut connection = self.shared.host.take().await?;
        let not_since = now_us.saturating_sub(u64::try_from(cursors_kept.as_micros()).unwrap_or(u64::MAX));
        connection.rows("DELETE FROM feed_cursor WHERE at_us < $1", vec![signed(not_since).into()]).await?;
        let before = signed(now_us.saturating_sub(limits::FEED_TTL_S * 1_000_000));
        let most = limits::FEED_EVENTS_MAX as i64;
        // Users with entries to drop, and the first number that each keeps; some users at a time.
        let overfull = "SELECT person.id::text, greatest(person.head - $3 + 1,
                coalesce((SELECT entry.seq FROM feed_entry AS entry JOIN feed_payload AS payload ON payload.id = entry.payload
                    WHERE entry.user_id = person.id AND payload.at_us >= $2 ORDER BY entry.seq LIMIT 1), person.head + 1)),
                coalesce(oldest.at_us < $2 OR oldest.seq <= person.head - $3, false)
            FROM (SELECT id, head FROM feed_user WHERE id > $1 ORDER BY id LIMIT $4) AS person
            LEFT JOIN LATERAL (SELECT entry.seq, payload.at_us FROM feed_entry AS entry JOIN feed_payload AS payload ON payload.id = entry.payload
                WHERE entry.user_id = person.id ORDER BY entry.seq LIMIT 1) AS oldest ON true
            ORDER BY person.id";
        let batch = limits::FEED_EXPIRE_BATCH as i64;
        let (mut dropped, mut after) = (0, Uuid::nil());
        loop {
            let page = connection.rows(overfull, vec![Value::Uuid(after), before.into(), most.into(), batch.into()]).await?;
            let is_last = (page.len() as i64) < batch;
            for row in page {
                let [Value::Text(user), Value::S64(first_kept), Value::Boolean(is_overfull)] = row.as_slice() else {
                    return Err(unreadable().into());
                };
                after = user.parse().map_err(unreadable_because)?;
                if *is_overfull {
                    let drop = "DELETE FROM feed_entry WHERE user_id = $1 AND seq < $2";
                    dropped += connection.run(drop, vec![Value::Uuid(after), (*first_kept).into()], &mut |_: &PgRow| Ok(())).await?;
                }
            }
            if is_last {
                break;
            }
        }
        loop {
            let drop = "DELETE FROM feed_payload WHERE id IN (SELECT id FROM feed_payload WHERE at_us < $1 ORDER BY at_us LIMIT $2)";
            let count = connection.run(drop, vec![before.into(), batch.into()], &mut |_: &PgRow| Ok(())).await?;
            if count < limits::FEED_EXPIRE_BATCH {
                return Ok(dropped);
            }
        }
    }
}

#[async_trait]
impl Outbox for PostgresFeed {
    fn source(&self) -> &str {
        &self.source
    }

    fn signal(&self) -> Arc<Notify> {
        self.outbox.signal()
    }

    /// See `sql::postgres`.
    fn start_above(&self, _: i64) {}

    async fn peek(&self, after: i64, limit: usize) -> Result<Vec<(i64, Effect)>, SqlError> {
        outbox::peek(&self.shared.host, crate::sql::postgres::HOST_SCHEMA, after, limit).await
    }

    fn refuse_events(&self, refuse: bool) {
        self.outbox.refuse_events(refuse);
    }

    async fn remove_up_to(&self, position: i64) -> Result<(), SqlError> {
        outbox::remove_up_to(&self.shared.host, crate::sql::postgres::HOST_SCHEMA, position).await
    }
}

/// Above and up to, above and up to, …
fn gaps(text: &str) -> Result<Vec<Span>, SqlError> {
    let numbers = text.split(',').filter(|number| !number.is_empty()).map(str::parse::<u64>);
    let numbers: Vec<u64> = numbers.collect::<Result<_, _>>().map_err(unreadable_because)?;
    Ok(numbers.chunks_exact(2).map(|pair| Span { above: pair[0], up_to: pair[1] }).collect())
}

fn array_of(gaps: &[Span]) -> String {
    let numbers: Vec<String> = gaps.iter().map(|gap| format!("{},{}", gap.above, gap.up_to)).collect();
    format!("{{{}}}", numbers.join(","))
}

fn text(value: Option<&Value>) -> Result<String, SqlError> {
    match value {
        Some(Value::Text(text)) => Ok(text.clone()),
        _ => Err(unreadable()),
    }
}
