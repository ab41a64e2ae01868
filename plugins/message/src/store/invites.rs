//! Links to conversations, each until its time is over or as many as may have joined by it.

use echo_sdk::sql::{Database, Sql, SqlError, Transaction, timestamp, uuid};
use echo_sdk::{Timestamp, from_row, params};

use crate::bindings::exports::echo::message::api::Invite;

from_row!(Invite { code, conversation_id, created_by, created_at, expires_at, uses_max, uses });

/// That a link is open at the time `$2`.
macro_rules! is_open {
    () => {
        "(expires_at IS NULL OR expires_at > $2) AND (uses_max IS NULL OR uses < uses_max)"
    };
}

pub fn insert(tx: &Transaction, invite: &Invite) -> Result<(), SqlError> {
    tx.execute(
        "INSERT INTO invites (code, conversation_id, created_by, created_at, expires_at, uses_max) VALUES ($1, $2, $3, $4, $5, $6)",
        params![
            &invite.code,
            uuid(&invite.conversation_id),
            uuid(&invite.created_by),
            timestamp(invite.created_at),
            invite.expires_at.map(timestamp),
            invite.uses_max
        ],
    )?;
    Ok(())
}

/// Those of a conversation that nobody joins by any more.
pub fn clear_away(tx: &Transaction, conversation_id: &str, now: Timestamp) -> Result<(), SqlError> {
    let sql = concat!("DELETE FROM invites WHERE conversation_id = $1 AND NOT (", is_open!(), ")");
    tx.execute(sql, params![uuid(conversation_id), timestamp(now)])?;
    Ok(())
}

/// The oldest first.
pub fn of(db: &impl Sql, conversation_id: &str) -> Result<Vec<Invite>, SqlError> {
    db.rows(
        "SELECT code, conversation_id, created_by, created_at, expires_at, uses_max, uses FROM invites \
         WHERE conversation_id = $1 ORDER BY created_at, code",
        params![uuid(conversation_id)],
    )
}

/// Whether there was one.
pub fn delete(conversation_id: &str, code: &str) -> Result<bool, SqlError> {
    let sql = "DELETE FROM invites WHERE conversation_id = $1 AND code = $2";
    Ok(Database.execute(sql, params![uuid(conversation_id), code])? == 1)
}

/// Where the link leads to, open or not; none while the account of whoever made it is deleted.
pub fn conversation_of(code: &str) -> Result<Option<String>, SqlError> {
    let found: Option<(String,)> = Database.row(
        "SELECT i.conversation_id FROM invites i WHERE i.code = $1 \
         AND NOT EXISTS (SELECT 1 FROM account_states s WHERE s.user_id = i.created_by AND s.deleted = TRUE)",
        params![code],
    )?;
    Ok(found.map(|(id,)| id))
}

/// Whether this person does not get in by the link: somebody removed them, or the owner or whoever made the link blocks them.
pub fn keeps_out(tx: &Transaction, code: &str, user_id: &str) -> Result<bool, SqlError> {
    let found: Option<(String,)> = tx.row(
        "SELECT i.code FROM invites i WHERE i.code = $1 AND (EXISTS (SELECT 1 FROM removed_participants r \
         WHERE r.conversation_id = i.conversation_id AND r.user_id = $2) OR EXISTS (SELECT 1 FROM blocks b \
         WHERE b.blocked_user_id = $2 AND b.active = TRUE AND (b.user_id = i.created_by OR b.user_id IN \
         (SELECT p.user_id FROM participants p WHERE p.conversation_id = i.conversation_id AND p.role = 'owner'))))",
        params![code, uuid(user_id)],
    )?;
    Ok(found.is_some())
}

/// Counts one who joins; false where the link is not open.
pub fn use_once(tx: &Transaction, code: &str, now: Timestamp) -> Result<bool, SqlError> {
    let sql = concat!("UPDATE invites SET uses = uses + 1 WHERE code = $1 AND ", is_open!());
    Ok(tx.execute(sql, params![code, timestamp(now)])? == 1)
}

#[cfg(test)]
mod tests;
