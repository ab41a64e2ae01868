//! One connection of SQLite's: how it is opened, and how statements run on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{CachedStatement, Connection, InterruptHandle, OpenFlags, Statement};

use super::Durability;
use crate::sql::sqlite::script::{Script, Text};
use crate::sql::sqlite::values::{Params, Row};
use crate::sql::sqlite::watch::{Speaker, Watch};
use crate::sql::sqlite::{errors, functions};
use crate::sql::{ErrorClass, SqlError};
use echo_base::limits;

/// SQLite's own file system whose files belong to one process: it takes one lock when it opens a file, and then asks the kernel for none, where
/// others ask several times per transaction (<https://www.sqlite.org/vfs.html>, section 2.1).
pub const FILE_SYSTEM: &str = "unix-excl";

/// What a connection is for.
pub struct Role {
    pub path: PathBuf,
    pub durability: Durability,
    pub writes: bool,
    /// The largest that the file may become.
    pub bytes_max: Option<u64>,
}

/// Another process has the file: SQLite is told to take it for this one alone (see `FILE_SYSTEM`).
fn in_use(path: &Path) -> SqlError {
    let file = path.display();
    let message = format!(
        "{file} is in use by another process; a data folder serves one host at a time: end that one, or give another folder (--data)"
    );
    SqlError::new(ErrorClass::Unavailable, message)
}

/// One connection of SQLite's.
pub struct SqliteConnection {
    pub sqlite: Connection,
    pub watch: Arc<Watch>,
    /// Ends what runs at the next step at which SQLite looks, also where it asks nobody (counting a table).
    pub interrupt: Arc<InterruptHandle>,
}

impl SqliteConnection {
    pub fn open(role: &Role) -> Result<Self, SqlError> {
        let sqlite = Connection::open_with_flags_and_vfs(&role.path, OpenFlags::default(), FILE_SYSTEM);
        let sqlite = sqlite.map_err(errors::from_rusqlite)?;
        let watch = Arc::new(Watch::default());
        let configured = || -> rusqlite::Result<()> {
            sqlite.busy_timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS))?;
            sqlite.pragma_update(None, "journal_mode", "WAL")?;
            sqlite.pragma_update(None, "synchronous", if role.durability == Durability::Power { "FULL" } else { "NORMAL" })?;
            sqlite.pragma_update(None, "foreign_keys", true)?;
            sqlite.pragma_update(None, "trusted_schema", false)?;
            // What is deleted or overwritten is zeroed in its page.
            sqlite.pragma_update(None, "secure_delete", true)?;
            // Only where the checkpointer does not keep up: the writer itself would wait for the disk.
            sqlite.pragma_update(None, "wal_autocheckpoint", limits::SQLITE_LOG_PAGES_MAX)?;
            // A log that grew beyond this is cut when it restarts.
            sqlite.pragma_update(None, "journal_size_limit", limits::SQLITE_LOG_KEPT_BYTES)?;
            if role.writes {
                sqlite.pragma_update(None, "cache_size", limits::SQLITE_WRITER_PAGES)?;
            }
            if let Some(bytes_max) = role.bytes_max {
                // SQLite says what holds now: never less than the file has already.
                let pages_max = (bytes_max / limits::SQLITE_PAGE_BYTES).min(u64::from(u32::MAX) - 1) as i64;
                sqlite.pragma_update_and_check(None, "max_page_count", pages_max, |_| Ok(()))?;
            }
            sqlite.pragma_update(None, "hard_heap_limit", limits::SQLITE_HEAP_BYTES_MAX as i64)?;
            sqlite.pragma_update(None, "query_only", !role.writes)?;
            // A kept statement keeps its plan, instead of being prepared anew for other parameters.
            sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            sqlite.set_prepared_statement_cache_capacity(limits::SQLITE_STATEMENTS_KEPT);
            for (limit, value) in [
                (Limit::SQLITE_LIMIT_LENGTH, Speaker::Host.value_bytes_max()),
                (Limit::SQLITE_LIMIT_SQL_LENGTH, 2 * limits::SQL_STATEMENT_BYTES_MAX),
                (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, limits::SQL_PARAMS_MAX),
                (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, limits::SQL_LIKE_PATTERN_BYTES_MAX),
                (Limit::SQLITE_LIMIT_EXPR_DEPTH, limits::SQL_EXPRESSION_DEPTH_MAX),
                (Limit::SQLITE_LIMIT_COMPOUND_SELECT, limits::SQL_UNION_PARTS_MAX),
                (Limit::SQLITE_LIMIT_ATTACHED, 0),
                (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
            ] {
                sqlite.set_limit(limit, value as i32)?;
            }
            functions::install(&sqlite, &watch)?;
            let watch = watch.clone();
            sqlite.progress_handler(limits::SQLITE_STEPS_PER_CHECK, Some(move || watch.is_over()))
        };
        configured().map_err(|error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy) => in_use(&role.path),
            _ => errors::from_rusqlite(error),
        })?;
        let interrupt = Arc::new(sqlite.get_interrupt_handle());
        Ok(Self { sqlite, watch, interrupt })
    }

    /// From now on statements run in this name.
    pub fn speak(&self, speaker: Speaker) -> Result<(), SqlError> {
        let before = self.watch.speaker();
        if before != speaker {
            if before.value_bytes_max() != speaker.value_bytes_max() {
                let length = speaker.value_bytes_max() as i32;
                self.sqlite.set_limit(Limit::SQLITE_LIMIT_LENGTH, length).map_err(errors::from_rusqlite)?;
            }
            self.watch.speaker.store(speaker as u8, Ordering::Relaxed);
        }
        Ok(())
    }

    pub fn run(
        &self,
        script: &Script,
        params: &Params,
        visit: &mut impl FnMut(&Row<'_>) -> Result<bool, SqlError>,
    ) -> Result<Vec<u64>, SqlError> {
        let mut changed = Vec::with_capacity(script.statements.len());
        for text in script.statements.iter() {
            let goes_on = if script.keep {
                step(&mut *self.prepare(text)?, text, params, visit)?
            } else {
                let mut statement = self.sqlite.prepare(&text.sql).map_err(errors::from_rusqlite)?;
                step(&mut statement, text, params, visit)?
            };
            if !goes_on {
                break;
            }
            changed.push(self.sqlite.changes());
        }
        Ok(changed)
    }

    pub fn run_rows(&self, text: &Text, rows: &[Params]) -> Result<(), SqlError> {
        let mut statement = self.prepare(text)?;
        rows.iter().try_for_each(|row| step(&mut statement, text, row, &mut |_| Ok(true)).map(drop))
    }

    fn prepare(&self, text: &Text) -> Result<CachedStatement<'_>, SqlError> {
        self.sqlite.prepare_cached(&text.sql).map_err(errors::from_rusqlite)
    }

    pub fn checks(&self) -> u64 {
        self.watch.checks.load(Ordering::Relaxed)
    }

    /// A statement of the host that begins, ends or rolls back.
    pub fn control(&self, sql: &str) -> Result<(), SqlError> {
        self.watch.is_cancelled.store(false, Ordering::Relaxed);
        self.speak(Speaker::Host)?;
        self.watch.begin(Duration::from_millis(limits::SQL_MIGRATION_TIMEOUT_MS), false);
        let mut statement = self.sqlite.prepare_cached(sql).map_err(errors::from_rusqlite)?;
        statement.execute(()).map(drop).map_err(errors::from_rusqlite)
    }

    pub fn close(self) {
        if let Err((_, error)) = self.sqlite.close() {
            tracing::warn!(%error, "a database connection did not close cleanly");
        }
    }
}

/// One statement to its end; false where `visit` wants no more.
fn step(
    statement: &mut Statement<'_>,
    text: &Text,
    params: &Params,
    visit: &mut impl FnMut(&Row<'_>) -> Result<bool, SqlError>,
) -> Result<bool, SqlError> {
    text.bind(params, statement)?;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(errors::from_rusqlite)? {
        if !visit(row)? {
            return Ok(false);
        }
    }
    Ok(true)
}
