//! SQL of accounts that are deleted, and of people whose accounts were erased.

use echo_sdk::sql::{Sql, SqlError, Transaction, timestamp, uuid};
use echo_sdk::{Timestamp, params};

/// That the account is deleted for now, or in use again. False where a newer change is known, or there is no profile.
pub fn set_state(tx: &Transaction, id: &str, deleted: bool, at: Timestamp) -> Result<bool, SqlError> {
    let sql = "UPDATE profiles SET deleted_at = CASE WHEN $2 = TRUE THEN $3 ELSE NULL END, state_changed_at = $3 \
        WHERE id = $1 AND (state_changed_at IS NULL OR state_changed_at < $3)";
    Ok(tx.execute(sql, params![uuid(id), deleted, timestamp(at)])? == 1)
}

/// All that is kept of this person, by them and by others.
pub fn erase_person(tx: &Transaction, id: &str) -> Result<(), SqlError> {
    for (table, column) in [
        ("name_parts", "user_id"),
        ("contacts", "owner_id"),
        ("contacts", "user_id"),
        ("blocks", "user_id"),
        ("blocks", "blocked_user_id"),
        ("tested_numbers", "owner_id"),
        ("number_quotas", "owner_id"),
        ("reports", "reporter_id"),
        ("reports", "user_id"),
        ("open_exports", "user_id"),
        ("profiles", "id"),
    ] {
        tx.execute(&format!("DELETE FROM {table} WHERE {column} = $1"), params![uuid(id)])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
