//! What people put on messages and conversations: reactions, stars, pins, drafts, marks.

use echo_sdk::sql::{Database, Sql, SqlError, Transaction, placeholders, timestamp, uuid};
use echo_sdk::{Timestamp, from_row, params};

use crate::bindings::exports::echo::message::api::{Draft, Message, Reaction};

// --- Reactions -------------------------------------------------------------------------------------------------------------------------

pub struct ReactionRow {
    pub user_id: String,
    pub emoji: String,
    pub spelling: String,
    pub created_at: Timestamp,
}

from_row!(ReactionRow { user_id, emoji, spelling, created_at });

impl From<ReactionRow> for Reaction {
    fn from(row: ReactionRow) -> Self {
        Self { user_id: row.user_id, emoji: row.spelling, canonical: row.emoji, created_at: row.created_at }
    }
}

/// False where it is there already.
pub fn add_reaction(
    tx: &Transaction,
    message_id: &str,
    user_id: &str,
    emoji: &str,
    spelling: &str,
    at: Timestamp,
) -> Result<bool, SqlError> {
    // Only under a message that is there by now.
    let sql = "INSERT INTO reactions (message_id, user_id, emoji, spelling, created_at) \
        SELECT m.id, $2, $3, $4, $5 FROM messages m WHERE m.id = $1 AND m.deleted_at IS NULL \
        ON CONFLICT (message_id, user_id, emoji) DO NOTHING";
    Ok(tx.execute(sql, params![uuid(message_id), uuid(user_id), emoji, spelling, timestamp(at)])? == 1)
}

pub fn reactions_of_one(tx: &Transaction, message_id: &str, user_id: &str) -> Result<u64, SqlError> {
    let sql = "SELECT COUNT(*) FROM reactions WHERE message_id = $1 AND user_id = $2";
    tx.one(sql, params![uuid(message_id), uuid(user_id)]).map(|(count,)| count)
}

/// As it was written; none where there is none.
pub fn remove_reaction(tx: &Transaction, message_id: &str, user_id: &str, emoji: &str) -> Result<Option<String>, SqlError> {
    let sql = "DELETE FROM reactions WHERE message_id = $1 AND user_id = $2 AND emoji = $3 RETURNING spelling";
    let removed: Option<(String,)> = tx.row(sql, params![uuid(message_id), uuid(user_id), emoji])?;
    Ok(removed.map(|(spelling,)| spelling))
}

/// The oldest first, after the key; without those of whom the viewer blocks.
pub fn reactions_seen_by(
    db: &impl Sql,
    viewer: &str,
    message_id: &str,
    after: &(u64, String, String),
    limit: i64,
) -> Result<Vec<ReactionRow>, SqlError> {
    let first_id = if after.1.is_empty() { "00000000-0000-0000-0000-000000000000" } else { after.1.as_str() };
    db.rows(
        "SELECT r.user_id, r.emoji, r.spelling, r.created_at FROM reactions r \
         WHERE r.message_id = $1 AND (r.created_at, r.user_id, r.emoji) > ($3, $4, $5) \
         AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.user_id = $2 AND b.blocked_user_id = r.user_id AND b.active = TRUE) \
         ORDER BY r.created_at, r.user_id, r.emoji LIMIT $6",
        params![uuid(message_id), uuid(viewer), timestamp(after.0), uuid(first_id), &after.2, limit],
    )
}

// --- Stars -----------------------------------------------------------------------------------------------------------------------------

/// A message that is deleted by now gets none.
pub fn star(user_id: &str, message_id: &str, at: Timestamp) -> Result<(), SqlError> {
    let sql = "INSERT INTO starred (user_id, message_id, starred_at) \
        SELECT $1, m.id, $3 FROM messages m WHERE m.id = $2 AND m.deleted_at IS NULL ON CONFLICT (user_id, message_id) DO NOTHING";
    Database.execute(sql, params![uuid(user_id), uuid(message_id), timestamp(at)])?;
    Ok(())
}

/// Whether it was starred.
pub fn unstar(user_id: &str, message_id: &str) -> Result<bool, SqlError> {
    let sql = "DELETE FROM starred WHERE user_id = $1 AND message_id = $2";
    Ok(Database.execute(sql, params![uuid(user_id), uuid(message_id)])? == 1)
}

/// Up to the bound.
pub fn starred_count(user_id: &str, count_max: u64) -> Result<u64, SqlError> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM starred WHERE user_id = $1 LIMIT $2) s";
    Database.one(sql, params![uuid(user_id), count_max]).map(|(count,)| count)
}

/// The newest first, before the key: messages and when they were starred.
pub fn starred(user_id: &str, before: &(u64, String), limit: i64) -> Result<Vec<(String, Timestamp)>, SqlError> {
    Database.rows(
        "SELECT message_id, starred_at FROM starred WHERE user_id = $1 AND (starred_at, message_id) < ($2, $3) \
         ORDER BY starred_at DESC, message_id DESC LIMIT $4",
        params![uuid(user_id), timestamp(before.0), uuid(&before.1), limit],
    )
}

// --- Pins ------------------------------------------------------------------------------------------------------------------------------

/// False where it is pinned already, or deleted by now.
pub fn pin(tx: &Transaction, message: &Message, user_id: &str, at: Timestamp) -> Result<bool, SqlError> {
    let sql = "INSERT INTO pins (message_id, conversation_id, pinned_by, pinned_at) \
        SELECT m.id, m.conversation_id, $2, $3 FROM messages m WHERE m.id = $1 AND m.deleted_at IS NULL ON CONFLICT (message_id) DO NOTHING";
    Ok(tx.execute(sql, params![uuid(&message.id), uuid(user_id), timestamp(at)])? == 1)
}

/// Whether it was pinned.
pub fn unpin(tx: &Transaction, message_id: &str) -> Result<bool, SqlError> {
    Ok(tx.execute("DELETE FROM pins WHERE message_id = $1", params![uuid(message_id)])? == 1)
}

/// Of a conversation, the one pinned last first.
pub fn pins_of(tx: &Transaction, conversation_id: &str) -> Result<Vec<String>, SqlError> {
    let pins: Vec<(String,)> = tx.rows(
        "SELECT message_id FROM pins WHERE conversation_id = $1 ORDER BY pinned_at DESC, message_id DESC",
        params![uuid(conversation_id)],
    )?;
    Ok(pins.into_iter().map(|(id,)| id).collect())
}

/// Of each of these conversations what the user sees of it: `(conversation, message)`, the one pinned last first.
pub fn pins_seen_by(user_id: &str, conversation_ids: &[String], now: Timestamp) -> Result<Vec<(String, String)>, SqlError> {
    if conversation_ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT p.conversation_id, p.message_id FROM pins p JOIN messages m ON m.id = p.message_id \
         JOIN participants me ON me.conversation_id = p.conversation_id AND me.user_id = $1 \
         WHERE p.conversation_id IN ({}) AND m.seq > me.joined_seq AND (m.expires_at IS NULL OR m.expires_at > $2) \
         AND NOT EXISTS (SELECT 1 FROM hidden_messages h WHERE h.conversation_id = m.conversation_id AND h.user_id = $1 AND h.seq = m.seq) \
         ORDER BY p.conversation_id, p.pinned_at DESC, p.message_id DESC",
        placeholders(3, conversation_ids.len())
    );
    let mut values = params![uuid(user_id), timestamp(now)];
    values.extend(conversation_ids.iter().map(uuid));
    Database.rows(&sql, values)
}

// --- Drafts and marks -------------------------------------------------------------------------------------------------------------------

from_row!(Draft { conversation_id, content, reply_to, updated_at });

pub fn draft(conversation_id: &str, user_id: &str) -> Result<Option<Draft>, SqlError> {
    let sql = "SELECT conversation_id, content, reply_to, updated_at FROM drafts WHERE conversation_id = $1 AND user_id = $2";
    Database.row(sql, params![uuid(conversation_id), uuid(user_id)])
}

pub fn set_draft(user_id: &str, draft: &Draft) -> Result<(), SqlError> {
    Database.execute(
        "INSERT INTO drafts (conversation_id, user_id, content, reply_to, updated_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (conversation_id, user_id) DO UPDATE SET content = excluded.content, reply_to = excluded.reply_to, updated_at = excluded.updated_at",
        params![
            uuid(&draft.conversation_id),
            uuid(user_id),
            &draft.content,
            draft.reply_to.as_deref().map(uuid),
            timestamp(draft.updated_at)
        ],
    )?;
    Ok(())
}

/// Whether there was one.
pub fn delete_draft(conversation_id: &str, user_id: &str) -> Result<bool, SqlError> {
    let sql = "DELETE FROM drafts WHERE conversation_id = $1 AND user_id = $2";
    Ok(Database.execute(sql, params![uuid(conversation_id), uuid(user_id)])? == 1)
}

/// Whether it was otherwise.
pub fn set_unread(tx: &Transaction, conversation_id: &str, user_id: &str, unread: bool) -> Result<bool, SqlError> {
    let sql = "UPDATE participants SET marked_unread = $3 WHERE conversation_id = $1 AND user_id = $2 AND marked_unread <> $3";
    Ok(tx.execute(sql, params![uuid(conversation_id), uuid(user_id), unread])? == 1)
}

#[cfg(test)]
mod tests;
