//! Statements of the host's own: their arguments, and what is read of their rows.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, Row};
use uuid::Uuid;

use crate::sql::{ErrorClass, SqlError};

pub(crate) fn add<'a, T>(arguments: &mut PgArguments, value: T) -> Result<(), SqlError>
where
    T: sqlx::Encode<'a, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    arguments.add(value).map_err(|error| SqlError::new(ErrorClass::Other, error.to_string()))
}

pub(crate) fn arguments<'a, T, const N: usize>(values: [T; N]) -> Result<PgArguments, SqlError>
where
    T: sqlx::Encode<'a, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let mut arguments = PgArguments::default();
    values.into_iter().try_for_each(|value| add(&mut arguments, value))?;
    Ok(arguments)
}

pub(crate) fn string(row: &PgRow, index: usize) -> Result<String, SqlError> {
    row.try_get(index).map_err(unreadable_because)
}

pub(crate) fn number(row: &PgRow, index: usize) -> Result<i64, SqlError> {
    row.try_get(index).map_err(unreadable_because)
}

pub(crate) fn unsigned(row: &PgRow, index: usize) -> Result<u64, SqlError> {
    u64::try_from(number(row, index)?).map_err(unreadable_because)
}

pub(crate) fn identifier(row: &PgRow, index: usize) -> Result<Uuid, SqlError> {
    string(row, index)?.parse().map_err(unreadable_because)
}

/// Numbers that are counted up from 0 never come near the bound.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn unreadable() -> SqlError {
    SqlError::new(ErrorClass::Other, "the host's tables hold what was never written there")
}

pub(crate) fn unreadable_because(error: impl std::fmt::Display) -> SqlError {
    SqlError::new(ErrorClass::Other, format!("the host's tables hold what was never written there: {error}"))
}
