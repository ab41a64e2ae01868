//! PostgreSQL's error codes (<https://www.postgresql.org/docs/15/errcodes-appendix.html>) in portable classes.

use sqlx::postgres::PgDatabaseError;

use crate::sql::{ErrorClass, SqlError};

/// A prepared statement that reads `*` meets a table that has a column more: after preparing it again it works.
pub const PLAN_IS_STALE: &str = "cached plan must not change result type";

pub fn from_sqlx(error: sqlx::Error) -> SqlError {
    match error {
        sqlx::Error::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => from_postgres(error),
            None => SqlError::new(ErrorClass::Other, error.to_string()),
        },
        sqlx::Error::Encode(error) => SqlError::new(ErrorClass::Other, format!("a parameter cannot be given: {error}")),
        sqlx::Error::Decode(error) | sqlx::Error::ColumnDecode { source: error, .. } => {
            SqlError::new(ErrorClass::Other, format!("a value cannot be read: {error}"))
        }
        other => SqlError::new(ErrorClass::Unavailable, other.to_string()),
    }
}

fn from_postgres(error: &PgDatabaseError) -> SqlError {
    SqlError {
        class: if error.message() == PLAN_IS_STALE { ErrorClass::Serialization } else { class_of(error.code()) },
        constraint: error.constraint().or(error.column()).map(str::to_owned),
        sqlstate: Some(error.code().to_owned()),
        message: error.message().to_owned(),
    }
}

fn class_of(code: &str) -> ErrorClass {
    match code {
        "23505" | "23P01" => ErrorClass::UniqueViolation,
        "23503" => ErrorClass::ForeignKey,
        "23514" | "23502" => ErrorClass::Check,
        // Deadlocks, too.
        "40001" | "40P01" => ErrorClass::Serialization,
        // Broken off for its time, or for that of the lock that it waited for.
        "57014" | "55P03" => ErrorClass::Timeout,
        "25P03" | "25P04" => ErrorClass::Timeout,
        // The server ends, begins, or lost its peer.
        "57P01" | "57P02" | "57P03" | "57P05" => ErrorClass::Unavailable,
        "54000" | "54001" | "54011" | "54023" | "22001" => ErrorClass::TooLarge,
        // Connections (08), resources such as the disk and the lock table (53), files (58).
        _ if ["08", "53", "58", "F0", "XX"].iter().any(|class| code.starts_with(class)) => ErrorClass::Unavailable,
        // Read only, as a standby is.
        "25006" => ErrorClass::Unavailable,
        _ => ErrorClass::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_classes() {
        for (code, class) in [
            ("23505", ErrorClass::UniqueViolation),
            ("40001", ErrorClass::Serialization),
            ("40P01", ErrorClass::Serialization),
            ("57014", ErrorClass::Timeout),
            ("57P01", ErrorClass::Unavailable),
            ("53300", ErrorClass::Unavailable),
            ("08006", ErrorClass::Unavailable),
            ("42P01", ErrorClass::Other),
            ("25P02", ErrorClass::Other),
        ] {
            assert_eq!(class_of(code), class, "{code}");
        }
    }
}
