//! Converts values to and from PostgreSQL's binary formats.
//!
//! Parameters have the types that PostgreSQL itself finds for them in the statement, so that a service's statement needs no casts: a NULL has the type of
//! the column that it meets, and an id is a UUID or a text as the column is.

use std::fmt::Write;

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Arguments, Column, Postgres, Row, Type, ValueRef};
use uuid::Uuid;

use crate::sql::{ErrorClass, SqlError, Value};
use echo_base::limits;

mod copied;
pub use self::copied::{canonical, row_length, write};

/// Types by their numbers in `pg_type`, which never change.
mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const JSON: u32 = 114;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const UNKNOWN: u32 = 705;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
}

/// From 1970, the epoch of `Value::Timestamp`, to 2000, that of PostgreSQL.
const EPOCH_US: i64 = 946_684_800_000_000;

/// The parameter types to prepare a statement with: unspecified, so that PostgreSQL infers them, but for bytes, which it would infer as text where nothing else
/// says what they are. In a list of values used as a table (`WITH t AS (VALUES …)`) it infers nothing, so there each parameter has its value's type.
pub fn hints(sql: &str, values: &[Value]) -> Vec<PgTypeInfo> {
    let is_table = sql.contains("(VALUES");
    let number_of = |value: &Value| match value {
        Value::Bytes(_) => oid::BYTEA,
        _ if !is_table => 0,
        Value::Null => 0,
        Value::Boolean(_) => oid::BOOL,
        Value::S64(_) => oid::INT8,
        Value::F64(_) => oid::FLOAT8,
        Value::Text(_) => oid::TEXT,
        Value::Uuid(_) => oid::UUID,
        Value::Timestamp(_) => oid::TIMESTAMPTZ,
        Value::Json(_) => oid::JSONB,
        Value::Decimal(_) => oid::NUMERIC,
    };
    let Some(last) = values.iter().rposition(|value| number_of(value) != 0) else { return Vec::new() };
    values[..=last].iter().map(|value| PgTypeInfo::with_oid(Oid(number_of(value)))).collect()
}

/// A prepared statement is cached by its text, so the same statement with other parameter types needs another text.
pub fn marked(sql: &str, hints: &[PgTypeInfo]) -> String {
    if hints.is_empty() {
        return sql.to_owned();
    }
    let numbers: Vec<String> = hints.iter().map(|hint| hint.oid().map_or(0, |oid| oid.0).to_string()).collect();
    format!("{sql}\n-- {}", numbers.join(" "))
}

/// Errors: `TooLarge` for a value beyond the bound, `Other` for one whose type does not fit the parameter.
pub fn bind(values: Vec<Value>, types: &[PgTypeInfo]) -> Result<PgArguments, SqlError> {
    let mut arguments = PgArguments::default();
    for (value, wanted) in values.into_iter().zip(types) {
        let bytes = match &value {
            Value::Text(text) | Value::Json(text) | Value::Decimal(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        if bytes > limits::SQL_VALUE_BYTES_MAX {
            return Err(SqlError::new(ErrorClass::TooLarge, format!("a value is at most {} bytes long", limits::SQL_VALUE_BYTES_MAX)));
        }
        let wanted = number_of(wanted);
        let bound = Bound { value, wanted };
        arguments.add(bound).map_err(|error| SqlError {
            sqlstate: Some("22000".to_owned()),
            ..SqlError::new(ErrorClass::Other, format!("a parameter cannot be given: {error}"))
        })?;
    }
    Ok(arguments)
}

fn number_of(info: &PgTypeInfo) -> u32 {
    info.oid().map_or(oid::TEXT, |oid| oid.0)
}

/// A value and the type that the statement wants.
struct Bound {
    value: Value,
    wanted: u32,
}

impl Type<Postgres> for Bound {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(oid::TEXT))
    }
}

impl Encode<'_, Postgres> for Bound {
    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.wanted)))
    }

    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        encode(&self.value, self.wanted, buffer)
    }
}

fn encode(value: &Value, wanted: u32, out: &mut Vec<u8>) -> Result<IsNull, BoxDynError> {
    let unfit = || BoxDynError::from(format!("{} is no value for a parameter of type {}", kind_of(value), name_of(wanted)));
    if *value == Value::Null {
        return Ok(IsNull::Yes);
    }
    match wanted {
        oid::BOOL => match value {
            Value::Boolean(value) => out.push(u8::from(*value)),
            Value::S64(value @ (0 | 1)) => out.push(*value as u8),
            _ => return Err(unfit()),
        },
        oid::INT2 | oid::INT4 | oid::INT8 => {
            let number = match value {
                Value::S64(value) => *value,
                Value::Timestamp(value) => i64::try_from(*value)?,
                Value::Boolean(value) => i64::from(*value),
                Value::Text(text) | Value::Decimal(text) => text.parse().map_err(|_| unfit())?,
                _ => return Err(unfit()),
            };
            match wanted {
                oid::INT2 => out.extend(i16::try_from(number)?.to_be_bytes()),
                oid::INT4 => out.extend(i32::try_from(number)?.to_be_bytes()),
                _ => out.extend(number.to_be_bytes()),
            }
        }
        oid::FLOAT4 | oid::FLOAT8 => {
            let number = match value {
                Value::F64(value) => *value,
                Value::S64(value) => *value as f64,
                Value::Text(text) | Value::Decimal(text) => text.parse().map_err(|_| unfit())?,
                _ => return Err(unfit()),
            };
            match wanted {
                oid::FLOAT4 => out.extend((number as f32).to_be_bytes()),
                _ => out.extend(number.to_be_bytes()),
            }
        }
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::UNKNOWN | oid::JSON => {
            let text = text_of(value).ok_or_else(unfit)?;
            if text.contains('\0') {
                return Err("a text with a NUL in it".into());
            }
            out.extend(text.as_bytes());
        }
        oid::JSONB => {
            let text = text_of(value).ok_or_else(unfit)?;
            // The version of the format.
            out.push(1);
            out.extend(text.as_bytes());
        }
        oid::BYTEA => match value {
            Value::Bytes(bytes) => out.extend(bytes),
            Value::Text(text) => out.extend(text.as_bytes()),
            _ => return Err(unfit()),
        },
        oid::UUID => match value {
            Value::Uuid(value) => out.extend(value.as_bytes()),
            Value::Text(text) => out.extend(text.parse::<Uuid>().map_err(|_| unfit())?.as_bytes()),
            _ => return Err(unfit()),
        },
        oid::TIMESTAMP | oid::TIMESTAMPTZ => {
            let at_us = match value {
                Value::Timestamp(value) => i64::try_from(*value)?,
                Value::S64(value) => *value,
                _ => return Err(unfit()),
            };
            out.extend(at_us.checked_sub(EPOCH_US).ok_or_else(unfit)?.to_be_bytes());
        }
        oid::NUMERIC => {
            let text = match value {
                Value::F64(value) if !value.is_finite() => return Err(unfit()),
                _ => text_of(value).ok_or_else(unfit)?,
            };
            out.extend(numeric(&text).ok_or_else(unfit)?);
        }
        _ => return Err(unfit()),
    }
    Ok(IsNull::No)
}

/// As SQLite keeps it in a column of texts.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) | Value::Json(text) | Value::Decimal(text) => Some(text.clone()),
        Value::S64(value) => Some(value.to_string()),
        Value::F64(value) => Some(value.to_string()),
        Value::Uuid(value) => Some(value.hyphenated().to_string()),
        Value::Timestamp(value) => Some(value.to_string()),
        Value::Boolean(value) => Some(i64::from(*value).to_string()),
        Value::Null | Value::Bytes(_) => None,
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "NULL",
        Value::Boolean(_) => "a boolean",
        Value::S64(_) => "an integer",
        Value::F64(_) => "a float",
        Value::Text(_) => "this text",
        Value::Bytes(_) => "bytes",
        Value::Uuid(_) => "a uuid",
        Value::Timestamp(_) => "a timestamp",
        Value::Json(_) => "json",
        Value::Decimal(_) => "this decimal",
    }
}

fn name_of(wanted: u32) -> String {
    match wanted {
        oid::BOOL => "boolean".to_owned(),
        oid::INT2 | oid::INT4 | oid::INT8 => "integer".to_owned(),
        oid::BYTEA => "bytea".to_owned(),
        oid::TEXT => "text".to_owned(),
        oid::UUID => "uuid".to_owned(),
        oid::TIMESTAMP | oid::TIMESTAMPTZ => "timestamp".to_owned(),
        other => format!("number {other}"),
    }
}

/// Digits to the base 10,000 (`numeric_recv`): count, weight of the first, sign, digits after the point, then the digits.
fn numeric(text: &str) -> Option<Vec<u8>> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) || text.len() > 1_000 {
        return None;
    }
    let padded = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let tail = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
    let group = |chunk: &[u8]| chunk.iter().fold(0_u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let mut groups: Vec<u16> = padded.as_bytes().chunks(4).chain(tail.as_bytes().chunks(4)).map(group).collect();
    let mut weight = padded.len() as i16 / 4 - 1;
    while groups.first() == Some(&0) {
        groups.remove(0);
        weight -= 1;
    }
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let mut out = Vec::new();
    out.extend((groups.len() as u16).to_be_bytes());
    out.extend((if groups.is_empty() { 0 } else { weight }).to_be_bytes());
    out.extend((if is_negative { 0x4000_u16 } else { 0 }).to_be_bytes());
    out.extend((fraction.len() as u16).to_be_bytes());
    out.extend(groups.iter().flat_map(|group| group.to_be_bytes()));
    Some(out)
}

fn from_numeric(bytes: &[u8]) -> Option<String> {
    let mut words = bytes.chunks_exact(2).map(|word| u16::from_be_bytes([word[0], word[1]]));
    let (count, weight, sign, scale) = (words.next()?, words.next()? as i16, words.next()?, words.next()?);
    if sign & 0xc000 == 0xc000 {
        // Not a number, or infinite.
        return None;
    }
    let groups: Vec<u16> = words.take(usize::from(count)).collect();
    let at = |place: i32| {
        let index = i32::from(weight) - place;
        usize::try_from(index).ok().and_then(|index| groups.get(index)).copied().unwrap_or(0)
    };
    let mut text = String::new();
    if sign == 0x4000 {
        text.push('-');
    }
    let mut whole = String::new();
    for place in (0..=i32::from(weight).max(0)).rev() {
        write!(whole, "{:04}", at(place)).ok()?;
    }
    let whole = whole.trim_start_matches('0');
    text.push_str(if whole.is_empty() { "0" } else { whole });
    if scale > 0 {
        let mut fraction = String::new();
        for place in 1..=i32::from(scale.div_ceil(4)) {
            write!(fraction, "{:04}", at(-place)).ok()?;
        }
        fraction.truncate(usize::from(scale));
        text.push('.');
        text.push_str(&fraction);
    }
    Some(text)
}

/// A row and the bytes that it takes.
pub fn row(row: &PgRow) -> Result<(Vec<Value>, usize), SqlError> {
    let mut values = Vec::with_capacity(row.len());
    let mut bytes = 0;
    for index in 0..row.len() {
        let value = row.try_get_raw(index).map_err(super::errors::from_sqlx)?;
        let value = decode(value).map_err(|error| SqlError::new(ErrorClass::Other, format!("a value cannot be read: {error}")))?;
        bytes += size_of::<Value>();
        bytes += match &value {
            Value::Text(text) | Value::Json(text) | Value::Decimal(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        values.push(value);
    }
    Ok((values, bytes))
}

pub fn columns(row: &PgRow) -> Vec<String> {
    row.columns().iter().map(|column| column.name().to_owned()).collect()
}

/// The type is the column's.
fn decode(value: PgValueRef<'_>) -> Result<Value, BoxDynError> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    if value.format() != PgValueFormat::Binary {
        return Err("it is no binary value".into());
    }
    let kind = number_of(&value.type_info());
    let bytes = value.as_bytes()?;
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned);
    Ok(match kind {
        oid::BOOL => Value::Boolean(bytes != [0]),
        oid::INT2 => Value::S64(i16::from_be_bytes(bytes.try_into()?).into()),
        oid::INT4 => Value::S64(i32::from_be_bytes(bytes.try_into()?).into()),
        oid::INT8 => Value::S64(i64::from_be_bytes(bytes.try_into()?)),
        oid::FLOAT4 => Value::F64(f32::from_be_bytes(bytes.try_into()?).into()),
        oid::FLOAT8 => Value::F64(f64::from_be_bytes(bytes.try_into()?)),
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::UNKNOWN => Value::Text(text(bytes)?),
        oid::JSON => Value::Json(text(bytes)?),
        oid::JSONB => Value::Json(text(bytes.strip_prefix(&[1]).ok_or("a new version of jsonb")?)?),
        oid::BYTEA => Value::Bytes(bytes.to_owned()),
        oid::UUID => Value::Uuid(Uuid::from_slice(bytes)?),
        oid::TIMESTAMP | oid::TIMESTAMPTZ => {
            let since_2000 = i64::from_be_bytes(bytes.try_into()?);
            Value::Timestamp(u64::try_from(since_2000.checked_add(EPOCH_US).ok_or("it is infinite")?)?)
        }
        oid::NUMERIC => Value::Decimal(from_numeric(bytes).ok_or("it is no number")?),
        other => return Err(format!("type number {other} is not for services").into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_stand_for_a_table_have_their_own_types() {
        let values = [Value::Uuid(Uuid::nil()), Value::Null, Value::S64(1), Value::Null];
        let numbers = |sql: &str| hints(sql, &values).iter().map(number_of).collect::<Vec<_>>();
        assert_eq!(numbers("WITH t (id) AS (VALUES ($1, $2), ($3, $4)) SELECT 1"), [oid::UUID, 0, oid::INT8]);
        assert_eq!(numbers("INSERT INTO t VALUES ($1, $2, $3, $4)"), [0_u32; 0]);
        assert_eq!(hints("SELECT $1", &[Value::S64(1), Value::Bytes(vec![1])]).iter().map(number_of).collect::<Vec<_>>(), [0, oid::BYTEA]);
        assert_eq!(marked("SELECT 1", &[]), "SELECT 1");
        assert_eq!(marked("S", &hints("(VALUES", &values)), "S\n-- 2950 0 20");
    }

    #[test]
    fn decimals_come_back_as_they_were() {
        for (text, expect) in [
            ("0", "0"),
            ("1", "1"),
            ("-1", "-1"),
            ("10000", "10000"),
            ("123456789.5", "123456789.5"),
            ("0.00012", "0.00012"),
            ("-99999999999999999999.9900", "-99999999999999999999.9900"),
            ("007", "7"),
            ("120000000", "120000000"),
        ] {
            assert_eq!(from_numeric(&numeric(text).expect(text)).as_deref(), Some(expect), "{text}");
        }
        for text in ["", "-", "1e5", "x", "1.2.3", "NaN"] {
            assert_eq!(numeric(text), None, "{text}");
        }
    }
}
