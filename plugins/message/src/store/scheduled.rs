//! Messages that wait to be sent.

use echo_sdk::sql::{Database, FromRow, Row, Sql, SqlError, Transaction, timestamp, uuid};
use echo_sdk::{Timestamp, params};

use crate::bindings::exports::echo::message::api::{ContactCard, NewPoll, Place, SendRequest};
use crate::names;

pub struct Scheduled {
    pub id: String,
    pub sender_id: String,
    pub revision: u64,
    pub draft: SendRequest,
    pub send_at: Timestamp,
    pub created_at: Timestamp,
    /// The error's code.
    pub failure: Option<String>,
    /// Of what was asked for at first.
    pub content_hash: Vec<u8>,
}

macro_rules! columns {
    () => {
        "id, sender_id, revision, send_at, created_at, failure, content_hash, conversation_id, client_message_id, kind, content, media_id, latitude, \
         longitude, place_name, place_address, contact_name, contact_phones, contact_user_id, question, options, multiple, closes_at, reply_to, \
         thread_id, mentions, metadata"
    };
}

impl FromRow for Scheduled {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        let (id, sender_id, revision) = (row.take()?, row.take()?, row.take()?);
        let (send_at, created_at, failure, content_hash) = (row.take()?, row.take()?, row.take()?, row.take()?);
        let (conversation_id, client_message_id) = (row.take()?, row.take()?);
        let type_ = names::message(&row.take::<String>()?);
        let (content, media_id) = (row.take()?, row.take()?);
        let coordinates: (Option<f64>, Option<f64>) = (row.take()?, row.take()?);
        let (name, address) = (row.take()?, row.take()?);
        let location = match coordinates {
            (Some(latitude), Some(longitude)) => Some(Place { latitude, longitude, name, address }),
            _ => None,
        };
        let (contact_name, phones, user_id): (Option<String>, Option<String>, Option<String>) = (row.take()?, row.take()?, row.take()?);
        let contact = contact_name.map(|name| ContactCard { name, phones: lines(phones), user_id });
        let (question, options): (Option<String>, Option<String>) = (row.take()?, row.take()?);
        let (multiple, closes_at): (Option<bool>, Option<Timestamp>) = (row.take()?, row.take()?);
        let poll = question.map(|question| NewPoll { question, options: lines(options), multiple, closes_at });
        let (reply_to, thread_id) = (row.take()?, row.take()?);
        let mentions: Option<String> = row.take()?;
        let mentions = mentions.map(|mentions| mentions.split_whitespace().map(str::to_owned).collect());
        let metadata = row.take()?;
        let draft = SendRequest {
            conversation_id,
            client_message_id,
            type_,
            content,
            media_id,
            location,
            contact,
            poll,
            reply_to,
            thread_id,
            mentions,
            metadata,
        };
        Ok(Self { id, sender_id, revision, draft, send_at, created_at, failure, content_hash })
    }
}

fn lines(text: Option<String>) -> Vec<String> {
    text.unwrap_or_default().lines().map(str::to_owned).collect()
}

/// False where the sender has scheduled something under this client id.
pub fn insert(tx: &Transaction, new: &Scheduled) -> Result<bool, SqlError> {
    let draft = &new.draft;
    let (place, card, poll) = (draft.location.as_ref(), draft.contact.as_ref(), draft.poll.as_ref());
    let inserted = tx.execute(
        concat!(
            "INSERT INTO scheduled (",
            columns!(),
            ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, \
             $26, $27) ON CONFLICT (sender_id, client_message_id) DO NOTHING"
        ),
        params![
            uuid(&new.id),
            uuid(&new.sender_id),
            new.revision,
            timestamp(new.send_at),
            timestamp(new.created_at),
            new.failure.as_deref(),
            new.content_hash.clone(),
            uuid(&draft.conversation_id),
            &draft.client_message_id,
            names::of_message(draft.type_),
            draft.content.as_deref(),
            draft.media_id.as_deref().map(uuid),
            place.map(|place| place.latitude),
            place.map(|place| place.longitude),
            place.and_then(|place| place.name.as_deref()),
            place.and_then(|place| place.address.as_deref()),
            card.map(|card| card.name.as_str()),
            card.map(|card| card.phones.join("\n")),
            card.and_then(|card| card.user_id.as_deref()).map(uuid),
            poll.map(|poll| poll.question.as_str()),
            poll.map(|poll| poll.options.join("\n")),
            poll.and_then(|poll| poll.multiple),
            poll.and_then(|poll| poll.closes_at).map(timestamp),
            draft.reply_to.as_deref().map(uuid),
            draft.thread_id.as_deref().map(uuid),
            draft.mentions.as_ref().filter(|mentions| !mentions.is_empty()).map(|mentions| mentions.join(" ")),
            draft.metadata.as_deref()
        ],
    )?;
    Ok(inserted == 1)
}

pub fn of_client_id(sender_id: &str, client_message_id: &str) -> Result<Option<Scheduled>, SqlError> {
    let sql = concat!("SELECT ", columns!(), " FROM scheduled WHERE sender_id = $1 AND client_message_id = $2");
    Database.row(sql, params![uuid(sender_id), client_message_id])
}

pub fn one_of(db: &impl Sql, sender_id: &str, id: &str) -> Result<Option<Scheduled>, SqlError> {
    let sql = concat!("SELECT ", columns!(), " FROM scheduled WHERE sender_id = $1 AND id = $2");
    db.row(sql, params![uuid(sender_id), uuid(id)])
}

/// The one to be sent next first, after the key.
pub fn of_sender(sender_id: &str, after: &(u64, String), limit: i64) -> Result<Vec<Scheduled>, SqlError> {
    let sql =
        concat!("SELECT ", columns!(), " FROM scheduled WHERE sender_id = $1 AND (send_at, id) > ($2, $3) ORDER BY send_at, id LIMIT $4");
    Database.rows(sql, params![uuid(sender_id), timestamp(after.0), uuid(&after.1), limit])
}

pub fn count_of(tx: &Transaction, sender_id: &str) -> Result<u64, SqlError> {
    tx.one("SELECT COUNT(*) FROM scheduled WHERE sender_id = $1", params![uuid(sender_id)]).map(|(count,)| count)
}

/// What is none stays; one that could not be sent is tried again. False where it is gone.
pub fn update(tx: &Transaction, sender_id: &str, id: &str, content: Option<&str>, send_at: Option<Timestamp>) -> Result<bool, SqlError> {
    let sql = "UPDATE scheduled SET content = COALESCE($3, content), send_at = COALESCE($4, send_at), failure = NULL, revision = revision + 1 \
        WHERE sender_id = $1 AND id = $2";
    Ok(tx.execute(sql, params![uuid(sender_id), uuid(id), content, send_at.map(timestamp)])? == 1)
}

/// False where it is gone.
pub fn cancel(sender_id: &str, id: &str) -> Result<bool, SqlError> {
    let sql = "DELETE FROM scheduled WHERE sender_id = $1 AND id = $2";
    Ok(Database.execute(sql, params![uuid(sender_id), uuid(id)])? == 1)
}

/// Those whose time has come, the longest first.
pub fn due(now: Timestamp, limit: i64) -> Result<Vec<Scheduled>, SqlError> {
    let sql = concat!("SELECT ", columns!(), " FROM scheduled WHERE failure IS NULL AND send_at <= $1 ORDER BY send_at, id LIMIT $2");
    Database.rows(sql, params![timestamp(now), limit])
}

/// It is sent with this transaction. False where it is not as it was read.
pub fn take(tx: &Transaction, id: &str, revision: u64) -> Result<bool, SqlError> {
    Ok(tx.execute("DELETE FROM scheduled WHERE id = $1 AND revision = $2", params![uuid(id), revision])? == 1)
}

/// It need not be sent any more.
pub fn forget(id: &str, revision: u64) -> Result<(), SqlError> {
    Database.execute("DELETE FROM scheduled WHERE id = $1 AND revision = $2", params![uuid(id), revision])?;
    Ok(())
}

/// It cannot be sent as it was read.
pub fn fail(id: &str, revision: u64, code: &str) -> Result<(), SqlError> {
    Database.execute("UPDATE scheduled SET failure = $3 WHERE id = $1 AND revision = $2", params![uuid(id), revision, code])?;
    Ok(())
}

/// Nothing of the sender's that waits can be sent.
pub fn fail_all_of(tx: &Transaction, sender_id: &str, code: &str) -> Result<(), SqlError> {
    let sql = "UPDATE scheduled SET failure = $2, revision = revision + 1 WHERE sender_id = $1 AND failure IS NULL";
    tx.execute(sql, params![uuid(sender_id), code])?;
    Ok(())
}

/// The sender has left the conversation, and takes along what was to be said in it.
pub fn cancel_those_to(tx: &Transaction, conversation_id: &str, sender_id: &str) -> Result<(), SqlError> {
    tx.execute("DELETE FROM scheduled WHERE conversation_id = $1 AND sender_id = $2", params![uuid(conversation_id), uuid(sender_id)])?;
    Ok(())
}

/// Nothing of the sender's that waits can be sent to this conversation.
pub fn fail_those_to(tx: &Transaction, conversation_id: &str, sender_id: &str, code: &str) -> Result<(), SqlError> {
    let sql =
        "UPDATE scheduled SET failure = $3, revision = revision + 1 WHERE conversation_id = $1 AND sender_id = $2 AND failure IS NULL";
    tx.execute(sql, params![uuid(conversation_id), uuid(sender_id), code])?;
    Ok(())
}

#[cfg(test)]
mod tests;
