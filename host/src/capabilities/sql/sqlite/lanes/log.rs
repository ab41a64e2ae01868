//! Cutting the write-ahead log after a large transaction.

use std::time::Duration;

use super::{Lease, Link, Speaker, errors};
use crate::capabilities::sql::SqlError;
use crate::limits;

impl Lease {
    /// Gives the disk back what a large transaction left in the log. Where readers keep it from that, the log is cut when it restarts.
    pub async fn shorten_log(&mut self) -> Result<(), SqlError> {
        let log = self.held()?.lane.role.path.with_extension("sqlite-wal");
        if !std::fs::metadata(log).is_ok_and(|log| log.len() > limits::SQLITE_LOG_KEPT_BYTES as u64) {
            return Ok(());
        }
        self.held()?.link()?.speak(Speaker::Host)?;
        let shorten = |link: &Link| {
            link.connection.busy_timeout(Duration::from_millis(limits::SQLITE_LOG_REST_WAIT_MS))?;
            link.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?;
            link.connection.busy_timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS))
        };
        let time = Duration::from_millis(limits::SQL_TIMEOUT_MS);
        self.elsewhere(time, move |link| shorten(link).map_err(errors::from_rusqlite)).await?
    }
}
