//! Wrong passwords in a row lock a number for a while. Counted by number and not by account, so that an unknown number behaves the same.

use echo_sdk::Error;
use echo_sdk::sql::{Sql, SqlError};
use echo_sdk::time::{DAY_US, SECOND_US};

use crate::settings::Settings;
use crate::store;

/// Errors: 423 `account_locked` with the time left.
pub fn check(db: &impl Sql, phone: &str, now_us: u64) -> Result<(), Error> {
    match store::locked_until(db, phone, now_us)? {
        Some(until) => Err(locked(until, now_us)),
        None => Ok(()),
    }
}

/// Counts a wrong password.
pub fn count(db: &impl Sql, settings: &Settings, phone: &str, now_us: u64) -> Result<(), SqlError> {
    store::forget_failures(db, now_us.saturating_sub(DAY_US), now_us)?;
    let failures = store::count_failure(db, phone, now_us)?;
    if failures >= settings.lockout_failures {
        store::lock(db, phone, now_us + settings.lockout_s * SECOND_US)?;
    }
    Ok(())
}

fn locked(until_us: u64, now_us: u64) -> Error {
    Error::locked("account_locked", "too many wrong passwords in a row", until_us.saturating_sub(now_us).div_ceil(1_000))
}
