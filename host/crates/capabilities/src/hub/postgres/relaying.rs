//! From a service's outbox into the feeds, and its events into the log of events, all in one transaction that also removes them from the outbox: exactly once,
//! without positions. (Positions are in the order in which a sequence gave them out, and not in that of the commits.)
//!
//! The outboxes are in shards, by service: a service's effects keep their order, as they do on one host. A shard is leased by one host at a time. The lease's
//! number (`epoch`) is checked, and its row locked, in the very transaction that moves effects: a host that was stopped for longer than its lease moves nothing
//! after it, whatever it believes. Only the database's clock counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::postgres::PgArguments;
use tokio::sync::Notify;

use super::{PostgresFeed, READ_COMMITTED, Source};
use crate::hub::{Class, FeedChange, FeedEntry, FeedError, LeasedOutbox, Push, Relayed};
use crate::sql::postgres::outbox::effects;
use crate::sql::postgres::pool::Pooled;
use crate::sql::postgres::rows::{add, number, unreadable, unreadable_because};
use crate::sql::postgres::{HOST_SCHEMA, quoted, schema_of};
use crate::sql::{Effect, Outbox, SqlError};
use echo_base::limits;
use echo_base::names::ServiceName;

/// One service's outbox, as this host moves it on.
pub struct ServiceOutbox {
    feed: Arc<PostgresFeed>,
    /// Where effects are written; it is notified of commits on this host.
    outbox: Arc<dyn Outbox>,
    schema: String,
    shard: i16,
    log: Arc<EventLog>,
}

impl ServiceOutbox {
    pub fn of_service(feed: Arc<PostgresFeed>, service: &ServiceName, outbox: Arc<dyn Outbox>) -> Self {
        Self::new(feed, service.as_str(), schema_of(service), outbox)
    }

    /// The events of devices.
    pub fn of_feed(feed: Arc<PostgresFeed>) -> Self {
        Self::new(feed.clone(), "hub", HOST_SCHEMA.to_owned(), feed)
    }

    fn new(feed: Arc<PostgresFeed>, service: &str, schema: String, outbox: Arc<dyn Outbox>) -> Self {
        let log = EventLog {
            feed: feed.clone(),
            outbox: outbox.clone(),
            service: service.to_owned(),
            signal: Arc::default(),
            floor: AtomicI64::new(0),
        };
        Self { feed, outbox, schema, shard: shard_of(service), log: Arc::new(log) }
    }

    /// Within a transaction: locks the lease's row and makes it last from now. Whether it is still this host's.
    async fn hold(&self, connection: &mut Pooled, source: &mut Source) -> Result<bool, SqlError> {
        let epoch = self.feed.leases.lock().await.get(&self.shard).copied();
        let Some(epoch) = epoch else { return Ok(false) };
        let is_held = self.feed.renew(connection, self.shard, epoch).await?;
        if !is_held {
            self.lose(epoch).await;
        } else if source.epoch != epoch {
            // What another host left waiting is in the database alone.
            (source.epoch, source.is_read) = (epoch, false);
        }
        Ok(is_held)
    }

    /// Another host has it; but not what this one may have leased again since.
    async fn lose(&self, epoch: i64) {
        let mut leases = self.feed.leases.lock().await;
        if leases.get(&self.shard) == Some(&epoch) {
            leases.remove(&self.shard);
        }
    }

    /// The oldest effects, within what is relayed at once, taken out of the outbox.
    async fn claim(&self, connection: &mut Pooled) -> Result<Vec<Effect>, SqlError> {
        let table = format!("{}._echo_outbox", quoted(&self.schema));
        let sql = format!("SELECT position, effect FROM {table} ORDER BY position LIMIT {}", limits::RELAY_BATCH);
        let (mut positions, mut claimed) = (Vec::new(), Vec::new());
        let (mut bytes, mut users) = (0, 0);
        for (position, effect) in effects(connection.rows(&sql, vec![]).await?)? {
            if bytes >= limits::RELAY_BYTES_MAX || users >= limits::RELAY_USERS_MAX {
                break;
            }
            bytes += effect.bytes();
            users += effect.users_count();
            positions.push(position);
            claimed.push(effect);
        }
        if !positions.is_empty() {
            let list = positions.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
            let sql = format!("DELETE FROM {table} WHERE position = ANY($1::text::bigint[])");
            connection.rows(&sql, vec![format!("{{{list}}}").into()]).await?;
        }
        Ok(claimed)
    }
}

impl PostgresFeed {
    async fn renew(&self, connection: &mut Pooled, shard: i16, epoch: i64) -> Result<bool, SqlError> {
        let sql = "UPDATE relay_shard SET until = clock_timestamp() + make_interval(secs => $4)
            WHERE shard = $1 AND holder = $2 AND epoch = $3 RETURNING epoch";
        let mut given = PgArguments::default();
        add(&mut given, shard)?;
        add(&mut given, self.shared.node.clone())?;
        add(&mut given, epoch)?;
        add(&mut given, limits::RELAY_LEASE_MS as f64 / 1_000.0)?;
        Ok(!connection.rows_with(sql, given).await?.is_empty())
    }
}

/// The same on every host, and in every build.
fn shard_of(service: &str) -> i16 {
    (u16::from(Sha256::digest(service)[0]) % limits::RELAY_SHARDS) as i16
}

#[async_trait]
impl LeasedOutbox for ServiceOutbox {
    fn source(&self) -> &str {
        self.outbox.source()
    }

    fn signal(&self) -> Arc<Notify> {
        self.outbox.signal()
    }

    async fn lease(&self) -> Result<bool, FeedError> {
        // One lease for all services of the shard. The connection first: those who have one wait for the leases.
        let mut connection = self.feed.shared.host.take().await?;
        let mut leases = self.feed.leases.lock().await;
        if let Some(epoch) = leases.get(&self.shard).copied() {
            if self.feed.renew(&mut connection, self.shard, epoch).await? {
                return Ok(true);
            }
            leases.remove(&self.shard);
        }
        // What this host had before it was killed is its own still, under a new number.
        let sql = "UPDATE relay_shard SET holder = $2, epoch = epoch + 1, until = clock_timestamp() + make_interval(secs => $3)
            WHERE shard = $1 AND (holder = $2 OR until IS NULL OR until < clock_timestamp()) RETURNING epoch";
        let mut given = PgArguments::default();
        add(&mut given, self.shard)?;
        add(&mut given, self.feed.shared.node.clone())?;
        add(&mut given, limits::RELAY_LEASE_MS as f64 / 1_000.0)?;
        let Some(epoch) = connection.rows_with(sql, given).await?.first().map(|row| number(row, 0)).transpose()? else {
            return Ok(false);
        };
        leases.insert(self.shard, epoch);
        Ok(true)
    }

    async fn surrender(&self) -> Result<(), FeedError> {
        let Some(epoch) = self.feed.leases.lock().await.remove(&self.shard) else { return Ok(()) };
        let sql = "UPDATE relay_shard SET holder = NULL, until = NULL WHERE shard = $1 AND holder = $2 AND epoch = $3";
        let mut given = PgArguments::default();
        add(&mut given, self.shard)?;
        add(&mut given, self.feed.shared.node.clone())?;
        add(&mut given, epoch)?;
        self.feed.shared.host.take().await?.rows_with(sql, given).await?;
        Ok(())
    }

    async fn relay(&self) -> Result<Option<Relayed>, FeedError> {
        let known = self.feed.source_of(self.source()).await;
        let mut known = known.lock().await;
        let mut connection = self.feed.shared.host.take().await?;
        connection.begin(READ_COMMITTED).await?;
        if !self.hold(&mut connection, &mut known).await? {
            connection.rollback().await?;
            return Ok(None);
        }
        let claimed = self.claim(&mut connection).await?;
        let mut relayed = Relayed { effects: claimed.len(), bytes: claimed.iter().map(Effect::bytes).sum(), ..Relayed::default() };
        let (mut durable, mut events) = (Vec::new(), Vec::new());
        for effect in claimed {
            match effect {
                Effect::Event(_) => events.push(serde_json::to_string(&effect).expect("strings and numbers always encode")),
                Effect::Push(push) if push.class == Class::Durable => durable.push(FeedChange::Push(push)),
                Effect::Push(push) => relayed.ephemeral.push(push),
                Effect::Replace(replacement) => durable.push(FeedChange::Replace(replacement)),
            }
        }
        relayed.has_states = durable.iter().any(|change| matches!(change, FeedChange::Push(Push { state: Some(_), .. })));
        if !durable.is_empty() {
            let changes: Vec<&FeedChange> = durable.iter().collect();
            relayed.entries = self.feed.change(&mut connection, self.source(), &mut known, &changes).await?;
        }
        let has_events = !events.is_empty();
        if has_events {
            self.log.append(&mut connection, events).await?;
        }
        connection.commit().await?;
        if !durable.is_empty() {
            known.is_read = true;
        }
        if has_events {
            self.log.signal.notify_one();
        }
        Ok(Some(relayed))
    }

    async fn release(&self) -> Result<Option<Vec<FeedEntry>>, FeedError> {
        let known = self.feed.source_of(self.source()).await;
        let mut known = known.lock().await;
        let mut connection = self.feed.shared.host.take().await?;
        connection.begin(READ_COMMITTED).await?;
        if !self.hold(&mut connection, &mut known).await? {
            connection.rollback().await?;
            return Ok(None);
        }
        let entries = self.feed.release_on(&mut connection, self.source(), &mut known).await?;
        connection.commit().await?;
        known.is_read = true;
        Ok(Some(entries))
    }

    fn events(&self) -> Arc<dyn Outbox> {
        self.log.clone()
    }
}

/// The events of one service that have left its outbox, until the queue needs them no more, numbered by the transactions that brought them, which the lease has one after
/// another: so positions are in the order of the commits.
struct EventLog {
    feed: Arc<PostgresFeed>,
    outbox: Arc<dyn Outbox>,
    /// `message`, and `hub` for the feed's own.
    service: String,
    signal: Arc<Notify>,
    /// Positions given out are above this one.
    floor: AtomicI64,
}

impl EventLog {
    async fn append(&self, connection: &mut Pooled, events: Vec<String>) -> Result<(), SqlError> {
        let head = "INSERT INTO event_head AS known (service, position) VALUES ($1, $2 + $3)
            ON CONFLICT (service) DO UPDATE SET position = greatest(known.position, $2) + $3 RETURNING position";
        let mut given = PgArguments::default();
        add(&mut given, self.service.clone())?;
        add(&mut given, self.floor.load(Ordering::Acquire))?;
        let count = events.len() as i64;
        add(&mut given, count)?;
        let rows = connection.rows_with(head, given).await?;
        let last: i64 = rows.first().ok_or_else(unreadable)?.try_get(0).map_err(unreadable_because)?;
        let put = "INSERT INTO event_log (service, position, effect)
            SELECT $1, $2 + given.place, given.effect FROM unnest($3::text[]) WITH ORDINALITY AS given(effect, place)";
        let mut given = PgArguments::default();
        add(&mut given, self.service.clone())?;
        add(&mut given, last - count)?;
        add(&mut given, events)?;
        connection.rows_with(put, given).await.map(drop)
    }
}

#[async_trait]
impl Outbox for EventLog {
    fn source(&self) -> &str {
        self.outbox.source()
    }

    fn signal(&self) -> Arc<Notify> {
        self.signal.clone()
    }

    fn start_above(&self, position: i64) {
        self.floor.fetch_max(position, Ordering::AcqRel);
    }

    async fn peek(&self, after: i64, limit: usize) -> Result<Vec<(i64, Effect)>, SqlError> {
        let sql = "SELECT position, effect FROM event_log WHERE service = $1 AND position > $2 ORDER BY position LIMIT $3";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        effects(self.feed.shared.host.take().await?.rows(sql, vec![self.service.as_str().into(), after.into(), limit.into()]).await?)
    }

    fn refuse_events(&self, refuse: bool) {
        self.outbox.refuse_events(refuse);
    }

    async fn remove_up_to(&self, position: i64) -> Result<(), SqlError> {
        let sql = "DELETE FROM event_log WHERE service = $1 AND position <= $2";
        self.feed.shared.host.take().await?.rows(sql, vec![self.service.as_str().into(), position.into()]).await.map(drop)
    }

    async fn remove(&self, positions: &[i64]) -> Result<(), SqlError> {
        let list = positions.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
        let sql = "DELETE FROM event_log WHERE service = $1 AND position = ANY($2::text::bigint[])";
        self.feed.shared.host.take().await?.rows(sql, vec![self.service.as_str().into(), format!("{{{list}}}").into()]).await.map(drop)
    }
}
