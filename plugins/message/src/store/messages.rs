//! Messages: taking a place in the sequence, what a participant sees, edits and deletions.

use echo_sdk::sql::{Database, FromRow, Row, Sql, SqlError, Transaction, Value, placeholders, timestamp, uuid};
use echo_sdk::{Timestamp, from_row, params};

use crate::bindings::exports::echo::message::api::{ContactCard, Edit, Message, MessageStatus, Place};
use crate::bounds::PARTICIPANT_ROWS_MAX;
use crate::names;
use crate::store::conversations::Roster;
use crate::store::polls::with_polls;

// --- Sending -------------------------------------------------------------------------------------------------------------------------

/// The next place in the sequence, held until the commit. None where the roster is another by now.
pub fn take_seq(tx: &Transaction, conversation_id: &str, roster: &Roster, at: Timestamp) -> Result<Option<u64>, SqlError> {
    // Mostly nobody wrote since the roster was read. Then the place is known, and SQLite need not make a table for a row to return.
    let next = roster.last_seq + 1;
    let taken = tx.execute(
        "UPDATE conversations SET last_seq = $4, active_at = $3 WHERE id = $1 AND roster_version = $2 AND last_seq = $4 - 1",
        params![uuid(conversation_id), roster.version, timestamp(at), next],
    )?;
    if taken == 1 {
        return Ok(Some(next));
    }
    let seq: Option<(u64,)> = tx.row(
        "UPDATE conversations SET last_seq = last_seq + 1, active_at = $3 WHERE id = $1 AND roster_version = $2 RETURNING last_seq",
        params![uuid(conversation_id), roster.version, timestamp(at)],
    )?;
    Ok(seq.map(|(seq,)| seq))
}

/// False where the sender used this client id before.
pub fn insert(tx: &Transaction, message: &Message, content_hash: Vec<u8>, expires_at: Option<Timestamp>) -> Result<bool, SqlError> {
    let place = message.location.as_ref();
    let card = message.contact.as_ref();
    let (kind, other_kind) = names::columns_of(message.type_);
    let inserted = tx.execute(
        "INSERT INTO messages (id, conversation_id, seq, sender_id, client_message_id, content_hash, kind, content, media_id, latitude, \
         longitude, place_name, place_address, contact_name, contact_phones, contact_user_id, reply_to, thread_id, mentions, metadata, \
         created_at, expires_at, other_kind) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23) \
         ON CONFLICT (sender_id, client_message_id) DO NOTHING",
        params![
            uuid(&message.id),
            uuid(&message.conversation_id),
            message.seq,
            uuid(&message.sender_id),
            &message.client_message_id,
            content_hash,
            kind,
            message.content.as_deref(),
            message.media_id.as_deref().map(uuid),
            place.map(|place| place.latitude),
            place.map(|place| place.longitude),
            place.and_then(|place| place.name.as_deref()),
            place.and_then(|place| place.address.as_deref()),
            card.map(|card| card.name.as_str()),
            card.map(|card| card.phones.join("\n")),
            card.and_then(|card| card.user_id.as_deref()).map(uuid),
            message.reply_to.as_deref().map(uuid),
            message.thread_id.as_deref().map(uuid),
            (!message.mentions.is_empty()).then(|| message.mentions.join(" ")),
            message.metadata.as_deref(),
            timestamp(message.created_at),
            expires_at.map(timestamp),
            other_kind
        ],
    )?;
    Ok(inserted == 1)
}

/// What became of a client id.
pub struct SentBefore {
    pub content_hash: Vec<u8>,
    pub id: String,
    pub seq: u64,
    pub created_at: Timestamp,
    pub edited_at: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
}

from_row!(SentBefore { content_hash, id, seq, created_at, edited_at, deleted_at, expires_at });

pub fn sent_before(sender_id: &str, client_message_id: &str) -> Result<Option<SentBefore>, SqlError> {
    Database.row(
        "SELECT content_hash, id, seq, created_at, edited_at, deleted_at, expires_at FROM messages WHERE sender_id = $1 AND client_message_id = $2",
        params![uuid(sender_id), client_message_id],
    )
}

/// Keeps the message from those who block its sender, and the conversation in its place on their lists, or off them where it is off now.
pub fn keep_back(tx: &Transaction, conversation_id: &str, user_ids: &[String], seq: u64) -> Result<(), SqlError> {
    for user_ids in user_ids.chunks(PARTICIPANT_ROWS_MAX) {
        let rows: Vec<String> = (3..3 + user_ids.len()).map(|user| format!("($1, ${user}, $2, 'blocked')")).collect();
        let sql = format!("INSERT INTO hidden_messages (conversation_id, user_id, seq, reason) VALUES {}", rows.join(", "));
        let mut values = params![uuid(conversation_id), seq];
        values.extend(user_ids.iter().map(uuid));
        tx.execute(&sql, values)?;
        let sql = format!(
            "UPDATE participants SET hidden_seq = CASE WHEN hidden_seq >= $3 THEN $2 ELSE hidden_seq END, \
             shown_seq = CASE WHEN kept_back_seq = $3 THEN shown_seq ELSE $3 END, \
             shown_active_at = CASE WHEN kept_back_seq = $3 THEN shown_active_at ELSE \
             COALESCE((SELECT m.created_at FROM messages m WHERE m.conversation_id = $1 AND m.seq = $3), \
             (SELECT c.created_at FROM conversations c WHERE c.id = $1)) END, \
             kept_back_seq = $2 WHERE conversation_id = $1 AND user_id IN ({})",
            placeholders(4, user_ids.len())
        );
        let mut values = params![uuid(conversation_id), seq, seq - 1];
        values.extend(user_ids.iter().map(uuid));
        tx.execute(&sql, values)?;
    }
    Ok(())
}

// --- What a participant sees -----------------------------------------------------------------------------------------------------------

/// The columns of a `Message` as `$1` sees it: who blocked the sender sees no edit made since. The status is the sender's alone to see: the
/// least of the recipients', where what was kept from a recipient counts as sent, and who blocks the sender is where they were when they did.
macro_rules! message {
    () => {
        concat!(
            "m.id, m.conversation_id, m.seq, m.sender_id, m.client_message_id, COALESCE(m.other_kind, m.kind), \
             CASE WHEN m.edited_at IS NULL OR m.deleted_at IS NOT NULL THEN m.content ELSE COALESCE((SELECT f.content FROM withheld_edits w \
             JOIN edits f ON f.message_id = w.message_id AND f.number = w.number WHERE w.message_id = m.id AND w.user_id = $1), m.content) END, \
             m.media_id, m.latitude, m.longitude, \
             m.place_name, m.place_address, m.contact_name, m.contact_phones, m.contact_user_id, m.reply_to, m.thread_id, m.mentions, \
             m.metadata, m.created_at, \
             CASE WHEN m.edited_at IS NOT NULL AND EXISTS (SELECT 1 FROM withheld_edits w WHERE w.message_id = m.id AND w.user_id = $1) \
             THEN (SELECT f.at FROM withheld_edits w JOIN edits f ON f.message_id = w.message_id AND f.number = w.number \
             WHERE w.message_id = m.id AND w.user_id = $1 AND w.number > 1) ELSE m.edited_at END, m.deleted_at, \
             CASE WHEN m.sender_id = $1 THEN (SELECT MIN(CASE WHEN k.seq IS NOT NULL THEN 0 \
             WHEN b.active = TRUE THEN COALESCE((SELECT CASE WHEN w.read_seq >= m.seq THEN 2 WHEN w.delivered_seq >= m.seq THEN 1 ELSE 0 END \
             FROM withheld_receipts w WHERE w.conversation_id = r.conversation_id AND w.user_id = r.user_id AND w.viewer_id = $1), 0) \
             WHEN r.read_seq >= m.seq AND ",
            read_seq_told!("r", "$1"),
            " >= m.seq THEN 2 WHEN r.delivered_seq >= m.seq AND NOT EXISTS (SELECT 1 FROM undelivered u WHERE \
             u.conversation_id = r.conversation_id AND u.user_id = r.user_id AND u.seq = m.seq) THEN 1 ELSE 0 END) FROM participants r \
             LEFT JOIN blocks b ON b.user_id = r.user_id AND b.blocked_user_id = $1 AND b.active = TRUE \
             LEFT JOIN hidden_messages k ON k.conversation_id = r.conversation_id AND k.user_id = r.user_id AND k.seq = m.seq \
             AND k.reason = 'blocked' \
             WHERE r.conversation_id = m.conversation_id AND r.user_id <> m.sender_id AND r.joined_seq < m.seq) ELSE 0 END"
        )
    };
}

pub(super) use message;

/// The messages that `$1` sees at the time `$2`.
macro_rules! visible {
    () => {
        " FROM messages m JOIN participants me ON me.conversation_id = m.conversation_id AND me.user_id = $1 \
         JOIN conversations c ON c.id = m.conversation_id AND c.ended_at IS NULL \
         WHERE m.seq > me.joined_seq AND (m.expires_at IS NULL OR m.expires_at > $2) \
         AND NOT EXISTS (SELECT 1 FROM hidden_messages h WHERE h.conversation_id = m.conversation_id AND h.user_id = $1 AND h.seq = m.seq) "
    };
}

impl FromRow for Message {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        let (id, conversation_id, seq, sender_id) = (row.take()?, row.take()?, row.take()?, row.take()?);
        let (client_message_id, type_) = (row.take()?, names::message(&row.take::<String>()?));
        let (content, media_id) = (row.take()?, row.take()?);
        let coordinates: (Option<f64>, Option<f64>) = (row.take()?, row.take()?);
        let (place_name, place_address) = (row.take()?, row.take()?);
        let location = match coordinates {
            (Some(latitude), Some(longitude)) => Some(Place { latitude, longitude, name: place_name, address: place_address }),
            _ => None,
        };
        let (contact_name, phones, user_id): (Option<String>, Option<String>, Option<String>) = (row.take()?, row.take()?, row.take()?);
        let contact = contact_name.map(|name| ContactCard { name, phones: lines(phones.as_deref()), user_id });
        let (reply_to, thread_id) = (row.take()?, row.take()?);
        let mentions: Option<String> = row.take()?;
        Ok(Self {
            id,
            conversation_id,
            seq,
            sender_id,
            client_message_id,
            type_,
            content,
            media_id,
            location,
            contact,
            poll: None,
            reply_to,
            thread_id,
            mentions: mentions.unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
            metadata: row.take()?,
            created_at: row.take()?,
            edited_at: row.take()?,
            deleted_at: row.take()?,
            status: match row.take::<Option<i64>>()? {
                Some(2) => MessageStatus::Read,
                Some(1) => MessageStatus::Delivered,
                // None: there is no recipient.
                _ => MessageStatus::Sent,
            },
        })
    }
}

fn lines(text: Option<&str>) -> Vec<String> {
    text.unwrap_or_default().lines().map(str::to_owned).collect()
}

pub fn visible_to(db: &impl Sql, user_id: &str, id: &str, now: Timestamp) -> Result<Option<Message>, SqlError> {
    let sql = concat!("SELECT ", message!(), visible!(), "AND m.id = $3");
    let found = db.row(sql, params![uuid(user_id), timestamp(now), uuid(id)])?;
    Ok(with_polls(db, user_id, found.into_iter().collect(), now)?.pop())
}

/// Those of the messages that the user sees, in no order.
pub fn visible_among(user_id: &str, ids: &[String], now: Timestamp) -> Result<Vec<Message>, SqlError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(concat!("SELECT ", message!(), visible!(), "AND m.id IN ({})"), placeholders(3, ids.len()));
    let mut values = params![uuid(user_id), timestamp(now)];
    values.extend(ids.iter().map(uuid));
    with_polls(&Database, user_id, Database.rows(&sql, values)?, now)
}

/// Whether the user sees a message with this file.
pub fn media_seen_by(user_id: &str, media_id: &str, now: Timestamp) -> Result<bool, SqlError> {
    let sql = concat!("SELECT m.seq", visible!(), "AND m.media_id = $3 AND m.deleted_at IS NULL LIMIT 1");
    let found: Option<(u64,)> = Database.row(sql, params![uuid(user_id), timestamp(now), uuid(media_id)])?;
    Ok(found.is_some())
}

/// As what the user sees this file sent: the types of those messages, each once.
pub fn media_kinds_seen_by(user_id: &str, media_id: &str, now: Timestamp) -> Result<Vec<String>, SqlError> {
    let sql = concat!("SELECT DISTINCT m.kind", visible!(), "AND m.media_id = $3 AND m.deleted_at IS NULL ORDER BY m.kind LIMIT 4");
    let found: Vec<(String,)> = Database.rows(sql, params![uuid(user_id), timestamp(now), uuid(media_id)])?;
    Ok(found.into_iter().map(|(kind,)| kind).collect())
}

/// Whether there is a message with this file, sent or to be sent.
pub fn media_is_used(media_id: &str, now: Timestamp) -> Result<bool, SqlError> {
    let (sent, scheduled): (u64, u64) = Database.one(
        "SELECT (SELECT COUNT(*) FROM (SELECT 1 FROM messages m JOIN conversations c ON c.id = m.conversation_id AND c.ended_at IS NULL \
         WHERE m.media_id = $1 AND m.deleted_at IS NULL AND (m.expires_at IS NULL OR m.expires_at > $2) LIMIT 1) found), \
         (SELECT COUNT(*) FROM scheduled s WHERE s.media_id = $1)",
        params![uuid(media_id), timestamp(now)],
    )?;
    Ok(sent + scheduled > 0)
}

/// The messages between the two seqs, both left out.
pub struct Span<'a> {
    pub conversation_id: &'a str,
    pub above: u64,
    pub below: u64,
    pub limit: i64,
}

pub fn newest_first(user_id: &str, span: &Span<'_>, now: Timestamp) -> Result<Vec<Message>, SqlError> {
    let sql =
        concat!("SELECT ", message!(), visible!(), "AND m.conversation_id = $3 AND m.seq > $4 AND m.seq < $5 ORDER BY m.seq DESC LIMIT $6");
    with_polls(&Database, user_id, Database.rows(sql, span.params(user_id, now))?, now)
}

pub fn oldest_first(user_id: &str, span: &Span<'_>, now: Timestamp) -> Result<Vec<Message>, SqlError> {
    let sql =
        concat!("SELECT ", message!(), visible!(), "AND m.conversation_id = $3 AND m.seq > $4 AND m.seq < $5 ORDER BY m.seq LIMIT $6");
    with_polls(&Database, user_id, Database.rows(sql, span.params(user_id, now))?, now)
}

/// The messages of the thread that begins with this one, above the seq.
pub fn thread_of(user_id: &str, first_id: &str, above: u64, limit: i64, now: Timestamp) -> Result<Vec<Message>, SqlError> {
    let sql = concat!("SELECT ", message!(), visible!(), "AND m.thread_id = $3 AND m.seq > $4 ORDER BY m.seq LIMIT $5");
    with_polls(&Database, user_id, Database.rows(sql, params![uuid(user_id), timestamp(now), uuid(first_id), above, limit])?, now)
}

impl Span<'_> {
    fn params(&self, user_id: &str, now: Timestamp) -> Vec<Value> {
        params![uuid(user_id), timestamp(now), uuid(self.conversation_id), self.above, self.below, self.limit]
    }
}

/// The newest message that the user sees in each of these conversations, where there is one.
pub fn last_of_each(user_id: &str, conversation_ids: &[String], now: Timestamp) -> Result<Vec<Message>, SqlError> {
    if conversation_ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        concat!(
            "SELECT ",
            message!(),
            " FROM participants me JOIN conversations c ON c.id = me.conversation_id AND c.ended_at IS NULL \
             JOIN messages m ON m.conversation_id = me.conversation_id AND m.seq = \
             (SELECT z.seq FROM messages z WHERE z.conversation_id = me.conversation_id AND z.seq > me.joined_seq \
             AND (z.expires_at IS NULL OR z.expires_at > $2) AND NOT EXISTS (SELECT 1 FROM hidden_messages h \
             WHERE h.conversation_id = z.conversation_id AND h.user_id = $1 AND h.seq = z.seq) ORDER BY z.seq DESC LIMIT 1) \
             WHERE me.user_id = $1 AND me.conversation_id IN ({})"
        ),
        placeholders(3, conversation_ids.len())
    );
    let mut values = params![uuid(user_id), timestamp(now)];
    values.extend(conversation_ids.iter().map(uuid));
    with_polls(&Database, user_id, Database.rows(&sql, values)?, now)
}

// --- Changing --------------------------------------------------------------------------------------------------------------------------

/// Locks the message for an edit: the number of this edit, and the content that it replaces with the time it was written.
pub fn begin_edit(tx: &Transaction, id: &str) -> Result<Option<(u64, Option<String>, Timestamp)>, SqlError> {
    tx.row(
        "UPDATE messages SET edit_count = edit_count + 1 WHERE id = $1 AND deleted_at IS NULL \
         RETURNING edit_count, content, COALESCE(edited_at, created_at)",
        params![uuid(id)],
    )
}

pub fn keep_edit(tx: &Transaction, id: &str, number: u64, content: &str, at: Timestamp) -> Result<(), SqlError> {
    tx.execute(
        "INSERT INTO edits (message_id, number, content, at) VALUES ($1, $2, $3, $4)",
        params![uuid(id), number, content, timestamp(at)],
    )?;
    Ok(())
}

pub fn set_content(tx: &Transaction, id: &str, content: &str, at: Timestamp) -> Result<(), SqlError> {
    tx.execute("UPDATE messages SET content = $2, edited_at = $3 WHERE id = $1", params![uuid(id), content, timestamp(at)])?;
    Ok(())
}

/// Keeps this edit and all later ones from who blocks the sender.
pub fn withhold_edit(tx: &Transaction, id: &str, number: u64, user_ids: &[String]) -> Result<(), SqlError> {
    for user_ids in user_ids.chunks(PARTICIPANT_ROWS_MAX) {
        let rows: Vec<String> = (3..3 + user_ids.len()).map(|user| format!("($1, ${user}, $2)")).collect();
        let sql = format!(
            "INSERT INTO withheld_edits (message_id, user_id, number) VALUES {} ON CONFLICT (message_id, user_id) DO NOTHING",
            rows.join(", ")
        );
        let mut values = params![uuid(id), number];
        values.extend(user_ids.iter().map(uuid));
        tx.execute(&sql, values)?;
    }
    Ok(())
}

/// What this user may know of, oldest first.
pub fn edits_of(user_id: &str, id: &str) -> Result<Vec<Edit>, SqlError> {
    let rows: Vec<(String, Timestamp)> = Database.rows(
        "SELECT e.content, e.at FROM edits e WHERE e.message_id = $1 AND NOT EXISTS (SELECT 1 FROM withheld_edits w \
         WHERE w.message_id = $1 AND w.user_id = $2 AND w.number <= e.number) ORDER BY e.number",
        params![uuid(id), uuid(user_id)],
    )?;
    Ok(rows.into_iter().map(|(content, at)| Edit { content, at }).collect())
}

/// Everything that a deletion for all takes away.
macro_rules! emptied {
    () => {
        "content = NULL, media_id = NULL, latitude = NULL, longitude = NULL, place_name = NULL, place_address = NULL, \
         contact_name = NULL, contact_phones = NULL, contact_user_id = NULL, mentions = NULL, metadata = NULL"
    };
}

/// False where it was deleted already.
pub fn delete_for_everyone(tx: &Transaction, id: &str, at: Timestamp) -> Result<bool, SqlError> {
    let sql = concat!("UPDATE messages SET deleted_at = $2, ", emptied!(), " WHERE id = $1 AND deleted_at IS NULL");
    let deleted = tx.execute(sql, params![uuid(id), timestamp(at)])? == 1;
    if deleted {
        delete_what_belongs_to(tx, &[id])?;
    }
    Ok(deleted)
}

/// What goes with a message that is emptied: by its id.
const GOES_WITH_A_MESSAGE: [&str; 9] =
    ["edits", "withheld_edits", "message_words", "poll_votes", "poll_options", "polls", "reactions", "starred", "pins"];

fn delete_what_belongs_to(tx: &Transaction, ids: &[&str]) -> Result<(), SqlError> {
    if ids.is_empty() {
        return Ok(());
    }
    for table in GOES_WITH_A_MESSAGE {
        let sql = format!("DELETE FROM {table} WHERE message_id IN ({})", placeholders(1, ids.len()));
        tx.execute(&sql, ids.iter().copied().map(uuid).collect())?;
    }
    Ok(())
}

/// A message that says nothing any more.
pub struct Emptied {
    pub id: String,
    pub conversation_id: String,
    pub seq: u64,
    pub sender_id: String,
    /// The file that it had.
    pub media_id: Option<String>,
}

fn ids_of(emptied: &[Emptied]) -> Vec<&str> {
    emptied.iter().map(|message| message.id.as_str()).collect()
}

from_row!(Emptied { id, conversation_id, seq, sender_id, media_id });

/// Takes the content and the earlier contents of messages whose time is over, at most so many; by conversation and seq.
pub fn take_expired(tx: &Transaction, now: Timestamp, limit: i64) -> Result<Vec<Emptied>, SqlError> {
    let mut expired: Vec<Emptied> = tx.rows(
        "SELECT id, conversation_id, seq, sender_id, media_id FROM messages \
         WHERE expires_at IS NOT NULL AND deleted_at IS NULL AND expires_at <= $1 ORDER BY expires_at LIMIT $2",
        params![timestamp(now), limit],
    )?;
    if expired.is_empty() {
        return Ok(expired);
    }
    expired.sort_unstable_by(|one, other| (&one.conversation_id, one.seq).cmp(&(&other.conversation_id, other.seq)));
    let ids = placeholders(2, expired.len());
    let mut values = params![timestamp(now)];
    values.extend(expired.iter().map(|message| uuid(&message.id)));
    tx.execute(&format!(concat!("UPDATE messages SET deleted_at = $1, ", emptied!(), " WHERE id IN ({})"), ids), values)?;
    delete_what_belongs_to(tx, &ids_of(&expired))?;
    Ok(expired)
}

/// As `take_expired`, of a conversation that was ended: the next of its messages, and its title and description when none is left. None where no
/// conversation waits for that.
pub fn take_ended(tx: &Transaction, now: Timestamp, limit: i64) -> Result<Option<Vec<Emptied>>, SqlError> {
    let next: Option<(String, u64)> = tx.row(
        "SELECT id, emptied_seq FROM conversations WHERE ended_at IS NOT NULL AND emptied_at IS NULL ORDER BY ended_at LIMIT 1",
        Vec::new(),
    )?;
    let Some((conversation_id, emptied_seq)) = next else { return Ok(None) };
    let ended: Vec<Emptied> = tx.rows(
        "SELECT id, conversation_id, seq, sender_id, media_id FROM messages WHERE conversation_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        params![uuid(&conversation_id), emptied_seq, limit],
    )?;
    let Some(last) = ended.last() else {
        tx.execute(
            "UPDATE conversations SET emptied_at = $2, title = NULL, description = NULL WHERE id = $1",
            params![uuid(&conversation_id), timestamp(now)],
        )?;
        for table in ["drafts", "scheduled", "invites"] {
            tx.execute(&format!("DELETE FROM {table} WHERE conversation_id = $1"), params![uuid(&conversation_id)])?;
        }
        return Ok(Some(ended));
    };
    let sql = concat!(
        "UPDATE messages SET deleted_at = COALESCE(deleted_at, $4), ",
        emptied!(),
        " WHERE conversation_id = $1 AND seq > $2 AND seq <= $3"
    );
    tx.execute(sql, params![uuid(&conversation_id), emptied_seq, last.seq, timestamp(now)])?;
    delete_what_belongs_to(tx, &ids_of(&ended))?;
    tx.execute("UPDATE conversations SET emptied_seq = $2 WHERE id = $1", params![uuid(&conversation_id), last.seq])?;
    Ok(Some(ended))
}

/// The contents of those of the messages that are there at this time.
pub fn contents_of(ids: &[String], now: Timestamp) -> Result<Vec<(String, Option<String>)>, SqlError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT m.id, m.content FROM messages m JOIN conversations c ON c.id = m.conversation_id AND c.ended_at IS NULL \
         WHERE m.deleted_at IS NULL AND (m.expires_at IS NULL OR m.expires_at > $1) AND m.id IN ({})",
        placeholders(2, ids.len())
    );
    let mut values = params![timestamp(now)];
    values.extend(ids.iter().map(uuid));
    Database.rows(&sql, values)
}

pub fn delete_for(user_id: &str, message: &Message) -> Result<(), SqlError> {
    Database.execute(
        "INSERT INTO hidden_messages (conversation_id, user_id, seq, reason) VALUES ($1, $2, $3, 'deleted') \
         ON CONFLICT (conversation_id, user_id, seq) DO NOTHING",
        params![uuid(&message.conversation_id), uuid(user_id), message.seq],
    )?;
    Ok(())
}

/// The participants who see this message.
pub fn audience_of(tx: &Transaction, conversation_id: &str, seq: u64) -> Result<Vec<String>, SqlError> {
    let users: Vec<(String,)> = tx.rows(
        "SELECT p.user_id FROM participants p WHERE p.conversation_id = $1 AND p.joined_seq < $2 \
         AND NOT EXISTS (SELECT 1 FROM hidden_messages h WHERE h.conversation_id = p.conversation_id AND h.user_id = p.user_id AND h.seq = $2)",
        params![uuid(conversation_id), seq],
    )?;
    Ok(users.into_iter().map(|(user,)| user).collect())
}

#[cfg(test)]
mod tests;
