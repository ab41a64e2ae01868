//! The events of one service that have left its outbox, until the queue needs them no more, numbered by the transactions that brought them, which the lease has
//! one after another: so positions are in the order of the commits. What this host has appended itself is handed on from memory; the table is read at the
//! start, after another host had the lease, and where memory would have become too much.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::Row;
use sqlx::postgres::PgArguments;
use tokio::sync::Notify;

use super::PostgresFeed;
use crate::sql::postgres::outbox::effects;
use crate::sql::postgres::pool::Pooled;
use crate::sql::postgres::rows::{add, unreadable, unreadable_because};
use crate::sql::{Effect, Outbox, SqlError};
use echo_base::limits;

pub struct EventLog {
    feed: Arc<PostgresFeed>,
    outbox: Arc<dyn Outbox>,
    /// `message`, and `hub` for the feed's own.
    service: String,
    signal: Arc<Notify>,
    /// Positions given out are above this one.
    floor: AtomicI64,
    /// None where the table has to be read.
    newest: Mutex<Option<Newest>>,
    /// From an append until it is known that it was committed.
    is_appending: AtomicBool,
}

/// All that was appended above a position.
#[derive(Default)]
struct Newest {
    /// Not known while the table is being read.
    after: Option<i64>,
    effects: VecDeque<(i64, Effect)>,
    bytes: usize,
}

/// Events with their positions, of a transaction that has not ended.
pub struct Appended(Vec<(i64, Effect)>);

impl EventLog {
    pub fn new(feed: Arc<PostgresFeed>, outbox: Arc<dyn Outbox>, service: &str) -> Self {
        Self {
            feed,
            outbox,
            service: service.to_owned(),
            signal: Arc::default(),
            floor: AtomicI64::new(0),
            newest: Mutex::default(),
            is_appending: AtomicBool::new(false),
        }
    }

    /// Within a transaction that has the lease; `committed` is to be called after its commit.
    pub async fn append(&self, connection: &mut Pooled, events: Vec<Effect>) -> Result<Appended, SqlError> {
        self.is_appending.store(true, Ordering::Release);
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
        let texts = events.iter().map(|event| serde_json::to_string(event).expect("strings and numbers always encode"));
        let mut given = PgArguments::default();
        add(&mut given, self.service.clone())?;
        add(&mut given, last - count)?;
        add(&mut given, texts.collect::<Vec<_>>())?;
        connection.rows_with(put, given).await?;
        Ok(Appended((last - count + 1..).zip(events).collect()))
    }

    pub fn committed(&self, Appended(events): Appended) {
        let mut newest = self.newest.lock();
        if let Some(known) = &mut *newest {
            known.bytes += events.iter().map(|(_, effect)| effect.bytes()).sum::<usize>();
            known.effects.extend(events);
            if known.effects.len() > limits::RELAY_EVENTS_WAITING_MAX || known.bytes > limits::RELAY_BYTES_MAX {
                *newest = None;
            }
        }
        drop(newest);
        self.is_appending.store(false, Ordering::Release);
        self.signal.notify_one();
    }

    /// At the begin of a transaction that has the lease: all earlier ones have ended. Where one has ended and nobody knows how, what it appended may be in the
    /// table alone.
    pub fn settle(&self) {
        if self.is_appending.swap(false, Ordering::AcqRel) {
            self.forget();
        }
    }

    /// There may be some in the table that this host knows nothing of.
    pub fn forget(&self) {
        *self.newest.lock() = None;
        self.signal.notify_one();
    }

    /// From memory, where that holds all that follows.
    fn peek_newest(&self, after: i64, limit: usize) -> Option<Vec<(i64, Effect)>> {
        let mut newest = self.newest.lock();
        let known = newest.as_mut().filter(|known| known.after.is_some_and(|known| known <= after))?;
        known.drop_up_to(after);
        Some(known.effects.iter().take(limit).cloned().collect())
    }

    /// The table was read to its end: what is appended later is in memory.
    fn has_read_up_to(&self, position: i64) {
        if let Some(known) = &mut *self.newest.lock() {
            known.drop_up_to(position);
        }
    }
}

impl Newest {
    fn drop_up_to(&mut self, position: i64) {
        self.after = Some(position);
        while let Some((_, effect)) = self.effects.pop_front_if(|(known, _)| *known <= position) {
            self.bytes -= effect.bytes();
        }
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
        if let Some(events) = self.peek_newest(after, limit) {
            return Ok(events);
        }
        // Before the table is read: what is committed meanwhile is in one of the two, or in both.
        *self.newest.lock() = (!self.is_appending.load(Ordering::Acquire)).then(Newest::default);
        let sql = "SELECT position, effect FROM event_log WHERE service = $1 AND position > $2 ORDER BY position LIMIT $3";
        let rows_max = i64::try_from(limit).unwrap_or(i64::MAX);
        let given = vec![self.service.as_str().into(), after.into(), rows_max.into()];
        let read = async { effects(self.feed.shared.host.take().await?.rows(sql, given).await?) }.await;
        match &read {
            Ok(events) if events.len() < limit => self.has_read_up_to(events.last().map_or(after, |(position, _)| *position)),
            _ => *self.newest.lock() = None,
        }
        read
    }

    fn rewind(&self) {
        *self.newest.lock() = None;
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
