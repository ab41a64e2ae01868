//! Back-fills of a service's schema: a batch of rows at a time, in the order of the table's primary key, each batch with its note of how far it came in one
//! transaction. Cut off anywhere, it goes on after the last batch that was committed.

use std::time::Duration;

use super::migrate::{self, digest, unreadable};
use super::pool::{Pool, Pooled};
use super::roles::{quoted, schema_of};
use crate::sql::migration::Backfill;
use crate::sql::{BackfillProgress, ErrorClass, MigrateError, Migration, SqlError, Value};
use echo_base::clock::now_us;
use echo_base::limits;
use echo_base::names::ServiceName;

/// The next batch.
pub async fn run(
    host: &Pool,
    service: &ServiceName,
    backfill: &Backfill,
    rows_max: usize,
    time: Duration,
) -> Result<BackfillProgress, MigrateError> {
    let mut connection = host.take().await?;
    migrate::begin(&mut connection, service).await?;
    match batch(&mut connection, service, backfill, rows_max, time).await {
        Ok(progress) => {
            connection.commit().await?;
            Ok(progress)
        }
        Err(error) => {
            connection.rollback().await?;
            Err(error)
        }
    }
}

/// The first rows of each back-fill whose migration is new, within the transaction.
pub async fn rehearse(
    connection: &mut Pooled,
    service: &ServiceName,
    all: &[Migration],
    fresh: &[String],
    time: Duration,
) -> Result<(), MigrateError> {
    for backfill in all.iter().filter(|migration| migration.dialect == "postgres" && migration.is_backfill()) {
        if fresh.iter().any(|name| backfill.name.strip_suffix(Migration::BACKFILL) == Some(name)) {
            let refuses = |reason| MigrateError::NotAdditive { name: backfill.name.clone(), reason };
            let parsed = Backfill::of(backfill, all).map_err(refuses)?;
            batch(connection, service, &parsed, limits::SQL_BACKFILL_ROWS_MAX, time).await?;
        }
    }
    Ok(())
}

/// Within the transaction that is open in the service's schema.
async fn batch(
    connection: &mut Pooled,
    service: &ServiceName,
    backfill: &Backfill,
    rows_max: usize,
    time: Duration,
) -> Result<BackfillProgress, MigrateError> {
    let name = || Value::from(backfill.name.as_str());
    let sha256 = digest(&backfill.sql);
    let begin = "INSERT INTO _echo_backfills (name, sha256, began_us, rows) VALUES ($1, $2, $3, 0) ON CONFLICT (name) DO NOTHING";
    connection.rows(begin, vec![name(), sha256.as_str().into(), (now_us() as i64).into()]).await?;
    let state = "SELECT position, sha256 <> $2, done_us IS NOT NULL FROM _echo_backfills WHERE name = $1";
    let state = connection.rows(state, vec![name(), sha256.into()]).await?;
    let Some([position, Value::Boolean(is_another), Value::Boolean(is_done)]) = state.first().map(Vec::as_slice) else {
        return Err(unreadable().into());
    };
    if *is_another {
        return Err(MigrateError::Changed { name: backfill.name.clone() });
    }
    if !is_done {
        let position = match position {
            Value::Text(position) => Some(position.as_str()),
            _ => None,
        };
        let fails = |source| MigrateError::Failed { name: backfill.name.clone(), source };
        migrate::limit_time(connection, time).await?;
        let (last, changed) = fill(connection, service, backfill, position, rows_max).await.map_err(fails)?;
        migrate::limit_time(connection, Duration::from_millis(limits::SQL_TIMEOUT_MS)).await?;
        let done_us = if last.is_none() { (now_us() as i64).into() } else { Value::Null };
        let last = last.map_or(Value::Null, Value::Text);
        let note = "UPDATE _echo_backfills SET position = $2, rows = rows + $3, done_us = $4 WHERE name = $1";
        connection.rows(note, vec![name(), last, changed.into(), done_us]).await?;
    }
    Ok(progress(connection, service, &backfill.name).await?.unwrap_or_default())
}

/// The key of the last row of the batch, none where there are no more rows after it; and how many it changed.
async fn fill(
    connection: &mut Pooled,
    service: &ServiceName,
    backfill: &Backfill,
    position: Option<&str>,
    rows_max: usize,
) -> Result<(Option<String>, i64), SqlError> {
    let table = quoted(&backfill.table);
    let key = key_of(connection, service, &backfill.table).await?;
    let columns = key.join(", ");
    let after = match position {
        Some(position) => {
            let literals: Vec<String> = serde_json::from_str(position).map_err(|_| unreadable())?;
            format!("({columns}) > ({})", literals.join(", "))
        }
        None => "true".to_owned(),
    };
    let literals: Vec<String> = key.iter().map(|column| format!("quote_literal({column}::text)")).collect();
    let nth = format!(
        "SELECT json_build_array({})::text FROM {table} WHERE {after} ORDER BY {columns} LIMIT 1 OFFSET {}",
        literals.join(", "),
        rows_max.max(1) - 1
    );
    let last = match connection.rows(&nth, vec![]).await?.into_iter().next().and_then(|row| row.into_iter().next()) {
        Some(Value::Text(last)) => Some(last),
        _ => None,
    };
    let nulls: Vec<String> = backfill.columns.iter().map(|column| format!("{} IS NULL", quoted(column))).collect();
    let condition = backfill.condition.as_deref().unwrap_or("true");
    let update = format!(
        "UPDATE {table} SET {} WHERE ({columns}) IN (SELECT {columns} FROM {table} WHERE {after} ORDER BY {columns} LIMIT {}) AND {} AND ({condition})",
        backfill.assignments,
        rows_max.max(1),
        nulls.join(" AND "),
    );
    let changed = connection.run(&update, vec![], &mut |_: &sqlx::postgres::PgRow| Ok(())).await?;
    Ok((last, i64::try_from(changed).unwrap_or(i64::MAX)))
}

/// The columns of the primary key, quoted. Errors: `Other` for a table without one: its rows have no order to go on in.
async fn key_of(connection: &mut Pooled, service: &ServiceName, table: &str) -> Result<Vec<String>, SqlError> {
    let sql = "SELECT a.attname::text FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey)
        WHERE n.nspname = $1 AND c.relname = $2 AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)";
    let rows = connection.rows(sql, vec![schema_of(service).into(), table.into()]).await?;
    let key: Vec<String> = rows
        .into_iter()
        .filter_map(|row| match row.into_iter().next() {
            Some(Value::Text(column)) => Some(quoted(&column)),
            _ => None,
        })
        .collect();
    if key.is_empty() {
        return Err(SqlError::new(ErrorClass::Other, format!("{table} has no primary key, in whose order its rows could be filled")));
    }
    Ok(key)
}

pub async fn progress(connection: &mut Pooled, service: &ServiceName, name: &str) -> Result<Option<BackfillProgress>, SqlError> {
    let table = format!("{}._echo_backfills", quoted(&schema_of(service)));
    let sql = format!("SELECT began_us, rows, done_us IS NOT NULL FROM {table} WHERE name = $1");
    match connection.rows(&sql, vec![name.into()]).await?.first().map(Vec::as_slice) {
        None => Ok(None),
        Some([Value::S64(began), Value::S64(rows), Value::Boolean(is_done)]) => {
            let number = |number: i64| u64::try_from(number).unwrap_or(0);
            Ok(Some(BackfillProgress { began_us: number(*began), rows: number(*rows), is_done: *is_done }))
        }
        Some(_) => Err(unreadable()),
    }
}

pub async fn restart(host: &Pool, service: &ServiceName, name: &str) -> Result<(), SqlError> {
    let table = format!("{}._echo_backfills", quoted(&schema_of(service)));
    let sql = format!("UPDATE {table} SET began_us = $2, position = NULL, done_us = NULL WHERE name = $1");
    host.take().await?.rows(&sql, vec![name.into(), (now_us() as i64).into()]).await.map(drop)
}
