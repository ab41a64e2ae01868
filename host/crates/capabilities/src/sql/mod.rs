//! SQL for services: each its own database, transactions, portable errors, and the outbox in which effects wait for the commit.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use uuid::Uuid;

use super::events::Event;
use super::hub::{Push, Replacement};
use echo_base::limits;
use echo_base::names::ServiceName;

pub mod host;
pub mod migration;
pub mod postgres;
pub mod sqlite;
#[cfg(test)]
pub mod suite;
pub mod transfer;
mod whitelist;

/// One value as a parameter or in a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    S64(i64),
    F64(f64),
    Text(String),
    Bytes(Vec<u8>),
    Uuid(Uuid),
    /// Microseconds since 1970.
    Timestamp(u64),
    Json(String),
    Decimal(String),
}

pub type Row = Vec<Value>;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    UniqueViolation,
    ForeignKey,
    Check,
    Serialization,
    Timeout,
    Unavailable,
    TooLarge,
    Other,
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("{class:?}: {message}")]
pub struct SqlError {
    pub class: ErrorClass,
    pub constraint: Option<String>,
    pub sqlstate: Option<String>,
    pub message: String,
}

/// What a service caused inside a transaction, and what must leave the host if that is committed, and only then.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    Event(Event),
    Push(Push),
    Replace(Replacement),
}

impl Effect {
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Event(event) => event.payload.len(),
            Self::Push(push) => push.payload.len(),
            Self::Replace(replacement) => replacement.payload.len(),
        }
    }

    /// What it takes in memory and on the disk, roughly.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Event(event) => event.payload.len(),
            Self::Push(push) => push.bytes(),
            Self::Replace(replacement) => replacement.payload.len(),
        }
    }

    /// Whose feeds it goes into.
    pub fn users_count(&self) -> usize {
        match self {
            Self::Event(_) | Self::Replace(_) => 0,
            Self::Push(push) => push.users.len(),
        }
    }
}

/// One service's database.
#[async_trait]
pub trait Database: Outbox {
    async fn query(&self, sql: &str, params: Vec<Value>) -> Result<Rows, SqlError>;
    async fn query_one(&self, sql: &str, params: Vec<Value>) -> Result<Option<Row>, SqlError>;
    async fn execute(&self, sql: &str, params: Vec<Value>) -> Result<u64, SqlError>;
    /// All or none; the changed rows of each.
    async fn batch(&self, statements: Vec<(String, Vec<Value>)>) -> Result<Vec<u64>, SqlError>;
    /// Waits at most `SQL_TIMEOUT_MS` for its turn.
    async fn begin(&self) -> Result<Box<dyn Transaction>, SqlError>;
    /// As `begin`, of a transaction that collided so often with others before (`Serialization`) and is tried again.
    async fn begin_after(&self, collisions: u32) -> Result<Box<dyn Transaction>, SqlError> {
        let _ = collisions;
        self.begin().await
    }
    /// Effects outside a transaction: written to the outbox at once.
    async fn emit(&self, effects: Vec<Effect>) -> Result<(), SqlError>;
    /// Applies what is missing of these migrations, in order and all in one transaction, and takes at most `time` for it. They are not final:
    /// `undo_migrations` takes away what they added, and so does the next deployment. A migration that is final with another text is an error.
    async fn apply_migrations(&self, migrations: &[Migration], time: Duration) -> Result<Vec<String>, MigrateError>;
    /// As `apply_migrations`, on the data that is there, and rolls it back.
    async fn rehearse_migrations(&self, migrations: &[Migration], time: Duration) -> Result<Vec<String>, MigrateError>;
    /// Makes those of these names final that were applied.
    async fn confirm_migrations(&self, names: &[String]) -> Result<(), MigrateError>;
    /// Takes away what migrations added that are not final; their names.
    async fn undo_migrations(&self) -> Result<Vec<String>, MigrateError>;
    /// What would be applied, with all errors but those that only applying can show. Reads, and waits for no writer.
    async fn pending(&self, migrations: &[Migration]) -> Result<Vec<String>, MigrateError>;
    /// Applies what is missing and makes it final.
    async fn migrate(&self, migrations: &[Migration]) -> Result<Vec<String>, MigrateError> {
        let applied = self.apply_migrations(migrations, Duration::from_millis(limits::SQL_MIGRATION_TIMEOUT_MS)).await?;
        self.confirm_migrations(&applied).await?;
        Ok(applied)
    }
    /// Fills in what is null of the next so many rows of a back-fill, in a transaction of its own that also keeps how far it came: after a crash it
    /// goes on there. Errors: `Failed` with `Timeout` where that takes longer than `time`; nothing has changed then.
    async fn backfill(&self, backfill: &migration::Backfill, rows_max: usize, time: Duration) -> Result<BackfillProgress, MigrateError>;
    /// None where it never began. Reads, and waits for no writer.
    async fn backfill_progress(&self, name: &str) -> Result<Option<BackfillProgress>, SqlError>;
    /// Starts it again at the first row.
    async fn restart_backfill(&self, name: &str) -> Result<(), SqlError>;
    async fn ping(&self) -> Result<(), SqlError>;
}

/// Dropping it rolls back. After an error only a rollback is possible (as on PostgreSQL), so that no statement can slip out of a
/// transaction that the database has already given up.
#[async_trait]
pub trait Transaction: Send {
    async fn query(&mut self, sql: &str, params: Vec<Value>) -> Result<Rows, SqlError>;
    async fn query_one(&mut self, sql: &str, params: Vec<Value>) -> Result<Option<Row>, SqlError>;
    async fn execute(&mut self, sql: &str, params: Vec<Value>) -> Result<u64, SqlError>;
    async fn emit(&mut self, effect: Effect) -> Result<(), SqlError>;
    async fn commit(self: Box<Self>) -> Result<(), SqlError>;
    async fn rollback(self: Box<Self>) -> Result<(), SqlError>;
}

/// Effects that are committed and not relayed yet. The relay empties it.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// The name of this outbox for ever, e.g. `message:<random id made with the database>`. Positions rise strictly within a source.
    fn source(&self) -> &str;
    /// Notified after every commit that wrote an effect.
    fn signal(&self) -> Arc<Notify>;
    /// Effects committed from now on have positions above this one. To be called before anything is committed.
    fn start_above(&self, position: i64);
    /// The oldest after this position, in order of their positions.
    async fn peek(&self, after: i64, limit: usize) -> Result<Vec<(i64, Effect)>, SqlError>;
    /// To be called before a `peek` that begins before the end of an earlier one.
    fn rewind(&self) {}
    /// While this is set, a transaction that publishes an event is refused as `Unavailable`: enough events wait for the queue.
    fn refuse_events(&self, refuse: bool);
    /// Removes all up to and including this position.
    async fn remove_up_to(&self, position: i64) -> Result<(), SqlError>;
    /// Removes those at these positions, where events are kept until each is confirmed.
    async fn remove(&self, _positions: &[i64]) -> Result<(), SqlError> {
        Err(SqlError::new(ErrorClass::Other, "what is in this outbox is removed in order"))
    }
}

/// One step of a service's schema, from `migrations/<service>/NNNN_name.<dialect>.sql`, or its back-fill, from
/// `NNNN_name.backfill.<dialect>.sql`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Migration {
    /// `0001_accounts`; of its back-fill `0001_accounts.backfill`.
    pub name: String,
    /// `sqlite` or `postgres`.
    pub dialect: String,
    pub sql: String,
}

impl SqlError {
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, constraint: None, sqlstate: None, message: message.into() }
    }
}

impl Migration {
    pub const BACKFILL: &str = ".backfill";

    /// Whether it fills in the columns that the migration of its name added, instead of adding any.
    pub fn is_backfill(&self) -> bool {
        self.name.ends_with(Self::BACKFILL)
    }
}

/// How far a back-fill has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackfillProgress {
    /// When it began, in microseconds since 1970.
    pub began_us: u64,
    /// Rows that it filled.
    pub rows: u64,
    pub is_done: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("migration {name} was applied before with another text; a migration is never changed, add a new one")]
    Changed { name: String },
    #[error("migration {name} is not additive: {reason}")]
    NotAdditive { name: String, reason: String },
    #[error("migration {name} takes longer than the {limit_ms} ms that a deployment has, during which the service cannot write")]
    TooLong { name: String, limit_ms: u64 },
    #[error("migration {name} failed: {source}")]
    Failed { name: String, source: SqlError },
    #[error(transparent)]
    Sql(#[from] SqlError),
}

/// Opens databases, one per service.
#[async_trait]
pub trait SqlBackend: Send + Sync {
    async fn open(&self, service: &ServiceName) -> Result<Arc<dyn Database>, SqlError>;
    /// The dialect whose migrations are to be applied: `sqlite` or `postgres`.
    fn dialect(&self) -> &'static str;
    /// Flushes and closes everything.
    async fn close(&self);
}
