//! Watermarks: up to where a participant's messages are delivered and read, and when they got there.

use echo_sdk::sql::{Database, FromRow, Row, Sql, SqlError, Transaction, Value, placeholders, row_placeholders, timestamp, uuid};
use echo_sdk::{Timestamp, from_row, params};

use crate::bounds::SENDERS_TOLD_MAX;
use crate::rules::Shown;

/// A message that a receipt is about.
pub struct Marked {
    pub id: String,
    pub conversation_id: String,
    pub seq: u64,
    pub sender_id: String,
    /// The recipient blocks the sender, who learns nothing of it.
    pub withheld: bool,
}

from_row!(Marked { id, conversation_id, seq, sender_id, withheld });

/// Whether the user in the first column or parameter blocks the sender of the message `m`.
macro_rules! withheld {
    ($user:literal) => {
        concat!("EXISTS (SELECT 1 FROM blocks b WHERE b.user_id = ", $user, " AND b.blocked_user_id = m.sender_id AND b.active = TRUE)")
    };
}

/// A message that reached a device of a user.
pub struct Reached<'a> {
    pub user_id: &'a str,
    pub message_id: &'a str,
    /// Earlier messages may have reached no device of the user.
    pub behind: bool,
}

/// A message beyond what counts as delivered to a user.
pub struct Undelivered {
    pub user_id: String,
    /// The user's watermark as it is.
    pub delivered_seq: u64,
    pub message: Marked,
}

impl FromRow for Undelivered {
    fn from_row(row: &mut Row) -> Result<Self, SqlError> {
        Ok(Self { user_id: row.take()?, delivered_seq: row.take()?, message: Marked::from_row(row)? })
    }
}

/// Of what was reached the messages that others sent and that are not delivered yet; by user, conversation and seq.
pub fn undelivered_among(reached: &[Reached<'_>]) -> Result<Vec<Undelivered>, SqlError> {
    if reached.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        concat!(
            "WITH reached (user_id, message_id) AS (VALUES {}) \
         SELECT p.user_id, p.delivered_seq, m.id, m.conversation_id, m.seq, m.sender_id, ",
            withheld!("p.user_id"),
            " FROM reached r CROSS JOIN messages m CROSS JOIN participants p \
         WHERE m.id = r.message_id AND m.sender_id <> r.user_id \
         AND p.conversation_id = m.conversation_id AND p.user_id = r.user_id AND (m.seq > p.delivered_seq OR EXISTS \
         (SELECT 1 FROM undelivered u WHERE u.conversation_id = m.conversation_id AND u.user_id = r.user_id AND u.seq = m.seq)) \
         ORDER BY p.user_id, m.conversation_id, m.seq"
        ),
        row_placeholders(reached.len().next_power_of_two(), 2)
    );
    let mut undelivered: Vec<Undelivered> =
        Database.rows(&sql, filled_up(reached, |reached| params![uuid(reached.user_id), uuid(reached.message_id)]))?;
    undelivered.dedup_by(|next, one| (&next.user_id, &next.message.id) == (&one.user_id, &one.message.id));
    Ok(undelivered)
}

/// The rows' values, the last row repeated up to a power of two: so there are few different statements, and each is prepared once.
fn filled_up<T>(rows: &[T], values: impl Fn(&T) -> Vec<Value>) -> Vec<Value> {
    let filling = rows.len().next_power_of_two() - rows.len();
    rows.iter().chain(rows.last().into_iter().cycle().take(filling)).flat_map(values).collect()
}

/// Where a participant's watermark stands, and where it is to stand.
pub struct Step {
    pub conversation_id: String,
    pub user_id: String,
    pub from: u64,
    pub to: u64,
}

/// Moves the watermarks on from where they were seen, and notes when. False where one stands elsewhere by now.
pub fn raise_all_delivered(tx: &Transaction, steps: &[Step], at: Timestamp) -> Result<bool, SqlError> {
    if steps.is_empty() {
        return Ok(true);
    }
    let rows = row_placeholders(steps.len().next_power_of_two(), 4);
    let raised = tx.execute(
        &format!(
            "WITH step (conversation_id, user_id, seen_seq, seq) AS (VALUES {rows}) \
             UPDATE participants SET delivered_seq = step.seq FROM step WHERE participants.conversation_id = step.conversation_id \
             AND participants.user_id = step.user_id AND participants.delivered_seq = step.seen_seq"
        ),
        filled_up(steps, |step| params![uuid(&step.conversation_id), uuid(&step.user_id), step.from, step.to]),
    )?;
    if raised != steps.len() as u64 {
        return Ok(false);
    }
    let rows = row_placeholders(steps.len().next_power_of_two(), 5);
    tx.execute(
        &format!("INSERT INTO receipt_marks (conversation_id, user_id, kind, up_to_seq, at) VALUES {rows} ON CONFLICT DO NOTHING"),
        filled_up(steps, |step| params![uuid(&step.conversation_id), uuid(&step.user_id), "delivered", step.to, timestamp(at)]),
    )?;
    Ok(true)
}

/// Notes that these messages of others, between the two seqs, have reached no device though the watermark is beyond them: all but those given.
pub fn note_undelivered(tx: &Transaction, step: &Step, but: &[u64]) -> Result<(), SqlError> {
    let sql = format!(
        "INSERT INTO undelivered (conversation_id, user_id, seq) SELECT m.conversation_id, $2, m.seq FROM messages m \
         WHERE m.conversation_id = $1 AND m.seq > $3 AND m.seq < $4 AND m.sender_id <> $2 AND m.seq NOT IN ({}) \
         AND NOT EXISTS (SELECT 1 FROM hidden_messages h WHERE h.conversation_id = $1 AND h.user_id = $2 AND h.seq = m.seq \
         AND h.reason = 'blocked') ON CONFLICT DO NOTHING",
        placeholders(5, but.len() + 1)
    );
    // No message has the seq 0: a list of none is not empty either.
    let mut values = params![uuid(&step.conversation_id), uuid(&step.user_id), step.from, step.to, 0];
    values.extend(but.iter().map(|seq| Value::from(*seq as i64)));
    tx.execute(&sql, values)?;
    Ok(())
}

/// They have reached a device after all; how many of them had not.
pub fn forget_undelivered(tx: &Transaction, conversation_id: &str, user_id: &str, from: u64, up_to: u64) -> Result<u64, SqlError> {
    tx.execute(
        "DELETE FROM undelivered WHERE conversation_id = $1 AND user_id = $2 AND seq >= $3 AND seq <= $4",
        params![uuid(conversation_id), uuid(user_id), from, up_to],
    )
}

/// The oldest of these messages that has reached no device, where there is one.
pub fn oldest_undelivered(db: &impl Sql, conversation_id: &str, user_id: &str, up_to: u64) -> Result<Option<u64>, SqlError> {
    let oldest: Option<(u64,)> = db.row(
        "SELECT seq FROM undelivered WHERE conversation_id = $1 AND user_id = $2 AND seq <= $3 ORDER BY seq LIMIT 1",
        params![uuid(conversation_id), uuid(user_id), up_to],
    )?;
    Ok(oldest.map(|(seq,)| seq))
}

/// Of each sender the newest message that the user sees between the two seqs, the upper one included; the newest senders first.
pub fn newest_per_sender(db: &impl Sql, conversation_id: &str, user_id: &str, above: u64, up_to: u64) -> Result<Vec<Marked>, SqlError> {
    db.rows(
        concat!(
            "SELECT m.id, m.conversation_id, m.seq, m.sender_id, ",
            withheld!("$2"),
            " FROM messages m WHERE m.conversation_id = $1 AND m.seq IN \
         (SELECT MAX(n.seq) FROM messages n WHERE n.conversation_id = $1 AND n.seq > $3 AND n.seq <= $4 AND n.sender_id <> $2 \
         AND NOT EXISTS (SELECT 1 FROM hidden_messages h WHERE h.conversation_id = $1 AND h.user_id = $2 AND h.seq = n.seq \
         AND h.reason = 'blocked') GROUP BY n.sender_id) ORDER BY m.seq DESC LIMIT $5"
        ),
        params![uuid(conversation_id), uuid(user_id), above, up_to, SENDERS_TOLD_MAX],
    )
}

/// Moves the watermark on from where it was seen. False where it stands elsewhere by now.
pub fn raise_delivered(tx: &Transaction, conversation_id: &str, user_id: &str, from: u64, to: u64) -> Result<bool, SqlError> {
    let raised = tx.execute(
        "UPDATE participants SET delivered_seq = $4 WHERE conversation_id = $1 AND user_id = $2 AND delivered_seq = $3",
        params![uuid(conversation_id), uuid(user_id), from, to],
    )?;
    Ok(raised == 1)
}

/// What is read is delivered too.
pub fn raise_read(tx: &Transaction, conversation_id: &str, user_id: &str, from: u64, to: u64, shown: Shown) -> Result<bool, SqlError> {
    let raised = tx.execute(
        "UPDATE participants SET read_seq = $4, delivered_seq = CASE WHEN delivered_seq < $4 THEN $4 ELSE delivered_seq END, \
         shown_read_seq = CASE WHEN $5 = TRUE THEN NULL WHEN $6 = TRUE THEN COALESCE(shown_read_seq, read_seq) ELSE shown_read_seq END \
         WHERE conversation_id = $1 AND user_id = $2 AND read_seq = $3",
        params![uuid(conversation_id), uuid(user_id), from, to, shown == Shown::Whole, shown == Shown::KeptBack],
    )?;
    Ok(raised == 1)
}

/// Lets one viewer know of a reading that is kept back from others.
pub fn show_to(tx: &Transaction, conversation_id: &str, user_id: &str, viewer_id: &str, read_seq: u64) -> Result<(), SqlError> {
    tx.execute(
        "INSERT INTO shown_reads (conversation_id, user_id, viewer_id, read_seq) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (conversation_id, user_id, viewer_id) DO UPDATE SET read_seq = excluded.read_seq",
        params![uuid(conversation_id), uuid(user_id), uuid(viewer_id), read_seq],
    )?;
    Ok(())
}

/// `kind`: `delivered` or `read`.
pub fn mark(tx: &Transaction, conversation_id: &str, user_id: &str, kind: &str, up_to_seq: u64, at: Timestamp) -> Result<(), SqlError> {
    tx.execute(
        "INSERT INTO receipt_marks (conversation_id, user_id, kind, up_to_seq, at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (conversation_id, user_id, kind, up_to_seq) DO NOTHING",
        params![uuid(conversation_id), uuid(user_id), kind, up_to_seq, timestamp(at)],
    )?;
    Ok(())
}

/// Drops the oldest marks of before this time.
pub fn drop_marks(before: Timestamp, limit: i64) -> Result<(), SqlError> {
    Database.execute(
        "DELETE FROM receipt_marks WHERE (conversation_id, user_id, kind, up_to_seq) IN \
         (SELECT conversation_id, user_id, kind, up_to_seq FROM receipt_marks WHERE at < $1 ORDER BY at LIMIT $2)",
        params![timestamp(before), limit],
    )?;
    Ok(())
}

/// One recipient of a message.
pub struct Recipient {
    pub user_id: String,
    /// As the sender may know it.
    pub delivered_seq: u64,
    /// As the sender may know it.
    pub shown_read_seq: u64,
    /// The recipient blocked the sender when it was sent.
    pub kept_back: bool,
    pub delivered_at: Option<Timestamp>,
    pub read_at: Option<Timestamp>,
}

from_row!(Recipient { user_id, delivered_seq, shown_read_seq, kept_back, delivered_at, read_at });

/// The participants but the sender who were there when it was sent, in the order they joined.
pub fn recipients_of(conversation_id: &str, seq: u64, sender_id: &str) -> Result<Vec<Recipient>, SqlError> {
    Database.rows(
        concat!(
            "SELECT p.user_id, CASE WHEN EXISTS (SELECT 1 FROM undelivered u WHERE u.conversation_id = $1 AND u.user_id = p.user_id \
             AND u.seq = $2) THEN 0 ELSE ",
            delivered_seq_shown!("p", "$3"),
            " END, ",
            read_seq_shown!("p", "$3"),
            ", EXISTS (SELECT 1 FROM hidden_messages h WHERE h.conversation_id = $1 AND h.user_id = p.user_id AND h.seq = $2 \
             AND h.reason = 'blocked'), \
             (SELECT d.at FROM receipt_marks d WHERE d.conversation_id = $1 AND d.user_id = p.user_id AND d.kind = 'delivered' \
             AND d.up_to_seq >= $2 ORDER BY d.up_to_seq LIMIT 1), \
             (SELECT r.at FROM receipt_marks r WHERE r.conversation_id = $1 AND r.user_id = p.user_id AND r.kind = 'read' \
             AND r.up_to_seq >= $2 ORDER BY r.up_to_seq LIMIT 1) \
             FROM participants p WHERE p.conversation_id = $1 AND p.user_id <> $3 AND p.joined_seq < $2 ORDER BY p.joined_at, p.user_id"
        ),
        params![uuid(conversation_id), seq, uuid(sender_id)],
    )
}

#[cfg(test)]
mod tests;
