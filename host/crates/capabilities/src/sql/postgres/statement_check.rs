//! The statements of a service on PostgreSQL: each text is checked once, against the whitelist that all engines share, and by its syntax tree. PostgreSQL has no
//! authorizer as SQLite has, so which functions, kinds of expressions and types are allowed is listed here.
//!
//! It is the first of two barriers. The second is the service's own login role, which may read and write the rows of its own tables and nothing else.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;
use sqlparser::ast::{DataType, Expr, Function, ObjectName, Query, Select, Statement, TableFactor, Visit, Visitor};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use crate::sql::whitelist::{self, Dialect, is_postgres_function};
use crate::sql::{ErrorClass, SqlError};
use echo_base::limits;

/// A statement that passed the check.
pub struct CheckedStatement {
    pub sql: Arc<str>,
    /// Short enough to be kept prepared.
    pub keep: bool,
    /// Changes rows; false for one that only reads.
    pub changes: bool,
    pub params: usize,
}

/// The checked statements by their text: a service runs the same few dozen again and again.
#[derive(Default)]
pub struct StatementCache {
    known: Mutex<HashMap<Arc<str>, Arc<CheckedStatement>>>,
}

impl StatementCache {
    /// Errors: `Other` where the statement is not for services.
    pub fn check(&self, sql: &str) -> Result<Arc<CheckedStatement>, SqlError> {
        if let Some(checked) = self.known.lock().get(sql) {
            return Ok(checked.clone());
        }
        let checked = Arc::new(check(sql).map_err(|reason| SqlError {
            sqlstate: Some("42000".to_owned()),
            ..SqlError::new(ErrorClass::Other, format!("refused: {reason}"))
        })?);
        if checked.keep {
            let mut known = self.known.lock();
            // Full: start over. A service has some dozens of texts; one that makes thousands gains nothing from a cache.
            if known.len() >= limits::POSTGRES_STATEMENTS_KEPT {
                known.clear();
            }
            known.insert(checked.sql.clone(), checked.clone());
        }
        Ok(checked)
    }
}

fn check(sql: &str) -> Result<CheckedStatement, String> {
    let statement = whitelist::check(sql, Dialect::Postgres)?;
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, sql).map_err(|error| error.to_string())?;
    let [parsed] = parsed.as_slice() else { return Err("one statement at a time".to_owned()) };
    if !matches!(parsed, Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_)) {
        return Err("it is not for services".to_owned());
    }
    if let ControlFlow::Break(reason) = parsed.visit(&mut Allowed) {
        return Err(reason);
    }
    let keep = sql.len() <= limits::POSTGRES_STATEMENT_KEPT_BYTES_MAX;
    Ok(CheckedStatement { sql: sql.into(), keep, changes: statement.changes, params: statement.params })
}

/// Stops at the first node of the syntax tree that is not allowed, and names it.
struct Allowed;

fn refuse(what: impl std::fmt::Display) -> ControlFlow<String> {
    ControlFlow::Break(format!("{what:.80} is not for services"))
}

impl Visitor for Allowed {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        let is_plain = query.locks.is_empty()
            && query.for_clause.is_none()
            && query.settings.is_none()
            && query.format_clause.is_none()
            && query.pipe_operators.is_empty();
        if is_plain { ControlFlow::Continue(()) } else { refuse(query) }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<String> {
        // SELECT INTO makes a table.
        if select.into.is_some() { refuse(select) } else { ControlFlow::Continue(()) }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<String> {
        // Without a schema it is one of the service's own.
        match relation.0.as_slice() {
            [part] if part.as_ident().is_some() => ControlFlow::Continue(()),
            _ => refuse(relation),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<String> {
        match factor {
            TableFactor::Table { args: None, with_ordinality: false, sample: None, .. } => ControlFlow::Continue(()),
            TableFactor::Derived { sample: None, .. } | TableFactor::NestedJoin { .. } => ControlFlow::Continue(()),
            other => refuse(other),
        }
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<String> {
        match expression {
            Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::InList { .. }
            | Expr::InSubquery { .. }
            | Expr::Between { .. }
            | Expr::BinaryOp { .. }
            | Expr::Like { .. }
            | Expr::UnaryOp { .. }
            | Expr::Substring { .. }
            | Expr::Trim { .. }
            | Expr::Nested(_)
            | Expr::Value(_)
            | Expr::Case { .. }
            | Expr::Exists { .. }
            | Expr::Subquery(_)
            | Expr::Tuple(_)
            | Expr::Wildcard(_)
            | Expr::QualifiedWildcard(..) => ControlFlow::Continue(()),
            Expr::Cast { data_type, .. } if is_allowed_type(data_type) => ControlFlow::Continue(()),
            Expr::Function(function) if is_allowed(function) => ControlFlow::Continue(()),
            other => refuse(other),
        }
    }
}

fn is_allowed(function: &Function) -> bool {
    let [name] = function.name.0.as_slice() else { return false };
    name.as_ident().is_some_and(|name| is_postgres_function(&name.value))
}

/// What the values of services can be (`Value`).
fn is_allowed_type(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::BigInt(None)
            | DataType::Integer(None)
            | DataType::Int(None)
            | DataType::SmallInt(None)
            | DataType::Boolean
            | DataType::Bool
            | DataType::Text
            | DataType::Varchar(_)
            | DataType::Bytea
            | DataType::Uuid
            | DataType::JSON
            | DataType::JSONB
            | DataType::Real
            | DataType::DoublePrecision
            | DataType::Numeric(_)
            | DataType::Decimal(_)
            | DataType::Timestamp(..)
    )
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
        for (sql, changes, params) in [
            ("SELECT a, 'it''s; -- $9' FROM t WHERE b = $1 AND c IN ($2, $10)", false, 10),
            ("select 1 -- and no more; DELETE\n;", false, 0),
            ("INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET a = excluded.a RETURNING a;", true, 1),
            ("WITH x AS (SELECT 1) SELECT * FROM x", false, 0),
            ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n", false, 0),
            ("SELECT coalesce(max(a), 0), count(*) FILTER (WHERE b), row_number() OVER (ORDER BY c) FROM t", false, 0),
            ("UPDATE \"t\" SET a = CAST($1 AS BIGINT) + 1 WHERE (a, b) > ($2, $3) AND c LIKE $4 ESCAPE '\\'", true, 4),
            ("DELETE FROM t WHERE EXISTS (SELECT 1 FROM u JOIN (SELECT 2 AS a) AS v ON v.a = u.a WHERE u.b = t.b)", true, 0),
        ] {
            let checked = check(sql).unwrap_or_else(|reason| panic!("{sql:?}: {reason}"));
            assert_eq!((checked.changes, checked.params), (changes, params), "{sql:?}");
        }
    }

    #[test]
    fn what_reaches_beyond_is_refused() {
        for sql in [
            "COPY t TO '/tmp/x'",
            "SET ROLE other",
            "RESET ROLE",
            "SET search_path = other",
            "LISTEN x",
            "DO $$ BEGIN END $$",
            "CREATE TEMP TABLE t (a TEXT)",
            "LOCK TABLE t",
            "CALL x()",
            "TABLE t",
            "EXPLAIN SELECT 1",
            "GRANT ALL ON t TO public",
            "PREPARE x AS SELECT 1",
            "BEGIN",
            "COMMIT",
            "TRUNCATE t",
            "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
        ] {
            refused(sql, "");
        }
        for sql in [
            "SELECT pg_sleep(5)",
            "SELECT pg_catalog.pg_sleep(5)",
            "SELECT \"pg_sleep\"(5)",
            "SELECT/**/pg_sleep(5)",
            "SELECT * FROM pg_authid",
            "SELECT set_config('role', 'postgres', false)",
            "SELECT SET_CONFIG('role', 'postgres', true)",
            "SELECT current_setting('is_superuser')",
            "SELECT lo_import('/etc/passwd')",
            "SELECT * FROM dblink('host=x', 'SELECT 1') AS t(a TEXT)",
            "SELECT * FROM information_schema.tables",
            "SELECT CAST('x' AS regproc)",
            "SELECT current_user",
            "SELECT * FROM _echo_outbox",
            "SELECT * FROM \"_echo_outbox\"",
            "WITH x AS (SELECT pg_sleep(5)) INSERT INTO t SELECT 1 FROM x",
        ] {
            refused(sql, "the host's");
        }
        for sql in [
            "SELECT * FROM echo_auth.accounts",
            "SELECT * FROM generate_series(1, 1000000000)",
            "SELECT repeat('x', 1000000000)",
            "SELECT query_to_xml('SELECT 1', true, true, '')",
            "SELECT version()",
            "SELECT \"version\"()",
            "SELECT txid_current()",
            "SELECT * FROM t FOR UPDATE",
            "SELECT * INTO u FROM t",
            "SELECT ARRAY_AGG(a) FROM t",
            "SELECT a AT TIME ZONE 'x' FROM t",
            "INSERT INTO t (a) VALUES (version())",
            "UPDATE t SET a = version()",
            "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = version()",
            "DELETE FROM t WHERE a = 1 RETURNING version()",
            "SELECT CAST(a AS xml) FROM t",
        ] {
            refused(sql, "not for services");
        }
        for (sql, expect) in [
            ("SELECT E'\\'; DROP TABLE t; --'", "prefix"),
            ("SELECT U&\"\\0070g_sleep\"(1)", "prefix"),
            ("SELECT X'00'", "prefix"),
            ("SELECT $$x$$", "$1"),
            ("SELECT $a$x$a$", "$1"),
            ("SELECT /* /* */ 1 */", "comment"),
            ("SELECT a[1] FROM t", "brackets"),
            ("SELECT 1; SELECT 2", "one statement"),
            ("SELECT $1::text", "$1"),
            ("SELECT 'x'::regclass", "$1"),
            ("", "no statement"),
        ] {
            refused(sql, expect);
        }
    }
}
