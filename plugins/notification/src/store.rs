//! All SQL of the notification service, one function per question.

use echo_sdk::sql::{Database, Sql, SqlError, Transaction, Value, batch, placeholders, row_placeholders, timestamp, uuid};
use echo_sdk::{Timestamp, from_row, params};

pub mod sending;

use crate::bounds::{
    CLEARED_PER_RUN, DEVICES_PER_USER_MAX, DUE_BATCH, ENTRIES_PER_USER_MAX, INSERT_ROWS_MAX, LIST_PARAMS_MAX, OUTBOX_KEPT, OUTBOX_SHOWN,
    OUTGOING_ROWS_MAX, PUSHES_WAITING_MAX,
};

// --- Devices -----------------------------------------------------------------------------------------------------------------------

pub struct Device {
    pub token: String,
    pub provider: String,
    pub platform: Option<String>,
    pub created_at: Timestamp,
}

from_row!(Device { token, provider, platform, created_at });

/// Newest first.
pub fn devices_of(user_id: &str) -> Result<Vec<Device>, SqlError> {
    Database.rows(
        "SELECT token, provider, platform, created_at FROM devices WHERE user_id = $1 ORDER BY created_at DESC, token_hash LIMIT $2",
        params![uuid(user_id), DEVICES_PER_USER_MAX],
    )
}

/// Whose it was before, it is this user's and this session's now.
pub fn put_device(tx: &Transaction, token_hash: &str, user_id: &str, session_id: &str, device: &Device) -> Result<(), SqlError> {
    tx.execute(
        "INSERT INTO devices (token_hash, token, user_id, session_id, provider, platform, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (token_hash) DO UPDATE SET token = excluded.token, user_id = excluded.user_id, session_id = excluded.session_id, \
         provider = excluded.provider, platform = excluded.platform, created_at = excluded.created_at",
        params![
            token_hash,
            &device.token,
            uuid(user_id),
            uuid(session_id),
            &device.provider,
            device.platform.as_deref(),
            timestamp(device.created_at)
        ],
    )?;
    tx.execute(
        "DELETE FROM devices WHERE user_id = $1 AND token_hash NOT IN \
         (SELECT token_hash FROM devices WHERE user_id = $1 ORDER BY created_at DESC, token_hash LIMIT $2)",
        params![uuid(user_id), DEVICES_PER_USER_MAX],
    )?;
    Ok(())
}

/// Whether the user had it.
pub fn delete_device(token_hash: &str, user_id: &str) -> Result<bool, SqlError> {
    let sql = "DELETE FROM devices WHERE token_hash = $1 AND user_id = $2";
    Ok(Database.execute(sql, params![token_hash, uuid(user_id)])? == 1)
}

/// Forgets the tokens of sessions, at least one, that ended, with what was to be pushed to them; and those of the user of which no session is known,
/// for they are older than that.
pub fn delete_devices_of_sessions(tx: &Transaction, user_id: &str, session_ids: &[String]) -> Result<(), SqlError> {
    for session_ids in session_ids.chunks(LIST_PARAMS_MAX) {
        let ended = format!("user_id = $1 AND (session_id IS NULL OR session_id IN ({}))", placeholders(2, session_ids.len()));
        let values = || [params![uuid(user_id)], session_ids.iter().map(uuid).collect()].concat();
        let pushes = format!("DELETE FROM outbox WHERE channel = 'push' AND recipient IN (SELECT token FROM devices WHERE {ended})");
        tx.execute(&pushes, values())?;
        tx.execute(&format!("DELETE FROM devices WHERE {ended}"), values())?;
    }
    Ok(())
}

/// Remembers that they ended; again changes nothing.
pub fn note_ended(tx: &Transaction, session_ids: &[String], at: Timestamp) -> Result<(), SqlError> {
    for session_ids in session_ids.chunks(INSERT_ROWS_MAX) {
        let sql = format!(
            "INSERT INTO ended_sessions (session_id, at) VALUES {} ON CONFLICT (session_id) DO NOTHING",
            row_placeholders(session_ids.len(), 2)
        );
        tx.execute(&sql, session_ids.iter().flat_map(|session| [uuid(session), timestamp(at)]).collect())?;
    }
    Ok(())
}

pub fn has_ended(tx: &Transaction, session_id: &str) -> Result<bool, SqlError> {
    Ok(tx.row::<(i64,)>("SELECT 1 FROM ended_sessions WHERE session_id = $1", params![uuid(session_id)])?.is_some())
}

/// Those that ended before this time, some of them.
pub fn forget_ended(before: Timestamp) -> Result<(), SqlError> {
    Database.execute(
        "DELETE FROM ended_sessions WHERE session_id IN (SELECT session_id FROM ended_sessions WHERE at < $1 ORDER BY at LIMIT $2)",
        params![timestamp(before), CLEARED_PER_RUN],
    )?;
    Ok(())
}

/// `(user, token, its hash, provider)` of all devices of these users.
pub fn devices_among(user_ids: &[String]) -> Result<Vec<(String, String, String, String)>, SqlError> {
    let mut devices = Vec::new();
    for user_ids in user_ids.chunks(LIST_PARAMS_MAX) {
        let sql =
            format!("SELECT user_id, token, token_hash, provider FROM devices WHERE user_id IN ({})", placeholders(1, user_ids.len()));
        devices.extend(Database.rows::<(String, String, String, String)>(&sql, user_ids.iter().map(uuid).collect())?);
    }
    Ok(devices)
}

// --- Messages whose acknowledgement is awaited -----------------------------------------------------------------------------------------

pub struct Awaited {
    pub message_id: String,
    pub conversation_id: String,
    pub sender_id: String,
    /// Separated by spaces.
    pub recipient_ids: String,
    pub muted_ids: String,
    /// Participants who block the sender; they are no recipients.
    pub withheld_ids: String,
    /// Of the recipients.
    pub mentioned_ids: String,
    pub sent_at: Timestamp,
    pub due_at: Timestamp,
    pub decided_at: Option<Timestamp>,
    /// How often the message was changed.
    pub changes: u64,
}

from_row!(Awaited {
    message_id,
    conversation_id,
    sender_id,
    recipient_ids,
    muted_ids,
    withheld_ids,
    mentioned_ids,
    sent_at,
    due_at,
    decided_at,
    changes
});

/// An event that comes again changes nothing.
pub fn insert_awaited(awaited: &[Awaited]) -> Result<(), SqlError> {
    const INSERT: &str = "INSERT INTO awaited_messages (message_id, conversation_id, sender_id, recipient_ids, muted_ids, withheld_ids, mentioned_ids, \
         sent_at, due_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (message_id) DO NOTHING";
    for awaited in awaited.chunks(INSERT_ROWS_MAX) {
        let rows = awaited.iter().map(|one| {
            let values = params![
                uuid(&one.message_id),
                uuid(&one.conversation_id),
                uuid(&one.sender_id),
                &one.recipient_ids,
                &one.muted_ids,
                &one.withheld_ids,
                &one.mentioned_ids,
                timestamp(one.sent_at),
                timestamp(one.due_at)
            ];
            (INSERT, values)
        });
        batch(rows.collect())?;
    }
    Ok(())
}

/// Those whose time is over and that are not decided, the longest waiting first.
pub fn due(now: Timestamp) -> Result<Vec<Awaited>, SqlError> {
    Database.rows(
        "SELECT message_id, conversation_id, sender_id, recipient_ids, muted_ids, withheld_ids, mentioned_ids, sent_at, due_at, decided_at, changes \
         FROM awaited_messages WHERE decided_at IS NULL AND due_at <= $1 ORDER BY due_at LIMIT $2",
        params![timestamp(now), DUE_BATCH],
    )
}

pub fn awaited(message_id: &str) -> Result<Option<Awaited>, SqlError> {
    Database.row(
        "SELECT message_id, conversation_id, sender_id, recipient_ids, muted_ids, withheld_ids, mentioned_ids, sent_at, due_at, decided_at, changes \
         FROM awaited_messages WHERE message_id = $1",
        params![uuid(message_id)],
    )
}

/// Of messages for which there was nothing to ask.
pub fn set_decided(message_ids: &[String], at: Timestamp) -> Result<(), SqlError> {
    if message_ids.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "UPDATE awaited_messages SET decided_at = $1 WHERE decided_at IS NULL AND message_id IN ({})",
        placeholders(2, message_ids.len())
    );
    let mut values = params![timestamp(at)];
    values.extend(message_ids.iter().map(uuid));
    Database.execute(&sql, values)?;
    Ok(())
}

/// False where it was decided meanwhile, or the message was changed.
pub fn decide(tx: &Transaction, awaited: &Awaited, at: Timestamp) -> Result<bool, SqlError> {
    let sql = "UPDATE awaited_messages SET decided_at = $2 WHERE message_id = $1 AND decided_at IS NULL AND changes = $3";
    Ok(tx.execute(sql, params![uuid(&awaited.message_id), timestamp(at), awaited.changes])? == 1)
}

/// Decisions on these messages that have begun are not carried out.
pub fn note_change(db: &impl Sql, message_ids: &[String]) -> Result<(), SqlError> {
    if message_ids.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "UPDATE awaited_messages SET changes = changes + 1 WHERE decided_at IS NULL AND message_id IN ({})",
        placeholders(1, message_ids.len())
    );
    db.execute(&sql, message_ids.iter().map(uuid).collect())?;
    Ok(())
}

/// The messages are deleted: there is nothing to decide any more.
pub fn forget_awaited(tx: &Transaction, message_ids: &[String], at: Timestamp) -> Result<(), SqlError> {
    if message_ids.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "UPDATE awaited_messages SET preview = NULL, decided_at = COALESCE(decided_at, $1), deleted_at = COALESCE(deleted_at, $1) WHERE message_id IN ({})",
        placeholders(2, message_ids.len())
    );
    let mut values = params![timestamp(at)];
    values.extend(message_ids.iter().map(uuid));
    tx.execute(&sql, values)?;
    Ok(())
}

/// When the message was deleted, if it was.
pub fn deleted_at(message_id: &str) -> Result<Option<Timestamp>, SqlError> {
    let found: Option<(Option<Timestamp>,)> =
        Database.row("SELECT deleted_at FROM awaited_messages WHERE message_id = $1", params![uuid(message_id)])?;
    Ok(found.and_then(|(at,)| at))
}

/// A push's token is still one of its user's devices.
const HAS_DEVICE: &str = "EXISTS (SELECT 1 FROM devices WHERE devices.token_hash = outbox.token_hash AND devices.user_id = outbox.user_id)";

/// A token that ended while it was decided on gets no push.
pub fn drop_pushes_without_device(tx: &Transaction, message_id: &str) -> Result<(), SqlError> {
    tx.execute(&format!("DELETE FROM outbox WHERE message_id = $1 AND channel = 'push' AND NOT {HAS_DEVICE}"), params![uuid(message_id)])?;
    Ok(())
}

pub fn insert_traces(tx: &Transaction, message_id: &str, users: &[String], decision: &str, at: Timestamp) -> Result<(), SqlError> {
    for users in users.chunks(INSERT_ROWS_MAX) {
        let sql = format!("INSERT INTO traces (message_id, user_id, decision, at) VALUES {}", row_placeholders(users.len(), 4));
        let rows = users.iter().flat_map(|user| [uuid(message_id), uuid(user), Value::from(decision), timestamp(at)]);
        tx.execute(&sql, rows.collect())?;
    }
    Ok(())
}

/// Why these, whose line is there, got no push; for themselves alone to see.
pub fn note_reasons(tx: &Transaction, message_id: &str, users: &[String], reason: &str) -> Result<(), SqlError> {
    for users in users.chunks(LIST_PARAMS_MAX) {
        let sql = format!("UPDATE traces SET reason = $2 WHERE message_id = $1 AND user_id IN ({})", placeholders(3, users.len()));
        let mut values = params![uuid(message_id), reason];
        values.extend(users.iter().map(uuid));
        tx.execute(&sql, values)?;
    }
    Ok(())
}

pub fn reason_of(message_id: &str, user_id: &str) -> Result<Option<String>, SqlError> {
    let sql = "SELECT reason FROM traces WHERE message_id = $1 AND user_id = $2 AND reason IS NOT NULL";
    Ok(Database.row::<(String,)>(sql, params![uuid(message_id), uuid(user_id)])?.map(|(reason,)| reason))
}

/// `(user, decision, time)`.
pub fn traces_of(message_id: &str) -> Result<Vec<(String, String, Timestamp)>, SqlError> {
    Database.rows("SELECT user_id, decision, at FROM traces WHERE message_id = $1", params![uuid(message_id)])
}

/// Drops decided messages and traces below this id: ids rise with time.
pub fn forget_before(message_id: &str) -> Result<(), SqlError> {
    Database.execute(
        "DELETE FROM traces WHERE (message_id, user_id) IN \
         (SELECT message_id, user_id FROM traces WHERE message_id < $1 ORDER BY message_id, user_id LIMIT $2)",
        params![uuid(message_id), CLEARED_PER_RUN],
    )?;
    Database.execute(
        "DELETE FROM awaited_messages WHERE message_id IN \
         (SELECT message_id FROM awaited_messages WHERE message_id < $1 AND decided_at IS NOT NULL ORDER BY message_id LIMIT $2)",
        params![uuid(message_id), CLEARED_PER_RUN],
    )?;
    Ok(())
}

// --- Preferences -------------------------------------------------------------------------------------------------------------------------

/// As they are stored; a person without a row has chosen nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub user_id: String,
    pub messages: String,
    pub previews: bool,
    /// Since midnight.
    pub quiet_from_minute: Option<u64>,
    pub quiet_to_minute: Option<u64>,
    pub timezone: Option<String>,
}

from_row!(Stored { user_id, messages, previews, quiet_from_minute, quiet_to_minute, timezone });

/// Of those who chose something.
pub fn preferences_among(user_ids: &[String]) -> Result<Vec<Stored>, SqlError> {
    let mut stored = Vec::new();
    for user_ids in user_ids.chunks(LIST_PARAMS_MAX) {
        let sql = format!(
            "SELECT user_id, messages, previews, quiet_from_minute, quiet_to_minute, timezone FROM preferences WHERE user_id IN ({})",
            placeholders(1, user_ids.len())
        );
        stored.extend(Database.rows::<Stored>(&sql, user_ids.iter().map(uuid).collect())?);
    }
    Ok(stored)
}

pub fn put_preferences(stored: &Stored, at: Timestamp) -> Result<(), SqlError> {
    Database.execute(
        "INSERT INTO preferences (user_id, messages, previews, quiet_from_minute, quiet_to_minute, timezone, changed_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (user_id) DO UPDATE SET messages = excluded.messages, previews = excluded.previews, \
         quiet_from_minute = excluded.quiet_from_minute, quiet_to_minute = excluded.quiet_to_minute, timezone = excluded.timezone, \
         changed_at = excluded.changed_at",
        params![
            uuid(&stored.user_id),
            &stored.messages,
            stored.previews,
            stored.quiet_from_minute,
            stored.quiet_to_minute,
            stored.timezone.as_deref(),
            timestamp(at)
        ],
    )?;
    Ok(())
}

// --- The list in the app ---------------------------------------------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: String,
    pub user_id: String,
    pub kind: String,
    /// The message, or the event.
    pub about: String,
    pub conversation_id: Option<String>,
    pub sender_id: Option<String>,
    pub at: Timestamp,
    pub read: bool,
}

from_row!(Entry { id, user_id, kind, about, conversation_id, sender_id, at, read });

/// One of each user and what it is about: again changes nothing.
pub fn insert_entries(db: &impl Sql, entries: &[Entry]) -> Result<(), SqlError> {
    for entries in entries.chunks(INSERT_ROWS_MAX) {
        let sql = format!(
            "INSERT INTO entries (id, user_id, kind, about, conversation_id, sender_id, at, is_read) VALUES {} ON CONFLICT (user_id, about) DO NOTHING",
            row_placeholders(entries.len(), 8)
        );
        let values = entries.iter().flat_map(|entry| {
            params![
                uuid(&entry.id),
                uuid(&entry.user_id),
                &entry.kind,
                uuid(&entry.about),
                entry.conversation_id.as_deref().map(uuid),
                entry.sender_id.as_deref().map(uuid),
                timestamp(entry.at),
                entry.read
            ]
        });
        db.execute(&sql, values.collect())?;
    }
    Ok(())
}

/// Newest first, before the id.
pub fn entries_of(user_id: &str, before_id: &str, limit: i64) -> Result<Vec<Entry>, SqlError> {
    Database.rows(
        "SELECT id, user_id, kind, about, conversation_id, sender_id, at, is_read FROM entries \
         WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
        params![uuid(user_id), uuid(before_id), limit],
    )
}

/// Those of until then, the oldest first, after the id.
pub fn entries_after(user_id: &str, after_id: &str, until: Timestamp, limit: i64) -> Result<Vec<Entry>, SqlError> {
    Database.rows(
        "SELECT id, user_id, kind, about, conversation_id, sender_id, at, is_read FROM entries \
         WHERE user_id = $1 AND id > $2 AND at <= $3 ORDER BY id LIMIT $4",
        params![uuid(user_id), uuid(after_id), timestamp(until), limit],
    )
}

pub fn unread_entries_of(user_id: &str) -> Result<u64, SqlError> {
    Database
        .one::<(u64,)>("SELECT COUNT(*) FROM entries WHERE user_id = $1 AND is_read = FALSE", params![uuid(user_id)])
        .map(|(count,)| count)
}

/// This one and those before it; false, and none, where it is none of the user's.
pub fn set_entries_read(user_id: &str, up_to_id: &str) -> Result<bool, SqlError> {
    let own = "SELECT 1 FROM entries WHERE id = $2 AND user_id = $1";
    if Database.row::<(i64,)>(own, params![uuid(user_id), uuid(up_to_id)])?.is_none() {
        return Ok(false);
    }
    let sql = "UPDATE entries SET is_read = TRUE WHERE user_id = $1 AND id <= $2 AND is_read = FALSE";
    Database.execute(sql, params![uuid(user_id), uuid(up_to_id)])?;
    Ok(true)
}

/// Of messages that were deleted.
pub fn forget_entries_about(tx: &Transaction, message_ids: &[String]) -> Result<(), SqlError> {
    for message_ids in message_ids.chunks(LIST_PARAMS_MAX) {
        let sql = format!("DELETE FROM entries WHERE about IN ({})", placeholders(1, message_ids.len()));
        tx.execute(&sql, message_ids.iter().map(uuid).collect())?;
    }
    Ok(())
}

/// Those beyond the newest `ENTRIES_PER_USER_MAX`.
pub fn trim_entries_of(user_id: &str) -> Result<(), SqlError> {
    Database.execute(
        "DELETE FROM entries WHERE user_id = $1 AND id <= (SELECT id FROM entries WHERE user_id = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
        params![uuid(user_id), ENTRIES_PER_USER_MAX],
    )?;
    Ok(())
}

/// Below this id, some at a time: ids rise with time.
pub fn forget_old_entries(before_id: &str) -> Result<(), SqlError> {
    Database.execute(
        "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE id < $1 ORDER BY id LIMIT $2)",
        params![uuid(before_id), CLEARED_PER_RUN],
    )?;
    Ok(())
}

// --- What is to leave --------------------------------------------------------------------------------------------------------------------

pub struct Outgoing {
    pub channel: String,
    pub recipient: String,
    pub title: Option<String>,
    pub body: String,
    pub code: Option<String>,
    pub at: Timestamp,
    /// The message that it is about.
    pub message_id: Option<String>,
    /// Whether its body says what the message says.
    pub shows_text: bool,
    /// Of a push, as the next three.
    pub provider: Option<String>,
    pub conversation_id: Option<String>,
    pub user_id: Option<String>,
    pub token_hash: Option<String>,
    /// None: it is not to be sent, or was.
    pub send_at: Option<Timestamp>,
}

from_row!(Outgoing {
    channel,
    recipient,
    title,
    body,
    code,
    at,
    message_id,
    shows_text,
    provider,
    conversation_id,
    user_id,
    token_hash,
    send_at
});

/// One that is there already, by its id, is not sent again.
pub fn insert_outgoing(db: &impl Sql, rows: &[(String, Outgoing)]) -> Result<(), SqlError> {
    for rows in rows.chunks(OUTGOING_ROWS_MAX) {
        let sql = format!(
            "INSERT INTO outbox (id, channel, recipient, title, body, code, at, message_id, shows_text, provider, conversation_id, user_id, \
             token_hash, send_at) VALUES {} ON CONFLICT (id) DO NOTHING",
            row_placeholders(rows.len(), 14)
        );
        let values = rows.iter().flat_map(|(id, row)| {
            params![
                uuid(id),
                &row.channel,
                &row.recipient,
                row.title.as_deref(),
                &row.body,
                row.code.as_deref(),
                timestamp(row.at),
                row.message_id.as_deref().map(uuid),
                row.shows_text,
                row.provider.as_deref(),
                row.conversation_id.as_deref().map(uuid),
                row.user_id.as_deref().map(uuid),
                row.token_hash.as_deref(),
                row.send_at.map(timestamp)
            ]
        });
        db.execute(&sql, values.collect())?;
    }
    Ok(())
}

/// What is to leave to this person, by number or to a device, and the devices.
pub fn erase_person(tx: &Transaction, user_id: &str, phone: &str) -> Result<(), SqlError> {
    tx.execute("DELETE FROM outbox WHERE recipient = $1", params![phone])?;
    tx.execute("DELETE FROM outbox WHERE recipient IN (SELECT token FROM devices WHERE user_id = $1)", params![uuid(user_id)])?;
    for table in ["devices", "preferences", "entries", "open_exports"] {
        tx.execute(&format!("DELETE FROM {table} WHERE user_id = $1"), params![uuid(user_id)])?;
    }
    Ok(())
}

/// Newest first.
pub fn newest_outgoing() -> Result<Vec<Outgoing>, SqlError> {
    Database.rows(
        "SELECT channel, recipient, title, body, code, at, message_id, shows_text, provider, conversation_id, user_id, token_hash, send_at \
         FROM outbox ORDER BY at DESC, id DESC LIMIT $1",
        params![OUTBOX_SHOWN],
    )
}

/// Those of the messages of which something is to leave.
pub fn messages_in_outbox(message_ids: &[String]) -> Result<Vec<String>, SqlError> {
    if message_ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT DISTINCT message_id FROM outbox WHERE message_id IN ({})", placeholders(1, message_ids.len()));
    let found: Vec<(String,)> = Database.rows(&sql, message_ids.iter().map(uuid).collect())?;
    Ok(found.into_iter().map(|(id,)| id).collect())
}

/// Of those that say what the message says.
pub fn set_body(tx: &Transaction, message_id: &str, body: &str) -> Result<(), SqlError> {
    tx.execute("UPDATE outbox SET body = $2 WHERE message_id = $1 AND shows_text = TRUE", params![uuid(message_id), body])?;
    Ok(())
}

pub fn delete_outgoing(tx: &Transaction, message_ids: &[String]) -> Result<(), SqlError> {
    if message_ids.is_empty() {
        return Ok(());
    }
    let sql = format!("DELETE FROM outbox WHERE message_id IN ({})", placeholders(1, message_ids.len()));
    tx.execute(&sql, message_ids.iter().map(uuid).collect())?;
    Ok(())
}

/// What is kept to be looked at, and what waits to be sent, each within its bound.
pub fn trim_outbox() -> Result<(), SqlError> {
    Database.execute(
        "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE send_at IS NULL ORDER BY at DESC, id DESC LIMIT $1 OFFSET $2)",
        params![CLEARED_PER_RUN, OUTBOX_KEPT],
    )?;
    Database.execute(
        "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE send_at IS NOT NULL ORDER BY send_at DESC LIMIT $1 OFFSET $2)",
        params![CLEARED_PER_RUN, PUSHES_WAITING_MAX],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
