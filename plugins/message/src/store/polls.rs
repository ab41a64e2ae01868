//! Polls: their options, who has chosen what, and whether they are closed.

use std::collections::HashMap;

use echo_sdk::sql::{Sql, SqlError, Transaction, Value, placeholders, timestamp, uuid};
use echo_sdk::{Timestamp, from_row, params};

use crate::bindings::echo::message::model::PollOption;
use crate::bindings::exports::echo::message::api::{Message, MessageType, Poll};

/// What the message says of it; nobody has voted.
pub fn insert(tx: &Transaction, message_id: &str, poll: &Poll) -> Result<(), SqlError> {
    tx.execute(
        "INSERT INTO polls (message_id, multiple, closes_at) VALUES ($1, $2, $3)",
        params![uuid(message_id), poll.multiple, poll.closes_at.map(timestamp)],
    )?;
    let rows: Vec<String> = (0..poll.options.len()).map(|at| format!("($1, {at}, ${})", at + 2)).collect();
    let sql = format!("INSERT INTO poll_options (message_id, number, wording) VALUES {}", rows.join(", "));
    let mut values = params![uuid(message_id)];
    values.extend(poll.options.iter().map(|option| Value::from(&option.text)));
    tx.execute(&sql, values)?;
    Ok(())
}

/// The messages with their polls as they stand; others are left as they are, at no cost.
pub fn with_polls(db: &impl Sql, viewer: &str, mut messages: Vec<Message>, now: Timestamp) -> Result<Vec<Message>, SqlError> {
    let are_polls = messages.iter().filter(|message| message.type_ == MessageType::Poll && message.deleted_at.is_none());
    let ids: Vec<String> = are_polls.map(|message| message.id.clone()).collect();
    let mut polls = polls_among(db, viewer, &ids, now)?;
    for message in messages.iter_mut().filter(|message| message.type_ == MessageType::Poll) {
        message.poll = polls.remove(&message.id);
    }
    Ok(messages)
}

struct PollRow {
    message_id: String,
    question: Option<String>,
    multiple: bool,
    closes_at: Option<Timestamp>,
    closed_at: Option<Timestamp>,
    voters: u32,
}

from_row!(PollRow { message_id, question, multiple, closes_at, closed_at, voters });

/// By their messages, with what the viewer has chosen.
pub fn polls_among(db: &impl Sql, viewer: &str, ids: &[String], now: Timestamp) -> Result<HashMap<String, Poll>, SqlError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let values = || ids.iter().map(uuid).collect::<Vec<Value>>();
    let sql = format!(
        "SELECT p.message_id, m.content, p.multiple, p.closes_at, p.closed_at, \
         (SELECT COUNT(DISTINCT v.user_id) FROM poll_votes v WHERE v.message_id = p.message_id) \
         FROM polls p JOIN messages m ON m.id = p.message_id WHERE p.message_id IN ({})",
        placeholders(1, ids.len())
    );
    let rows: Vec<PollRow> = db.rows(&sql, values())?;
    let polls = rows.into_iter().map(|row| {
        let closed = row.closed_at.is_some() || row.closes_at.is_some_and(|at| at <= now);
        let poll = Poll {
            question: row.question.unwrap_or_default(),
            options: Vec::new(),
            multiple: row.multiple,
            closes_at: row.closes_at,
            closed,
            voters: row.voters,
            own_votes: Vec::new(),
        };
        (row.message_id, poll)
    });
    let mut polls: HashMap<String, Poll> = polls.collect();
    let sql = format!(
        "SELECT o.message_id, o.wording, (SELECT COUNT(*) FROM poll_votes v WHERE v.message_id = o.message_id AND v.number = o.number) \
         FROM poll_options o WHERE o.message_id IN ({}) ORDER BY o.message_id, o.number",
        placeholders(1, ids.len())
    );
    for (message_id, text, votes) in db.rows::<(String, String, u32)>(&sql, values())? {
        if let Some(poll) = polls.get_mut(&message_id) {
            poll.options.push(PollOption { text, votes });
        }
    }
    let sql = format!(
        "SELECT v.message_id, v.number FROM poll_votes v WHERE v.user_id = $1 AND v.message_id IN ({}) ORDER BY v.message_id, v.number",
        placeholders(2, ids.len())
    );
    let mut of_viewer = params![uuid(viewer)];
    of_viewer.extend(values());
    for (message_id, number) in db.rows::<(String, u32)>(&sql, of_viewer)? {
        if let Some(poll) = polls.get_mut(&message_id) {
            poll.own_votes.push(number);
        }
    }
    Ok(polls)
}

/// Whether it is open at this time, locked until the transaction ends; none where it is gone.
pub fn lock(tx: &Transaction, message_id: &str, now: Timestamp) -> Result<Option<bool>, SqlError> {
    let row: Option<(Option<Timestamp>, Option<Timestamp>)> =
        tx.row("UPDATE polls SET multiple = multiple WHERE message_id = $1 RETURNING closes_at, closed_at", params![uuid(message_id)])?;
    Ok(row.map(|(closes_at, closed_at)| closed_at.is_none() && closes_at.is_none_or(|at| at > now)))
}

/// In place of what the user chose before. False where it is the same.
pub fn set_votes(tx: &Transaction, message_id: &str, user_id: &str, numbers: &[u32]) -> Result<bool, SqlError> {
    let before: Vec<(u32,)> = tx.rows(
        "SELECT number FROM poll_votes WHERE message_id = $1 AND user_id = $2 ORDER BY number",
        params![uuid(message_id), uuid(user_id)],
    )?;
    if before.iter().map(|(number,)| number).eq(numbers) {
        return Ok(false);
    }
    tx.execute("DELETE FROM poll_votes WHERE message_id = $1 AND user_id = $2", params![uuid(message_id), uuid(user_id)])?;
    if !numbers.is_empty() {
        let rows: Vec<String> = (3..3 + numbers.len()).map(|number| format!("($1, $2, ${number})")).collect();
        let sql = format!("INSERT INTO poll_votes (message_id, user_id, number) VALUES {}", rows.join(", "));
        let mut values = params![uuid(message_id), uuid(user_id)];
        values.extend(numbers.iter().map(|number| Value::from(*number)));
        tx.execute(&sql, values)?;
    }
    Ok(true)
}

/// False where it was closed before, by its time or by somebody.
pub fn close(tx: &Transaction, message_id: &str, at: Timestamp) -> Result<bool, SqlError> {
    let sql = "UPDATE polls SET closed_at = $2 WHERE message_id = $1 AND closed_at IS NULL AND (closes_at IS NULL OR closes_at > $2)";
    Ok(tx.execute(sql, params![uuid(message_id), timestamp(at)])? == 1)
}

#[cfg(test)]
mod tests;
