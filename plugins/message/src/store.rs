//! All SQL of the message service, one function per question, by what it is about. Written once, in the dialect that SQLite and PostgreSQL
//! share.

use echo_sdk::params;
use echo_sdk::sql::{Database, Sql, SqlError, uuid};

/// Up to where a participant has read, as a viewer may know it: all of it for the participant, and for everybody while nothing is kept back.
macro_rules! read_seq_shown {
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

pub mod conversations;
pub mod messages;
pub mod receipts;

/// Keeps the newest revision of what one user has to do with another.
pub fn record_block(user_id: &str, blocked: &str, active: bool, revision: u64) -> Result<(), SqlError> {
    Database.execute(
        "INSERT INTO blocks (user_id, blocked_user_id, active, revision) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (user_id, blocked_user_id) DO UPDATE SET active = excluded.active, revision = excluded.revision \
         WHERE blocks.revision < excluded.revision",
        params![uuid(user_id), uuid(blocked), active, revision],
    )?;
    Ok(())
}
