//! Copies of databases as of one moment, made while they are in use (SQLite's online backup, <https://www.sqlite.org/backup.html>).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::File;
use super::connection::{FILE_SYSTEM, SqliteConnection};
use crate::sql::sqlite::errors;
use crate::sql::{ErrorClass, SqlError};
use echo_base::limits;

/// A database as of one moment. While it is held, the WAL is not truncated.
pub struct Snapshot(SqliteConnection);

/// Snapshots of all these files as of one moment, at which none of them has an open transaction.
/// Errors: `Timeout` where no such moment came.
pub async fn at_one_moment(files: &[Arc<File>]) -> Result<Vec<Snapshot>, SqlError> {
    let snapshots = files.iter().map(|file| SqliteConnection::open(&file.readers.settings).map(Snapshot)).collect::<Result<Vec<_>, _>>()?;
    for _ in 0..limits::BACKUP_TRIES_MAX {
        let all = async {
            let mut writers = Vec::with_capacity(files.len());
            for file in files {
                writers.push(file.writer_alone().await?);
            }
            Ok::<_, SqlError>(writers)
        };
        // A transaction may hold the writer of one file and wait for that of another, so this does not hold some writers and wait long for others.
        match tokio::time::timeout(Duration::from_millis(limits::BACKUP_HOLD_MS), all).await {
            Ok(writers) => {
                let _nobody_writes = writers?;
                snapshots.iter().try_for_each(Snapshot::take)?;
                return Ok(snapshots);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(limits::BACKUP_HOLD_MS)).await,
        }
    }
    Err(SqlError::new(ErrorClass::Timeout, "no moment was found at which no service is in the middle of a change"))
}

impl Snapshot {
    fn take(&self) -> Result<(), SqlError> {
        // A read transaction begins with what it reads first.
        self.0.sqlite.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").map_err(errors::from_rusqlite)
    }

    /// Writes it into a new file and flushes that. Blocks on the disk.
    pub fn write_to(self, path: &Path) -> Result<(), SqlError> {
        self.0.progress.begin(Duration::from_secs(limits::BACKUP_FILE_S_MAX), false);
        copy(&self.0.sqlite, path)
    }
}

/// Copies a database that this host does not write. Blocks on the disk.
pub fn copy_file(from: &Path, to: &Path) -> Result<(), SqlError> {
    copy(&Connection::open(from).map_err(errors::from_rusqlite)?, to)
}

fn copy(from: &Connection, to: &Path) -> Result<(), SqlError> {
    let copied = || {
        let mut to = Connection::open(to)?;
        let all = Backup::new(from, &mut to)?.step(-1)?;
        Ok(all == StepResult::Done)
    };
    match copied().map_err(errors::from_rusqlite)? {
        true => Ok(()),
        false => Err(SqlError::new(ErrorClass::Unavailable, "the database is in use by others")),
    }
}

/// Whether another process, such as a running host, has locked the file.
pub fn is_in_use(path: &Path) -> bool {
    let opened = Connection::open_with_flags_and_vfs(path, OpenFlags::SQLITE_OPEN_READ_WRITE, FILE_SYSTEM);
    let read = opened.and_then(|sqlite| sqlite.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(())));
    read.is_err_and(|error| error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy))
}

/// Errors: what is wrong with a database file that no host has open.
pub fn check_file(path: &Path) -> Result<(), SqlError> {
    let checked = || Connection::open(path)?.query_row("PRAGMA integrity_check(1)", (), |row| row.get::<_, String>(0));
    match checked().map_err(errors::from_rusqlite)?.as_str() {
        "ok" => Ok(()),
        wrong => Err(SqlError::new(ErrorClass::Other, wrong)),
    }
}
