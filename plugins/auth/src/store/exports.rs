//! SQL of account exports: that one was asked for, and which services said that their part can be read.

use echo_sdk::sql::{Sql, SqlError, timestamp, uuid};
use echo_sdk::{from_row, params};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    pub account_id: String,
    pub id: String,
    pub requested_at: u64,
    pub expires_at: u64,
    pub ready_at: Option<u64>,
}
from_row!(Export { account_id, id, requested_at, expires_at, ready_at });

/// In the place of one that was asked for before that time, or has expired; false where there is a newer one.
pub fn begin_export(db: &impl Sql, new: &Export, asked_before_us: u64) -> Result<bool, SqlError> {
    let sql = "INSERT INTO account_exports (account_id, id, requested_at, expires_at, asked_at) VALUES ($1, $2, $3, $4, $3) \
        ON CONFLICT (account_id) DO UPDATE SET id = excluded.id, requested_at = excluded.requested_at, expires_at = excluded.expires_at, \
        asked_at = excluded.asked_at, ready_at = NULL \
        WHERE account_exports.requested_at <= $5 OR account_exports.expires_at <= excluded.requested_at";
    let params =
        params![uuid(&new.account_id), uuid(&new.id), timestamp(new.requested_at), timestamp(new.expires_at), timestamp(asked_before_us)];
    if db.execute(sql, params)? == 0 {
        return Ok(false);
    }
    db.execute("DELETE FROM account_export_parts WHERE account_id = $1", params![uuid(&new.account_id)])?;
    Ok(true)
}

/// One that has not expired.
pub fn export_of(db: &impl Sql, account: &str, now_us: u64) -> Result<Option<Export>, SqlError> {
    let sql = "SELECT account_id, id, requested_at, expires_at, ready_at FROM account_exports WHERE account_id = $1 AND expires_at > $2";
    db.row(sql, params![uuid(account), timestamp(now_us)])
}

/// By name, each with the time when it was prepared.
pub fn parts_of(db: &impl Sql, account: &str) -> Result<Vec<(String, u64)>, SqlError> {
    let sql = "SELECT name, prepared_at FROM account_export_parts WHERE account_id = $1 ORDER BY name";
    db.rows(sql, params![uuid(account)])
}

/// The first time counts. Nothing is noted of another export than the account's present one.
pub fn note_part(db: &impl Sql, account: &str, export: &str, name: &str, at_us: u64) -> Result<(), SqlError> {
    let sql = "INSERT INTO account_export_parts (account_id, name, prepared_at) \
        SELECT e.account_id, $3, $4 FROM account_exports e WHERE e.account_id = $1 AND e.id = $2 ON CONFLICT (account_id, name) DO NOTHING";
    db.execute(sql, params![uuid(account), uuid(export), name, timestamp(at_us)])?;
    Ok(())
}

pub fn set_export_ready(db: &impl Sql, account: &str, now_us: u64) -> Result<(), SqlError> {
    let sql = "UPDATE account_exports SET ready_at = $2 WHERE account_id = $1 AND ready_at IS NULL";
    db.execute(sql, params![uuid(account), timestamp(now_us)])?;
    Ok(())
}

/// Those that are not ready, have not expired, and for which nobody was asked since that time; the longest waiting first.
pub fn exports_to_renew(db: &impl Sql, asked_before_us: u64, now_us: u64, limit: u64) -> Result<Vec<Export>, SqlError> {
    let sql = "SELECT account_id, id, requested_at, expires_at, ready_at FROM account_exports \
        WHERE ready_at IS NULL AND asked_at <= $1 AND expires_at > $2 ORDER BY asked_at, account_id LIMIT $3";
    db.rows(sql, params![timestamp(asked_before_us), timestamp(now_us), limit])
}

pub fn note_asked(db: &impl Sql, account: &str, export: &str, now_us: u64) -> Result<(), SqlError> {
    let sql = "UPDATE account_exports SET asked_at = $3 WHERE account_id = $1 AND id = $2";
    db.execute(sql, params![uuid(account), uuid(export), timestamp(now_us)])?;
    Ok(())
}

/// Those that have expired, some of them.
pub fn forget_exports(db: &impl Sql, now_us: u64, rows_max: u64) -> Result<(), SqlError> {
    let expired = "SELECT account_id FROM account_exports WHERE expires_at <= $1 ORDER BY expires_at, account_id LIMIT $2";
    for table in ["account_export_parts", "account_exports"] {
        db.execute(&format!("DELETE FROM {table} WHERE account_id IN ({expired})"), params![timestamp(now_us), rows_max])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
