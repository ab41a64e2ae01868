//! Conversations and who takes part in them.

use echo_sdk::sql::{Database, FromRow, Row, Sql, SqlError, Transaction, Value, placeholders, timestamp, uuid};
use echo_sdk::{Timestamp, from_row, params};

use crate::bindings::exports::echo::message::api::{ConversationType, Member as MemberView, Participant, Role};
use crate::bounds::{PARTICIPANT_ROWS_MAX, PARTICIPANTS_SHOWN, UNREAD_COUNT_MAX};
use crate::names;

/// What all that happens in a conversation looks at first.
pub struct Roster {
    pub kind: ConversationType,
    pub disappearing_after: Option<u32>,
    pub version: u64,
    /// The newest message's, when it was read.
    pub last_seq: u64,
    pub members: Vec<Member>,
}

pub struct Member {
    pub user_id: String,
    pub role: Role,
    pub muted_until: Option<Timestamp>,
    /// Blocks the one for whom the roster was read.
    pub blocks: bool,
}

struct RosterRow(ConversationType, Option<u32>, u64, u64, Member);

impl FromRow for RosterRow {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        let kind = names::conversation(&row.take::<String>()?);
        let (disappearing_after, version, last_seq) = (row.take()?, row.take()?, row.take()?);
        let (user_id, role) = (row.take()?, names::role(&row.take::<String>()?));
        let (muted_until, blocks) = (row.take()?, row.take::<Option<bool>>()?.unwrap_or(false));
        Ok(Self(kind, disappearing_after, version, last_seq, Member { user_id, role, muted_until, blocks }))
    }
}

/// Everybody in the conversation and who of them blocks this user; none where there is no such conversation.
pub fn roster_for(db: &impl Sql, conversation_id: &str, user_id: &str) -> Result<Option<Roster>, SqlError> {
    let rows: Vec<RosterRow> = db.rows(
        "SELECT c.kind, c.disappearing_after, c.roster_version, c.last_seq, p.user_id, p.role, p.muted_until, b.active \
         FROM conversations c JOIN participants p ON p.conversation_id = c.id \
         LEFT JOIN blocks b ON b.user_id = p.user_id AND b.blocked_user_id = $2 \
         WHERE c.id = $1 AND c.ended_at IS NULL ORDER BY p.joined_at, p.user_id",
        params![uuid(conversation_id), uuid(user_id)],
    )?;
    let mut roster: Option<Roster> = None;
    for RosterRow(kind, disappearing_after, version, last_seq, member) in rows {
        let members = Vec::new();
        roster.get_or_insert(Roster { kind, disappearing_after, version, last_seq, members }).members.push(member);
    }
    Ok(roster)
}

/// Who takes part and neither blocks this user nor is blocked by them; the user is among them if they take part.
pub fn who_may_see_typing(conversation_id: &str, user_id: &str) -> Result<Vec<String>, SqlError> {
    let users: Vec<(String,)> = Database.rows(
        "SELECT p.user_id FROM participants p JOIN conversations c ON c.id = p.conversation_id AND c.ended_at IS NULL \
         WHERE p.conversation_id = $1 \
         AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.user_id = p.user_id AND b.blocked_user_id = $2 AND b.active = TRUE) \
         AND NOT EXISTS (SELECT 1 FROM blocks o WHERE o.user_id = $2 AND o.blocked_user_id = p.user_id AND o.active = TRUE)",
        params![uuid(conversation_id), uuid(user_id)],
    )?;
    Ok(users.into_iter().map(|(user,)| user).collect())
}

/// The caller's place in a conversation.
pub struct Membership {
    pub kind: ConversationType,
    pub role: Role,
    pub last_seq: u64,
    pub delivered_seq: u64,
    pub read_seq: u64,
    pub marked_unread: bool,
}

impl FromRow for Membership {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        let (kind, role) = (names::conversation(&row.take::<String>()?), names::role(&row.take::<String>()?));
        Ok(Self { kind, role, last_seq: row.take()?, delivered_seq: row.take()?, read_seq: row.take()?, marked_unread: row.take()? })
    }
}

pub fn membership(db: &impl Sql, conversation_id: &str, user_id: &str) -> Result<Option<Membership>, SqlError> {
    db.row(
        "SELECT c.kind, p.role, c.last_seq, p.delivered_seq, p.read_seq, p.marked_unread FROM participants p JOIN conversations c ON c.id = p.conversation_id \
         WHERE p.conversation_id = $1 AND p.user_id = $2 AND c.ended_at IS NULL",
        params![uuid(conversation_id), uuid(user_id)],
    )
}

// --- As a participant sees them ------------------------------------------------------------------------------------------------------

pub struct Listed {
    pub id: String,
    pub kind: String,
    pub title: Option<String>,
    pub description: Option<String>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub active_at: Timestamp,
    pub last_seq: u64,
    pub disappearing_after: Option<u32>,
    pub role: String,
    pub read_seq: u64,
    pub muted_until: Option<Timestamp>,
    pub archived: bool,
    pub pinned: bool,
    pub marked_unread: bool,
    pub participant_count: u32,
    pub unread_count: u64,
}

from_row!(Listed {
    id,
    kind,
    title,
    description,
    created_by,
    created_at,
    updated_at,
    active_at,
    last_seq,
    disappearing_after,
    role,
    read_seq,
    muted_until,
    archived,
    pinned,
    marked_unread,
    participant_count,
    unread_count,
});

/// How many messages of others, visible and not deleted, `$1` has not read in the conversation of the participant `me` at the time `$2`;
/// counted up to `$3`.
macro_rules! unread {
    () => {
        "(SELECT COUNT(*) FROM (SELECT 1 FROM messages m WHERE m.conversation_id = me.conversation_id AND m.seq > me.read_seq \
         AND m.sender_id <> $1 AND m.deleted_at IS NULL AND (m.expires_at IS NULL OR m.expires_at > $2) \
         AND NOT EXISTS (SELECT 1 FROM hidden_messages h WHERE h.conversation_id = m.conversation_id AND h.user_id = $1 AND h.seq = m.seq) \
         LIMIT $3) u)"
    };
}

/// What one participant sees of the conversation's last activity: messages that were kept from them moved nothing.
macro_rules! shown {
    ($column:literal, $participant:literal, $conversation:literal, $of_all:literal) => {
        concat!(
            "CASE WHEN ",
            $participant,
            ".kept_back_seq = ",
            $conversation,
            ".last_seq THEN ",
            $participant,
            ".",
            $column,
            " ELSE ",
            $conversation,
            ".",
            $of_all,
            " END"
        )
    };
}

macro_rules! listed {
    ($from:expr) => {
        concat!(
            "SELECT c.id, c.kind, c.title, c.description, c.created_by, c.created_at, c.updated_at, ",
            shown!("shown_active_at", "me", "c", "active_at"),
            ", ",
            shown!("shown_seq", "me", "c", "last_seq"),
            ", \
             c.disappearing_after, me.role, me.read_seq, me.muted_until, me.archived, me.pinned, me.marked_unread, \
             (SELECT COUNT(*) FROM participants n WHERE n.conversation_id = c.id), ",
            unread!(),
            $from
        )
    };
}

/// The newest activity first, before the key.
pub fn listed_for(user_id: &str, before: &(u64, String), limit: i64, now: Timestamp) -> Result<Vec<Listed>, SqlError> {
    Database.rows(
        // The page is cut first, so that unread messages are counted for its conversations alone.
        listed!(concat!(
            " FROM (SELECT k.*, ",
            shown!("shown_active_at", "p", "k", "active_at"),
            " AS listed_at FROM participants p JOIN conversations k ON k.id = p.conversation_id WHERE p.user_id = $1 \
             AND k.ended_at IS NULL AND (p.hidden_seq IS NULL OR p.hidden_seq < k.last_seq) AND (",
            shown!("shown_active_at", "p", "k", "active_at"),
            ", k.id) < ($4, $5) ORDER BY listed_at DESC, k.id DESC LIMIT $6) c \
             JOIN participants me ON me.conversation_id = c.id AND me.user_id = $1 ORDER BY c.listed_at DESC, c.id DESC"
        )),
        params![uuid(user_id), timestamp(now), UNREAD_COUNT_MAX, timestamp(before.0), uuid(&before.1), limit],
    )
}

pub fn one_for(user_id: &str, conversation_id: &str, now: Timestamp) -> Result<Option<Listed>, SqlError> {
    Database.row(
        listed!(
            " FROM conversations c JOIN participants me ON me.conversation_id = c.id AND me.user_id = $1 \
             WHERE c.id = $4 AND c.ended_at IS NULL"
        ),
        params![uuid(user_id), timestamp(now), UNREAD_COUNT_MAX, uuid(conversation_id)],
    )
}

pub fn unread_count(user_id: &str, conversation_id: &str, now: Timestamp) -> Result<u64, SqlError> {
    let sql = concat!("SELECT ", unread!(), " FROM participants me WHERE me.conversation_id = $4 AND me.user_id = $1");
    let count: Option<(u64,)> = Database.row(sql, params![uuid(user_id), timestamp(now), UNREAD_COUNT_MAX, uuid(conversation_id)])?;
    Ok(count.map_or(0, |(count,)| count))
}

/// The first participants of each of these conversations: `(conversation, user)` in the order they joined.
pub fn first_participants(conversation_ids: &[String]) -> Result<Vec<(String, String)>, SqlError> {
    if conversation_ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT q.conversation_id, q.user_id FROM (SELECT conversation_id, user_id, \
         ROW_NUMBER() OVER (PARTITION BY conversation_id ORDER BY joined_at, user_id) AS place \
         FROM participants WHERE conversation_id IN ({})) q WHERE q.place <= $1 ORDER BY q.conversation_id, q.place",
        placeholders(2, conversation_ids.len())
    );
    let mut values = params![PARTICIPANTS_SHOWN];
    values.extend(conversation_ids.iter().map(uuid));
    Database.rows(&sql, values)
}

// --- Opening and changing ------------------------------------------------------------------------------------------------------------

pub fn direct_of(pair_key: &str) -> Result<Option<String>, SqlError> {
    let found: Option<(String,)> = Database.row("SELECT id FROM conversations WHERE pair_key = $1", params![pair_key])?;
    Ok(found.map(|(id,)| id))
}

pub struct NewConversation<'a> {
    pub id: &'a str,
    pub kind: ConversationType,
    pub pair_key: Option<&'a str>,
    pub title: Option<&'a str>,
    pub description: Option<&'a str>,
    pub created_by: &'a str,
    pub at: Timestamp,
}

/// False where the pair has one already.
pub fn insert(tx: &Transaction, new: &NewConversation<'_>) -> Result<bool, SqlError> {
    let inserted = tx.execute(
        "INSERT INTO conversations (id, kind, pair_key, title, description, created_by, created_at, updated_at, active_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $7) ON CONFLICT (pair_key) DO NOTHING",
        params![
            uuid(new.id),
            names::of_conversation(new.kind),
            new.pair_key,
            new.title,
            new.description,
            uuid(new.created_by),
            timestamp(new.at)
        ],
    )?;
    Ok(inserted == 1)
}

/// Adds them all in one role, from `joined_seq` on; who is there already stays as they are.
pub fn insert_participants(
    tx: &Transaction,
    conversation_id: &str,
    user_ids: &[String],
    role: Role,
    joined_seq: u64,
    at: Timestamp,
) -> Result<(), SqlError> {
    for user_ids in user_ids.chunks(PARTICIPANT_ROWS_MAX) {
        let rows: Vec<String> = (5..5 + user_ids.len()).map(|user| format!("($1, ${user}, $2, $3, $4, $4, $4)")).collect();
        let sql = format!(
            "INSERT INTO participants (conversation_id, user_id, role, joined_at, joined_seq, delivered_seq, read_seq) VALUES {} \
             ON CONFLICT (conversation_id, user_id) DO NOTHING",
            rows.join(", ")
        );
        let mut values = params![uuid(conversation_id), names::of_role(role), timestamp(at), joined_seq];
        values.extend(user_ids.iter().map(uuid));
        tx.execute(&sql, values)?;
    }
    Ok(())
}

/// Locks the conversation for a change of its roster, and tells its newest seq; none where it is gone.
pub fn begin_roster_change(tx: &Transaction, conversation_id: &str, at: Timestamp) -> Result<Option<u64>, SqlError> {
    let last_seq: Option<(u64,)> = tx.row(
        "UPDATE conversations SET roster_version = roster_version + 1, updated_at = $2 WHERE id = $1 AND ended_at IS NULL RETURNING last_seq",
        params![uuid(conversation_id), timestamp(at)],
    )?;
    Ok(last_seq.map(|(last_seq,)| last_seq))
}

/// Locks the conversation, so that two changes at once see each other; false where it is gone.
pub fn lock(tx: &Transaction, conversation_id: &str) -> Result<bool, SqlError> {
    let sql = "UPDATE conversations SET updated_at = updated_at WHERE id = $1 AND ended_at IS NULL";
    Ok(tx.execute(sql, params![uuid(conversation_id)])? == 1)
}

/// What is none stays; an empty text removes.
pub fn update_texts(
    tx: &Transaction,
    conversation_id: &str,
    title: Option<&str>,
    description: Option<&str>,
    at: Timestamp,
) -> Result<(), SqlError> {
    tx.execute(
        "UPDATE conversations SET title = NULLIF(COALESCE($2, title), ''), description = NULLIF(COALESCE($3, description), ''), \
         updated_at = $4 WHERE id = $1",
        params![uuid(conversation_id), title, description, timestamp(at)],
    )?;
    Ok(())
}

pub fn set_disappearing(tx: &Transaction, conversation_id: &str, seconds: u32, at: Timestamp) -> Result<(), SqlError> {
    tx.execute(
        "UPDATE conversations SET disappearing_after = NULLIF($2, 0), updated_at = $3 WHERE id = $1",
        params![uuid(conversation_id), seconds, timestamp(at)],
    )?;
    Ok(())
}

pub fn end(tx: &Transaction, conversation_id: &str, at: Timestamp) -> Result<(), SqlError> {
    tx.execute(
        "UPDATE conversations SET ended_at = $2, roster_version = roster_version + 1 WHERE id = $1",
        params![uuid(conversation_id), timestamp(at)],
    )?;
    Ok(())
}

pub fn set_role(tx: &Transaction, conversation_id: &str, user_id: &str, role: Role) -> Result<(), SqlError> {
    tx.execute(
        "UPDATE participants SET role = $3 WHERE conversation_id = $1 AND user_id = $2",
        params![uuid(conversation_id), uuid(user_id), names::of_role(role)],
    )?;
    Ok(())
}

pub fn delete_participant(tx: &Transaction, conversation_id: &str, user_id: &str) -> Result<(), SqlError> {
    tx.execute("DELETE FROM drafts WHERE conversation_id = $1 AND user_id = $2", params![uuid(conversation_id), uuid(user_id)])?;
    tx.execute("DELETE FROM participants WHERE conversation_id = $1 AND user_id = $2", params![uuid(conversation_id), uuid(user_id)])?;
    Ok(())
}

/// From now on no link lets this person in.
pub fn note_removed(tx: &Transaction, conversation_id: &str, user_id: &str, at: Timestamp) -> Result<(), SqlError> {
    let sql = "INSERT INTO removed_participants (conversation_id, user_id, removed_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    tx.execute(sql, params![uuid(conversation_id), uuid(user_id), timestamp(at)])?;
    Ok(())
}

/// Somebody who manages the conversation has let these people in again.
pub fn forget_removed(tx: &Transaction, conversation_id: &str, user_ids: &[String]) -> Result<(), SqlError> {
    for user_ids in user_ids.chunks(PARTICIPANT_ROWS_MAX) {
        let list = placeholders(2, user_ids.len());
        let mut values: Vec<Value> = params![uuid(conversation_id)];
        values.extend(user_ids.iter().map(uuid));
        tx.execute(&format!("DELETE FROM removed_participants WHERE conversation_id = $1 AND user_id IN ({list})"), values)?;
    }
    Ok(())
}

/// Not listed for this user until something newer than `seq` comes.
pub fn hide(db: &impl Sql, conversation_id: &str, user_id: &str, seq: u64) -> Result<(), SqlError> {
    db.execute(
        "UPDATE participants SET hidden_seq = $3 WHERE conversation_id = $1 AND user_id = $2",
        params![uuid(conversation_id), uuid(user_id), seq],
    )?;
    Ok(())
}

pub fn unhide(conversation_id: &str, user_id: &str) -> Result<(), SqlError> {
    Database.execute(
        "UPDATE participants SET hidden_seq = NULL WHERE conversation_id = $1 AND user_id = $2 AND hidden_seq IS NOT NULL",
        params![uuid(conversation_id), uuid(user_id)],
    )?;
    Ok(())
}

/// One participant's own view. What is none stays.
pub struct SettingsChange {
    /// `Some(None)`: not muted any more.
    pub muted_until: Option<Option<Timestamp>>,
    pub archived: Option<bool>,
    pub pinned: Option<bool>,
}

pub fn update_settings(tx: &Transaction, conversation_id: &str, user_id: &str, change: &SettingsChange) -> Result<(), SqlError> {
    tx.execute(
        "UPDATE participants SET muted_until = CASE WHEN $3 = TRUE THEN $4 ELSE muted_until END, \
         archived = COALESCE($5, archived), pinned = COALESCE($6, pinned) WHERE conversation_id = $1 AND user_id = $2",
        params![
            uuid(conversation_id),
            uuid(user_id),
            change.muted_until.is_some(),
            change.muted_until.flatten().map(timestamp),
            change.archived,
            change.pinned
        ],
    )?;
    Ok(())
}

/// What all participants see alike, for a push.
pub struct Head {
    pub kind: String,
    pub title: Option<String>,
    pub description: Option<String>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub last_seq: u64,
    pub disappearing_after: Option<u32>,
}

from_row!(Head { kind, title, description, created_by, created_at, updated_at, last_seq, disappearing_after });

pub fn head(tx: &Transaction, conversation_id: &str) -> Result<Head, SqlError> {
    tx.one(
        "SELECT kind, title, description, created_by, created_at, updated_at, last_seq, disappearing_after FROM conversations WHERE id = $1",
        params![uuid(conversation_id)],
    )
}

// --- Participants --------------------------------------------------------------------------------------------------------------------

impl FromRow for Participant {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        let (user_id, role) = (row.take()?, names::role(&row.take::<String>()?));
        Ok(Self { user_id, role, joined_at: row.take()?, read_seq: row.take()? })
    }
}

/// As the viewer sees them, in the order they joined, after the key.
pub fn participants_of(conversation_id: &str, viewer: &str, after: &(u64, String), limit: i64) -> Result<Vec<Participant>, SqlError> {
    Database.rows(
        concat!(
            "SELECT p.user_id, p.role, p.joined_at, ",
            read_seq_shown!("p", "$2"),
            " FROM participants p WHERE p.conversation_id = $1 AND (p.joined_at, p.user_id) > ($3, $4) \
             ORDER BY p.joined_at, p.user_id LIMIT $5"
        ),
        params![uuid(conversation_id), uuid(viewer), timestamp(after.0), uuid(&after.1), limit],
    )
}

/// The kind, and how many take part; none where it is gone.
pub fn size_of(conversation_id: &str) -> Result<Option<(String, u32)>, SqlError> {
    Database.row(
        "SELECT c.kind, (SELECT COUNT(*) FROM participants p WHERE p.conversation_id = c.id) FROM conversations c \
         WHERE c.id = $1 AND c.ended_at IS NULL",
        params![uuid(conversation_id)],
    )
}

impl FromRow for MemberView {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        let (user_id, role) = (row.take()?, names::role(&row.take::<String>()?));
        Ok(Self { user_id, role, joined_at: row.take()? })
    }
}

pub fn members_among(conversation_id: &str, user_ids: &[String]) -> Result<Vec<MemberView>, SqlError> {
    if user_ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT user_id, role, joined_at FROM participants WHERE conversation_id = $1 AND user_id IN ({}) ORDER BY joined_at, user_id",
        placeholders(2, user_ids.len())
    );
    let mut values: Vec<Value> = params![uuid(conversation_id)];
    values.extend(user_ids.iter().map(uuid));
    Database.rows(&sql, values)
}

pub fn participants_among(conversation_id: &str, viewer: &str, user_ids: &[String]) -> Result<Vec<Participant>, SqlError> {
    let mut found = Vec::with_capacity(user_ids.len());
    for user_ids in user_ids.chunks(PARTICIPANT_ROWS_MAX) {
        let sql = format!(
            concat!(
                "SELECT p.user_id, p.role, p.joined_at, ",
                read_seq_shown!("p", "$2"),
                " FROM participants p WHERE p.conversation_id = $1 AND p.user_id IN ({}) ORDER BY p.joined_at, p.user_id"
            ),
            placeholders(3, user_ids.len())
        );
        let mut values: Vec<Value> = params![uuid(conversation_id), uuid(viewer)];
        values.extend(user_ids.iter().map(uuid));
        found.extend(Database.rows::<Participant>(&sql, values)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
