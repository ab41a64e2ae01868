//! SQL of people whose accounts were erased.

use echo_sdk::Timestamp;
use echo_sdk::params;
use echo_sdk::sql::{Database, Sql, SqlError, Transaction, timestamp, uuid};

/// Notes that the account is deleted, or in use again. False where a newer change is known.
pub fn set_state(tx: &Transaction, user_id: &str, deleted: bool, at: Timestamp) -> Result<bool, SqlError> {
    let changed = tx.execute(
        "INSERT INTO account_states (user_id, deleted, changed_at) VALUES ($1, $2, $3) ON CONFLICT (user_id) DO UPDATE SET \
         deleted = excluded.deleted, changed_at = excluded.changed_at WHERE account_states.changed_at < excluded.changed_at",
        params![uuid(user_id), deleted, timestamp(at)],
    )?;
    Ok(changed == 1)
}

/// Makes so many of the sender's messages disappear now; how many there were.
pub fn expire_messages_of(tx: &Transaction, sender_id: &str, now: Timestamp, limit: u64) -> Result<u64, SqlError> {
    tx.execute(
        "UPDATE messages SET expires_at = $2 WHERE id IN (SELECT id FROM messages WHERE sender_id = $1 AND deleted_at IS NULL \
         AND (expires_at IS NULL OR expires_at > $2) LIMIT $3)",
        params![uuid(sender_id), timestamp(now), limit],
    )
}

/// A group or channel that goes on and in which the user takes part.
pub fn group_of(user_id: &str) -> Result<Option<String>, SqlError> {
    let found: Option<(String,)> = Database.row(
        "SELECT c.id FROM participants p JOIN conversations c ON c.id = p.conversation_id \
         WHERE p.user_id = $1 AND c.kind <> 'direct' AND c.ended_at IS NULL LIMIT 1",
        params![uuid(user_id)],
    )?;
    Ok(found.map(|(id,)| id))
}

/// What the user put on messages and conversations, and what was to be sent or to let others join in the user's name.
pub fn forget_marks_of(tx: &Transaction, user_id: &str) -> Result<(), SqlError> {
    let of_user = ["reactions", "starred", "drafts", "blocks", "poll_votes", "account_states", "removed_participants"]
        .map(|table| (table, "user_id"));
    for (table, column) in of_user.into_iter().chain([("scheduled", "sender_id"), ("invites", "created_by"), ("open_exports", "user_id")]) {
        tx.execute(&format!("DELETE FROM {table} WHERE {column} = $1"), params![uuid(user_id)])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
