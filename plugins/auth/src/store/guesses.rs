//! SQL of guesses at passwords and codes, and of the devices that are known.

use echo_sdk::params;
use echo_sdk::sql::{Sql, SqlError, timestamp, uuid};

use crate::lockout::Counter;

// --- Guesses in a row ------------------------------------------------------------------------------------------------------------------

/// Until when the counter is full, if it is now.
pub fn locked_until(db: &impl Sql, counter: &Counter, now_us: u64) -> Result<Option<u64>, SqlError> {
    let sql = "SELECT locked_until FROM guesses WHERE subject = $1 AND client = $2 AND locked_until > $3";
    Ok(db.row::<(u64,)>(sql, params![&counter.subject, &counter.client, timestamp(now_us)])?.map(|(until,)| until))
}

/// Counts a guess, and locks the counter with the last that it takes; false where it is locked already. A lock that is over counts from the beginning.
pub fn count_guess(db: &impl Sql, counter: &Counter, now_us: u64) -> Result<bool, SqlError> {
    let sql = "INSERT INTO guesses (subject, client, failures, failed_at, locked_until) \
        VALUES ($1, $2, 1, $3, CASE WHEN $4 <= 1 THEN CAST($5 AS TIMESTAMPTZ) END) \
        ON CONFLICT (subject, client) DO UPDATE SET failed_at = excluded.failed_at, \
            failures = CASE WHEN guesses.locked_until <= $3 THEN 1 ELSE guesses.failures + 1 END, \
            locked_until = CASE WHEN (CASE WHEN guesses.locked_until <= $3 THEN 1 ELSE guesses.failures + 1 END) >= $4 THEN CAST($5 AS TIMESTAMPTZ) END \
        WHERE guesses.locked_until IS NULL OR guesses.locked_until <= $3";
    let until_us = now_us + counter.lock_us;
    let params = params![&counter.subject, &counter.client, timestamp(now_us), counter.failures_max, timestamp(until_us)];
    Ok(db.execute(sql, params)? == 1)
}

/// One less; a counter that this one had filled is open again.
pub fn uncount_guess(db: &impl Sql, counter: &Counter) -> Result<(), SqlError> {
    let sql = "UPDATE guesses SET failures = failures - 1, locked_until = NULL WHERE subject = $1 AND client = $2 AND failures > 0";
    db.execute(sql, params![&counter.subject, &counter.client])?;
    Ok(())
}

pub fn drop_guesses(db: &impl Sql, counter: &Counter) -> Result<(), SqlError> {
    db.execute("DELETE FROM guesses WHERE subject = $1 AND client = $2", params![&counter.subject, &counter.client])?;
    Ok(())
}

/// Of all clients.
pub fn drop_guesses_of(db: &impl Sql, subject: &str) -> Result<(), SqlError> {
    db.execute("DELETE FROM guesses WHERE subject = $1", params![subject])?;
    Ok(())
}

/// Old ones that lock nothing.
pub fn forget_guesses(db: &impl Sql, failed_before_us: u64, now_us: u64, rows_max: u64) -> Result<(), SqlError> {
    let sql = "DELETE FROM guesses WHERE (subject, client) IN (SELECT subject, client FROM guesses \
        WHERE failed_at < $1 AND (locked_until IS NULL OR locked_until <= $2) ORDER BY failed_at LIMIT $3)";
    db.execute(sql, params![timestamp(failed_before_us), timestamp(now_us), rows_max])?;
    Ok(())
}

// --- Known devices ---------------------------------------------------------------------------------------------------------------------

/// Whether the device signed in to the account before; if so, whether it did from this address.
pub fn device_known(db: &impl Sql, account: &str, device: &str, address: &str) -> Result<Option<bool>, SqlError> {
    let sql = "SELECT COUNT(*), COALESCE(SUM(CASE WHEN address = $3 THEN 1 ELSE 0 END), 0) FROM known_devices \
        WHERE account_id = $1 AND device_id = $2";
    let (seen, seen_here) = db.one::<(u64, u64)>(sql, params![uuid(account), device, address])?;
    Ok((seen > 0).then_some(seen_here > 0))
}

/// Whether any device signed in to the account from this address before.
pub fn address_known(db: &impl Sql, account: &str, address: &str) -> Result<bool, SqlError> {
    let sql = "SELECT COUNT(*) FROM known_devices WHERE account_id = $1 AND address = $2";
    Ok(db.one::<(u64,)>(sql, params![uuid(account), address])?.0 > 0)
}

/// Of an account, the ones that were seen last are kept.
pub fn note_device(db: &impl Sql, account: &str, device: &str, address: &str, now_us: u64, keep: u64) -> Result<(), SqlError> {
    let sql = "INSERT INTO known_devices (account_id, device_id, address, seen_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (account_id, device_id, address) DO UPDATE SET seen_at = excluded.seen_at";
    db.execute(sql, params![uuid(account), device, address, timestamp(now_us)])?;
    let sql = "DELETE FROM known_devices WHERE account_id = $1 AND (seen_at, device_id, address) <= \
        (SELECT seen_at, device_id, address FROM known_devices WHERE account_id = $1 \
        ORDER BY seen_at DESC, device_id DESC, address DESC LIMIT 1 OFFSET $2)";
    db.execute(sql, params![uuid(account), keep])?;
    Ok(())
}

pub fn forget_devices(db: &impl Sql, seen_before_us: u64, rows_max: u64) -> Result<(), SqlError> {
    let sql = "DELETE FROM known_devices WHERE (account_id, device_id, address) IN \
        (SELECT account_id, device_id, address FROM known_devices WHERE seen_at < $1 ORDER BY seen_at LIMIT $2)";
    db.execute(sql, params![timestamp(seen_before_us), rows_max])?;
    Ok(())
}

#[cfg(test)]
mod tests;
