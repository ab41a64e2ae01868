//! From a service's outbox into the feeds, and its events into the log of events, all in one transaction that also removes them from the outbox: exactly once,
//! without positions. (Positions are in the order in which a sequence gave them out, and not in that of the commits.)
//!
//! The outboxes are in shards, by service: a service's effects keep their order, as they do on one host. A shard is leased by one host at a time. The lease's
//! number (`epoch`) is checked, and its row locked, in the very transaction that moves effects: a host that was stopped for longer than its lease moves nothing
//! after it, whatever it believes. Only the database's clock counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgArguments;
use tokio::sync::Notify;

use super::event_log::EventLog;
use super::{PostgresFeed, READ_COMMITTED, Source};
use crate::hub::{Class, FeedChange, FeedEntry, FeedError, LeasedOutbox, Push, Relayed};
use crate::sql::postgres::outbox::effects;
use crate::sql::postgres::pool::Pooled;
use crate::sql::postgres::rows::{add, number};
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

/// What this host knows of its lease of a shard.
#[derive(Clone, Copy)]
pub struct Lease {
    epoch: i64,
    /// The database says until when it lasts; this says when that was last moved on.
    renewed_at: Instant,
}

impl Lease {
    fn new(epoch: i64) -> Self {
        Self { epoch, renewed_at: Instant::now() }
    }

    /// Early enough that the lease does not end between two looks into an outbox where nothing happens.
    fn is_due(&self) -> bool {
        self.renewed_at.elapsed() >= Duration::from_millis(limits::RELAY_RENEW_MS)
    }
}

/// The rest of what was claimed waits for the next batch.
struct Claimed {
    effects: Vec<Effect>,
    has_more: bool,
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
        let log = EventLog::new(feed.clone(), outbox.clone(), service);
        Self { feed, outbox, schema, shard: shard_of(service), log: Arc::new(log) }
    }

    /// Within a transaction: locks the lease's row, and makes the lease last from now where that is due. Gives its number while it is this host's.
    async fn hold(&self, connection: &mut Pooled, source: &mut Source) -> Result<Option<Held>, SqlError> {
        let Some(lease) = self.feed.leases.lock().await.get(&self.shard).copied() else { return Ok(None) };
        let (epoch, renewed) = (lease.epoch, lease.is_due());
        let is_held = match renewed {
            true => self.feed.renew(connection, self.shard, epoch).await?,
            false => self.feed.lock_lease(connection, self.shard, epoch).await?,
        };
        if !is_held {
            self.lose(epoch).await;
            return Ok(None);
        }
        self.log.settle();
        if source.epoch != epoch {
            // What another host left waiting, and what it appended, is in the database alone.
            (source.epoch, source.is_read) = (epoch, false);
            self.log.forget();
        }
        Ok(Some(Held { epoch, renewed }))
    }

    /// Commits what was done under the lease.
    async fn commit(&self, connection: Pooled, held: Held) -> Result<(), SqlError> {
        connection.commit().await?;
        if held.renewed
            && let Some(lease) = self.feed.leases.lock().await.get_mut(&self.shard)
            && lease.epoch == held.epoch
        {
            *lease = Lease::new(held.epoch);
        }
        Ok(())
    }

    /// Another host has it; but not what this one may have leased again since.
    async fn lose(&self, epoch: i64) {
        let mut leases = self.feed.leases.lock().await;
        if leases.get(&self.shard).is_some_and(|lease| lease.epoch == epoch) {
            leases.remove(&self.shard);
        }
    }

    /// The oldest effects, within what is relayed at once, taken out of the outbox.
    async fn claim(&self, connection: &mut Pooled) -> Result<Claimed, SqlError> {
        let table = format!("{}._echo_outbox", quoted(&self.schema));
        let sql = format!("SELECT position, effect FROM {table} ORDER BY position LIMIT {}", limits::RELAY_BATCH);
        let (mut positions, mut claimed) = (Vec::new(), Vec::new());
        let (mut bytes, mut users) = (0, 0);
        let waiting = effects(connection.rows(&sql, vec![]).await?)?;
        let (found, is_full) = (waiting.len(), waiting.len() >= limits::RELAY_BATCH);
        for (position, effect) in waiting {
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
        Ok(Claimed { has_more: is_full || claimed.len() < found, effects: claimed })
    }
}

/// The lease of a shard, within a transaction.
struct Held {
    epoch: i64,
    renewed: bool,
}

impl PostgresFeed {
    /// Whoever wants the lease waits for the end of the transaction, and so does the next transaction under it: what one has claimed no other claims.
    async fn lock_lease(&self, connection: &mut Pooled, shard: i16, epoch: i64) -> Result<bool, SqlError> {
        let sql = "SELECT epoch FROM relay_shard WHERE shard = $1 AND holder = $2 AND epoch = $3 FOR NO KEY UPDATE";
        let mut given = PgArguments::default();
        add(&mut given, shard)?;
        add(&mut given, self.shared.node.clone())?;
        add(&mut given, epoch)?;
        Ok(!connection.rows_with(sql, given).await?.is_empty())
    }

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
        if let Some(Lease { epoch, .. }) = leases.get(&self.shard).copied() {
            if self.feed.renew(&mut connection, self.shard, epoch).await? {
                leases.insert(self.shard, Lease::new(epoch));
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
        leases.insert(self.shard, Lease::new(epoch));
        Ok(true)
    }

    async fn surrender(&self) -> Result<(), FeedError> {
        let Some(Lease { epoch, .. }) = self.feed.leases.lock().await.remove(&self.shard) else { return Ok(()) };
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
        let Some(held) = self.hold(&mut connection, &mut known).await? else {
            connection.rollback().await?;
            return Ok(None);
        };
        let Claimed { effects: claimed, has_more } = self.claim(&mut connection).await?;
        let bytes = claimed.iter().map(Effect::bytes).sum();
        let mut relayed = Relayed { effects: claimed.len(), bytes, has_more, ..Relayed::default() };
        let (mut durable, mut events) = (Vec::new(), Vec::new());
        for effect in claimed {
            match effect {
                Effect::Event(_) => events.push(effect),
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
        let appended = match events.is_empty() {
            true => None,
            false => Some(self.log.append(&mut connection, events).await?),
        };
        self.commit(connection, held).await?;
        if !durable.is_empty() {
            known.is_read = true;
        }
        if let Some(appended) = appended {
            self.log.committed(appended);
        }
        Ok(Some(relayed))
    }

    async fn release(&self) -> Result<Option<Vec<FeedEntry>>, FeedError> {
        let known = self.feed.source_of(self.source()).await;
        let mut known = known.lock().await;
        let mut connection = self.feed.shared.host.take().await?;
        connection.begin(READ_COMMITTED).await?;
        let Some(held) = self.hold(&mut connection, &mut known).await? else {
            connection.rollback().await?;
            return Ok(None);
        };
        let entries = self.feed.release_on(&mut connection, self.source(), &mut known).await?;
        self.commit(connection, held).await?;
        known.is_read = true;
        Ok(Some(entries))
    }

    fn events(&self) -> Arc<dyn Outbox> {
        self.log.clone()
    }
}
