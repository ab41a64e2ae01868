//! SQLite's extended result codes (<https://www.sqlite.org/rescode.html>) in portable classes.

use crate::sql::{ErrorClass, SqlError};

pub fn from_rusqlite(error: rusqlite::Error) -> SqlError {
    match error.sqlite_error() {
        Some(sqlite) => {
            let message = match &error {
                rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
                error => error.to_string(),
            };
            from_code(sqlite.extended_code, &message)
        }
        None => SqlError::new(ErrorClass::Unavailable, error.to_string()),
    }
}

fn from_code(code: i32, message: &str) -> SqlError {
    use rusqlite::ffi as sqlite;
    let (class, sqlstate) = match (code, code & 0xff) {
        (sqlite::SQLITE_CONSTRAINT_UNIQUE | sqlite::SQLITE_CONSTRAINT_PRIMARYKEY | sqlite::SQLITE_CONSTRAINT_ROWID, _) => {
            (ErrorClass::UniqueViolation, Some("23505"))
        }
        (sqlite::SQLITE_CONSTRAINT_FOREIGNKEY, _) => (ErrorClass::ForeignKey, Some("23503")),
        (sqlite::SQLITE_CONSTRAINT_CHECK, _) => (ErrorClass::Check, Some("23514")),
        (sqlite::SQLITE_CONSTRAINT_NOTNULL, _) => (ErrorClass::Check, Some("23502")),
        (_, sqlite::SQLITE_BUSY | sqlite::SQLITE_LOCKED) => (ErrorClass::Serialization, Some("40001")),
        (_, sqlite::SQLITE_INTERRUPT) => (ErrorClass::Timeout, Some("57014")),
        (_, sqlite::SQLITE_TOOBIG | sqlite::SQLITE_NOMEM) => (ErrorClass::TooLarge, Some("54000")),
        // The disk's end, or that of the service's own share.
        (_, sqlite::SQLITE_FULL) => (ErrorClass::Unavailable, Some("53100")),
        (_, sqlite::SQLITE_IOERR | sqlite::SQLITE_CORRUPT | sqlite::SQLITE_CANTOPEN | sqlite::SQLITE_READONLY | sqlite::SQLITE_NOTADB) => {
            (ErrorClass::Unavailable, None)
        }
        _ => (ErrorClass::Other, None),
    };
    let constraint = matches!(class, ErrorClass::UniqueViolation | ErrorClass::Check).then(|| constraint(message)).flatten();
    SqlError { class, constraint, sqlstate: sqlstate.map(str::to_owned), message: message.to_owned() }
}

/// `UNIQUE constraint failed: t.a, t.b` gives `t.a, t.b`; `UNIQUE constraint failed: index 'name'` gives `name`.
fn constraint(message: &str) -> Option<String> {
    let (_, what) = message.split_once(" constraint failed: ")?;
    let name = what.strip_prefix("index '").and_then(|name| name.strip_suffix('\''));
    Some(name.unwrap_or(what).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_named() {
        let unique = |message| from_code(rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE, message).constraint;
        assert_eq!(unique("UNIQUE constraint failed: t.a, t.b").as_deref(), Some("t.a, t.b"));
        assert_eq!(unique("UNIQUE constraint failed: index 'one_direct'").as_deref(), Some("one_direct"));
    }
}
