//! What a person has here and wrote, for an account export: each list in the order of a key that does not change, from after a key on.

use echo_sdk::sql::{Database, FromRow, Row, Sql, SqlError, placeholders, timestamp, uuid};
use echo_sdk::{Timestamp, from_row, params};

use super::messages::message;
use super::polls::with_polls;
use crate::bindings::exports::echo::message::api::{
    Draft, ExportedConversation, ExportedReaction, ExportedStar, ExportedVote, Invite, Message,
};
use crate::names;

impl FromRow for ExportedConversation {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        Ok(Self {
            id: row.take()?,
            type_: names::conversation(&row.take::<String>()?),
            title: row.take()?,
            description: row.take()?,
            created_by: row.take()?,
            created_at: row.take()?,
            other_id: row.take()?,
            role: names::role(&row.take::<String>()?),
            joined_at: row.take()?,
            read_seq: row.take()?,
            muted_until: row.take()?,
            archived: row.take()?,
            pinned: row.take()?,
            marked_unread: row.take()?,
        })
    }
}

/// Those that go on and in which the user has taken part since before the time.
pub fn conversations_of(user_id: &str, after_id: &str, until: Timestamp, limit: i64) -> Result<Vec<ExportedConversation>, SqlError> {
    Database.rows(
        "SELECT c.id, c.kind, c.title, c.description, c.created_by, c.created_at, \
         CASE WHEN c.kind = 'direct' THEN (SELECT o.user_id FROM participants o WHERE o.conversation_id = c.id AND o.user_id <> $1 LIMIT 1) END, \
         p.role, p.joined_at, p.read_seq, p.muted_until, p.archived, p.pinned, p.marked_unread \
         FROM participants p JOIN conversations c ON c.id = p.conversation_id \
         WHERE p.user_id = $1 AND p.conversation_id > $2 AND p.joined_at <= $3 AND c.ended_at IS NULL ORDER BY p.conversation_id LIMIT $4",
        params![uuid(user_id), uuid(after_id), timestamp(until), limit],
    )
}

/// The ids of the messages that the user sent, whatever became of them, in the order of the client's ids: of these there is an index, and none has to be
/// kept for exports alone.
pub fn sent_by(user_id: &str, after_id: &str, limit: i64) -> Result<Vec<String>, SqlError> {
    let rows: Vec<(String,)> = Database.rows(
        "SELECT m.id FROM messages m WHERE m.sender_id = $1 AND m.client_message_id > \
         COALESCE((SELECT a.client_message_id FROM messages a WHERE a.id = $2 AND a.sender_id = $1), '') \
         ORDER BY m.client_message_id LIMIT $3",
        params![uuid(user_id), uuid(after_id), limit],
    )?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Those of the messages that the user sent until then and that say something still.
pub fn own_among(user_id: &str, ids: &[String], until: Timestamp, now: Timestamp) -> Result<Vec<Message>, SqlError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        concat!(
            "SELECT ",
            message!(),
            " FROM messages m JOIN conversations c ON c.id = m.conversation_id AND c.ended_at IS NULL \
             WHERE m.sender_id = $1 AND m.created_at <= $2 AND m.deleted_at IS NULL AND (m.expires_at IS NULL OR m.expires_at > $3) AND m.id IN ({})"
        ),
        placeholders(4, ids.len())
    );
    let mut values = params![uuid(user_id), timestamp(until), timestamp(now)];
    values.extend(ids.iter().map(uuid));
    with_polls(&Database, user_id, Database.rows(&sql, values)?, now)
}

/// The ids of the messages that are to be sent.
pub fn scheduled_by(user_id: &str, after_id: &str, until: Timestamp, limit: i64) -> Result<Vec<String>, SqlError> {
    let rows: Vec<(String,)> = Database.rows(
        "SELECT id FROM scheduled WHERE sender_id = $1 AND id > $2 AND created_at <= $3 ORDER BY id LIMIT $4",
        params![uuid(user_id), uuid(after_id), timestamp(until), limit],
    )?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// By their conversations.
pub fn drafts_of(user_id: &str, after_conversation: &str, limit: i64) -> Result<Vec<Draft>, SqlError> {
    Database.rows(
        "SELECT conversation_id, content, reply_to, updated_at FROM drafts \
         WHERE user_id = $1 AND conversation_id > $2 ORDER BY conversation_id LIMIT $3",
        params![uuid(user_id), uuid(after_conversation), limit],
    )
}

from_row!(ExportedStar { message_id, starred_at });

pub fn stars_of(user_id: &str, after_message: &str, until: Timestamp, limit: i64) -> Result<Vec<ExportedStar>, SqlError> {
    Database.rows(
        "SELECT message_id, starred_at FROM starred WHERE user_id = $1 AND message_id > $2 AND starred_at <= $3 ORDER BY message_id LIMIT $4",
        params![uuid(user_id), uuid(after_message), timestamp(until), limit],
    )
}

pub struct ReactionRow {
    /// Without variation selectors.
    pub canonical: String,
    pub reaction: ExportedReaction,
}

impl FromRow for ReactionRow {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        let (message_id, canonical) = (row.take()?, row.take()?);
        Ok(Self { canonical, reaction: ExportedReaction { message_id, emoji: row.take()?, created_at: row.take()? } })
    }
}

/// By message and emoji.
pub fn reactions_of(user_id: &str, after: (&str, &str), until: Timestamp, limit: i64) -> Result<Vec<ReactionRow>, SqlError> {
    Database.rows(
        "SELECT message_id, emoji, spelling, created_at FROM reactions \
         WHERE user_id = $1 AND (message_id, emoji) > ($2, $3) AND created_at <= $4 ORDER BY message_id, emoji LIMIT $5",
        params![uuid(user_id), uuid(after.0), after.1, timestamp(until), limit],
    )
}

from_row!(ExportedVote { message_id, choice });

/// By message and choice.
pub fn votes_of(user_id: &str, after_message: &str, after_choice: i64, limit: i64) -> Result<Vec<ExportedVote>, SqlError> {
    Database.rows(
        "SELECT message_id, number FROM poll_votes WHERE user_id = $1 AND (message_id, number) > ($2, $3) \
         ORDER BY message_id, number LIMIT $4",
        params![uuid(user_id), uuid(after_message), after_choice, limit],
    )
}

/// Links that the user made, by their codes.
pub fn invites_by(user_id: &str, after_code: &str, until: Timestamp, limit: i64) -> Result<Vec<Invite>, SqlError> {
    Database.rows(
        "SELECT code, conversation_id, created_by, created_at, expires_at, uses_max, uses FROM invites \
         WHERE created_by = $1 AND code > $2 AND created_at <= $3 ORDER BY code LIMIT $4",
        params![uuid(user_id), after_code, timestamp(until), limit],
    )
}

#[cfg(test)]
mod tests;
