//! SQL of deleted and erased accounts.

use echo_sdk::params;
use echo_sdk::sql::{Sql, SqlError, timestamp, uuid};

use super::{Ending, end_factor, end_sessions};

/// False where it is deleted already.
pub fn mark_deleted(db: &impl Sql, account: &str, now_us: u64) -> Result<bool, SqlError> {
    let sql = "UPDATE accounts SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL";
    Ok(db.execute(sql, params![uuid(account), timestamp(now_us)])? == 1)
}

/// Whether it was deleted.
pub fn unmark_deleted(db: &impl Sql, account: &str) -> Result<bool, SqlError> {
    let sql = "UPDATE accounts SET deleted_at = NULL WHERE id = $1 AND deleted_at IS NOT NULL";
    Ok(db.execute(sql, params![uuid(account)])? == 1)
}

pub fn is_deleted(db: &impl Sql, account: &str) -> Result<bool, SqlError> {
    let found: Option<(String,)> = db.row("SELECT id FROM accounts WHERE id = $1 AND deleted_at IS NOT NULL", params![uuid(account)])?;
    Ok(found.is_some())
}

/// With their numbers, the longest deleted first.
pub fn accounts_to_erase(db: &impl Sql, deleted_before_us: u64, limit: u64) -> Result<Vec<(String, String)>, SqlError> {
    let sql = "SELECT id, phone FROM accounts WHERE deleted_at <= $1 ORDER BY deleted_at, id LIMIT $2";
    db.rows(sql, params![timestamp(deleted_before_us), limit])
}

/// Everything that is kept of the account and by its number; false where it is not deleted, or not for so long.
pub fn erase_account(db: &impl Sql, account: &str, phone: &str, deleted_before_us: u64) -> Result<bool, SqlError> {
    // Locked: a sign-in at the same time comes before or after all of it.
    let sql = "UPDATE accounts SET deleted_at = deleted_at WHERE id = $1 AND deleted_at <= $2";
    if db.execute(sql, params![uuid(account), timestamp(deleted_before_us)])? == 0 {
        return Ok(false);
    }
    end_sessions(db, account, &Ending::All)?;
    end_factor(db, account)?;
    for table in ["password_history", "login_attempts", "known_devices", "account_export_parts", "account_exports"] {
        db.execute(&format!("DELETE FROM {table} WHERE account_id = $1"), params![uuid(account)])?;
    }
    for table in ["registrations", "resets", "codes", "code_quotas", "login_failures"] {
        db.execute(&format!("DELETE FROM {table} WHERE phone = $1"), params![phone])?;
    }
    for what in ["password", "totp", "reset"] {
        db.execute("DELETE FROM guesses WHERE subject = $1", params![format!("{what} {phone}")])?;
    }
    // Of the number alone, and of the number and who asked.
    for what in ["verify", "asked", "reset"] {
        let (number, with_more) = (format!("{what} {phone}"), format!("{what} {phone} %"));
        db.execute("DELETE FROM code_counts WHERE key = $1 OR key LIKE $2", params![number, with_more])?;
    }
    db.execute("DELETE FROM identities WHERE account_id = $1", params![uuid(account)])?;
    db.execute("DELETE FROM accounts WHERE id = $1", params![uuid(account)])?;
    Ok(true)
}

#[cfg(test)]
mod tests;
