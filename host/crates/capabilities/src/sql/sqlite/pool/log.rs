//! The write-ahead log of a connection's file: copying it into the file, and cutting it off.

use std::time::Duration;

use super::{PooledConnection, Speaker, SqliteConnection};
use crate::sql::SqlError;
use crate::sql::sqlite::errors;
use echo_base::limits;

impl PooledConnection {
    /// Gives the disk back what a large transaction left in the log. Where readers keep it from that, the log is cut when it restarts.
    pub async fn shorten_log(&mut self) -> Result<(), SqlError> {
        let log = self.held()?.pool.role.path.with_extension("sqlite-wal");
        if !std::fs::metadata(log).is_ok_and(|log| log.len() > limits::SQLITE_LOG_KEPT_BYTES as u64) {
            return Ok(());
        }
        self.held()?.connection()?.speak(Speaker::Host)?;
        let time = Duration::from_millis(limits::SQL_TIMEOUT_MS);
        self.elsewhere(time, |connection| connection.empty_log().map(drop)).await?
    }
}

impl SqliteConnection {
    /// Copies what is in the log into the file, as far as nobody has to be waited for; how many pages the log has.
    pub fn checkpoint_beside(&self) -> Result<i64, SqlError> {
        self.sqlite.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |row| row.get(1)).map_err(errors::from_rusqlite)
    }

    /// Copies all of the log into the file and cuts it off. False where somebody is at work whom this does not wait for.
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
