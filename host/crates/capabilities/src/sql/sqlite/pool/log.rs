//! The write-ahead log of a connection's file: checkpointing and truncating it.

use std::time::Duration;

use super::{PooledConnection, SqliteConnection, StatementOwner};
use crate::sql::SqlError;
use crate::sql::sqlite::errors;
use echo_base::limits;

impl PooledConnection {
    /// Truncates a WAL that a large transaction made long. Where readers prevent that, it is truncated when it restarts.
    pub async fn shorten_log(&mut self) -> Result<(), SqlError> {
        let log = self.checkout()?.pool.settings.path.with_extension("sqlite-wal");
        if !std::fs::metadata(log).is_ok_and(|log| log.len() > limits::SQLITE_LOG_KEPT_BYTES as u64) {
            return Ok(());
        }
        self.checkout()?.connection()?.run_as(StatementOwner::Host)?;
        let time = Duration::from_millis(limits::SQL_TIMEOUT_MS);
        self.run_on_worker(time, |connection| connection.empty_log().map(drop)).await?
    }
}

impl SqliteConnection {
    /// Checkpoints as much as is possible without waiting (`PRAGMA wal_checkpoint(PASSIVE)`). Returns the pages of the WAL.
    pub fn checkpoint_beside(&self) -> Result<i64, SqlError> {
        self.sqlite.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |row| row.get(1)).map_err(errors::from_rusqlite)
    }

    /// Checkpoints and truncates the WAL. False where a connection in use prevents it.
    pub fn empty_log(&self) -> Result<bool, SqlError> {
        let empty = || {
            self.sqlite.busy_timeout(Duration::from_millis(limits::SQLITE_LOG_REST_WAIT_MS))?;
            let is_busy = self.sqlite.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get::<_, bool>(0));
            self.sqlite.busy_timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS))?;
            is_busy.map(|is_busy| !is_busy)
        };
        empty().map_err(errors::from_rusqlite)
    }
}
