//! A statement of a service is in the dialect that SQLite and PostgreSQL share: here it is read as PostgreSQL reads it.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// Those that were found good.
static READ: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// Panics where PostgreSQL could not read it, e.g. at the `IN ()` that an empty list makes and SQLite allows.
pub fn check(sql: &str) {
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if read.contains(sql) {
        return;
    }
    match Parser::parse_sql(&PostgreSqlDialect {}, sql) {
        Ok(statements) if statements.len() == 1 => read.insert(sql.to_owned()),
        Ok(statements) => panic!("{} statements in one: {sql}", statements.len()),
        Err(error) => panic!("PostgreSQL could not read this ({error}): {sql}"),
    };
}
