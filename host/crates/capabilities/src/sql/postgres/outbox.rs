//! The outbox in a service's schema: effects are rows of the transaction that caused them. The service's role may add rows and cannot read them; the relay,
//! which is the host's, claims them.
//!
//! Positions come from a sequence and are **not** in the order of the commits, so "all above the last one" would miss some: the relay deletes the rows that it claims,
//! in the transaction that appends them to feeds and to the log of events (`hub::postgres`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::Arguments;
use sqlx::postgres::PgArguments;
use tokio::sync::Notify;

use super::pool::{Pool, Pooled};
use super::roles::quoted;
use crate::sql::{Effect, ErrorClass, SqlError, Value};
use echo_base::limits;

/// Tables of the host's schema. A shard is leased by one host at a time: `epoch` rises with each new holder, which acts only under its own (a fencing token).
/// The events that left the outboxes wait in `event_log` for the queue, numbered in the order of the commits.
pub const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS _echo_outbox (position BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, effect TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS relay_shard (shard SMALLINT PRIMARY KEY, holder TEXT, epoch BIGINT NOT NULL DEFAULT 0, until TIMESTAMPTZ);
    INSERT INTO relay_shard (shard) SELECT generate_series(0, 15) ON CONFLICT (shard) DO NOTHING;
    CREATE TABLE IF NOT EXISTS event_log (service TEXT NOT NULL, position BIGINT NOT NULL, effect TEXT NOT NULL, PRIMARY KEY (service, position));
    CREATE TABLE IF NOT EXISTS event_head (service TEXT PRIMARY KEY, position BIGINT NOT NULL)";

const _: () = assert!(limits::RELAY_SHARDS == 16);

/// A service's outbox, as this host knows it.
#[derive(Default)]
pub struct Written {
    signal: Arc<Notify>,
    refuses_events: AtomicBool,
}

impl Written {
    /// Notified after every commit of this host that wrote an effect.
    pub fn signal(&self) -> Arc<Notify> {
        self.signal.clone()
    }

    pub fn refuse_events(&self, refuse: bool) {
        self.refuses_events.store(refuse, Ordering::Relaxed);
    }

    /// To be called before an effect is added. Errors: `Unavailable` for an event while events are refused.
    pub fn check(&self, effect: &Effect) -> Result<(), SqlError> {
        if matches!(effect, Effect::Event(_)) && self.refuses_events.load(Ordering::Relaxed) {
            return Err(SqlError::new(ErrorClass::Unavailable, "too many events of this service wait for their subscribers"));
        }
        Ok(())
    }
}

/// Effects waiting for their transaction's end.
#[derive(Default)]
pub struct Pending {
    waiting: Vec<String>,
    waiting_bytes: usize,
    has_written: bool,
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether to write them before more are added.
    pub fn is_full(&self) -> bool {
        self.waiting_bytes >= limits::OUTBOX_BUFFER_BYTES_MAX
    }

    pub fn has_written(&self) -> bool {
        self.has_written
    }

    /// Errors: `TooLarge`.
    pub fn push(&mut self, effect: Effect) -> Result<(), SqlError> {
        if effect.payload_bytes() > limits::EVENT_BYTES_MAX {
            return Err(SqlError::new(ErrorClass::TooLarge, format!("an event's payload is at most {} bytes", limits::EVENT_BYTES_MAX)));
        }
        let text = serde_json::to_string(&effect).expect("strings, numbers and lists always encode");
        self.waiting_bytes += text.len();
        self.waiting.push(text);
        Ok(())
    }

    /// One statement for all of them.
    pub async fn write(&mut self, connection: &mut Pooled) -> Result<(), SqlError> {
        const APPEND: &str = "INSERT INTO _echo_outbox (effect) SELECT waiting.effect FROM unnest($1::text[]) WITH ORDINALITY AS waiting(effect, place) ORDER BY place";
        let mut arguments = PgArguments::default();
        arguments.add(std::mem::take(&mut self.waiting)).map_err(|error| SqlError::new(ErrorClass::Other, error.to_string()))?;
        self.waiting_bytes = 0;
        self.has_written = true;
        connection.rows_with(APPEND, arguments).await.map(drop)
    }
}

/// The oldest of a schema's outbox, to look at: while transactions run, later ones may come before these.
pub async fn peek(host: &Pool, schema: &str, after: i64, limit: usize) -> Result<Vec<(i64, Effect)>, SqlError> {
    let sql = format!("SELECT position, effect FROM {}._echo_outbox WHERE position > $1 ORDER BY position LIMIT $2", quoted(schema));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    effects(host.take().await?.rows(&sql, vec![after.into(), limit.into()]).await?)
}

/// Only where no other transaction runs: see above.
pub async fn remove_up_to(host: &Pool, schema: &str, position: i64) -> Result<(), SqlError> {
    let sql = format!("DELETE FROM {}._echo_outbox WHERE position <= $1", quoted(schema));
    host.take().await?.rows(&sql, vec![position.into()]).await.map(drop)
}

/// Of rows `(position, effect)`.
pub fn effects(rows: Vec<Vec<Value>>) -> Result<Vec<(i64, Effect)>, SqlError> {
    rows.into_iter()
        .map(|row| match row.as_slice() {
            [Value::S64(position), Value::Text(effect)] => {
                let effect = serde_json::from_str(effect).map_err(|error| SqlError::new(ErrorClass::Other, error.to_string()))?;
                Ok((*position, effect))
            }
            _ => Err(SqlError::new(ErrorClass::Other, "the outbox holds what was never written there")),
        })
        .collect()
}
