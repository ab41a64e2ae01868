//! The outbox inside a SQLite file: effects are rows of the transaction that caused them. Shared by services' databases and the feed.

use std::sync::Arc;

use sqlx::Arguments;
use sqlx::sqlite::SqliteArguments;
use tokio::sync::Notify;
use uuid::Uuid;

use super::lanes::{File, Script};
use super::values;
use crate::capabilities::sql::{Effect, ErrorClass, SqlError};
use crate::limits;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS _echo_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS _echo_outbox (position INTEGER PRIMARY KEY AUTOINCREMENT, effect TEXT NOT NULL);
    INSERT INTO _echo_meta (name, value) VALUES ('source', $1) ON CONFLICT (name) DO NOTHING";

/// Adds the effects of `encode_all` to the outbox; for scripts that do more than that.
pub const APPEND: &str = "INSERT INTO _echo_outbox (effect) SELECT value FROM json_each($1)";

pub struct SqliteOutbox {
    source: String,
    signal: Arc<Notify>,
    peek: Script,
    remove: Script,
}

impl SqliteOutbox {
    /// Makes the tables where they are missing; the source's name is given once and for ever.
    pub async fn open(file: &File, label: &str) -> Result<Self, SqlError> {
        let mut writer = file.writer().await?;
        let fresh = format!("{label}:{}", Uuid::new_v4().simple());
        writer.run(&Script::new(TABLES, 3), values::bind([fresh.into()])?).await?;
        let mut source = String::new();
        let script = Script::new("SELECT value FROM _echo_meta WHERE name = 'source'", 1);
        let time = std::time::Duration::from_millis(limits::SQL_TIMEOUT_MS);
        writer
            .each(&script, SqliteArguments::default(), time, |row| {
                source = values::text(row, 0)?;
                Ok(true)
            })
            .await?;
        Ok(Self {
            source,
            signal: Arc::new(Notify::new()),
            peek: Script::new("SELECT position, effect FROM _echo_outbox ORDER BY position LIMIT $1", 1),
            remove: Script::new("DELETE FROM _echo_outbox WHERE position <= $1", 1),
        })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn signal(&self) -> Arc<Notify> {
        self.signal.clone()
    }

    /// To be rung after a commit that wrote an effect. A permit is kept for a relay that is not listening just now.
    pub fn ring(&self) {
        self.signal.notify_one();
    }

    /// At most `RELAY_BYTES_MAX` of them, but always one where there is one.
    pub async fn peek(&self, file: &File, limit: usize) -> Result<Vec<(i64, Effect)>, SqlError> {
        let mut reader = file.reader().await?;
        let mut effects = Vec::new();
        let mut bytes = 0;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let time = std::time::Duration::from_millis(limits::SQL_TIMEOUT_MS);
        reader
            .each(&self.peek, values::bind([limit.into()])?, time, |row| {
                let text = values::text(row, 1)?;
                bytes += text.len();
                let effect = serde_json::from_str(&text).map_err(|error| SqlError::new(ErrorClass::Other, error.to_string()))?;
                effects.push((values::integer(row, 0)?, effect));
                Ok(bytes < limits::RELAY_BYTES_MAX)
            })
            .await?;
        Ok(effects)
    }

    pub async fn remove_up_to(&self, file: &File, position: i64) -> Result<(), SqlError> {
        file.writer().await?.run(&self.remove, values::bind([position.into()])?).await.map(drop)
    }
}

/// Effects waiting for their transaction's end.
#[derive(Default)]
pub struct Pending {
    json: String,
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.json.is_empty()
    }

    /// To be written before more is collected.
    pub fn is_full(&self) -> bool {
        self.json.len() >= limits::OUTBOX_BUFFER_BYTES_MAX
    }

    pub fn push(&mut self, effect: &Effect) -> Result<(), SqlError> {
        let payload = match effect {
            Effect::Event(event) => event.payload.len(),
            Effect::Push(push) => push.payload.len(),
        };
        if payload > limits::EVENT_BYTES_MAX {
            return Err(SqlError::new(ErrorClass::TooLarge, format!("an event's payload is at most {} bytes", limits::EVENT_BYTES_MAX)));
        }
        self.json.push(if self.json.is_empty() { '[' } else { ',' });
        let text = serde_json::to_string(effect).expect("strings, numbers and lists always encode");
        self.json.push_str(&text);
        Ok(())
    }

    /// The parameter of `APPEND`.
    pub fn take(&mut self) -> Result<SqliteArguments, SqlError> {
        let mut json = std::mem::take(&mut self.json);
        json.push(']');
        let mut params = SqliteArguments::default();
        params.add(json).map_err(|error| SqlError::new(ErrorClass::Other, error.to_string()))?;
        Ok(params)
    }
}

const _: () = assert!(limits::PUSH_PAYLOAD_BYTES_MAX <= limits::EVENT_BYTES_MAX);
// One effect more may come on top of a buffer that is not yet full: JSON text in a JSON string at most doubles, a user takes 40 bytes.
const _: () = assert!(
    limits::OUTBOX_BUFFER_BYTES_MAX + 2 * limits::EVENT_BYTES_MAX + 40 * limits::PUSH_USERS_MAX + 4_096 < limits::SQL_VALUE_BYTES_MAX
);
