//! Between Rust's types and SQL's values. Reading accepts what SQLite gives back as well as what PostgreSQL does (a uuid as text, a
//! timestamp as a number); writing names the kind, because PostgreSQL asks for it.

use crate::wit::sql::{SqlError, Value};

/// A parameter for a uuid column.
pub fn uuid(id: impl Into<String>) -> Value {
    Value::Uuid(id.into())
}

/// A parameter for a timestamp column, in microseconds since 1970.
pub fn timestamp(at_us: u64) -> Value {
    Value::Timestamp(at_us)
}

/// A parameter for a json column: one JSON value as text.
pub fn json(text: impl Into<String>) -> Value {
    Value::Json(text.into())
}

/// A parameter for a decimal column.
pub fn decimal(text: impl Into<String>) -> Value {
    Value::Decimal(text.into())
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Value::Text(text.clone())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Boolean(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::S64(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Value::S64(value.into())
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Value::S64(value.into())
    }
}

/// SQL has no unsigned numbers; what does not fit is kept at the largest one.
impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Value::S64(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::F64(value)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Value::Bytes(bytes)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// What a column can be read as.
pub trait FromValue: Sized {
    fn from_value(value: Value) -> Result<Self, SqlError>;
}

impl FromValue for Value {
    fn from_value(value: Value) -> Result<Self, SqlError> {
        Ok(value)
    }
}

/// Texts, uuids, json and decimals.
impl FromValue for String {
    fn from_value(value: Value) -> Result<Self, SqlError> {
        match value {
            Value::Text(text) | Value::Uuid(text) | Value::Json(text) | Value::Decimal(text) => Ok(text),
            other => Err(wrong("a text", &other)),
        }
    }
}

impl FromValue for i64 {
    fn from_value(value: Value) -> Result<Self, SqlError> {
        match &value {
            Value::S64(number) => Ok(*number),
            Value::Boolean(set) => Ok((*set).into()),
            // PostgreSQL's sum() and count over numeric come as decimals.
            Value::Decimal(text) => text.parse().map_err(|_| wrong("a whole number", &value)),
            other => Err(wrong("a whole number", other)),
        }
    }
}

/// Whole numbers from 0 on, and timestamps.
impl FromValue for u64 {
    fn from_value(value: Value) -> Result<Self, SqlError> {
        match value {
            Value::Timestamp(at_us) => Ok(at_us),
            other => u64::try_from(i64::from_value(other)?).map_err(|_| SqlError::shape("a negative number where none may be".to_owned())),
        }
    }
}

impl FromValue for u32 {
    fn from_value(value: Value) -> Result<Self, SqlError> {
        u32::try_from(i64::from_value(value)?).map_err(|_| SqlError::shape("a number beyond 32 bits".to_owned()))
    }
}

impl FromValue for bool {
    fn from_value(value: Value) -> Result<Self, SqlError> {
        match value {
            Value::Boolean(set) => Ok(set),
            Value::S64(0) => Ok(false),
            Value::S64(1) => Ok(true),
            other => Err(wrong("a boolean", &other)),
        }
    }
}

impl FromValue for f64 {
    fn from_value(value: Value) -> Result<Self, SqlError> {
        match &value {
            Value::F64(number) => Ok(*number),
            Value::S64(number) => Ok(*number as f64),
            Value::Decimal(text) => text.parse().map_err(|_| wrong("a number", &value)),
            other => Err(wrong("a number", other)),
        }
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: Value) -> Result<Self, SqlError> {
        match value {
            Value::Bytes(bytes) => Ok(bytes),
            other => Err(wrong("bytes", &other)),
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value) -> Result<Self, SqlError> {
        match value {
            Value::Null => Ok(None),
            other => T::from_value(other).map(Some),
        }
    }
}

/// Names the kind, never the value: it may be a secret.
fn wrong(wanted: &str, found: &Value) -> SqlError {
    let found = match found {
        Value::Null => "null",
        Value::Boolean(_) => "a boolean",
        Value::S64(_) => "a whole number",
        Value::F64(_) => "a number",
        Value::Text(_) => "a text",
        Value::Bytes(_) => "bytes",
        Value::Uuid(_) => "a uuid",
        Value::Timestamp(_) => "a timestamp",
        Value::Json(_) => "json",
        Value::Decimal(_) => "a decimal",
    };
    SqlError::shape(format!("a column holds {found} where {wanted} is expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "018f4c5e-7b1a-7c3d-8e9f-0123456789ab";

    #[test]
    fn both_dialects_are_read() {
        assert_eq!(String::from_value(Value::Text(ID.into())).unwrap(), ID);
        assert_eq!(String::from_value(Value::Uuid(ID.into())).unwrap(), ID);
        assert_eq!(u64::from_value(Value::S64(1_700_000_000_000_000)).unwrap(), 1_700_000_000_000_000);
        assert_eq!(u64::from_value(Value::Timestamp(1_700_000_000_000_000)).unwrap(), 1_700_000_000_000_000);
        assert!(bool::from_value(Value::S64(1)).unwrap());
        assert!(bool::from_value(Value::Boolean(true)).unwrap());
        assert_eq!(String::from_value(Value::Json("{}".into())).unwrap(), "{}");
        assert_eq!(i64::from_value(Value::Decimal("12".into())).unwrap(), 12);
        assert_eq!(Option::<i64>::from_value(Value::Null).unwrap(), None);
    }

    #[test]
    fn what_does_not_fit_is_an_error_without_the_value() {
        let error = bool::from_value(Value::Text("secret".into())).expect_err("a text is no boolean");
        assert!(!error.message.contains("secret"));
        assert!(u64::from_value(Value::S64(-1)).is_err());
        assert!(u32::from_value(Value::S64(1 << 40)).is_err());
        assert!(bool::from_value(Value::S64(2)).is_err());
        assert!(String::from_value(Value::Null).is_err());
    }
}
