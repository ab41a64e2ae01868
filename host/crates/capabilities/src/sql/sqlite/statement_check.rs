//! The statements of a service on SQLite: each text is checked once against the whitelist that all engines share, and what is known of it is cached.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::functions;
use super::script::Script;
use crate::sql::whitelist::{self, Dialect, is_any};
use crate::sql::{ErrorClass, SqlError};
use echo_base::limits;

/// A statement that passed the check.
pub struct CheckedStatement {
    sql: Arc<str>,
    /// Short enough to be kept prepared.
    keep: bool,
    pub script: Script,
    /// Changes nothing: may run on a reader.
    pub reads: bool,
    /// Changes rows, so that their count means something.
    pub changes: bool,
    /// Says RECURSIVE, so it may run for long on no data at all.
    pub is_recursive: bool,
    /// Calls a function whose work grows with the length of its arguments.
    pub is_linear: bool,
    pub params: usize,
    pub cost: StatementCost,
}

/// What one run of a statement cost.
#[derive(Clone, Copy)]
pub struct RunCost {
    /// Calls of SQLite's progress handler: one every `SQLITE_STEPS_PER_CHECK` virtual-machine steps.
    pub checks: u64,
    /// Wall-clock time where it ran in place; CPU time on a worker thread, which may wait long for a processor.
    pub took: Duration,
}

/// Whether a statement may run in place: its last runs were quick.
pub struct StatementCost {
    /// So many quick runs from now on it counts as quick; one at first.
    slow_runs_left: AtomicU32,
}

impl StatementCost {
    pub fn is_quick(&self) -> bool {
        self.slow_runs_left.load(Ordering::Relaxed) == 0
    }

    pub fn note(&self, run_cost: RunCost) {
        // Two runs that end at once may count as one, which does no harm.
        let runs = if run_cost.checks > limits::SQLITE_QUICK_CHECKS || run_cost.took > Duration::from_micros(limits::SQLITE_QUICK_US) {
            limits::SQLITE_SLOW_RUNS
        } else {
            self.slow_runs_left.load(Ordering::Relaxed).saturating_sub(1)
        };
        self.slow_runs_left.store(runs, Ordering::Relaxed);
    }
}

/// The checked statements by their text: a service runs the same few dozen again and again.
#[derive(Default)]
pub struct StatementCache {
    known: Mutex<HashMap<Arc<str>, Arc<CheckedStatement>>>,
}

impl StatementCache {
    pub fn check(&self, sql: &str) -> Result<Arc<CheckedStatement>, SqlError> {
        if let Some(checked) = self.known.lock().get(sql) {
            return Ok(checked.clone());
        }
        let checked = Arc::new(check(sql).map_err(|reason| SqlError {
            class: ErrorClass::Other,
            constraint: None,
            sqlstate: Some("42000".to_owned()),
            message: format!("refused: {reason}"),
        })?);
        if checked.keep {
            let mut known = self.known.lock();
            // Full: start over. A service has some dozens of texts; one that makes thousands gains nothing from a cache.
            if known.len() >= limits::SQLITE_STATEMENTS_KEPT {
                known.clear();
            }
            known.insert(checked.sql.clone(), checked.clone());
        }
        Ok(checked)
    }
}

fn check(sql: &str) -> Result<CheckedStatement, String> {
    let statement = whitelist::check(sql, Dialect::Sqlite)?;
    let is_recursive = statement.names(|word| is_any(word, &["RECURSIVE"]));
    let is_linear = statement.names(functions::is_linear);
    let (changes, params) = (statement.changes, statement.params);
    let keep = sql.len() <= limits::SQLITE_STATEMENT_KEPT_BYTES_MAX;
    let sql: Arc<str> = sql.into();
    let script = Script::new(sql.clone());
    let script = if keep { script } else { script.once() };
    Ok(CheckedStatement {
        sql,
        keep,
        script,
        reads: !changes,
        changes,
        is_recursive,
        is_linear,
        params,
        cost: StatementCost { slow_runs_left: AtomicU32::new(1) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sql: &str, expect: &str) {
        let reason = check(sql).err().unwrap_or_else(|| panic!("{sql:?} was let through"));
        assert!(reason.contains(expect), "{sql:?}: {reason:?} does not say {expect:?}");
    }

    #[test]
    fn what_services_write_is_let_through() {
        for (sql, reads, params) in [
            ("SELECT a, 'it''s; -- $9' FROM t WHERE b = $1 AND c IN ($2, $10)", true, 10),
            ("select 1 -- and no more; DELETE\n;", true, 0),
            ("INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET a = excluded.a RETURNING a;", false, 1),
            ("WITH x AS (SELECT 1) SELECT * FROM x", true, 0),
            ("WITH x AS (SELECT 1) DELETE FROM t WHERE a IN x", false, 0),
            ("/* one */ UPDATE \"t\" SET a = 1.5e3 WHERE b = X'00'", false, 0),
        ] {
            let checked = check(sql).unwrap_or_else(|reason| panic!("{sql:?}: {reason}"));
            assert_eq!((checked.reads, checked.params), (reads, params), "{sql:?}");
        }
    }

    #[test]
    fn what_reaches_beyond_is_refused() {
        for sql in [
            "ATTACH 'other.sqlite' AS o",
            "DETACH o",
            "PRAGMA query_only = 0",
            "VACUUM INTO 'x'",
            "BEGIN",
            "COMMIT",
            "end",
            "ROLLBACK",
            "SAVEPOINT a",
            "RELEASE a",
            "EXPLAIN SELECT 1",
            "CREATE TABLE t (a)",
            "DROP TABLE t",
            "REINDEX",
            "ANALYZE",
        ] {
            refused(sql, "not for services");
            refused(&format!("/**/ {sql}"), "not for services");
            refused(&format!("SELECT 1; {sql}"), "one statement");
        }
        for sql in [
            "SELECT * FROM _echo_outbox",
            "SELECT * FROM \"_Echo_outbox\"",
            "SELECT * FROM [_ECHO_meta]",
            "SELECT * FROM `_echo_meta`",
            "SELECT * FROM main.'_echo_meta'",
            "SELECT * FROM/**/_echo_meta",
            "UPDATE sqlite_sequence SET seq = 0",
            "SELECT * FROM pragma_table_info('t')",
            "SELECT load_extension('x')",
            "SELECT \"load_extension\"('x')",
        ] {
            refused(sql, "the host's");
        }
        for sql in [
            "SELECT ?",
            "SELECT ?1",
            "SELECT :a",
            "SELECT @a",
            "SELECT $a",
            "SELECT $0",
            "SELECT $1::text",
            "SELECT $1a",
            "SELECT $01",
            "SELECT $1('), * FROM _echo_outbox --')",
        ] {
            refused(sql, "$1");
        }
        refused("", "no statement");
        refused(" ; ", "no statement");
        refused("-- nothing", "no statement");
        refused("SELECT 'a", "without its end");
        refused("SELECT 1 /* a", "without its end");
        refused("SELECT * FROM \u{feff}_echo_outbox", "byte order");
        refused("SELECT 1\0; DROP TABLE t", "NUL");
        refused(&format!("SELECT ${}", limits::SQL_PARAMS_MAX + 1), "parameters");
        refused(&format!("SELECT '{}'", "a".repeat(limits::SQL_STATEMENT_BYTES_MAX)), "bytes long");
    }
}
