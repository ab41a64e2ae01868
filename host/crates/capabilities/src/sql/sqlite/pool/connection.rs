//! One SQLite connection: how it is configured, and how statements run on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{CachedStatement, Connection, InterruptHandle, OpenFlags, Statement};

use super::Durability;
use crate::sql::sqlite::progress::{Progress, StatementOwner};
use crate::sql::sqlite::script::{Script, ScriptStatement};
use crate::sql::sqlite::values::{Params, Row};
use crate::sql::sqlite::{errors, functions};
use crate::sql::{ErrorClass, SqlError};
use echo_base::limits;

/// SQLite's VFS that locks a file for one process when it opens it. The default VFS takes and releases file locks several times per transaction;
/// this one needs none after opening (<https://www.sqlite.org/vfs.html>, section 2.1).
pub const FILE_SYSTEM: &str = "unix-excl";

/// How a connection is opened.
pub struct ConnectionSettings {
    pub path: PathBuf,
    pub durability: Durability,
    pub writes: bool,
    /// The largest that the file may become.
    pub bytes_max: Option<u64>,
}

/// The error where another process has the file open (see `FILE_SYSTEM`).
fn in_use(path: &Path) -> SqlError {
    let file = path.display();
    let message = format!(
        "{file} is in use by another process; a data folder serves one host at a time: end that one, or give another folder (--data)"
    );
    SqlError::new(ErrorClass::Unavailable, message)
}

/// A connection with the progress handler and the authorizer installed.
pub struct SqliteConnection {
    pub sqlite: Connection,
    pub progress: Arc<Progress>,
    /// Interrupts the running statement, also in a step that calls no progress handler (counting a table).
    pub interrupt: Arc<InterruptHandle>,
}

impl SqliteConnection {
    pub fn open(settings: &ConnectionSettings) -> Result<Self, SqlError> {
        let sqlite = Connection::open_with_flags_and_vfs(&settings.path, OpenFlags::default(), FILE_SYSTEM);
        let sqlite = sqlite.map_err(errors::from_rusqlite)?;
        let progress = Arc::new(Progress::default());
        let configured = || -> rusqlite::Result<()> {
            sqlite.busy_timeout(Duration::from_millis(limits::SQL_TIMEOUT_MS))?;
            sqlite.pragma_update(None, "journal_mode", "WAL")?;
            sqlite.pragma_update(None, "synchronous", if settings.durability == Durability::Power { "FULL" } else { "NORMAL" })?;
            sqlite.pragma_update(None, "foreign_keys", true)?;
            sqlite.pragma_update(None, "trusted_schema", false)?;
            // What is deleted or overwritten is zeroed in its page.
            sqlite.pragma_update(None, "secure_delete", true)?;
            // The checkpointer does this; the writer, which would wait for the disk, only where the checkpointer does not keep up.
            sqlite.pragma_update(None, "wal_autocheckpoint", limits::SQLITE_LOG_PAGES_MAX)?;
            // A WAL that grew beyond this is truncated when it restarts.
            sqlite.pragma_update(None, "journal_size_limit", limits::SQLITE_LOG_KEPT_BYTES)?;
            if settings.writes {
                sqlite.pragma_update(None, "cache_size", limits::SQLITE_WRITER_PAGES)?;
            }
            if let Some(bytes_max) = settings.bytes_max {
                // SQLite answers with the limit in force: never less than the file has already.
                let pages_max = (bytes_max / limits::SQLITE_PAGE_BYTES).min(u64::from(u32::MAX) - 1) as i64;
                sqlite.pragma_update_and_check(None, "max_page_count", pages_max, |_| Ok(()))?;
            }
            sqlite.pragma_update(None, "hard_heap_limit", limits::SQLITE_HEAP_BYTES_MAX as i64)?;
            sqlite.pragma_update(None, "query_only", !settings.writes)?;
            // Query planner stability: a cached statement is not planned again for other parameters.
            sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            sqlite.set_prepared_statement_cache_capacity(limits::SQLITE_STATEMENTS_KEPT);
            for (limit, value) in [
                (Limit::SQLITE_LIMIT_LENGTH, StatementOwner::Host.value_bytes_max()),
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
            functions::install(&sqlite, &progress)?;
            let progress = progress.clone();
            sqlite.progress_handler(limits::SQLITE_STEPS_PER_CHECK, Some(move || progress.must_end()))
        };
        configured().map_err(|error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy) => in_use(&settings.path),
            _ => errors::from_rusqlite(error),
        })?;
        let interrupt = Arc::new(sqlite.get_interrupt_handle());
        Ok(Self { sqlite, progress, interrupt })
    }

    /// Statements from now on run on behalf of this owner.
    pub fn run_as(&self, owner: StatementOwner) -> Result<(), SqlError> {
        let before = self.progress.owner();
        if before != owner {
            if before.value_bytes_max() != owner.value_bytes_max() {
                let length = owner.value_bytes_max() as i32;
                self.sqlite.set_limit(Limit::SQLITE_LIMIT_LENGTH, length).map_err(errors::from_rusqlite)?;
            }
            self.progress.owner.store(owner as u8, Ordering::Relaxed);
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

    pub fn run_rows(&self, text: &ScriptStatement, rows: &[Params]) -> Result<(), SqlError> {
        let mut statement = self.prepare(text)?;
        rows.iter().try_for_each(|row| step(&mut statement, text, row, &mut |_| Ok(true)).map(drop))
    }

    fn prepare(&self, text: &ScriptStatement) -> Result<CachedStatement<'_>, SqlError> {
        self.sqlite.prepare_cached(&text.sql).map_err(errors::from_rusqlite)
    }

    pub fn checks(&self) -> u64 {
        self.progress.checks.load(Ordering::Relaxed)
    }

    /// Runs BEGIN, COMMIT, ROLLBACK or a savepoint's statement, for the host.
    pub fn control(&self, sql: &str) -> Result<(), SqlError> {
        self.progress.is_cancelled.store(false, Ordering::Relaxed);
        self.run_as(StatementOwner::Host)?;
        self.progress.begin(Duration::from_millis(limits::SQL_MIGRATION_TIMEOUT_MS), false);
        let mut statement = self.sqlite.prepare_cached(sql).map_err(errors::from_rusqlite)?;
        statement.execute(()).map(drop).map_err(errors::from_rusqlite)
    }

    pub fn close(self) {
        if let Err((_, error)) = self.sqlite.close() {
            tracing::warn!(%error, "a database connection did not close cleanly");
        }
    }
}

/// Runs one statement to its end. False where `visit` wants no more rows.
fn step(
    statement: &mut Statement<'_>,
    text: &ScriptStatement,
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
