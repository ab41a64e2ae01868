//! Pushes that are due: claimed, and what becomes of them.

use echo_sdk::sql::{Database, Sql, SqlError, Transaction, timestamp, uuid};
use echo_sdk::{Timestamp, from_row, params};

use super::HAS_DEVICE;
use crate::bounds::PUSHES_AT_ONCE;

/// A push whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuePush {
    pub id: String,
    pub provider: String,
    pub token: String,
    pub token_hash: String,
    pub title: Option<String>,
    pub body: String,
    /// Whether the body is what the message says.
    pub shows_text: bool,
    pub message_id: String,
    pub conversation_id: String,
    pub at: Timestamp,
    pub tries: u64,
    pub send_at: Timestamp,
}

from_row!(DuePush { id, provider, token, token_hash, title, body, shows_text, message_id, conversation_id, at, tries, send_at });

/// The longest waiting first.
pub fn due_pushes(now: Timestamp) -> Result<Vec<DuePush>, SqlError> {
    Database.rows(
        "SELECT id, provider, recipient, token_hash, title, body, shows_text, message_id, conversation_id, at, tries, send_at \
         FROM outbox WHERE send_at IS NOT NULL AND send_at <= $1 ORDER BY send_at LIMIT $2",
        params![timestamp(now), PUSHES_AT_ONCE],
    )
}

/// Until then nobody else sends it. False where somebody has claimed it, it says something else by now, or its device is no more: then it goes too.
pub fn claim_push(tx: &Transaction, push: &DuePush, until: Timestamp) -> Result<bool, SqlError> {
    let sql = format!("UPDATE outbox SET send_at = $3, tries = tries + 1 WHERE id = $1 AND send_at = $2 AND body = $4 AND {HAS_DEVICE}");
    let claimed = tx.execute(&sql, params![uuid(&push.id), timestamp(push.send_at), timestamp(until), &push.body])? == 1;
    if !claimed {
        tx.execute(&format!("DELETE FROM outbox WHERE id = $1 AND NOT {HAS_DEVICE}"), params![uuid(&push.id)])?;
    }
    Ok(claimed)
}

/// It stays, and is not sent again.
pub fn set_sent(tx: &Transaction, id: &str) -> Result<(), SqlError> {
    tx.execute("UPDATE outbox SET send_at = NULL WHERE id = $1", params![uuid(id)])?;
    Ok(())
}

pub fn set_send_at(tx: &Transaction, id: &str, at: Timestamp) -> Result<(), SqlError> {
    tx.execute("UPDATE outbox SET send_at = $2 WHERE id = $1", params![uuid(id), timestamp(at)])?;
    Ok(())
}

pub fn delete_push(tx: &Transaction, id: &str) -> Result<(), SqlError> {
    tx.execute("DELETE FROM outbox WHERE id = $1", params![uuid(id)])?;
    Ok(())
}

/// The device and what is to be pushed to it, unless it was registered again after this time.
pub fn forget_token(tx: &Transaction, token_hash: &str, pushed_at: Timestamp) -> Result<(), SqlError> {
    let sql = "DELETE FROM devices WHERE token_hash = $1 AND created_at <= $2";
    if tx.execute(sql, params![token_hash, timestamp(pushed_at)])? == 1 {
        tx.execute("DELETE FROM outbox WHERE token_hash = $1", params![token_hash])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
