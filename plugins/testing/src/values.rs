//! Between a service's values and the host's, as the host's own bindings turn them.

use echo_base::limits::SQL_PARAMS_MAX;
use echo_capabilities::sql as host;
use echo_sdk::wit::sql::{self as guest, ErrorClass};

pub fn refused(message: &str) -> guest::SqlError {
    guest::SqlError { class: ErrorClass::Other, constraint: None, sqlstate: None, message: message.to_owned() }
}

pub fn incoming(params: &[guest::Value]) -> Result<Vec<host::Value>, guest::SqlError> {
    if params.len() > SQL_PARAMS_MAX {
        return Err(guest::SqlError { class: ErrorClass::TooLarge, ..refused(&format!("more than {SQL_PARAMS_MAX} parameters")) });
    }
    params
        .iter()
        .cloned()
        .map(|value| {
            Ok(match value {
                guest::Value::Null => host::Value::Null,
                guest::Value::Boolean(value) => host::Value::Boolean(value),
                guest::Value::S64(value) => host::Value::S64(value),
                guest::Value::F64(value) => host::Value::F64(value),
                guest::Value::Text(value) => host::Value::Text(value),
                guest::Value::Bytes(value) => host::Value::Bytes(value),
                guest::Value::Uuid(value) => host::Value::Uuid(value.parse().map_err(|_| refused("a uuid parameter is no uuid"))?),
                guest::Value::Timestamp(value) => host::Value::Timestamp(value),
                guest::Value::Json(value) => host::Value::Json(value),
                guest::Value::Decimal(value) => host::Value::Decimal(value),
            })
        })
        .collect()
}

pub fn outgoing(row: host::Row) -> Vec<guest::Value> {
    row.into_iter()
        .map(|value| match value {
            host::Value::Null => guest::Value::Null,
            host::Value::Boolean(value) => guest::Value::Boolean(value),
            host::Value::S64(value) => guest::Value::S64(value),
            host::Value::F64(value) => guest::Value::F64(value),
            host::Value::Text(value) => guest::Value::Text(value),
            host::Value::Bytes(value) => guest::Value::Bytes(value),
            host::Value::Uuid(value) => guest::Value::Uuid(value.to_string()),
            host::Value::Timestamp(value) => guest::Value::Timestamp(value),
            host::Value::Json(value) => guest::Value::Json(value),
            host::Value::Decimal(value) => guest::Value::Decimal(value),
        })
        .collect()
}

pub fn rows(rows: host::Rows) -> guest::Rows {
    guest::Rows { columns: rows.columns, rows: rows.rows.into_iter().map(outgoing).collect() }
}

pub fn error(error: host::SqlError) -> guest::SqlError {
    let class = match error.class {
        host::ErrorClass::UniqueViolation => ErrorClass::UniqueViolation,
        host::ErrorClass::ForeignKey => ErrorClass::ForeignKey,
        host::ErrorClass::Check => ErrorClass::Check,
        host::ErrorClass::Serialization => ErrorClass::Serialization,
        host::ErrorClass::Timeout => ErrorClass::Timeout,
        host::ErrorClass::Unavailable => ErrorClass::Unavailable,
        host::ErrorClass::TooLarge => ErrorClass::TooLarge,
        host::ErrorClass::Other => ErrorClass::Other,
    };
    guest::SqlError { class, constraint: error.constraint, sqlstate: error.sqlstate, message: error.message }
}
