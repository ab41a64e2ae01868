//! Our values as SQLite's and back.

use sqlx::sqlite::{SqliteArguments, SqliteRow, SqliteValueRef};
use sqlx::{Arguments, Column, Decode, Row as _, Sqlite, TypeInfo, ValueRef};

use crate::capabilities::sql::{ErrorClass, Row, SqlError, Value};

pub fn bind(values: impl IntoIterator<Item = Value>) -> Result<SqliteArguments, SqlError> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        let added = match value {
            Value::Null => arguments.add(None::<i64>),
            Value::Boolean(value) => arguments.add(i64::from(value)),
            Value::S64(value) => arguments.add(value),
            Value::F64(value) => arguments.add(value),
            Value::Text(value) | Value::Json(value) | Value::Decimal(value) => arguments.add(value),
            Value::Bytes(value) => arguments.add(value),
            Value::Uuid(value) => arguments.add(value.hyphenated().to_string()),
            Value::Timestamp(value) => match i64::try_from(value) {
                Ok(value) => arguments.add(value),
                Err(_) => return Err(SqlError::new(ErrorClass::Other, "the timestamp is too far in the future")),
            },
        };
        added.map_err(|error| SqlError::new(ErrorClass::Other, error.to_string()))?;
    }
    Ok(arguments)
}

/// A row and the bytes that it takes.
pub fn row(row: &SqliteRow) -> Result<(Row, usize), SqlError> {
    let mut values = Vec::with_capacity(row.len());
    let mut bytes = 0;
    for index in 0..row.len() {
        let value = value(raw(row, index)?)?;
        bytes += size_of::<Value>();
        bytes += match &value {
            Value::Text(text) => text.len(),
            Value::Bytes(blob) => blob.len(),
            _ => 0,
        };
        values.push(value);
    }
    Ok((values, bytes))
}

pub fn columns(row: &SqliteRow) -> Vec<String> {
    row.columns().iter().map(|column| column.name().to_owned()).collect()
}

pub fn text(row: &SqliteRow, index: usize) -> Result<String, SqlError> {
    String::decode(raw(row, index)?).map_err(unreadable)
}

pub fn integer(row: &SqliteRow, index: usize) -> Result<i64, SqlError> {
    i64::decode(raw(row, index)?).map_err(unreadable)
}

pub fn is_null(row: &SqliteRow, index: usize) -> Result<bool, SqlError> {
    Ok(raw(row, index)?.is_null())
}

fn raw(row: &SqliteRow, index: usize) -> Result<SqliteValueRef<'_>, SqlError> {
    row.try_get_raw(index).map_err(unreadable)
}

fn value(raw: SqliteValueRef<'_>) -> Result<Value, SqlError> {
    if raw.is_null() {
        return Ok(Value::Null);
    }
    // Not null: the type is the value's own, not the column's.
    let kind = raw.type_info().into_owned();
    match kind.name() {
        "INTEGER" => <i64 as Decode<Sqlite>>::decode(raw).map(Value::S64),
        "REAL" => <f64 as Decode<Sqlite>>::decode(raw).map(Value::F64),
        "TEXT" => <String as Decode<Sqlite>>::decode(raw).map(Value::Text),
        _ => <Vec<u8> as Decode<Sqlite>>::decode(raw).map(Value::Bytes),
    }
    .map_err(unreadable)
}

fn unreadable(error: impl std::fmt::Display) -> SqlError {
    SqlError::new(ErrorClass::Other, format!("a value cannot be read: {error}"))
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::S64(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}
