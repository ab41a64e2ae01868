//! SQL of the second factor: its seed, the last code that was used, recovery codes.

use echo_sdk::sql::{Sql, SqlError, Value, row_placeholders, timestamp, uuid};
use echo_sdk::{from_row, params};

/// A confirmed one.
pub struct Factor {
    pub seed: String,
}
from_row!(Factor { seed });

pub fn factor_of(db: &impl Sql, account: &str) -> Result<Option<Factor>, SqlError> {
    db.row("SELECT seed FROM second_factors WHERE account_id = $1 AND confirmed_at IS NOT NULL", params![uuid(account)])
}

/// Puts it in the place of one that was not confirmed; false where a confirmed one is there.
pub fn start_factor(db: &impl Sql, account: &str, seed: &str, now_us: u64) -> Result<bool, SqlError> {
    let sql = "INSERT INTO second_factors (account_id, seed, started_at) VALUES ($1, $2, $3) \
        ON CONFLICT (account_id) DO UPDATE SET seed = excluded.seed, started_at = excluded.started_at \
        WHERE second_factors.confirmed_at IS NULL";
    Ok(db.execute(sql, params![uuid(account), seed, timestamp(now_us)])? == 1)
}

/// The seed of one that waits to be confirmed and was begun after this time.
pub fn unconfirmed_factor(db: &impl Sql, account: &str, started_after_us: u64) -> Result<Option<String>, SqlError> {
    let sql = "SELECT seed FROM second_factors WHERE account_id = $1 AND confirmed_at IS NULL AND started_at > $2";
    Ok(db.row::<(String,)>(sql, params![uuid(account), timestamp(started_after_us)])?.map(|(seed,)| seed))
}

/// With the code of this step, which is used with it. False where this one does not wait to be confirmed.
pub fn confirm_factor(db: &impl Sql, account: &str, seed: &str, step: u64, now_us: u64) -> Result<bool, SqlError> {
    let sql = "UPDATE second_factors SET confirmed_at = $4, last_step = $3 WHERE account_id = $1 AND seed = $2 AND confirmed_at IS NULL";
    Ok(db.execute(sql, params![uuid(account), seed, step, timestamp(now_us)])? == 1)
}

/// Uses up the codes to this step; false where that was done before.
pub fn take_step(db: &impl Sql, account: &str, seed: &str, step: u64) -> Result<bool, SqlError> {
    let sql = "UPDATE second_factors SET last_step = $3 WHERE account_id = $1 AND seed = $2 AND last_step < $3";
    Ok(db.execute(sql, params![uuid(account), seed, step])? == 1)
}

/// With its recovery codes.
pub fn end_factor(db: &impl Sql, account: &str) -> Result<(), SqlError> {
    db.execute("DELETE FROM recovery_codes WHERE account_id = $1", params![uuid(account)])?;
    db.execute("DELETE FROM second_factors WHERE account_id = $1", params![uuid(account)])?;
    Ok(())
}

/// In the place of those of before.
pub fn put_recovery_codes(db: &impl Sql, account: &str, fingerprints: &[String]) -> Result<(), SqlError> {
    db.execute("DELETE FROM recovery_codes WHERE account_id = $1", params![uuid(account)])?;
    if fingerprints.is_empty() {
        return Ok(());
    }
    let sql = format!("INSERT INTO recovery_codes (account_id, fingerprint) VALUES {}", row_placeholders(fingerprints.len(), 2));
    db.execute(&sql, fingerprints.iter().flat_map(|fingerprint| [uuid(account), Value::from(fingerprint)]).collect())?;
    Ok(())
}

/// Uses one up; whether it was there.
pub fn take_recovery_code(db: &impl Sql, account: &str, fingerprint: &str) -> Result<bool, SqlError> {
    let sql = "DELETE FROM recovery_codes WHERE account_id = $1 AND fingerprint = $2";
    Ok(db.execute(sql, params![uuid(account), fingerprint])? == 1)
}

/// Those that nobody confirmed.
pub fn forget_unconfirmed_factors(db: &impl Sql, started_before_us: u64, rows_max: u64) -> Result<(), SqlError> {
    let sql = "DELETE FROM second_factors WHERE account_id IN (SELECT account_id FROM second_factors \
        WHERE confirmed_at IS NULL AND started_at < $1 ORDER BY started_at LIMIT $2)";
    db.execute(sql, params![timestamp(started_before_us), rows_max])?;
    Ok(())
}

#[cfg(test)]
mod tests;
