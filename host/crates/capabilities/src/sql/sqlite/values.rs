//! Converts values to and from SQLite's.

use rusqlite::Statement;
use rusqlite::types::{Null, ValueRef};
use uuid::Uuid;

use super::errors;
use crate::sql::{ErrorClass, SqlError, Value};

pub use rusqlite::Row;

/// The parameters `$1`, `$2`, … of a script.
#[derive(Default)]
pub struct Params(Vec<Value>);

pub fn bind(values: impl IntoIterator<Item = Value>) -> Result<Params, SqlError> {
    let values: Vec<Value> = values.into_iter().collect();
    if values.iter().any(|value| matches!(value, Value::Timestamp(at_us) if i64::try_from(*at_us).is_err())) {
        return Err(SqlError::new(ErrorClass::Other, "the timestamp is too far in the future"));
    }
    Ok(Params(values))
}

impl Params {
    /// Binds those that a statement names; `order` has their numbers in the statement's order.
    pub fn bind(&self, statement: &mut Statement<'_>, order: &[usize]) -> Result<(), SqlError> {
        for (index, &number) in (1..).zip(order) {
            let value = number.checked_sub(1).and_then(|number| self.0.get(number));
            let value = value.ok_or_else(|| SqlError::new(ErrorClass::Other, "a parameter of the statement is not given"))?;
            bind_one(statement, index, value).map_err(errors::from_rusqlite)?;
        }
        Ok(())
    }
}

fn bind_one(statement: &mut Statement<'_>, index: usize, value: &Value) -> rusqlite::Result<()> {
    match value {
        Value::Null => statement.raw_bind_parameter(index, Null),
        Value::Boolean(value) => statement.raw_bind_parameter(index, value),
        Value::S64(value) => statement.raw_bind_parameter(index, value),
        Value::F64(value) => statement.raw_bind_parameter(index, value),
        Value::Text(value) | Value::Json(value) | Value::Decimal(value) => statement.raw_bind_parameter(index, value.as_str()),
        Value::Bytes(value) => statement.raw_bind_parameter(index, value.as_slice()),
        // SQLite copies what it is given: no text needs to be made.
        Value::Uuid(value) => statement.raw_bind_parameter(index, &*value.hyphenated().encode_lower(&mut Uuid::encode_buffer())),
        // `bind` has seen that it fits.
        Value::Timestamp(value) => statement.raw_bind_parameter(index, *value as i64),
    }
}

/// A row and the bytes that it takes.
pub fn row(row: &Row<'_>) -> Result<(Vec<Value>, usize), SqlError> {
    let count = row.as_ref().column_count();
    let mut values = Vec::with_capacity(count);
    let mut bytes = 0;
    for index in 0..count {
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

pub fn columns(row: &Row<'_>) -> Vec<String> {
    row.as_ref().column_names().into_iter().map(str::to_owned).collect()
}

pub fn text(row: &Row<'_>, index: usize) -> Result<String, SqlError> {
    raw(row, index)?.as_str().map(str::to_owned).map_err(unreadable)
}

pub fn integer(row: &Row<'_>, index: usize) -> Result<i64, SqlError> {
    raw(row, index)?.as_i64().map_err(unreadable)
}

pub fn is_null(row: &Row<'_>, index: usize) -> Result<bool, SqlError> {
    Ok(raw(row, index)? == ValueRef::Null)
}

fn raw<'a>(row: &'a Row<'_>, index: usize) -> Result<ValueRef<'a>, SqlError> {
    row.get_ref(index).map_err(errors::from_rusqlite)
}

/// The type is the value's own, not the column's.
fn value(raw: ValueRef<'_>) -> Result<Value, SqlError> {
    Ok(match raw {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::S64(value),
        ValueRef::Real(value) => Value::F64(value),
        ValueRef::Text(text) => Value::Text(std::str::from_utf8(text).map_err(unreadable)?.to_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_owned()),
    })
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
