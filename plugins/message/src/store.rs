//! All SQL of the message service, one function per question, by what it is about. Written once, in the dialect that SQLite and PostgreSQL
//! share.

use echo_sdk::params;
use echo_sdk::sql::{Sql, SqlError, Transaction, uuid};

/// Up to where a participant has read, as their choice lets a viewer know it: all of it for the participant, and for everybody while nothing is kept back.
macro_rules! read_seq_told {
    ($participant:literal, $viewer:literal) => {
        concat!(
            "CASE WHEN ",
            $participant,
            ".shown_read_seq IS NULL OR ",
            $participant,
            ".user_id = ",
            $viewer,
            " THEN ",
            $participant,
            ".read_seq ELSE COALESCE((SELECT v.read_seq FROM shown_reads v WHERE v.conversation_id = ",
            $participant,
            ".conversation_id AND v.user_id = ",
            $participant,
            ".user_id AND v.viewer_id = ",
            $viewer,
            " AND v.read_seq > ",
            $participant,
            ".shown_read_seq), ",
            $participant,
            ".shown_read_seq) END"
        )
    };
}

/// A participant's watermark as a viewer sees it: who blocks the viewer is where they were when they did.
macro_rules! watermark_shown {
    ($participant:literal, $viewer:literal, $watermark:literal, $otherwise:expr) => {
        concat!(
            "CASE WHEN EXISTS (SELECT 1 FROM blocks b WHERE b.user_id = ",
            $participant,
            ".user_id AND b.blocked_user_id = ",
            $viewer,
            " AND b.active = TRUE) THEN COALESCE((SELECT w.",
            $watermark,
            " FROM withheld_receipts w WHERE w.conversation_id = ",
            $participant,
            ".conversation_id AND w.user_id = ",
            $participant,
            ".user_id AND w.viewer_id = ",
            $viewer,
            "), ",
            $participant,
            ".joined_seq) ELSE ",
            $otherwise,
            " END"
        )
    };
}

/// Up to where a participant has read, as a viewer may know it.
macro_rules! read_seq_shown {
    ($participant:literal, $viewer:literal) => {
        watermark_shown!($participant, $viewer, "read_seq", read_seq_told!($participant, $viewer))
    };
}

/// Up to where a participant's messages are delivered, as a viewer may know it.
macro_rules! delivered_seq_shown {
    ($participant:literal, $viewer:literal) => {
        watermark_shown!($participant, $viewer, "delivered_seq", concat!($participant, ".delivered_seq"))
    };
}

pub mod conversations;
pub mod erasure;
pub mod exports;
pub mod invites;
pub mod marks;
pub mod messages;
pub mod polls;
pub mod receipts;
pub mod scheduled;
pub mod words;

/// Keeps the newest revision of what one user has to do with another.
pub fn record_block(tx: &Transaction, user_id: &str, blocked: &str, active: bool, revision: u64) -> Result<(), SqlError> {
    tx.execute(
        "INSERT INTO blocks (user_id, blocked_user_id, active, revision) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (user_id, blocked_user_id) DO UPDATE SET active = excluded.active, revision = excluded.revision \
         WHERE blocks.revision < excluded.revision",
        params![uuid(user_id), uuid(blocked), active, revision],
    )?;
    Ok(())
}

/// Whether this revision is newer than what is known.
pub fn is_news(tx: &Transaction, user_id: &str, blocked: &str, revision: u64) -> Result<bool, SqlError> {
    let sql = "SELECT 1 FROM blocks WHERE user_id = $1 AND blocked_user_id = $2 AND revision >= $3";
    Ok(tx.row::<(i64,)>(sql, params![uuid(user_id), uuid(blocked), revision])?.is_none())
}

/// What the viewer may know of the user's receipts stays as it is, in every conversation of both.
pub fn withhold_receipts(tx: &Transaction, user_id: &str, viewer_id: &str) -> Result<(), SqlError> {
    tx.execute(
        concat!(
            "INSERT INTO withheld_receipts (conversation_id, user_id, viewer_id, delivered_seq, read_seq) \
             SELECT p.conversation_id, p.user_id, v.user_id, p.delivered_seq, ",
            read_seq_told!("p", "$2"),
            " FROM participants p JOIN participants v ON v.conversation_id = p.conversation_id AND v.user_id = $2 WHERE p.user_id = $1 \
             ON CONFLICT (conversation_id, user_id, viewer_id) DO UPDATE SET \
             delivered_seq = excluded.delivered_seq, read_seq = excluded.read_seq"
        ),
        params![uuid(user_id), uuid(viewer_id)],
    )?;
    Ok(())
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
